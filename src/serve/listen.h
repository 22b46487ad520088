/* listen.h: the socket that the server listens on. */
#ifndef SERVE_LISTEN_H
#define SERVE_LISTEN_H

#include <stdint.h>

#include "base/status.h"

typedef struct listener {
    int fd;
    uint16_t port; /* the real one where 0 was asked for */
    bool loopback; /* only this machine can reach it */
    char url[300];
} listener;

#define LISTENER_NONE ((listener){.fd = -1})

/* Takes the address, so that one in use is found out before a model is loaded; connections are refused until
 * listener_start(). */
mp_status listener_open(const char *host, uint16_t port, listener *out, mp_error *err);
mp_status listener_start(const listener *l, mp_error *err);
void listener_close(listener *l);

#endif
