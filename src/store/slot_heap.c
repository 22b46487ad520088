#include "store/slot_heap.h"

void *slot_heap_start(slot_heap *h, uint32_t n_slots, void *memory)
{
    *h = (slot_heap){.ranks = memory};
    slot_list_init(&h->aside);
    h->links = (slot_link *)(h->ranks + n_slots);
    h->heap = (uint32_t *)(h->links + n_slots);
    h->at = h->heap + n_slots;
    return h->at + n_slots;
}

static bool lower(const slot_heap *h, uint32_t a, uint32_t b)
{
    const slot_rank *x = &h->ranks[a], *y = &h->ranks[b];
    return x->score < y->score || (x->score == y->score && x->turn < y->turn);
}

static void place(slot_heap *h, uint32_t i, uint32_t slot)
{
    h->heap[i] = slot;
    h->at[slot] = i;
}

static void sift_up(slot_heap *h, uint32_t i, uint32_t slot)
{
    for (; i > 0 && lower(h, slot, h->heap[(i - 1) / 2]); i = (i - 1) / 2) place(h, i, h->heap[(i - 1) / 2]);
    place(h, i, slot);
}

static void sift_down(slot_heap *h, uint32_t i, uint32_t slot)
{
    for (size_t child; (child = 2 * (size_t)i + 1) < h->n; i = (uint32_t)child) {
        if (child + 1 < h->n && lower(h, h->heap[child + 1], h->heap[child])) child++;
        if (!lower(h, h->heap[child], slot)) break;
        place(h, i, h->heap[child]);
    }
    place(h, i, slot);
}

/* One of the two moves it, or none. */
static void settle(slot_heap *h, uint32_t i, uint32_t slot)
{
    sift_up(h, i, slot);
    sift_down(h, h->at[slot], slot);
}

static void push(slot_heap *h, uint32_t slot)
{
    sift_up(h, h->n++, slot);
}

static void take_out(slot_heap *h, uint32_t slot)
{
    const uint32_t i = h->at[slot], last = h->heap[--h->n];
    if (last != slot) settle(h, i, last);
}

void slot_heap_add(slot_heap *h, uint32_t slot, slot_rank rank)
{
    h->ranks[slot] = rank;
    push(h, slot);
}

void slot_heap_change(slot_heap *h, uint32_t slot, slot_rank rank)
{
    h->ranks[slot] = rank;
    if (h->at[slot] != SLOT_NONE) settle(h, h->at[slot], slot);
}

void slot_heap_remove(slot_heap *h, uint32_t slot)
{
    if (h->at[slot] == SLOT_NONE)
        slot_list_remove(&h->aside, h->links, slot);
    else
        take_out(h, slot);
}

/* Slots that were pinned and are no longer; those that still are go to the end of the queue. */
static void take_back(slot_heap *h, bool (*movable)(const void *user, uint32_t slot), const void *user)
{
    uint32_t looks = 0;
    for (uint32_t i = h->aside.n; i > 0 && looks < SLOT_HEAP_LOOKS; i--) {
        const uint32_t slot = h->aside.oldest;
        slot_list_remove(&h->aside, h->links, slot);
        if (movable(user, slot)) {
            push(h, slot);
        } else {
            slot_list_append(&h->aside, h->links, slot);
            looks++;
        }
    }
}

static uint32_t lowest_aside(const slot_heap *h, bool (*movable)(const void *user, uint32_t slot), const void *user)
{
    uint32_t best = SLOT_NONE;
    for (uint32_t slot = h->aside.oldest; slot != SLOT_NONE; slot = h->links[slot].newer)
        if (movable(user, slot) && (best == SLOT_NONE || lower(h, slot, best))) best = slot;
    return best;
}

uint32_t slot_heap_lowest(slot_heap *h, bool (*movable)(const void *user, uint32_t slot), const void *user)
{
    take_back(h, movable, user);
    while (h->n > 0) {
        const uint32_t slot = h->heap[0];
        if (movable(user, slot)) return slot;
        take_out(h, slot);
        h->at[slot] = SLOT_NONE;
        slot_list_append(&h->aside, h->links, slot);
    }
    return lowest_aside(h, movable, user);
}

void slot_heap_rebuild(slot_heap *h)
{
    for (uint32_t i = h->n / 2; i-- > 0;) sift_down(h, i, h->heap[i]);
}
