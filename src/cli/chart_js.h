/* chart_js.h: the Chart.js library (MIT license, its notice is in the text), embedded at build for HTML reports. */
#ifndef CLI_CHART_JS_H
#define CLI_CHART_JS_H

#include <stddef.h>

extern const char chart_js_start[]; /* JavaScript, ends at chart_js_end, where a 0 follows */
extern const char chart_js_end[];

static inline size_t chart_js_size(void)
{
    return (size_t)(chart_js_end - chart_js_start);
}

#endif
