#include "cli/line_chart.h"

#include <math.h>

/* In units of the picture. */
enum { WIDTH = 860, HEIGHT = 460, LEFT = 70, RIGHT = 230, TOP = 44, BOTTOM = 56, TICKS = 5 };

/* Apart for those who see fewer colours too (Okabe and Ito). */
static const char *const COLOURS[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9"};
enum { N_COLOURS = sizeof COLOURS / sizeof *COLOURS };

typedef struct frame {
    double x_most, y_most, x_step, y_step; /* what the axes reach, and from tick to tick */
    FILE *out;
} frame;

/* 1, 2 or 5 times a power of ten, so that about TICKS of them reach `most`. */
static double tick_step(double most)
{
    const double rough = most / TICKS, power = pow(10, floor(log10(rough))), lead = rough / power;
    return power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
}

static double place_x(const frame *f, double x)
{
    return LEFT + (WIDTH - LEFT - RIGHT) * x / f->x_most;
}

static double place_y(const frame *f, double y)
{
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / f->y_most;
}

static void write_text(const frame *f, double x, double y, const char *how, const char *text)
{
    fprintf(f->out, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, how);
    for (; *text; text++) {
        if (*text == '&' || *text == '<' || *text == '>')
            fprintf(f->out, "&#%d;", *text);
        else
            fputc(*text, f->out);
    }
    fputs("</text>\n", f->out);
}

static frame measure(const line_chart *chart, FILE *out)
{
    frame f = {.out = out};
    for (size_t i = 0; i < chart->n_lines; i++)
        for (size_t k = 0; k < chart->lines[i].n; k++) {
            f.x_most = fmax(f.x_most, chart->lines[i].x[k]);
            f.y_most = fmax(f.y_most, chart->lines[i].y[k]);
        }
    if (!(f.x_most > 0)) f.x_most = 1;
    if (!(f.y_most > 0)) f.y_most = 1;
    f.x_step = tick_step(f.x_most);
    f.y_step = tick_step(f.y_most);
    f.x_most = ceil(f.x_most / f.x_step - 1e-9) * f.x_step;
    f.y_most = ceil(f.y_most / f.y_step - 1e-9) * f.y_step;
    return f;
}

static void write_axes(const frame *f, const line_chart *chart)
{
    char number[32], turned[64];
    for (int i = 0; i * f->y_step <= f->y_most * (1 + 1e-9); i++) {
        const double y = place_y(f, i * f->y_step);
        fprintf(f->out, "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/>\n", LEFT, y, WIDTH - RIGHT);
        snprintf(number, sizeof number, "%g", i * f->y_step);
        write_text(f, LEFT - 8, y + 4, "text-anchor=\"end\"", number);
    }
    for (int i = 0; i * f->x_step <= f->x_most * (1 + 1e-9); i++) {
        const double x = place_x(f, i * f->x_step);
        fprintf(f->out, "<path d=\"M%.1f %dv5\" stroke=\"#888\"/>\n", x, HEIGHT - BOTTOM);
        snprintf(number, sizeof number, "%g", i * f->x_step);
        write_text(f, x, HEIGHT - BOTTOM + 20, "text-anchor=\"middle\"", number);
    }
    fprintf(f->out, "<path d=\"M%d %dH%d\" stroke=\"#888\"/>\n", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT);
    snprintf(turned, sizeof turned, "text-anchor=\"middle\" transform=\"rotate(-90 18 %d)\"",
             (HEIGHT + TOP - BOTTOM) / 2);
    write_text(f, LEFT, 24, "font-size=\"16\"", chart->title);
    write_text(f, (WIDTH + LEFT - RIGHT) / 2.0, HEIGHT - 12, "text-anchor=\"middle\"", chart->x_title);
    write_text(f, 18, (HEIGHT + TOP - BOTTOM) / 2.0, turned, chart->y_title);
}

static void write_line(const frame *f, const line_chart_line *line, size_t row)
{
    const double x = WIDTH - RIGHT + 20, y = TOP + 20.0 * (double)row;
    fprintf(f->out, "<g fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s>\n<path d=\"",
            COLOURS[line->colour % N_COLOURS], line->dashed ? " stroke-dasharray=\"6 4\"" : "");
    for (size_t i = 0; i < line->n; i++)
        fprintf(f->out, "%c%.1f %.1f", i ? 'L' : 'M', place_x(f, line->x[i]), place_y(f, line->y[i]));
    fprintf(f->out, "\"/>\n<path d=\"M%.1f %.1fh28\"/>\n</g>\n", x, y);
    write_text(f, x + 36, y + 4, "", line->label);
}

void line_chart_write(const line_chart *chart, FILE *out)
{
    const frame f = measure(chart, out);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
            "font-family=\"system-ui,sans-serif\" font-size=\"13\">\n<rect width=\"100%%\" height=\"100%%\" "
            "fill=\"#fff\"/>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT);
    write_axes(&f, chart);
    for (size_t i = 0; i < chart->n_lines; i++) write_line(&f, &chart->lines[i], i);
    fputs("</svg>\n", out);
}
