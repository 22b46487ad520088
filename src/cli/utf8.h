/* utf8.h: just enough UTF-8 for output: widths, escapes. Pure. */
#ifndef CLI_UTF8_H
#define CLI_UTF8_H

#include <stddef.h>
#include <stdio.h>

#include "base/utf8.h"

/* Code points of a text; strange bytes count one each. */
size_t utf8_width(const char *text);
/* Prints text [len] so that it stays in one line: \n \t \r \\ \' and \xHH for other controls and strange bytes. */
void utf8_print_escaped(const char *text, size_t len, FILE *out);
/* Prints a text for use in HTML, between tags or in a quoted attribute; strange bytes become U+FFFD. */
void utf8_print_html(const char *text, FILE *out);

#endif
