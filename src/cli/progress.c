#include "cli/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/interrupt.h"

#define SECOND_NS 1000000000ull
#define REDRAW_NS (SECOND_NS / 10)
#define PLAIN_NS  (10 * SECOND_NS)

const char *format_duration(double seconds, char *buf, size_t cap)
{
    if (seconds < 0.9995) {
        snprintf(buf, cap, "%.0f ms", seconds * 1e3);
    } else if (seconds < 9.95) {
        snprintf(buf, cap, "%.1f s", seconds);
    } else if (seconds < 59.5) {
        snprintf(buf, cap, "%.0f s", seconds);
    } else if (seconds < 3599.5) {
        const unsigned s = (unsigned)(seconds + 0.5);
        snprintf(buf, cap, "%u min %02u s", s / 60, s % 60);
    } else {
        const unsigned long m = (unsigned long)(seconds / 60 + 0.5);
        snprintf(buf, cap, "%lu h %02lu min", m / 60, m % 60);
    }
    return buf;
}

const char *format_bytes(uint64_t bytes, char *buf, size_t cap)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    snprintf(buf, cap, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
    return buf;
}

void progress_begin(progress *p, bool quiet_stages)
{
    const char *term = getenv("TERM");
    *p = (progress){.quiet_stages = quiet_stages};
    p->terminal = isatty(STDERR_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
}

static int terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1) return size.ws_col - 1;
    return 79;
}

static void clear_line(progress *p)
{
    if (p->line_open) fputs("\r\033[K", stderr);
    p->line_open = false;
}

static int put_stage(const mp_progress *now, char *buf, size_t cap)
{
    if (now->layer >= 0 && now->n_layers > 0)
        return snprintf(buf, cap, "%s, layer %d of %d", now->stage, now->layer + 1, now->n_layers);
    return snprintf(buf, cap, "%s", now->stage);
}

/* "profile, layer 3 of 16: 45 %, 1200 of 2600 tokens, 20 s left" */
static void put_state(const mp_progress *now, char *buf, size_t cap)
{
    char left[32];
    int n = put_stage(now, buf, cap);
    if (now->total == 0) return;
    const uint64_t done = now->done < now->total ? now->done : now->total;
    const double share = (double)done / (double)now->total;
    n += snprintf(buf + n, cap - (size_t)n, ": %.0f %%, %llu of %llu %s", share * 100, (unsigned long long)done,
                  (unsigned long long)now->total, now->unit != NULL ? now->unit : "");
    if (done > 0 && now->elapsed_ns > SECOND_NS / 2)
        snprintf(buf + n, cap - (size_t)n, ", %s left",
                 format_duration((double)now->elapsed_ns * 1e-9 * (1 - share) / share, left, sizeof left));
}

static void show(progress *p, const mp_progress *now, uint64_t clock)
{
    char line[256];
    put_state(now, line, sizeof line);
    if (p->terminal) {
        fprintf(stderr, "\r%.*s\033[K", terminal_width(), line);
        p->line_open = true;
    } else {
        fprintf(stderr, "%s\n", line);
    }
    fflush(stderr);
    p->shown_ns = clock;
}

static bool known(const progress *p, const char *stage)
{
    for (size_t i = 0; i < p->n_seen; i++)
        if (strcmp(p->seen[i], stage) == 0) return true;
    return false;
}

/* Where a stage comes back for every layer, its short visits are not worth a line. */
static void tell_end(progress *p)
{
    char stage[128], took[32];
    if (p->quiet_stages || p->last.stage == NULL) return;
    if (known(p, p->last.stage) && p->last.elapsed_ns < PLAIN_NS) return;
    if (!known(p, p->last.stage) && p->n_seen < PROGRESS_STAGES) p->seen[p->n_seen++] = p->last.stage;
    put_stage(&p->last, stage, sizeof stage);
    clear_line(p);
    fprintf(stderr, "%s: done in %s\n", stage, format_duration((double)p->last.elapsed_ns * 1e-9, took, sizeof took));
}

bool progress_update(void *user, const mp_progress *now)
{
    progress *p = user;
    const uint64_t clock = clock_now_ns();
    const bool new_stage = p->last.stage == NULL || strcmp(p->last.stage, now->stage) != 0;
    if (new_stage) tell_end(p);
    p->last = *now;
    uint64_t wait = p->terminal ? REDRAW_NS : PLAIN_NS;
    if (new_stage && !p->quiet_stages && !known(p, now->stage) && now->done < now->total) wait = 0;
    if (p->shown_ns == 0 && !p->terminal) p->shown_ns = clock; /* nothing is said about what is soon over */
    if (clock - p->shown_ns >= wait) show(p, now, clock);
    return !interrupt_seen();
}

void progress_end(progress *p, bool finished)
{
    if (finished) tell_end(p);
    clear_line(p);
    p->last.stage = NULL;
    fflush(stderr);
}

bool progress_load(void *user, const mp_progress *now)
{
    static progress shown;
    (void)user;
    if (shown.last.stage == NULL) progress_begin(&shown, true);
    const bool go_on = progress_update(&shown, now);
    if (!go_on || now->done == now->total) progress_end(&shown, go_on);
    return go_on;
}
