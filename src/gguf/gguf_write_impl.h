/* gguf_write_impl.h: what the two halves of the writer share. set.c keeps the keys, write.c the tensors and the file.
 */
#ifndef GGUF_GGUF_WRITE_IMPL_H
#define GGUF_GGUF_WRITE_IMPL_H

#include "gguf/gguf_impl.h"

#define GGUF_PADDING_KEY "general.padding"

typedef struct gguf_written_key {
    char *name; /* owned, as is raw */
    enum gguf_type type;
    uint8_t *raw;
    size_t bytes;
} gguf_written_key;

struct gguf_writer {
    size_t alignment;
    gguf_written_key *keys; /* in the order of the file */
    size_t n_keys, key_capacity;
    gguf_tensor *tensors; /* offset is relative to the data's start */
    size_t n_tensors, tensor_capacity;
    uint64_t data_bytes; /* of all tensors, each rounded up to the alignment */

    file_atomic *file; /* between begin and commit */
    bool reserved;     /* the header area keeps a padding key */
    size_t area;       /* bytes before the data */
    size_t current;    /* the tensor being written */
    size_t written;    /* bytes of it */
};

/* Bytes of the keys, names and types included. */
size_t gguf_written_keys_bytes(const gguf_writer *w);

#endif
