/* store_impl.h: the store's state, shared by the files that make it up; nobody else includes it.
 *
 *   store.c   opening, closing, questions
 *   claim.c   claims: which slot a unit gets, who waits for what
 *   reads.c   the queue of slots to be filled, the backend, what arrives
 *
 * One lock guards everything below it in the struct. A slot goes FREE -> READING -> RESIDENT -> (evicted) READING ...;
 * a failed read takes it to FAILED, where it stays until the last pin is gone and no part is on its way any more. */
#ifndef STORE_STORE_IMPL_H
#define STORE_STORE_IMPL_H

#include <pthread.h>

#include "base/arena.h"
#include "store/slot_list.h"
#include "store/store.h"

#define READ_CUT     (-1) /* in place of an errno: the file ended too early */
#define READ_CHANGED (-2) /* a file is no longer the one that was opened */

enum slot_state { SLOT_FREE, SLOT_READING, SLOT_RESIDENT, SLOT_FAILED };

typedef struct slot {
    uint32_t unit; /* fixed while the slot is pinned */
    uint32_t pins; /* by claims */
    uint8_t state;
    uint8_t n_started, n_left; /* parts whose read was started; that have not arrived */
    uint8_t failed_part;
    bool ahead;         /* read before a claim wanted it, and none has yet: a guess */
    int error;          /* of a failed one: an errno or READ_* */
    uint32_t failed_at; /* bytes of the part that had arrived */
} slot;

/* A file that is read from. */
typedef struct source {
    char *path;
    file_stamp opened; /* what it was then */
    /* In the reaping that is going on: whether something of it has arrived, and what it failed with when it was asked
     * for its stamp, 0: nothing. */
    bool has_arrived;
    int unknown;
} source;

struct store {
    store_shape shape; /* its parts are our own, it has no files: */
    source *sources;   /* [n_sources] */
    int *fds;          /* [n_sources] of those, -1: not open */
    uint32_t n_sources;
    uint64_t slot_bytes, column_bytes[STORE_MAX_PARTS]; /* of each part in a slot */
    uint64_t column_start[STORE_MAX_PARTS];             /* in data */
    uint32_t n_slots, n_units, depth;
    arena tables, memory;
    uint8_t *data; /* [n_slots * slot_bytes], all of memory */
    const eviction *policy;
    const io_class *io_class;
    void *io;
    uint32_t align; /* of reads */
    uint32_t block; /* slots_align(): a part lies in its place as in a block of the file */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* reads arrived, pins went, nobody is reaping any more */
    void *order;            /* the policy's state: of slots that a claim has wanted */
    slot_list guesses;      /* the others, the oldest first */
    slot_link *links;       /* [n_slots] of guesses */
    slot *slots;            /* [n_slots] */
    uint32_t *slot_of;      /* [n_units]; STORE_NONE */
    bool *fixed;            /* [n_units]: stays for good once it is resident */
    uint32_t *free;         /* [n_slots] stack */
    uint32_t n_free;
    uint32_t *queue; /* [n_slots] ring: slots in READING with parts not started */
    uint32_t queue_head, n_queue;
    uint32_t ahead_most; /* units that store_read_ahead() may begin to read at once */
    bool ahead_limited;  /* the last time there were more */
    bool ahead_open;     /* no claim has begun since */
    io_request *batch;   /* [depth] */
    uint32_t in_flight;
    const source *changed_source; /* one that is seen to be another than was opened; NULL: none */
    store_stats stats;

    bool reaping;        /* a thread is in reap(), without the lock; the next is its own: */
    io_result *arrivals; /* [depth] */
};

/* A part's place in a slot. */
static inline uint8_t *store_place(const store *s, uint32_t at, uint32_t part)
{
    return s->data + s->column_start[part] + at * s->column_bytes[part];
}

/* All of these are called with the lock held; `at` is a slot. */

/* The slot is no longer one that may be given up. */
static inline void store_leave_order(store *s, uint32_t at)
{
    const slot *x = &s->slots[at];
    if (s->fixed[x->unit]) return;
    if (x->ahead)
        slot_list_remove(&s->guesses, s->links, at);
    else
        s->policy->remove(s->order, at, x->unit);
}

/* Its unit is no longer there. */
static inline void store_forget(store *s, uint32_t at)
{
    store_leave_order(s, at);
    s->slot_of[s->slots[at].unit] = STORE_NONE;
}

/* Has the parts of a slot in SLOT_READING read. */
void reads_queue(store *s, uint32_t at);
/* Starts what the depth allows, and forgets what nobody wants any more before its turn came. */
void reads_start(store *s);
/* Takes in what has arrived, without waiting. */
void reads_poll(store *s);
/* Waits, with the lock released, until something has changed: a read, a pin. False once the clock has passed until_ns
 * (0: no limit). */
bool reads_wait(store *s, uint64_t until_ns);
/* What went wrong with a slot in SLOT_FAILED. */
mp_status reads_error(const store *s, uint32_t at, mp_error *err);
/* Frees a slot in SLOT_FAILED that nobody needs any more; nothing else happens to others. */
void reads_settle(store *s, uint32_t at);

#endif
