/* ids.h: token ids and text. Arrays are the caller's to free. */
#ifndef CLI_IDS_H
#define CLI_IDS_H

#include "moeprism.h"

/* All ids of a text; flags as mp_tokenize(). *ids is not NULL on success even where *n is 0. */
mp_status ids_of_text(const mp_model *model, const char *text, size_t len, unsigned flags, int32_t **ids, size_t *n,
                      mp_error *err);
/* Ids written as decimal numbers with white space between; each must be in the vocabulary. `from` names the source
 * in messages. */
mp_status ids_parse(const char *text, size_t len, const char *from, uint32_t n_vocab, int32_t **ids, size_t *n,
                    mp_error *err);

#endif
