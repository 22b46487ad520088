/* routes.h: the addresses that are answered: by a generation of some API, or at once by a function. */
#ifndef SERVE_ROUTES_H
#define SERVE_ROUTES_H

#include "serve/api.h"
#include "serve/page.h"

/* An answer that is complete. */
typedef struct reply {
    unsigned http;    /* 200 unless set otherwise */
    const char *type; /* content type, static; NULL: JSON */
    buffer body;
    const page_file *page; /* instead of the body */
} reply;

typedef enum route_method { ROUTE_GET, ROUTE_POST } route_method;

typedef struct route {
    const char *path;
    bool prefix; /* what begins with it as well; the rest is handed over */
    route_method method;
    bool open;                    /* needs no key */
    const api_protocol *protocol; /* of a generation; else */
    /* `rest` is what follows the path, `body` the JSON that was sent (NULL for GET). False: err. */
    bool (*answer)(const api_context *api, const char *rest, const json_t *body, reply *out, api_error *err);
    json_t *(*error)(const api_error *err); /* the shape of errors */
} route;

/* NULL: there is none. *rest is what follows the route's path. */
const route *route_find(const char *path, const char **rest);

#endif
