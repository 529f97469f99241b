/* The plan against worked examples and against a naive model written apart from it. */
#include "lane/plan.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lane/cohort.h"
#include "lane/permutation.h"

enum {
	RECORDS_MAX = 24,
	BATCH_MAX = 6,
	WINDOW_MAX = 12,
	STEPS_MAX = 2048,
	TRIALS = 3000,
};

/* ---- An input in memory --------------------------------------------------------------------- */

/* lengths[record] = array steps, 0: passed over; totals[record] = total length. */
struct data {
	uint32_t lengths[RECORDS_MAX];
	uint64_t totals[RECORDS_MAX];
};

struct feeder {
	const struct data *data;
	uint64_t longest[4]; /* by the epoch that the stretch begins with */
	uint64_t calls, fail_at, asked_longest;
};

static int feed_admit(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	struct feeder *feeder = arg;

	(void)number;
	if (feeder->calls++ == feeder->fail_at)
		return SEGUE_ESOURCE;
	if (feeder->data->lengths[record] == 0)
		return SEGUE_PLAN_SKIP;
	*array_steps = feeder->data->lengths[record];
	*total_length = feeder->data->totals[record];
	return 0;
}

static int feed_longest(void *arg, uint64_t epoch, uint64_t *steps)
{
	struct feeder *feeder = arg;

	feeder->asked_longest++;
	if (feeder->calls++ == feeder->fail_at)
		return SEGUE_ESOURCE;
	*steps = feeder->longest[epoch];
	return 0;
}

static struct segue_plan_input input_of(struct feeder *feeder)
{
	return (struct segue_plan_input){feeder, feed_admit, feed_longest, feed_admit};
}

/* Total length = array steps for every record. */
static struct data plain_data(const uint32_t *lengths, size_t count)
{
	struct data data = {0};

	for (size_t i = 0; i < count; i++) {
		data.lengths[i] = lengths[i];
		data.totals[i] = lengths[i];
	}
	return data;
}

static struct segue_position *copy_position(const struct segue_position *position)
{
	struct segue_position *copy = calloc(1, segue_position_size(BATCH_MAX + WINDOW_MAX));

	cr_assert_not_null(copy);
	memcpy(copy, position, segue_position_size(segue_position_entries(position)));
	return copy;
}

static bool same_position(const struct segue_position *a, const struct segue_position *b)
{
	uint32_t count = segue_position_entries(a);

	return a->waiting == b->waiting && a->rows == b->rows && a->parked == b->parked &&
	       a->step == b->step && a->next == b->next && a->epoch == b->epoch &&
	       a->epoch_step == b->epoch_step && a->undelivered == b->undelivered &&
	       a->sized == b->sized && a->batch_size == b->batch_size &&
	       (count == 0 || memcmp(a->row, b->row, count * sizeof(a->row[0])) == 0);
}

/* ---- Worked examples ------------------------------------------------------------------------ */

/* A plan over plain data, and what its last step gave. */
struct example {
	struct data data;
	struct feeder feeder;
	struct segue_plan_input input;
	struct segue_plan plan;
	struct segue_slot_span span[BATCH_MAX];
	uint32_t rows;
};

static void begin(struct example *example, struct segue_plan_spec spec, const uint32_t *lengths)
{
	*example = (struct example){.data = plain_data(lengths, spec.records)};
	example->feeder = (struct feeder){.data = &example->data, .fail_at = UINT64_MAX};
	example->input = input_of(&example->feeder);
	cr_assert_eq(segue_plan_init(&example->plan, &spec), 0);
}

static int step(struct example *example)
{
	example->rows = 0;
	return segue_plan_step(&example->plan, &example->input, example->span, &example->rows);
}

/* A position that seek has to refuse, one field away from one that it takes. */
static void refuse_position(struct example *e, struct segue_position *changed, int line)
{
	struct segue_position *before = copy_position(e->plan.position);

	cr_assert_eq(segue_plan_seek(&e->plan, changed), SEGUE_EPROTOCOL, "line %d", line);
	cr_assert(same_position(e->plan.position, before), "line %d", line);
	free(before);
	free(changed);
}

#define IMPOSSIBLE(e, ...)                                                                         \
	do {                                                                                       \
		struct segue_position *p = copy_position((e)->plan.position);                      \
		cr_assert_eq(segue_plan_seek(&(e)->plan, p), 0);                                   \
		__VA_ARGS__;                                                                       \
		refuse_position(e, p, __LINE__);                                                   \
	} while (0)

static const struct segue_plan_spec small = {
	.records = 2, .ends = {1, {1}}, .lanes = 1, .batch_size = 2, .num_unroll = 3};

/* semantics.md section 1: four and five segments; the fifth of the second has length 2. */
Test(plan, lengths_12_and_14)
{
	struct example e;

	begin(&e, small, (uint32_t[]){12, 14});
	for (uint32_t k = 0; k < 4; k++) {
		cr_assert_eq(step(&e), 1);
		cr_assert_eq(e.rows, 2);
		for (uint32_t r = 0; r < 2; r++) {
			struct segue_slot_span expected = {.number = r,
				.first_step = k * 3,
				.array_steps = r == 0 ? 12 : 14,
				.total_length = r == 0 ? 12 : 14,
				.row = r,
				.length = 3,
				.segment = k,
				.segment_count = r == 0 ? 4 : 5,
				.previous_row = k == 0 ? SEGUE_NO_ROW : r,
				.flags = (k == 0 ? SEGUE_SPAN_FIRST : 0u) |
					 (r == 0 && k == 3 ? SEGUE_SPAN_LAST : 0u)};
			cr_assert_arr_eq(
				&e.span[r], &expected, sizeof(expected), "batch %u row %u", k, r);
		}
	}
	cr_assert_eq(step(&e), 1);
	cr_assert_eq(e.rows, 1);
	struct segue_slot_span last = {.number = 1,
		.first_step = 12,
		.array_steps = 14,
		.total_length = 14,
		.row = 0,
		.length = 2,
		.segment = 4,
		.segment_count = 5,
		.previous_row = 1,
		.flags = SEGUE_SPAN_LAST};
	cr_assert_arr_eq(&e.span[0], &last, sizeof(last));
	cr_assert_eq(step(&e), 0);
	cr_assert_eq(e.plan.position->step, 5);
	segue_plan_finish(&e.plan);
}

/* The arrays fix the count: arrays of 4, length 1, U = 2 are two segments of lengths 1 and 0. */
Test(plan, trailing_segment_of_length_zero)
{
	struct segue_plan_spec spec = small;
	struct example e;

	spec.records = spec.batch_size = 1;
	spec.num_unroll = 2;
	begin(&e, spec, (uint32_t[]){4});
	e.data.totals[0] = 1;
	cr_assert_eq(step(&e), 1);
	cr_assert_eq(e.span[0].length, 1);
	cr_assert_eq(e.span[0].segment_count, 2);
	cr_assert_eq(e.span[0].flags, SEGUE_SPAN_FIRST);
	cr_assert_eq(step(&e), 1);
	cr_assert_eq(e.span[0].length, 0);
	cr_assert_eq(e.span[0].total_length, 1);
	cr_assert_eq(e.span[0].array_steps, 4);
	cr_assert_eq(e.span[0].flags, SEGUE_SPAN_LAST);
	cr_assert_eq(step(&e), 0);
	segue_plan_finish(&e.plan);
}

static void expect_rows(struct example *e, const char *expected)
{
	char text[256] = "";

	for (uint32_t r = 0; r < e->rows; r++) {
		size_t used = strlen(text);

		if (e->span[r].flags & SEGUE_SPAN_EMPTY)
			snprintf(text + used, sizeof(text) - used, " -");
		else
			snprintf(text + used, sizeof(text) - used, " %" PRIu64 ".%u",
				e->span[r].number, e->span[r].segment);
	}
	cr_assert_str_eq(text, expected, "step %" PRIu64 ": got%s, expected%s",
		e->plan.position->step - 1, text, expected);
}

static void expect_steps(struct example *e, const char *const *expected)
{
	for (; *expected != NULL; expected++) {
		cr_assert_eq(step(e), 1, "batch%s", *expected);
		expect_rows(e, *expected);
	}
}

static void expect_end(struct example *e, uint64_t undelivered)
{
	for (int again = 0; again < 3; again++) {
		cr_assert_eq(step(e), 0);
		cr_assert_eq(e->plan.position->undelivered, undelivered);
	}
	segue_plan_finish(&e->plan);
}

static const struct segue_plan_spec five = {
	.records = 5, .ends = {1, {1}}, .lanes = 1, .batch_size = 3, .num_unroll = 1};

/* Freed rows are refilled in ascending order; in the tail the others move up in order. */
Test(plan, shrink)
{
	struct example e;

	begin(&e, five, (uint32_t[]){1, 3, 1, 2, 3});
	expect_steps(
		&e, (const char *[]){" 0.0 1.0 2.0", " 3.0 1.1 4.0", " 3.1 1.2 4.1", " 4.2", NULL});
	cr_assert_eq(e.span[0].previous_row, 2);
	expect_end(&e, 0);
}

Test(plan, stop_counts_what_is_left)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.tail = SEGUE_TAIL_STOP;
	begin(&e, spec, (uint32_t[]){1, 3, 1, 2, 3});
	expect_steps(&e, (const char *[]){" 0.0 1.0 2.0", " 3.0 1.1 4.0", " 3.1 1.2 4.1", NULL});
	expect_end(&e, 1);
	/* Sequence 3 would fill a row, but no batch; it counts as well. */
	spec.records = 4;
	begin(&e, spec, (uint32_t[]){1, 3, 1, 2});
	expect_steps(&e, (const char *[]){" 0.0 1.0 2.0", NULL});
	expect_end(&e, 4);
	spec.records = 2;
	begin(&e, spec, (uint32_t[]){4, 3});
	expect_end(&e, 7);
}

Test(plan, stop_and_drain_goes_on_with_the_next_epoch)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.tail = SEGUE_TAIL_STOP;
	spec.epoch_end = SEGUE_EPOCH_DRAIN;
	spec.ends = SEGUE_ENDS(2);
	begin(&e, spec, (uint32_t[]){1, 3, 1, 2, 3});
	expect_steps(&e, (const char *[]){" 0.0 1.0 2.0", " 3.0 1.1 4.0", " 3.1 1.2 4.1",
				 " 5.0 6.0 7.0", " 8.0 6.1 9.0", " 8.1 6.2 9.1", NULL});
	cr_assert_eq(e.plan.position->epoch, 1);
	cr_assert_eq(e.plan.position->epoch_step, 3);
	cr_assert_eq(e.plan.position->undelivered, 1);
	expect_end(&e, 2);
}

Test(plan, pad_to_the_longest)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.tail = SEGUE_TAIL_PAD;
	begin(&e, spec, (uint32_t[]){1, 3, 1, 2, 3});
	e.feeder.longest[0] = 6;
	expect_steps(&e,
		(const char *[]){" 0.0 1.0 2.0", " 3.0 1.1 4.0", " 3.1 1.2 4.1", " - - 4.2", NULL});
	cr_assert_eq(e.feeder.asked_longest, 0);
	expect_steps(&e, (const char *[]){" - - -", " - - -", NULL});
	struct segue_slot_span empty = {.number = SEGUE_NO_SEQUENCE,
		.row = 2,
		.previous_row = SEGUE_NO_ROW,
		.flags = SEGUE_SPAN_EMPTY};
	cr_assert_arr_eq(&e.span[2], &empty, sizeof(empty));
	expect_end(&e, 0);
}

static const struct segue_plan_spec classes = {.records = 8,
	.ends = {1, {1}},
	.lanes = 1,
	.batch_size = 2,
	.num_unroll = 1,
	.boundaries = {1, {4}},
	.window = 6};

/* lane/cohort.h: a window of 6 is looked at when no row lives, and the oldest says the class. */
Test(plan, cohorts_of_a_class)
{
	struct example e;

	begin(&e, classes, (uint32_t[]){3, 5, 2, 4, 1, 4, 4, 1});
	expect_steps(&e, (const char *[]){" 0.0 2.0", " 0.1 2.1", " 0.2 4.0", NULL});
	cr_assert_eq(e.plan.position->next, 6);
	cr_assert_eq(e.plan.position->waiting, 3);
	IMPOSSIBLE(&e, p->row[2].segment = 1);
	IMPOSSIBLE(&e, p->row[2].array_steps = 0);
	IMPOSSIBLE(&e, p->row[3].number = 1);
	IMPOSSIBLE(&e, p->row[3].number = 4);
	IMPOSSIBLE(&e, p->row[4].number = 6);
	IMPOSSIBLE(&e, p->row[4].number = SEGUE_NO_SEQUENCE);
	IMPOSSIBLE(&e, p->row[0].array_steps = 4);
	IMPOSSIBLE(&e, p->waiting = 7);
	IMPOSSIBLE(&e, p->rows = 1; p->row[1] = p->row[4]; p->row[1].array_steps = 3);
	expect_steps(&e, (const char *[]){" 1.0 3.0", NULL});
	cr_assert_eq(e.plan.position->next, 8);
	/* 7 is of the other class, and waits although its row is free. */
	expect_steps(&e, (const char *[]){" 1.1 3.1", " 1.2 3.2", " 1.3 3.3", " 1.4 5.0",
				 " 6.0 5.1", " 6.1 5.2", " 6.2 5.3", " 6.3", " 7.0", NULL});
	cr_assert_eq(e.plan.position->waiting, 0);
	expect_end(&e, 0);
}

/* A cohort that drains has empty rows; those behind the last are as many as the longest lane has. */
Test(plan, cohorts_padded)
{
	struct segue_plan_spec spec = classes;
	struct example e;

	spec.tail = SEGUE_TAIL_PAD;
	spec.records = 5;
	begin(&e, spec, (uint32_t[]){3, 5, 2, 1, 1});
	e.feeder.longest[0] = 10;
	/* No row lives behind the third batch, so it is the turn of the oldest that waits. */
	expect_steps(&e, (const char *[]){" 0.0 2.0", " 0.1 2.1", " 0.2 3.0", " 1.0 -", NULL});
	cr_assert_eq(e.plan.position->waiting, 1);
	IMPOSSIBLE(&e, p->row[2].array_steps = 5);
	expect_steps(&e,
		(const char *[]){" 1.1 -", " 1.2 -", " 1.3 -", " 1.4 -", " 4.0 -", " - -", NULL});
	expect_end(&e, 0);
	uint64_t steps;
	cr_assert_eq(segue_plan_longest(&spec, 0, (uint32_t[]){3, 5, 2, 1, 1}, &steps), 0);
	cr_assert_eq(steps, 9);
}

/* What is looked at is asked for again when it begins: by then it may be another. */
Test(plan, what_was_looked_at_has_changed)
{
	struct example e;

	begin(&e, classes, (uint32_t[]){3, 5, 2, 4, 1, 4, 4, 1});
	expect_steps(&e, (const char *[]){" 0.0 2.0", " 0.1 2.1", " 0.2 4.0", NULL});
	e.data.lengths[1] = 6;
	cr_assert_eq(step(&e), SEGUE_ECHANGED);
	e.data.lengths[1] = 0;
	cr_assert_eq(step(&e), SEGUE_ECHANGED);
	e.data.lengths[1] = 5;
	expect_steps(&e, (const char *[]){" 1.0 3.0", NULL});
	segue_plan_finish(&e.plan);
}

Test(plan, classes_that_are_none)
{
	struct segue_plan_spec spec = classes;
	struct segue_plan plan;

	spec.tail = SEGUE_TAIL_STOP;
	cr_assert_eq(segue_plan_init(&plan, &spec), SEGUE_EINVAL);
	spec.tail = SEGUE_TAIL_PAD;
	spec.window = 0;
	cr_assert_eq(segue_plan_init(&plan, &spec), SEGUE_EINVAL);
	spec.window = 2;
	spec.boundaries.length[0] = 0;
	cr_assert_eq(segue_plan_init(&plan, &spec), SEGUE_EINVAL);
	spec.boundaries.count = 0;
	cr_assert_eq(segue_plan_init(&plan, &spec), SEGUE_EINVAL);
}

/* A lane without any sequence keeps step with the others all the same. */
Test(plan, pad_of_an_idle_lane)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.tail = SEGUE_TAIL_PAD;
	spec.records = 1;
	spec.lanes = 2;
	spec.lane = 1;
	begin(&e, spec, (uint32_t[]){2});
	e.feeder.longest[0] = 2;
	expect_steps(&e, (const char *[]){" - - -", " - - -", NULL});
	IMPOSSIBLE(&e, p->step = 0);
	expect_end(&e, 0);
}

/* Continue: the next epoch follows in the rows at once. Drain: it waits for the rows to end. */
Test(plan, epoch_end)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.records = 2;
	spec.ends = SEGUE_ENDS(2);
	spec.batch_size = 2;
	begin(&e, spec, (uint32_t[]){1, 2});
	expect_steps(&e, (const char *[]){" 0.0 1.0", " 2.0 1.1", " 3.0", " 3.1", NULL});
	expect_end(&e, 0);

	spec.epoch_end = SEGUE_EPOCH_DRAIN;
	begin(&e, spec, (uint32_t[]){1, 2});
	expect_steps(&e, (const char *[]){" 0.0 1.0", " 1.1", " 2.0 3.0", " 3.1", NULL});
	cr_assert_eq(e.plan.position->epoch, 1);
	cr_assert_eq(e.plan.position->epoch_step, 2);
	cr_assert_eq(e.span[0].epoch, 1);
	expect_end(&e, 0);
}

/* Lane l takes l, l + lanes, ...; a number that is passed over is gone. */
Test(plan, lanes_and_skips)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.lanes = 2;
	spec.lane = 1;
	spec.ends = SEGUE_ENDS(2);
	spec.batch_size = 2;
	begin(&e, spec, (uint32_t[]){1, 1, 0, 2, 1});
	/* Numbers 1 3 5 7 9, records 1 3 0 2 4; record 2 is passed over. */
	expect_steps(&e, (const char *[]){" 1.0 3.0", " 5.0 3.1", " 9.0", NULL});
	cr_assert_eq(e.plan.position->next, 5);
	expect_end(&e, 0);
}

/* ---- Limits and refusals -------------------------------------------------------------------- */

struct one_sequence {
	uint64_t array_steps, total_length;
};

static int admit_one(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	const struct one_sequence *one = arg;

	(void)number;
	(void)record;
	*array_steps = one->array_steps;
	*total_length = one->total_length;
	return 0;
}

static int step_of_one(uint64_t array_steps, uint64_t total_length, struct segue_slot_span *span)
{
	struct segue_plan_spec spec = {
		.records = 1, .ends = {1, {1}}, .lanes = 1, .batch_size = 1, .num_unroll = 2};
	struct one_sequence one = {array_steps, total_length};
	struct segue_plan_input input = {&one, admit_one, NULL};
	struct segue_plan plan;
	uint32_t rows;

	cr_assert_eq(segue_plan_init(&plan, &spec), 0);
	int rc = segue_plan_step(&plan, &input, span, &rows);
	cr_assert_eq(plan.position->step, rc == 1);
	cr_assert_eq(plan.position->next, rc == 1);
	segue_plan_finish(&plan);
	return rc;
}

Test(plan, what_an_admission_may_say)
{
	const uint64_t most = 2 * (uint64_t)UINT32_MAX;
	struct segue_slot_span span;

	cr_assert_eq(step_of_one(most, most, &span), 1);
	cr_assert_eq(span.segment_count, UINT32_MAX);
	cr_assert_eq(span.total_length, most);
	cr_assert_eq(step_of_one(most + 1, 0, &span), SEGUE_ELIMIT);
	cr_assert_eq(step_of_one(UINT64_MAX, 0, &span), SEGUE_ELIMIT);
	cr_assert_eq(step_of_one(0, 0, &span), SEGUE_EDATA);
	cr_assert_eq(step_of_one(3, 4, &span), 1);
	cr_assert_eq(step_of_one(3, 5, &span), SEGUE_EDATA);
}

Test(plan, endless_input_without_a_good_record)
{
	for (int k = 0; k < 8; k++) {
		struct segue_plan_spec spec = five;
		struct example e;

		spec.ends = SEGUE_ENDS(0);
		spec.lanes = k & 4 ? 7 : 1;
		spec.shuffle = k & 2;
		spec.epoch_end = k & 1 ? SEGUE_EPOCH_DRAIN : SEGUE_EPOCH_CONTINUE;
		begin(&e, spec, (uint32_t[]){0, 0, 0, 0, 0});
		cr_assert_eq(step(&e), SEGUE_EDATA);
		cr_assert_eq(e.plan.position->next, 0);
		segue_plan_finish(&e.plan);
	}
}

/* Finite input may be bad from first to last, however long: it just ends. */
Test(plan, finite_input_without_a_good_record)
{
	for (int k = 0; k < 2; k++) {
		struct segue_plan_spec spec = five;
		struct example e;

		spec.ends = SEGUE_ENDS(5000);
		spec.epoch_end = k & 1 ? SEGUE_EPOCH_DRAIN : SEGUE_EPOCH_CONTINUE;
		begin(&e, spec, (uint32_t[]){0, 0, 0, 0, 0});
		expect_end(&e, 0);
	}
}

/* Never three sequences of this lane in an epoch, so never a full batch. */
Test(plan, endless_epochs_without_a_full_batch)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.ends = SEGUE_ENDS(0);
	spec.lanes = 3;
	spec.tail = SEGUE_TAIL_STOP;
	spec.epoch_end = SEGUE_EPOCH_DRAIN;
	begin(&e, spec, (uint32_t[]){1, 1, 1, 1, 1});
	cr_assert_eq(step(&e), SEGUE_EDATA);
	segue_plan_finish(&e.plan);
}

/* One good record is enough, however the order deals it out to the lanes. */
Test(plan, endless_input_with_one_good_record)
{
	for (int k = 0; k < 4; k++) {
		struct segue_plan_spec spec = five;
		struct example e;

		spec.ends = SEGUE_ENDS(0);
		spec.shuffle = true;
		spec.lanes = k & 2 ? 5 : 1;
		spec.epoch_end = k & 1 ? SEGUE_EPOCH_DRAIN : SEGUE_EPOCH_CONTINUE;
		begin(&e, spec, (uint32_t[]){0, 0, 3, 0, 0});
		for (int t = 0; t < 500; t++)
			cr_assert_eq(step(&e), 1);
		segue_plan_finish(&e.plan);
	}
}

/* Epochs so many that epochs * records does not fit 64 bits are as good as endless. */
Test(plan, more_sequences_than_numbers)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.ends = SEGUE_ENDS(UINT64_MAX);
	begin(&e, spec, (uint32_t[]){1, 3, 1, 2, 3});
	for (int t = 0; t < 100; t++)
		cr_assert_eq(step(&e), 1);
	cr_assert_eq(e.rows, 3);
	segue_plan_finish(&e.plan);
}

static void refuse_spec(struct segue_plan_spec spec)
{
	struct segue_plan plan = {0};

	cr_assert_eq(segue_plan_init(&plan, &spec), SEGUE_EINVAL);
	segue_plan_finish(&plan);
}

#define REFUSE(...)                                                                                \
	do {                                                                                       \
		struct segue_plan_spec spec = five;                                                \
		__VA_ARGS__;                                                                       \
		refuse_spec(spec);                                                                 \
	} while (0)

Test(plan, init_refuses)
{
	REFUSE(spec.records = 0);
	REFUSE(spec.lanes = 0);
	REFUSE(spec.lane = 1);
	REFUSE(spec.batch_size = 0);
	REFUSE(spec.num_unroll = 0);
	REFUSE(spec.tail = (enum segue_tail)3);
	REFUSE(spec.epoch_end = (enum segue_epoch_end)2);
	REFUSE(spec.ends.count = 0);
	REFUSE(spec.ends.count = SEGUE_ENDS_MAX + 1);
	REFUSE(spec.ends = SEGUE_ENDS(2, 2));
	REFUSE(spec.ends = SEGUE_ENDS(3, 2));
	REFUSE(spec.ends = SEGUE_ENDS(0, 2));
	REFUSE(spec.first_epoch = 1);
	REFUSE(spec.ends = SEGUE_ENDS(2, 4); spec.first_epoch = 2);
	REFUSE(spec.ends = SEGUE_ENDS(0); spec.first_epoch = UINT64_MAX / 4);
}

Test(plan, helpers)
{
	cr_assert_eq(segue_plan_segments(0, 3), 0);
	cr_assert_eq(segue_plan_segments(1, 3), 1);
	cr_assert_eq(segue_plan_segments(3, 3), 1);
	cr_assert_eq(segue_plan_segments(4, 3), 2);
	cr_assert_eq(segue_plan_segments(UINT64_MAX, 1), UINT64_MAX);
	struct segue_plan_row row = {.number = 0, .array_steps = 4, .segment = 2};
	cr_assert(segue_plan_row_lives(&five, &row));
	row.segment = 3;
	cr_assert_not(segue_plan_row_lives(&five, &row));
	row = (struct segue_plan_row){.number = SEGUE_NO_SEQUENCE};
	cr_assert_not(segue_plan_row_lives(&five, &row));
}

Test(plan, longest_refuses)
{
	const uint32_t lengths[5] = {1, 1, 1, 1, 1};
	struct segue_plan_spec spec = five;
	uint64_t steps = 7;

	spec.ends = SEGUE_ENDS(0);
	cr_assert_eq(segue_plan_longest(&spec, 0, lengths, &steps), SEGUE_EINVAL);
	spec.ends = SEGUE_ENDS(2);
	spec.epoch_end = SEGUE_EPOCH_DRAIN;
	cr_assert_eq(segue_plan_longest(&spec, 2, lengths, &steps), SEGUE_EINVAL);
	cr_assert_eq(steps, 7);
	cr_assert_eq(segue_plan_longest(&spec, 1, lengths, &steps), 0);
	cr_assert_eq(steps, 2);
	spec.epoch_end = SEGUE_EPOCH_CONTINUE;
	cr_assert_eq(segue_plan_longest(&spec, 1, lengths, &steps), SEGUE_EINVAL);
	spec.ends = SEGUE_ENDS(1, 3, 0);
	cr_assert_eq(segue_plan_longest(&spec, 1, lengths, &steps), 0);
	cr_assert_eq(steps, 4);
	cr_assert_eq(segue_plan_longest(&spec, 3, lengths, &steps), SEGUE_EINVAL);
	spec.first_epoch = 1;
	spec.ends = SEGUE_ENDS(3);
	cr_assert_eq(segue_plan_longest(&spec, 0, lengths, &steps), SEGUE_EINVAL);
	cr_assert_eq(segue_plan_longest(&spec, 1, lengths, &steps), 0);
	cr_assert_eq(steps, 4);
}

/* ---- Ends that are added --------------------------------------------------------------------- */

/* The plan goes on as one of the longer list that has been there all the time. */
static void grow(struct example *e, struct segue_ends ends)
{
	struct segue_plan_spec spec = e->plan.spec;
	struct segue_plan grown;

	spec.ends = ends;
	cr_assert_eq(segue_plan_init(&grown, &spec), 0);
	cr_assert_eq(segue_plan_seek(&grown, e->plan.position), 0, "%s", segue_error_detail());
	segue_plan_finish(&e->plan);
	e->plan = grown;
}

/* Full rows again behind the tail, whether the end was there before it or is added in it. */
Test(plan, a_stretch_begins_with_full_rows)
{
	for (int when = 0; when < 4; when++) {
		struct segue_plan_spec spec = five;
		struct example e;

		if (when == 0)
			spec.ends = SEGUE_ENDS(1, 2);
		begin(&e, spec, (uint32_t[]){1, 3, 1, 2, 3});
		expect_steps(&e, (const char *[]){" 0.0 1.0 2.0", " 3.0 1.1 4.0", NULL});
		if (when == 1)
			grow(&e, SEGUE_ENDS(1, 2));
		expect_steps(&e, (const char *[]){" 3.1 1.2 4.1", " 4.2", NULL});
		if (when == 3)
			cr_assert_eq(step(&e), 0);
		if (when >= 2)
			grow(&e, SEGUE_ENDS(1, 2));
		expect_steps(&e, (const char *[]){" 5.0 6.0 7.0", " 8.0 6.1 9.0", NULL});
		cr_assert_eq(e.plan.position->epoch, 1);
		cr_assert_eq(e.plan.position->epoch_step, 4);
		segue_plan_finish(&e.plan);
	}
}

/* What tail = stop left out is counted once, and its rows do not come again. */
Test(plan, what_was_left_out_stays_so)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.tail = SEGUE_TAIL_STOP;
	begin(&e, spec, (uint32_t[]){1, 3, 1, 2, 3});
	expect_steps(&e, (const char *[]){" 0.0 1.0 2.0", " 3.0 1.1 4.0", " 3.1 1.2 4.1", NULL});
	grow(&e, SEGUE_ENDS(1, 2)); /* before the plan has met the end */
	expect_steps(&e, (const char *[]){" 5.0 6.0 7.0", " 8.0 6.1 9.0", " 8.1 6.2 9.1", NULL});
	cr_assert_eq(e.plan.position->undelivered, 1);
	cr_assert_eq(step(&e), 0);
	cr_assert_eq(e.plan.position->undelivered, 2);
	grow(&e, SEGUE_ENDS(1, 2, 3)); /* and behind it */
	expect_steps(&e, (const char *[]){" 10.0 11.0 12.0", NULL});
	cr_assert_eq(e.plan.position->undelivered, 2);
	segue_plan_finish(&e.plan);
}

/* Where a lane stands at an end of its list, it may not be at one of another list. */
Test(plan, seek_refuses_where_the_ends_differ)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.ends = SEGUE_ENDS(1, 3);
	begin(&e, spec, (uint32_t[]){1, 1, 1, 1, 1});
	expect_steps(&e, (const char *[]){" 0.0 1.0 2.0", " 3.0 4.0", " 5.0 6.0 7.0", NULL});
	IMPOSSIBLE(&e, p->epoch = 0);
	IMPOSSIBLE(&e, p->epoch = 2);
	IMPOSSIBLE(&e, p->epoch = 3);
	IMPOSSIBLE(&e, p->epoch_step = 3);
	struct segue_position *inside = copy_position(e.plan.position);
	segue_plan_finish(&e.plan);
	spec.ends = SEGUE_ENDS(3);
	begin(&e, spec, (uint32_t[]){1, 1, 1, 1, 1});
	cr_assert_eq(segue_plan_seek(&e.plan, inside), SEGUE_EPROTOCOL);
	free(inside);
	segue_plan_finish(&e.plan);
}

Test(plan, it_begins_with_its_first_epoch)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.ends = SEGUE_ENDS(3);
	spec.first_epoch = 2;
	spec.lanes = 2;
	spec.lane = 1;
	spec.batch_size = 2;
	begin(&e, spec, (uint32_t[]){1, 1, 1, 1, 1});
	IMPOSSIBLE(&e, p->next = 0);
	IMPOSSIBLE(&e, p->next = 6);
	IMPOSSIBLE(&e, p->epoch = 0);
	IMPOSSIBLE(&e, p->undelivered = 1);
	expect_steps(&e, (const char *[]){" 11.0 13.0", NULL});
	cr_assert_eq(e.span[0].epoch, 2);
	IMPOSSIBLE(&e, p->epoch_step = 1);
	cr_assert_eq(step(&e), 0);
	segue_plan_finish(&e.plan);
}

/* ---- Seek ----------------------------------------------------------------------------------- */

/* Lane 1 of 2: numbers 1 3 5 7 9, rows 1.1 3.1 after two steps. */
Test(plan, seek_refuses_in_the_midst)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.ends = SEGUE_ENDS(2);
	spec.lanes = 2;
	spec.lane = 1;
	spec.batch_size = 2;
	begin(&e, spec, (uint32_t[]){3, 3, 3, 3, 3});
	expect_steps(&e, (const char *[]){" 1.0 3.0", " 1.1 3.1", NULL});
	IMPOSSIBLE(&e, p->step = 1);
	IMPOSSIBLE(&e, p->step = 0);
	IMPOSSIBLE(&e, p->step = UINT64_MAX / 2 + 1);
	IMPOSSIBLE(&e, p->step = UINT64_MAX);
	IMPOSSIBLE(&e, p->next = 1);
	IMPOSSIBLE(&e, p->next = 6);
	IMPOSSIBLE(&e, p->epoch = 1);
	IMPOSSIBLE(&e, p->epoch_step = 1);
	IMPOSSIBLE(&e, p->undelivered = 1);
	IMPOSSIBLE(&e, p->rows = 3);
	IMPOSSIBLE(&e, p->rows = 3; p->next = 3; p->row[2] = p->row[1]; p->row[2].number = 5);
	IMPOSSIBLE(&e, p->rows = 1);
	IMPOSSIBLE(&e, p->rows = 0);
	IMPOSSIBLE(&e, p->row[1].number = 2);
	IMPOSSIBLE(&e, p->row[1].number = 5);
	IMPOSSIBLE(&e, p->row[1].number = 1);
	IMPOSSIBLE(&e, p->row[1] = (struct segue_plan_row){.number = SEGUE_NO_SEQUENCE});
	IMPOSSIBLE(&e, p->row[1].array_steps = 0);
	IMPOSSIBLE(&e, p->row[1].array_steps = 1);
	IMPOSSIBLE(&e, p->row[1].array_steps = UINT64_C(1) << 32);
	IMPOSSIBLE(&e, p->row[1].total_length = 4);
	IMPOSSIBLE(&e, p->row[1].segment = 2);
	IMPOSSIBLE(&e, p->row[1].segment = UINT64_MAX);
	expect_steps(
		&e, (const char *[]){" 1.2 3.2", " 5.0 7.0", " 5.1 7.1", " 5.2 7.2", " 9.0", NULL});
	IMPOSSIBLE(&e, p->epoch = 1);
	IMPOSSIBLE(&e, p->undelivered = 1);
	expect_steps(&e, (const char *[]){" 9.1", " 9.2", NULL});
	cr_assert_eq(step(&e), 0);
	IMPOSSIBLE(&e, p->undelivered = 1);
	segue_plan_finish(&e.plan);
}

/* Second of three epochs of five: numbers 5 to 9; rows 5.0 6.0 after step 4. */
Test(plan, seek_refuses_of_a_draining_epoch)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.ends = SEGUE_ENDS(3);
	spec.epoch_end = SEGUE_EPOCH_DRAIN;
	spec.tail = SEGUE_TAIL_STOP;
	spec.batch_size = 2;
	begin(&e, spec, (uint32_t[]){2, 2, 2, 2, 2});
	expect_steps(&e, (const char *[]){" 0.0 1.0", " 0.1 1.1", " 2.0 3.0", NULL});
	IMPOSSIBLE(&e, p->epoch_step = 1);
	IMPOSSIBLE(&e, p->undelivered = 1);
	expect_steps(&e, (const char *[]){" 2.1 3.1", " 5.0 6.0", NULL});
	cr_assert_eq(e.plan.position->undelivered, 2);
	IMPOSSIBLE(&e, p->epoch = 0);
	IMPOSSIBLE(&e, p->epoch = 0; p->epoch_step = 0);
	IMPOSSIBLE(&e, p->epoch = 2);
	IMPOSSIBLE(&e, p->epoch = 3);
	IMPOSSIBLE(&e, p->epoch = UINT64_MAX);
	IMPOSSIBLE(&e, p->epoch_step = 5);
	IMPOSSIBLE(&e, p->epoch_step = 6);
	IMPOSSIBLE(&e, p->row[0].segment = 1);
	IMPOSSIBLE(&e, p->row[0].number = 4);
	IMPOSSIBLE(&e, p->next = 4);
	IMPOSSIBLE(&e, p->next = 11);
	IMPOSSIBLE(&e, p->rows = 1; p->next = 10);
	while (step(&e) == 1)
		;
	cr_assert_eq(e.plan.position->epoch, 2);
	IMPOSSIBLE(&e, p->epoch = 3);
	segue_plan_finish(&e.plan);
}

Test(plan, seek_refuses_in_a_padded_tail)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.tail = SEGUE_TAIL_PAD;
	begin(&e, spec, (uint32_t[]){1, 3, 1, 2, 3});
	expect_steps(&e,
		(const char *[]){" 0.0 1.0 2.0", " 3.0 1.1 4.0", " 3.1 1.2 4.1", " - - 4.2", NULL});
	IMPOSSIBLE(&e, p->row[0].segment = 1);
	IMPOSSIBLE(&e, p->row[0].array_steps = 1);
	IMPOSSIBLE(&e, p->row[0].total_length = 1);
	IMPOSSIBLE(&e, p->rows = 2);
	IMPOSSIBLE(&e, p->row[2].number = 2; p->next = 4);
	IMPOSSIBLE(&e, p->row[2].segment = 3);
	IMPOSSIBLE(&e, p->undelivered = 1);
	segue_plan_finish(&e.plan);
}

/* The start and the end of a lane, each a position without rows. */
Test(plan, seek_without_rows)
{
	struct segue_plan_spec spec = five;
	struct example e;

	spec.tail = SEGUE_TAIL_STOP;
	begin(&e, spec, (uint32_t[]){1, 3, 1, 2, 3});
	IMPOSSIBLE(&e, p->step = 1);
	IMPOSSIBLE(&e, p->next = 1);
	IMPOSSIBLE(&e, p->undelivered = 1);
	struct segue_position *start = copy_position(e.plan.position);
	expect_steps(&e, (const char *[]){" 0.0 1.0 2.0", " 3.0 1.1 4.0", " 3.1 1.2 4.1", NULL});
	cr_assert_eq(step(&e), 0);
	IMPOSSIBLE(&e, p->next = 4);
	cr_assert_eq(step(&e), 0);
	cr_assert_eq(e.plan.position->undelivered, 1);
	cr_assert_eq(segue_plan_seek(&e.plan, start), 0);
	expect_steps(&e, (const char *[]){" 0.0 1.0 2.0", NULL});
	free(start);
	segue_plan_finish(&e.plan);
}

/* ---- Random specs --------------------------------------------------------------------------- */

static uint64_t draw(uint64_t *state, uint64_t below)
{
	/* xorshift64*: of other making than what the plan shuffles with. */
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (*state * UINT64_C(0x2545F4914F6CDD1D) >> 33) % below;
}

struct trial {
	uint64_t seed;
	struct segue_plan_spec spec;
	struct data data;
	struct stretch {
		uint64_t from, to; /* epochs; of an endless one as many as the model goes through */
		bool endless;
	} stretch[4];
	uint32_t stretches;
	uint64_t longest[4];        /* [from]: steps that the longest lane needs without padding */
	uint64_t seen, undelivered; /* segments, by all lanes of the plan */
	uint8_t times[(RECORDS_MAX + 4) * 4][8]; /* [number][segment]: times delivered */
};

#define CHECK(trial, condition, ...)                                                               \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, __VA_ARGS__);                                              \
			cr_assert_fail(" at " #condition                                           \
				       "; run again with SEGUE_TEST_SEED=%" PRIu64,                \
				(trial)->seed);                                                    \
		}                                                                                  \
	} while (0)

/* Endless input: whatever keeps every lane in batches, so that the model need know no despair. */
static void draw_endless(struct trial *trial)
{
	struct segue_plan_spec *spec = &trial->spec;

	spec->ends.epochs[spec->ends.count - 1] = 0;
	trial->data.lengths[0] = trial->data.lengths[0] == 0 ? 1 : trial->data.lengths[0];
	bool by_record = spec->lanes_by == SEGUE_LANES_BY_RECORD; /* each lane needs a good one */
	if (!spec->shuffle && !by_record)
		spec->lanes = 1;
	if (!by_record &&
		(spec->epoch_end == SEGUE_EPOCH_CONTINUE || spec->tail == SEGUE_TAIL_SHRINK))
		return;
	for (uint64_t i = 0; i < spec->records; i++)
		trial->data.lengths[i] += trial->data.lengths[i] == 0;
	if (spec->lanes > spec->records)
		spec->lanes = (uint32_t)spec->records;
	if (spec->batch_size > spec->records / spec->lanes)
		spec->batch_size = (uint32_t)(spec->records / spec->lanes);
}

/* Up to four epochs, in which the input ends here and there. */
static void draw_ends(struct segue_plan_spec *spec, uint64_t *state)
{
	uint64_t epochs = 1 + draw(state, 4);
	bool grows = draw(state, 2) == 0;

	for (uint64_t end = 1; end <= epochs; end++)
		if (end == epochs || (grows && draw(state, 2) == 0))
			spec->ends.epochs[spec->ends.count++] = end;
	if (draw(state, 4) == 0)
		spec->first_epoch = draw(state, spec->ends.epochs[0]);
}

static void draw_classes(struct segue_plan_spec *spec, uint64_t *state)
{
	uint64_t at = 0;

	if (spec->tail == SEGUE_TAIL_STOP || draw(state, 3) > 0)
		return;
	spec->boundaries.count = 1 + (uint32_t)draw(state, 3);
	for (uint32_t i = 0; i < spec->boundaries.count; i++)
		spec->boundaries.length[i] = at += 1 + draw(state, 3 * spec->num_unroll);
	spec->window = 1 + (uint32_t)draw(state, WINDOW_MAX);
}

static void list_stretches(struct trial *trial)
{
	const struct segue_plan_spec *spec = &trial->spec;
	bool drain = spec->epoch_end == SEGUE_EPOCH_DRAIN;
	uint64_t from = spec->first_epoch;

	for (uint32_t i = 0; i < spec->ends.count; i++) {
		bool endless = spec->ends.epochs[i] == 0;
		uint64_t end = endless ? 4 : spec->ends.epochs[i];

		while (from < end) {
			uint64_t to = drain ? from + 1 : end;

			trial->stretch[trial->stretches++] =
				(struct stretch){from, to, endless && !drain};
			from = to;
		}
	}
}

static void draw_trial(struct trial *trial, uint64_t seed)
{
	uint64_t state = seed * 2 + 1;
	struct segue_plan_spec *spec = &trial->spec;

	for (int i = 0; i < 8; i++)
		draw(&state, 2);
	*trial = (struct trial){.seed = seed};
	*spec = (struct segue_plan_spec){
		.records = 1 + draw(&state, RECORDS_MAX),
		.seed = draw(&state, 1u << 30),
		.lanes = 1 + (uint32_t)draw(&state, 4),
		.batch_size = 1 + (uint32_t)draw(&state, BATCH_MAX),
		.num_unroll = 1 + (uint32_t)draw(&state, 4),
		.tail = (enum segue_tail)(seed % 3),
		.epoch_end = (enum segue_epoch_end)(seed / 3 % 2),
		.shuffle = seed / 6 % 2 == 1,
	};
	if (seed / 12 % 3 == 0 && spec->lanes <= spec->records)
		spec->lanes_by = SEGUE_LANES_BY_RECORD;
	draw_ends(spec, &state);
	draw_classes(spec, &state);
	bool skips = draw(&state, 3) == 0, inputs = draw(&state, 2) == 0;
	for (uint64_t i = 0; i < spec->records; i++) {
		uint32_t *length = &trial->data.lengths[i];

		*length = 1 + (uint32_t)draw(&state, 8 * spec->num_unroll);
		if (skips && draw(&state, 4) == 0)
			*length = 0;
	}
	if (draw(&state, 4) == 0)
		draw_endless(trial);
	list_stretches(trial);
	for (uint64_t i = 0; i < spec->records; i++) {
		uint32_t n = trial->data.lengths[i], unroll = spec->num_unroll;
		uint64_t padded = (n + unroll - 1) / unroll * unroll;

		trial->data.totals[i] = inputs ? draw(&state, padded + 1) : n;
	}
}

/* ---- The model: a list of sequences, and of those the oldest unfinished in each batch ------- */

struct model_sequence {
	uint64_t number, record, segments, done;
	uint32_t row; /* in the last batch that it was in */
};

struct model {
	struct trial *trial;
	uint32_t lane;
	struct model_sequence sequence[RECORDS_MAX * 4];
	size_t count;
	size_t looked;  /* with classes: so many of them were looked at */
	uint32_t class; /* of the cohort */
	struct segue_slot_span span[STEPS_MAX][BATCH_MAX];
	uint32_t rows[STEPS_MAX];
	uint64_t ends[4]; /* steps by the end of each stretch */
	uint64_t steps, undelivered;
};

/* Numbers an epoch: by record so many that each lane has as many. */
static uint64_t model_epoch(const struct segue_plan_spec *spec)
{
	uint64_t size = spec->records;

	while (spec->lanes_by == SEGUE_LANES_BY_RECORD && size % spec->lanes != 0)
		size++;
	return size;
}

/* RECORDS_MAX or more: none. */
static uint64_t model_record(const struct segue_plan_spec *spec, uint64_t number)
{
	struct segue_permutation order;
	uint64_t size = model_epoch(spec), epoch = number / size;

	if (spec->lanes_by == SEGUE_LANES_BY_RECORD) {
		uint64_t lane = number % spec->lanes, place = number % size / spec->lanes;

		segue_permutation_init(
			&order, spec->seed, epoch * spec->lanes + lane, size / spec->lanes);
		if (spec->shuffle)
			place = segue_permutation_apply(&order, place);
		uint64_t record = place * spec->lanes + lane;
		return record < spec->records ? record : RECORDS_MAX;
	}
	segue_permutation_init(&order, spec->seed, number / spec->records, spec->records);
	return spec->shuffle ? segue_permutation_apply(&order, number % spec->records)
			     : number % spec->records;
}

/* All good sequences of the lane in epochs [from, to). */
static void model_list(struct model *model, uint64_t from, uint64_t to)
{
	const struct segue_plan_spec *spec = &model->trial->spec;

	model->count = model->looked = 0;
	for (uint64_t g = from * model_epoch(spec); g < to * model_epoch(spec); g++) {
		uint64_t record = model_record(spec, g);
		uint32_t n = record < RECORDS_MAX ? model->trial->data.lengths[record] : 0;

		if (g % spec->lanes != model->lane || n == 0)
			continue;
		uint64_t segments = 0;
		while (segments * spec->num_unroll < n)
			segments++;
		model->sequence[model->count++] = (struct model_sequence){
			.number = g, .record = record, .segments = segments};
	}
}

static uint32_t model_class(const struct model *model, const struct model_sequence *sequence)
{
	const struct segue_boundaries *boundaries = &model->trial->spec.boundaries;
	uint32_t class = 0;

	for (uint32_t i = 0; i < boundaries->count; i++)
		class += boundaries->length[i] <= model->trial->data.lengths[sequence->record];
	return class;
}

/* With classes: another cohort where no row lives. False: the window is not full. */
static bool model_look(struct model *model)
{
	const struct model_sequence *first = NULL;
	size_t waiting = 0;

	for (size_t i = 0; i < model->looked; i++) {
		const struct model_sequence *sequence = &model->sequence[i];

		if (sequence->done > 0 && sequence->done < sequence->segments)
			return true;
		waiting += sequence->done == 0;
	}
	for (; waiting < model->trial->spec.window && model->looked < model->count; model->looked++)
		waiting++;
	for (size_t i = model->looked; i-- > 0;)
		if (model->sequence[i].done == 0)
			first = &model->sequence[i];
	if (first)
		model->class = model_class(model, first);
	return waiting == model->trial->spec.window;
}

/* The oldest unfinished: of all, or of the cohort. */
static uint32_t model_oldest(struct model *model, struct model_sequence **oldest)
{
	bool grouped = model->trial->spec.window > 0;
	size_t count = grouped ? model->looked : model->count;
	uint32_t found = 0;

	for (size_t i = 0; i < count && found < model->trial->spec.batch_size; i++)
		if (model->sequence[i].done < model->sequence[i].segments &&
			(!grouped || model_class(model, &model->sequence[i]) == model->class))
			oldest[found++] = &model->sequence[i];
	return found;
}

static struct segue_slot_span model_span(
	const struct model *model, const struct model_sequence *sequence, uint32_t row)
{
	uint32_t unroll = model->trial->spec.num_unroll;
	uint64_t first = sequence->done * unroll,
		 total = model->trial->data.totals[sequence->record];
	struct segue_slot_span span = {.number = sequence->number,
		.epoch = sequence->number / model_epoch(&model->trial->spec),
		.first_step = first,
		.array_steps = model->trial->data.lengths[sequence->record],
		.total_length = total,
		.row = row,
		.segment = (uint32_t)sequence->done,
		.segment_count = (uint32_t)sequence->segments,
		.previous_row = sequence->done == 0 ? SEGUE_NO_ROW : sequence->row};

	for (uint64_t s = first; s < first + unroll && s < total; s++)
		span.length++;
	if (sequence->done == 0)
		span.flags |= SEGUE_SPAN_FIRST;
	if (sequence->done + 1 == sequence->segments)
		span.flags |= SEGUE_SPAN_LAST;
	return span;
}

/* Old ones in their rows, new ones in the free rows in order; gaps close where the tail shrinks. */
static void model_batch(
	struct model *model, struct model_sequence **oldest, uint32_t found, uint64_t last_epoch)
{
	const struct segue_plan_spec *spec = &model->trial->spec;
	struct model_sequence *place[BATCH_MAX] = {NULL};
	uint64_t t = model->steps++;

	for (uint32_t i = 0; i < found; i++)
		if (oldest[i]->done > 0)
			place[oldest[i]->row] = oldest[i];
	for (uint32_t i = 0, r = 0; i < found; i++) {
		if (oldest[i]->done > 0)
			continue;
		while (place[r] != NULL)
			r++;
		place[r] = oldest[i];
	}
	model->rows[t] = 0;
	for (uint32_t r = 0; r < spec->batch_size; r++) {
		uint32_t row = model->rows[t];

		if (place[r] == NULL && spec->tail == SEGUE_TAIL_SHRINK)
			continue;
		model->rows[t]++;
		model->span[t][row] = (struct segue_slot_span){.number = SEGUE_NO_SEQUENCE,
			.epoch = last_epoch,
			.row = row,
			.previous_row = SEGUE_NO_ROW,
			.flags = SEGUE_SPAN_EMPTY};
		if (place[r] == NULL)
			continue;
		model->span[t][row] = model_span(model, place[r], row);
		place[r]->row = row;
		place[r]->done++;
	}
}

/* `longest` steps where the tail is padded. */
static void model_part(struct model *model, const struct stretch *stretch, uint64_t longest)
{
	const struct segue_plan_spec *spec = &model->trial->spec;
	struct model_sequence *oldest[BATCH_MAX];
	uint64_t begun = model->steps;

	model_list(model, stretch->from, stretch->to);
	for (;;) {
		bool ahead = spec->window && model_look(model);
		uint32_t found = model_oldest(model, oldest);

		CHECK(model->trial, model->steps < STEPS_MAX, "the model is too small");
		if (stretch->endless && !(spec->window ? ahead : found == spec->batch_size))
			return; /* where the model's input ends, but the plan's does not */
		if (found < spec->batch_size && spec->tail == SEGUE_TAIL_STOP) {
			for (size_t i = 0; i < model->count; i++)
				model->undelivered +=
					model->sequence[i].segments - model->sequence[i].done;
			return;
		}
		if (found == 0 &&
			(spec->tail == SEGUE_TAIL_SHRINK || model->steps - begun >= longest))
			return;
		model_batch(model, oldest, found,
			stretch->endless && spec->window
				? model->sequence[model->looked - 1].number / model_epoch(spec)
				: stretch->to - 1);
	}
}

static void model_run(struct model *model, struct trial *trial, uint32_t lane)
{
	*model = (struct model){.trial = trial, .lane = lane};
	for (uint32_t i = 0; i < trial->stretches; i++) {
		const struct stretch *stretch = &trial->stretch[i];

		model_part(model, stretch, trial->longest[stretch->from]);
		model->ends[i] = model->steps;
	}
}

/* What the longest lane needs in each stretch, by running all lanes of the model unpadded. */
static void model_longest(struct model *model, struct trial *trial)
{
	enum segue_tail tail = trial->spec.tail;

	trial->spec.tail = SEGUE_TAIL_SHRINK;
	for (uint32_t i = 0; i < trial->stretches; i++) {
		const struct stretch *stretch = &trial->stretch[i];
		uint64_t *longest = &trial->longest[stretch->from];

		for (uint32_t lane = 0; lane < trial->spec.lanes && !stretch->endless; lane++) {
			*model = (struct model){.trial = trial, .lane = lane};
			model_part(model, stretch, 0);
			if (model->steps > *longest)
				*longest = model->steps;
		}
	}
	trial->spec.tail = tail;
}

/* ---- Plan against model --------------------------------------------------------------------- */

/* Fails each question of the step in turn: nothing may change, and the step that succeeds must. */
static void check_faults(struct trial *trial, struct segue_plan *other,
	const struct segue_position *before, struct feeder *feeder)
{
	struct segue_plan_input input = input_of(feeder);
	struct segue_slot_span span[BATCH_MAX], untouched[BATCH_MAX];
	uint32_t rows = 77;
	int rc;

	memset(span, 0x5a, sizeof(span));
	memset(untouched, 0x5a, sizeof(untouched));
	for (uint64_t fail_at = 0;; fail_at++) {
		feeder->calls = 0;
		feeder->fail_at = fail_at;
		rc = segue_plan_step(other, &input, span, &rows);
		if (feeder->calls <= fail_at)
			break;
		CHECK(trial, rc == SEGUE_ESOURCE, "%d from a failed question", rc);
		CHECK(trial, same_position(other->position, before), "a failed step moved on");
		CHECK(trial, memcmp(span, untouched, sizeof(span)) == 0 && rows == 77,
			"a failed step wrote");
	}
	feeder->fail_at = UINT64_MAX;
}

/* The spans follow from the ones before: same sequence, next segment, same row where none went. */
static void check_succession(struct trial *trial, const struct segue_slot_span *now, uint32_t rows,
	const struct segue_slot_span *last, uint32_t last_rows)
{
	for (uint32_t r = 0; r < rows; r++) {
		if (now[r].flags & (SEGUE_SPAN_FIRST | SEGUE_SPAN_EMPTY))
			continue;
		CHECK(trial, now[r].previous_row < last_rows, "no row %u", now[r].previous_row);
		const struct segue_slot_span *previous = &last[now[r].previous_row];
		CHECK(trial, previous->number == now[r].number, "another's row");
		CHECK(trial, previous->segment + 1 == now[r].segment, "not the next segment");
		CHECK(trial, rows < last_rows || now[r].previous_row == r, "an unstable row");
	}
}

static void count_spans(struct trial *trial, const struct segue_slot_span *span, uint32_t rows)
{
	for (uint32_t r = 0; r < rows; r++)
		if (!(span[r].flags & SEGUE_SPAN_EMPTY)) {
			trial->seen++;
			trial->times[span[r].number][span[r].segment]++;
		}
}

static void check_batch(struct trial *trial, const struct model *model, uint64_t t,
	const struct segue_slot_span *span, uint32_t rows)
{
	CHECK(trial, rows == model->rows[t], "lane %u step %" PRIu64 ": %u rows, not %u",
		model->lane, t, rows, model->rows[t]);
	for (uint32_t r = 0; r < rows; r++)
		CHECK(trial, memcmp(&span[r], &model->span[t][r], sizeof(span[r])) == 0,
			"lane %u step %" PRIu64 " row %u: %" PRIu64 ".%u, not %" PRIu64 ".%u",
			model->lane, t, r, span[r].number, span[r].segment,
			model->span[t][r].number, model->span[t][r].segment);
}

/* Steps `plan`; and a second one, from the same stored position and through failures, alike. */
static int step_twice(struct trial *trial, struct segue_plan *plan, struct segue_plan *other,
	struct feeder *feeder, struct segue_slot_span *span, uint32_t *rows)
{
	struct segue_plan_input input = input_of(feeder);
	struct segue_position *before = copy_position(plan->position);
	struct segue_slot_span again[BATCH_MAX];
	uint32_t again_rows = 0;

	int rc = segue_plan_step(plan, &input, span, rows);
	CHECK(trial, segue_plan_seek(other, before) == 0, "%s", segue_error_detail());
	int again_rc = segue_plan_step(other, &input, again, &again_rows);
	CHECK(trial, rc == again_rc && same_position(plan->position, other->position), "resumed");
	if (rc == 1)
		CHECK(trial, *rows == again_rows && memcmp(span, again, *rows * sizeof(*span)) == 0,
			"resumed");
	CHECK(trial, segue_plan_seek(other, before) == 0, "%s", segue_error_detail());
	check_faults(trial, other, before, feeder);
	CHECK(trial, same_position(plan->position, other->position), "retried");
	free(before);
	return rc;
}

static bool is_endless(const struct trial *trial)
{
	return segue_ends_have(&trial->spec.ends, 0);
}

/* `whole`, which knows all ends, goes on from where `part` stands: as the model from step t. */
static void check_goes_on(struct trial *trial, const struct model *model, struct feeder *feeder,
	const struct segue_plan *part, struct segue_plan *whole)
{
	struct segue_plan_input input = input_of(feeder);
	struct segue_slot_span span[BATCH_MAX];
	uint64_t t = part->position->step;
	uint32_t rows = 0;

	CHECK(trial, segue_plan_seek(whole, part->position) == 0, "%s", segue_error_detail());
	while (t < model->steps) {
		CHECK(trial, segue_plan_step(whole, &input, span, &rows) == 1, "no batch");
		check_batch(trial, model, t++, span, rows);
	}
	if (is_endless(trial))
		return;
	CHECK(trial, segue_plan_step(whole, &input, span, &rows) == 0, "no end");
	CHECK(trial, whole->position->undelivered == model->undelivered, "%" PRIu64 " left",
		whole->position->undelivered);
}

/* The steps by the end of the list's first `count` ends. */
static uint64_t steps_until(const struct trial *trial, const struct model *model, uint32_t count)
{
	uint64_t steps = 0;

	for (uint32_t i = 0; i < trial->stretches; i++)
		if (trial->stretch[i].to <= trial->spec.ends.epochs[count - 1])
			steps = model->ends[i];
	return steps;
}

/* A plan of the list's first `count` ends gives the same batches up to there, and at each step,
 * also when it has met its end, the whole list can take its place. */
static void check_growth(struct trial *trial, const struct model *model, uint32_t count)
{
	struct feeder feeder = {.data = &trial->data, .fail_at = UINT64_MAX};
	struct segue_plan_input input = input_of(&feeder);
	struct segue_plan_spec spec = trial->spec;
	struct segue_plan part, whole;
	struct segue_slot_span span[BATCH_MAX];
	uint32_t rows = 0;

	memcpy(feeder.longest, trial->longest, sizeof(feeder.longest));
	CHECK(trial, segue_plan_init(&whole, &spec) == 0, "%s", segue_error_detail());
	spec.ends.count = count;
	CHECK(trial, segue_plan_init(&part, &spec) == 0, "%s", segue_error_detail());
	check_goes_on(trial, model, &feeder, &part, &whole);
	while (segue_plan_step(&part, &input, span, &rows) == 1) {
		check_batch(trial, model, part.position->step - 1, span, rows);
		check_goes_on(trial, model, &feeder, &part, &whole);
	}
	CHECK(trial, part.position->step == steps_until(trial, model, count), "ends at %" PRIu64,
		part.position->step);
	check_goes_on(trial, model, &feeder, &part, &whole);
	segue_plan_finish(&part);
	segue_plan_finish(&whole);
}

static void check_lane(struct trial *trial, struct model *model, uint32_t lane)
{
	struct feeder feeder = {.data = &trial->data, .fail_at = UINT64_MAX};
	struct segue_plan plan, other;
	struct segue_slot_span span[2][BATCH_MAX];
	uint32_t rows[2] = {0, 0};

	trial->spec.lane = lane;
	memcpy(feeder.longest, trial->longest, sizeof(feeder.longest));
	model_run(model, trial, lane);
	CHECK(trial, segue_plan_init(&plan, &trial->spec) == 0, "%s", segue_error_detail());
	CHECK(trial, segue_plan_init(&other, &trial->spec) == 0, "%s", segue_error_detail());
	for (uint64_t t = 0; t < model->steps; t++) {
		unsigned now = t & 1;
		int rc = step_twice(trial, &plan, &other, &feeder, span[now], &rows[now]);

		CHECK(trial, rc == 1, "lane %u step %" PRIu64 ": %d", lane, t, rc);
		check_batch(trial, model, t, span[now], rows[now]);
		check_succession(trial, span[now], rows[now], span[!now], rows[!now]);
		count_spans(trial, span[now], rows[now]);
	}
	for (int again = 0; !is_endless(trial) && again < 2; again++) {
		CHECK(trial, step_twice(trial, &plan, &other, &feeder, span[0], rows) == 0,
			"lane %u does not end at step %" PRIu64, lane, model->steps);
		CHECK(trial, plan.position->step == model->steps, "the end moved");
		CHECK(trial, plan.position->undelivered == model->undelivered, "%" PRIu64 " left",
			plan.position->undelivered);
	}
	trial->undelivered += plan.position->undelivered;
	segue_plan_finish(&plan);
	segue_plan_finish(&other);
	for (uint32_t count = 1; count < trial->spec.ends.count; count++)
		check_growth(trial, model, count);
}

/* Input that goes on: so many records are there. */
struct live {
	struct feeder feeder;
	uint64_t there;
};

static int live_admit(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	struct live *live = arg;

	if (record >= live->there)
		return SEGUE_ETIMEOUT;
	return feed_admit(&live->feeder, number, record, array_steps, total_length);
}

static int live_longest(void *arg, uint64_t epoch, uint64_t *steps)
{
	return feed_longest(&((struct live *)arg)->feeder, epoch, steps);
}

/*
 * Records that come one by one, the end at some time after the last: batches are those of the same
 * records when all of them are known from the start, and none is made before it can be.
 */
static void check_live(struct trial *trial, struct model *model, uint32_t lane, uint64_t ends_after)
{
	struct live live = {.feeder = {.data = &trial->data, .fail_at = UINT64_MAX}};
	const struct segue_plan_input input = {&live, live_admit, live_longest};
	const uint64_t records = trial->spec.records;
	struct segue_plan_spec spec = trial->spec;
	struct segue_slot_span span[BATCH_MAX];
	struct segue_plan plan;
	uint32_t rows;
	int rc = 1;

	spec.lane = trial->spec.lane = lane;
	spec.records = SEGUE_PLAN_LIVE;
	memcpy(live.feeder.longest, trial->longest, sizeof(live.feeder.longest));
	model_run(model, trial, lane);
	CHECK(trial, segue_plan_init(&plan, &spec) == 0, "%s", segue_error_detail());
	for (uint64_t tries = 0; rc != 0; tries++) {
		rc = segue_plan_step(&plan, &input, span, &rows);
		if (rc == 1) {
			CHECK(trial, plan.position->step <= model->steps, "a batch too many");
			check_batch(trial, model, plan.position->step - 1, span, rows);
			continue;
		}
		CHECK(trial, rc == 0 || rc == SEGUE_ETIMEOUT, "%d", rc);
		if (live.there < records)
			live.there++;
		else if (plan.spec.records != records && tries >= ends_after)
			CHECK(trial, segue_plan_end(&plan, records) == 0, "%s",
				segue_error_detail());
	}
	CHECK(trial, plan.spec.records == records, "it ended by itself");
	CHECK(trial, plan.position->step == model->steps, "ends at %" PRIu64, plan.position->step);
	CHECK(trial, plan.position->undelivered == model->undelivered, "%" PRIu64 " left",
		plan.position->undelivered);
	segue_plan_finish(&plan);
}

/* Finite input: every segment of every epoch once, or counted as not delivered. */
static void check_complete(struct trial *trial)
{
	const struct segue_plan_spec *spec = &trial->spec;
	uint64_t segments = 0;

	for (uint64_t g = spec->first_epoch * model_epoch(spec);
		g < segue_ends_last(&spec->ends) * model_epoch(spec); g++) {
		uint64_t record = model_record(spec, g);
		uint32_t n = record < RECORDS_MAX ? trial->data.lengths[record] : 0;

		for (uint32_t k = 0; k < 8; k++) {
			bool exists = k * spec->num_unroll < n;
			bool optional = spec->tail == SEGUE_TAIL_STOP;

			segments += exists;
			CHECK(trial, trial->times[g][k] <= exists, "%" PRIu64 ".%u twice", g, k);
			CHECK(trial, optional || trial->times[g][k] == exists,
				"%" PRIu64 ".%u never", g, k);
		}
	}
	CHECK(trial, trial->seen + trial->undelivered == segments, "segments lost");
}

static uint32_t stretch_of(const struct trial *trial, uint64_t epoch)
{
	uint32_t i = 0;

	while (trial->stretch[i].to <= epoch)
		i++;
	return i;
}

/* segue_plan_longest against the plan itself, run without padding over all lanes. */
static void check_longest(struct trial *trial)
{
	struct feeder feeder = {.data = &trial->data, .fail_at = UINT64_MAX};
	struct segue_plan_input input = input_of(&feeder);
	struct segue_plan_spec spec = trial->spec;
	uint64_t longest[4] = {0}; /* by stretch */

	spec.tail = SEGUE_TAIL_SHRINK;
	for (spec.lane = 0; spec.lane < spec.lanes; spec.lane++) {
		struct segue_slot_span span[BATCH_MAX];
		struct segue_plan plan;
		uint64_t steps[4] = {0};
		uint32_t rows;

		CHECK(trial, segue_plan_init(&plan, &spec) == 0, "%s", segue_error_detail());
		while (segue_plan_step(&plan, &input, span, &rows) == 1)
			steps[stretch_of(trial, span[0].epoch)]++;
		segue_plan_finish(&plan);
		for (int part = 0; part < 4; part++)
			if (steps[part] > longest[part])
				longest[part] = steps[part];
	}
	for (uint32_t i = 0; i < trial->stretches; i++) {
		uint64_t steps;

		CHECK(trial,
			segue_plan_longest(
				&spec, trial->stretch[i].from, trial->data.lengths, &steps) == 0,
			"%s", segue_error_detail());
		CHECK(trial, steps == longest[i], "%" PRIu64 " steps, not %" PRIu64, steps,
			longest[i]);
	}
}

/* Steps that were counted are those that the model makes. */
static void check_count(struct trial *trial, struct model *model)
{
	uint64_t steps[4];

	CHECK(trial, segue_plan_check_countable(&trial->spec) == 0, "%s", segue_error_detail());
	CHECK(trial, segue_plan_count(&trial->spec, trial->data.lengths, NULL, steps) == 0, "%s",
		segue_error_detail());
	for (uint32_t lane = 0; lane < trial->spec.lanes; lane++) {
		trial->spec.lane = lane;
		model_run(model, trial, lane);
		CHECK(trial, steps[lane] == model->steps, "lane %u: %" PRIu64 ", not %" PRIu64,
			lane, steps[lane], model->steps);
	}
}

Test(plan, what_cannot_be_counted)
{
	struct segue_plan_spec spec = five;

	spec.records = SEGUE_PLAN_COUNTED_MAX;
	cr_assert_eq(segue_plan_check_countable(&spec), 0);
	spec.ends = SEGUE_ENDS(2);
	cr_assert_eq(segue_plan_check_countable(&spec), SEGUE_EINVAL);
	spec.first_epoch = 1;
	cr_assert_eq(segue_plan_check_countable(&spec), 0);
	spec.records = SEGUE_PLAN_LIVE;
	cr_assert_eq(segue_plan_check_countable(&spec), SEGUE_EINVAL);
	spec = five;
	spec.ends = SEGUE_ENDS(1, 0);
	cr_assert_eq(segue_plan_check_countable(&spec), SEGUE_EINVAL);
	spec = five;
	spec.ends = SEGUE_ENDS(SEGUE_PLAN_COUNTED_MAX / 10);
	cr_assert_eq(segue_plan_check_countable(&spec), 0);
	spec.lanes = 64;
	cr_assert_eq(segue_plan_check_countable(&spec), SEGUE_EINVAL);
}

Test(plan, counting_stops_when_nobody_waits)
{
	uint32_t lengths[5] = {1, 1, 1, 1, 1};
	_Atomic bool given_up = true;
	uint64_t steps[8];

	cr_assert_eq(segue_plan_count(&five, lengths, &given_up, steps), SEGUE_EGONE);
	given_up = false;
	cr_assert_eq(segue_plan_count(&five, lengths, &given_up, steps), 0);
}

static uint64_t first_seed(void)
{
	const char *given = getenv("SEGUE_TEST_SEED");

	return given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000003 >> 8;
}

/* An input that ended before what was taken of it is none. */
Test(plan, an_end_before_the_position)
{
	const uint32_t lengths[] = {2, 2, 2, 2};
	struct example example;

	begin(&example,
		(struct segue_plan_spec){.records = 4,
			.ends = {1, {1}},
			.lanes = 1,
			.batch_size = 2,
			.num_unroll = 2},
		lengths);
	example.plan.spec.records = SEGUE_PLAN_LIVE;
	cr_assert_eq(step(&example), 1);
	cr_assert_eq(segue_plan_end(&example.plan, 1), SEGUE_EPROTOCOL);
	cr_assert_eq(example.plan.spec.records, SEGUE_PLAN_LIVE);
	cr_assert_eq(step(&example), 1);
	cr_assert_eq(segue_plan_end(&example.plan, 4), 0);
	cr_assert_eq(step(&example), 0);
	segue_plan_finish(&example.plan);
}

Test(plan, random_specs_against_the_model, .timeout = 300)
{
	uint64_t seed = first_seed();
	struct model *model = malloc(sizeof(*model));
	struct trial *trial = malloc(sizeof(*trial));

	cr_assert_not_null(model);
	cr_assert_not_null(trial);
	unsigned live = 0;

	printf("plan: %d trials, SEGUE_TEST_SEED=%" PRIu64 "\n", TRIALS, seed);
	for (uint64_t i = 0; i < TRIALS; i++) {
		draw_trial(trial, seed + i);
		model_longest(model, trial);
		for (uint32_t lane = 0; lane < trial->spec.lanes; lane++)
			check_lane(trial, model, lane);
		trial->spec.lane = 0;
		if (is_endless(trial))
			continue;
		check_complete(trial);
		check_longest(trial);
		check_count(trial, model);
		if (trial->spec.shuffle || trial->spec.lanes_by == SEGUE_LANES_BY_RECORD ||
			segue_ends_last(&trial->spec.ends) != 1)
			continue;
		for (uint32_t lane = 0; lane < trial->spec.lanes; lane++)
			check_live(trial, model, lane, i % 40);
		live++;
	}
	cr_assert_gt(live, TRIALS / 40);
	free(model);
	free(trial);
}
