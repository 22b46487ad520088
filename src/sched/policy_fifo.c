/* policy_fifo.c: first in, first out (the paper's baseline, section 5.1).
 *
 * Takes all that is pending, in order, up to the maximal batch, and runs the whole batch at the dearest floor in it, as
 * an engine must whose kernel knows one budget a batch. The paper describes FIFO as taking the next batch when the
 * system is free. Here it refills a slot as soon as one is free, as servers do today: a baseline that left slots empty
 * until the last request of a batch is done would make every other policy look better than it is.
 *
 * With all floors at full this is continuous batching on the original model. */
#include "sched/policy.h"

const policy policy_fifo = {
    .admit = policy_take_in_order,
    .points = policy_dearest_floor,
};
