/* Arithmetic of a plan's spec, for plan*.c. */
#ifndef SEGUE_LANE_PLAN_INSIDE_H
#define SEGUE_LANE_PLAN_INSIDE_H

#include "core/position.h"
#include "lane/numbers.h"
#include "lane/plan_spec.h"

static inline uint64_t segments_of(uint64_t array_steps, uint32_t num_unroll)
{
	return array_steps / num_unroll + (array_steps % num_unroll != 0);
}

static inline uint64_t row_segments(
	const struct segue_plan_spec *spec, const struct segue_plan_row *row)
{
	return segments_of(row->array_steps, spec->num_unroll);
}

static inline bool drains(const struct segue_plan_spec *spec)
{
	return spec->epoch_end == SEGUE_EPOCH_DRAIN;
}

/* The epoch behind the stretch that `epoch` lies in. Of an endless one no number reaches it. */
static inline uint64_t stretch_end(const struct segue_plan_spec *spec, uint64_t epoch)
{
	return drains(spec) ? epoch + 1 : segue_ends_after(&spec->ends, epoch);
}

/* Whether the input ends, for now, with the stretch that `epoch` lies in. */
static inline bool is_last_stretch(const struct segue_plan_spec *spec, uint64_t epoch)
{
	return stretch_end(spec, epoch) == segue_ends_last(&spec->ends);
}

static inline bool begins_stretch(const struct segue_plan_spec *spec, uint64_t epoch)
{
	if (epoch < spec->first_epoch || epoch >= segue_ends_last(&spec->ends))
		return false;
	return drains(spec) || epoch == spec->first_epoch || segue_ends_have(&spec->ends, epoch);
}

static inline struct segue_numbers numbers_of(const struct segue_plan_spec *spec)
{
	return (struct segue_numbers){
		spec->records, spec->seed, spec->lanes, spec->lanes_by, spec->shuffle};
}

/* How many sequences of the first `epochs` epochs belong to `lane`. */
static inline uint64_t lane_share(
	const struct segue_plan_spec *spec, uint32_t lane, uint64_t epochs)
{
	const struct segue_numbers numbers = numbers_of(spec);

	return segue_numbers_of_lane(&numbers, lane, epochs);
}

/* Where `next` stops for now: at the end of the stretch. */
static inline uint64_t share_end(
	const struct segue_plan_spec *spec, const struct segue_position *position)
{
	return lane_share(spec, spec->lane, stretch_end(spec, position->epoch));
}

static inline int compare_numbers(const void *a, const void *b)
{
	const struct segue_plan_row *left = a;
	const struct segue_plan_row *right = b;

	return (left->number > right->number) - (left->number < right->number);
}

static inline bool is_empty(const struct segue_plan_row *row)
{
	return row->number == SEGUE_NO_SEQUENCE;
}

#endif
