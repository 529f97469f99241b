/*
 * Lanes that read a log: what transactions say of it, which lanes they leave out, who waits. Each
 * transaction is looked at on its way to the store.
 */
#include "engine/live.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/wait.h"
#include "core/wire.h"
#include "engine/committer.h"
#include "holder.h"
#include "lane/backlog.h"
#include "logwork.h"
#include "store/lanes.h"
#include "store/logs.h"

#define OK(call)   cr_assert_eq((call), 0, "%s: %s", #call, segue_error_detail())
#define NEVER_NS   INT64_C(1000000000000)
#define KNOWN      "log.00000001.known"
#define SOON(what) soon((what), #what)

enum { LANES = 2, ROWS = 2, RECORDS = 60, PATIENCE = 30000 };

static struct segue_ground ground;
static struct segue_committer *committer;
static struct segue_grant *grants[LANES];
static struct segue_live *live;
static const uint8_t id[SEGUE_SEQLOG_ID] = "of test_live...";
static char dir[SEGUE_TMPDIR_MAX];

/* ---- The loop, the log's disk and the store's are the test's -------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned finished;

void __wrap_segue_loop_post(struct segue_loop *loop, void (*fn)(void *arg), void *arg);
void __wrap_segue_loop_post(struct segue_loop *loop, void (*fn)(void *arg), void *arg)
{
	(void)loop;
	pthread_mutex_lock(&lock);
	fn(arg);
	pthread_mutex_unlock(&lock);
}

static _Atomic bool syncs_held, syncs_fail;
static _Atomic unsigned syncs_asked;

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
	syncs_asked++;
	while (syncs_held)
		usleep(1000);
	if (!syncs_fail)
		return __real_fdatasync(fd);
	errno = EIO;
	return -1;
}

static _Atomic uint64_t known_number; /* as the store has it */
static _Atomic unsigned positions;    /* that were stored, of lanes that had seen something */

static void look_at_known(const struct segue_store_op *op)
{
	struct segue_log_known known;
	struct segue_log_stand stand;
	uint64_t hash[2];

	OK(segue_log_known_unpack(op->value, op->value_size, &known));
	cr_assert_arr_eq(known.id, id, sizeof(id));
	cr_assert_geq(known.synced.number, known_number, "it goes back");
	known_number = known.synced.number;
	if (!live) /* it is being made */
		return;
	segue_log_look(segue_live_log(live), &stand);
	cr_assert_leq(known.synced.number, stand.synced.number, "it is not synced");
	OK(segue_log_hash(segue_live_log(live), known.synced.number, hash));
	cr_assert_arr_eq(hash, known.synced.hash, sizeof(hash));
}

static void look_at_lane(const struct segue_store_op *op)
{
	struct segue_plan_spec plan = ground.spec.plan;
	struct segue_lane_record record;

	plan.lane = segue_key_get32((const uint8_t *)op->key + 8);
	OK(segue_lane_record_unpack(op->value, op->value_size, &record));
	uint64_t seen = segue_backlog_seen(&plan, record.position);
	free(record.position);
	if (!grants[plan.lane] || !grants[plan.lane]->live)
		return;
	positions += seen > 0;
	cr_assert_leq(seen, known_number, "lane %" PRIu32 " has seen what is not known", plan.lane);
}

int __real_segue_store_apply(
	struct segue_store *store, const struct segue_store_op *ops, size_t count);
int __wrap_segue_store_apply(
	struct segue_store *store, const struct segue_store_op *ops, size_t count);
int __wrap_segue_store_apply(
	struct segue_store *store, const struct segue_store_op *ops, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (ops[i].table == SEGUE_TABLE_META && ops[i].key_size == strlen(KNOWN) &&
			memcmp(ops[i].key, KNOWN, strlen(KNOWN)) == 0)
			look_at_known(&ops[i]);
		if (ops[i].table == SEGUE_TABLE_LANES && !ops[i].remove)
			look_at_lane(&ops[i]);
	}
	return __real_segue_store_apply(store, ops, count);
}

/* ---- The ground ----------------------------------------------------------------------------- */

static bool never_full(void *arg, uint64_t count)
{
	(void)arg, (void)count;
	return false;
}

static void note_count(void *arg, uint64_t count)
{
	(void)arg, (void)count;
}

static void covered(void *arg)
{
	(void)arg;
	segue_committer_urge(committer);
}

static int open_live(int64_t interval_ns)
{
	const struct segue_live_order order = {
		.means = {.dir = dir,
			.fields = segue_logwork_fields,
			.count = SEGUE_LOGWORK_FIELDS},
		.id = "of test_live...",
		.stream = 1,
		.store = ground.store,
		.changes = segue_committer_changes(committer),
		.interval_ns = interval_ns,
		.is_full = never_full,
		.grown = note_count,
		.ended = note_count,
		.covered = covered,
	};
	return segue_live_open(&order, &live);
}

static void ignore_failure(void *arg, const struct segue_outcome *outcome)
{
	(void)arg, (void)outcome;
}

static void begin(void)
{
	segue_ground_begin(&ground, RECORDS, 4, ROWS, LANES);
	segue_tmpdir_path(&ground.tmp, "log", dir);
	OK(segue_committer_create(ground.store, NULL, ignore_failure, NULL, &committer));
	OK(open_live(NEVER_NS));
}

static void close_live(void)
{
	segue_live_close(live);
	live = NULL;
}

static void end(void)
{
	segue_committer_destroy(committer);
	for (int lane = 0; lane < LANES; lane++)
		if (grants[lane])
			segue_holder_end(grants[lane]);
	close_live();
	segue_ground_end(&ground);
}

TestSuite(live, .init = begin, .fini = end, .timeout = 120);

static struct segue_grant *grant_of(uint32_t lane, bool reads_log)
{
	struct segue_grant_order order =
		segue_ground_order(&ground, segue_committer_changes(committer), lane);

	order.live = reads_log ? live : NULL;
	OK(segue_grant_make(&order, &grants[lane]));
	segue_committer_add(committer, grants[lane]);
	return grants[lane];
}

static void note_finished(void *arg)
{
	(void)arg;
	finished++;
}

static void finish(struct segue_grant *grant)
{
	segue_committer_finish(committer, grant, false, note_finished, note_finished, grant);
}

static bool is_finished(void)
{
	pthread_mutex_lock(&lock);
	bool is = finished > 0;
	pthread_mutex_unlock(&lock);
	return is;
}

static bool soon(bool is, const char *what)
{
	static int ms;

	if (is) {
		ms = 0;
		return true;
	}
	cr_assert_lt(ms++, PATIENCE, "it does not come: %s", what);
	usleep(1000);
	return false;
}

static uint64_t durable(const struct segue_grant *grant)
{
	return segue_load_acquire(&grant->carry.page->durable);
}

static void await_durable(const struct segue_grant *grant, uint64_t step)
{
	while (!SOON(durable(grant) >= step))
		;
}

static uint64_t synced(void)
{
	struct segue_log_stand stand;

	segue_log_look(segue_live_log(live), &stand);
	return stand.synced.number;
}

/* ---- Asking the inserter -------------------------------------------------------------------- */

static void note_answer(struct segue_ask *ask)
{
	*(_Atomic bool *)ask->arg = true;
}

static int ask(struct segue_ask *ask)
{
	_Atomic bool answered = false;

	ask->answer = note_answer;
	ask->arg = &answered;
	segue_inserter_ask(segue_live_inserter(live), ask);
	while (!SOON(answered))
		;
	return segue_outcome_give(&ask->outcome);
}

static uint64_t open_session(uint64_t *serial)
{
	struct segue_ask open = {
		.what = SEGUE_ASKED_OPEN, .asked = {.name = "a", .name_size = 1, .takeover = true}};

	OK(ask(&open));
	*serial = open.serial;
	return open.session;
}

static int insert_one(uint64_t session, uint64_t serial)
{
	const struct segue_logwork work = {
		.what = serial, .serial = serial, .producer = "a", .steps = 3};
	struct segue_ask insert = {.what = SEGUE_ASKED_INSERT,
		.session = session,
		.serial = serial,
		.entry = segue_logwork_make(segue_live_log(live), &work)};
	int rc = ask(&insert);

	segue_log_entry_free(insert.entry);
	return rc;
}

static void insert(uint64_t count)
{
	uint64_t serial, session = open_session(&serial);

	while (count-- > 0)
		OK(insert_one(session, ++serial));
}

/* ---- Tests ---------------------------------------------------------------------------------- */

Test(live, is_known_from_its_making_on)
{
	struct segue_stored_log stored;

	OK(segue_logs_load(ground.store, 1, &stored));
	cr_assert_arr_eq(stored.known.id, id, sizeof(id));
	cr_assert_eq(stored.known.synced.number, 0);
	cr_assert(!stored.some);
	insert(5);
	close_live();
	OK(open_live(NEVER_NS));
	cr_assert_eq(synced(), 5, "a log that is opened is synced");
}

Test(live, a_lane_waits_for_the_log_and_nobody_waits_for_the_lane)
{
	struct segue_grant *reader = grant_of(0, true), *other = grant_of(1, false);

	insert(RECORDS);
	cr_assert_eq(synced(), 0);
	syncs_held = true;
	segue_holder_commit(reader, 1, 1);
	segue_holder_commit(other, 1, 1);
	segue_committer_urge(committer);
	await_durable(other, 1);
	while (!SOON(syncs_asked > 0)) /* the committer asked for it */
		;
	segue_holder_commit(other, 2, 1);
	segue_committer_urge(committer);
	await_durable(other, 2);
	cr_assert_eq(durable(reader), 0);
	cr_assert_eq(positions, 0);
	syncs_held = false;
	await_durable(reader, 1); /* nobody else has urged */
	cr_assert_eq(known_number, RECORDS);
}

Test(live, a_lease_that_is_over_waits_for_the_log)
{
	struct segue_grant *reader = grant_of(0, true);
	struct segue_lane_record record;

	insert(RECORDS);
	syncs_held = true;
	segue_holder_commit(reader, 2, 1);
	finish(reader);
	segue_committer_try_once(committer); /* not even a server that stops gives it up */
	usleep(200000);
	cr_assert(!is_finished());
	syncs_held = false;
	while (!SOON(is_finished()))
		;
	OK(segue_lanes_load(ground.store, (struct segue_place){.stream = 1}, &record));
	cr_assert_eq(record.position->step, 2);
	cr_assert(!record.held);
	free(record.position);
}

Test(live, of_a_log_that_failed_nothing_more_is_stored)
{
	struct segue_grant *reader = grant_of(0, true), *other = grant_of(1, false);
	char text[SEGUE_ERROR_TEXT];

	insert(RECORDS);
	segue_holder_commit(reader, 1, 1);
	segue_committer_urge(committer);
	await_durable(reader, 1);
	uint64_t serial, session = open_session(&serial);
	OK(insert_one(session, serial + 1));
	syncs_fail = true;
	/* All 61 are there for the lane, which has seen the last by this. */
	segue_holder_commit(reader, 2, 1);
	segue_holder_commit(other, 1, 1);
	segue_committer_urge(committer);
	await_durable(other, 1);
	await_durable(reader, 2); /* has not seen what is not synced */
	cr_assert_eq(segue_grant_failure(reader, text), 0);
	while (!SOON(insert_one(session, serial + 2) == SEGUE_ESTORE))
		segue_inserter_urge(segue_live_inserter(live));
	const struct segue_plan_spec plan = {.lanes = 1};
	const struct segue_position behind = {.next = RECORDS + 1};
	cr_assert_eq(segue_live_covers(live, &plan, &behind), SEGUE_ESTORE);
	cr_assert_eq(segue_live_await(live, &plan, &behind), SEGUE_ESTORE);
	OK(segue_live_await(live, &plan, &(struct segue_position){.next = RECORDS}));
}

Test(live, a_lane_that_has_read_what_may_be_lost_is_refused)
{
	struct segue_grant *reader = grant_of(0, true);
	char text[SEGUE_ERROR_TEXT];

	insert(RECORDS);
	segue_holder_commit(reader, 1, 1);
	syncs_fail = true;
	segue_committer_urge(committer);
	while (!SOON(segue_grant_failure(reader, text) == SEGUE_ESTORE))
		segue_committer_urge(committer);
	cr_assert(strstr(text, "may be lost"), "%s", text);
	finish(reader);
	while (!SOON(is_finished()))
		;
	cr_assert_eq(positions, 0);
}

/* A thread that waits for a position. */
struct waiting {
	uint64_t next;
	int rc;
	_Atomic bool over;
};

static void *wait_for(void *arg)
{
	const struct segue_plan_spec plan = {.lanes = 1};
	struct waiting *waiting = arg;

	waiting->rc =
		segue_live_await(live, &plan, &(struct segue_position){.next = waiting->next});
	waiting->over = true;
	return NULL;
}

Test(live, who_waits_is_woken_by_the_sync)
{
	struct waiting waiting = {.next = 7};
	pthread_t thread;

	insert(7);
	syncs_held = true;
	cr_assert_eq(pthread_create(&thread, NULL, wait_for, &waiting), 0);
	while (!SOON(syncs_asked > 0))
		;
	usleep(20000);
	cr_assert(!waiting.over);
	syncs_held = false;
	pthread_join(thread, NULL);
	cr_assert_eq(waiting.rc, 0);
	cr_assert_eq(synced(), 7);
	waiting = (struct waiting){.next = 8};
	wait_for(&waiting);
	cr_assert_eq(waiting.rc, SEGUE_ENOTFOUND);
}

Test(live, an_end_is_stored_with_the_place_and_stays)
{
	struct segue_ask end = {.what = SEGUE_ASKED_END};
	struct segue_stored_log stored;
	uint64_t count;

	insert(9);
	cr_assert(!segue_live_has_ended(live, &count));
	OK(ask(&end));
	for (int opened = 0; opened < 2; opened++) {
		cr_assert(segue_live_has_ended(live, &count));
		cr_assert_eq(count, 9);
		OK(segue_logs_load(ground.store, 1, &stored));
		cr_assert(stored.some && stored.end.ended);
		cr_assert_eq(stored.known.synced.number, 9);
		segue_stored_log_finish(&stored);
		close_live();
		OK(open_live(NEVER_NS));
	}
}

Test(live, another_log_than_the_store_knows_is_refused)
{
	const struct segue_log_known other = {.id = "another........"};
	struct segue_ops ops = {0};

	close_live();
	OK(segue_logs_put_known(&ops, 1, &other));
	OK(__real_segue_store_apply(ground.store, ops.op, ops.count));
	segue_ops_finish(&ops);
	cr_assert_eq(open_live(NEVER_NS), SEGUE_ESTORE);
	cr_assert(strstr(segue_error_detail(), "another log"), "%s", segue_error_detail());
}

/* Whatever comes when: no transaction refers to what is not known, and all comes to disk. */
Test(live, in_any_order)
{
	const char *text = getenv("SEGUE_TEST_SEED");
	uint64_t seed = (uint64_t)getpid();
	uint64_t inserted = 0, steps[LANES] = {0}, session, serial;

	if (text)
		seed = strtoull(text, NULL, 10);
	fprintf(stderr, "in_any_order: SEGUE_TEST_SEED=%" PRIu64 "\n", seed);
	close_live();
	OK(open_live(3000000));
	session = open_session(&serial);
	for (uint32_t lane = 0; lane < LANES; lane++)
		grant_of(lane, true);
	/* A batch has two rows of sequences of two segments: step s has seen 2 (s + 1) / 2 of each. */
	while (steps[0] + steps[1] < 2 * 20) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
		uint32_t draw = (uint32_t)(seed >> 33), lane = draw >> 8 & 1;

		if (draw % 4 == 0)
			segue_committer_urge(committer);
		else if (draw % 4 == 1 && inserted < RECORDS)
			inserted += insert_one(session, ++serial) == 0;
		else if (steps[lane] < 20 && (steps[lane] + 2) * LANES * ROWS / 2 <= inserted)
			segue_holder_commit(grants[lane], ++steps[lane], 1);
		else if (inserted < RECORDS)
			inserted += insert_one(session, ++serial) == 0;
		if (draw % 32 == 5)
			usleep(2000);
	}
	segue_committer_urge(committer);
	for (int lane = 0; lane < LANES; lane++)
		await_durable(grants[lane], 20);
	cr_assert_gt(positions, 0);
}
