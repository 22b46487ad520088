/* table.h: rows of text with aligned columns, printed for people, as Markdown or as HTML. The caller frees. */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <stdbool.h>
#include <stdio.h>

typedef struct table table;

/* One heading per letter of `align`: 'l' or 'r'. NULL: out of memory. */
table *table_new(const char *align, const char *const *headings);
void table_free(table *t);
/* The next cell, row by row. What memory does not suffice for makes table_failed() true. NULL is fine. */
void table_cell(table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool table_failed(const table *t);

void table_print(const table *t, FILE *out);
void table_print_markdown(const table *t, FILE *out);
void table_print_html(const table *t, const char *caption, FILE *out);

#endif
