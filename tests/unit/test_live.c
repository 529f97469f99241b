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
#include "engine/snapshot.h"
#include "holder.h"
#include "lane/backlog.h"
#include "store/checkpoints.h"
#include "store/groups.h"
#include "store/lanes.h"
#include "store/logs.h"

#define OK(call)   cr_assert_eq((call), 0, "%s: %s", #call, segue_error_detail())
#define KNOWN      "log.00000001.known"
#define SOON(what) soon((what), #what)

enum { LANES = 2, ROWS = 2, RECORDS = 60, PATIENCE = 30000 };

static struct segue_ground ground;
static struct segue_committer *committer;
static struct segue_grant *grants[LANES]; /* of group 0 */
static struct segue_grant *others[LANES]; /* of another */
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
static _Atomic uint64_t known_first;  /* what was given up, likewise */
static _Atomic uint64_t asked_first;  /* ... by the transaction that is on its way */
static _Atomic bool unlinks_fail;
static bool is_over; /* the test: its directory goes */

/* A file of the log goes when the store has that all of it was given up. */
int __real_unlinkat(int fd, const char *name, int flags);
int __wrap_unlinkat(int fd, const char *name, int flags);
int __wrap_unlinkat(int fd, const char *name, int flags)
{
	uint64_t first;

	if (sscanf(name, "%20" SCNu64 ".segue", &first) != 1)
		return __real_unlinkat(fd, name, flags);
	if (!is_over)
		cr_assert_lt(first, known_first, "%s goes first", name);
	if (!unlinks_fail)
		return __real_unlinkat(fd, name, flags);
	errno = EIO;
	return -1;
}

static _Atomic unsigned positions; /* that were stored, of lanes that had seen something */

static void look_at_known(const struct segue_store_op *op)
{
	struct segue_log_known known;
	struct segue_log_stand stand;
	uint64_t hash[2];

	OK(segue_log_known_unpack(op->value, op->value_size, &known));
	cr_assert_arr_eq(known.id, id, sizeof(id));
	cr_assert_geq(known.synced.number, known_number, "it goes back");
	known_number = known.synced.number;
	cr_assert_geq(known.first, known_first, "what was given up comes back");
	asked_first = known.first;
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

	uint32_t group = segue_key_get32((const uint8_t *)op->key + 4);
	plan.lane = segue_key_get32((const uint8_t *)op->key + 8);
	OK(segue_lane_record_unpack(op->value, op->value_size, &record));
	uint64_t seen = segue_backlog_seen(&plan, record.position);
	free(record.position);
	const struct segue_grant *grant = (group ? others : grants)[plan.lane];
	if (!grant || !grant->live)
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
	int rc = __real_segue_store_apply(store, ops, count);
	if (!rc)
		known_first = asked_first;
	return rc;
}

/* ---- The ground ----------------------------------------------------------------------------- */

static void covered(void *arg)
{
	(void)arg;
	segue_committer_urge(committer);
}

static struct segue_mix_log numbers = SEGUE_MIX_LOG_ALONE;
static struct segue_backlog_limits limits = {.capacity = UINT64_MAX, .spool = UINT64_MAX};
static struct segue_log_retain retain;
static uint64_t file_bytes = 20000;
static _Atomic uint64_t pinned_step = SEGUE_NEVER; /* of lane 0 */

static uint64_t pinned(void *arg, struct segue_place place)
{
	(void)arg;
	return place.lane == 0 ? pinned_step : SEGUE_NEVER;
}

/* By the interval of the spec: nothing is synced unless somebody asks for it. */
static int open_live(void)
{
	const struct segue_live_order order = {
		.spec = &ground.spec.test.spec,
		.dir = dir,
		.file_bytes = file_bytes,
		.retain = retain,
		.pinned = pinned,
		.id = "of test_live...",
		.numbers = numbers,
		.stream = 1,
		.store = ground.store,
		.changes = segue_committer_changes(committer),
		.limits = limits,
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
	OK(open_live());
}

static void close_live(void)
{
	if (live)
		segue_live_source(live)->ops->destroy(segue_live_source(live));
	segue_live_close(live);
	live = NULL;
}

static void end_grant_of(struct segue_grant **grant)
{
	if (!*grant)
		return;
	if (live)
		segue_live_leave(live, &(*grant)->carry);
	if ((*grant)->joined) /* its filler goes on */
		segue_grant_destroy(*grant);
	else
		segue_holder_end(*grant);
	*grant = NULL;
}

static void end_grant(int lane)
{
	end_grant_of(&grants[lane]);
}

static void end(void)
{
	if (live)
		segue_live_stop(live); /* as a server does, before the one who stores for it */
	segue_committer_destroy(committer);
	for (int lane = 0; lane < LANES; lane++) {
		end_grant_of(&others[lane]); /* those that have joined a feed first */
		end_grant(lane);
	}
	close_live();
	is_over = true;
	segue_ground_end(&ground);
}

TestSuite(live, .init = begin, .fini = end, .timeout = 120);

static struct segue_grant_order order_of(uint32_t group, uint32_t lane)
{
	struct segue_grant_order order =
		segue_ground_order(&ground, segue_committer_changes(committer), lane);

	order.place.group = group;
	order.live = live;
	order.source = segue_live_source(live);
	order.plan.records = order.source->ops->records(order.source);
	return order;
}

static struct segue_grant *grant_of(uint32_t lane, bool reads_log)
{
	struct segue_grant_order order =
		reads_log ? order_of(0, lane)
			  : segue_ground_order(&ground, segue_committer_changes(committer), lane);

	OK(segue_grant_make(&order, &grants[lane]));
	segue_committer_add(committer, grants[lane]);
	if (reads_log)
		segue_live_join(live, 0, grants[lane]->filler, &grants[lane]->carry);
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

enum { STEPS = 4 }; /* of each sequence: two segments */

static int64_t otherwise; /* what is added to all values */

/* The sequence of that number: its step i is 1000 n + i. */
static struct segue_log_entry *make_entry(uint64_t n)
{
	struct segue_log_entry *entry;
	char key[32];
	const struct segue_log_sequence sequence = {.key = key,
		.key_size = (uint32_t)snprintf(key, sizeof(key), "record-%" PRIu64, n),
		.steps = STEPS,
		.total_length = SEGUE_SEQFILE_NO_TOTAL,
		.producer = "a",
		.producer_size = 1,
		.serial = n + 1};

	OK(segue_log_entry_make(segue_live_log(live), &sequence, &entry));
	for (uint64_t i = 0; i < STEPS; i++) {
		int64_t value = (int64_t)(1000 * n + i) + otherwise;
		memcpy(entry->bytes + entry->column[0] + i * sizeof(value), &value, sizeof(value));
	}
	segue_log_entry_seal(segue_live_log(live), entry);
	return entry;
}

/* One producer alone: its serials follow the numbers. */
static int insert_one(uint64_t session, uint64_t serial)
{
	struct segue_ask insert = {.what = SEGUE_ASKED_INSERT,
		.session = session,
		.serial = serial,
		.entry = make_entry(serial - 1)};
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
	OK(open_live());
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

static uint64_t records(void)
{
	return segue_live_source(live)->ops->records(segue_live_source(live));
}

Test(live, an_end_is_stored_with_the_place_and_stays)
{
	struct segue_ask end = {.what = SEGUE_ASKED_END};
	struct segue_stored_log stored;

	insert(9);
	cr_assert_eq(records(), SEGUE_PLAN_LIVE);
	OK(ask(&end));
	for (int opened = 0; opened < 2; opened++) {
		cr_assert_eq(records(), 9);
		OK(segue_logs_load(ground.store, 1, &stored));
		cr_assert(stored.some && stored.end.ended);
		cr_assert_eq(stored.known.synced.number, 9);
		segue_stored_log_finish(&stored);
		close_live();
		OK(open_live());
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
	cr_assert_eq(open_live(), SEGUE_ESTORE);
	cr_assert(strstr(segue_error_detail(), "another log"), "%s", segue_error_detail());
}

/* ---- Lanes that read it --------------------------------------------------------------------- */

/* Row `row` of batch `step` is a segment of sequence n, from `first` on. */
static void check_row(
	const struct segue_grant *grant, uint64_t step, uint32_t row, uint64_t n, uint64_t first)
{
	const struct segue_geometry *geometry = &grant->filler->geometry;
	const uint8_t *base =
		(const uint8_t *)segue_ring_slot(grant->filler->ring.map, geometry, step);
	const struct segue_slot_span *span =
		(const struct segue_slot_span *)(base + geometry->span_offset) + row;
	const int64_t *x = (const int64_t *)(base + geometry->sequence_offset[0]) + 2u * row;
	char key[32];

	cr_assert_eq(span->number, n, "step %" PRIu64 ", row %" PRIu32, step, row);
	cr_assert_eq(span->first_step, first);
	snprintf(key, sizeof(key), "record-%" PRIu64, n);
	cr_assert_eq(span->key_size, strlen(key));
	cr_assert_arr_eq(base + geometry->heap_offset + span->key_offset, key, span->key_size);
	for (uint64_t i = 0; i < 2; i++)
		cr_assert_eq(x[i], (int64_t)(1000 * n + first + i));
}

static uint64_t published(const struct segue_grant *grant)
{
	return segue_load_acquire(&grant->filler->feed.ring->published);
}

static bool has_ended(const struct segue_grant *grant)
{
	pthread_mutex_lock(&grant->filler->lock);
	bool has = grant->filler->feed.ended;
	pthread_mutex_unlock(&grant->filler->lock);
	return has;
}

Test(live, batches_come_as_sequences_are_inserted)
{
	struct segue_ask end = {.what = SEGUE_ASKED_END};
	struct segue_grant *a = grant_of(0, true), *b = grant_of(1, true);
	uint64_t serial, session = open_session(&serial);

	/* Lane 0 has 0, 2, 4, 6, 8, lane 1 has 1, 3, 5, 7: rows of two, two segments each. */
	for (int i = 0; i < 3; i++)
		OK(insert_one(session, ++serial));
	while (!SOON(published(a) == 2))
		;
	usleep(5000);
	cr_assert_eq(published(b), 0, "it has half a batch");
	for (uint64_t step = 0; step < 2; step++)
		for (uint32_t row = 0; row < ROWS; row++)
			check_row(a, step, row, 2 * row, 2 * step);
	segue_holder_commit(a, 2, 1);
	for (int i = 0; i < 6; i++)
		OK(insert_one(session, ++serial));
	while (!SOON(published(a) == 4 && published(b) == 2))
		;
	check_row(a, 3, 1, 6, 2);
	check_row(b, 1, 0, 1, 2);
	usleep(5000);
	cr_assert(!has_ended(a) && !has_ended(b));
	OK(ask(&end));
	segue_holder_commit(a, 6, 1); /* the rest of its rows: sequence 8 alone */
	check_row(a, 4, 0, 8, 0);
	check_row(a, 5, 0, 8, 2);
	segue_holder_commit(b, 4, 1);
	check_row(b, 3, 1, 7, 2);
	while (!SOON(has_ended(a) && has_ended(b)))
		;
	/* Who comes later finds the end. */
	finish(a);
	while (!SOON(is_finished()))
		;
	end_grant(0);
	a = grant_of(0, true);
	while (!SOON(has_ended(a)))
		segue_filler_kick(a->filler);
}

/* ---- Offers --------------------------------------------------------------------------------- */

static const struct segue_log_place *seen_by(const struct segue_grant *grant, uint64_t step)
{
	return &segue_ring_slot(grant->filler->ring.map, &grant->filler->geometry, step)->seen;
}

/* The disk has no more of the log's one file than that; it is opened again. */
static void cut_log(off_t size)
{
	char path[SEGUE_TMPDIR_MAX + SEGUE_LOG_NAME];

	close_live();
	syncs_fail = false;
	strcat(strcpy(path, dir), "/");
	segue_log_name(0, path + strlen(path));
	cr_assert_eq(truncate(path, size), 0);
	OK(open_live());
	cr_assert_eq(synced(), 8);
}

static off_t log_size(void)
{
	struct segue_log_stand stand;

	segue_log_look(segue_live_log(live), &stand);
	return (off_t)stand.bytes;
}

static int offer(uint64_t step, const struct segue_log_place *seen)
{
	static const uint8_t states[ROWS * 8];
	struct segue_grant_order order = order_of(0, 0);

	order.mode = SEGUE_ATTACH_OFFER;
	order.step = step;
	order.seen = *seen;
	order.bulk = states;
	order.bulk_size = sizeof(states);
	return segue_grant_make(&order, &grants[0]);
}

/* Lane 0 has 0, 2, 4, ...: two of them in two steps. */
Test(live, each_batch_says_what_has_been_seen)
{
	struct segue_grant *reader = grant_of(0, true);
	uint64_t hash[2];

	insert(12);
	for (uint64_t step = 0; step < 6; step++) {
		segue_filler_kick(reader->filler);
		segue_holder_await(reader, step + 1);
		const struct segue_log_place *seen = seen_by(reader, step);

		cr_assert_eq(seen->number, step / 2 * 4 + 3);
		OK(segue_log_hash(segue_live_log(live), seen->number, hash));
		cr_assert_arr_eq(seen->hash, hash, sizeof(hash));
		segue_holder_commit(reader, step + 1, 1); /* the slot is the server's again */
	}
	segue_holder_commit(grant_of(1, false), 1, 1);
	cr_assert_eq(seen_by(grants[1], 0)->number, 0, "it reads no log");
}

Test(live, an_offer_behind_what_was_lost_is_refused)
{
	struct segue_grant *reader = grant_of(0, true);
	char text[SEGUE_ERROR_TEXT];

	insert(8);
	segue_holder_commit(reader, 2, 1);
	segue_committer_urge(committer);
	await_durable(reader, 2);
	const off_t size = log_size();
	insert(4);
	segue_holder_commit(reader, 5, 1);
	const struct segue_log_place seen = *seen_by(reader, 4);
	cr_assert_eq(seen.number, 11);
	syncs_fail = true;
	while (!SOON(segue_grant_failure(reader, text) == SEGUE_ESTORE))
		segue_committer_urge(committer);
	finish(reader);
	while (!SOON(is_finished()))
		;
	end_grant(0);
	cut_log(size);
	cr_assert_eq(offer(5, &seen), SEGUE_ECHANGED);
	cr_assert(strstr(segue_error_detail(), "11 sequences"), "%s", segue_error_detail());
	otherwise = 1;
	insert(4);
	cr_assert_eq(offer(5, &seen), SEGUE_ECHANGED, "others are in their place");
	struct segue_log_place other = {.number = 8};
	OK(segue_log_hash(segue_live_log(live), 8, other.hash));
	cr_assert_eq(offer(5, &other), SEGUE_EPROTOCOL, "it has seen more by then");
	otherwise = 0;
	cut_log(size);
	insert(4);
	OK(offer(5, &seen));
	cr_assert_eq(grants[0]->step, 5);
}

/* An insert that is asked for and may have to wait. */
struct asked {
	struct segue_ask ask;
	_Atomic bool answered;
};

static void begin_insert(struct asked *asked, uint64_t session, uint64_t serial)
{
	*asked = (struct asked){.ask = {.what = SEGUE_ASKED_INSERT,
					.session = session,
					.serial = serial,
					.entry = make_entry(serial - 1),
					.answer = note_answer,
					.arg = &asked->answered}};
	segue_inserter_ask(segue_live_inserter(live), &asked->ask);
}

static bool has_to_wait(struct asked *asked)
{
	usleep(20000);
	return !asked->answered;
}

static void end_insert(struct asked *asked)
{
	while (!SOON(asked->answered))
		;
	OK(segue_outcome_give(&asked->ask.outcome));
	segue_log_entry_free(asked->ask.entry);
}

Test(live, inserting_waits_when_every_lane_has_enough)
{
	uint64_t serial, session;
	struct asked asked;

	close_live();
	limits.capacity = 5;
	OK(open_live());
	session = open_session(&serial);
	for (int i = 0; i < 10; i++)
		OK(insert_one(session, ++serial));
	begin_insert(&asked, session, ++serial);
	cr_assert(has_to_wait(&asked));
	struct segue_live_look *look = segue_live_look(live);
	cr_assert(look->unfinished[0] == 5 && look->unfinished[1] == 5);
	free(look);
	struct segue_grant *a = grant_of(0, true);
	segue_holder_commit(a, 1, 1); /* no sequence is finished by that */
	segue_live_moved(live);
	cr_assert(has_to_wait(&asked));
	segue_holder_commit(a, 2, 1); /* two are: lane 0 has three, the other five */
	segue_live_moved(live);
	end_insert(&asked);
	/* Lane 1 has nobody, and starves lane 0 of nothing: four more go to each. */
	for (uint64_t step = 3; step < 8; step++) {
		while (!SOON(published(a) >= step)) {
			begin_insert(&asked, session, ++serial);
			end_insert(&asked);
		}
		segue_holder_commit(a, step, 1);
		segue_live_moved(live);
	}
	/* What is stored counts when it is opened again. */
	segue_committer_urge(committer);
	await_durable(a, 7);
	finish(a);
	while (!SOON(is_finished()))
		;
	end_grant(0);
	close_live();
	OK(open_live());
	session = open_session(&serial);
	for (;;) {
		begin_insert(&asked, session, ++serial);
		if (has_to_wait(&asked))
			break;
		end_insert(&asked);
	}
	/* Lane 0 has finished the six of its steps below 6: it has enough with eleven. */
	cr_assert_eq((serial - 1 + LANES - 1) / LANES, 6 + 5, "%" PRIu64, serial);
	limits.capacity = UINT64_MAX;
	segue_inserter_gone(segue_live_inserter(live), session);
	while (!SOON(asked.answered))
		;
	cr_assert_eq(segue_outcome_give(&asked.ask.outcome), SEGUE_EFENCED);
	segue_log_entry_free(asked.ask.entry);
}

Test(live, inserting_waits_when_the_spool_is_full)
{
	uint64_t serial, session;
	struct asked asked;

	close_live();
	limits.spool = 10000;
	OK(open_live());
	session = open_session(&serial);
	uint64_t bytes = 0;
	for (;;) {
		begin_insert(&asked, session, ++serial);
		if (has_to_wait(&asked))
			break;
		bytes += asked.ask.entry->entry.size;
		end_insert(&asked);
		cr_assert_lt(bytes, 20000, "it does not wait");
	}
	cr_assert_geq(bytes, limits.spool);
	segue_inserter_gone(segue_live_inserter(live), session);
	while (!SOON(asked.answered))
		;
	segue_log_entry_free(asked.ask.entry);
}

/* ---- Giving up ------------------------------------------------------------------------------ */

/* All but what is needed goes; a file has about eight sequences. */
static void begin_giving_up(uint64_t sequences, uint64_t bytes)
{
	close_live();
	file_bytes = 2500;
	retain = (struct segue_log_retain){sequences, bytes};
	OK(open_live());
}

static uint64_t first_there(void)
{
	struct segue_log_stand stand;

	segue_log_look(segue_live_log(live), &stand);
	return stand.first;
}

static uint64_t floor_of(uint64_t number)
{
	return segue_log_floor(segue_live_log(live), number);
}

/* Lane `lane` takes all batches up to `step`, and they are stored. */
static void go_to(uint32_t lane, uint64_t step)
{
	for (uint64_t at = 1; at <= step; at++)
		if (at > durable(grants[lane]))
			segue_holder_commit(grants[lane], at, 1);
	segue_committer_urge(committer);
	await_durable(grants[lane], step);
}

/* All below `number` is given up, as far as files go. */
static void await_number(uint64_t number)
{
	while (!SOON(first_there() == floor_of(number)))
		;
	cr_assert_eq(known_first, first_there());
	cr_assert_gt(known_first, 0);
	cr_assert_leq(known_first, number);
}

/*
 * After batch 2k each lane has finished 2k of its sequences, and has seen no other: so lane 0 has
 * seen 4k - 1 of the log, lane 1 all 4k. What is ahead of a worker can still become a checkpoint of
 * where it stands, so the ring has to be full.
 */
static void await_first(uint64_t step)
{
	await_number(2 * step - 1);
}

/* It does not come, however much is stored meanwhile. */
static void stays_at(uint64_t first)
{
	for (int i = 0; i < 10; i++) {
		segue_live_stored(live);
		usleep(5000);
	}
	cr_assert_eq(first_there(), first);
	cr_assert_eq(known_first, first);
}

static unsigned files_there(void)
{
	unsigned there = 0;
	char path[SEGUE_TMPDIR_MAX + 32];

	for (uint64_t n = 0; n < 4 * RECORDS; n++) {
		snprintf(path, sizeof(path), "%s/%020" PRIu64 ".segue", dir, n);
		there += access(path, F_OK) == 0;
	}
	return there;
}

Test(live, what_all_lanes_have_finished_is_given_up)
{
	struct segue_log_stand stand;
	struct segue_log_entry *entry;

	begin_giving_up(1, 0);
	insert(2 * RECORDS);
	grant_of(0, true);
	go_to(0, 20);
	stays_at(0); /* lane 1 was never begun */
	grant_of(1, true);
	go_to(1, 12);
	await_number(24);
	uint64_t first = known_first;
	go_to(0, 30);
	stays_at(first); /* it is lane 1 that needs it */
	go_to(1, 20);
	await_number(40);
	segue_log_look(segue_live_log(live), &stand);
	cr_assert_eq(files_there(), stand.files);
	cr_assert_eq(
		segue_log_read(segue_live_log(live), known_first - 1, &entry), SEGUE_ENOTFOUND);
	/* Without anybody they go on from what is stored; and who is new finds the producer. */
	for (int lane = 0; lane < LANES; lane++) {
		finished = 0;
		finish(grants[lane]);
		while (!SOON(is_finished()))
			;
		end_grant(lane);
	}
	close_live();
	OK(open_live());
	insert(4);
	for (uint32_t lane = 0; lane < LANES; lane++)
		grant_of(lane, true);
	go_to(0, 33);
	while (!SOON(published(grants[0]) > 33))
		;
	check_row(grants[0], 33, 0, 64, 2);
}

Test(live, what_a_lane_that_was_left_needs_is_looked_for_again)
{
	close_live();
	file_bytes = 1000; /* of two or three */
	retain.sequences = 1;
	OK(open_live());
	insert(2 * RECORDS);
	for (uint32_t lane = 0; lane < LANES; lane++) {
		grant_of(lane, true);
		go_to(lane, RECORDS);
	}
	/* Its last batches can still become checkpoints: nothing is behind them. */
	uint64_t needed = floor_of(2 * RECORDS - 1);
	for (int i = 0; i < 10; i++, usleep(5000))
		segue_live_stored(live);
	cr_assert_lt(first_there(), needed);
	finish(grants[0]);
	while (!SOON(is_finished()))
		;
	usleep(50000);
	cr_assert_lt(first_there(), needed);
	end_grant(0);
	while (!SOON(first_there() == needed))
		;
}

Test(live, all_is_kept_unless_something_else_was_said)
{
	begin_giving_up(0, 0);
	insert(2 * RECORDS);
	for (uint32_t lane = 0; lane < LANES; lane++) {
		grant_of(lane, true);
		go_to(lane, 40);
	}
	stays_at(0);
}

Test(live, what_is_to_be_retained_is_not_given_up)
{
	begin_giving_up(2 * RECORDS - 20, 0);
	insert(2 * RECORDS);
	for (uint32_t lane = 0; lane < LANES; lane++) {
		grant_of(lane, true);
		go_to(lane, 40);
	}
	segue_inserter_urge(segue_live_inserter(live)); /* of what is synced so many */
	while (!SOON(first_there() == floor_of(20)))
		;
	uint64_t first = floor_of(20);
	stays_at(first);
	insert(30);
	segue_inserter_urge(segue_live_inserter(live));
	while (!SOON(first_there() == floor_of(50)))
		;
	stays_at(floor_of(50));
	cr_assert_gt(floor_of(50), first);
}

Test(live, bytes_that_are_to_be_retained_are_not_given_up)
{
	begin_giving_up(0, 8000);
	insert(2 * RECORDS);
	for (uint32_t lane = 0; lane < LANES; lane++) {
		grant_of(lane, true);
		go_to(lane, 60);
	}
	while (!SOON(first_there() > 0))
		;
	uint64_t left = segue_log_bytes_from(segue_live_log(live), first_there());
	cr_assert(left >= 8000 && left < 8000 + 2500, "%" PRIu64, left);
}

static void put_checkpoint(uint32_t group, uint64_t step, uint64_t needs)
{
	const struct segue_catalogue_entry entry = {.step = step, .size = 1, .needs = needs};
	struct segue_ops ops = {0};

	OK(segue_checkpoints_put(
		&ops, ground.store, (struct segue_place){1, group, 1}, &entry, 0, "t", 1));
	OK(segue_changes_apply(segue_committer_changes(committer), &ops));
	segue_ops_finish(&ops);
}

Test(live, what_a_checkpoint_needs_is_not_given_up)
{
	begin_giving_up(1, 0);
	insert(2 * RECORDS);
	for (uint32_t lane = 0; lane < LANES; lane++) {
		grant_of(lane, true);
		go_to(lane, 4);
	}
	put_checkpoint(0, 4, 8);
	for (uint32_t lane = 0; lane < LANES; lane++)
		go_to(lane, 40);
	while (!SOON(first_there() == floor_of(8)))
		;
	stays_at(floor_of(8));
	put_checkpoint(0, 20, 39); /* in its place */
	segue_live_stored(live);
	while (!SOON(first_there() == floor_of(39)))
		;
	stays_at(floor_of(39));
}

Test(live, a_checkpoint_on_its_way_finds_all_that_it_needs)
{
	begin_giving_up(1, 0);
	insert(2 * RECORDS);
	pinned_step = 3;
	for (uint32_t lane = 0; lane < LANES; lane++) {
		grant_of(lane, true);
		go_to(lane, 40);
	}
	stays_at(0);
	pinned_step = SEGUE_NEVER;
	segue_live_stored(live);
	await_first(40);
	/* One that is asked for now is not held back, and holds nothing up. */
	pinned_step = 42;
	for (uint32_t lane = 0; lane < LANES; lane++)
		go_to(lane, 42);
	await_first(42);
}

/* Of batches that were committed before, as long as the ring has not gone on. */
Test(live, what_can_still_become_a_checkpoint_is_not_given_up)
{
	begin_giving_up(1, 0);
	insert(40);
	for (uint32_t lane = 0; lane < LANES; lane++) {
		grant_of(lane, true);
		go_to(lane, 20);
	}
	uint64_t oldest = 20 - grants[0]->filler->geometry.depth;
	await_number(2 * oldest - 1);
	stays_at(floor_of(2 * oldest - 1));
	for (uint32_t lane = 0; lane < LANES; lane++) {
		struct segue_plan_spec plan = segue_filler_plan(grants[lane]->filler);
		struct segue_image *image;
		uint64_t committed;

		OK(segue_snapshot(
			grants[lane]->filler, &grants[lane]->carry, oldest, &committed, &image));
		OK(segue_live_holds(live, &plan, image->position));
		segue_image_destroy(image);
	}
}

Test(live, who_goes_back_behind_it_is_refused)
{
	const struct segue_plan_spec plan = {.lanes = LANES, .lane = 1};
	struct segue_position position = {.next = 3};
	struct segue_grant *grant;
	char says[64];

	begin_giving_up(1, 0);
	insert(2 * RECORDS);
	OK(segue_live_holds(live, &plan, &position));
	for (uint32_t lane = 0; lane < LANES; lane++) {
		grant_of(lane, true);
		go_to(lane, 20);
	}
	await_first(20);
	snprintf(says, sizeof(says), "the first that is left is %" PRIu64, (uint64_t)known_first);
	cr_assert_eq(segue_live_holds(live, &plan, &position), SEGUE_ENOTFOUND);
	cr_assert(strstr(segue_error_detail(), says), "%s", segue_error_detail());
	position.next = known_first / LANES + 1;
	OK(segue_live_holds(live, &plan, &position));
	finish(grants[1]);
	while (!SOON(is_finished()))
		;
	end_grant(1);
	struct segue_grant_order order = order_of(0, 1);
	order.mode = SEGUE_ATTACH_FRESH;
	cr_assert_eq(segue_grant_make(&order, &grant), SEGUE_ESTART);
	cr_assert(strstr(segue_error_detail(), says), "%s", segue_error_detail());
	grant_of(1, true); /* it is where it was */
	go_to(1, 22);
}

/* As after a kill between the two. */
Test(live, files_that_could_not_be_removed_go_when_it_is_opened_again)
{
	begin_giving_up(1, 0);
	insert(2 * RECORDS);
	unlinks_fail = true;
	for (uint32_t lane = 0; lane < LANES; lane++) {
		grant_of(lane, true);
		go_to(lane, 20);
	}
	while (!SOON(known_first == floor_of(39)))
		segue_live_stored(live);
	unsigned there = files_there();
	cr_assert_eq(first_there(), 0);
	for (int lane = 0; lane < LANES; lane++) {
		finished = 0;
		finish(grants[lane]);
		while (!SOON(is_finished()))
			;
		end_grant(lane);
	}
	close_live();
	cr_assert_eq(files_there(), there);
	unlinks_fail = false;
	OK(open_live());
	cr_assert_eq(first_there(), known_first);
	cr_assert_lt(files_there(), there);
	for (uint32_t lane = 0; lane < LANES; lane++) {
		grant_of(lane, true);
		go_to(lane, 30);
	}
	await_first(30);
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
	ground.spec.test.spec.interval_ms = 3;
	begin_giving_up(1, 0);
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
	while (inserted < RECORDS) /* the ring is full then */
		inserted += insert_one(session, ++serial) == 0;
	await_first(20);
}

/* ---- Groups --------------------------------------------------------------------------------- */

enum { OTHER = 1 };

static void make_group(void)
{
	struct segue_ops ops = {0};
	struct segue_groups groups;
	struct segue_group group = {.name = "other"};

	OK(segue_groups_load(ground.store, 1, &groups));
	OK(segue_groups_put(&ops, 1, &groups, &group));
	cr_assert_eq(group.number, OTHER);
	OK(segue_changes_apply(segue_committer_changes(committer), &ops));
	OK(segue_live_add_group(live, OTHER));
	segue_ops_finish(&ops);
	segue_groups_finish(&groups);
}

/* Its lane; it may join the feed of group 0. */
static struct segue_grant *other_of(uint32_t lane, bool joins)
{
	struct segue_grant_order order = order_of(OTHER, lane);

	if (joins)
		order.candidate[order.candidate_count++] = grants[lane]->filler;
	OK(segue_grant_make(&order, &others[lane]));
	segue_committer_add(committer, others[lane]);
	segue_live_join(live, OTHER, others[lane]->filler, &others[lane]->carry);
	return others[lane];
}

static void finish_other(int lane)
{
	finished = 0;
	finish(others[lane]);
	while (!SOON(is_finished()))
		;
	end_grant_of(&others[lane]);
}

/* By themselves: nobody else kicks them. */
Test(live, all_groups_hear_of_what_comes_and_of_the_end)
{
	struct segue_ask end = {.what = SEGUE_ASKED_END};
	uint64_t serial, session;

	make_group();
	struct segue_grant *a = grant_of(0, true), *b = other_of(0, true);
	cr_assert(b->joined && b->filler == a->filler);
	struct segue_grant *c = grant_of(1, true);
	session = open_session(&serial);
	for (int i = 0; i < 4; i++)
		OK(insert_one(session, ++serial));
	while (!SOON(published(a) == 2 && published(c) == 2))
		;
	segue_holder_commit(c, 2, 1);
	struct segue_grant *d = other_of(1, false);
	while (!SOON(published(d) == 2))
		;
	segue_holder_commit(d, 2, 1);
	for (int i = 0; i < 4; i++)
		OK(insert_one(session, ++serial));
	while (!SOON(published(c) == 4 && published(d) == 4))
		;
	check_row(d, 3, 1, 7, 2);
	OK(ask(&end));
	segue_holder_commit(c, 4, 1);
	segue_holder_commit(d, 4, 1);
	while (!SOON(has_ended(c) && has_ended(d)))
		;
}

Test(live, inserting_waits_for_the_group_that_is_furthest_behind)
{
	uint64_t serial, session;
	struct asked asked;

	close_live();
	limits.capacity = 6;
	OK(open_live());
	make_group();
	session = open_session(&serial);
	for (int i = 0; i < 12; i++)
		OK(insert_one(session, ++serial));
	for (uint32_t lane = 0; lane < LANES; lane++)
		grant_of(lane, true);
	begin_insert(&asked, session, ++serial);
	cr_assert(has_to_wait(&asked));
	segue_holder_commit(grants[0], 4, 1);
	segue_holder_commit(grants[1], 4, 1);
	segue_live_moved(live);
	cr_assert(has_to_wait(&asked), "the other has begun nothing");
	cr_assert_eq(segue_live_behind(live, 0, 0), 2);
	cr_assert_eq(segue_live_behind(live, OTHER, 0), 6);
	struct segue_grant *other = other_of(0, false);
	segue_holder_commit(other, 2, 1); /* two sequences are finished */
	segue_live_moved(live);
	end_insert(&asked); /* number 12, of lane 0 */
	cr_assert_eq(segue_live_behind(live, OTHER, 0), 5);
	/* It leaves: what it has not finished is waited for. Two more turns go to lane 0. */
	finish_other(0);
	OK(insert_one(session, ++serial));
	OK(insert_one(session, ++serial));
	begin_insert(&asked, session, ++serial);
	cr_assert(has_to_wait(&asked));
	struct segue_live_look *look = segue_live_look(live);
	cr_assert(look->unfinished[0] == 6 && look->unfinished[1] == 7);
	free(look);
	other = other_of(0, false);
	cr_assert_eq(other->step, 2);
	segue_holder_commit(other, 4, 1);
	segue_live_moved(live);
	end_insert(&asked);
	limits.capacity = UINT64_MAX;
}

Test(live, the_group_without_a_name_counts_from_its_beginning_on)
{
	uint64_t serial, session;
	struct asked asked;

	close_live();
	limits.capacity = 6;
	OK(open_live());
	session = open_session(&serial);
	for (int i = 0; i < 12; i++)
		OK(insert_one(session, ++serial));
	begin_insert(&asked, session, ++serial);
	cr_assert(has_to_wait(&asked), "there is no other");
	make_group();
	for (uint32_t lane = 0; lane < LANES; lane++)
		segue_holder_commit(other_of(lane, false), 4, 1);
	segue_live_moved(live);
	end_insert(&asked);
	grant_of(1, true);
	begin_insert(&asked, session, ++serial);
	cr_assert(has_to_wait(&asked), "it counts, in all lanes");
	segue_holder_commit(grants[1], 4, 1);
	segue_live_moved(live);
	end_insert(&asked);
	limits.capacity = UINT64_MAX;
}

/* Also of those that nobody has, by what is stored. */
Test(live, what_any_group_needs_is_not_given_up)
{
	begin_giving_up(1, 0);
	make_group();
	insert(2 * RECORDS);
	for (uint32_t lane = 0; lane < LANES; lane++) {
		grant_of(lane, true);
		go_to(lane, 40);
	}
	stays_at(0); /* the other has begun nothing */
	for (uint32_t lane = 0; lane < LANES; lane++) {
		segue_holder_commit(other_of(lane, false), 20, 1);
		finish_other((int)lane);
	}
	await_number(39);
	stays_at(floor_of(39));
	for (int lane = 0; lane < LANES; lane++) {
		finished = 0;
		finish(grants[lane]);
		while (!SOON(is_finished()))
			;
		end_grant(lane);
	}
	close_live();
	OK(open_live());
	for (uint32_t lane = 0; lane < LANES; lane++) {
		grant_of(lane, true);
		go_to(lane, 50);
	}
	stays_at(floor_of(39));
	for (uint32_t lane = 0; lane < LANES; lane++) {
		segue_holder_commit(other_of(lane, false), 30, 1);
		finish_other((int)lane);
	}
	await_number(59);
}

Test(live, what_a_checkpoint_of_any_group_needs_is_not_given_up)
{
	begin_giving_up(1, 0);
	make_group();
	insert(2 * RECORDS);
	for (uint32_t lane = 0; lane < LANES; lane++) {
		grant_of(lane, true);
		segue_holder_commit(other_of(lane, false), 40, 1);
		finish_other((int)lane);
	}
	put_checkpoint(OTHER, 20, 39);
	for (uint32_t lane = 0; lane < LANES; lane++)
		go_to(lane, 40);
	await_number(39);
	stays_at(floor_of(39));
	put_checkpoint(OTHER, 30, 59); /* in its place */
	segue_live_stored(live);
	await_number(59);
	stays_at(floor_of(59));
}

Test(live, a_group_that_was_not_waited_for_is_refused_when_its_beginning_is_gone)
{
	struct segue_grant *grant;

	begin_giving_up(1, 0);
	make_group();
	insert(2 * RECORDS);
	for (uint32_t lane = 0; lane < LANES; lane++) {
		segue_holder_commit(other_of(lane, false), 40, 1);
		finish_other((int)lane);
	}
	await_number(79);
	struct segue_grant_order order = order_of(0, 0);
	cr_assert_eq(segue_grant_make(&order, &grant), SEGUE_ESTART);
	cr_assert(strstr(segue_error_detail(), "given up"), "%s", segue_error_detail());
}

/* ---- A log among the parts of a mix ---------------------------------------------------------- */

enum { INSERTED = 20 };

/* One of three sequences is of the log: as counted one by one. */
static const struct segue_mix_log mixed = {
	.shape = {.seed = 5, .count = 2, .quota = {683, 341}}, .part = 1, .end = UINT64_MAX};

static uint64_t count_inserted(uint64_t numbers_seen)
{
	uint64_t count = 0;

	for (uint64_t number = 0; number < numbers_seen; number++)
		count += segue_mix_part(&mixed.shape, number) == mixed.part;
	return count;
}

/* The numbers below the one whose sequence is missing. */
static uint64_t count_there(uint64_t sequences)
{
	uint64_t number = 0;

	while (segue_mix_part(&mixed.shape, number) != mixed.part ||
		count_inserted(number) < sequences)
		number++;
	return number;
}

static void reopen_mixed(uint64_t end)
{
	close_live();
	numbers = mixed;
	numbers.end = end;
	OK(open_live());
}

Test(live, positions_and_backlogs_have_the_numbers_of_the_mix)
{
	const struct segue_plan_spec plan = {.lanes = LANES, .num_unroll = 2};
	uint64_t there = count_there(INSERTED), of_position[2], of_log[2];

	reopen_mixed(UINT64_MAX);
	insert(INSERTED);
	for (uint64_t next = 0; next < there; next++) {
		struct segue_position position = {.next = next};
		uint64_t seen = segue_backlog_seen(&plan, &position);
		int rc = segue_live_await(live, &plan, &position);

		cr_assert_eq(rc, seen <= there ? 0 : SEGUE_ENOTFOUND, "%ju", (uintmax_t)seen);
		if (rc)
			continue;
		cr_assert_geq(synced(), count_inserted(seen));
		OK(segue_live_hash(live, &plan, &position, of_position));
		OK(segue_log_hash(segue_live_log(live), count_inserted(seen), of_log));
		cr_assert_arr_eq(of_position, of_log, sizeof(of_log));
	}
	struct segue_live_look *look = segue_live_look(live);
	for (uint32_t lane = 0; lane < LANES; lane++)
		cr_assert_eq(look->unfinished[lane], (there + LANES - 1 - lane) / LANES);
	free(look);
}

/* With the last sequence that lies before the end of the other parts. */
Test(live, a_mix_ends_its_input_by_itself)
{
	uint64_t end = count_there(INSERTED), serial;

	reopen_mixed(end);
	insert(INSERTED - 1);
	cr_assert_eq(records(), SEGUE_PLAN_LIVE);
	insert(1);
	while (!SOON(records() == INSERTED))
		;
	uint64_t session = open_session(&serial);
	cr_assert_eq(insert_one(session, serial + 1), SEGUE_EEND);
	reopen_mixed(end);
	cr_assert_eq(records(), INSERTED);
}

Test(live, capacity_counts_the_numbers_of_the_mix)
{
	uint64_t serial, session, accepted = 0;
	struct asked asked;

	/* As long as a lane has fewer of those that are there. */
	while (count_there(accepted) / LANES < 20)
		accepted++;
	limits.capacity = 20;
	reopen_mixed(UINT64_MAX);
	session = open_session(&serial);
	for (uint64_t i = 0; i < accepted; i++)
		OK(insert_one(session, ++serial));
	begin_insert(&asked, session, ++serial);
	cr_assert(has_to_wait(&asked));
	limits.capacity = UINT64_MAX;
	segue_live_stop(live);
	cr_assert_eq(segue_outcome_give(&asked.ask.outcome), SEGUE_EGONE);
	segue_log_entry_free(asked.ask.entry);
}
