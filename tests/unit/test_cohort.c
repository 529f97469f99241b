/* Cohorts against a plain model: what waits and the rows, one sequence after the other. */
#include "lane/cohort.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WAITING_MAX = 20, ROWS_MAX = 8, TRIALS = 20000 };

static uint32_t seed_of(void)
{
	const char *text = getenv("SEGUE_TEST_SEED");
	uint32_t seed = text ? (uint32_t)strtoul(text, NULL, 10) : (uint32_t)time(NULL);

	fprintf(stderr, "SEGUE_TEST_SEED=%u\n", seed);
	return seed;
}

static struct segue_plan_row row_of(uint64_t number, uint64_t steps)
{
	return (struct segue_plan_row){
		.number = number, .array_steps = steps, .total_length = steps + 1};
}

static const struct segue_plan_row none = {.number = SEGUE_NO_SEQUENCE};

/* The window of the header's picture. */
Test(cohort, members_in_order)
{
	const struct segue_boundaries boundaries = SEGUE_BOUNDARIES(5);
	struct segue_plan_row waiting[] = {
		row_of(0, 3), row_of(1, 9), row_of(2, 2), row_of(3, 8), row_of(4, 3), row_of(5, 7)};
	struct segue_plan_row rows[] = {none, none};

	cr_assert_eq(segue_cohort_fill(&boundaries, 0, waiting, 6, rows, 2), 4);
	cr_assert_eq(rows[0].number, 0);
	cr_assert_eq(rows[1].number, 2);
	cr_assert_eq(rows[1].total_length, 3);
	rows[1] = none;
	cr_assert_eq(segue_cohort_fill(&boundaries, 0, waiting, 4, rows, 2), 3);
	cr_assert_eq(rows[0].number, 0);
	cr_assert_eq(rows[1].number, 4);
	rows[0] = none;
	cr_assert_eq(segue_cohort_fill(&boundaries, 0, waiting, 3, rows, 2), 3);
	cr_assert_eq(rows[0].number, SEGUE_NO_SEQUENCE);
	for (uint64_t i = 0; i < 3; i++)
		cr_assert_eq(waiting[i].number, 2 * i + 1);
}

/* Again and again: the oldest member that is left, to the first row that is empty. */
static uint32_t plain_fill(const struct segue_boundaries *boundaries, uint32_t class,
	struct segue_plan_row *waiting, uint32_t count, struct segue_plan_row *rows,
	uint32_t row_count)
{
	for (;;) {
		uint32_t at = 0, row = 0;

		while (at < count &&
			segue_boundaries_class(boundaries, waiting[at].array_steps) != class)
			at++;
		while (row < row_count && rows[row].number != SEGUE_NO_SEQUENCE)
			row++;
		if (at == count || row == row_count)
			return count;
		rows[row] = waiting[at];
		memmove(waiting + at, waiting + at + 1, (count - at - 1) * sizeof(*waiting));
		count--;
	}
}

Test(cohort, against_a_plain_model)
{
	srand(seed_of());
	for (int trial = 0; trial < TRIALS; trial++) {
		const struct segue_boundaries boundaries = SEGUE_BOUNDARIES(4, 7);
		struct segue_plan_row waiting[WAITING_MAX], rows[ROWS_MAX], wait[WAITING_MAX],
			model[ROWS_MAX];
		uint32_t count = (uint32_t)rand() % (WAITING_MAX + 1);
		uint32_t row_count = (uint32_t)rand() % (ROWS_MAX + 1);
		uint32_t class = (uint32_t)rand() % 3;

		for (uint32_t i = 0; i < count; i++)
			waiting[i] = row_of(100 + i, 1 + (uint64_t)rand() % 9);
		for (uint32_t r = 0; r < row_count; r++)
			rows[r] = rand() % 2 ? none : row_of(r, 5);
		memcpy(wait, waiting, sizeof(wait));
		memcpy(model, rows, sizeof(model));
		uint32_t left =
			segue_cohort_fill(&boundaries, class, waiting, count, rows, row_count);
		cr_assert_eq(left, plain_fill(&boundaries, class, wait, count, model, row_count),
			"trial %d", trial);
		cr_assert_arr_eq(waiting, wait, left * sizeof(*wait), "trial %d", trial);
		cr_assert_arr_eq(rows, model, row_count * sizeof(*model), "trial %d", trial);
	}
}
