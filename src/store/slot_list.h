/* slot_list.h: doubly linked lists over slot numbers, for policies that keep slots in an order.
 *
 * Links live in one array of the caller's, [n_slots]; a slot is in at most one list that shares it. Everything is O(1).
 */
#ifndef STORE_SLOT_LIST_H
#define STORE_SLOT_LIST_H

#include <stdbool.h>
#include <stdint.h>

#define SLOT_NONE UINT32_MAX

typedef struct slot_link {
    uint32_t older, newer;
} slot_link;

typedef struct slot_list {
    uint32_t oldest, newest, n;
} slot_list;

static inline void slot_list_init(slot_list *l)
{
    *l = (slot_list){SLOT_NONE, SLOT_NONE, 0};
}

static inline void slot_list_remove(slot_list *l, slot_link *links, uint32_t slot)
{
    const slot_link link = links[slot];
    *(link.older == SLOT_NONE ? &l->oldest : &links[link.older].newer) = link.newer;
    *(link.newer == SLOT_NONE ? &l->newest : &links[link.newer].older) = link.older;
    l->n--;
}

/* As the newest. */
static inline void slot_list_append(slot_list *l, slot_link *links, uint32_t slot)
{
    links[slot] = (slot_link){l->newest, SLOT_NONE};
    *(l->newest == SLOT_NONE ? &l->oldest : &links[l->newest].newer) = slot;
    l->newest = slot;
    l->n++;
}

/* The oldest that may go, SLOT_NONE: none may. */
static inline uint32_t slot_list_oldest(const slot_list *l, const slot_link *links,
                                        bool (*movable)(const void *user, uint32_t slot), const void *user)
{
    uint32_t slot = l->oldest;
    while (slot != SLOT_NONE && !movable(user, slot)) slot = links[slot].newer;
    return slot;
}

#endif
