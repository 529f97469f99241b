/* How many steps lanes need, by the lengths of their sequences alone. */
#include "lane/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/progress.h"
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

/* A lane's sequences of a stretch: those from `next` to `end` are still to come. */
struct run {
	const struct segue_plan_spec *spec;
	const uint32_t *lengths;
	uint32_t lane;
	uint64_t next, end;
	uint64_t *ends;    /* of the rows, from the beginning of the stretch, or cohort, on */
	uint64_t *waiting; /* steps of what was looked at, oldest first */
	uint32_t count;
};

/* No more rows than there are sequences have something to do. */
static uint32_t rows_of(const struct segue_plan_spec *spec, uint64_t sequences)
{
	return sequences < spec->batch_size ? (uint32_t)sequences : spec->batch_size;
}

/* Each goes to the row that is free first: which of several does not matter. With tail = stop the
 * lane ends with the first row that finds no other. */
static uint64_t lane_steps(struct run *run)
{
	const struct segue_plan_spec *spec = run->spec;
	uint64_t *ends = run->ends;
	uint64_t last = 0;
	uint32_t rows = rows_of(spec, run->end - run->next);

	if (rows == 0 || (spec->tail == SEGUE_TAIL_STOP && rows < spec->batch_size))
		return 0;
	memset(ends, 0, rows * sizeof(ends[0]));
	for (; run->next < run->end; run->next++) {
		uint64_t record = segue_plan_record(spec, run->next * spec->lanes + run->lane);

		if (record == SEGUE_NO_RECORD)
			continue;
		ends[0] += segue_plan_segments(run->lengths[record], spec->num_unroll);
		if (ends[0] > last)
			last = ends[0];
		sift_down(ends, rows);
	}
	return spec->tail == SEGUE_TAIL_STOP ? ends[0] : last;
}

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
	uint32_t rows = rows_of(run->spec, run->count);
	uint64_t last = 0;

	memset(run->ends, 0, rows * sizeof(run->ends[0]));
	for (uint32_t i = 0; i < run->count; i++) {
		bool lives = last == 0 || run->ends[0] < last;

		if (!lives || segue_boundaries_class(boundaries, run->waiting[i]) != class) {
			run->waiting[left++] = run->waiting[i];
			continue;
		}
		run->ends[0] += segue_plan_segments(run->waiting[i], run->spec->num_unroll);
		if (run->ends[0] > last)
			last = run->ends[0];
		sift_down(run->ends, rows);
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

/* Behind the rows' ends, what waits. NULL: no memory, with the detail. */
static uint64_t *make_room(const struct segue_plan_spec *spec)
{
	uint64_t *room = malloc(((uint64_t)spec->batch_size + spec->window) * sizeof(room[0]));

	if (!room)
		segue_fail(SEGUE_ENOMEM, "no memory for a batch of %" PRIu32 " rows",
			spec->batch_size);
	return room;
}

/* Adds what each lane needs from the beginning of epoch `from` to that of `to`, a stretch, to
 * `steps`, if that is not NULL. Returns the most that one needs. */
static uint64_t add_stretch(const struct segue_plan_spec *spec, uint64_t from, uint64_t to,
	const uint32_t *lengths, uint64_t *room, uint64_t *steps)
{
	uint64_t longest = 0;

	for (uint32_t lane = 0; lane < spec->lanes; lane++) {
		struct run run = {spec, lengths, lane, lane_share(spec, lane, from),
			lane_share(spec, lane, to), room, room + spec->batch_size, 0};
		uint64_t needs = spec->window ? lane_steps_by_cohorts(&run) : lane_steps(&run);

		if (needs > longest)
			longest = needs;
		if (steps)
			steps[lane] += needs;
	}
	return longest;
}

int segue_plan_longest(const struct segue_plan_spec *spec, uint64_t epoch, const uint32_t *lengths,
	uint64_t *steps)
{
	uint64_t behind = stretch_end(spec, epoch);

	if (!begins_stretch(spec, epoch))
		return segue_fail(
			SEGUE_EINVAL, "plan: no stretch begins with epoch %" PRIu64, epoch);
	if (behind == UINT64_MAX)
		return segue_fail(SEGUE_EINVAL, "plan: endless input has no longest lane");
	uint64_t *room = make_room(spec);
	if (!room)
		return SEGUE_ENOMEM;
	*steps = add_stretch(spec, epoch, behind, lengths, room, NULL);
	free(room);
	return 0;
}

/* ---- All lanes, to their end ---- */

int segue_plan_check_countable(const struct segue_plan_spec *spec)
{
	uint64_t last = segue_ends_last(&spec->ends), epochs = last - spec->first_epoch;

	if (spec->records & SEGUE_PLAN_LIVE)
		return segue_fail(SEGUE_EINVAL, "sequences come as they are inserted");
	if (last == UINT64_MAX)
		return segue_fail(SEGUE_EINVAL, "the input has no end (epochs)");
	uint64_t each = spec->records > spec->lanes ? spec->records : spec->lanes;
	if (epochs > SEGUE_PLAN_COUNTED_MAX / each)
		return segue_fail(SEGUE_EINVAL,
			"%" PRIu64 " epochs of %" PRIu64
			" sequences, or lanes, take too long to be counted: the limit is %d in all",
			epochs, each, SEGUE_PLAN_COUNTED_MAX);
	return 0;
}

int segue_plan_count(const struct segue_plan_spec *spec, const uint32_t *lengths,
	const _Atomic bool *given_up, uint64_t *steps)
{
	uint64_t last = segue_ends_last(&spec->ends), padded = 0;
	uint64_t *room = make_room(spec);
	int rc = room ? 0 : SEGUE_ENOMEM;

	memset(steps, 0, spec->lanes * sizeof(steps[0]));
	for (uint64_t from = spec->first_epoch, to; !rc && from < last; from = to) {
		to = stretch_end(spec, from);
		padded += add_stretch(spec, from, to, lengths, room, steps);
		rc = segue_check_given_up(given_up);
	}
	free(room);
	for (uint32_t lane = 0; spec->tail == SEGUE_TAIL_PAD && lane < spec->lanes; lane++)
		steps[lane] = padded;
	return rc;
}
