/* What may be put under a record key, by whom, and above what it stands. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/layout.h"
#include "core/position.h"
#include "os/process.h"
#include "sample_spec.h"
#include "store/by_key_list.h"
#include "tmpdir.h"

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, segue_error_detail())

enum { LANES = 3, ROW_SIZE = 28, ID = 1 };

static struct segue_tmpdir tmp;
static char dir[SEGUE_TMPDIR_MAX];
static struct segue_store *store;
static struct segue_holder me; /* a process that lives */
static const struct segue_holder gone = {.pid = 1, .start_time = 1, .boot_id = {1}};

static void apply(struct segue_ops *ops)
{
	OK(segue_store_apply(store, ops->op, ops->count));
	segue_ops_finish(ops);
}

static void put_stream_of(bool keep_final, enum segue_lanes_by by, enum segue_initial initial)
{
	struct segue_ops ops = {0};
	struct segue_spec *spec;
	struct sample sample;

	sample_init(&sample);
	sample.spec.keep_final = keep_final;
	sample.spec.lanes = LANES;
	OK(segue_draft_make(&sample.spec, &spec));
	spec->lanes_by = by;
	spec->initial = initial;
	cr_assert_eq(segue_row_size(spec), (uint64_t)ROW_SIZE);
	const struct segue_stream_record record = {
		.id = ID, .spec = spec, .ends = {.count = 1, .epochs = {3}}, .created_ms = 1};
	OK(segue_lanes_put_stream(&ops, &record));
	segue_spec_destroy(spec);
	apply(&ops);
}

static void put_stream(bool keep_final, enum segue_lanes_by by)
{
	put_stream_of(keep_final, by, SEGUE_INITIAL_VALUE);
}

static void put_lane(uint32_t lane, uint64_t step, bool held, struct segue_holder holder)
{
	struct segue_position position = {.step = step};
	const struct segue_lane_record record = {.generation = 4,
		.held = held,
		.holder = holder,
		.committed_ms = segue_unix_ms() - 60000,
		.position = &position};
	struct segue_ops ops = {0};

	OK(segue_lanes_put(&ops, (struct segue_place){ID, 0, lane}, &record));
	apply(&ops);
}

static void put_live(uint32_t lane, uint64_t number, const char *key)
{
	uint8_t at[SEGUE_KEY_LANE + 8], states[ROW_SIZE] = {1};
	const struct segue_row row = {key, (uint32_t)strlen(key), states, 0};
	struct segue_ops ops = {0};

	segue_key_put64(segue_key_put_lane(at, (struct segue_place){ID, 0, lane}), number);
	OK(segue_row_put(&ops, SEGUE_TABLE_STATES, at, sizeof(at), &row, ROW_SIZE));
	apply(&ops);
}

static void begin(void)
{
	segue_tmpdir_make(&tmp, "by-key");
	segue_tmpdir_path(&tmp, "store", dir);
	OK(segue_store_open(dir, SEGUE_STORE_SERVE, &store));
	segue_process_identify(getppid(), &me);
}

static void end(void)
{
	segue_store_close(store);
	segue_tmpdir_remove(&tmp);
}

TestSuite(by_key, .init = begin, .fini = end, .timeout = 120);

static struct segue_by_key_put request(const char *key, const uint8_t *states)
{
	return (struct segue_by_key_put){.stream = "train",
		.key = key,
		.key_size = strlen(key),
		.states = states,
		.row_size = ROW_SIZE,
		.asking = &gone};
}

static int put(const struct segue_by_key_put *put)
{
	struct segue_ops ops = {0};
	int rc = segue_by_key_put(&ops, store, put);

	if (!rc)
		apply(&ops);
	cr_assert(rc == 0 || ops.count == 0);
	segue_ops_finish(&ops);
	return rc;
}

/* In the lanes from `from` on, below `end`. */
static struct segue_final newest(const char *key, uint32_t from, uint32_t end)
{
	struct segue_final final;

	OK(segue_finals_newest(store, (struct segue_place){ID, 0, from}, end, ROW_SIZE, key,
		strlen(key), NULL, &final));
	free(final.value);
	return final;
}

static void expect(
	const char *key, enum segue_final_kind kind, uint32_t lane, uint64_t number, uint64_t step)
{
	const struct segue_final final = newest(key, 0, LANES);

	cr_assert_eq(final.kind, kind, "%s: %d", key, (int) final.kind);
	cr_assert_eq(final.lane, lane, "%s: lane %u", key, final.lane);
	cr_assert_eq(
		final.number, number, "%s: below %llu", key, (unsigned long long) final.number);
	cr_assert_eq(final.step, step, "%s: step %llu", key, (unsigned long long) final.step);
}

Test(by_key, above_all_that_has_begun)
{
	uint8_t states[ROW_SIZE] = {7};
	struct segue_by_key_put a = request("a", states), b = request("b", NULL);

	put_stream(true, SEGUE_LANES_BY_SEQUENCE);
	for (uint32_t lane = 0; lane < LANES; lane++)
		put_lane(lane, 10 + lane, true, gone);
	put_live(2, 41, "a");
	put_live(1, 40, "a");
	put_live(1, 55, "other");
	OK(put(&a));
	expect("a", SEGUE_FINAL_PUT, 0, 42, 10);
	OK(put(&b)); /* nothing is known of it: nothing is done */
	expect("b", SEGUE_FINAL_NONE, 0, 0, 0);
	put_live(0, 60, "b");
	OK(put(&b));
	expect("b", SEGUE_FINAL_DELETED, 0, 61, 10);
}

Test(by_key, the_lane_that_has_it_where_records_keep_theirs)
{
	uint8_t states[ROW_SIZE] = {7};
	struct segue_by_key_put a = request("a", states), new = request("new", states);

	put_stream(true, SEGUE_LANES_BY_RECORD);
	put_lane(0, 10, true, me);
	put_lane(2, 12, false, gone);
	put_live(2, 41, "a");
	OK(put(&a));
	expect("a", SEGUE_FINAL_PUT, 2, 42, 12);
	cr_assert_eq(put(&new), SEGUE_EBUSY, "it may come in lane 0");
	put_lane(0, 10, true, gone);
	OK(put(&new));
	expect("new", SEGUE_FINAL_PUT, 0, 0, 10);
	/* That it was put in lane 0 does not say that its record is there. */
	put_lane(1, 11, true, me);
	cr_assert_eq(put(&new), SEGUE_EBUSY);
	put_lane(1, 11, false, gone);
	put_live(1, 0, "new");
	put_lane(0, 10, true, me);
	OK(put(&new));
	expect("new", SEGUE_FINAL_PUT, 1, 1, 11);
}

Test(by_key, refused_while_a_lane_is_held)
{
	uint8_t states[ROW_SIZE] = {7};
	struct segue_by_key_put a = request("a", states);
	struct segue_lane_known known[LANES] = {{.generation = 4}, {.generation = 4}, {0}};

	put_stream(true, SEGUE_LANES_BY_SEQUENCE);
	put_lane(1, 3, true, me);
	cr_assert_eq(put(&a), SEGUE_EBUSY);
	cr_assert(strstr(segue_error_detail(), "lane 1"), "%s", segue_error_detail());
	/* Reserved for who asks: it knows that it comes back to nothing. */
	a.asking = &me;
	OK(put(&a));
	/* The server knows of that grant, and that nobody has the lane. */
	a.asking = &gone;
	a.known = known;
	OK(put(&a));
	/* It has been granted since; also to who asks. */
	known[1].generation = 3;
	cr_assert_eq(put(&a), SEGUE_EBUSY);
	a.asking = &me;
	cr_assert_eq(put(&a), SEGUE_EBUSY);
	known[1] = (struct segue_lane_known){.generation = 4, .held = true, .pid = 77};
	cr_assert_eq(put(&a), SEGUE_EBUSY);
	cr_assert(strstr(segue_error_detail(), "process 77"), "%s", segue_error_detail());
}

/* Whether it was done before shows, whoever has the lane by now. */
Test(by_key, asked_again)
{
	uint8_t states[ROW_SIZE] = {7}, other[ROW_SIZE] = {8};
	struct segue_by_key_put a = request("a", states), b = request("a", other),
				none = request("a", NULL);

	put_stream(true, SEGUE_LANES_BY_SEQUENCE);
	OK(put(&a));
	put_lane(1, 3, true, me);
	cr_assert_eq(put(&a), SEGUE_EBUSY);
	a.again = b.again = none.again = true;
	OK(put(&a));
	cr_assert_eq(put(&b), SEGUE_EBUSY);
	cr_assert_eq(put(&none), SEGUE_EBUSY);
	put_lane(1, 3, true, gone);
	OK(put(&none));
	put_lane(1, 3, true, me);
	OK(put(&none));
	expect("a", SEGUE_FINAL_DELETED, 0, 0, 0);
}

/* What was there before it was asked for at all stands below what has begun since. */
Test(by_key, asked_again_of_what_was_put_before)
{
	uint8_t states[ROW_SIZE] = {7};
	struct segue_by_key_put a = request("a", states), none = request("b", NULL);

	put_stream(true, SEGUE_LANES_BY_SEQUENCE);
	put_live(0, 1, "b");
	OK(put(&a));
	OK(put(&none));
	put_live(0, 5, "a");
	put_live(0, 6, "b");
	a.again = none.again = true;
	OK(put(&a));
	OK(put(&none));
	expect("a", SEGUE_FINAL_PUT, 0, 6, 0);
	expect("b", SEGUE_FINAL_DELETED, 0, 7, 0);
}

/* Each lane has its own: that one of them has it says nothing of the others. */
Test(by_key, asked_again_where_rows_begin_with_what_was_kept)
{
	uint8_t states[ROW_SIZE] = {7};
	struct segue_by_key_put a = request("a", states);

	put_stream_of(true, SEGUE_LANES_BY_RECORD, SEGUE_INITIAL_KEPT);
	put_live(0, 8, "a");
	put_live(1, 3, "a");
	OK(put(&a));
	put_live(1, 6, "a");
	a.again = true;
	OK(put(&a));
	cr_assert_eq(newest("a", 0, 1).number, 9);
	cr_assert_eq(newest("a", 1, 2).number, 7);
}

Test(by_key, a_row_of_a_lane_that_the_stream_has_not)
{
	uint8_t states[ROW_SIZE] = {7};
	struct segue_by_key_put a = request("a", states);
	struct segue_live_row row;

	put_stream(true, SEGUE_LANES_BY_RECORD);
	put_live(LANES, 41, "a");
	cr_assert_eq(put(&a), SEGUE_ESTORE);
	cr_assert(strstr(segue_error_detail(), "lane 3"), "%s", segue_error_detail());
	struct segue_stream_record stream;
	OK(segue_lanes_load_stream(store, "train", &stream));
	cr_assert_eq(segue_by_key_live(store, &stream, 0, "a", 1, &row), SEGUE_ESTORE);
	segue_spec_destroy(stream.spec);
}

Test(by_key, what_is_refused)
{
	uint8_t states[ROW_SIZE] = {7};
	struct segue_by_key_put a = request("a", states);

	cr_assert_eq(put(&a), SEGUE_ENOTFOUND);
	put_stream(false, SEGUE_LANES_BY_SEQUENCE);
	cr_assert_eq(put(&a), SEGUE_ESPEC);
	put_stream(true, SEGUE_LANES_BY_SEQUENCE);
	a.row_size--;
	cr_assert_eq(put(&a), SEGUE_ESTATE);
}

/* Reads the entry at the end of memory of its own, so that a byte too many is seen. */
static void unpack_at_the_end(const uint8_t *bytes, size_t size)
{
	uint8_t *copy = malloc(size + 1);
	struct segue_states states;

	cr_assert(copy);
	memcpy(copy + 1, bytes, size);
	uint64_t taken = segue_keyed_unpack(copy + 1, size, &states);
	cr_assert_leq(taken, size);
	if (taken) {
		const uint8_t *key = (const uint8_t *)states.key, *row = states.bytes;
		cr_assert(key >= copy + 1 && states.key_size <= (size_t)(row - key));
		cr_assert_leq(states.bytes_size, (size_t)(copy + 1 + taken - row));
		cr_assert_leq(states.key_size, (size_t)SEGUE_KEY_MAX);
	}
	free(copy);
}

/* What an answer says of its sizes is not trusted. */
Test(by_key, answers_that_lie)
{
	static const uint64_t sizes[] = {0, 1, 7, 8, 24, 25, 1u << 31, UINT32_MAX, UINT64_MAX / 2,
		UINT64_MAX - 48, UINT64_MAX - 7, UINT64_MAX - 6, UINT64_MAX};
	static const uint32_t key_sizes[] = {
		0, 1, 3, 8, 9, SEGUE_KEY_MAX, SEGUE_KEY_MAX + 1, UINT32_MAX - 7, UINT32_MAX};
	const uint8_t row[ROW_SIZE] = {7};
	const struct segue_states states = {.kind = SEGUE_STATES_PUT,
		.key = "abc",
		.key_size = 3,
		.bytes = row,
		.bytes_size = ROW_SIZE};
	uint8_t bytes[SEGUE_KEYED_ENTRY + 8 + 32];
	struct segue_states got;

	cr_assert_eq(segue_keyed_size(&states), sizeof(bytes));
	segue_keyed_pack(&states, bytes);
	cr_assert_eq(segue_keyed_unpack(bytes, sizeof(bytes), &got), sizeof(bytes));
	cr_assert(got.key_size == 3 && memcmp(got.key, "abc", 3) == 0);
	cr_assert(got.bytes_size == ROW_SIZE && memcmp(got.bytes, row, ROW_SIZE) == 0);
	for (size_t size = 0; size < sizeof(bytes); size++) {
		cr_assert_eq(segue_keyed_unpack(bytes, size, &got), 0, "of %zu bytes", size);
		unpack_at_the_end(bytes, size);
	}
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		memcpy(bytes + 16, &sizes[i], 8);
		for (size_t k = 0; k < sizeof(key_sizes) / sizeof(*key_sizes); k++) {
			memcpy(bytes + 32, &key_sizes[k], 4);
			unpack_at_the_end(bytes, sizeof(bytes));
		}
	}
}
