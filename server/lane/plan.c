/* The plan of a lane: rows advance one segment a batch, ended rows take the lane's next sequence.
 */
#include "lane/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "lane/cohort.h"
#include "lane/numbers.h"
#include "lane/plan_inside.h"

/* ---- Arithmetic of a spec ---- */

uint64_t segue_plan_segments(uint64_t array_steps, uint32_t num_unroll)
{
	return segments_of(array_steps, num_unroll);
}

static uint64_t an_epoch(const struct segue_plan_spec *spec)
{
	const struct segue_numbers numbers = numbers_of(spec);

	return segue_numbers_an_epoch(&numbers);
}

uint64_t segue_plan_record(const struct segue_plan_spec *spec, uint64_t number)
{
	const struct segue_numbers numbers = numbers_of(spec);

	return segue_numbers_record(&numbers, number);
}

bool segue_plan_row_lives(const struct segue_plan_spec *spec, const struct segue_plan_row *row)
{
	return row->number != SEGUE_NO_SEQUENCE && row->segment + 1 < row_segments(spec, row);
}

bool segue_position_same(const struct segue_position *a, const struct segue_position *b)
{
	uint32_t entries = segue_position_entries(a);

	return entries == segue_position_entries(b) &&
	       memcmp(a, b, segue_position_size(entries)) == 0;
}

size_t segue_position_size(uint32_t entries)
{
	return sizeof(struct segue_position) + entries * sizeof(struct segue_plan_row);
}

/* ---- Batch size ---- */

uint32_t segue_plan_batch_size(
	const struct segue_plan_spec *spec, const struct segue_position *position)
{
	return position->sized ? position->batch_size : spec->batch_size;
}

uint32_t segue_plan_places(
	const struct segue_plan_spec *spec, const struct segue_position *position)
{
	uint32_t size = segue_plan_batch_size(spec, position);
	uint32_t count = segue_position_count(position), places = size > count ? size : count;

	return places ? places : 1;
}

int segue_plan_set_batch_size(
	const struct segue_plan_spec *spec, struct segue_position *position, uint32_t batch_size)
{
	if (batch_size == segue_plan_batch_size(spec, position))
		return 0;
	if (batch_size > SEGUE_ROWS_MAX)
		return segue_fail(SEGUE_EINVAL, "a batch size of %" PRIu32 "; at most %d rows",
			batch_size, SEGUE_ROWS_MAX);
	if (spec->tail == SEGUE_TAIL_PAD)
		return segue_fail(SEGUE_EINVAL,
			"with tail=\"pad\" the batch size cannot be changed: the lanes of a stream "
			"keep their shape and end together; use tail=\"shrink\" or tail=\"stop\"");
	position->sized = position->step + 1;
	position->batch_size = batch_size;
	return 0;
}

/* ---- Life ---- */

static int check_classes(const struct segue_plan_spec *spec)
{
	bool has_classes = spec->boundaries.count > 0;

	if (has_classes != (spec->window > 0) || (has_classes && spec->tail == SEGUE_TAIL_STOP))
		return segue_fail(SEGUE_EINVAL,
			"plan: %" PRIu32 " boundaries, a window of %" PRIu32 ", tail %d",
			spec->boundaries.count, spec->window, (int)spec->tail);
	return segue_boundaries_check(&spec->boundaries);
}

static int check_spec(const struct segue_plan_spec *spec)
{
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
	if (!rc)
		rc = check_classes(spec);
	if (rc)
		return rc;
	if (spec->first_epoch >= segue_ends_after(&spec->ends, 0))
		return segue_fail(SEGUE_EINVAL,
			"plan: epoch %" PRIu64 " is the first, and the input ends before it",
			spec->first_epoch);
	const struct segue_numbers numbers = numbers_of(spec);
	return segue_numbers_check(&numbers, spec->first_epoch);
}

void segue_plan_start(const struct segue_plan_spec *spec, struct segue_position *out)
{
	*out = (struct segue_position){.epoch = spec->first_epoch,
		.next = lane_share(spec, spec->lane, spec->first_epoch)};
}

int segue_plan_make_room(struct segue_plan *plan, uint32_t places)
{
	if (places <= plan->places)
		return 0;
	size_t size = segue_position_size(places + plan->spec.window);
	struct segue_position *position = calloc(1, size), *scratch = calloc(1, size);
	uint32_t *origin = calloc(places, sizeof(*origin));
	if (!position || !scratch || !origin) {
		free(position);
		free(scratch);
		free(origin);
		return segue_fail(
			SEGUE_ENOMEM, "no memory for a batch of %" PRIu32 " rows", places);
	}
	if (plan->position)
		memcpy(position, plan->position,
			segue_position_size(segue_position_entries(plan->position)));
	free(plan->position);
	free(plan->scratch);
	free(plan->origin);
	plan->position = position;
	plan->scratch = scratch;
	plan->origin = origin;
	plan->places = places;
	return 0;
}

int segue_plan_init(struct segue_plan *plan, const struct segue_plan_spec *spec)
{
	int rc = check_spec(spec);

	if (rc)
		return rc;
	struct segue_plan made = {.spec = *spec};
	if (spec->window) {
		made.waiting = calloc(spec->window, sizeof(*made.waiting));
		if (!made.waiting)
			return segue_fail(SEGUE_ENOMEM,
				"no memory for a window of %" PRIu32 " sequences", spec->window);
	}
	rc = segue_plan_make_room(&made, spec->batch_size);
	if (rc) {
		free(made.waiting);
		return rc;
	}
	segue_plan_start(spec, made.position);
	*plan = made;
	return 0;
}

void segue_plan_finish(struct segue_plan *plan)
{
	free(plan->position);
	free(plan->scratch);
	free(plan->origin);
	free(plan->waiting);
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

/* ---- Step: rows ---- */

static void empty_row(struct segue_plan_row *row)
{
	*row = (struct segue_plan_row){.number = SEGUE_NO_SEQUENCE};
}

static void make_empty(const struct segue_plan *plan, uint32_t r)
{
	empty_row(&plan->scratch->row[r]);
	plan->origin[r] = SEGUE_NO_ROW;
}

/* Row `old` comes to row r: in the batch, a segment further, or parked as it is. */
static void move_row(const struct segue_plan *plan, uint32_t r, uint32_t old, bool goes_on)
{
	plan->scratch->row[r] = plan->position->row[old];
	plan->scratch->row[r].segment += goes_on;
	plan->origin[r] = old;
}

/*
 * The rows get fewer: more than there is room for are parked, the youngest, in order. Returns from
 * which number on. In the scratch first each live row's number, and in `segment` where it is.
 */
static uint64_t park(const struct segue_plan *plan)
{
	const struct segue_position *from = plan->position;
	struct segue_position *to = plan->scratch;
	uint32_t live = 0;

	for (uint32_t r = 0; r < from->rows; r++)
		if (segue_plan_row_lives(&plan->spec, &from->row[r]))
			to->row[live++] = (struct segue_plan_row){
				.number = from->row[r].number, .segment = r};
	if (live <= to->rows)
		return SEGUE_NO_SEQUENCE;
	qsort(to->row, live, sizeof(to->row[0]), compare_numbers);
	uint64_t bound = to->row[to->rows].number;
	for (uint32_t r = to->rows; r < live; r++)
		move_row(plan, r, (uint32_t)to->row[r].segment, false);
	to->parked = live - to->rows;
	return bound;
}

/* The rows before anything is taken where some are parked, or the batch gets smaller. */
static void arrange(const struct segue_plan *plan)
{
	const struct segue_position *from = plan->position;
	struct segue_position *to = plan->scratch;
	bool fewer = from->rows > to->rows;
	uint64_t bound = fewer ? park(plan) : SEGUE_NO_SEQUENCE;
	uint32_t at = 0, back = from->rows;

	for (uint32_t r = 0; r < from->rows; r++) {
		const struct segue_plan_row *row = &from->row[r];
		if (segue_plan_row_lives(&plan->spec, row) && row->number < bound)
			move_row(plan, at++, r, true);
		else if (!fewer)
			make_empty(plan, at++);
	}
	for (; at < to->rows; at++)
		make_empty(plan, at);
	for (uint32_t r = 0; r < to->rows && back < segue_position_count(from); r++)
		if (is_empty(&to->row[r]))
			move_row(plan, r, back++, true);
	for (; back < segue_position_count(from); back++)
		move_row(plan, to->rows + to->parked++, back, false);
}

/*
 * The next position before anything is taken: live rows a segment further, all others empty. Where
 * rows are parked, none is empty.
 */
static void advance(struct segue_plan *plan)
{
	const struct segue_position *from = plan->position;
	struct segue_position *to = plan->scratch;

	plan->waiting_count = from->waiting;
	if (from->waiting)
		memcpy(plan->waiting, from->row + segue_position_count(from),
			from->waiting * sizeof(from->row[0]));
	memcpy(to, from, sizeof(*to));
	to->rows = segue_plan_batch_size(&plan->spec, from);
	to->parked = 0;
	if (from->parked > 0 || from->rows > to->rows) {
		arrange(plan);
		return;
	}
	for (uint32_t r = 0; r < to->rows; r++) {
		if (r < from->rows && segue_plan_row_lives(&plan->spec, &from->row[r]))
			move_row(plan, r, r, true);
		else
			make_empty(plan, r);
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

/* Takes the lane's next sequence into `row`, or looks at it: 1, or 0 if they are used up. */
static int take(
	struct segue_plan *plan, const struct segue_plan_input *input, struct segue_plan_row *row)
{
	const struct segue_plan_spec *spec = &plan->spec;
	struct segue_position *to = plan->scratch;
	bool looks = spec->window > 0 && input->look;
	uint64_t begin = to->next;
	uint64_t end = share_end(spec, to);

	while (to->next < end) {
		struct segue_plan_row taken = {.number = to->next * spec->lanes + spec->lane};

		if (to->next - begin >= patience(spec))
			return segue_fail(SEGUE_EDATA,
				"lane %" PRIu32 ": %" PRIu64
				" sequences in a row, up to number %" PRIu64
				", were passed over (on_error=\"skip\": damaged, "
				"on_too_long=\"skip\": too long), and with epochs=None it would be "
				"so for ever: make or copy the files anew, or give a larger "
				"maximum_length",
				spec->lane, to->next - begin, taken.number);
		uint64_t record = segue_plan_record(spec, taken.number);
		int rc = record == SEGUE_NO_RECORD
				 ? SEGUE_PLAN_SKIP
				 : (looks ? input->look : input->admit)(input->arg, taken.number,
					   record, &taken.array_steps, &taken.total_length);
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

/* Whether the lane has another sequence: 1 or 0. It is not taken; what is passed over is gone. */
static int look_ahead(struct segue_plan *plan, const struct segue_plan_input *input)
{
	struct segue_plan_row row;

	if (plan->waiting_count > 0)
		return 1;
	int rc = take(plan, input, &row);
	if (rc == 1)
		plan->scratch->next--;
	return rc;
}

/* ---- Step: cohorts ---- */

/* Looks at as many as the window is, of this stretch: 1, or 0 if none waits then. */
static int look(struct segue_plan *plan, const struct segue_plan_input *input)
{
	int rc = 1;

	while (rc == 1 && plan->waiting_count < plan->spec.window) {
		rc = take(plan, input, &plan->waiting[plan->waiting_count]);
		plan->waiting_count += rc == 1;
	}
	return rc < 0 ? rc : plan->waiting_count > 0;
}

/* What was looked at is begun: it must be what it was then. */
static int begin_row(const struct segue_plan *plan, const struct segue_plan_input *input,
	const struct segue_plan_row *row)
{
	uint64_t array_steps = 0, total_length = 0;
	int rc = input->admit(input->arg, row->number, segue_plan_record(&plan->spec, row->number),
		&array_steps, &total_length);

	if (rc < 0)
		return rc;
	if (rc == SEGUE_PLAN_SKIP || array_steps != row->array_steps ||
		total_length != row->total_length)
		return segue_fail(SEGUE_ECHANGED,
			"sequence %" PRIu64 " had %" PRIu64
			" steps when it was looked at and has %" PRIu64
			" now: the data set has changed; put it back as it was, or give the stream "
			"another name",
			row->number, row->array_steps, array_steps);
	return 0;
}

/* Fills the empty rows from the cohort, or where no row lives from the next one: as refill(). */
static int refill_cohort(struct segue_plan *plan, const struct segue_plan_input *input)
{
	struct segue_position *to = plan->scratch;
	const struct segue_boundaries *boundaries = &plan->spec.boundaries;
	uint32_t lives = 0, full = 1;
	int rc = 0;

	while (lives < to->rows && is_empty(&to->row[lives]))
		lives++;
	if (lives == to->rows && (rc = look(plan, input)) <= 0)
		return rc;
	const struct segue_plan_row *row = lives < to->rows ? &to->row[lives] : &plan->waiting[0];
	uint32_t class = segue_boundaries_class(boundaries, row->array_steps);
	plan->waiting_count = segue_cohort_fill(
		boundaries, class, plan->waiting, plan->waiting_count, to->row, to->rows);
	for (uint32_t r = 0; r < to->rows; r++) {
		bool begins = !is_empty(&to->row[r]) && plan->origin[r] == SEGUE_NO_ROW;

		full &= !is_empty(&to->row[r]);
		if (begins && input->look && (rc = begin_row(plan, input, &to->row[r])) < 0)
			return rc;
	}
	return (int)full;
}

/* Fills the empty rows in order: 1 if none is left, 0 if the sequences are used up. */
static int refill(struct segue_plan *plan, const struct segue_plan_input *input)
{
	struct segue_position *to = plan->scratch;

	if (plan->spec.window)
		return refill_cohort(plan, input);
	for (uint32_t r = 0; r < to->rows; r++) {
		int rc = is_empty(&to->row[r]) ? take(plan, input, &to->row[r]) : 1;

		if (rc <= 0)
			return rc;
	}
	return 1;
}

/* ---- Step: tails ---- */

/* Takes the empty rows out; returns how many are left. */
static uint32_t close_up(const struct segue_plan *plan)
{
	struct segue_position *to = plan->scratch;
	uint32_t rows = 0;

	for (uint32_t r = 0; r < to->rows; r++) {
		if (is_empty(&to->row[r]))
			continue;
		to->row[rows] = to->row[r];
		plan->origin[rows++] = plan->origin[r];
	}
	to->rows = rows;
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

	if (to->rows == 0) /* a batch of none, while there is something left */
		return to->parked > 0 ? 1 : look_ahead(plan, input);
	int rc = refill(plan, input);
	if (rc)
		return rc;
	if (plan->spec.tail == SEGUE_TAIL_SHRINK)
		return close_up(plan) != 0;
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
	to->rows = segue_plan_batch_size(&plan->spec, to);
	for (uint32_t r = 0; r < to->rows; r++)
		make_empty(plan, r);
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

static uint64_t padded_epoch(const struct segue_plan *plan)
{
	const struct segue_plan_spec *spec = &plan->spec;
	uint64_t end = stretch_end(spec, plan->scratch->epoch);

	if (end != UINT64_MAX)
		return end - 1;
	return ((plan->scratch->next - 1) * spec->lanes + spec->lane) / an_epoch(spec);
}

static struct segue_slot_span make_span(const struct segue_plan *plan, uint32_t r)
{
	const struct segue_plan_spec *spec = &plan->spec;
	const struct segue_plan_row *row = &plan->scratch->row[r];
	uint64_t first = row->segment * spec->num_unroll;
	uint64_t rest = row->total_length > first ? row->total_length - first : 0;
	uint32_t segments = (uint32_t)row_segments(spec, row);

	/* It pads the stretch's last epoch: a batch of nothing else is of some epoch, too. Where
	 * there is no last one, that of the newest that was looked at. */
	if (is_empty(row))
		return (struct segue_slot_span){
			.number = SEGUE_NO_SEQUENCE,
			.epoch = padded_epoch(plan),
			.row = r,
			.previous_row = SEGUE_NO_ROW,
			.flags = SEGUE_SPAN_EMPTY,
		};
	bool parked = r >= plan->scratch->rows;
	uint32_t flags = (row->segment == 0 ? SEGUE_SPAN_FIRST : 0u) |
			 (row->segment + 1 == segments ? SEGUE_SPAN_LAST : 0u);
	uint32_t length = rest < spec->num_unroll ? (uint32_t)rest : spec->num_unroll;
	return (struct segue_slot_span){
		.number = row->number,
		.epoch = row->number / an_epoch(spec),
		.first_step = first,
		.array_steps = row->array_steps,
		.total_length = row->total_length,
		.row = r,
		.length = parked ? 0 : length,
		.segment = (uint32_t)row->segment,
		.segment_count = segments,
		.previous_row = plan->origin[r],
		.flags = parked ? SEGUE_SPAN_PARKED : flags,
	};
}

int segue_plan_step(struct segue_plan *plan, const struct segue_plan_input *input,
	struct segue_slot_span *spans, uint32_t *rows)
{
	advance(plan);
	int rc = form_any(plan, input);

	if (rc < 0)
		return rc;
	if (rc == 1) {
		for (uint32_t r = 0; r < segue_position_count(plan->scratch); r++)
			spans[r] = make_span(plan, r);
		*rows = plan->scratch->rows;
		plan->scratch->step++;
	} else {
		/* Without its rows the end is a place of its own: stepping again counts none of
		 * their segments twice. */
		plan->scratch->rows = 0;
	}
	struct segue_position *made = plan->scratch;
	made->waiting = plan->waiting_count;
	if (made->waiting)
		memcpy(made->row + segue_position_count(made), plan->waiting,
			made->waiting * sizeof(made->row[0]));
	plan->scratch = plan->position;
	plan->position = made;
	return rc;
}
