/* How far a lane has come. */
#include "lane/course.h"

#include "lane/numbers.h"

/* What of a sequence that has begun is still to come, 0 to 1. */
static double left_of(const struct segue_plan_spec *plan, const struct segue_plan_row *row)
{
	uint64_t segments = segue_plan_segments(row->array_steps, plan->num_unroll);

	return (double)(segments - row->segment - 1) / (double)segments;
}

struct segue_course segue_course_of(
	const struct segue_plan_spec *plan, const struct segue_position *position)
{
	const struct segue_numbers numbers = {
		.records = plan->records, .lanes = plan->lanes, .lanes_by = plan->lanes_by};
	bool goes_on = plan->records >= SEGUE_PLAN_LIVE;
	uint64_t oldest = position->next * plan->lanes + plan->lane;
	uint64_t last = segue_ends_last(&plan->ends), an_epoch = segue_numbers_an_epoch(&numbers);
	struct segue_course course = {.done = (double)(position->next - position->waiting)};

	for (uint32_t i = 0; i < segue_position_count(position); i++) {
		const struct segue_plan_row *row = &position->row[i];
		if (row->number == SEGUE_NO_SEQUENCE || !segue_plan_row_lives(plan, row))
			continue;
		course.done -= left_of(plan, row);
		oldest = row->number < oldest ? row->number : oldest;
	}
	if (goes_on)
		return course;
	course.epoch = oldest / an_epoch;
	if (last == UINT64_MAX)
		return course;
	course.epochs = last;
	course.epoch = course.epoch < last ? course.epoch : last - 1;
	course.sequences = segue_numbers_of_lane(&numbers, plan->lane, last);
	return course;
}
