/* output.h: results to standard output or to a file that appears only when it is whole; JSON by Jansson. */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <jansson.h>
#include <stdio.h>

#include "moeprism.h"

/* A text composed in memory. Begin, print to `stream`, then one of finish or drop. */
typedef struct output {
    FILE *stream;
    char *data;
    size_t len;
} output;

mp_status output_begin(output *out, mp_error *err);
/* Writes the text to `path` (NULL or "-": standard output), replacing what is there, and frees it. */
mp_status output_finish(output *out, const char *path, mp_error *err);
void output_drop(output *out);

/* Writes `root` and a newline as output_finish() does; takes over the reference. NULL is out of memory. */
mp_status output_json(json_t *root, const char *path, mp_error *err);
/* A string for any bytes: what is not UTF-8 becomes U+FFFD. NULL gives null. */
json_t *json_text(const char *text);
/* A number, null where it is not finite (JSON has no such numbers). */
json_t *json_number(double value);

/* All that can be read from standard input, terminated by a 0 that *len does not count; the caller frees. */
mp_status input_read_stdin(char **data, size_t *len, mp_error *err);
/* The file `path`, or standard input where it is NULL or "-". */
mp_status input_read(const char *path, char **data, size_t *len, mp_error *err);

#endif
