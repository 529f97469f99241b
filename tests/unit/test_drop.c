/* Dropping streams in the store: stopped after each transaction. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "lane/plan.h"
#include "os/process.h"
#include "sample_spec.h"
#include "store/drop.h"
#include "store/groups.h"
#include "store/index.h"
#include "store/lanes.h"
#include "tmpdir.h"

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, segue_error_detail())

static const struct segue_holder nobody = {.pid = 1};

enum { STREAMS = 3, LANES = 2, MANY = 2500 }; /* MANY: more than two transactions of states */

static struct segue_tmpdir tmp;
static char dir[SEGUE_TMPDIR_MAX];
static struct segue_store *store;

static const enum segue_table tables[] = {SEGUE_TABLE_STATES, SEGUE_TABLE_FINALS, SEGUE_TABLE_UNDO,
	SEGUE_TABLE_CHECKPOINTS, SEGUE_TABLE_LANES};
static const size_t many[] = {MANY, 30, 30, 5, 0};

static void apply(struct segue_ops *ops)
{
	OK(segue_store_apply(store, ops->op, ops->count));
	segue_ops_finish(ops);
}

static void put_record(struct segue_ops *ops, const struct segue_draft *asked, uint32_t id)
{
	struct segue_spec *spec;
	void *value;
	size_t size;

	OK(segue_draft_make(asked, &spec));
	const struct segue_stream_record record = {
		.id = id, .spec = spec, .fingerprint = {7, 8}, .created_ms = 1};
	OK(segue_stream_record_pack(&record, &value, &size));
	OK(segue_ops_put(ops, SEGUE_TABLE_STREAMS, asked->name, strlen(asked->name), value, size));
	segue_spec_destroy(spec);
}

static void put_lane_of(
	struct segue_ops *ops, struct segue_place place, bool held, struct segue_holder holder)
{
	struct segue_position position = {.step = 9};
	const struct segue_lane_record record = {.generation = 1,
		.held = held,
		.holder = holder,
		.committed_ms = segue_unix_ms(),
		.position = &position};

	OK(segue_lanes_put(ops, place, &record));
}

static void put_lane(
	struct segue_ops *ops, uint32_t id, uint32_t lane, bool held, struct segue_holder holder)
{
	put_lane_of(ops, (struct segue_place){id, 0, lane}, held, holder);
}

/* Streams "a", "b", "c" of ids 1, 2, 3; the index is of "a" and "c". */
static void fill(void)
{
	static const char *const names[] = {"a", "b", "c"};
	struct segue_ops ops = {0};
	struct sample sample;

	sample_init(&sample);
	for (uint32_t id = 1; id <= STREAMS; id++) {
		sample.spec.name = names[id - 1];
		sample.paths[0] = id == 2 ? "/data/other" : "/data/a.tfrecord";
		put_record(&ops, &sample.spec, id);
		for (uint32_t lane = 0; lane < LANES; lane++) {
			put_lane(&ops, id, lane, false, nobody);
			for (size_t t = 0; t < 5; t++) {
				for (uint64_t i = 0; i < many[t] / LANES; i++) {
					uint8_t key[SEGUE_KEY_LANE + 8];
					segue_key_put64(segue_key_put_lane(key,
								(struct segue_place){id, 0, lane}),
						i);
					OK(segue_ops_put_copy(
						&ops, tables[t], key, sizeof(key), &i, 8));
				}
			}
		}
	}
	apply(&ops);
}

static void begin_store(void)
{
	segue_tmpdir_make(&tmp, "drop");
	segue_tmpdir_path(&tmp, "store", dir);
	OK(segue_store_open(dir, SEGUE_STORE_SERVE, &store));
	fill();
}

static void end_store(void)
{
	segue_store_close(store);
	segue_tmpdir_remove(&tmp);
}

TestSuite(drop, .init = begin_store, .fini = end_store, .timeout = 120);

static int count_one(void *arg, const void *key, size_t key_size, const void *value, size_t size)
{
	(void)key, (void)key_size, (void)value, (void)size;
	++*(size_t *)arg;
	return 0;
}

static size_t count(enum segue_table table, const void *prefix, size_t size)
{
	size_t found = 0;

	OK(segue_store_scan(store, table, prefix, size, count_one, NULL, &found));
	return found;
}

/* What lies under an id. */
static size_t count_under(uint32_t id)
{
	uint8_t prefix[4];
	size_t found = 0;

	segue_key_put32(prefix, id);
	for (size_t t = 0; t < 5; t++)
		found += count(tables[t], prefix, sizeof(prefix));
	return found;
}

static const size_t whole = MANY + 30 + 30 + 5 / LANES * LANES + LANES;

static void expect_whole(uint32_t id, const char *name)
{
	uint32_t stored;

	cr_assert_eq(count_under(id), whole, "stream %u has %zu", id, count_under(id));
	OK(segue_lanes_find_stream(store, name, &stored));
	cr_assert_eq(stored, id);
}

static size_t notes(void)
{
	return count(SEGUE_TABLE_META, "streams.drop.", 13);
}

static int begin(const char *name, struct segue_drop *drop)
{
	struct segue_ops ops = {0};

	int rc = segue_drop_begin(&ops, store, name, &nobody, drop);
	if (!rc)
		apply(&ops);
	cr_assert_eq(ops.count, 0);
	return rc;
}

/* Transactions up to `left`, then none any more. */
struct some {
	size_t left, applied, told;
};

static int apply_some(void *arg, const struct segue_ops *ops)
{
	struct some *some = arg;

	if (some->applied == some->left)
		return segue_fail(SEGUE_EGONE, "killed");
	some->applied++;
	return segue_store_apply(store, ops->op, ops->count);
}

static void count_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	cr_assert_str_eq(what, "drop");
	cr_assert_leq(done, total);
	cr_assert_eq(total, LANES);
	((struct some *)arg)->told++;
}

static int rest(size_t transactions, size_t *applied)
{
	struct some some = {.left = transactions};
	const struct segue_dropping how = {
		.apply = apply_some, .progress = count_progress, .arg = &some};

	int rc = segue_drop_resume(store, &how);
	cr_assert_geq(some.told, some.applied);
	*applied = some.applied;
	return rc;
}

/* Not at once: the transactions are of bounded size. */
Test(drop, stopped_after_each_transaction_it_goes_on)
{
	struct segue_drop drop;
	size_t applied = 0, total, before = whole;

	OK(begin("b", &drop));
	cr_assert_eq(drop.id, 2);
	cr_assert_eq(drop.lanes, LANES);
	for (total = 0;; total += applied) {
		uint32_t id;
		cr_assert_eq(segue_lanes_find_stream(store, "b", &id), SEGUE_ENOTFOUND);
		cr_assert_eq(notes(), 1);
		expect_whole(1, "a");
		expect_whole(3, "c");
		segue_store_close(store); /* as after a kill: what was applied is there */
		OK(segue_store_open(dir, SEGUE_STORE_SERVE, &store));
		int rc = rest(1, &applied);
		cr_assert_leq(before - count_under(2), 5 * 1024);
		before = count_under(2);
		if (!rc)
			break;
		cr_assert_eq(rc, SEGUE_EGONE);
	}
	cr_assert_eq(count_under(2), 0);
	cr_assert_eq(notes(), 0);
	cr_assert_geq(total + applied, 4, "three of states, and the note: %zu", total + applied);
	expect_whole(1, "a");
	expect_whole(3, "c");
	OK(rest(1, &applied));
	cr_assert_eq(applied, 0, "there is no more to do");
}

Test(drop, several_that_were_begun)
{
	struct segue_drop drop;
	size_t applied;

	OK(begin("c", &drop));
	OK(begin("a", &drop));
	cr_assert_eq(notes(), 2);
	OK(rest(SIZE_MAX, &applied));
	cr_assert_eq(notes() + count_under(1) + count_under(3), 0);
	expect_whole(2, "b");
}

Test(drop, ids_are_not_used_again)
{
	struct segue_drop drop;
	uint32_t floor;

	OK(segue_drop_load_floor(store, &floor));
	cr_assert_eq(floor, 0);
	OK(begin("c", &drop));
	OK(segue_drop_load_floor(store, &floor));
	cr_assert_eq(floor, 4);
	OK(begin("b", &drop)); /* a lower one does not lower it */
	OK(segue_drop_load_floor(store, &floor));
	cr_assert_eq(floor, 4);
}

static void keep_index(const char *name)
{
	struct segue_ops ops = {0};

	OK(segue_store_index_save(&ops, name, "index", 5));
	apply(&ops);
}

/* The names are the source's affair; that of the manifest is made of the fingerprint alone. */
Test(drop, the_index_goes_with_the_last_stream_that_has_it)
{
	static const char files[] = "files-00000000000000080000000000000007";
	struct segue_drop drop;

	keep_index(files);
	keep_index("of-nobody-known");
	OK(begin("a", &drop));
	OK(begin("b", &drop));
	cr_assert_eq(count(SEGUE_TABLE_INDEX, files, sizeof(files)), 1, "\"c\" has it, too");
	OK(begin("c", &drop));
	cr_assert_eq(count(SEGUE_TABLE_INDEX, files, sizeof(files)), 0);
	cr_assert_eq(count(SEGUE_TABLE_INDEX, "", 0), 1);
}

Test(drop, not_while_a_process_may_come_back_to_it)
{
	struct segue_ops ops = {0};
	struct segue_holder self, dead, far;
	struct segue_drop drop;

	segue_process_identify(getpid(), &self);
	dead = far = self;
	dead.start_time++; /* another process had the number */
	far.pid_namespace++;
	put_lane(&ops, 1, 1, true, self);
	put_lane(&ops, 2, 1, true, far);
	put_lane(&ops, 3, 1, true, dead);
	apply(&ops);
	cr_assert_eq(begin("a", &drop), SEGUE_EBUSY);
	cr_assert(strstr(segue_error_detail(), "lane 1 of it is reserved"), "%s",
		segue_error_detail());
	cr_assert_eq(begin("b", &drop), SEGUE_EBUSY, "it has committed just now");
	expect_whole(1, "a");
	expect_whole(2, "b");
	cr_assert_eq(notes(), 0);
	OK(begin("c", &drop));
	OK(segue_drop_begin(&ops, store, "a", &self, &drop)); /* its own */
	segue_ops_finish(&ops);
	OK(segue_drop_begin(&ops, store, "b", NULL, &drop)); /* the caller knows better */
	segue_ops_finish(&ops);
}

Test(drop, what_is_not_there)
{
	struct segue_drop drop;

	cr_assert_eq(begin("none", &drop), SEGUE_ENOTFOUND);
	cr_assert(strstr(segue_error_detail(), "'none'"));
	cr_assert_eq(begin("", &drop), SEGUE_EINVAL);
}

/* ---- Groups ---- */

static void make_group(uint32_t id, const char *name)
{
	struct segue_group group = {.number = 0};
	struct segue_groups groups;
	struct segue_ops ops = {0};

	OK(segue_groups_load(store, id, &groups));
	strcpy(group.name, name);
	OK(segue_groups_put(&ops, id, &groups, &group));
	for (uint32_t lane = 0; lane < LANES; lane++) {
		const struct segue_place place = {id, group.number, lane};
		put_lane_of(&ops, place, false, nobody);
		for (size_t t = 0; t < 5; t++) {
			for (uint64_t i = 0; i < many[t] / LANES; i++) {
				uint8_t key[SEGUE_KEY_LANE + 8];
				segue_key_put64(segue_key_put_lane(key, place), i);
				OK(segue_ops_put_copy(&ops, tables[t], key, sizeof(key), &i, 8));
			}
		}
	}
	apply(&ops);
	segue_groups_finish(&groups);
}

static int begin_group(const char *name, const char *group, struct segue_drop *drop)
{
	struct segue_ops ops = {0};

	int rc = segue_drop_begin_group(&ops, store, name, group, &nobody, drop);
	if (!rc)
		apply(&ops);
	cr_assert_eq(ops.count, 0);
	return rc;
}

/* The rest of the stream, and streams and groups whose numbers are near, stay whole. */
Test(drop, of_a_group_stopped_after_each_transaction_it_goes_on)
{
	struct segue_drop drop;
	size_t applied = 0, total;
	uint32_t number;

	make_group(2, "x");
	make_group(2, "y");
	make_group(3, "x");
	OK(begin_group("b", "x", &drop));
	cr_assert_eq(drop.id, 2);
	cr_assert_eq(drop.group, 1);
	cr_assert_eq(drop.lanes, LANES);
	for (total = 0;; total += applied) {
		cr_assert_eq(segue_groups_number(store, 2, "b", "x", &number), SEGUE_ENOTFOUND);
		cr_assert_eq(begin_group("b", "x", &drop), SEGUE_ENOTFOUND);
		cr_assert_eq(notes(), 1);
		cr_assert_geq(count_under(2), 2 * whole);
		segue_store_close(store); /* as after a kill: what was applied is there */
		OK(segue_store_open(dir, SEGUE_STORE_SERVE, &store));
		int rc = rest(1, &applied);
		if (!rc)
			break;
		cr_assert_eq(rc, SEGUE_EGONE);
	}
	cr_assert_eq(notes(), 0);
	cr_assert_geq(total + applied, 4, "three of states, and the note: %zu", total + applied);
	expect_whole(1, "a");
	cr_assert_eq(count_under(2), 2 * whole);
	cr_assert_eq(count_under(3), 2 * whole);
	OK(segue_groups_number(store, 2, "b", "y", &number));
	make_group(2, "x");
	OK(segue_groups_number(store, 2, "b", "x", &number));
	cr_assert_eq(number, 3, "a number is not used again: %u", number);
}

Test(drop, of_a_group_and_of_its_stream)
{
	struct segue_drop drop;
	size_t applied;

	make_group(2, "x");
	make_group(2, "y");
	OK(begin_group("b", "y", &drop));
	OK(begin_group("b", "x", &drop));
	OK(begin("b", &drop));
	cr_assert_eq(notes(), 3);
	OK(rest(SIZE_MAX, &applied));
	cr_assert_eq(notes() + count_under(2), 0);
	cr_assert_eq(count(SEGUE_TABLE_META, "group.", 6), 0);
	expect_whole(3, "c");
}

Test(drop, of_a_group_not_while_a_process_may_come_back_to_it)
{
	struct segue_ops ops = {0};
	struct segue_holder self;
	struct segue_drop drop;

	make_group(2, "x");
	make_group(2, "y");
	segue_process_identify(getpid(), &self);
	put_lane_of(&ops, (struct segue_place){2, 1, 1}, true, self);
	apply(&ops);
	cr_assert_eq(begin_group("b", "x", &drop), SEGUE_EBUSY);
	cr_assert(strstr(segue_error_detail(),
			  "group 'x' of stream 'b' cannot be dropped: lane 1 of it is reserved"),
		"%s", segue_error_detail());
	cr_assert_eq(notes(), 0);
	OK(begin_group("b", "y", &drop));
	cr_assert_eq(begin("b", &drop), SEGUE_EBUSY, "that of \"x\" is one of the stream's");
}

Test(drop, of_a_group_that_is_not_there)
{
	struct segue_drop drop;

	make_group(1, "x");
	cr_assert_eq(begin_group("a", "", &drop), SEGUE_EINVAL);
	cr_assert(strstr(segue_error_detail(), "drop the stream"));
	cr_assert_eq(begin_group("a", "y", &drop), SEGUE_ENOTFOUND);
	cr_assert(strstr(segue_error_detail(), "stream 'a' has no group 'y'"));
	cr_assert_eq(begin_group("none", "x", &drop), SEGUE_ENOTFOUND);
	cr_assert(strstr(segue_error_detail(), "'none'"));
	cr_assert_eq(notes(), 0);
}

static int stop_it(void *arg)
{
	return --*(int *)arg < 0;
}

static int apply_always(void *arg, const struct segue_ops *ops)
{
	(void)arg;
	return segue_store_apply(store, ops->op, ops->count);
}

Test(drop, it_can_be_interrupted)
{
	int times = 1;
	const struct segue_dropping how = {
		.apply = apply_always, .interrupt = stop_it, .arg = &times};
	struct segue_drop drop;

	OK(begin("b", &drop));
	cr_assert_eq(segue_drop_rest(store, &drop, &how), SEGUE_EGONE);
	cr_assert_eq(notes(), 1);
	cr_assert_lt(count_under(2), whole);
	cr_assert_gt(count_under(2), 0);
}

/* As a backup may hold that somebody made: the start of a server ends. */
Test(drop, a_note_that_is_wrong)
{
	static const char *const keys[] = {"streams.drop.0000001A", "streams.drop. 0000002",
		"streams.drop.zzzzzzzz", "streams.drop.1", "streams.drop.000000010",
		"streams.drop.00000002.00000000", "streams.drop.00000002.0000000A",
		"streams.drop.00000002:00000001", "streams.drop.00000002.1"};
	static const uint8_t lanes[4] = {0, 0, 0, 2};
	int times = 3;
	const struct segue_dropping how = {
		.apply = apply_always, .interrupt = stop_it, .arg = &times};
	struct segue_ops ops = {0};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		OK(segue_ops_put_copy(&ops, SEGUE_TABLE_META, keys[i], strlen(keys[i]), lanes, 4));
		apply(&ops);
		cr_assert_eq(segue_drop_resume(store, &how), SEGUE_ESTORE, "%s", keys[i]);
		OK(segue_ops_remove(&ops, SEGUE_TABLE_META, keys[i], strlen(keys[i])));
		apply(&ops);
	}
	expect_whole(2, "b");
}
