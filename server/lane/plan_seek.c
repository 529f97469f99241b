/* Sets a plan to a stored position, if that is possible. */
#include "lane/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/error.h"
#include "lane/cohort.h"
#include "lane/plan_inside.h"

/* Far more batches than any lane makes; steps are counted on from it. */
#define STEP_MAX (UINT64_MAX / 2)

static int check_epoch(const struct segue_plan_spec *spec, const struct segue_position *position)
{
	char ends[SEGUE_ENDS_TEXT];

	if (!begins_stretch(spec, position->epoch))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: nothing begins with epoch %" PRIu64
			" in input from epoch %" PRIu64 " that ends after %s epochs",
			position->epoch, spec->first_epoch, segue_ends_print(&spec->ends, ends));
	if (position->step > STEP_MAX)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: step %" PRIu64 " is beyond all that a lane can come to",
			position->step);
	if (position->epoch_step > position->step ||
		(position->epoch == spec->first_epoch && position->epoch_step != 0))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: epoch %" PRIu64 " cannot have begun at step %" PRIu64
			" if step %" PRIu64 " comes next",
			position->epoch, position->epoch_step, position->step);
	return 0;
}

/* That it is not below its rows' sequences check_row sees to. */
static int check_next(const struct segue_plan_spec *spec, const struct segue_position *position)
{
	uint64_t begin = lane_share(spec, spec->lane, position->epoch);
	uint64_t end = share_end(spec, position);

	if (position->next < begin)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu64 " sequences taken; the lane has %" PRIu64
			" before epoch %" PRIu64,
			position->next, begin, position->epoch);
	if (position->next > end)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu64 " sequences taken; of the %" PRIu64
			" epochs up to the end of the stretch the lane has but %" PRIu64,
			position->next, stretch_end(spec, position->epoch), end);
	return 0;
}

/* Whether batch t - 1 was made with the batch size that the position has. */
static bool is_of_this_size(const struct segue_position *position)
{
	return position->sized <= position->step;
}

static int check_size(const struct segue_plan_spec *spec, const struct segue_position *position)
{
	uint32_t size = segue_plan_batch_size(spec, position);

	if (position->sized == 0 && (position->batch_size != 0 || position->parked != 0))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu32 " parked rows, where the batch size was never changed",
			position->parked);
	if (position->sized > position->step + 1 || position->batch_size > SEGUE_ROWS_MAX ||
		(position->sized != 0 && spec->tail == SEGUE_TAIL_PAD))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: at step %" PRIu64 ", batch_size %" PRIu32
			" cannot have been set at step %" PRIu64,
			position->step, position->batch_size, position->sized - 1);
	if (position->parked != 0 && is_of_this_size(position) && position->rows != size)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu32 " rows are parked beside %" PRIu32
			" where batch_size is %" PRIu32,
			position->parked, position->rows, size);
	return 0;
}

/* No rows: before the first batch, at an end of the input, or with a batch size of 0. */
static bool may_be_rowless(
	const struct segue_plan_spec *spec, const struct segue_position *position)
{
	struct segue_position start;

	segue_plan_start(spec, &start);
	bool pristine = position->step == 0 && position->next == start.next &&
			position->epoch == start.epoch && position->undelivered == 0;

	if (position->waiting > 0)
		return segue_plan_batch_size(spec, position) == 0 || !is_of_this_size(position);
	return pristine || (position->step > 0 && !is_of_this_size(position)) ||
	       (position->step > 0 && segue_plan_batch_size(spec, position) == 0) ||
	       (position->next == share_end(spec, position) &&
		       segue_ends_have(&spec->ends, stretch_end(spec, position->epoch)));
}

static int check_rows(const struct segue_plan_spec *spec, const struct segue_position *position)
{
	bool used_up = position->next == share_end(spec, position);
	uint32_t size = segue_plan_batch_size(spec, position);
	uint32_t count = segue_position_count(position);

	if (is_of_this_size(position) && position->rows > size)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu32 " rows, but batch_size is %" PRIu32, position->rows,
			size);
	if (position->rows == 0 && !may_be_rowless(spec, position))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: no rows at step %" PRIu64 ", in the midst of the input",
			position->step);
	if (count != 0 && position->step == position->epoch_step)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu32 " rows before the first batch of epoch %" PRIu64,
			count, position->epoch);
	if (is_of_this_size(position) && position->rows != 0 && position->rows < size &&
		!(spec->tail == SEGUE_TAIL_SHRINK && (used_up || spec->window)))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu32 " of %" PRIu32 " rows before the input is used up",
			position->rows, size);
	if (position->undelivered != 0 &&
		(spec->tail != SEGUE_TAIL_STOP || (position->epoch == spec->first_epoch && count)))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu64 " segments left out, but no input has ended yet",
			position->undelivered);
	return 0;
}

static int check_empty_row(
	const struct segue_plan_spec *spec, const struct segue_position *position, uint32_t r)
{
	const struct segue_plan_row *row = &position->row[r];

	bool used_up = position->next == share_end(spec, position);

	if (spec->tail != SEGUE_TAIL_PAD || !(used_up || spec->window))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: row %" PRIu32 " is empty before the input is used up", r);
	if (row->array_steps != 0 || row->total_length != 0 || row->segment != 0)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: row %" PRIu32 " is empty, but has steps or a segment", r);
	return 0;
}

static int check_row(
	const struct segue_plan_spec *spec, const struct segue_position *position, uint32_t r)
{
	const struct segue_plan_row *row = &position->row[r];
	uint64_t segments = row_segments(spec, row);

	if (row->number == SEGUE_NO_SEQUENCE)
		return check_empty_row(spec, position, r);
	if (row->number % spec->lanes != spec->lane)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: row %" PRIu32 " holds sequence %" PRIu64
			", which is not of lane %" PRIu32 " of %" PRIu32,
			r, row->number, spec->lane, spec->lanes);
	if (row->number / spec->lanes >= position->next ||
		row->number / spec->lanes < lane_share(spec, spec->lane, position->epoch))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: row %" PRIu32 " holds sequence %" PRIu64
			", which was not taken in epoch %" PRIu64,
			r, row->number, position->epoch);
	if (segue_plan_record(spec, row->number) == SEGUE_NO_RECORD)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: row %" PRIu32 " holds sequence %" PRIu64 ", which is no record",
			r, row->number);
	if (segments == 0 || segments > UINT32_MAX || row->segment >= segments)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: row %" PRIu32 " at segment %" PRIu64 " of %" PRIu64, r,
			row->segment, segments);
	if (r >= segue_position_count(position)
			? row->segment != 0
			: row->segment >= position->step - position->epoch_step)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: row %" PRIu32 " at segment %" PRIu64 " after only %" PRIu64
			" steps",
			r, row->segment, position->step - position->epoch_step);
	if (row->total_length > segments * spec->num_unroll)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: row %" PRIu32 " has total length %" PRIu64 " in %" PRIu64
			" segments of %" PRIu32,
			r, row->total_length, segments, spec->num_unroll);
	return 0;
}

/* Sorts a copy of the rows in `scratch`, so that rows that share a sequence are neighbours. */
static int check_distinct(const struct segue_position *position, struct segue_position *scratch)
{
	uint32_t count = segue_position_entries(position);

	memcpy(scratch->row, position->row, count * sizeof(position->row[0]));
	qsort(scratch->row, count, sizeof(scratch->row[0]), compare_numbers);
	for (uint32_t r = 1; r < count; r++)
		if (scratch->row[r].number == scratch->row[r - 1].number &&
			scratch->row[r].number != SEGUE_NO_SEQUENCE)
			return segue_fail(SEGUE_EPROTOCOL,
				"position: sequence %" PRIu64 " is in two rows",
				scratch->row[r].number);
	return 0;
}

/* Those that are parked have more to come, and each is younger than all before it. */
static int check_parked(const struct segue_plan_spec *spec, const struct segue_position *position)
{
	uint64_t youngest = 0;

	for (uint32_t r = 0; r < position->rows && position->parked; r++)
		if (position->row[r].number > youngest)
			youngest = position->row[r].number;
	for (uint32_t r = position->rows; r < segue_position_count(position); r++) {
		const struct segue_plan_row *row = &position->row[r];

		if (!segue_plan_row_lives(spec, row))
			return segue_fail(SEGUE_EPROTOCOL,
				"position: row %" PRIu32 " is parked, and has ended", r);
		if (r > 0 && row->number <= youngest)
			return segue_fail(SEGUE_EPROTOCOL,
				"position: sequence %" PRIu64
				" is parked behind a younger one, %" PRIu64,
				row->number, youngest);
		youngest = row->number;
	}
	return 0;
}

/* The class of what was in batch t - 1; `at` is where. False: nothing was. */
static bool class_of_batch(
	const struct segue_plan_spec *spec, const struct segue_position *position, uint32_t *class)
{
	for (uint32_t r = 0; r < segue_position_count(position); r++) {
		if (is_empty(&position->row[r]))
			continue;
		*class = segue_boundaries_class(&spec->boundaries, position->row[r].array_steps);
		return true;
	}
	return false;
}

/* Batch t - 1 was of one class, and what waits of it had no room there. */
static int check_classes(const struct segue_plan_spec *spec, const struct segue_position *position)
{
	uint32_t count = segue_position_count(position), class = 0;
	bool had = class_of_batch(spec, position, &class);
	bool had_room = position->rows > 0 && is_of_this_size(position) &&
			(!had || position->rows < segue_plan_batch_size(spec, position));

	for (uint32_t r = 0; r < segue_position_entries(position); r++) {
		const struct segue_plan_row *row = &position->row[r];
		bool same =
			had && class == segue_boundaries_class(&spec->boundaries, row->array_steps);

		if (is_empty(row))
			had_room = true;
		else if (r < count && !same)
			return segue_fail(SEGUE_EPROTOCOL,
				"position: sequence %" PRIu64
				" shares a batch with others of another class",
				row->number);
		else if (r >= count && had_room && (same || !had))
			return segue_fail(SEGUE_EPROTOCOL,
				"position: sequence %" PRIu64 " waits, and there was a free row",
				row->number);
	}
	return 0;
}

/* Those that were looked at and wait. */
static int check_waiting(const struct segue_plan_spec *spec, const struct segue_position *position)
{
	uint32_t count = segue_position_count(position);

	if (position->waiting > spec->window)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu32 " sequences wait, of a window of %" PRIu32,
			position->waiting, spec->window);
	if (position->waiting > 0 && position->step == position->epoch_step)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu32 " sequences wait before the first batch of epoch "
			"%" PRIu64,
			position->waiting, position->epoch);
	for (uint32_t r = count; r < segue_position_entries(position); r++)
		if (is_empty(&position->row[r]) ||
			(r > count && position->row[r].number <= position->row[r - 1].number))
			return segue_fail(SEGUE_EPROTOCOL,
				"position: sequence %" PRIu64
				" waits behind a younger one, or is none",
				position->row[r].number);
	return spec->window ? check_classes(spec, position) : 0;
}

int segue_plan_seek(struct segue_plan *plan, const struct segue_position *position)
{
	const struct segue_plan_spec *spec = &plan->spec;
	int rc = check_epoch(spec, position);

	if (!rc)
		rc = check_next(spec, position);
	if (!rc)
		rc = check_size(spec, position);
	if (!rc)
		rc = check_rows(spec, position);
	for (uint32_t r = 0; !rc && r < segue_position_entries(position); r++)
		rc = check_row(spec, position, r);
	if (!rc)
		rc = check_parked(spec, position);
	if (!rc)
		rc = check_waiting(spec, position);
	if (!rc)
		rc = segue_plan_make_room(plan, segue_plan_places(spec, position));
	if (!rc)
		rc = check_distinct(position, plan->scratch);
	if (!rc)
		memcpy(plan->position, position,
			segue_position_size(segue_position_entries(position)));
	if (!rc && SEGUE_MUTANT(window_forgotten))
		plan->position->waiting = 0;
	return rc;
}
