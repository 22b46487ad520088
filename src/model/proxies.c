/* The neurons that a proxy gate looks at, taken out of experts that stay on disk: scoring every sub-expert of the
 * chosen experts must not wait for the disk, nor read behind the cap's back. */
#include <stdlib.h>

#include "model/model.h"

static size_t layer_bytes(const moe_layer *l)
{
    return (size_t)l->w.gate_up.mats * 2 * l->proxy_neurons * l->w.gate_up.row_bytes;
}

uint64_t proxies_bytes(const mp_model *m)
{
    uint64_t bytes = 0;
    for (uint32_t l = m->hp.n_dense; l < m->hp.n_layers; l++)
        if (m->moe[l].gate == MP_GATE_PROXY && m->info.n_parts > 1) bytes += layer_bytes(&m->moe[l]);
    return bytes;
}

static mp_status read_layer(const mp_model *m, const moe_layer *l, uint8_t *to, mp_error *err)
{
    const tensor *w = &l->w.gate_up;
    const size_t bytes = l->proxy_neurons * w->row_bytes;
    for (uint32_t sub = 0; sub < w->mats; sub++)
        for (uint32_t up = 0; up < 2; up++, to += bytes)
            MP_TRY(gguf_read(m->file, tensor_row(w, sub, up * l->shape.part_width), bytes, to, err));
    return MP_OK;
}

static mp_status read_layers(const mp_model *m, proxy_rows *p, mp_error *err)
{
    uint8_t *at = p->data;
    for (uint32_t i = 0; i < m->info.n_moe_layers; i++) {
        const moe_layer *l = &m->moe[m->hp.n_dense + i];
        p->layers[i] = at;
        MP_TRY(read_layer(m, l, at, err));
        at += layer_bytes(l);
    }
    return MP_OK;
}

mp_status proxies_read(const mp_model *m, proxy_rows *out, mp_error *err)
{
    const size_t bytes = proxies_bytes(m);
    *out = (proxy_rows){0};
    if (bytes == 0) return MP_OK;
    out->layers = malloc(m->info.n_moe_layers * sizeof *out->layers);
    out->data = malloc(bytes);
    const mp_status status = out->layers && out->data
                                 ? read_layers(m, out, err)
                                 : status_no_memory(err, bytes, "the neurons that the gate looks at");
    if (status) proxies_clear(out);
    return status;
}

void proxies_clear(proxy_rows *p)
{
    free(p->layers);
    free(p->data);
    *p = (proxy_rows){0};
}
