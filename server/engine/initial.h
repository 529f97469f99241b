/*
 * What the rows of a batch that begin are handed, where it lies in the slot: initial values from
 * the data, or what was kept under their record's key (initial = kept, lane/again.h).
 */
#ifndef SEGUE_ENGINE_INITIAL_H
#define SEGUE_ENGINE_INITIAL_H

#include <pthread.h>

#include "lane/feed.h"
#include "source/source.h"

/* What the store has kept under a key. */
struct segue_initials_found {
	uint64_t number;
	const uint8_t *states; /* of a row, in `value`; NULL: they were deleted */
	void *value;           /* freed by who asked */
};

/* Where what was kept is looked for that is not in memory any more. */
struct segue_initials_store {
	/*
	 * Of the lane's final states of a record key those of the highest number, or their
	 * deletion. SEGUE_ENOTFOUND; what the store says. On a loader thread.
	 */
	int (*load)(void *arg, const char *key, size_t size, struct segue_initials_found *found);
	void *arg;
};

/* Zeroed: of a stream whose rows begin with nothing that was kept. */
struct segue_initials {
	struct segue_initials_store store; /* set by who makes the filler */
	uint64_t row_size;
	struct segue_again_key *key; /* owned: of the rows that begin */
	struct segue_initials_row {
		uint32_t row;
		bool found;
		uint64_t number;
	} * row;         /* owned: of each key */
	uint32_t count;  /* of both */
	uint8_t *states; /* owned: places * row_size, of the rows that were found */
};

/* For batches of `places` rows. SEGUE_ENOMEM. */
int segue_initial_init(
	struct segue_initials *initial, const struct segue_spec *spec, uint32_t places);
void segue_initial_finish(struct segue_initials *initial);

/* Row `row` of the batch that is being made begins with the record. After count = 0. */
void segue_initial_note(
	struct segue_initials *initial, uint32_t row, const struct segue_record *record);
/*
 * Finds what was kept for each row that was noted, and flags the spans of those that have something
 * (SEGUE_SPAN_KEPT). SEGUE_ENOTYET: a batch in which one of the keys ended is not committed yet;
 * the worker rings when it is. SEGUE_ENOMEM; what carry and store say. Takes the feed's lock.
 */
int segue_initial_find(struct segue_initials *initial, struct segue_feed *feed,
	pthread_mutex_t *lock, struct segue_slot_span *spans);
/*
 * Writes row i's into its slot, of states that have them there; where nothing was kept, and the
 * value is not from the data, the library has it. Of a row that goes on with its sequence nobody
 * reads them, unless its policy says so: then initial values, whatever was kept. `record`: NULL of
 * an empty row.
 */
int segue_initial_fill(const struct segue_initials *initial, const struct segue_spec *spec,
	const struct segue_geometry *geometry, const struct segue_slot_span *span, uint32_t i,
	struct segue_record *record, uint8_t *slot);

#endif
