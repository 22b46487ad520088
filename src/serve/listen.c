#include "serve/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 1024 };

static int bind_socket(const struct addrinfo *a)
{
    const int yes = 1, fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0) return fd;
    const int why = errno;
    close(fd);
    errno = why;
    return -1;
}

static void describe(listener *l, const char *host)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } at = {0};
    socklen_t len = sizeof at;
    getsockname(l->fd, &at.any, &len);
    const bool v6 = at.any.sa_family == AF_INET6;
    l->port = ntohs(v6 ? at.v6.sin6_port : at.v4.sin_port);
    l->loopback = v6 ? IN6_IS_ADDR_LOOPBACK(&at.v6.sin6_addr) : ntohl(at.v4.sin_addr.s_addr) >> 24 == 127;
    const bool bare = strchr(host, ':') != NULL; /* an IPv6 address */
    snprintf(l->url, sizeof l->url, "http://%s%s%s:%u", bare ? "[" : "", host, bare ? "]" : "", l->port);
}

mp_status listener_open(const char *host, uint16_t port, listener *out, mp_error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    *out = LISTENER_NONE;
    const int failed = getaddrinfo(host, service, &hints, &found);
    if (failed != 0)
        return status_fail(err, MP_E_INVALID, "cannot listen on %s (--host): %s", host, gai_strerror(failed));
    for (const struct addrinfo *a = found; a != NULL && out->fd < 0; a = a->ai_next) out->fd = bind_socket(a);
    const int why = errno;
    freeaddrinfo(found);
    if (out->fd < 0)
        return status_fail(err, MP_E_IO, "cannot listen on %s port %u: %s%s", host, port, strerror(why),
                           why == EADDRINUSE ? "; another program has it (--port chooses another)" : "");
    describe(out, host);
    return MP_OK;
}

mp_status listener_start(const listener *l, mp_error *err)
{
    if (listen(l->fd, BACKLOG) == 0) return MP_OK;
    return status_fail(err, MP_E_IO, "cannot listen on %s: %s", l->url,
                       errno == EADDRINUSE ? "another program has the port (--port chooses another)" : strerror(errno));
}

void listener_close(listener *l)
{
    if (l->fd >= 0) close(l->fd);
    *l = LISTENER_NONE;
}
