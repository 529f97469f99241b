/*
 * What the store has of a stream under a record key: the final states (finals.h) and, of a sequence
 * that goes on, the states of its live row; and what may be put there.
 *
 * The key's lanes are those in which it may come. Of a stream with lanes_by = record, whose store
 * has had a sequence of the key, those that had it; else all lanes. What is put counts at the
 * committed step of one of them: that of the newest that is there, or, where the key may come in
 * any lane, the first. It stands directly above all of the key that has ended or goes on, and below
 * every sequence of it that begins later.
 *
 * So it is exact whatever lanes do afterwards: while it is put nothing of the key is under way but
 * what the store has, and it goes back with one lane.
 *
 * Where rows begin with what their lane has kept (initial = kept), it is put in each of the key's
 * lanes, at its committed step and above all of the key that it has: each lane goes back alone.
 */
#ifndef SEGUE_STORE_BY_KEY_H
#define SEGUE_STORE_BY_KEY_H

#include "store/finals.h"
#include "store/lanes.h"

/* The live row of a key. */
struct segue_live_row {
	uint32_t lane;
	uint64_t number;
	uint64_t step; /* of its lane, as it is on disk: it has had the batches below */
	struct segue_row row;
	void *value; /* owned: what `row` points into */
};

/*
 * The live row under the record key `name`; of several that of the highest sequence number. The
 * caller frees out->value. SEGUE_ENOTFOUND.
 */
int segue_by_key_live(struct segue_store *store, const struct segue_stream_record *stream,
	uint32_t group, const char *name, size_t name_size, struct segue_live_row *out);

/* A lane of an open stream, as the server knows it: more than the store does. */
struct segue_lane_known {
	uint64_t generation; /* of the last grant that it knows of */
	bool held;           /* or reserved for another process than the one that asks */
	int64_t pid;
};

struct segue_by_key_put {
	const char *stream;
	uint32_t group; /* its number */
	const char *key;
	size_t key_size;
	const uint8_t *states; /* row_size bytes; NULL: what is there is deleted */
	uint64_t row_size;     /* of `states` */
	/* It was asked for before, and may be there: then nothing is to be done. */
	bool again;
	const struct segue_lane_known *known; /* of each lane; NULL: the stream is not open */
	/* What this process has reserved since the server was lost is no reason against it. */
	const struct segue_holder *asking;
};

/*
 * Adds what puts these states there, or deletes what is there (nothing, where nothing of the key is
 * known). To be called while none of the stream's lanes changes hands, for what it reads must stay
 * so (a change of all lanes of the place: engine/changes.h). SEGUE_ENOTFOUND (no such stream),
 * SEGUE_ESPEC (without keep_final, or without states), SEGUE_ESTATE (of another size), SEGUE_EBUSY
 * (one of the key's lanes is held, or reserved: names the process). On an error nothing was added.
 */
int segue_by_key_put(
	struct segue_ops *ops, struct segue_store *store, const struct segue_by_key_put *put);

#endif
