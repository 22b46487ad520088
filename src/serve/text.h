/* text.h: texts that go into JSON, which takes well-formed UTF-8 and finite numbers only. Pure. */
#ifndef SERVE_TEXT_H
#define SERVE_TEXT_H

#include <jansson.h>
#include <stddef.h>

/* A string of any bytes [len], NULL where len is 0; what is not UTF-8 becomes U+FFFD, one for each byte. Returns NULL
 * out of memory. */
json_t *text_json_n(const char *text, size_t len);
json_t *text_json(const char *text);
/* A number, null where it is not finite. */
json_t *number_json(double value);

#endif
