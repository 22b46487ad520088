#include "cli/machine.h"

#include <stdio.h>
#include <string.h>

#include "base/pool.h"
#include "base/status.h"
#include "cli/output.h"
#include "tensor/kernels.h"

static void read_cpu(char *cpu, size_t cap)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");
    snprintf(cpu, cap, "unknown");
    if (file == NULL) return;
    while (fgets(line, sizeof line, file) != NULL) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || value == NULL) continue;
        value += 1 + strspn(value + 1, " \t");
        snprintf(cpu, cap, "%.*s", (int)strcspn(value, "\n"), value);
        break;
    }
    fclose(file);
}

mp_status machine_describe(machine *m, const cli_common *common, mp_error *err)
{
    const kernels *k = kernels_get(common->isa);
    if (k == NULL)
        return status_fail(err, MP_E_UNSUPPORTED, "instruction set '%s' is unknown or this CPU lacks it", common->isa);
    read_cpu(m->cpu, sizeof m->cpu);
    snprintf(m->isa, sizeof m->isa, "%s", k->isa);
    m->threads = common->threads != 0 ? common->threads : pool_default_threads();
    return MP_OK;
}

json_t *machine_json(const machine *m)
{
    return json_pack("{s:o s:s s:I s:s}", "cpu", json_text(m->cpu), "isa", m->isa, "threads", (json_int_t)m->threads,
                     "version", mp_version());
}
