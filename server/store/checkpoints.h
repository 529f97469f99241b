/* The checkpoints that are stored of a lane: a catalogue, by rising step, and a token for each. */
#ifndef SEGUE_STORE_CHECKPOINTS_H
#define SEGUE_STORE_CHECKPOINTS_H

#include "core/wire.h"
#include "store/key.h"
#include "store/ops.h"

/* What is stored of a lane; of one that has nothing an empty catalogue, whose next id is 1. */
int segue_catalogue_load(
	struct segue_store *store, struct segue_place place, struct segue_catalogue *out);
/* The step of the oldest: what came before is there to stay. SEGUE_NEVER: none is stored. */
uint64_t segue_catalogue_floor(const struct segue_catalogue *catalogue);
/* When the newest stored of the lane was made, Unix time; 0: none is, or it is not known. */
int64_t segue_checkpoints_newest_ms(struct segue_store *store, struct segue_place place);

/*
 * Stores the token of entry->step, as the newest (its id is given here); `ended_at`: the lane has
 * ended there, by the first so many ends of its input; 0: it has not. Of more than `keep` the
 * oldest go; another of the same step is replaced, and if its bytes are the same, nothing is to be
 * done, but to note the end. Copies the token. Reads the store. On an error nothing was added.
 */
int segue_checkpoints_put(struct segue_ops *ops, struct segue_store *store,
	struct segue_place place, const struct segue_catalogue_entry *entry, uint32_t ended_at,
	const void *token, uint32_t keep);
/* Removes one, with id 0 all. Reads the store. SEGUE_ENOTFOUND. On an error nothing was added. */
int segue_checkpoints_remove(
	struct segue_ops *ops, struct segue_store *store, struct segue_place place, uint64_t id);
/*
 * Those of steps above `step` go, from the catalogue too, which is the stored one. On an error some
 * operations may have been added.
 */
int segue_checkpoints_rewind(struct segue_ops *ops, struct segue_place place,
	struct segue_catalogue *catalogue, uint64_t step);
/* All go, but ids go on. Reads the store. On an error some operations may have been added. */
int segue_checkpoints_clear(
	struct segue_ops *ops, struct segue_store *store, struct segue_place place);
/* The token of one, malloc'd. SEGUE_ENOTFOUND. */
int segue_checkpoints_load(struct segue_store *store, struct segue_place place, uint64_t id,
	void **token, size_t *size);

#endif
