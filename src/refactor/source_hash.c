#include "refactor/source_hash.h"

#include <stdlib.h>
#include <string.h>

mp_status source_sha256(const gguf *g, file_tick_fn tick, void *user, char out[65], mp_error *err)
{
    const int parts = gguf_n_parts(g);
    file_ticks ticks = {.tick = tick, .user = user};
    char *all = calloc((size_t)parts, 65);
    mp_status status = all ? MP_OK : status_no_memory(err, (size_t)parts * 65, "hashes");
    for (int i = 0; i < parts; i++) ticks.total += gguf_part_stamp(g, i)->bytes;
    for (int i = 0; i < parts && !status; i++) {
        status = file_sha256(gguf_part_path(g, i), file_tick_part, &ticks, out, err);
        memcpy(all + (size_t)i * 64, out, 64);
    }
    if (!status && parts > 1) sha256_hex(all, (size_t)parts * 64, out);
    free(all);
    return status;
}
