#include "serve/access.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"

enum { DIGEST = 65 }; /* hex of SHA-256, terminated */

struct access_rules {
    char (*keys)[DIGEST]; /* [n_keys] digests: of one length, whatever the keys' */
    size_t n_keys;
    bool keyed;
    char *origins, *host;
    bool loopback;
};

/* ---- keys ---- */

static mp_status add_key(access_rules *rules, const char *key, size_t len, mp_error *err)
{
    void *grown = realloc(rules->keys, (rules->n_keys + 1) * sizeof *rules->keys);
    if (grown == NULL) return status_no_memory(err, DIGEST, "the API keys");
    rules->keys = grown;
    sha256_hex(key, len, rules->keys[rules->n_keys++]);
    return MP_OK;
}

static mp_status read_keys(access_rules *rules, const char *path, mp_error *err)
{
    char *text;
    size_t len;
    mp_status status = file_read(path, &text, &len, err);
    if (status != MP_OK || text == NULL) return status;
    for (char *line = text, *next; status == MP_OK && line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL) *next++ = '\0';
        line += strspn(line, " \t\r");
        size_t n = strlen(line);
        while (n > 0 && strchr(" \t\r", line[n - 1]) != NULL) n--;
        if (n > 0 && line[0] != '#') status = add_key(rules, line, n, err);
    }
    explicit_bzero(text, len);
    free(text);
    if (status == MP_OK && rules->n_keys == 0)
        status = status_fail(err, MP_E_INVALID, "%s holds no key: write one a line", path);
    rules->keyed = true;
    return status;
}

/* All keys are compared, all of each. */
static bool known_key(const access_rules *rules, const char *key)
{
    char digest[DIGEST];
    unsigned found = 0;
    sha256_hex(key, strlen(key), digest);
    for (size_t i = 0; i < rules->n_keys; i++) {
        unsigned different = 0;
        for (size_t k = 0; k < DIGEST; k++) different |= (unsigned)(digest[k] ^ rules->keys[i][k]);
        found |= different == 0;
    }
    return found != 0;
}

bool access_needs_key(const access_rules *rules)
{
    return rules->keyed;
}

bool access_key(const access_rules *rules, const char *authorization, const char *x_api_key)
{
    if (!rules->keyed) return true;
    if (authorization != NULL && strncasecmp(authorization, "Bearer ", 7) == 0)
        return known_key(rules, authorization + 7 + strspn(authorization + 7, " "));
    return x_api_key != NULL && known_key(rules, x_api_key);
}

/* ---- hosts and origins ---- */

mp_status access_open(const char *key_file, const char *cors_origins, const char *host, bool loopback,
                      access_rules **out, mp_error *err)
{
    access_rules *rules = calloc(1, sizeof *rules);
    if (rules == NULL) return status_no_memory(err, sizeof *rules, "the access rules");
    mp_status status = MP_OK;
    rules->loopback = loopback;
    rules->host = strdup(host);
    rules->origins = strdup(cors_origins != NULL ? cors_origins : "");
    if (rules->host == NULL || rules->origins == NULL) status = status_no_memory(err, 0, "the access rules");
    if (status == MP_OK && key_file != NULL) status = read_keys(rules, key_file, err);
    if (status == MP_OK)
        *out = rules;
    else
        access_close(rules);
    return status;
}

void access_close(access_rules *rules)
{
    if (rules == NULL) return;
    free(rules->keys);
    free(rules->origins);
    free(rules->host);
    free(rules);
}

/* Length of the name in "name:port" or "[address]:port", the brackets left out; 0 where it is neither. */
static size_t host_name(const char **host)
{
    if ((*host)[0] != '[') return strcspn(*host, ":");
    const size_t len = strcspn(++*host, "]");
    const char *behind = *host + len;
    return behind[0] == ']' && (behind[1] == '\0' || behind[1] == ':') ? len : 0;
}

static bool is_name(const char *text, size_t len, const char *name)
{
    return strlen(name) == len && strncasecmp(text, name, len) == 0;
}

/* 127.0.0.0/8 written in decimal. A name that merely begins like it is no address. */
static bool is_loopback_address(const char *text, size_t len)
{
    return len > 4 && strncmp(text, "127.", 4) == 0 && strspn(text, "0123456789.") >= len;
}

bool access_host(const access_rules *rules, const char *host)
{
    if (!rules->loopback || host == NULL) return true;
    const size_t len = host_name(&host);
    return is_name(host, len, "localhost") || is_name(host, len, "::1") || is_name(host, len, rules->host) ||
           is_loopback_address(host, len);
}

bool access_cors(const access_rules *rules, const char *origin)
{
    if (origin == NULL) return false;
    for (const char *at = rules->origins; *at != '\0'; at += strspn(at, ", ")) {
        const size_t len = strcspn(at, ", ");
        if ((len == 1 && *at == '*') || is_name(at, len, origin)) return true;
        at += len;
    }
    return false;
}

bool access_origin(const access_rules *rules, const char *origin, const char *host)
{
    if (origin == NULL || access_cors(rules, origin)) return true;
    const char *behind = strstr(origin, "://");
    return behind != NULL && host != NULL && strcasecmp(behind + 3, host) == 0;
}
