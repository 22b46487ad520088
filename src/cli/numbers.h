/* numbers.h: strict readers of numbers: the whole string, in range, or false. */
#ifndef CLI_NUMBERS_H
#define CLI_NUMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool number_u64(const char *text, uint64_t *out); /* decimal digits only: no sign, no space */
bool number_f64(const char *text, double *out);   /* finite */
/* As number_f64; a "%" at the end divides by 100. */
bool number_share(const char *text, double *out);
/* Bytes: "1048576", "512M", "1.5G", "8GiB"; K, M, G and T are powers of 1024. */
bool number_bytes(const char *text, uint64_t *out);
/* "1,3,5-8": up to `cap` values of 32 bits. */
bool number_list(const char *text, uint32_t *values, size_t cap, size_t *n);

#endif
