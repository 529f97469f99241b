/* How far a lane has come, beside a plan that is run: what was delivered is counted by hand. */
#include "lane/course.h"

#include <criterion/criterion.h>
#include <math.h>

enum { RECORDS = 50, LANES = 3, ROWS = 4, UNROLL = 2, EPOCHS = 3 };

static uint64_t steps_of(uint64_t number)
{
	return 1 + number * 7 % 5 * 2;
}

static int admit(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	(void)arg, (void)record;
	if (number % 11 == 5)
		return SEGUE_PLAN_SKIP;
	*array_steps = *total_length = steps_of(number);
	return 0;
}

static const struct segue_plan_spec base = {.records = RECORDS,
	.ends = {1, {EPOCHS}},
	.lanes = LANES,
	.batch_size = ROWS,
	.num_unroll = UNROLL};

/* From nothing to all that the lane has, and never back. */
Test(course, as_counted)
{
	const struct segue_plan_input input = {.admit = admit};
	struct segue_slot_span spans[ROWS];

	for (uint32_t lane = 0; lane < LANES; lane++) {
		struct segue_plan_spec spec = base;
		struct segue_plan plan;
		struct segue_course course;
		double parts = 0, before = 0;
		uint64_t highest = 0, skipped = 0;
		uint32_t rows;
		int rc;

		spec.lane = lane;
		cr_assert_eq(segue_plan_init(&plan, &spec), 0);
		while ((rc = segue_plan_step(&plan, &input, spans, &rows)) == 1) {
			uint64_t lowest = UINT64_MAX;
			for (uint32_t i = 0; i < rows; i++) {
				parts += 1.0 / (double)spans[i].segment_count;
				if (spans[i].number > highest)
					highest = spans[i].number;
				if (spans[i].segment + 1 < spans[i].segment_count &&
					spans[i].number < lowest)
					lowest = spans[i].number;
			}
			/* Those that were passed over are done with as well. */
			skipped = 0;
			for (uint64_t n = lane; n < plan.position->next * LANES; n += LANES)
				skipped += n % 11 == 5;
			course = segue_course_of(&spec, plan.position);
			cr_assert_float_eq(course.done, parts + (double)skipped, 1e-6);
			cr_assert_geq(course.done, before);
			before = course.done;
			cr_assert_eq(course.epochs, EPOCHS);
			if (lowest != UINT64_MAX)
				cr_assert_eq(course.epoch, lowest / RECORDS);
			cr_assert_lt(course.epoch, EPOCHS);
		}
		cr_assert_eq(rc, 0);
		course = segue_course_of(&spec, plan.position);
		uint64_t all = 0;
		for (uint64_t n = lane; n < RECORDS * EPOCHS; n += LANES)
			all++;
		cr_assert_eq(course.sequences, all);
		cr_assert_float_eq(course.done, (double)all, 1e-6);
		segue_plan_finish(&plan);
	}
}

Test(course, where_the_end_is_not_known)
{
	struct segue_plan_spec spec = base;
	struct segue_plan plan;

	spec.ends = SEGUE_ENDS(0);
	cr_assert_eq(segue_plan_init(&plan, &spec), 0);
	struct segue_course course = segue_course_of(&spec, plan.position);
	cr_assert_eq(course.epochs, 0);
	cr_assert_eq(course.sequences, 0);
	plan.position->next = RECORDS * 5 / LANES + 1;
	cr_assert_eq(segue_course_of(&spec, plan.position).epoch, 5);
	segue_plan_finish(&plan);

	/* Input that goes on has one epoch, and no number of sequences. */
	spec = base;
	spec.records = SEGUE_PLAN_LIVE;
	spec.ends = SEGUE_ENDS(1);
	cr_assert_eq(segue_plan_init(&plan, &spec), 0);
	plan.position->next = 1000;
	course = segue_course_of(&spec, plan.position);
	cr_assert_eq(course.epoch, 0);
	cr_assert_eq(course.sequences, 0);
	cr_assert_float_eq(course.done, 1000, 1e-9);
	segue_plan_finish(&plan);
}
