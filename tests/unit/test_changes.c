/* The queue of changes: what waits, what a transaction takes, how it is answered. */
#include "engine/changes.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

static struct segue_changes changes;
static _Atomic unsigned wanted;
static unsigned done;
static void *last_done;

/* The loop: runs at once what is posted. */
void segue_loop_post(struct segue_loop *loop, void (*fn)(void *arg), void *arg)
{
	cr_assert_eq((void *)loop, (void *)&done);
	fn(arg);
}

static void note_wanted(void *arg)
{
	cr_assert_eq(arg, &wanted);
	wanted++;
}

static void note_done(void *arg)
{
	done++;
	last_done = arg;
}

static void begin(void)
{
	segue_changes_init(&changes, (struct segue_loop *)(void *)&done, note_wanted, &wanted);
}

static void end(void)
{
	segue_changes_finish(&changes);
}

TestSuite(changes, .init = begin, .fini = end);

static int put(void *arg, struct segue_ops *ops)
{
	(void)arg;
	return segue_ops_put_copy(ops, SEGUE_TABLE_META, "key", 3, "value", 5);
}

static int cannot(void *arg, struct segue_ops *ops)
{
	put(arg, ops);
	return segue_fail(SEGUE_EFENCED, "it cannot be built");
}

static struct segue_change change_of(uint32_t lane)
{
	return (struct segue_change){.place = {.stream = 1, .lane = lane}, .build = put};
}

static unsigned length_of(const struct segue_change *list)
{
	unsigned length = 0;

	for (; list; list = list->next)
		length++;
	return length;
}

Test(changes, a_transaction_takes_of_each_place_the_first)
{
	struct segue_change a = change_of(0), b = change_of(0), c = change_of(1), d = change_of(0);

	cr_assert_not(segue_changes_pending(&changes));
	segue_changes_submit(&changes, &a, note_done);
	segue_changes_submit(&changes, &b, note_done);
	segue_changes_submit(&changes, &c, note_done);
	cr_assert_eq(wanted, 3);
	cr_assert(segue_changes_pending(&changes));
	struct segue_change *list = segue_changes_take(&changes);
	cr_assert_eq(list, &a);
	cr_assert_eq(list->next, &c);
	cr_assert_null(c.next);
	segue_changes_answer(&changes, list);
	cr_assert_eq(done, 2);
	cr_assert(segue_changes_pending(&changes), "the second of its place still waits");
	segue_changes_submit(&changes, &d, note_done);
	cr_assert_eq(segue_changes_take(&changes), &b);
	cr_assert_null(b.next);
	cr_assert_eq(segue_changes_take(&changes), &d, "the order of asking stays");
	cr_assert_not(segue_changes_pending(&changes));
	segue_changes_submit(&changes, &a, note_done);
	cr_assert_eq(segue_changes_take(&changes), &a, "a change may be made again");
}

Test(changes, a_change_of_all_lanes_is_alone_among_those_of_its_stream)
{
	struct segue_change a = change_of(0), all = change_of(SEGUE_LANES_ALL), b = change_of(1),
			    other = change_of(1);

	other.place.stream = 2;
	segue_changes_submit(&changes, &a, note_done);
	segue_changes_submit(&changes, &all, note_done);
	segue_changes_submit(&changes, &b, note_done);
	segue_changes_submit(&changes, &other, note_done);
	cr_assert_eq(segue_changes_take(&changes), &a);
	cr_assert_eq(a.next, &b, "it waits for no lane");
	cr_assert_eq(b.next, &other);
	struct segue_change *list = segue_changes_take(&changes);
	cr_assert_eq(list, &all);
	cr_assert_null(all.next);
	segue_changes_submit(&changes, &all, note_done);
	segue_changes_submit(&changes, &a, note_done);
	other = change_of(0);
	other.place.stream = 2;
	segue_changes_submit(&changes, &other, note_done);
	cr_assert_eq(segue_changes_take(&changes), &all);
	cr_assert_eq(all.next, &other);
	cr_assert_eq(segue_changes_take(&changes), &a);
}

Test(changes, also_of_those_of_other_groups)
{
	struct segue_change all = change_of(SEGUE_LANES_ALL), a = change_of(0),
			    b = change_of(SEGUE_LANES_ALL);

	a.place.group = 1;
	b.place.group = 2;
	segue_changes_submit(&changes, &all, note_done);
	segue_changes_submit(&changes, &a, note_done);
	segue_changes_submit(&changes, &b, note_done);
	cr_assert_eq(segue_changes_take(&changes), &all);
	cr_assert_null(all.next);
	cr_assert_eq(segue_changes_take(&changes), &a);
	cr_assert_null(a.next);
	cr_assert_eq(segue_changes_take(&changes), &b);
}

Test(changes, places_differ_by_stream_group_and_lane)
{
	const struct segue_place place = {1, 2, 3};

	cr_assert(segue_place_same(place, (struct segue_place){1, 2, 3}));
	cr_assert_not(segue_place_same(place, (struct segue_place){0, 2, 3}));
	cr_assert_not(segue_place_same(place, (struct segue_place){1, 0, 3}));
	cr_assert_not(segue_place_same(place, (struct segue_place){1, 2, 0}));
}

Test(changes, who_cannot_be_built_adds_nothing_and_learns_why)
{
	struct segue_change good = change_of(0), bad = change_of(1);

	bad.build = cannot;
	bad.arg = &bad;
	segue_changes_submit(&changes, &bad, note_done);
	segue_changes_submit(&changes, &good, note_done);
	struct segue_change *list = segue_changes_take(&changes);
	segue_changes_build(list);
	cr_assert_eq(length_of(list), 2);
	cr_assert_eq(bad.outcome.rc, SEGUE_EFENCED);
	cr_assert_str_eq(bad.outcome.detail, "it cannot be built");
	cr_assert_eq(segue_change_ops(&bad)->count, 0);
	cr_assert_eq(good.outcome.rc, 0);
	cr_assert_eq(segue_change_ops(&good)->count, 1);
	segue_changes_answer(&changes, list);
	cr_assert_eq(done, 2);
	cr_assert_eq(last_done, &bad);
	cr_assert_null(good.ops.op, "its operations are gone");
	bad.build = put;
	segue_changes_submit(&changes, &bad, note_done);
	list = segue_changes_take(&changes);
	segue_changes_build(list);
	cr_assert_eq(bad.outcome.rc, 0, "it may be asked for again");
	segue_changes_answer(&changes, list);
}

/* ---- Those who wait ------------------------------------------------------------------------- */

static struct segue_ops ready;
static int results[3];

static void *make(void *arg)
{
	struct segue_change change = change_of(0);

	results[0] = segue_changes_make(&changes, &change);
	cr_assert_str_eq(segue_error_detail(), (const char *)arg);
	return NULL;
}

static void *write_ready(void *arg)
{
	results[*(const int *)arg] = segue_changes_apply(&changes, &ready);
	return NULL;
}

static void await_wanted(unsigned count)
{
	while (wanted < count)
		sched_yield();
}

Test(changes, who_waits_hears_what_became_of_it, .timeout = 30)
{
	char text[] = "the disk is full";
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, make, text), 0);
	await_wanted(1);
	struct segue_change *list = segue_changes_take(&changes);
	segue_changes_build(list);
	segue_fail(SEGUE_ENOSPACE, "%s", text);
	segue_outcome_take(&list->outcome, SEGUE_ENOSPACE);
	segue_changes_answer(&changes, list);
	pthread_join(thread, NULL);
	cr_assert_eq(results[0], SEGUE_ENOSPACE);
	cr_assert_eq(done, 0);
}

Test(changes, operations_that_are_ready_are_of_no_place, .timeout = 30)
{
	struct segue_change other = {.build = put}; /* of the place that is all zero */
	static const int which[] = {1, 2};
	pthread_t threads[2];

	cr_assert_eq(put(NULL, &ready), 0);
	cr_assert_eq(
		pthread_create(&threads[0], NULL, write_ready, (void *)(uintptr_t)&which[0]), 0);
	await_wanted(1);
	segue_changes_submit(&changes, &other, note_done);
	cr_assert_eq(
		pthread_create(&threads[1], NULL, write_ready, (void *)(uintptr_t)&which[1]), 0);
	await_wanted(3);
	struct segue_change *list = segue_changes_take(&changes);
	cr_assert_eq(length_of(list), 3);
	segue_changes_build(list);
	cr_assert_eq(segue_change_ops(list), &ready);
	segue_changes_answer(&changes, list);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	cr_assert_eq(results[1], 0);
	cr_assert_eq(results[2], 0);
	cr_assert_eq(ready.count, 1, "they stay who asks'");
	segue_ops_finish(&ready);
}
