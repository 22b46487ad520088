/* cgroup.h: the control groups this process is in, whose limits bound what it may take. Any thread may ask.
 *
 * `root` stands before every path ("" on a live system, a made-up tree in tests). */
#ifndef BASE_CGROUP_H
#define BASE_CGROUP_H

#include <stdbool.h>

typedef void (*cgroup_visit_fn)(void *user, const char *directory, bool v2);

/* Calls fn for the directory of this process's group that has `controller` ("cpu"), and for all its ancestors. */
void cgroup_visit(const char *root, const char *controller, cgroup_visit_fn fn, void *user);

#endif
