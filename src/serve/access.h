/* access.h: who may ask: API keys, and what a browser may be talked into.
 *
 * A server on the loopback address is within reach of every page that a browser on this machine shows. Two things keep
 * pages out: the Host header must name this machine (a page that points its own name at 127.0.0.1, DNS rebinding, names
 * itself), and a request that carries an Origin, as all do that scripts of other sites send, must come from a page of
 * this server or from one that --cors-origin lets in. */
#ifndef SERVE_ACCESS_H
#define SERVE_ACCESS_H

#include <stddef.h>

#include "base/status.h"

typedef struct access_rules access_rules;

/* `key_file`: one key a line, blank lines and such that begin with # left out; NULL: no keys. `cors_origins`: origins
 * with commas between, or "*"; NULL: none. `host`: the name that the server was told to listen on; `loopback`: it is
 * this machine's own address, so the Host header is checked. */
mp_status access_open(const char *key_file, const char *cors_origins, const char *host, bool loopback,
                      access_rules **out, mp_error *err);
void access_close(access_rules *rules); /* NULL is fine */

bool access_needs_key(const access_rules *rules);
/* `authorization`: "Bearer KEY", `x_api_key`: the key; either may be NULL. The time it takes tells nothing of the keys.
 */
bool access_key(const access_rules *rules, const char *authorization, const char *x_api_key);
/* The Host header, NULL: there is none (HTTP/1.0). */
bool access_host(const access_rules *rules, const char *host);
/* Origin as a header has it, NULL: none. */
bool access_origin(const access_rules *rules, const char *origin, const char *host);
/* Whether answers to that origin may be read by its scripts (CORS). */
bool access_cors(const access_rules *rules, const char *origin);

#endif
