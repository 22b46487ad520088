/* config_file.h: options in a file: `name = value` lines with the names of the command line, # begins a comment. */
#ifndef CLI_CONFIG_FILE_H
#define CLI_CONFIG_FILE_H

#include "base/status.h"

typedef struct config_line {
    const char *name, *value; /* trimmed; the value may be empty */
    unsigned line;            /* from 1 */
} config_line;

typedef struct config_file {
    char *text; /* what the lines point into */
    config_line *lines;
    size_t n;
} config_file;

/* MP_E_INVALID with the line's number where one is not of that form. */
mp_status config_file_read(const char *path, config_file *out, mp_error *err);
void config_file_clear(config_file *c);

#endif
