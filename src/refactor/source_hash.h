/* source_hash.h: what tells a model's file from another, as artifacts record it. Nothing is owned. */
#ifndef REFACTOR_SOURCE_HASH_H
#define REFACTOR_SOURCE_HASH_H

#include "base/file.h"
#include "gguf/gguf.h"

/* SHA-256 of the file; of a split model, of its parts' hashes one after the other. */
mp_status source_sha256(const gguf *g, file_tick_fn tick, void *user, char out[65], mp_error *err);

#endif
