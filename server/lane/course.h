/* How far a lane has come in its input: for people, who ask how long it takes yet. Pure. */
#ifndef SEGUE_LANE_COURSE_H
#define SEGUE_LANE_COURSE_H

#include "lane/plan.h"

struct segue_course {
	uint64_t epoch;  /* of the oldest sequence on its way, from 0; else of the next */
	uint64_t epochs; /* in all; 0: endless, or one that goes on */
	/* Sequences of the lane, those before first_epoch included: parts of what is on its way
	 * count. */
	double done;
	uint64_t sequences; /* in all; 0: endless, or not known yet */
};

/* At a position of a plan. */
struct segue_course segue_course_of(
	const struct segue_plan_spec *plan, const struct segue_position *position);

#endif
