/* Batch sizes that a lane may be given, beside its stream's own. */
#ifndef SEGUE_ENGINE_SIZE_H
#define SEGUE_ENGINE_SIZE_H

#include "core/spec.h"
#include "engine/live.h"
#include "engine/side.h"

/*
 * Whether lanes of the stream may have batches of so many rows. Its own batch_size is always fine.
 * `live`: the log that it reads, or NULL. SEGUE_EINVAL says why not: its tail keeps the shape, it
 * is not stored, its checkpoints would be too large, or its log's capacity is too small for
 * batches that are made ahead. Any thread.
 */
int segue_size_check(
	const struct segue_spec *spec, const struct segue_live *live, uint32_t batch_size);
/*
 * Pays for the memory of a lane with so many places what is beyond that of the stream's
 * batch_size: *paid, to be given back to the purse, or 0. What the purse says, SEGUE_ELIMIT.
 */
int segue_size_pay(const struct segue_spec *spec, uint32_t places, uint32_t key_max,
	const struct segue_purse *purse, uint64_t *paid);
/* Bytes, at most, of what a lane remembers of the sequences that wait in its window; 0 without. */
uint64_t segue_size_waiting(const struct segue_spec *spec);

#endif
