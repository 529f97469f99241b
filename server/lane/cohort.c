/* Cohorts of sequences of one class. */
#include "lane/cohort.h"

#include "core/barrier.h"
#include "core/layout.h"

uint32_t segue_cohort_fill(const struct segue_boundaries *boundaries, uint32_t class,
	struct segue_plan_row *waiting, uint32_t count, struct segue_plan_row *rows,
	uint32_t row_count)
{
	uint32_t left = 0, row = 0;

	for (uint32_t i = 0; i < count; i++) {
		bool member = segue_boundaries_class(boundaries, waiting[i].array_steps) == class;

		while (row < row_count && rows[row].number != SEGUE_NO_SEQUENCE)
			row++;
		if (row < row_count && (member || SEGUE_MUTANT(any_class)))
			rows[row] = waiting[i];
		else
			waiting[left++] = waiting[i];
	}
	return left;
}
