/* What the store holds of lanes: final states, undo entries, checkpoints, against plain arrays. */

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/layout.h"
#include "engine/grant.h"
#include "store/checkpoints.h"
#include "store/finals.h"
#include "store/lanes.h"
#include "store/row.h"
#include "store/token.h"
#include "tmpdir.h"

#define LANES    3
#define KEYS     7
#define ENDINGS  4000 /* final states of a lane, at most */
#define ROW_SIZE 16
#define PUTS     2000 /* versions that are put, at most */

static struct segue_tmpdir tmp;
static char dir[SEGUE_TMPDIR_MAX];
static struct segue_store *store;
static uint64_t seed_state;

static uint32_t below(uint32_t bound)
{
	seed_state = seed_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (uint32_t)(((seed_state >> 33) * bound) >> 31);
}

static void seed_random(const char *test)
{
	const char *text = getenv("SEGUE_TEST_SEED");

	seed_state = text ? strtoull(text, NULL, 10) : (uint64_t)getpid() * 2654435761u;
	fprintf(stderr, "%s: SEGUE_TEST_SEED=%llu\n", test, (unsigned long long)seed_state);
}

static void begin(void)
{
	segue_tmpdir_make(&tmp, "lanes");
	segue_tmpdir_path(&tmp, "store", dir);
	cr_assert_eq(
		segue_store_open(dir, SEGUE_STORE_SERVE, &store), 0, "%s", segue_error_detail());
}

static void end(void)
{
	segue_store_close(store);
	segue_tmpdir_remove(&tmp);
}

TestSuite(lanes, .init = begin, .fini = end);

static struct segue_place place_of(uint32_t lane)
{
	return (struct segue_place){.stream = 1, .group = 0, .lane = lane};
}

/* Writes what was collected in one transaction. */
static void apply(struct segue_ops *ops)
{
	cr_assert_eq(segue_store_apply(store, ops->op, ops->count), 0, "%s", segue_error_detail());
	segue_ops_finish(ops);
}

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, segue_error_detail())

/* ---- A model ------------------------------------------------------------------------------- */

/*
 * A lane ends its sequences in a fixed order: two a step, each of some record. What is saved
 * differs from life to life.
 */
struct lane {
	uint64_t step;
	uint8_t life[ENDINGS]; /* in which each was saved */
	uint64_t next_id;
	uint32_t stored; /* by rising step */
	struct {
		uint64_t id, step;
	} checkpoint[SEGUE_CHECKPOINTS_MAX];
};

static struct lane lanes[LANES];
static uint8_t life;

/* What was put: at a step of a lane, directly below a number. */
static struct put {
	unsigned record;
	uint32_t lane;
	uint64_t number, step;
	uint8_t value; /* of all its bytes; 0: a deletion */
} placed[PUTS];
static size_t put_count;

static uint64_t number_of(uint32_t lane, uint64_t ending)
{
	return lane + LANES * ending;
}

static void key_of(uint64_t number, char key[16])
{
	snprintf(key, 16, "record-%u", (unsigned)(number * 2654435761u >> 7) % KEYS);
}

static void states_of(uint64_t number, uint8_t in_life, uint8_t states[ROW_SIZE])
{
	memset(states, in_life, ROW_SIZE);
	memcpy(states, &number, sizeof(number));
}

static uint64_t floor_of(const struct lane *lane)
{
	return lane->stored ? lane->checkpoint[0].step : SEGUE_NEVER;
}

static void model_drop(struct lane *lane, uint32_t i)
{
	lane->stored--;
	memmove(&lane->checkpoint[i], &lane->checkpoint[i + 1],
		(lane->stored - i) * sizeof(lane->checkpoint[0]));
}

/* The newest version of a key. */
struct newest {
	enum segue_final_kind kind;
	uint32_t lane;
	uint64_t number, step;
	uint8_t states[ROW_SIZE];
};

static struct newest model_final(const char *key)
{
	struct newest newest = {.kind = SEGUE_FINAL_NONE};
	char other[16];

	for (size_t i = 0; i < put_count; i++) {
		const struct put *put = &placed[i];
		snprintf(other, sizeof(other), "record-%u", put->record);
		if (strcmp(key, other) != 0 ||
			(newest.kind &&
				(put->number < newest.number ||
					(put->number == newest.number && put->step < newest.step))))
			continue;
		newest = (struct newest){put->value ? SEGUE_FINAL_PUT : SEGUE_FINAL_DELETED,
			put->lane, put->number, put->step, {0}};
		memset(newest.states, put->value, ROW_SIZE);
	}
	for (uint32_t l = 0; l < LANES; l++) {
		for (uint64_t i = 0; i < 2 * lanes[l].step; i++) {
			uint64_t here = number_of(l, i);
			key_of(here, other);
			if (strcmp(key, other) != 0 || (newest.kind && here < newest.number))
				continue;
			newest.kind = SEGUE_FINAL_ENDED;
			newest.lane = l;
			newest.number = here;
			newest.step = i / 2 + 1;
			states_of(here, lanes[l].life[i], newest.states);
		}
	}
	return newest;
}

/* Those of the lane that came with steps above `step`; of those above 0 alone if not `all`. */
static void model_forget_puts(uint32_t l, uint64_t step, bool all)
{
	size_t left = 0;

	for (size_t i = 0; i < put_count; i++)
		if (placed[i].lane != l || (!all && placed[i].step <= step))
			placed[left++] = placed[i];
	put_count = left;
}

/* ---- What happens, in both ----------------------------------------------------------------- */

static void go_on(uint32_t l)
{
	struct lane *lane = &lanes[l];
	uint64_t from = lane->step, to = from + 1 + below(6);
	struct segue_ops ops = {0};
	struct segue_kept *first = NULL, **tail = &first;

	to = to < ENDINGS / 2 ? to : ENDINGS / 2;
	for (uint64_t i = 2 * from; i < 2 * to; i++) {
		struct segue_kept *kept = calloc(1, sizeof(*kept) + ROW_SIZE + 16);
		kept->step = i / 2;
		kept->number = number_of(l, i);
		kept->states = kept->bytes;
		kept->key = (char *)kept->bytes + ROW_SIZE;
		states_of(kept->number, life, kept->states);
		key_of(kept->number, kept->key);
		kept->key_size = (uint32_t)strlen(kept->key);
		lane->life[i] = life;
		*tail = kept;
		tail = &kept->next;
	}
	OK(segue_finals_put(&ops, place_of(l), ROW_SIZE, first, from, to));
	apply(&ops);
	while (first) {
		struct segue_kept *next = first->next;
		free(first);
		first = next;
	}
	lane->step = to;
}

/* Puts states under some key, or deletes them: at the step of the lane of its newest version. */
static void put(uint32_t l)
{
	struct put new = {.record = below(KEYS), .value = (uint8_t)below(4)};
	uint8_t states[ROW_SIZE];
	struct segue_ops ops = {0};
	char key[16];

	snprintf(key, sizeof(key), "record-%u", new.record);
	const struct newest newest = model_final(key);
	if (put_count == PUTS)
		return;
	new.lane = newest.kind ? newest.lane : l;
	new.step = lanes[new.lane].step;
	new.number = newest.kind ? newest.number + (newest.kind == SEGUE_FINAL_ENDED) : 0;
	memset(states, new.value, sizeof(states));
	const struct segue_row row = {key, (uint32_t)strlen(key), new.value ? states : NULL, 0};
	OK(segue_finals_set(&ops, place_of(new.lane), LANES, ROW_SIZE, &row, new.number, new.step));
	apply(&ops);
	placed[put_count++] = new;
}

static void checkpoint(uint32_t l)
{
	struct lane *lane = &lanes[l];
	uint32_t keep = 1 + below(4);
	struct segue_ops ops = {0};
	char token[32];

	/* Now and then of a step a little back, as another process may ask for. */
	uint64_t step = lane->step - (lane->step > 2 ? below(3) : 0), floor = floor_of(lane);
	if (floor != SEGUE_NEVER && step < floor)
		return;
	int size = snprintf(token, sizeof(token), "%u %llu %u", l, (unsigned long long)step, life);
	uint32_t at = 0;
	while (at < lane->stored && lane->checkpoint[at].step < step)
		at++;
	const struct segue_catalogue_entry entry = {
		.step = step, .size = (uint64_t)size, .created_ms = 1};
	OK(segue_checkpoints_put(&ops, store, place_of(l), &entry, 0, token, keep));
	if (at < lane->stored && lane->checkpoint[at].step == step && ops.count == 0)
		return; /* the same bytes */
	apply(&ops);
	if (at < lane->stored && lane->checkpoint[at].step == step)
		model_drop(lane, at);
	while (lane->stored >= keep) {
		uint32_t oldest = 0;
		for (uint32_t i = 1; i < lane->stored; i++)
			oldest = lane->checkpoint[i].id < lane->checkpoint[oldest].id ? i : oldest;
		at -= oldest < at;
		model_drop(lane, oldest);
	}
	memmove(&lane->checkpoint[at + 1], &lane->checkpoint[at],
		(lane->stored - at) * sizeof(lane->checkpoint[0]));
	lane->checkpoint[at].id = lane->next_id++;
	lane->checkpoint[at].step = step;
	lane->stored++;
}

/* As the committer does: not beyond the oldest checkpoint, nor to where one can still be taken. */
static void settle(uint32_t l)
{
	uint64_t floor = floor_of(&lanes[l]), step = lanes[l].step > 4 ? lanes[l].step - 4 : 0;
	struct segue_ops ops = {0};

	OK(segue_finals_settle(
		&ops, store, place_of(l), LANES, floor < step ? floor : step, below(20)));
	apply(&ops);
}

static void rewind_lane(uint32_t l)
{
	struct lane *lane = &lanes[l];
	uint64_t floor = floor_of(lane);
	struct segue_ops ops = {0};

	if (floor > lane->step)
		return;
	uint64_t step = floor + below((uint32_t)(lane->step - floor) + 1);
	OK(segue_lanes_rewind(&ops, store, place_of(l), step));
	apply(&ops);
	lane->step = step;
	model_forget_puts(l, step, false);
	while (lane->stored && lane->checkpoint[lane->stored - 1].step > step)
		lane->stored--;
	life++;
}

static void remove_checkpoint(uint32_t l)
{
	struct lane *lane = &lanes[l];
	uint32_t i = below(lane->stored + 1);
	struct segue_ops ops = {0};

	int rc = segue_checkpoints_remove(&ops, store, place_of(l),
		i < lane->stored ? lane->checkpoint[i].id : lane->next_id);
	cr_assert_eq(rc, i < lane->stored ? 0 : SEGUE_ENOTFOUND);
	apply(&ops);
	if (i < lane->stored)
		model_drop(lane, i);
}

static void fresh(uint32_t l)
{
	(void)l;
	for (uint32_t i = 0; i < LANES; i++) {
		struct segue_ops ops = {0};
		OK(segue_lanes_fresh(&ops, store, place_of(i)));
		apply(&ops);
		lanes[i].step = lanes[i].stored = 0;
	}
	put_count = 0;
	life++;
}

/* ---- Checks -------------------------------------------------------------------------------- */

static void check_finals(void)
{
	char key[16];

	for (unsigned k = 0; k < KEYS; k++) {
		struct segue_final final;

		snprintf(key, sizeof(key), "record-%u", k);
		const struct newest right = model_final(key);
		int rc = segue_finals_load(
			store, place_of(0), LANES, ROW_SIZE, key, strlen(key), &final);
		if (right.kind == SEGUE_FINAL_NONE || right.kind == SEGUE_FINAL_DELETED) {
			cr_assert_eq(rc, SEGUE_ENOTFOUND, "%s is there", key);
			continue;
		}
		cr_assert_eq(rc, 0, "%s: %s", key, segue_error_detail());
		cr_assert_eq(final.kind, right.kind, "%s", key);
		cr_assert_eq(final.number, right.number, "%s: %llu, not %llu", key,
			(unsigned long long) final.number, (unsigned long long)right.number);
		cr_assert_eq(final.lane, right.lane);
		cr_assert_eq(final.step, right.step);
		cr_assert_eq(memcmp(final.row.states, right.states, ROW_SIZE), 0,
			"%s is of another life", key);
		free(final.value);
	}
}

static void check_checkpoints(void)
{
	struct segue_catalogue catalogue;

	for (uint32_t l = 0; l < LANES; l++) {
		OK(segue_catalogue_load(store, place_of(l), &catalogue));
		cr_assert_eq(catalogue.count, lanes[l].stored);
		cr_assert_eq(catalogue.next_id, lanes[l].next_id);
		cr_assert_eq(segue_catalogue_floor(&catalogue), floor_of(&lanes[l]));
		for (uint32_t i = 0; i < catalogue.count; i++) {
			size_t size;
			void *token;
			cr_assert_eq(catalogue.entry[i].id, lanes[l].checkpoint[i].id);
			cr_assert_eq(catalogue.entry[i].step, lanes[l].checkpoint[i].step);
			OK(segue_checkpoints_load(
				store, place_of(l), catalogue.entry[i].id, &token, &size));
			cr_assert_eq(size, catalogue.entry[i].size);
			cr_assert_eq(strtoul(token, NULL, 10), l);
			free(token);
		}
	}
}

static int count(void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	(void)key, (void)key_size, (void)value, (void)value_size;
	++*(size_t *)arg;
	return 0;
}

static size_t values_of(enum segue_table table)
{
	size_t values = 0;

	OK(segue_store_scan(store, table, NULL, 0, count, NULL, &values));
	return values;
}

/* ---- Tests --------------------------------------------------------------------------------- */

Test(lanes, finals_equal_a_model)
{
	static void (*const acts[])(uint32_t lane) = {go_on, go_on, go_on, go_on, checkpoint,
		checkpoint, settle, settle, settle, rewind_lane, remove_checkpoint, put, put};
	struct segue_store_verified verified;

	seed_random("finals_equal_a_model");
	for (uint32_t l = 0; l < LANES; l++)
		lanes[l].next_id = 1;
	for (int i = 0; i < 600; i++) {
		uint32_t act = below(120);
		if (act == 0)
			fresh(0);
		else
			acts[act % (sizeof(acts) / sizeof(acts[0]))](below(LANES));
		check_finals();
		check_checkpoints();
	}
	segue_store_close(store);
	OK(segue_store_verify(dir, NULL, NULL, &verified));
	OK(segue_store_open(dir, SEGUE_STORE_SERVE, &store));
	check_finals();
}

/* What is left of many epochs is a version a key: and one more a lane that lies behind. */
Test(lanes, versions_that_stay_are_few)
{
	for (uint32_t l = 0; l < LANES; l++)
		lanes[l].next_id = 1;
	for (int i = 0; i < 300; i++) {
		uint32_t l = (uint32_t)i % LANES;
		struct segue_ops ops = {0};
		go_on(l);
		OK(segue_finals_settle(&ops, store, place_of(l), LANES, SEGUE_NEVER, 1000));
		apply(&ops);
	}
	check_finals();
	cr_assert_eq(values_of(SEGUE_TABLE_UNDO), 0u);
	cr_assert_leq(values_of(SEGUE_TABLE_FINALS), (size_t)KEYS * LANES);
	cr_assert_geq(values_of(SEGUE_TABLE_FINALS), (size_t)KEYS);
}

Test(lanes, settling_is_bounded)
{
	struct segue_ops ops = {0};

	for (uint32_t l = 0; l < LANES; l++)
		lanes[l].next_id = 1;
	for (int i = 0; i < 20; i++)
		go_on(0);
	size_t entries = values_of(SEGUE_TABLE_UNDO);
	OK(segue_finals_settle(&ops, store, place_of(0), LANES, SEGUE_NEVER, 5));
	cr_assert_eq(ops.count, 5u * (LANES + 1));
	apply(&ops);
	cr_assert_eq(values_of(SEGUE_TABLE_UNDO), entries - 5);
	OK(segue_finals_settle(&ops, store, place_of(0), LANES, 0, 5));
	cr_assert_eq(ops.count, 0u);
	OK(segue_finals_settle(&ops, store, place_of(0), LANES, SEGUE_NEVER, 0));
	cr_assert_eq(ops.count, 0u);
	check_finals();
}

/* Final states stay as they were at the oldest checkpoint, whether they were settled or not. */
Test(lanes, going_back_behind_the_oldest_checkpoint)
{
	struct segue_ops ops = {0};

	lanes[0].next_id = 1;
	go_on(0);
	go_on(0);
	uint64_t oldest = lanes[0].step;
	const struct segue_catalogue_entry entry = {.step = oldest, .size = 1, .created_ms = 1};
	OK(segue_checkpoints_put(&ops, store, place_of(0), &entry, 0, "t", 3));
	apply(&ops);
	go_on(0);
	go_on(0);
	OK(segue_lanes_rewind(&ops, store, place_of(0), 1));
	apply(&ops);
	lanes[0].step = oldest;
	check_finals();
	cr_assert_eq(values_of(SEGUE_TABLE_UNDO), 0u, "nothing can be undone any more");
	cr_assert_eq(
		values_of(SEGUE_TABLE_CHECKPOINTS), 1u, "the catalogue alone, with its next id");
}

/* The longest name and numbers. */
Test(lanes, the_end_of_a_lane_is_noted)
{
	struct segue_catalogue_entry entry = {.step = 4, .size = 1, .created_ms = 1};
	struct segue_catalogue catalogue;
	struct segue_ops ops = {0};

	for (uint32_t noted = 0; noted < 4; noted++) {
		static const uint32_t ends[] = {0, 1, 1, 2};

		OK(segue_checkpoints_put(&ops, store, place_of(0), &entry, ends[noted], "t", 2));
		cr_assert_eq(ops.count == 0, noted == 2);
		apply(&ops);
		OK(segue_catalogue_load(store, place_of(0), &catalogue));
		cr_assert_eq(catalogue.count, 1);
		cr_assert_eq(catalogue.ended_id, noted > 0 ? 1u : 0u);
		cr_assert_eq(catalogue.ended_at, ends[noted]);
	}
	/* Taken again where more ends are known, by which it has not ended. */
	OK(segue_checkpoints_put(&ops, store, place_of(0), &entry, 0, "t", 2));
	cr_assert_eq(ops.count, 0);
	OK(segue_checkpoints_put(&ops, store, place_of(0), &entry, 3, "u", 2));
	apply(&ops);
	OK(segue_catalogue_load(store, place_of(0), &catalogue));
	cr_assert_eq(catalogue.ended_id, 2);
	cr_assert_eq(catalogue.ended_at, 3);
	/* It has gone on, after all: with batches of fewer rows. */
	struct segue_catalogue_entry later = {.step = 6, .size = 1, .created_ms = 1};
	OK(segue_checkpoints_put(&ops, store, place_of(0), &later, 0, "v", 2));
	apply(&ops);
	OK(segue_catalogue_load(store, place_of(0), &catalogue));
	cr_assert_eq(catalogue.ended_id, 0);
	OK(segue_checkpoints_put(&ops, store, place_of(0), &entry, 3, "u", 2));
	apply(&ops);
	OK(segue_lanes_rewind(&ops, store, place_of(0), 3));
	apply(&ops);
	OK(segue_catalogue_load(store, place_of(0), &catalogue));
	cr_assert_eq(catalogue.ended_id, 0);
	segue_ops_finish(&ops);
}

Test(lanes, no_token_is_larger_than_is_said)
{
	enum { ROWS = 500 };
	const uint64_t n = UINT64_MAX;
	struct segue_field state = {.size = ROW_SIZE};
	const struct segue_spec spec = {.batch_size = ROWS, .states = &state, .state_count = 1};
	struct segue_token_record head = {.lanes = 1u << 16,
		.lane = (1u << 16) - 1,
		.batch_size = ROWS,
		.spec_hash = {n, n},
		.fingerprint = {n, n}};
	const struct segue_plan_spec plan = {.num_unroll = 1};
	struct segue_position *position = calloc(1, segue_position_size(ROWS));
	size_t size;
	void *token;

	memset(head.stream, 'n', SEGUE_NAME_MAX);
	position->step = position->next = position->epoch = n;
	position->epoch_step = position->undelivered = n;
	position->rows = ROWS;
	for (uint32_t row = 0; row < ROWS; row++)
		position->row[row] = (struct segue_plan_row){n, n, n, n};
	struct segue_image *image = segue_image_create(&plan, position, ROW_SIZE);
	free(position);
	OK(segue_token_encode(&head, image, &token, &size));
	cr_assert_leq(size, segue_token_max(&spec, spec.batch_size));
	cr_assert_leq(segue_token_max(&spec, spec.batch_size), size + 4096);
	free(token);
	segue_image_destroy(image);
}

Test(lanes, a_stream_is_found_by_name)
{
	uint32_t id;

	cr_assert_eq(segue_lanes_find_stream(store, "none", &id), SEGUE_ENOTFOUND);
	cr_assert(strstr(segue_error_detail(), "'none'"));
	cr_assert_eq(segue_lanes_find_stream(store, "", &id), SEGUE_ENOTFOUND);
}

Test(lanes, damaged_entries_are_told)
{
	static const uint8_t key[28] = {0, 0, 0, 1};
	struct segue_store_op op = {.table = SEGUE_TABLE_UNDO,
		.key = key,
		.key_size = sizeof(key),
		.value = "short",
		.value_size = 5};
	struct segue_catalogue catalogue;
	struct segue_ops ops = {0};

	OK(segue_store_apply(store, &op, 1));
	cr_assert_eq(segue_finals_settle(&ops, store, place_of(0), LANES, 9, 9), SEGUE_ESTORE);
	cr_assert_eq(segue_lanes_rewind(&ops, store, place_of(0), 0), SEGUE_ESTORE);
	cr_assert_eq(ops.count, 0u);
	op.table = SEGUE_TABLE_CHECKPOINTS;
	op.key_size = 12;
	op.value = "\xff";
	op.value_size = 1;
	OK(segue_store_apply(store, &op, 1));
	cr_assert_eq(segue_catalogue_load(store, place_of(0), &catalogue), SEGUE_ESTORE);
	segue_ops_finish(&ops);
}

/* Rows that begin with what their lane has kept: other lanes are not looked at, nor settle it. */
Test(lanes, final_states_of_a_lane_alone)
{
	uint8_t bytes[ROW_SIZE] = {0};
	struct segue_kept kept = {.key = "k", .key_size = 1, .states = bytes};
	struct segue_ops ops = {0};
	struct segue_final final;

	for (uint64_t i = 0; i < 4; i++) { /* lane 0 has 0 and 2, lane 1 has 1 and 3 */
		kept.step = kept.number = i;
		OK(segue_finals_put(&ops, place_of((uint32_t)i % 2), ROW_SIZE, &kept, 0, 9));
	}
	apply(&ops);
	OK(segue_finals_settle(&ops, store, place_of(1), 0, 9, 100));
	apply(&ops);
	for (uint32_t lane = 0; lane < 2; lane++) {
		OK(segue_finals_load(store, place_of(lane), lane + 1, ROW_SIZE, "k", 1, &final));
		cr_expect_eq(final.number, 2 + lane);
		free(final.value);
	}
	OK(segue_finals_undo(&ops, store, place_of(0), 1, 0));
	apply(&ops);
	OK(segue_finals_load(store, place_of(0), 1, ROW_SIZE, "k", 1, &final));
	cr_expect_eq(final.number, 0, "lane 1 has settled that of lane 0");
	free(final.value);
	OK(segue_finals_settle(
		&ops, store, place_of(1), LANES, 9, 100)); /* nothing is left to do */
	apply(&ops);
	cr_expect_eq(segue_finals_load(store, place_of(2), 3, ROW_SIZE, "k", 1, &final),
		SEGUE_ENOTFOUND);
}

/* As a crafted or a foreign backup may have it. */
Test(lanes, more_rows_than_a_batch_are_damage)
{
	enum { ROWS = 1000 };
	const struct segue_plan_spec plan = {
		.records = 8, .ends = {1, {1}}, .lanes = 1, .batch_size = 1};
	const struct segue_spec spec = {.name = "s", .persist = true};
	struct segue_lane_record record = {.position = calloc(1, segue_position_size(ROWS))};
	struct segue_ops ops = {0};
	struct segue_image *image;
	struct segue_grant *grant;

	record.position->step = 1;
	record.position->rows = ROWS;
	OK(segue_lanes_put(&ops, place_of(0), &record));
	apply(&ops);
	free(record.position);
	OK(segue_lanes_load(store, place_of(0), &record));
	cr_assert_eq(record.position->rows, ROWS);
	cr_assert_eq(segue_lanes_load_image(
			     store, place_of(0), &plan, record.position, ROW_SIZE, &image),
		SEGUE_ESTORE);
	cr_assert_not_null(strstr(segue_error_detail(), "1000 rows"), "%s", segue_error_detail());
	free(record.position);
	static const enum segue_attach_mode modes[] = {SEGUE_ATTACH_CONTINUE, SEGUE_ATTACH_FRESH};
	for (size_t i = 0; i < 2; i++) {
		const struct segue_grant_order order = {.spec = &spec,
			.plan = plan,
			.store = store,
			.place = place_of(0),
			.mode = modes[i]};
		cr_assert_eq(segue_grant_make(&order, &grant), SEGUE_ESTORE);
		cr_assert_not_null(strstr(segue_error_detail(), "1000 rows"));
	}
}
