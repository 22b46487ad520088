/* The Chart.js library as bytes of the program, so that a report is one file that needs no network. The Makefile names
 * the file (CHART_JS); .incbin takes no time, where a C array of the same bytes takes seconds to compile. */
    .section .rodata
    .global chart_js_start
    .global chart_js_end
    .type chart_js_start, @object
    .type chart_js_end, @object
    .balign 16
chart_js_start:
    .incbin CHART_JS
chart_js_end:
    .byte 0
    .size chart_js_start, chart_js_end - chart_js_start
    .size chart_js_end, 1

    .section .note.GNU-stack, "", @progbits
