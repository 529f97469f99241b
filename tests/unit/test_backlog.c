/*
 * Tests of what a lane has before it in a log, beside a plan that is run: what it was given and has
 * finished is counted by hand.
 */
#include "lane/backlog.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { SEQUENCES = 200, LANES = 3, ROWS = 4 };

static int admit(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	(void)arg, (void)record;
	if (number % 11 == 5)
		return SEGUE_PLAN_SKIP;
	*array_steps = *total_length = 1 + number * 7 % 5 * 2;
	return 0;
}

/* After every batch, for every number of sequences that may be there: as counted one by one. */
Test(backlog, as_counted)
{
	const struct segue_plan_input input = {.admit = admit};
	struct segue_slot_span spans[ROWS];
	uint32_t rows;

	for (uint32_t lane = 0; lane < LANES; lane++) {
		const struct segue_plan_spec spec = {.records = SEQUENCES,
			.ends = {1, {0}},
			.lanes = LANES,
			.lane = lane,
			.batch_size = ROWS,
			.num_unroll = 2};
		bool taken[SEQUENCES] = {false}, lives[SEQUENCES] = {false};
		struct segue_plan plan;
		uint64_t seen = 0;

		cr_assert_eq(segue_plan_init(&plan, &spec), 0);
		for (int batch = 0; batch < 40; batch++) {
			const struct segue_position *position = plan.position;
			uint64_t floor = SEQUENCES;

			for (uint64_t n = SEQUENCES; n-- > 0;)
				if (n % LANES == lane && (!taken[n] || lives[n]))
					floor = n;
			cr_assert_eq(segue_backlog_floor(&spec, position), floor);
			cr_assert_eq(segue_backlog_seen(&spec, position), seen);
			cr_assert_eq(
				segue_backlog_needs(&spec, position), seen < floor ? seen : floor);
			for (uint64_t count = seen; count <= SEQUENCES; count++) {
				uint64_t unfinished = 0;

				for (uint64_t n = lane; n < count; n += LANES)
					unfinished += !taken[n] || lives[n];
				cr_assert_eq(segue_backlog_unfinished(&spec, position, count),
					unfinished);
			}
			cr_assert_eq(segue_plan_step(&plan, &input, spans, &rows), 1);
			for (uint64_t i = 0; i < plan.position->next; i++)
				taken[i * LANES + lane] = true;
			seen = plan.position->next ? (plan.position->next - 1) * LANES + lane + 1
						   : 0;
			memset(lives, 0, sizeof(lives));
			for (uint32_t row = 0; row < plan.position->rows; row++)
				lives[plan.position->row[row].number] =
					segue_plan_row_lives(&spec, &plan.position->row[row]);
		}
		segue_plan_finish(&plan);
	}
}

Test(backlog, who_inserts_waits_for_all_lanes)
{
	const struct segue_backlog_limits limits = {.capacity = 5, .spool = 1000};
	uint32_t behind = 9;

	cr_expect_not(segue_backlog_is_full(&limits, (uint64_t[]){5, 4, 900}, LANES, 999, &behind));
	cr_expect_eq(behind, 9);
	cr_expect(segue_backlog_is_full(&limits, (uint64_t[]){5, 5, 900}, LANES, 0, &behind));
	cr_expect_eq(behind, 2);
	cr_expect(segue_backlog_is_full(&limits, (uint64_t[]){0, 7, 1}, LANES, 1000, &behind));
	cr_expect_eq(behind, 1);
}
