/*
 * Private copies of the states of ended rows until they are on disk: an offer brings them to a
 * server that has lost them (core/kept.h has the form in which they lie here and travel).
 */
#ifndef SEGUE_CLIENT_KEPT_H
#define SEGUE_CLIENT_KEPT_H

#include "client/batch.h"

/* Zeroed: none. The bytes from `begin` to `end` are rows, oldest first. */
struct segue_kept_rows {
	uint8_t *bytes;
	size_t begin, end, capacity;
};

/* Appends the ended rows of `batch`: all of them, or none. SEGUE_ENOMEM, SEGUE_EPROTOCOL. */
int segue_kept_rows_add(struct segue_kept_rows *kept, const struct segue_batch *batch);
/* Takes the rows of `batch`, the last one, back. */
void segue_kept_rows_undo(struct segue_kept_rows *kept, const struct segue_batch *batch);
/* Forgets the rows of batches below `durable`. */
void segue_kept_rows_forget(
	struct segue_kept_rows *kept, const struct segue_shape *shape, uint64_t durable);
/* Frees all. */
void segue_kept_rows_finish(struct segue_kept_rows *kept);

#endif
