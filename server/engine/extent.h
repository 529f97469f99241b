/* How many steps the rows of a batch have. */
#ifndef SEGUE_ENGINE_EXTENT_H
#define SEGUE_ENGINE_EXTENT_H

#include "core/layout.h"
#include "source/source.h"

struct segue_extent {
	uint32_t steps; /* of each row: T of its tensors, [rows, T, dims...] */
	uint64_t valid; /* how many of all rows' count */
};

/*
 * Of a batch of these spans: num_unroll, or, where the spec cuts it, the longest length, but never
 * without a step: few networks can take that.
 */
struct segue_extent segue_extent_of(
	const struct segue_spec *spec, const struct segue_slot_span *spans, uint32_t rows);

/* Steps of the span's row that its sequence has, and the batch. */
static inline uint64_t segue_extent_steps(
	const struct segue_extent *extent, const struct segue_slot_span *span)
{
	uint64_t left = span->array_steps - span->first_step;

	return left < extent->steps ? left : extent->steps;
}

/*
 * When all features of the span have been read, which has moved the record's cursors behind what
 * was read: moves them to where its next segment begins. Where a batch is cut that may be another
 * place: a sequence can have segments of which no step counts. What seeking returns.
 */
int segue_extent_go_on(const struct segue_extent *extent, const struct segue_spec *spec,
	const struct segue_slot_span *span, struct segue_record *record);

#endif
