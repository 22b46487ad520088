#include "serve/routes.h"

#include <string.h>

#include "serve/answers.h"
#include "serve/page.h"

static const route routes[] = {
    {.path = "/v1/chat/completions", .method = ROUTE_POST, .protocol = &api_chat, .error = api_error_openai},
    {.path = "/v1/completions", .method = ROUTE_POST, .protocol = &api_completions, .error = api_error_openai},
    {.path = "/v1/messages", .method = ROUTE_POST, .protocol = &api_messages, .error = api_error_anthropic},
    {.path = "/v1/messages/count_tokens",
     .method = ROUTE_POST,
     .answer = answer_count_tokens,
     .error = api_error_anthropic},
    {.path = "/v1/models", .method = ROUTE_GET, .answer = answer_models, .error = api_error_openai},
    {.path = "/v1/models/", .prefix = true, .method = ROUTE_GET, .answer = answer_model, .error = api_error_openai},
    {.path = "/tokenize", .method = ROUTE_POST, .answer = answer_tokenize, .error = api_error_openai},
    {.path = "/detokenize", .method = ROUTE_POST, .answer = answer_detokenize, .error = api_error_openai},
    {.path = "/props", .method = ROUTE_GET, .answer = answer_props, .error = api_error_openai},
    {.path = "/metrics", .method = ROUTE_GET, .answer = answer_metrics, .error = api_error_openai},
    {.path = "/health", .method = ROUTE_GET, .open = true, .answer = answer_health, .error = api_error_openai},
};

/* Every file of the page at /. */
static const route page = {.method = ROUTE_GET, .open = true, .answer = answer_page, .error = api_error_openai};

const route *route_find(const char *path, const char **rest)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const size_t len = strlen(routes[i].path);
        if (strncmp(path, routes[i].path, len) != 0 || (path[len] != '\0' && !routes[i].prefix)) continue;
        *rest = path + len;
        return &routes[i];
    }
    *rest = path;
    return page_find(path) != NULL ? &page : NULL;
}
