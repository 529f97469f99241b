/* Batch sizes that change: the plan against worked examples, and against a plain model. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lane/plan.h"

enum { RECORDS_MAX = 24, EPOCHS = 2, SIZE_MAX_ = 8, STEPS_MAX = 1000, TRIALS = 4000 };

struct data {
	uint32_t steps[RECORDS_MAX]; /* 0: passed over */
	uint64_t calls, fail_at;
};

static int admit(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	struct data *data = arg;

	(void)number;
	if (data->calls++ == data->fail_at)
		return SEGUE_ESOURCE;
	*array_steps = *total_length = data->steps[record];
	return data->steps[record] ? 0 : SEGUE_PLAN_SKIP;
}

static const struct segue_plan_spec plain = {
	.records = 16, .ends = {1, {1}}, .lanes = 1, .batch_size = 3, .num_unroll = 1};

static struct segue_position *copy_of(const struct segue_position *position)
{
	size_t size = segue_position_size(segue_position_count(position));
	/* Room for a row more, that a test may put in. */
	struct segue_position *copy = calloc(1, size + sizeof(position->row[0]));

	cr_assert_not_null(copy);
	memcpy(copy, position, size);
	return copy;
}

static bool same(const struct segue_position *a, const struct segue_position *b)
{
	size_t size = segue_position_size(segue_position_count(a));

	return segue_position_count(a) == segue_position_count(b) && memcmp(a, b, size) == 0;
}

/* As the server does: the position is changed, and a plan begins from it. */
static void set_size(struct segue_plan *plan, uint32_t n)
{
	struct segue_position *position = copy_of(plan->position);
	struct segue_plan made;

	cr_assert_eq(segue_plan_set_batch_size(&plan->spec, position, n), 0);
	cr_assert_eq(segue_plan_batch_size(&plan->spec, position), n);
	cr_assert_eq(segue_plan_init(&made, &plan->spec), 0);
	cr_assert_eq(segue_plan_seek(&made, position), 0, "%s", segue_error_detail());
	segue_plan_finish(plan);
	free(position);
	*plan = made;
}

/* The rows of the next batch as text, then the parked ones: " 3.0 1.1 | 4.0"; "end". */
static const char *step(struct segue_plan *plan, struct data *data)
{
	static char text[512];
	struct segue_plan_input input = {data, admit, NULL};
	struct segue_slot_span span[32];
	uint32_t rows = 0;
	int at = 0;

	int rc = segue_plan_step(plan, &input, span, &rows);
	cr_assert_geq(rc, 0, "%s", segue_error_detail());
	if (rc == 0)
		return "end";
	cr_assert_eq(rows, plan->position->rows);
	text[0] = '\0';
	for (uint32_t i = 0; i < segue_position_count(plan->position); i++) {
		cr_assert_eq(!!(span[i].flags & SEGUE_SPAN_PARKED), i >= rows);
		cr_assert(i < rows || span[i].length == 0);
		at += snprintf(text + at, sizeof(text) - (size_t)at, "%s %" PRIu64 ".%u",
			i == rows ? " |" : "", span[i].number, span[i].segment);
	}
	return text;
}

static void begin(struct segue_plan *plan, struct data *data, struct segue_plan_spec spec,
	const uint32_t *steps)
{
	*data = (struct data){.fail_at = UINT64_MAX};
	memcpy(data->steps, steps, spec.records * sizeof(*steps));
	cr_assert_eq(segue_plan_init(plan, &spec), 0);
}

/* Sequences of two segments each, batch sizes 0, 1, ... 7: what the original gives. */
Test(sizes, from_0_to_7)
{
	static const char *const expected[] = {"", " 0.0", " 0.1 1.0", " 2.0 1.1 3.0",
		" 2.1 4.0 3.1 5.0", " 6.0 4.1 7.0 5.1 8.0", " 6.1 9.0 7.1 10.0 8.1 11.0",
		" 12.0 9.1 13.0 10.1 14.0 11.1 15.0"};
	uint32_t steps[16];
	struct segue_plan plan;
	struct data data;

	for (int i = 0; i < 16; i++)
		steps[i] = 2;
	begin(&plan, &data, plain, steps);
	for (uint32_t n = 0; n < 8; n++) {
		set_size(&plan, n);
		cr_assert_str_eq(step(&plan, &data), expected[n], "of size %u", n);
	}
	segue_plan_finish(&plan);
}

/* The youngest wait, and come back before a new one is taken. */
Test(sizes, the_oldest_stay_and_the_others_come_back_first)
{
	struct segue_plan_spec spec = plain;
	struct segue_plan plan;
	struct data data;

	spec.records = 6;
	begin(&plan, &data, spec, (uint32_t[]){1, 4, 4, 2, 1, 1});
	cr_assert_str_eq(step(&plan, &data), " 0.0 1.0 2.0");
	cr_assert_str_eq(step(&plan, &data), " 3.0 1.1 2.1");
	set_size(&plan, 2);
	cr_assert_str_eq(step(&plan, &data), " 1.2 2.2 | 3.0");
	set_size(&plan, 0);
	cr_assert_str_eq(step(&plan, &data), " | 1.2 2.2 3.0");
	cr_assert_str_eq(step(&plan, &data), " | 1.2 2.2 3.0");
	set_size(&plan, 1);
	cr_assert_str_eq(step(&plan, &data), " 1.3 | 2.2 3.0");
	cr_assert_str_eq(step(&plan, &data), " 2.3 | 3.0");
	set_size(&plan, 3);
	cr_assert_str_eq(step(&plan, &data), " 3.1 4.0 5.0");
	cr_assert_str_eq(step(&plan, &data), "end");
	cr_assert_str_eq(step(&plan, &data), "end");
	segue_plan_finish(&plan);
}

/* Of none: goes on while something is left, be it parked or not begun. */
Test(sizes, none)
{
	struct segue_plan_spec spec = plain;
	struct segue_plan plan;
	struct data data;

	spec.records = 2;
	for (int tail = 0; tail < 2; tail++) {
		spec.tail = tail ? SEGUE_TAIL_STOP : SEGUE_TAIL_SHRINK;
		begin(&plan, &data, spec, (uint32_t[]){1, 0});
		set_size(&plan, 0);
		cr_assert_str_eq(step(&plan, &data), "");
		cr_assert_str_eq(step(&plan, &data), "");
		set_size(&plan, 1);
		cr_assert_str_eq(step(&plan, &data), " 0.0");
		set_size(&plan, 0);
		cr_assert_str_eq(step(&plan, &data), "end"); /* what is left is damaged */
		cr_assert_eq(plan.position->undelivered, 0);
		segue_plan_finish(&plan);
	}
}

/* A full batch of the size that is asked for, parked ones among it; those left are counted. */
Test(sizes, stop)
{
	struct segue_plan_spec spec = plain;
	struct segue_plan plan;
	struct data data;

	spec.records = 3;
	spec.tail = SEGUE_TAIL_STOP;
	begin(&plan, &data, spec, (uint32_t[]){2, 3, 4});
	cr_assert_str_eq(step(&plan, &data), " 0.0 1.0 2.0");
	set_size(&plan, 1);
	cr_assert_str_eq(step(&plan, &data), " 0.1 | 1.0 2.0");
	cr_assert_str_eq(step(&plan, &data), " 1.1 | 2.0");
	struct segue_position *here = copy_of(plan.position);
	set_size(&plan, 3);
	cr_assert_str_eq(step(&plan, &data), "end");
	cr_assert_eq(plan.position->undelivered, 1 + 3);
	cr_assert_eq(segue_plan_seek(&plan, here), 0);
	free(here);
	set_size(&plan, 2);
	cr_assert_str_eq(step(&plan, &data), " 1.2 2.1");
	cr_assert_str_eq(step(&plan, &data), "end");
	cr_assert_eq(plan.position->undelivered, 2);
	segue_plan_finish(&plan);
}

Test(sizes, refuses)
{
	struct segue_plan_spec spec = plain;
	struct segue_plan plan;
	struct data data;

	begin(&plan, &data, spec, (uint32_t[16]){1});
	cr_assert_eq(segue_plan_set_batch_size(&spec, plan.position, 3), 0);
	cr_assert_eq(plan.position->sized, 0); /* that is so already */
	cr_assert_eq(
		segue_plan_set_batch_size(&spec, plan.position, SEGUE_ROWS_MAX + 1), SEGUE_EINVAL);
	spec.tail = SEGUE_TAIL_PAD;
	cr_assert_eq(segue_plan_set_batch_size(&spec, plan.position, 2), SEGUE_EINVAL);
	cr_assert_eq(segue_plan_set_batch_size(&spec, plan.position, 3), 0);
	segue_plan_finish(&plan);
}

#define IMPOSSIBLE(...)                                                                            \
	do {                                                                                       \
		struct segue_position *p = copy_of(plan.position);                                 \
		cr_assert_eq(segue_plan_seek(&plan, p), 0, "%s", segue_error_detail());            \
		__VA_ARGS__;                                                                       \
		cr_expect_eq(segue_plan_seek(&plan, p), SEGUE_EPROTOCOL, "line %d", __LINE__);     \
		free(p);                                                                           \
	} while (0)

Test(sizes, seek_refuses)
{
	struct segue_plan_spec spec = plain;
	struct segue_plan plan;
	struct data data;

	begin(&plan, &data, spec, (uint32_t[]){5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5});
	IMPOSSIBLE(p->batch_size = 1);
	IMPOSSIBLE(p->sized = 2; p->batch_size = 1);
	cr_assert_str_eq(step(&plan, &data), " 0.0 1.0 2.0");
	IMPOSSIBLE(p->rows = 2; p->parked = 1);
	set_size(&plan, 1);
	cr_assert_str_eq(step(&plan, &data), " 0.1 | 1.0 2.0");
	IMPOSSIBLE(p->sized = 0);
	IMPOSSIBLE(p->sized = 4);
	IMPOSSIBLE(p->batch_size = SEGUE_ROWS_MAX + 1);
	IMPOSSIBLE(p->rows = 0; p->parked = 3);
	IMPOSSIBLE(p->rows = 2; p->parked = 1);
	IMPOSSIBLE(p->rows = 3; p->parked = 0);
	IMPOSSIBLE(p->row[2].segment = 4);
	IMPOSSIBLE(p->row[2].segment = 2);
	IMPOSSIBLE(p->row[1].number = 2; p->row[2].number = 1);
	IMPOSSIBLE(p->row[0].number = 2; p->row[2].number = 0);
	IMPOSSIBLE(p->row[2].number = 1);
	IMPOSSIBLE(p->row[2].number = 7);
	IMPOSSIBLE(p->row[2].number = SEGUE_NO_SEQUENCE);
	IMPOSSIBLE(p->undelivered = 1);
	IMPOSSIBLE(p->epoch_step = 2);
	plan.spec.tail = SEGUE_TAIL_PAD;
	cr_expect_eq(segue_plan_seek(&plan, plan.position), SEGUE_EPROTOCOL);
	segue_plan_finish(&plan);
}

/* Of a lane that has no rows for a while, no row says which epoch it is in. */
Test(sizes, seek_refuses_sequences_of_an_earlier_epoch)
{
	struct segue_plan_spec spec = plain;
	struct segue_plan plan;
	struct data data;

	spec.first_epoch = 1;
	spec.ends = SEGUE_ENDS(2);
	begin(&plan, &data, spec, (uint32_t[]){1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1});
	cr_assert_str_eq(step(&plan, &data), " 16.0 17.0 18.0");
	set_size(&plan, 0);
	cr_assert_str_eq(step(&plan, &data), "");
	IMPOSSIBLE(p->next = 15);
	segue_plan_finish(&plan);
}

/* ---- A plain model: in each batch the oldest unfinished sequences --------------------------- */

struct sequence {
	uint64_t number;
	uint32_t segments, done;
	int row;  /* in the batch before; behind its rows: parked; -1: not begun */
	int came; /* from which row */
};

struct model {
	struct segue_plan_spec spec;
	const struct data *data;
	uint64_t epoch, undelivered;
	struct sequence sequence[RECORDS_MAX * EPOCHS], *at[RECORDS_MAX * EPOCHS];
	uint32_t count, rows, parked; /* of `at`: the last batch */
};

static void list(struct model *model)
{
	const struct segue_plan_spec *spec = &model->spec;
	bool drain = spec->epoch_end == SEGUE_EPOCH_DRAIN;
	uint64_t from = model->epoch * spec->records;
	uint64_t to = (drain ? model->epoch + 1 : EPOCHS) * spec->records;

	model->count = model->rows = model->parked = 0;
	for (uint64_t g = from; g < to; g++) {
		uint32_t steps = model->data->steps[g % spec->records];

		if (g % spec->lanes == spec->lane && steps > 0)
			model->sequence[model->count++] = (struct sequence){.number = g,
				.segments = (steps - 1) / spec->num_unroll + 1,
				.row = -1};
	}
}

/* Who was in no row yet, by age, into those that are free. */
static uint32_t fill(struct model *model, struct sequence **row, struct sequence *const *oldest,
	uint32_t found, uint32_t size)
{
	uint32_t r = 0;

	for (uint32_t i = 0; i < found; i++) {
		bool there = false;

		for (uint32_t k = 0; k < size; k++)
			there = there || row[k] == oldest[i];
		if (there)
			continue;
		while (row[r])
			r++;
		row[r] = oldest[i];
	}
	model->rows = 0;
	for (r = 0; r < size; r++)
		if (row[r])
			model->at[model->rows++] = row[r];
	return model->rows;
}

/* Makes the next batch of the stretch: false if it has ended. */
static bool model_batch(struct model *model, uint32_t size)
{
	struct sequence *oldest[RECORDS_MAX * EPOCHS], *row[SIZE_MAX_ + 1] = {NULL};
	uint32_t found = 0, left = 0, closed = 0;

	for (uint32_t i = 0; i < model->count; i++) {
		struct sequence *sequence = &model->sequence[i];

		sequence->came = sequence->row;
		if (sequence->done < sequence->segments && left++ < size)
			oldest[found++] = sequence;
	}
	if (left == 0 || (found < size && model->spec.tail == SEGUE_TAIL_STOP)) {
		for (uint32_t i = 0; i < model->count; i++)
			model->undelivered += model->sequence[i].segments - model->sequence[i].done;
		return false;
	}
	for (uint32_t r = 0; r < model->rows; r++)
		for (uint32_t i = 0; i < found; i++)
			if (oldest[i] == model->at[r])
				row[model->rows > size ? closed++ : r] = oldest[i];
	uint32_t rows = fill(model, row, oldest, found, size);
	for (uint32_t r = 0; r < rows; r++)
		model->at[r]->done++;
	model->parked = 0;
	for (uint32_t i = 0; i < model->count; i++) {
		struct sequence *sequence = &model->sequence[i];
		bool in = false;

		for (uint32_t k = 0; k < found; k++)
			in = in || oldest[k] == sequence;
		if (!in && sequence->done > 0 && sequence->done < sequence->segments)
			model->at[rows + model->parked++] = sequence;
	}
	for (uint32_t r = 0; r < rows + model->parked; r++)
		model->at[r]->row = (int)r;
	return true;
}

static bool model_next(struct model *model, uint32_t size)
{
	while (!model_batch(model, size)) {
		if (model->spec.epoch_end != SEGUE_EPOCH_DRAIN || model->epoch + 1 == EPOCHS)
			return false;
		model->epoch++;
		list(model);
	}
	return true;
}

/* ---- Plan against model --------------------------------------------------------------------- */

static uint64_t draw(uint64_t *state, uint64_t below)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (*state * UINT64_C(0x2545F4914F6CDD1D) >> 33) % below;
}

static void draw_trial(uint64_t *state, struct segue_plan_spec *spec, struct data *data)
{
	*spec = (struct segue_plan_spec){.records = 1 + draw(state, RECORDS_MAX),
		.ends = SEGUE_ENDS(EPOCHS),
		.lanes = 1 + (uint32_t)draw(state, 3),
		.batch_size = 1 + (uint32_t)draw(state, SIZE_MAX_),
		.num_unroll = 1 + (uint32_t)draw(state, 3),
		.tail = draw(state, 2) ? SEGUE_TAIL_STOP : SEGUE_TAIL_SHRINK,
		.epoch_end = draw(state, 2) ? SEGUE_EPOCH_DRAIN : SEGUE_EPOCH_CONTINUE};
	spec->lane = (uint32_t)draw(state, spec->lanes);
	*data = (struct data){.fail_at = UINT64_MAX};
	for (uint64_t i = 0; i < spec->records; i++)
		data->steps[i] = draw(state, 6) ? 1 + (uint32_t)draw(state, 20) : 0;
}

/* A step that fails anywhere changes nothing. */
static void check_faults(struct segue_plan *plan, struct data *data)
{
	struct segue_plan_input input = {data, admit, NULL};
	struct segue_position *before = copy_of(plan->position);
	struct segue_slot_span span[64];
	uint32_t rows;

	for (uint64_t at = 0; at < 3; at++) {
		data->calls = 0;
		data->fail_at = at;
		int rc = segue_plan_step(plan, &input, span, &rows);
		if (rc == SEGUE_ESOURCE)
			cr_assert(same(plan->position, before), "a failed step moved on");
		else
			cr_assert_eq(segue_plan_seek(plan, before), 0);
	}
	data->fail_at = UINT64_MAX;
	free(before);
}

static void check_spans(const struct model *model, const struct segue_plan *plan,
	const struct segue_slot_span *span, uint64_t seed)
{
	cr_assert(plan->position->rows == model->rows && plan->position->parked == model->parked,
		"seed %" PRIu64 " step %" PRIu64 ": %u rows and %u parked, not %u and %u", seed,
		plan->position->step - 1, plan->position->rows, plan->position->parked, model->rows,
		model->parked);
	for (uint32_t r = 0; r < model->rows + model->parked; r++) {
		const struct sequence *sequence = model->at[r];
		bool parked = r >= model->rows, ends = sequence->done == sequence->segments;
		uint32_t flags = parked ? SEGUE_SPAN_PARKED
					: (sequence->done == 1 ? SEGUE_SPAN_FIRST : 0u) |
						  (ends ? SEGUE_SPAN_LAST : 0u);
		uint32_t from = sequence->came < 0 ? SEGUE_NO_ROW : (uint32_t)sequence->came;

		cr_assert(span[r].number == sequence->number && span[r].row == r &&
				  span[r].segment + 1 == sequence->done && span[r].flags == flags &&
				  span[r].previous_row == from,
			"seed %" PRIu64 " step %" PRIu64 " row %u: %" PRIu64 ".%u from %u, not "
			"%" PRIu64 ".%u from %u",
			seed, plan->position->step - 1, r, span[r].number, span[r].segment,
			span[r].previous_row, sequence->number, sequence->done - 1, from);
	}
}

static void run_trial(uint64_t seed, uint64_t *parked)
{
	uint64_t state = seed * 2 + 1;
	struct segue_slot_span span[64];
	struct segue_plan plan;
	struct data data;
	struct segue_plan_input input = {&data, admit, NULL};
	static struct model model;
	uint32_t size, rows;

	for (int i = 0; i < 8; i++)
		draw(&state, 2);
	model = (struct model){.data = &data};
	draw_trial(&state, &model.spec, &data);
	size = model.spec.batch_size;
	list(&model);
	cr_assert_eq(segue_plan_init(&plan, &model.spec), 0);
	for (int t = 0; t < STEPS_MAX; t++) {
		if (draw(&state, 3) == 0) {
			size = (uint32_t)draw(&state, SIZE_MAX_ + 1);
			set_size(&plan, size);
		}
		check_faults(&plan, &data);
		cr_assert_leq(segue_plan_places(&plan.spec, plan.position), plan.places);
		int rc = segue_plan_step(&plan, &input, span, &rows);
		cr_assert_eq(rc, model_next(&model, size), "seed %" PRIu64 " step %d", seed, t);
		cr_assert_eq(plan.position->undelivered, model.undelivered, "seed %" PRIu64, seed);
		if (rc == 0)
			break;
		check_spans(&model, &plan, span, seed);
		*parked += model.parked > 0;
	}
	segue_plan_finish(&plan);
}

Test(sizes, equal_a_model, .timeout = 120)
{
	const char *given = getenv("SEGUE_TEST_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 10000;
	uint64_t parked = 0;

	for (uint64_t i = 0; i < (given ? 1 : TRIALS); i++)
		run_trial(seed + i, &parked);
	cr_assert(given || parked > TRIALS);
}
