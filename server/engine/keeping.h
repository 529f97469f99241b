/*
 * What a lane whose rows begin with what was kept (initial = kept) has of that in its store.
 *
 * Going back takes it back by undo entries (store/finals.h), which lead to the lane's stored
 * checkpoints alone, and to those of the future that the lane is in. A step may have been reached
 * in several: which it is, the lease says that committed it (struct segue_lane_record, `origin`).
 */
#ifndef SEGUE_ENGINE_KEEPING_H
#define SEGUE_ENGINE_KEEPING_H

#include "core/wire.h"
#include "engine/order.h"

/* The origin of what a lease with that token commits; 0 where rows begin with initial values. */
uint64_t segue_keeping_origin(
	const struct segue_spec *spec, const uint8_t token[SEGUE_TOKEN_BYTES]);
/*
 * Whether the store can bring back what had been kept when the token was made: it has a checkpoint
 * of that step, of the same future. SEGUE_ETOKEN.
 */
int segue_keeping_fits(const struct segue_grant_order *order, const struct segue_token_record *head,
	uint64_t step);
/* Whose what is looked up is. */
struct segue_keeping {
	struct segue_store *store;
	struct segue_place place;
	uint64_t row_size;
};
/* struct segue_initials_store.load; `arg` is a struct segue_keeping. */
int segue_keeping_load(void *arg, const char *key, size_t size, struct segue_initials_found *found);

#endif
