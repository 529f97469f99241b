/*
 * The values of one Feature on their way, piece by piece: it may be of any size, and in any form.
 *
 * A cursor (steps.h) is a place in it: between values within a run, between parts of a list behind
 * that, and between lists of the Feature behind those. Of numbers a run is what is packed, or one
 * value; of bytes it is one value.
 */
#ifndef SEGUE_SOURCE_TFRECORD_FLOW_H
#define SEGUE_SOURCE_TFRECORD_FLOW_H

#include "source/sink.h"
#include "source/tfrecord/steps.h"

struct segue_flow {
	const struct segue_field *field;
	struct segue_cursor *cursor;
	struct segue_window *window;
	bool check;
	uint8_t *out;            /* where they go; NULL: they are passed over, but for: */
	struct segue_sink *sink; /* what they are appended to, where the field is not dense */
	uint64_t count, most;    /* values so far, and at which to stop */
};

/*
 * Finds the lists of a Feature that count, and puts the cursor, whose kind it sets, before the
 * first; of a Feature that has none, at its end. As segue_feature_lists().
 */
int segue_flow_begin(struct segue_flow *flow, struct segue_piece feature);

static inline bool segue_flow_at_end(const struct segue_cursor *cursor)
{
	return cursor->position >= cursor->run && cursor->position >= cursor->list &&
	       cursor->position >= cursor->end;
}

/* At the end of a run that is not the end, goes on by one part: 1 if that is a run. SEGUE_EDATA. */
int segue_flow_part(struct segue_flow *flow);
/* Goes on to the next value: 1, or 0 at the end. */
int segue_flow_find(struct segue_flow *flow);

/* What is left of a run of numbers, if wanted. SEGUE_EDATA, SEGUE_EMISFIT; of window and sink. */
int segue_flow_run(struct segue_flow *flow);
/* All numbers that are wanted, or all that there are. */
int segue_flow_all(struct segue_flow *flow);

/* What is left of a run of bytes: appended to the sink. */
int segue_flow_bytes(struct segue_flow *flow);
/* Whether it is bools. SEGUE_EMISFIT: the cursor is then at what is none. */
int segue_flow_bools(struct segue_flow *flow);

/* Integers that end in these bytes. */
static inline uint64_t segue_flow_integers(const uint8_t *bytes, size_t size)
{
	uint64_t count = 0;

	for (size_t i = 0; i < size; i++)
		count += bytes[i] < 128;
	return count;
}

#endif
