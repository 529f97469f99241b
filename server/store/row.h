/*
 * A row as the store keeps it: u32 key size, record key, states. The states are those of all its
 * named states, side by side: one value a key. Of a sequence that has ended a u64 stands behind
 * them, the committed step of its lane from which on it had.
 */
#ifndef SEGUE_STORE_ROW_H
#define SEGUE_STORE_ROW_H

#include "store/ops.h"

struct segue_row {
	const char *key;
	uint32_t key_size;
	const uint8_t *states;
	uint64_t step; /* of its lane, from which on it is there; 0: the row does not say */
};

/* Adds the operation that stores a row with `size` bytes of states. SEGUE_ENOMEM: nothing added. */
int segue_row_put(struct segue_ops *ops, enum segue_table table, const void *key, size_t key_size,
	const struct segue_row *row, uint64_t size);
/* Takes a stored row apart: pointers into `value`. SEGUE_ESTORE. */
int segue_row_get(const void *value, size_t value_size, uint64_t size, struct segue_row *row);
/*
 * Has the row, which was taken from `value`, point into a copy of that: *owned, which the caller
 * frees; what was there before is freed here. SEGUE_ENOMEM: nothing has changed.
 */
int segue_row_own(struct segue_row *row, const void *value, size_t value_size, void **owned);

#endif
