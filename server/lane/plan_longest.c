/* How many steps the longest lane needs, for tail = pad. */
#include "lane/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "lane/cohort.h"
#include "lane/numbers.h"
#include "lane/plan_inside.h"

/* ---- The longest lane ---- */

/* Restores the heap (least first) after ends[0] has grown. */
static void sift_down(uint64_t *ends, uint32_t count)
{
	uint64_t at = 0;
	uint64_t value = ends[0];

	for (uint64_t child = 1; child < count; child = 2 * at + 1) {
		if (child + 1 < count && ends[child + 1] < ends[child])
			child++;
		if (value <= ends[child])
			break;
		ends[at] = ends[child];
		at = child;
	}
	ends[at] = value;
}

/* Steps that `lane` needs for its sequences from `begin` to `end`: each goes to the row that is
 * free first. Which of several does not matter. */
static uint64_t lane_steps(const struct segue_plan_spec *spec, uint32_t lane, uint64_t begin,
	uint64_t end, const uint32_t *lengths, uint64_t *ends)
{
	uint64_t last = 0;

	memset(ends, 0, spec->batch_size * sizeof(ends[0]));
	for (uint64_t next = begin; next < end; next++) {
		uint64_t record = segue_plan_record(spec, next * spec->lanes + lane);

		if (record == SEGUE_NO_RECORD)
			continue;
		ends[0] += segue_plan_segments(lengths[record], spec->num_unroll);
		if (ends[0] > last)
			last = ends[0];
		sift_down(ends, spec->batch_size);
	}
	return last;
}

struct run {
	const struct segue_plan_spec *spec;
	const uint32_t *lengths;
	uint32_t lane;
	uint64_t next, end;
	uint64_t *ends;    /* of the rows, from the cohort's beginning on */
	uint64_t *waiting; /* steps of what was looked at, oldest first */
	uint32_t count;
};

/* Looks at as many as the window is. */
static void look(struct run *run)
{
	for (; run->count < run->spec->window && run->next < run->end; run->next++) {
		uint64_t record =
			segue_plan_record(run->spec, run->next * run->spec->lanes + run->lane);

		if (record != SEGUE_NO_RECORD && run->lengths[record])
			run->waiting[run->count++] = run->lengths[record];
	}
}

/* Steps that one cohort needs, that of the oldest that waits: to where no row lives. */
static uint64_t cohort_steps(struct run *run)
{
	const struct segue_boundaries *boundaries = &run->spec->boundaries;
	uint32_t class = segue_boundaries_class(boundaries, run->waiting[0]), left = 0;
	uint64_t last = 0;

	memset(run->ends, 0, run->spec->batch_size * sizeof(run->ends[0]));
	for (uint32_t i = 0; i < run->count; i++) {
		bool lives = last == 0 || run->ends[0] < last;

		if (!lives || segue_boundaries_class(boundaries, run->waiting[i]) != class) {
			run->waiting[left++] = run->waiting[i];
			continue;
		}
		run->ends[0] += segue_plan_segments(run->waiting[i], run->spec->num_unroll);
		if (run->ends[0] > last)
			last = run->ends[0];
		sift_down(run->ends, run->spec->batch_size);
	}
	run->count = left;
	return last;
}

/* As lane_steps(), by cohorts. */
static uint64_t lane_steps_by_cohorts(struct run *run)
{
	uint64_t steps = 0;

	for (look(run); run->count > 0; look(run))
		steps += cohort_steps(run);
	return steps;
}

int segue_plan_longest(const struct segue_plan_spec *spec, uint64_t epoch, const uint32_t *lengths,
	uint64_t *steps)
{
	uint64_t behind = stretch_end(spec, epoch);
	uint64_t longest = 0;

	if (!begins_stretch(spec, epoch))
		return segue_fail(
			SEGUE_EINVAL, "plan: no stretch begins with epoch %" PRIu64, epoch);
	if (behind == UINT64_MAX)
		return segue_fail(SEGUE_EINVAL, "plan: endless input has no longest lane");
	/* Behind the rows' ends, what waits. */
	uint64_t *ends = malloc(((uint64_t)spec->batch_size + spec->window) * sizeof(ends[0]));
	if (!ends)
		return segue_fail(SEGUE_ENOMEM, "no memory for a batch of %" PRIu32 " rows",
			spec->batch_size);
	for (uint32_t lane = 0; lane < spec->lanes; lane++) {
		uint64_t begin = lane_share(spec, lane, epoch);
		uint64_t end = lane_share(spec, lane, behind);
		struct run run = {
			spec, lengths, lane, begin, end, ends, ends + spec->batch_size, 0};
		uint64_t lane_needs = spec->window
					      ? lane_steps_by_cohorts(&run)
					      : lane_steps(spec, lane, begin, end, lengths, ends);

		if (lane_needs > longest)
			longest = lane_needs;
	}
	free(ends);
	*steps = longest;
	return 0;
}
