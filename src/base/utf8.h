/* utf8.h: sequences of well-formed UTF-8 (RFC 3629). Pure. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>

/* Bytes of the well-formed sequence that text [len] begins with, 0 where there is none. */
size_t utf8_sequence(const char *text, size_t len);
/* Bytes at the end of text [len] that begin a sequence whose rest may still come: 0 to 3. */
size_t utf8_unfinished(const char *text, size_t len);

#endif
