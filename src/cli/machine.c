#include "cli/machine.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "cli/output.h"

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

mp_status machine_describe(machine *m, const mp_model *model, const mp_engine *engine, const cli_common *common,
                           mp_error *err)
{
    mp_engine *own = NULL;
    if (engine == NULL) {
        const mp_engine_params params = {
            .threads = common->threads, .isa = common->isa, .n_ctx = 1, .n_batch = 1, .n_logits = 1};
        MP_TRY(mp_engine_open(model, &params, &own, err));
        engine = own;
    }
    read_cpu(m->cpu, sizeof m->cpu);
    snprintf(m->isa, sizeof m->isa, "%s", mp_engine_isa(engine));
    m->threads = mp_engine_threads(engine);
    mp_engine_close(own);
    return MP_OK;
}

json_t *machine_json(const machine *m)
{
    return json_pack("{s:o s:s s:I s:s}", "cpu", json_text(m->cpu), "isa", m->isa, "threads", (json_int_t)m->threads,
                     "version", mp_version());
}
