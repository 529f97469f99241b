/* The index of a data set, as the store keeps it: one blob, in pieces that fill whole pages. */
#ifndef SEGUE_STORE_INDEX_H
#define SEGUE_STORE_INDEX_H

#include "store/ops.h"

/* The bytes that stand under `name`, malloc'd. SEGUE_ENOTFOUND; fails like segue_store_scan(). */
int segue_store_index_load(struct segue_store *store, const char *name, void **bytes, size_t *size);
/*
 * The operations that put the bytes, which are copied, in the place of what stands under `name`.
 * SEGUE_EINVAL: the name is too long; SEGUE_ENOMEM. On an error some may have been added.
 */
int segue_store_index_save(struct segue_ops *ops, const char *name, const void *bytes, size_t size);
/* The removal of what stands under `name`. SEGUE_ENOMEM. */
int segue_store_index_remove(struct segue_ops *ops, const char *name);

#endif
