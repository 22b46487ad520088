#include "base/cgroup.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A container may see the path of its host here, below a mount that begins at the container's own group: directories
 * that do not exist set no limit, and the mount's top is asked last. */
static void visit_ancestors(const char *mount, const char *group, bool v2, cgroup_visit_fn fn, void *user)
{
    char directory[1024];
    if (snprintf(directory, sizeof directory, "%s%s", mount, group) >= (int)sizeof directory) return;
    for (;;) {
        fn(user, directory, v2);
        char *slash = strrchr(directory + strlen(mount), '/');
        if (!slash) return;
        *slash = 0;
    }
}

/* A word of a comma-separated list. */
static bool has_word(const char *list, size_t len, const char *word)
{
    const size_t n = strlen(word);
    for (size_t i = 0, end; i < len; i = end + 1) {
        for (end = i; end < len && list[end] != ','; end++) {
        }
        if (end - i == n && !memcmp(list + i, word, n)) return true;
    }
    return false;
}

/* `line` of /proc/self/cgroup: "ID:CONTROLLERS:/GROUP", with ID 0 and no controllers for v2. */
static void visit_line(const char *root, char *line, const char *controller, cgroup_visit_fn fn, void *user)
{
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group) return;
    controllers++;
    const size_t len = (size_t)(group++ - controllers);
    char mount[256];
    if (len == 0) {
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup", root);
        visit_ancestors(mount, group, true, fn, user);
        return;
    }
    if (!has_word(controllers, len, controller)) return;
    snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%.*s", root, (int)len, controllers);
    if (access(mount, F_OK) != 0) snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", root, controller);
    visit_ancestors(mount, group, false, fn, user);
}

void cgroup_visit(const char *root, const char *controller, cgroup_visit_fn fn, void *user)
{
    char path[256], line[1024];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    if (!f) return;
    while (fgets(line, sizeof line, f)) visit_line(root, line, controller, fn, user);
    fclose(f);
}
