/* The plan of a lane: rows advance one segment a batch, ended rows take the lane's next sequence.
 */
#include "lane/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "lane/permutation.h"

/* ---- Arithmetic of a spec ---- */

uint64_t segue_plan_segments(uint64_t array_steps, uint32_t num_unroll)
{
	return array_steps / num_unroll + (array_steps % num_unroll != 0);
}

uint64_t segue_plan_record(const struct segue_plan_spec *spec, uint64_t number)
{
	struct segue_permutation permutation;
	uint64_t place = number % spec->records;

	if (!spec->shuffle)
		return place;
	segue_permutation_init(&permutation, spec->seed, number / spec->records, spec->records);
	return segue_permutation_apply(&permutation, place);
}

static uint64_t row_segments(const struct segue_plan_spec *spec, const struct segue_plan_row *row)
{
	return segue_plan_segments(row->array_steps, spec->num_unroll);
}

bool segue_plan_row_lives(const struct segue_plan_spec *spec, const struct segue_plan_row *row)
{
	return row->number != SEGUE_NO_SEQUENCE && row->segment + 1 < row_segments(spec, row);
}

static bool drains(const struct segue_plan_spec *spec)
{
	return spec->epoch_end == SEGUE_EPOCH_DRAIN;
}

/* The epoch behind the stretch that `epoch` lies in. Of an endless one no number reaches it. */
static uint64_t stretch_end(const struct segue_plan_spec *spec, uint64_t epoch)
{
	return drains(spec) ? epoch + 1 : segue_ends_after(&spec->ends, epoch);
}

/* Whether the input ends, for now, with the stretch that `epoch` lies in. */
static bool is_last_stretch(const struct segue_plan_spec *spec, uint64_t epoch)
{
	return stretch_end(spec, epoch) == segue_ends_last(&spec->ends);
}

static bool begins_stretch(const struct segue_plan_spec *spec, uint64_t epoch)
{
	if (epoch < spec->first_epoch || epoch >= segue_ends_last(&spec->ends))
		return false;
	return drains(spec) || epoch == spec->first_epoch || segue_ends_have(&spec->ends, epoch);
}

/* How many sequences of the first `epochs` epochs belong to `lane`. */
static uint64_t lane_share(const struct segue_plan_spec *spec, uint32_t lane, uint64_t epochs)
{
	uint64_t numbers;

	if (__builtin_mul_overflow(epochs, spec->records, &numbers))
		numbers = UINT64_MAX;
	return numbers <= lane ? 0 : (numbers - lane - 1) / spec->lanes + 1;
}

/* Where `next` stops for now: at the end of the stretch. */
static uint64_t share_end(const struct segue_plan_spec *spec, const struct segue_position *position)
{
	return lane_share(spec, spec->lane, stretch_end(spec, position->epoch));
}

size_t segue_position_size(uint32_t batch_size)
{
	return sizeof(struct segue_position) + batch_size * sizeof(struct segue_plan_row);
}

/* ---- Life ---- */

static int check_spec(const struct segue_plan_spec *spec)
{
	uint64_t numbers;

	if (spec->records == 0)
		return segue_fail(SEGUE_EINVAL, "plan: a data set without records has no plan");
	if (spec->lanes == 0 || spec->lane >= spec->lanes)
		return segue_fail(SEGUE_EINVAL, "plan: lane %" PRIu32 " of %" PRIu32 " lanes",
			spec->lane, spec->lanes);
	if (spec->batch_size == 0)
		return segue_fail(SEGUE_EINVAL, "plan: batch_size is 0; it must be 1 or more");
	if (spec->num_unroll == 0)
		return segue_fail(SEGUE_EINVAL, "plan: num_unroll is 0; it must be 1 or more");
	if (spec->tail != SEGUE_TAIL_SHRINK && spec->tail != SEGUE_TAIL_STOP &&
		spec->tail != SEGUE_TAIL_PAD)
		return segue_fail(SEGUE_EINVAL, "plan: %d is no tail", (int)spec->tail);
	if (spec->epoch_end != SEGUE_EPOCH_CONTINUE && spec->epoch_end != SEGUE_EPOCH_DRAIN)
		return segue_fail(SEGUE_EINVAL, "plan: %d is no epoch_end", (int)spec->epoch_end);
	int rc = segue_ends_check(&spec->ends);
	if (rc)
		return rc;
	if (spec->first_epoch >= segue_ends_after(&spec->ends, 0))
		return segue_fail(SEGUE_EINVAL,
			"plan: epoch %" PRIu64 " is the first, and the input ends before it",
			spec->first_epoch);
	if (__builtin_mul_overflow(spec->first_epoch, spec->records, &numbers))
		return segue_fail(SEGUE_EINVAL,
			"first_epoch is %" PRIu64 ": %" PRIu64
			" records an epoch are more sequences than can be numbered: give a smaller "
			"one",
			spec->first_epoch, spec->records);
	return 0;
}

void segue_plan_start(const struct segue_plan_spec *spec, struct segue_position *out)
{
	*out = (struct segue_position){.epoch = spec->first_epoch,
		.next = lane_share(spec, spec->lane, spec->first_epoch)};
}

int segue_plan_init(struct segue_plan *plan, const struct segue_plan_spec *spec)
{
	size_t size = segue_position_size(spec->batch_size);
	int rc = check_spec(spec);

	if (rc)
		return rc;
	struct segue_position *position = calloc(1, size);
	struct segue_position *scratch = calloc(1, size);
	if (!position || !scratch) {
		free(position);
		free(scratch);
		return segue_fail(SEGUE_ENOMEM, "no memory for a batch of %" PRIu32 " rows",
			spec->batch_size);
	}
	segue_plan_start(spec, position);
	*plan = (struct segue_plan){*spec, position, scratch};
	return 0;
}

void segue_plan_finish(struct segue_plan *plan)
{
	free(plan->position);
	free(plan->scratch);
	*plan = (struct segue_plan){0};
}

int segue_plan_end(struct segue_plan *plan, uint64_t records)
{
	struct segue_plan_spec spec = plan->spec;

	spec.records = records;
	if (plan->position->next > lane_share(&spec, spec.lane, 1))
		return segue_fail(SEGUE_EPROTOCOL,
			"the input ends after %" PRIu64 " records, and lane %" PRIu32
			" has taken %" PRIu64 " of them",
			records, spec.lane, plan->position->next);
	plan->spec = spec;
	return 0;
}

/* ---- Seek ---- */

static int check_epoch(const struct segue_plan_spec *spec, const struct segue_position *position)
{
	char ends[SEGUE_ENDS_TEXT];

	if (!begins_stretch(spec, position->epoch))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: nothing begins with epoch %" PRIu64
			" in input from epoch %" PRIu64 " that ends after %s epochs",
			position->epoch, spec->first_epoch, segue_ends_print(&spec->ends, ends));
	if (position->epoch_step > position->step ||
		(position->epoch == spec->first_epoch && position->epoch_step != 0))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: epoch %" PRIu64 " cannot have begun at step %" PRIu64
			" if step %" PRIu64 " comes next",
			position->epoch, position->epoch_step, position->step);
	return 0;
}

/* That it is not below its rows' sequences, and so of this epoch, check_row sees to. */
static int check_next(const struct segue_plan_spec *spec, const struct segue_position *position)
{
	uint64_t end = share_end(spec, position);

	if (position->next > end)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu64 " sequences taken; of the %" PRIu64
			" epochs up to the end of the stretch the lane has but %" PRIu64,
			position->next, stretch_end(spec, position->epoch), end);
	return 0;
}

/* No rows: before the first batch, or at an end of the input. */
static bool may_be_rowless(
	const struct segue_plan_spec *spec, const struct segue_position *position)
{
	struct segue_position start;

	segue_plan_start(spec, &start);
	bool pristine = position->step == 0 && position->next == start.next &&
			position->epoch == start.epoch && position->undelivered == 0;

	return pristine ||
	       (position->next == share_end(spec, position) &&
		       segue_ends_have(&spec->ends, stretch_end(spec, position->epoch)));
}

static int check_rows(const struct segue_plan_spec *spec, const struct segue_position *position)
{
	bool used_up = position->next == share_end(spec, position);

	if (position->rows > spec->batch_size)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu32 " rows, but batch_size is %" PRIu32, position->rows,
			spec->batch_size);
	if (position->rows == 0 && !may_be_rowless(spec, position))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: no rows at step %" PRIu64 ", in the midst of the input",
			position->step);
	if (position->rows != 0 && position->step == position->epoch_step)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu32 " rows before the first batch of epoch %" PRIu64,
			position->rows, position->epoch);
	if (position->rows != 0 && position->rows < spec->batch_size &&
		!(spec->tail == SEGUE_TAIL_SHRINK && used_up))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu32 " of %" PRIu32 " rows before the input is used up",
			position->rows, spec->batch_size);
	if (position->undelivered != 0 &&
		(spec->tail != SEGUE_TAIL_STOP ||
			(position->epoch == spec->first_epoch && position->rows != 0)))
		return segue_fail(SEGUE_EPROTOCOL,
			"position: %" PRIu64 " segments left out, but no input has ended yet",
			position->undelivered);
	return 0;
}

static int check_empty_row(
	const struct segue_plan_spec *spec, const struct segue_position *position, uint32_t r)
{
	const struct segue_plan_row *row = &position->row[r];

	if (spec->tail != SEGUE_TAIL_PAD || position->next != share_end(spec, position))
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
	if (segments == 0 || segments > UINT32_MAX || row->segment >= segments)
		return segue_fail(SEGUE_EPROTOCOL,
			"position: row %" PRIu32 " at segment %" PRIu64 " of %" PRIu64, r,
			row->segment, segments);
	if (row->segment >= position->step - position->epoch_step)
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

static int compare_numbers(const void *a, const void *b)
{
	const struct segue_plan_row *left = a;
	const struct segue_plan_row *right = b;

	return (left->number > right->number) - (left->number < right->number);
}

/* Sorts a copy of the rows in `scratch`, so that rows that share a sequence are neighbours. */
static int check_distinct(const struct segue_position *position, struct segue_position *scratch)
{
	memcpy(scratch->row, position->row, position->rows * sizeof(position->row[0]));
	qsort(scratch->row, position->rows, sizeof(scratch->row[0]), compare_numbers);
	for (uint32_t r = 1; r < position->rows; r++)
		if (scratch->row[r].number == scratch->row[r - 1].number &&
			scratch->row[r].number != SEGUE_NO_SEQUENCE)
			return segue_fail(SEGUE_EPROTOCOL,
				"position: sequence %" PRIu64 " is in two rows",
				scratch->row[r].number);
	return 0;
}

int segue_plan_seek(struct segue_plan *plan, const struct segue_position *position)
{
	const struct segue_plan_spec *spec = &plan->spec;
	int rc = check_epoch(spec, position);

	if (!rc)
		rc = check_next(spec, position);
	if (!rc)
		rc = check_rows(spec, position);
	for (uint32_t r = 0; !rc && r < position->rows; r++)
		rc = check_row(spec, position, r);
	if (!rc)
		rc = check_distinct(position, plan->scratch);
	if (!rc)
		memcpy(plan->position, position, segue_position_size(position->rows));
	return rc;
}

/* ---- Step: rows ---- */

static void empty_row(struct segue_plan_row *row)
{
	*row = (struct segue_plan_row){.number = SEGUE_NO_SEQUENCE};
}

static bool is_empty(const struct segue_plan_row *row)
{
	return row->number == SEGUE_NO_SEQUENCE;
}

/* The next position before anything is taken: live rows a segment further, all others empty. */
static void advance(const struct segue_plan *plan)
{
	const struct segue_position *from = plan->position;
	struct segue_position *to = plan->scratch;

	memcpy(to, from, segue_position_size(from->rows));
	to->rows = plan->spec.batch_size;
	for (uint32_t r = 0; r < to->rows; r++) {
		if (r < from->rows && segue_plan_row_lives(&plan->spec, &to->row[r]))
			to->row[r].segment++;
		else
			empty_row(&to->row[r]);
	}
}

static int check_admitted(const struct segue_plan_spec *spec, const struct segue_plan_row *row)
{
	uint64_t segments = row_segments(spec, row);

	if (segments > UINT32_MAX)
		return segue_fail(SEGUE_ELIMIT,
			"sequence %" PRIu64 ": %" PRIu64 " steps are %" PRIu64
			" segments of num_unroll = %" PRIu32 "; at most %" PRIu32
			" can be numbered: raise num_unroll",
			row->number, row->array_steps, segments, spec->num_unroll, UINT32_MAX);
	if (segments == 0 || row->total_length > segments * spec->num_unroll)
		return segue_fail(SEGUE_EDATA,
			"sequence %" PRIu64 ": total length %" PRIu64 " in %" PRIu64 " steps",
			row->number, row->total_length, row->array_steps);
	return 0;
}

/*
 * How many numbers in a row may yield nothing before endless input is given up. Where every record
 * is passed over, it would else be tried for ever.
 *
 * An epoch's worth of the lane's numbers is too few: with as many lanes as records it is one. After
 * two epochs' worth of all lanes a lane that is alone, or is not shuffled, has met each record that
 * it will ever meet; others have with near certainty, thanks to the constant also in a small set.
 */
static uint64_t patience(const struct segue_plan_spec *spec)
{
	bool endless = segue_ends_have(&spec->ends, 0);

	return endless ? 2 * spec->records + 4096 : UINT64_MAX;
}

/* Takes the lane's next sequence into `row`: 1, or 0 if they are used up. */
static int take(
	struct segue_plan *plan, const struct segue_plan_input *input, struct segue_plan_row *row)
{
	const struct segue_plan_spec *spec = &plan->spec;
	struct segue_position *to = plan->scratch;
	uint64_t begin = to->next;
	uint64_t end = share_end(spec, to);

	while (to->next < end) {
		struct segue_plan_row taken = {.number = to->next * spec->lanes + spec->lane};

		if (to->next - begin >= patience(spec))
			return segue_fail(SEGUE_EDATA,
				"lane %" PRIu32 ": %" PRIu64
				" sequences in a row, up to number %" PRIu64
				", were passed over as damaged (on_error=\"skip\"), and with "
				"epochs=None it would be so for ever: make or copy the files anew",
				spec->lane, to->next - begin, taken.number);
		int rc = input->admit(input->arg, taken.number,
			segue_plan_record(spec, taken.number), &taken.array_steps,
			&taken.total_length);
		if (rc < 0)
			return rc;
		to->next++;
		if (rc == SEGUE_PLAN_SKIP)
			continue;
		rc = check_admitted(spec, &taken);
		if (rc)
			return rc;
		*row = taken;
		return 1;
	}
	return 0;
}

/* Fills the empty rows in order: 1 if none is left, 0 if the sequences are used up. */
static int refill(struct segue_plan *plan, const struct segue_plan_input *input)
{
	struct segue_position *to = plan->scratch;

	for (uint32_t r = 0; r < to->rows; r++) {
		int rc = is_empty(&to->row[r]) ? take(plan, input, &to->row[r]) : 1;

		if (rc <= 0)
			return rc;
	}
	return 1;
}

/* ---- Step: tails ---- */

/* Takes the empty rows out; returns how many are left. */
static uint32_t close_up(struct segue_position *position)
{
	uint32_t rows = 0;

	for (uint32_t r = 0; r < position->rows; r++)
		if (!is_empty(&position->row[r]))
			position->row[rows++] = position->row[r];
	position->rows = rows;
	return rows;
}

/* Segments that the rows have still to deliver, a sequence taken just now included. */
static uint64_t remaining(const struct segue_plan_spec *spec, const struct segue_position *position)
{
	uint64_t sum = 0;

	for (uint32_t r = 0; r < position->rows; r++)
		if (!is_empty(&position->row[r]))
			sum += row_segments(spec, &position->row[r]) - position->row[r].segment;
	return sum;
}

static bool all_empty(const struct segue_position *position)
{
	uint32_t r = 0;

	while (r < position->rows && is_empty(&position->row[r]))
		r++;
	return r == position->rows;
}

/* Pad: 1 while this lane has a row left or another lane may have. */
static int pad(const struct segue_plan *plan, const struct segue_plan_input *input)
{
	const struct segue_position *to = plan->scratch;
	uint64_t longest;

	if (!all_empty(to))
		return 1;
	int rc = input->longest(input->arg, to->epoch, &longest);
	return rc < 0 ? rc : to->step - to->epoch_step < longest;
}

/* Makes the rows of one batch: 1, or 0 if the stretch has ended. */
static int form(struct segue_plan *plan, const struct segue_plan_input *input)
{
	struct segue_position *to = plan->scratch;
	int rc = refill(plan, input);

	if (rc)
		return rc;
	if (plan->spec.tail == SEGUE_TAIL_SHRINK)
		return close_up(to) != 0;
	if (plan->spec.tail == SEGUE_TAIL_PAD)
		return pad(plan, input);
	to->undelivered += remaining(&plan->spec, to);
	return 0;
}

static void begin_stretch(const struct segue_plan *plan)
{
	struct segue_position *to = plan->scratch;

	to->epoch = stretch_end(&plan->spec, to->epoch);
	to->epoch_step = to->step;
	to->rows = plan->spec.batch_size;
	for (uint32_t r = 0; r < to->rows; r++)
		empty_row(&to->row[r]);
}

/*
 * Forms the next batch, of a later stretch if this one has ended: 1, or 0 if there is none.
 *
 * Stretches may pass without a batch: the lane may have no sequence in them, or no good one, or too
 * few for a full batch.
 */
static int form_any(struct segue_plan *plan, const struct segue_plan_input *input)
{
	const struct segue_plan_spec *spec = &plan->spec;
	struct segue_position *to = plan->scratch;

	for (;;) {
		int rc = form(plan, input);

		if (rc)
			return rc;
		if (is_last_stretch(spec, to->epoch))
			return 0;
		if (to->next - plan->position->next >= patience(spec))
			return segue_fail(SEGUE_EDATA,
				"lane %" PRIu32 ": no batch in %" PRIu64
				" epochs, up to epoch %" PRIu64
				": its records are damaged, or too few an epoch for batch_size = "
				"%" PRIu32
				" with tail=\"stop\" and epoch_end=\"drain\": give a smaller "
				"batch_size, fewer lanes, or another tail or epoch_end",
				spec->lane, to->epoch - plan->position->epoch, to->epoch,
				spec->batch_size);
		begin_stretch(plan);
	}
}

/* ---- Step: spans ---- */

static struct segue_slot_span make_span(const struct segue_plan *plan, uint32_t r)
{
	const struct segue_plan_spec *spec = &plan->spec;
	const struct segue_plan_row *row = &plan->scratch->row[r];
	uint64_t first = row->segment * spec->num_unroll;
	uint64_t rest = row->total_length > first ? row->total_length - first : 0;
	uint32_t segments = (uint32_t)row_segments(spec, row);

	/* It pads the stretch's last epoch: a batch of nothing else is of some epoch, too. */
	if (is_empty(row))
		return (struct segue_slot_span){
			.number = SEGUE_NO_SEQUENCE,
			.epoch = stretch_end(spec, plan->scratch->epoch) - 1,
			.row = r,
			.previous_row = SEGUE_NO_ROW,
			.flags = SEGUE_SPAN_EMPTY,
		};
	return (struct segue_slot_span){
		.number = row->number,
		.epoch = row->number / spec->records,
		.first_step = first,
		.array_steps = row->array_steps,
		.total_length = row->total_length,
		.row = r,
		.length = rest < spec->num_unroll ? (uint32_t)rest : spec->num_unroll,
		.segment = (uint32_t)row->segment,
		.segment_count = segments,
		.previous_row = SEGUE_NO_ROW,
		.flags = (row->segment == 0 ? SEGUE_SPAN_FIRST : 0u) |
			 (row->segment + 1 == segments ? SEGUE_SPAN_LAST : 0u),
	};
}

/* Rows that go on keep their order, so one walk through the old rows finds where each came from. */
static void write_spans(const struct segue_plan *plan, struct segue_slot_span *spans)
{
	const struct segue_position *from = plan->position;
	const struct segue_position *to = plan->scratch;
	uint32_t old = 0;

	for (uint32_t r = 0; r < to->rows; r++) {
		spans[r] = make_span(plan, r);
		if (is_empty(&to->row[r]) || to->row[r].segment == 0)
			continue;
		while (from->row[old].number != to->row[r].number)
			old++;
		spans[r].previous_row = old;
	}
}

int segue_plan_step(struct segue_plan *plan, const struct segue_plan_input *input,
	struct segue_slot_span *spans, uint32_t *rows)
{
	advance(plan);
	int rc = form_any(plan, input);

	if (rc < 0)
		return rc;
	if (rc == 1) {
		write_spans(plan, spans);
		*rows = plan->scratch->rows;
		plan->scratch->step++;
	} else {
		/* Without its rows the end is a place of its own: stepping again counts none of
		 * their segments twice. */
		plan->scratch->rows = 0;
	}
	struct segue_position *made = plan->scratch;
	plan->scratch = plan->position;
	plan->position = made;
	return rc;
}

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

		ends[0] += segue_plan_segments(lengths[record], spec->num_unroll);
		if (ends[0] > last)
			last = ends[0];
		sift_down(ends, spec->batch_size);
	}
	return last;
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
	uint64_t *ends = malloc(spec->batch_size * sizeof(ends[0]));
	if (!ends)
		return segue_fail(SEGUE_ENOMEM, "no memory for a batch of %" PRIu32 " rows",
			spec->batch_size);
	for (uint32_t lane = 0; lane < spec->lanes; lane++) {
		uint64_t begin = lane_share(spec, lane, epoch);
		uint64_t end = lane_share(spec, lane, behind);
		uint64_t lane_needs = lane_steps(spec, lane, begin, end, lengths, ends);

		if (lane_needs > longest)
			longest = lane_needs;
	}
	free(ends);
	*steps = longest;
	return 0;
}
