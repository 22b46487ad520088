/* utf8.h: just enough UTF-8 for output: whole sequences, widths, escapes. Pure. */
#ifndef CLI_UTF8_H
#define CLI_UTF8_H

#include <stddef.h>
#include <stdio.h>

/* Bytes of the well-formed sequence that text [len] begins with, 0 where there is none. */
size_t utf8_sequence(const char *text, size_t len);
/* Bytes at the end of text [len] that begin a sequence whose rest may still come: 0 to 3. */
size_t utf8_unfinished(const char *text, size_t len);
/* Code points of a text; strange bytes count one each. */
size_t utf8_width(const char *text);
/* Prints text [len] so that it stays in one line: \n \t \r \\ \' and \xHH for other controls and strange bytes. */
void utf8_print_escaped(const char *text, size_t len, FILE *out);
/* Prints a text for use in HTML, between tags or in a quoted attribute; strange bytes become U+FFFD. */
void utf8_print_html(const char *text, FILE *out);

#endif
