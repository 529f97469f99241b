/* What a plan follows, of one lane. */
#ifndef SEGUE_LANE_PLAN_SPEC_H
#define SEGUE_LANE_PLAN_SPEC_H

#include "core/boundaries.h"
#include "core/ends.h"
#include "core/spec.h"

/* `records` of input that goes on, in its one epoch: its sequences come as they are inserted. */
#define SEGUE_PLAN_LIVE (UINT64_C(1) << 63)

struct segue_plan_spec {
	uint64_t records; /* N >= 1 */
	struct segue_ends ends;
	uint64_t first_epoch; /* below the first end */
	uint64_t seed;
	uint32_t lanes, lane, batch_size, num_unroll;
	enum segue_tail tail;
	enum segue_epoch_end epoch_end;
	bool shuffle;
	enum segue_lanes_by lanes_by;
	struct segue_boundaries boundaries; /* some: batches are of one class (lane/cohort.h) */
	uint32_t window; /* sequences that are looked at for a cohort; 0 without boundaries */
};

#endif
