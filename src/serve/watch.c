#include "serve/watch.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

enum { EVENTS = 64 };

/* What an event of the poll belongs to: the upper bit tells descriptors from sleepers. A sleeper is named by its place
 * and by how often it has been used, since an event may come late. */
#define KEY_FD (UINT64_C(1) << 63)

struct sleeper {
    watch *watch;
    uint32_t place, uses;              /* in watch->sleepers */
    struct MHD_Connection *connection; /* NULL: not in use */
    int fd;
    bool asleep, news, gone, beat;
    uint64_t beat_ns, wrote_ns;
    sleeper *next_free;
};

struct visitor {
    watch *watch;
    int fd;
    uint64_t deadline_ns;
    visitor *next, **link;
};

struct watch {
    int epoll;
    pthread_mutex_t lock; /* of everything below, and of all sleepers and visitors */
    sleeper **sleepers;   /* [n] every one ever made */
    uint32_t n, n_used;
    sleeper *free;
    visitor *visitors;
    bool closing;
};

mp_status watch_new(watch **out, mp_error *err)
{
    watch *w = calloc(1, sizeof *w);
    if (w == NULL) return status_no_memory(err, sizeof *w, "the watch");
    pthread_mutex_init(&w->lock, NULL);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll < 0) {
        const int why = errno;
        watch_free(w);
        return status_fail(err, MP_E_IO, "cannot watch connections: %s", strerror(why));
    }
    *out = w;
    return MP_OK;
}

void watch_free(watch *w)
{
    if (w == NULL) return;
    for (uint32_t i = 0; i < w->n; i++) free(w->sleepers[i]);
    free(w->sleepers);
    if (w->epoll >= 0) close(w->epoll);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

/* ---- sleepers ---- */

static sleeper *new_sleeper(watch *w)
{
    sleeper *s = w->free;
    if (s != NULL) {
        w->free = s->next_free;
        return s;
    }
    sleeper **grown = realloc(w->sleepers, (w->n + 1) * sizeof(sleeper *));
    if (grown == NULL) return NULL;
    w->sleepers = grown;
    s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    s->watch = w;
    s->place = w->n;
    w->sleepers[w->n++] = s;
    return s;
}

static int socket_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info != NULL ? info->connect_fd : -1;
}

sleeper *sleeper_take(watch *w, struct MHD_Connection *connection, uint64_t beat_ns)
{
    const int fd = socket_of(connection);
    pthread_mutex_lock(&w->lock);
    sleeper *s = new_sleeper(w);
    if (s != NULL) {
        s->uses++;
        s->connection = connection;
        s->fd = fd;
        s->asleep = s->news = s->gone = s->beat = false;
        s->beat_ns = beat_ns;
        s->wrote_ns = clock_now_ns();
        w->n_used++;
        struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT,
                                    .data.u64 = ((uint64_t)s->place << 32 | s->uses) & ~KEY_FD};
        epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &event); /* refused: the next write finds the client gone */
    }
    pthread_mutex_unlock(&w->lock);
    return s;
}

void sleeper_put(sleeper *s)
{
    watch *w = s->watch;
    pthread_mutex_lock(&w->lock);
    epoll_ctl(w->epoll, EPOLL_CTL_DEL, s->fd, NULL);
    s->connection = NULL;
    s->next_free = w->free;
    w->free = s;
    w->n_used--;
    pthread_mutex_unlock(&w->lock);
}

/* With the lock held. */
static void rouse(sleeper *s)
{
    s->news = true;
    if (!s->asleep) return;
    s->asleep = false;
    MHD_resume_connection(s->connection);
}

void sleeper_wake(void *user)
{
    sleeper *s = user;
    pthread_mutex_lock(&s->watch->lock);
    if (s->connection != NULL) rouse(s);
    pthread_mutex_unlock(&s->watch->lock);
}

bool sleeper_sleep(sleeper *s)
{
    pthread_mutex_lock(&s->watch->lock);
    if (s->watch->closing) s->gone = true;
    const bool sleeps = !s->news && !s->gone && !s->beat;
    s->news = false;
    if (sleeps) {
        s->asleep = true;
        MHD_suspend_connection(s->connection);
    }
    pthread_mutex_unlock(&s->watch->lock);
    return sleeps;
}

bool sleeper_gone(const sleeper *s)
{
    pthread_mutex_lock(&s->watch->lock);
    const bool gone = s->gone || s->watch->closing;
    pthread_mutex_unlock(&s->watch->lock);
    return gone;
}

bool sleeper_beat(sleeper *s)
{
    pthread_mutex_lock(&s->watch->lock);
    const bool beat = s->beat;
    s->beat = false;
    pthread_mutex_unlock(&s->watch->lock);
    return beat;
}

void sleeper_wrote(sleeper *s)
{
    const uint64_t now = clock_now_ns();
    pthread_mutex_lock(&s->watch->lock);
    s->wrote_ns = now;
    pthread_mutex_unlock(&s->watch->lock);
}

/* ---- visitors ---- */

visitor *visitor_open(watch *w, int fd, uint64_t deadline_ns)
{
    visitor *v = calloc(1, sizeof *v);
    if (v == NULL) return NULL;
    *v = (visitor){.watch = w, .fd = fd, .deadline_ns = deadline_ns, .link = &w->visitors};
    pthread_mutex_lock(&w->lock);
    v->next = w->visitors;
    if (v->next != NULL) v->next->link = &v->next;
    w->visitors = v;
    pthread_mutex_unlock(&w->lock);
    return v;
}

void visitor_close(visitor *v)
{
    if (v == NULL) return;
    pthread_mutex_lock(&v->watch->lock);
    *v->link = v->next;
    if (v->next != NULL) v->next->link = v->link;
    pthread_mutex_unlock(&v->watch->lock);
    free(v);
}

void visitor_deadline(visitor *v, uint64_t deadline_ns)
{
    pthread_mutex_lock(&v->watch->lock);
    v->deadline_ns = deadline_ns;
    pthread_mutex_unlock(&v->watch->lock);
}

/* ---- the main thread ---- */

mp_status watch_add(watch *w, int fd, mp_error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = KEY_FD | (uint32_t)fd};
    if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &event) == 0) return MP_OK;
    return status_fail(err, MP_E_IO, "cannot watch a descriptor: %s", strerror(errno));
}

/* The client has closed its side: the socket is shut down, so that nothing waits for it any more. */
static void hang_up(watch *w, uint64_t key)
{
    const uint32_t place = (uint32_t)(key >> 32), uses = (uint32_t)key;
    pthread_mutex_lock(&w->lock);
    sleeper *s = place < w->n ? w->sleepers[place] : NULL;
    if (s != NULL && s->uses == uses && s->connection != NULL) {
        s->gone = true;
        shutdown(s->fd, SHUT_RDWR);
        rouse(s);
    }
    pthread_mutex_unlock(&w->lock);
}

static void tick(watch *w)
{
    const uint64_t now = clock_now_ns();
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = 0; i < w->n; i++) {
        sleeper *s = w->sleepers[i];
        if (s->connection == NULL || !s->asleep || s->beat_ns == 0 || now < s->wrote_ns + s->beat_ns) continue;
        s->beat = true;
        rouse(s);
    }
    for (visitor *v = w->visitors; v != NULL; v = v->next) {
        if (v->deadline_ns == 0 || now < v->deadline_ns) continue;
        v->deadline_ns = 0;
        shutdown(v->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&w->lock);
}

int watch_wait(watch *w, int ms)
{
    struct epoll_event events[EVENTS];
    int readable = -1;
    const int n = epoll_wait(w->epoll, events, EVENTS, ms);
    for (int i = 0; i < n; i++) {
        if (events[i].data.u64 & KEY_FD)
            readable = (int)(uint32_t)events[i].data.u64;
        else
            hang_up(w, events[i].data.u64);
    }
    tick(w);
    return readable;
}

size_t watch_sleepers(watch *w)
{
    pthread_mutex_lock(&w->lock);
    const size_t n = w->n_used;
    pthread_mutex_unlock(&w->lock);
    return n;
}

void watch_close_all(watch *w)
{
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    for (uint32_t i = 0; i < w->n; i++)
        if (w->sleepers[i]->connection != NULL) rouse(w->sleepers[i]);
    pthread_mutex_unlock(&w->lock);
}
