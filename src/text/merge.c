/* Symbols are a doubly linked list in an array. The queue is a min-heap of 64-bit words, rank above position, so that
 * its order is exactly the rule. An entry goes stale when one of its symbols has changed; it is not searched for but
 * recognised when it comes up, because every symbol keeps the rank of its current pair: where the ranks agree, that
 * pair stands at this place of the queue too. Every merge removes one entry and adds at most two, so 2n entries are
 * enough, and n symbols cost O(n log n): a megabyte without a space is no problem. */
#include "text/merge.h"

#include <stdlib.h>

mp_status merge_begin(merge_work *w, size_t n, mp_error *err)
{
    w->n = 0;
    if (n <= w->capacity) return MP_OK;
    merge_clear(w);
    size_t capacity = 256;
    while (capacity < n) capacity *= 2;
    w->symbols = malloc(capacity * sizeof *w->symbols);
    w->queue = malloc(2 * capacity * sizeof *w->queue);
    if (!w->symbols || !w->queue)
        return status_no_memory(err, capacity * (sizeof *w->symbols + 2 * sizeof *w->queue), "tokenizing a word");
    w->capacity = capacity;
    return MP_OK;
}

void merge_clear(merge_work *w)
{
    free(w->symbols);
    free(w->queue);
    *w = (merge_work){0};
}

void merge_add(merge_work *w, int32_t id, uint32_t from, uint32_t len)
{
    uint32_t i = w->n++;
    w->symbols[i] =
        (merge_symbol){.from = from, .len = len, .id = id, .rank = MERGE_NONE, .prev = i - 1, .next = MERGE_NONE};
    if (i) w->symbols[i - 1].next = i; /* the first one's prev has wrapped to MERGE_NONE */
}

static void sift_up(uint64_t *queue, size_t i)
{
    uint64_t moving = queue[i];
    for (; i > 0 && queue[(i - 1) / 2] > moving; i = (i - 1) / 2) queue[i] = queue[(i - 1) / 2];
    queue[i] = moving;
}

static void sift_down(uint64_t *queue, size_t n, size_t i)
{
    uint64_t moving = queue[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && queue[child + 1] < queue[child]) child++;
        if (queue[child] >= moving) break;
        queue[i] = queue[child];
    }
    queue[i] = moving;
}

typedef struct merge_job {
    merge_work *w;
    const void *rules;
    merge_fn find;
    size_t n_queue;
} merge_job;

/* Looks up the pair that symbol `left` now begins and appends it to the queue; false where there is none. */
static bool add_pair(merge_job *job, uint32_t left)
{
    merge_symbol *symbols = job->w->symbols, *s = &symbols[left];
    s->rank = MERGE_NONE;
    if (s->next == MERGE_NONE) return false;
    uint32_t rank = MERGE_NONE;
    if (!job->find(job->rules, s, &symbols[s->next], &s->made, &rank)) return false;
    s->rank = rank;
    job->w->queue[job->n_queue++] = (uint64_t)rank << 32 | left;
    return true;
}

static void push_pair(merge_job *job, uint32_t left)
{
    if (left != MERGE_NONE && add_pair(job, left)) sift_up(job->w->queue, job->n_queue - 1);
}

/* Joins symbol `left` and the one after it. */
static void merge(merge_job *job, uint32_t left)
{
    merge_symbol *symbols = job->w->symbols, *s = &symbols[left], *gone = &symbols[s->next];
    s->id = s->made;
    s->len += gone->len;
    s->next = gone->next;
    gone->rank = MERGE_NONE;
    if (s->next != MERGE_NONE) symbols[s->next].prev = left;
    push_pair(job, s->prev);
    push_pair(job, left);
}

void merge_run(merge_work *w, const void *rules, merge_fn find)
{
    merge_job job = {.w = w, .rules = rules, .find = find};
    for (uint32_t i = 0; i < w->n; i++) add_pair(&job, i);
    for (size_t i = job.n_queue / 2; i-- > 0;) sift_down(w->queue, job.n_queue, i);
    while (job.n_queue) {
        uint64_t top = w->queue[0];
        w->queue[0] = w->queue[--job.n_queue];
        sift_down(w->queue, job.n_queue, 0);
        uint32_t left = (uint32_t)top;
        if (w->symbols[left].rank == top >> 32) merge(&job, left);
    }
}
