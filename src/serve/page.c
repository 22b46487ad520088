/* Looks up the embedded files: a dozen rows, searched from the start. The table itself is made by page_data.S. */
#include "serve/page.h"

#include <string.h>

extern const page_file page_table[], page_table_end[];

_Static_assert(sizeof(page_file) == 4 * sizeof(uint64_t) && offsetof(page_file, len) == 3 * sizeof(uint64_t),
               "page_data.S writes four 64-bit words a row");

const page_file *page_at(size_t i)
{
    return i < (size_t)(page_table_end - page_table) ? &page_table[i] : NULL;
}

const page_file *page_find(const char *path)
{
    const page_file *file;
    for (size_t i = 0; (file = page_at(i)); i++)
        if (strcmp(file->path, path) == 0) return file;
    return NULL;
}
