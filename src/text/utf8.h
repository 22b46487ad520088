/* utf8.h: characters, and the printable characters that GPT-2 gives to bytes. Pure functions without state.
 *
 * A byte that is a printable, unspaced Latin-1 character stands for itself; the n-th of the others, in ascending
 * order, is U+0100 + n. So a token of any bytes is readable text, and " the" is written "\u0120the". */
#ifndef TEXT_UTF8_H
#define TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the character that text [len > 0] begins with, 0 where that is not one: overlong forms, surrogates and
 * what is past U+10FFFF are refused. */
size_t utf8_next(const char *text, size_t len, uint32_t *character);
/* Length of the longest valid beginning. */
size_t utf8_valid(const char *text, size_t len);
/* Length of the beginning in which no byte begins a valid character. */
size_t utf8_invalid(const char *text, size_t len);

/* UTF-8 of a byte's character: 1 or 2 bytes into out, returns how many. */
size_t byte_to_text(uint8_t byte, char out[2]);
/* The byte that a character stands for, -1: none. */
int byte_of_character(uint32_t character);

#endif
