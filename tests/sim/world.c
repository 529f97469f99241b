/* What a run is about: spec, data, and the true plan of each lane. */
#include "world.h"

#include <stdio.h>
#include <string.h>

#include "lane/carry.h"
#include "core/error.h"
#include "machine.h"

struct sim_world sim_world;

/* ---- Data ----------------------------------------------------------------------------------- */

static uint64_t value_at(uint64_t record, uint64_t step)
{
	return sim_mix(record * 1000 + step, 1);
}

static uint64_t context_of(uint64_t record)
{
	return sim_mix(record, 2);
}

struct sim_states sim_world_initial(uint64_t record)
{
	struct sim_states initial = sim_world.initial;

	for (size_t i = 0; i < sim_world.spec.state_count; i++) {
		const struct segue_field *state = &sim_world.state[i];
		for (uint64_t k = 0; state->from_data && k < state->elements; k++)
			sim_state_of(&initial, i)[k] = sim_mix(record, 3 + i * SIM_WORDS + k);
	}
	return initial;
}

uint32_t sim_world_key(uint64_t record, char key[SIM_KEY_MAX])
{
	return (uint32_t)snprintf(key, SIM_KEY_MAX, "r%llu", (unsigned long long)record);
}

void sim_copy_slowly(void *to, const void *from, size_t size)
{
	uint64_t *out = to;
	const uint64_t *in = from;

	for (size_t i = 0; i < size / sizeof(*out); i++) {
		out[i] = in[i];
		if (i % 2 == 0)
			sim_point();
	}
}

struct record {
	struct segue_record base;
	uint64_t number, at;
	char key[SIM_KEY_MAX];
	uint32_t key_size;
};

static const char *record_key(const struct segue_record *base, size_t *size)
{
	const struct record *record = (const struct record *)base;

	*size = record->key_size;
	return record->key;
}

static int record_seek(struct segue_record *base, uint64_t step)
{
	((struct record *)base)->at = step;
	return 0;
}

static int record_read(struct segue_record *base, size_t feature, uint64_t steps, void *out)
{
	struct record *record = (struct record *)base;
	uint64_t *values = out;

	(void)feature;
	for (uint64_t i = 0; i < steps; i++) {
		sim_point();
		values[i] = value_at(record->number, record->at++);
	}
	return 0;
}

static int record_context(struct segue_record *base, size_t feature, void *out)
{
	(void)feature;
	sim_point();
	*(uint64_t *)out = context_of(((struct record *)base)->number);
	return 0;
}

static int record_initial(struct segue_record *base, size_t state, void *out)
{
	struct sim_states initial = sim_world_initial(((struct record *)base)->number);

	sim_copy_slowly(out, sim_state_of(&initial, state), sim_world.state[state].size);
	return 0;
}

static size_t record_memory(const struct segue_record *base)
{
	(void)base;
	return sizeof(struct record);
}

static void record_release(struct segue_record *base)
{
	free(base);
}

static const struct segue_record_ops record_ops = {
	.key = record_key,
	.seek = record_seek,
	.read = record_read,
	.context = record_context,
	.initial = record_initial,
	.memory = record_memory,
	.release = record_release,
};

static uint64_t source_records(const struct segue_source *source)
{
	(void)source;
	return sim_world.truth[0].plan.records;
}

static uint32_t source_key_max(const struct segue_source *source)
{
	(void)source;
	return SIM_KEY_MAX;
}

static int source_admit(struct segue_source *source, uint64_t number, struct segue_record **out,
	struct segue_admitted *admitted)
{
	uint32_t length = sim_world.length[number];

	(void)source;
	if (length == 0)
		return segue_fail(
			SEGUE_EDATA, "record %llu is damaged", (unsigned long long)number);
	struct record *record = calloc(1, sizeof(*record));
	record->base.ops = &record_ops;
	record->number = number;
	record->key_size = sim_world_key(number, record->key);
	*out = &record->base;
	*admitted = (struct segue_admitted){.array_steps = length, .total_length = length};
	return 0;
}

static int source_find_lengths(
	struct segue_source *source, segue_progress_fn *progress, void *arg, uint32_t *lengths)
{
	(void)progress;
	(void)arg;
	memcpy(lengths, sim_world.length, source_records(source) * sizeof(lengths[0]));
	return 0;
}

static void source_destroy(struct segue_source *source)
{
	(void)source;
}

static const struct segue_source_ops source_ops = {
	.records = source_records,
	.key_max = source_key_max,
	.admit = source_admit,
	.find_lengths = source_find_lengths,
	.destroy = source_destroy,
};

/* ---- Truth ---------------------------------------------------------------------------------- */

static int truth_admit(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	(void)arg;
	(void)number;
	*array_steps = *total_length = sim_world.length[record];
	return sim_world.length[record] ? 0 : SEGUE_PLAN_SKIP;
}

static int truth_longest(void *arg, uint64_t epoch, uint64_t *steps)
{
	return segue_plan_longest(arg, epoch, sim_world.length, steps);
}

static struct segue_position *copy_of(const struct segue_position *position)
{
	struct segue_position *copy = malloc(segue_position_size(SIM_ROWS + SIM_WINDOW));

	memcpy(copy, position, segue_position_size(segue_position_entries(position)));
	return copy;
}

/* The plan is at step t: has it go on with the batch size that is drawn for it. */
static int size_plan(const struct sim_lane_truth *truth, struct segue_plan *plan)
{
	uint8_t size = truth->wanted[plan->position->step];
	struct segue_position *position;

	if (size == SIM_NO_SIZE)
		return 0;
	position = copy_of(plan->position);
	int rc = segue_plan_set_batch_size(&plan->spec, position, size);
	rc = rc ? rc : segue_plan_seek(plan, position);
	free(position);
	return rc;
}

/* The plan of a list that has not grown so far yet ends with it. */
static void find_ends(struct sim_lane_truth *truth)
{
	struct segue_slot_span spans[SIM_ROWS];
	uint32_t rows;

	for (uint32_t i = 0; i < truth->plan.ends.count; i++) {
		struct segue_plan_spec spec = truth->plan;
		const struct segue_plan_input input = {&spec, truth_admit, truth_longest};
		struct segue_plan plan;

		spec.ends.count = i + 1;
		int rc = segue_plan_init(&plan, &spec);
		do
			rc = rc ? rc : size_plan(truth, &plan);
		while (rc == 0 && segue_plan_step(&plan, &input, spans, &rows) == 1);
		truth->end_by[i] = plan.position->step;
		truth->undelivered_by[i] = plan.position->undelivered;
		segue_plan_finish(&plan);
	}
}

/* Where lengths are grouped: the sequences of batch t are of one class. */
static void check_class(const struct sim_lane_truth *truth, uint64_t t)
{
	const struct segue_slot_span *first = NULL;

	for (uint32_t i = 0; truth->plan.window && i < truth->spans[t]; i++) {
		const struct segue_slot_span *span = &truth->span[t][i];

		if (span->flags & SEGUE_SPAN_EMPTY)
			continue;
		first = first ? first : span;
		sim_check(
			segue_boundaries_class(&truth->plan.boundaries, span->array_steps) ==
				segue_boundaries_class(&truth->plan.boundaries, first->array_steps),
			"class", "step %llu: sequences of %llu and %llu steps",
			(unsigned long long)t, (unsigned long long)first->array_steps,
			(unsigned long long)span->array_steps);
	}
}

/* What a row that begins in batch `step` takes up: of its record what ended before, last. */
static struct sim_left find_left(const struct sim_lane_truth *truth, uint64_t step, uint64_t number)
{
	struct sim_left left = {.step = SIM_STEPS};
	uint64_t record = segue_plan_record(&truth->plan, number), newest = 0;

	for (uint64_t t = 0; t < step; t++)
		for (uint32_t row = 0; row < truth->rows[t]; row++) {
			const struct segue_slot_span *span = &truth->span[t][row];
			if (!(span->flags & SEGUE_SPAN_LAST) || span->number < newest ||
				segue_plan_record(&truth->plan, span->number) != record)
				continue;
			newest = span->number;
			left = (struct sim_left){t, row};
		}
	return left;
}

static void find_all_left(struct sim_lane_truth *truth)
{
	for (uint64_t t = 0; t < truth->end; t++)
		for (uint32_t row = 0; row < truth->rows[t]; row++) {
			struct segue_slot_span *span = &truth->span[t][row];
			truth->left[t][row].step = SIM_STEPS;
			if (sim_world.spec.initial != SEGUE_INITIAL_KEPT ||
				!(span->flags & SEGUE_SPAN_FIRST))
				continue;
			truth->left[t][row] = find_left(truth, t, span->number);
			if (truth->left[t][row].step < SIM_STEPS)
				span->flags |= SEGUE_SPAN_KEPT;
		}
}

static void run_lane(struct sim_lane_truth *truth)
{
	const struct segue_plan_input input = {&truth->plan, truth_admit, truth_longest};
	struct segue_plan plan;
	uint64_t t = 0;
	int rc = segue_plan_init(&plan, &truth->plan);

	truth->position[0] = copy_of(plan.position);
	while (rc == 0 && t < SIM_STEPS) {
		rc = size_plan(truth, &plan);
		sim_check(rc == 0, "world", "size at step %llu: %s", (unsigned long long)t,
			segue_error_detail());
		if (plan.position->sized == t + 1)
			truth->sized[t] = copy_of(plan.position);
		rc = segue_plan_step(&plan, &input, truth->span[t], &truth->rows[t]);
		if (rc <= 0)
			break;
		truth->spans[t] = segue_position_count(plan.position);
		check_class(truth, t);
		truth->position[++t] = copy_of(plan.position);
		rc = 0;
	}
	sim_check(rc == 0 && t < SIM_STEPS, "world", "a lane of %llu steps, rc %d",
		(unsigned long long)t, rc);
	truth->end = t;
	segue_plan_finish(&plan);
	find_ends(truth);
	find_all_left(truth);
}

bool sim_world_sizes(uint32_t pair, uint64_t step, uint32_t *size)
{
	const struct segue_position *sized = sim_world.truth[pair].sized[step];

	if (sized)
		*size = sized->batch_size;
	return sized != NULL;
}

bool sim_world_alike(uint32_t pair, uint32_t other)
{
	const struct sim_lane_truth *a = &sim_world.truth[pair], *b = &sim_world.truth[other];

	return sim_lane_of(pair) == sim_lane_of(other) &&
	       memcmp(a->wanted, b->wanted, sizeof(a->wanted)) == 0;
}

/* ---- A world -------------------------------------------------------------------------------- */

static struct segue_field field(char *name, uint64_t elements)
{
	return (struct segue_field){
		.name = name,
		.dtype = SEGUE_INT64,
		.rank = 1,
		.dims = {elements},
		.elements = elements,
		.size = elements * sizeof(uint64_t),
	};
}

static void draw_spec(struct sim_world *world)
{
	static char x[] = "x", c[] = "c", h[] = "h", k[] = "k";

	world->sequence = field(x, 1);
	world->context = field(c, 1);
	world->state[0] = field(h, 1 + sim_below(2));
	world->state[1] = field(k, 1 + sim_below(2));
	world->words = (uint32_t)(world->state[0].elements + world->state[1].elements);
	world->spec = (struct segue_spec){
		.sequences = &world->sequence,
		.sequence_count = 1,
		.contexts = &world->context,
		.context_count = 1,
		.states = world->state,
		.state_count = 2,
		.num_unroll = 1 + sim_below(3),
		.batch_size = 1 + sim_below(SIM_ROWS),
		.lanes = SIM_LANES,
		.shuffle = sim_one_in(2),
		.seed = sim_random(),
		.epochs = 1 + sim_below(2),
		.first_epoch = sim_below(2),
		.pad = true,
		.tail = (enum segue_tail[]){SEGUE_TAIL_SHRINK, SEGUE_TAIL_STOP,
			SEGUE_TAIL_PAD}[sim_below(3)],
		.epoch_end = sim_one_in(2) ? SEGUE_EPOCH_DRAIN : SEGUE_EPOCH_CONTINUE,
		.on_error = SEGUE_ON_ERROR_SKIP,
		.keep_final = true,
		.lanes_by = sim_one_in(3) ? SEGUE_LANES_BY_RECORD : SEGUE_LANES_BY_SEQUENCE,
		.persist = true,
		.depth = 2 + sim_below(3),
	};
	if (world->spec.lanes_by == SEGUE_LANES_BY_RECORD && sim_one_in(2))
		world->spec.initial = SEGUE_INITIAL_KEPT;
	bool policies = sim_one_in(3);
	for (size_t i = 0; i < world->spec.state_count; i++) {
		world->state[i].from_data = sim_one_in(4);
		if (policies && sim_one_in(2))
			world->state[i].policy = (struct segue_state_policy){
				SEGUE_POLICY_ZERO, (1 + sim_below(4)) / 4.0};
	}
}

/*
 * In every other world, and there of every third group its own. With none at the end, a lane would
 * go on for ever.
 */
static void draw_sizes(struct sim_world *world, uint32_t pair)
{
	struct sim_lane_truth *truth = &world->truth[pair];
	uint32_t step = 0;

	if (pair >= SIM_LANES && !sim_one_in(3)) {
		memcpy(truth->wanted, world->truth[sim_lane_of(pair)].wanted,
			sizeof(truth->wanted));
		return;
	}
	memset(truth->wanted, SIM_NO_SIZE, sizeof(truth->wanted));
	if (truth->plan.tail == SEGUE_TAIL_PAD || sim_one_in(2))
		return;
	for (uint32_t left = 1 + sim_below(4); left-- > 0;) {
		step += sim_below(6);
		truth->wanted[step] =
			(uint8_t)(left ? sim_below(SIM_ROWS + 1) : 1 + sim_below(SIM_ROWS));
	}
}

/* In every third world, for all lanes: where a cohort may drain. */
static void draw_classes(struct sim_world *world)
{
	uint32_t window = 1 + sim_below(SIM_WINDOW), longest = 6 * world->spec.num_unroll;

	if (world->spec.tail == SEGUE_TAIL_STOP || !sim_one_in(3))
		return;
	for (uint32_t pair = 0; pair < world->pairs; pair++) {
		world->truth[pair].plan.window = window;
		world->truth[pair].plan.boundaries =
			SEGUE_BOUNDARIES(1 + longest / 3, 1 + longest / 3 * 2);
	}
}

void sim_world_open_source(void)
{
	sim_world.source = (struct segue_source){0};
	segue_source_base_init(&sim_world.source, &source_ops,
		&(struct segue_spec){.on_error = SEGUE_ON_ERROR_SKIP});
}

void sim_world_begin(void)
{
	struct sim_world *world = &sim_world;

	*world = (struct sim_world){0};
	draw_spec(world);
	world->spec.first_epoch = world->spec.epochs == 2 ? world->spec.first_epoch : 0;
	world->ends = SEGUE_ENDS(world->spec.epochs);
	for (uint64_t end = world->spec.epochs + 1; end <= SIM_ENDS; end++)
		if (sim_one_in(2))
			world->ends.epochs[world->ends.count++] = end;
	uint64_t records = 3 + sim_below(SIM_RECORDS - 2);
	for (uint64_t i = 0; i < records; i++)
		if (i == 0 || !sim_one_in(10))
			world->length[i] = 1 + sim_below(6 * world->spec.num_unroll);
	for (unsigned i = 0; i < world->words; i++)
		world->initial.word[i] = sim_random();
	for (uint32_t places = 1; places <= SIM_ROWS; places++)
		if (segue_geometry_init(
			    &world->spec, places, SIM_KEY_MAX, &world->geometry[places]))
			sim_fail("world", "%s", segue_error_detail());
	world->groups = 1 + sim_below(SIM_GROUPS);
	world->pairs = world->groups * SIM_LANES;
	for (uint32_t pair = 0; pair < world->pairs; pair++) {
		world->truth[pair].plan = (struct segue_plan_spec){
			.records = records,
			.ends = world->ends,
			.first_epoch = world->spec.first_epoch,
			.seed = world->spec.seed,
			.lanes = SIM_LANES,
			.lane = sim_lane_of(pair),
			.batch_size = world->spec.batch_size,
			.num_unroll = world->spec.num_unroll,
			.tail = world->spec.tail,
			.epoch_end = world->spec.epoch_end,
			.shuffle = world->spec.shuffle,
			.lanes_by = world->spec.lanes_by,
		};
		draw_sizes(world, pair);
	}
	draw_classes(world);
	for (uint32_t pair = 0; pair < world->pairs; pair++)
		run_lane(&world->truth[pair]);
}

/* ---- Slots and buffers ---------------------------------------------------------------------- */

static bool span_equal(const struct segue_slot_span *a, const struct segue_slot_span *b)
{
	return a->number == b->number && a->epoch == b->epoch && a->first_step == b->first_step &&
	       a->array_steps == b->array_steps && a->total_length == b->total_length &&
	       a->row == b->row && a->length == b->length && a->segment == b->segment &&
	       a->segment_count == b->segment_count && a->previous_row == b->previous_row &&
	       a->flags == b->flags;
}

static bool row_right(const struct segue_geometry *geometry, const uint8_t *slot,
	const struct segue_plan_spec *plan, const struct segue_slot_span *span,
	const struct segue_slot_span *truth)
{
	uint32_t unroll = geometry->num_unroll;
	bool empty = truth->flags & SEGUE_SPAN_EMPTY;
	uint64_t record = empty ? 0 : segue_plan_record(plan, truth->number);
	char key[SIM_KEY_MAX];
	uint32_t key_size = empty ? 0 : sim_world_key(record, key);
	bool right = span_equal(span, truth) && span->key_size == key_size &&
		     span->key_offset + key_size <= geometry->heap_size &&
		     memcmp(slot + geometry->heap_offset + span->key_offset, key, key_size) == 0;

	if (truth->flags & SEGUE_SPAN_PARKED)
		return right;
	const uint64_t *x = (const uint64_t *)(slot + geometry->sequence_offset[0]);
	for (uint32_t i = 0; i < unroll && right; i++) {
		bool padded = empty || truth->first_step + i >= truth->array_steps;
		right = x[truth->row * unroll + i] ==
			(padded ? 0 : value_at(record, truth->first_step + i));
	}
	const uint64_t *c = (const uint64_t *)(slot + geometry->context_offset[0]);
	return right && c[truth->row] == (empty ? 0 : context_of(record));
}

bool sim_world_slot_right(const struct segue_geometry *geometry, const struct segue_slot *slot,
	uint32_t pair, uint64_t step)
{
	const struct sim_lane_truth *truth = &sim_world.truth[pair];
	const uint8_t *base = (const uint8_t *)slot;
	const struct segue_slot_span *spans =
		(const struct segue_slot_span *)(base + geometry->span_offset);
	const uint32_t *previous = (const uint32_t *)(base + geometry->previous_offset);

	if (step >= truth->end || slot->step != step || slot->rows != truth->rows[step] ||
		slot->spans != truth->spans[step])
		return false;
	for (uint32_t row = 0; row < truth->spans[step]; row++) {
		sim_point();
		if (!row_right(
			    geometry, base, &truth->plan, &spans[row], &truth->span[step][row]) ||
			previous[row] != spans[row].previous_row)
			return false;
	}
	return true;
}

void sim_buffer_get(const struct segue_geometry *geometry, const uint8_t *buffer, uint32_t row,
	struct sim_states *states)
{
	memset(states, 0, sizeof(*states));
	segue_states_gather(&sim_world.spec, geometry, buffer, row, (uint8_t *)states);
}

void sim_buffer_put(const struct segue_geometry *geometry, uint8_t *buffer, uint32_t row,
	const struct sim_states *states)
{
	const uint64_t *word = states->word;

	for (size_t i = 0; i < sim_world.spec.state_count; i++) {
		uint64_t size = sim_world.state[i].size;
		sim_copy_slowly(buffer + geometry->state_offset[i] + row * size, word, size);
		word += sim_world.state[i].elements;
	}
}

bool sim_states_equal(const struct sim_states *a, const struct sim_states *b)
{
	return memcmp(a, b, sim_world.words * sizeof(uint64_t)) == 0;
}

uint64_t *sim_state_of(struct sim_states *states, size_t i)
{
	return &states->word[i * sim_world.state[0].elements];
}
