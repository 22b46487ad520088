/* page.h: the page at `/` and its parts, embedded at build: constants of the program, for any thread.
 *
 * The same Chart.js goes into the HTML reports of `moeprism eval`. */
#ifndef SERVE_PAGE_H
#define SERVE_PAGE_H

#include <stddef.h>
#include <stdint.h>

typedef struct page_file {
    const char *path, *type; /* of the URL, "/" is the page itself; the value of Content-Type */
    const uint8_t *data;     /* [len] */
    size_t len;
} page_file;

/* NULL where no file has this path. */
const page_file *page_find(const char *path);
/* The i-th of them; NULL past the end. */
const page_file *page_at(size_t i);

#endif
