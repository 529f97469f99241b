/* A list of store operations that owns its keys and values: what goes into one transaction. */
#ifndef SEGUE_STORE_OPS_H
#define SEGUE_STORE_OPS_H

#include "store/store.h"

struct segue_ops {
	struct segue_store_op *op;
	size_t count, capacity;
};
void segue_ops_finish(struct segue_ops *ops);
/* Forgets those from `count` on. */
void segue_ops_truncate(struct segue_ops *ops, size_t count);

/* Each adds one operation and copies the key; on SEGUE_ENOMEM nothing was added. */

/* Takes `value` over, malloc'd, also if it fails. */
int segue_ops_put(struct segue_ops *ops, enum segue_table table, const void *key, size_t key_size,
	void *value, size_t value_size);
int segue_ops_put_copy(struct segue_ops *ops, enum segue_table table, const void *key,
	size_t key_size, const void *bytes, size_t size);
int segue_ops_remove(struct segue_ops *ops, enum segue_table table, const void *key, size_t size);
/* All keys that begin so. */
int segue_ops_remove_prefix(
	struct segue_ops *ops, enum segue_table table, const void *prefix, size_t size);
/* The same, at most `limit` of them, the lowest. */
int segue_ops_remove_some(struct segue_ops *ops, enum segue_table table, const void *prefix,
	size_t size, size_t limit);
/* All keys that begin as `key` does in `shared` bytes, and sort below it. */
int segue_ops_remove_below(
	struct segue_ops *ops, enum segue_table table, const void *key, size_t size, size_t shared);

#endif
