/*
 * A stream's spec as one initializer: what most tests say of it, and bend out of shape.
 */
#ifndef SEGUE_TEST_DRAFT_H
#define SEGUE_TEST_DRAFT_H

#include "segue/segue.h"

struct segue_draft_paths {
	const char *const *paths;
	size_t path_count;
	/* Of TFRecord files. */
	enum segue_compression compression;
	const char *key_feature;
	bool allow_surplus;
	enum segue_record_kind record;
	/* Of arrays. */
	struct segue_arrays index;
	bool checksum;
	/* Of a log. */
	uint64_t capacity, producers, retain_sequences, retain_bytes;
};

struct segue_draft_part;

struct segue_draft_source {
	enum segue_source_kind kind;
	union {
		struct segue_draft_paths tfrecord, files, arrays, log;
		struct {
			const struct segue_draft_part *parts;
			size_t part_count;
		} mix;
	};
};

struct segue_draft_part {
	const char *name;
	struct segue_draft_source source;
	uint32_t weight;
	uint64_t epochs;
};

/* 0: not said. Features, states and the index of arrays need no size. */
struct segue_draft {
	const char *name;
	struct segue_draft_source source;
	const struct segue_feature *sequences;
	size_t sequence_count;
	const struct segue_feature *contexts;
	size_t context_count;
	const struct segue_state *states;
	size_t state_count;
	uint64_t num_unroll, batch_size, lanes, seed, epochs, first_epoch, tail, epoch_end,
		on_error;
	uint64_t depth, num_threads, durability, interval_ms, lease_timeout_ms, keep_checkpoints;
	uint64_t maximum_length, on_too_long, trim;
	uint64_t lanes_by, initial;
	uint64_t groups, groups_timeout_ms, max_lag_ms, on_lag;
	bool shuffle, keep_final;
	bool no_pad, no_persist;
};

/* Puts the spec together, call by call: the first that fails. The caller owns *out. */
int segue_draft_tell(const struct segue_draft *draft, struct segue_spec **out);
/* The same, and checks the whole, as opening would. */
int segue_draft_make(const struct segue_draft *draft, struct segue_spec **out);
/* Opens the stream. */
int segue_draft_open(
	struct segue_client *client, const struct segue_draft *draft, struct segue_stream **out);

#endif
