/*
 * A batch: one delivery of what lies in a place of its mapping. What is in it, the states that come
 * in, and which that go out are saved; commit.c says when it may be saved to, commits, puts back
 * and releases it.
 *
 * A batch that was put back and is still held when it comes again is there twice: the place is
 * released with the last of the two.
 *
 * What the server writes is checked where it is used; the server is trusted with the content alone.
 */
#ifndef SEGUE_CLIENT_BATCH_H
#define SEGUE_CLIENT_BATCH_H

#include "client/mapping.h"

struct segue_place;

struct segue_batch {
	struct segue_mapping *mapping;
	struct segue_place *place;
	struct segue_lane *lane; /* whose it is; set by who takes it (next.c) */
	const struct segue_slot *slot;
	const uint32_t *previous; /* a row's row in the batch before, or SEGUE_NO_ROW */
	const struct segue_slot_span *spans;
	uint64_t step;
	uint32_t rows;   /* of it */
	uint32_t steps;  /* of each row */
	uint32_t parked; /* behind the rows: their states are copied when it is committed */
	uint32_t before; /* of the batch before, with parked ones: those that rows can come from */
	uint64_t valid;  /* of all rows: steps that count */
	bool taken, committed, put_back;
	bool follows;  /* it is a follower's, who saves nothing */
	bool identity; /* every row goes on where it was: state in is the buffer itself */
	size_t saved;  /* how many states are */
	uint64_t is_saved[SEGUE_STATES_MAX / 64];
};

struct segue_place {
	unsigned users;                              /* batches of it that are held */
	struct segue_batch first;                    /* used unless it is held already */
	uint64_t is_composed[SEGUE_STATES_MAX / 64]; /* states in, by whichever batch of it */
};

/* Makes the places of a new mapping's batches, which go with it. SEGUE_ENOMEM. */
int segue_places_create(struct segue_mapping *mapping);

/*
 * Checks the slot of batch `step`, which is published, and makes its handle: a user of its place
 * from now on. SEGUE_EPROTOCOL, SEGUE_ENOMEM.
 */
int segue_batch_begin(struct segue_mapping *mapping, uint64_t step, struct segue_batch **out);
/* Batch `step`, which is published and held, is not looked at, and the next one goes on from it. */
void segue_batch_pass_over(struct segue_mapping *mapping, uint64_t step);
/* Frees the handle. True: nobody uses its place any more. */
bool segue_batch_end(struct segue_batch *batch);
/* Copies the states of what is parked, from the batch before: they are complete then. */
void segue_batch_copy_parked(const struct segue_batch *batch);
/* Fails with SEGUE_EUNSAVED, naming the states of the batch that are not saved. */
int segue_batch_fail_unsaved(const struct segue_batch *batch);

/* State `i` is saved from now on. */
static inline void segue_batch_note_saved(struct segue_batch *batch, size_t i)
{
	uint64_t *bits = &batch->is_saved[i / 64], bit = UINT64_C(1) << (i % 64);

	batch->saved += !(*bits & bit);
	*bits |= bit;
}

#endif
