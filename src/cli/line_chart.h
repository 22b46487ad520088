/* line_chart.h: a chart of lines as an SVG file, which browsers and documents show as it is. */
#ifndef CLI_LINE_CHART_H
#define CLI_LINE_CHART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct line_chart_line {
    const char *label;
    unsigned colour; /* an index; the same again looks the same */
    bool dashed;
    const double *x, *y; /* [n] finite, x ascending */
    size_t n;
} line_chart_line;

typedef struct line_chart {
    const char *title, *x_title, *y_title;
    const line_chart_line *lines; /* [n_lines] */
    size_t n_lines;
} line_chart;

/* Axes begin at 0. */
void line_chart_write(const line_chart *chart, FILE *out);

#endif
