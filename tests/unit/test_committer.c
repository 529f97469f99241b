/* The committer: what goes into a transaction, and what follows when it fails. */
#include "engine/committer.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"
#include "engine/snapshot.h"
#include "holder.h"
#include "store/lanes.h"

enum { LANES = 2, ROWS = 2, PATIENCE = 30000 };

static struct segue_ground ground;
static struct segue_committer *committer;
static struct segue_grant *grants[LANES];

/* ---- The loop, the disk and the memory are the test's --------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	void (*fn)(void *arg);
	void *arg;
} posted[256];
static unsigned posted_count, run_count;

void __wrap_segue_loop_post(struct segue_loop *loop, void (*fn)(void *arg), void *arg);
void __wrap_segue_loop_post(struct segue_loop *loop, void (*fn)(void *arg), void *arg)
{
	(void)loop;
	pthread_mutex_lock(&lock);
	posted[posted_count].fn = fn;
	posted[posted_count++].arg = arg;
	pthread_mutex_unlock(&lock);
}

static void run_posted(void)
{
	pthread_mutex_lock(&lock);
	while (run_count < posted_count) {
		void (*fn)(void *arg) = posted[run_count].fn;
		void *arg = posted[run_count++].arg;
		pthread_mutex_unlock(&lock);
		fn(arg);
		pthread_mutex_lock(&lock);
	}
	pthread_mutex_unlock(&lock);
}

static _Atomic unsigned transactions;
static _Atomic int disk_says;     /* instead of writing */
static _Atomic int refused = -1;  /* a lane whose states the store does not take: too large */
static _Atomic unsigned shortage; /* so many snapshots have no memory */

static bool is_refused(const struct segue_store_op *op)
{
	const uint8_t *key = op->key;

	return op->table == SEGUE_TABLE_STATES && !op->remove && key[11] == refused;
}

int __real_segue_store_apply(
	struct segue_store *store, const struct segue_store_op *ops, size_t count);
int __wrap_segue_store_apply(
	struct segue_store *store, const struct segue_store_op *ops, size_t count);
int __wrap_segue_store_apply(
	struct segue_store *store, const struct segue_store_op *ops, size_t count)
{
	int says = disk_says;

	transactions++;
	if (says)
		return segue_fail(says, "the disk says %d", says);
	for (size_t i = 0; i < count; i++) {
		if (is_refused(&ops[i]))
			return segue_fail(SEGUE_ELIMIT, "too large");
	}
	return __real_segue_store_apply(store, ops, count);
}

int __real_segue_snapshot(struct segue_filler *filler, struct segue_carry *carry, uint64_t step,
	uint64_t *committed, struct segue_image **out);
int __wrap_segue_snapshot(struct segue_filler *filler, struct segue_carry *carry, uint64_t step,
	uint64_t *committed, struct segue_image **out);
int __wrap_segue_snapshot(struct segue_filler *filler, struct segue_carry *carry, uint64_t step,
	uint64_t *committed, struct segue_image **out)
{
	if (shortage) {
		shortage--;
		return segue_fail(SEGUE_ENOMEM, "no memory for a snapshot");
	}
	return __real_segue_snapshot(filler, carry, step, committed, out);
}

static _Atomic unsigned tellings; /* of lack of memory, to workers */

void __real_segue_grant_storage(struct segue_grant *grant, int code, const char *detail);
void __wrap_segue_grant_storage(struct segue_grant *grant, int code, const char *detail);
void __wrap_segue_grant_storage(struct segue_grant *grant, int code, const char *detail)
{
	__real_segue_grant_storage(grant, code, detail);
	tellings += code == SEGUE_ENOMEM;
}

/* ---- What the server hears ------------------------------------------------------------------ */

static unsigned failures, finished, delayed;
static int failure;

static void note_failure(void *arg, const struct segue_outcome *outcome)
{
	(void)arg;
	failures++;
	failure = outcome->rc;
}

static void note_finished(void *arg)
{
	cr_assert_eq(((struct segue_grant *)arg)->state, SEGUE_GRANT_FORGOTTEN);
	finished++;
}

static void note_delayed(void *arg)
{
	(void)arg;
	delayed++;
}

/* Runs what is posted until `wanted` is met: the loop's turns. */
static void await(const unsigned *counter, unsigned wanted)
{
	for (int ms = 0; run_posted(), *counter < wanted; ms++) {
		cr_assert_lt(ms, PATIENCE, "it does not come");
		usleep(1000);
	}
	cr_assert_eq(*counter, wanted);
}

static void await_transactions(unsigned wanted)
{
	for (int ms = 0; transactions < wanted; ms++) {
		cr_assert_lt(ms, PATIENCE, "transaction %u does not come", wanted);
		usleep(1000);
	}
	usleep(5000); /* what follows it */
}

static void await_durable(const struct segue_grant *grant, uint64_t step)
{
	for (int ms = 0; segue_load_acquire(&grant->carry.page->durable) < step; ms++) {
		cr_assert_lt(ms, PATIENCE, "step %" PRIu64 " does not get to disk", step);
		usleep(1000);
	}
	cr_assert_eq(segue_load_acquire(&grant->carry.page->durable), step);
}

static uint64_t durable(const struct segue_grant *grant)
{
	return segue_load_acquire(&grant->carry.page->durable);
}

static int told(const struct segue_grant *grant)
{
	return -(int)segue_load_acquire(&grant->carry.page->error);
}

/* ---- The ground ----------------------------------------------------------------------------- */

static struct segue_grant *grant_of(uint32_t lane)
{
	struct segue_grant_order order =
		segue_ground_order(&ground, segue_committer_changes(committer), lane);

	cr_assert_eq(segue_grant_make(&order, &grants[lane]), 0, "%s", segue_error_detail());
	segue_committer_add(committer, grants[lane]);
	return grants[lane];
}

static void start(void)
{
	cr_assert_eq(segue_committer_create(ground.store, NULL, note_failure, NULL, &committer), 0);
	cr_assert_eq(segue_committer_destroy(NULL), 0);
}

/* Sequences of two segments each, in two lanes of two rows. */
static void begin(void)
{
	segue_ground_begin(&ground, 40, 4, ROWS, LANES);
	start();
}

static unsigned stop(void)
{
	unsigned unwritten = segue_committer_destroy(committer);

	committer = NULL;
	run_posted();
	for (int lane = 0; lane < LANES; lane++) {
		if (grants[lane])
			segue_holder_end(grants[lane]);
		grants[lane] = NULL;
	}
	return unwritten;
}

static void end(void)
{
	if (committer)
		stop();
	segue_ground_end(&ground);
}

TestSuite(committer, .init = begin, .fini = end);

static void finish(struct segue_grant *grant, bool held)
{
	segue_committer_finish(committer, grant, held, note_finished, note_delayed, grant);
}

/* What the store says of a lane: its step, whether it is held, the first state of a live row. */
struct stored {
	uint64_t step;
	bool held;
	int state; /* -1: no row lives */
	uint32_t live;
};

static struct stored stored(uint32_t lane)
{
	const struct segue_place place = {.stream = 1, .lane = lane};
	struct segue_plan_spec plan = ground.spec.plan;
	struct segue_lane_record record;
	struct segue_image *image;

	plan.lane = lane;
	cr_assert_eq(segue_lanes_load(ground.store, place, &record), 0, "%s", segue_error_detail());
	cr_assert_eq(segue_lanes_load_image(ground.store, place, &plan, record.position, 8, &image),
		0, "%s", segue_error_detail());
	const struct stored found = {
		.step = record.position->step,
		.held = record.held,
		.live = image->live_count,
		.state = image->live_count ? image->states[image->live[0] * 8u] : -1,
	};
	segue_image_destroy(image);
	free(record.position);
	return found;
}

/* ---- What it writes ------------------------------------------------------------------------- */

Test(committer, writes_the_newest_commit_of_all_lanes_in_one_transaction)
{
	struct segue_grant *a = grant_of(0), *b = grant_of(1);
	unsigned before = transactions;

	cr_assert_eq(before, 2, "a grant is a transaction of its own");
	segue_holder_commit(a, 1, 100);
	segue_holder_commit(b, 3, 50);
	segue_committer_urge(committer);
	await_durable(a, 1);
	await_durable(b, 3);
	cr_assert_eq(transactions, before + 1);
	cr_assert_eq(stored(0).step, 1);
	cr_assert_eq(stored(0).live, 2);
	cr_assert_eq(stored(0).state, 100);
	cr_assert(stored(0).held);
	cr_assert_eq(stored(1).step, 3);
	cr_assert_eq(stored(1).state, 52, "of batch 2");
	segue_holder_commit(a, 2, 100);
	segue_committer_urge(committer);
	await_durable(a, 2);
	cr_assert_eq(stored(0).live, 0, "rows that ended have left the disk");
	cr_assert_eq(failures, 0);
}

Test(committer, writes_nothing_for_who_owes_nothing)
{
	struct segue_grant *a = grant_of(0);
	unsigned before = transactions;

	segue_committer_urge(committer);
	usleep(30000);
	cr_assert_eq(transactions, before);
	segue_holder_commit(a, 1, 1);
	segue_committer_urge(committer);
	await_durable(a, 1);
	segue_committer_urge(committer);
	usleep(30000);
	cr_assert_eq(transactions, before + 1);
}

Test(committer, writes_every_interval_unasked)
{
	ground.spec.test.spec.interval_ms = 20;
	struct segue_grant *a = grant_of(0);

	segue_holder_commit(a, 1, 1);
	await_durable(a, 1);
	segue_holder_commit(a, 2, 1);
	await_durable(a, 2);
}

Test(committer, does_not_write_what_a_worker_cannot_have_committed)
{
	struct segue_grant *a = grant_of(0);
	unsigned before = transactions;

	segue_store_release(&a->carry.words->committed, 1000);
	segue_committer_urge(committer);
	usleep(30000);
	cr_assert_eq(transactions, before);
	finish(a, false);
	await(&finished, 1);
	cr_assert_eq(stored(0).step, 0);
	cr_assert_not(stored(0).held, "the lane is given back all the same");
}

/* ---- Leases that are over ------------------------------------------------------------------- */

Test(committer, a_lease_that_is_over_is_written_and_forgotten)
{
	struct segue_grant *a = grant_of(0), *b = grant_of(1);

	segue_holder_commit(a, 1, 1);
	segue_holder_commit(b, 2, 1);
	finish(a, false);
	await(&finished, 1);
	cr_assert_eq(stored(0).step, 1);
	cr_assert_not(stored(0).held);
	finish(b, true);
	await(&finished, 2);
	cr_assert_eq(stored(1).step, 2);
	cr_assert(stored(1).held, "its holder comes back");
	cr_assert_eq(delayed, 0);
	cr_assert_eq(stop(), 0);
}

Test(committer, a_lease_that_owes_nothing_is_given_back)
{
	struct segue_grant *a = grant_of(0);

	cr_assert(stored(0).held);
	finish(a, false);
	await(&finished, 1);
	cr_assert_not(stored(0).held);
	cr_assert_eq(stored(0).step, 0);
}

/* ---- A disk that is full -------------------------------------------------------------------- */

Test(committer, a_full_disk_is_told_once_and_ends_with_room)
{
	struct segue_grant *a = grant_of(0);
	unsigned before = transactions;

	segue_holder_commit(a, 1, 1);
	disk_says = SEGUE_ENOSPACE;
	segue_committer_urge(committer);
	await(&failures, 1);
	cr_assert_eq(failure, SEGUE_ENOSPACE);
	cr_assert_eq(durable(a), 0);
	segue_committer_urge(committer);
	await_transactions(before + 2);
	run_posted();
	cr_assert_eq(failures, 1, "that is not news");
	segue_committer_flush(committer);
	await(&failures, 2);
	disk_says = 0;
	segue_committer_urge(committer);
	await_durable(a, 1);
	await(&failures, 3);
	cr_assert_eq(failure, 0, "it is over");
	cr_assert_eq(stored(0).step, 1);
}

Test(committer, lanes_that_owe_nothing_end_the_news_of_a_full_disk)
{
	grant_of(0);
	struct segue_ops ops = {0};

	cr_assert_eq(segue_ops_put_copy(&ops, SEGUE_TABLE_META, "x", 1, "y", 1), 0);
	disk_says = SEGUE_ENOSPACE;
	cr_assert_eq(segue_changes_apply(segue_committer_changes(committer), &ops), SEGUE_ENOSPACE);
	await(&failures, 1);
	disk_says = 0;
	segue_committer_urge(committer);
	await(&failures, 2);
	cr_assert_eq(failure, 0);
	segue_ops_finish(&ops);
}

Test(committer, a_lease_that_is_over_waits_for_room)
{
	struct segue_grant *a = grant_of(0);

	segue_holder_commit(a, 1, 1);
	disk_says = SEGUE_ENOSPACE;
	finish(a, false);
	await(&delayed, 1);
	cr_assert_eq(failures, 1, "after that the disk is full");
	segue_committer_urge(committer);
	await(&delayed, 2);
	cr_assert_eq(finished, 0);
	disk_says = 0;
	segue_committer_urge(committer);
	await(&finished, 1);
	cr_assert_eq(stored(0).step, 1);
	cr_assert_eq(stop(), 0);
}

Test(committer, a_server_that_stops_does_not_wait_for_room)
{
	struct segue_grant *a = grant_of(0), *b = grant_of(1);

	segue_holder_commit(a, 1, 1);
	disk_says = SEGUE_ENOSPACE;
	finish(a, true);
	finish(b, true);
	await(&failures, 1);
	segue_committer_try_once(committer);
	await(&finished, 2);
	cr_assert_eq(stop(), 1, "only the first had something to lose");
}

Test(committer, nothing_is_written_after_a_failure_that_leaves_the_disk_unknown)
{
	struct segue_grant *a = grant_of(0);
	struct segue_ops ops = {0};

	cr_assert_eq(segue_ops_put_copy(&ops, SEGUE_TABLE_META, "x", 1, "y", 1), 0);
	segue_holder_commit(a, 1, 1);
	disk_says = SEGUE_ESTORE;
	segue_committer_urge(committer);
	await(&failures, 1);
	cr_assert_eq(failure, SEGUE_ESTORE);
	disk_says = 0;
	unsigned before = transactions;
	cr_assert_eq(segue_changes_apply(segue_committer_changes(committer), &ops), SEGUE_ESTORE);
	segue_committer_urge(committer);
	usleep(20000);
	run_posted();
	cr_assert_eq(failures, 1, "it does not get better");
	finish(a, false);
	await(&finished, 1);
	cr_assert_eq(delayed, 0);
	cr_assert_eq(transactions, before);
	cr_assert_eq(durable(a), 0);
	cr_assert_eq(stop(), 1);
	segue_ops_finish(&ops);
}

/* ---- What the store refuses of one lane ------------------------------------------------------ */

static int put_meta(void *arg, struct segue_ops *ops)
{
	(void)arg;
	return segue_ops_put_copy(ops, SEGUE_TABLE_META, "change", 6, "made", 4);
}

static bool has_meta(void)
{
	void *value;
	size_t size;
	int rc = segue_store_get(ground.store, SEGUE_TABLE_META, "change", 6, &value, &size);

	if (rc == 0)
		free(value);
	return rc == 0;
}

Test(committer, what_is_wrong_with_one_lane_is_its_own_affair)
{
	struct segue_grant *a = grant_of(0), *b = grant_of(1);

	segue_holder_commit(a, 1, 1);
	segue_holder_commit(b, 1, 1);
	refused = 0;
	segue_committer_urge(committer);
	await_durable(b, 1);
	usleep(5000);
	run_posted();
	cr_assert_eq(failures, 0, "storage is well");
	cr_assert_eq(durable(a), 0);
	cr_assert_eq(told(a), SEGUE_ELIMIT);
	cr_assert_eq(told(b), 0);
	cr_assert(a->filler->stalled);
	segue_grant_storage(a, 0, "");
	cr_assert_eq(told(a), SEGUE_ELIMIT, "for good");
	/* It is not tried again, also when it would be taken. */
	refused = -1;
	segue_holder_commit(b, 2, 1);
	segue_committer_urge(committer);
	await_durable(b, 2);
	cr_assert_eq(durable(a), 0);
	finish(a, false);
	await(&finished, 1);
	cr_assert_not(stored(0).held, "who comes next gets the lane");
	cr_assert_eq(stored(0).step, 0);
}

Test(committer, a_lease_that_is_over_and_refused_is_given_back)
{
	struct segue_grant *a = grant_of(0);

	segue_holder_commit(a, 1, 1);
	refused = 0;
	finish(a, false);
	await(&finished, 1);
	cr_assert_not(stored(0).held);
	cr_assert_eq(stored(0).step, 0);
	cr_assert_eq(delayed, 0);
}

Test(committer, a_change_fails_with_the_lane_that_it_was_built_on)
{
	struct segue_grant *a = grant_of(0), *b = grant_of(1);
	struct segue_change of_a = {.place = a->place, .build = put_meta};
	struct segue_change of_b = {.place = b->place, .build = put_meta};

	refused = 0;
	segue_holder_commit(a, 1, 1);
	cr_assert_eq(segue_changes_make(segue_committer_changes(committer), &of_a), SEGUE_ELIMIT);
	cr_assert_not_null(strstr(segue_error_detail(), "lane 0"));
	cr_assert_not(has_meta());
	segue_holder_commit(b, 1, 1);
	cr_assert_eq(segue_changes_make(segue_committer_changes(committer), &of_b), 0);
	cr_assert(has_meta());
	await_durable(b, 1);
}

/* ---- Memory --------------------------------------------------------------------------------- */

Test(committer, a_lane_for_which_there_is_no_memory_is_told_at_the_third_time)
{
	struct segue_grant *a = grant_of(0), *b = grant_of(1);

	for (uint64_t step = 1; step <= 2; step++) {
		segue_holder_commit(b, step, 1);
		shortage = 2;
		segue_committer_urge(committer);
		await_durable(b, step);
		cr_assert_eq(tellings, 0, "two times are no news");
	}
	segue_holder_commit(a, 1, 1);
	shortage = UINT_MAX;
	segue_committer_urge(committer);
	for (int ms = 0; tellings == 0; ms++) {
		cr_assert_lt(ms, PATIENCE, "it is not told");
		usleep(1000);
	}
	cr_assert_geq(UINT_MAX - shortage, 3);
	cr_assert_eq(durable(a), 0);
	shortage = 0;
	await_durable(a, 1);
	cr_assert_eq(told(a), 0, "with memory it goes on");
	cr_assert_eq(told(b), 0);
	run_posted();
	cr_assert_eq(failures, 0);
}

Test(committer, a_lease_that_is_over_waits_for_memory)
{
	struct segue_grant *a = grant_of(0);

	segue_holder_commit(a, 1, 1);
	shortage = 4;
	finish(a, false);
	await(&finished, 1);
	cr_assert_eq(delayed, 2, "at the third time and at each one after it");
	cr_assert_eq(stored(0).step, 1);
	cr_assert_not(stored(0).held);
	cr_assert_eq(stop(), 0);
}

Test(committer, a_server_that_stops_waits_for_memory_a_little)
{
	struct segue_grant *a = grant_of(0);

	segue_holder_commit(a, 1, 1);
	shortage = 6;
	finish(a, false);
	segue_committer_try_once(committer);
	await(&finished, 1);
	cr_assert_eq(stored(0).step, 1);
	cr_assert_eq(stop(), 0);
}

/* ---- Changes -------------------------------------------------------------------------------- */

static struct segue_grant *covered;
static bool covers[3];

static int ask_covers(void *arg, struct segue_ops *ops)
{
	for (uint64_t step = 0; step < 3; step++)
		covers[step] = segue_committer_covers(committer, covered, step);
	return put_meta(arg, ops);
}

Test(committer, a_change_is_in_the_transaction_of_the_newest_commit)
{
	struct segue_grant *a = grant_of(0);
	struct segue_change change = {.place = a->place, .build = ask_covers};
	unsigned before = transactions;

	covered = a;
	segue_holder_commit(a, 1, 1);
	cr_assert_eq(segue_changes_make(segue_committer_changes(committer), &change), 0);
	await_durable(a, 1);
	cr_assert_eq(transactions, before + 1);
	cr_assert(covers[0]);
	cr_assert(covers[1], "what is in this transaction counts");
	cr_assert_not(covers[2]);
	cr_assert(has_meta());
	/* What was on disk before counts as well. */
	cr_assert_eq(segue_changes_make(segue_committer_changes(committer), &change), 0);
	cr_assert(covers[1]);
	cr_assert_not(covers[2]);
}

static int cannot(void *arg, struct segue_ops *ops)
{
	put_meta(arg, ops);
	return segue_fail(SEGUE_EFENCED, "it cannot be built");
}

Test(committer, a_change_that_cannot_be_built_is_alone_with_that)
{
	struct segue_grant *a = grant_of(0);
	struct segue_change bad = {.place = a->place, .build = cannot};

	segue_holder_commit(a, 1, 1);
	cr_assert_eq(segue_changes_make(segue_committer_changes(committer), &bad), SEGUE_EFENCED);
	cr_assert_str_eq(segue_error_detail(), "it cannot be built");
	await_durable(a, 1);
	cr_assert_not(has_meta(), "nothing of it is written");
}

/* ---- Final states --------------------------------------------------------------------------- */

static int count_undo(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	(void)key;
	(void)key_size;
	(void)value;
	(void)value_size;
	(*(unsigned *)arg)++;
	return 0;
}

static unsigned undo_entries(void)
{
	unsigned entries = 0;

	cr_assert_eq(
		segue_store_scan(ground.store, SEGUE_TABLE_UNDO, "", 0, count_undo, NULL, &entries),
		0, "%s", segue_error_detail());
	return entries;
}

Test(committer, final_states_can_be_undone_as_far_back_as_a_checkpoint_may_reach)
{
	ground.spec.test.spec.keep_final = true;
	struct segue_grant *a = grant_of(0);
	struct segue_pin near = {.place = a->place, .step = 3},
			 other = {.place = {.stream = 1, .lane = 1}, .step = 0};

	segue_committer_pin(committer, &other);
	segue_committer_pin(committer, &near);
	segue_holder_commit(a, 8, 1); /* rows ended in batches 1, 3, 5 and 7, two each */
	segue_committer_urge(committer);
	await_durable(a, 8);
	cr_assert_null(a->carry.kept, "what is on disk is forgotten");
	cr_assert_eq(undo_entries(), 8, "they came with this transaction");
	segue_holder_commit(a, 9, 1);
	segue_committer_urge(committer);
	await_durable(a, 9);
	cr_assert_eq(undo_entries(), 6, "the pin holds those from step 3 on");
	segue_committer_unpin(committer, &near);
	segue_holder_commit(a, 10, 1);
	segue_committer_urge(committer);
	await_durable(a, 10);
	cr_assert_eq(undo_entries(), 4, "10 - 4: of steps 7 and 9");
	segue_committer_unpin(committer, &other);
}
