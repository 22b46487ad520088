#include "cli/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/utf8.h"

/* Cells are one array, row after row; the headings are row 0. */
struct table {
    char *align;
    char **cells;
    size_t n_columns, n_cells, cap;
    bool failed;
};

static void add(table *t, char *cell)
{
    if (t->n_cells == t->cap) {
        const size_t cap = t->cap == 0 ? 64 : 2 * t->cap;
        char **grown = reallocarray(t->cells, cap, sizeof *grown);
        if (grown == NULL) {
            free(cell);
            cell = NULL;
        } else {
            t->cells = grown;
            t->cap = cap;
        }
    }
    if (cell == NULL)
        t->failed = true;
    else
        t->cells[t->n_cells++] = cell;
}

table *table_new(const char *align, const char *const *headings)
{
    table *t = calloc(1, sizeof *t);
    if (t == NULL) return NULL;
    t->align = strdup(align);
    t->failed = t->align == NULL;
    t->n_columns = strlen(align);
    for (size_t i = 0; i < t->n_columns; i++) add(t, strdup(headings[i]));
    return t;
}

void table_free(table *t)
{
    if (t == NULL) return;
    for (size_t i = 0; i < t->n_cells; i++) free(t->cells[i]);
    free(t->cells);
    free(t->align);
    free(t);
}

void table_cell(table *t, const char *format, ...)
{
    if (t == NULL || t->failed) return;
    char *cell = NULL;
    va_list args;
    va_start(args, format);
    if (vasprintf(&cell, format, args) < 0) cell = NULL;
    va_end(args);
    add(t, cell);
}

bool table_failed(const table *t)
{
    return t == NULL || t->failed;
}

static size_t column_width(const table *t, size_t column)
{
    size_t width = 0;
    for (size_t i = column; i < t->n_cells; i += t->n_columns) {
        const size_t w = utf8_width(t->cells[i]);
        if (w > width) width = w;
    }
    return width;
}

/* Lines are not padded behind their last word. */
static void print_cell(const table *t, size_t i, size_t width, bool pad_end, FILE *out)
{
    const int pad = (int)(width - utf8_width(t->cells[i]));
    const bool right = t->align[i % t->n_columns] == 'r';
    fprintf(out, "%*s%s%*s", right ? pad : 0, "", t->cells[i], right || !pad_end ? 0 : pad, "");
}

void table_print(const table *t, FILE *out)
{
    if (table_failed(t)) return;
    for (size_t i = 0; i < t->n_cells; i++) {
        const bool last = i % t->n_columns + 1 == t->n_columns;
        print_cell(t, i, column_width(t, i % t->n_columns), !last, out);
        fputs(last ? "\n" : "  ", out);
    }
}

static void print_rule(const table *t, FILE *out)
{
    for (size_t c = 0; c < t->n_columns; c++) {
        fputs(c == 0 ? "| " : " ", out);
        for (size_t w = column_width(t, c), i = 1; i < w; i++) fputc('-', out);
        fputs(t->align[c] == 'r' ? ": |" : "- |", out);
    }
    fputc('\n', out);
}

void table_print_markdown(const table *t, FILE *out)
{
    if (table_failed(t)) return;
    for (size_t i = 0; i < t->n_cells; i++) {
        const size_t column = i % t->n_columns;
        fputs(column == 0 ? "| " : " ", out);
        print_cell(t, i, column_width(t, column), true, out);
        fputs(column + 1 == t->n_columns ? " |\n" : " |", out);
        if (i + 1 == t->n_columns) print_rule(t, out);
    }
}

void table_print_html(const table *t, const char *caption, FILE *out)
{
    if (table_failed(t)) return;
    fputs("<table>\n<caption><span>", out);
    utf8_print_html(caption, out);
    fputs("</span></caption>\n<thead>\n", out);
    for (size_t i = 0; i < t->n_cells; i++) {
        const size_t column = i % t->n_columns;
        const bool heading = i < t->n_columns, row_heading = !heading && column == 0;
        if (column == 0) fputs("<tr>", out);
        fputs(heading ? "<th scope=\"col\"" : row_heading ? "<th scope=\"row\"" : "<td", out);
        fprintf(out, " class=\"%c\">", t->align[column]);
        utf8_print_html(t->cells[i], out);
        fputs(heading || row_heading ? "</th>" : "</td>", out);
        if (column + 1 == t->n_columns) fputs("</tr>\n", out);
        if (i + 1 == t->n_columns) fputs("</thead>\n<tbody>\n", out);
    }
    fputs("</tbody>\n</table>\n", out);
}
