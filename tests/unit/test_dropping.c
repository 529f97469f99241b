/* Streams dropped by a server: refused, told to those who have them open, left to the next one. */
#include <criterion/criterion.h>
#include <string.h>

#include "core/error.h"
#include "store/drop.h"
#include "store/key.h"
#include "stream/drop.h"
#include "stream/group.h"
#include "stream/streams.h"
#include "testserver.h"

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, segue_error_detail())

static struct segue_testserver test;
static struct segue_testpeer one, two;

static void start(void)
{
	segue_testserver_init(&test, "drop");
	segue_testserver_start(&test);
	segue_testpeer_greet(&one, &test);
	segue_testpeer_greet(&two, &test);
}

static void stop(void)
{
	segue_testpeer_close(&one);
	segue_testpeer_close(&two);
	segue_testserver_stop(&test);
	segue_testserver_finish(&test);
}

TestSuite(dropping, .init = start, .fini = stop, .timeout = 60);

static int count_one(void *arg, const void *key, size_t key_size, const void *value, size_t size)
{
	(void)key, (void)key_size, (void)value, (void)size;
	++*(size_t *)arg;
	return 0;
}

static size_t count(enum segue_table table, const void *prefix, size_t size)
{
	size_t found = 0;

	OK(segue_store_scan(test.server.store, table, prefix, size, count_one, NULL, &found));
	return found;
}

/* What lies under an id. */
static size_t count_under(uint32_t id)
{
	static const enum segue_table tables[] = {SEGUE_TABLE_STATES, SEGUE_TABLE_FINALS,
		SEGUE_TABLE_UNDO, SEGUE_TABLE_CHECKPOINTS, SEGUE_TABLE_LANES};
	uint8_t prefix[4];
	size_t found = 0;

	segue_key_put32(prefix, id);
	for (size_t t = 0; t < 5; t++)
		found += count(tables[t], prefix, sizeof(prefix));
	return found;
}

static size_t notes(void)
{
	return count(SEGUE_TABLE_META, "streams.drop.", 13);
}

static int apply_counted(void *arg, const struct segue_ops *ops)
{
	++*(size_t *)arg;
	return segue_store_apply(test.server.store, ops->op, ops->count);
}

static const struct segue_message ask = {.type = SEGUE_MESSAGE_STREAM_DROP,
	.serial = 7,
	.stream_drop = {.stream = "s", .group = ""}};

static bool none_is_left(void *arg)
{
	(void)arg;
	return LIST_EMPTY(&test.streams.all) && LIST_EMPTY(&test.streams.drops);
}

Test(dropping, at_rest_it_goes)
{
	segue_testpeer_take(&two, segue_testpeer_open(&two), 0);
	segue_testpeer_commit(&two, 1);
	uint32_t id = LIST_FIRST(&test.streams.all)->id;
	segue_session_close(two.session);
	segue_testserver_settle(&test);
	cr_assert_gt(count_under(id), 0);
	cr_assert_eq(segue_testpeer_ask(&one, &ask), SEGUE_MESSAGE_DONE);
	cr_assert_eq(one.reply.serial, 7);
	cr_assert_eq(count_under(id) + notes(), 0);
	cr_assert_eq(count(SEGUE_TABLE_STREAMS, "", 0), 0);
	cr_assert_eq(count(SEGUE_TABLE_INDEX, "", 0), 0);
	cr_assert_eq(one.session->long_requests, 0);
	cr_assert(none_is_left(NULL));
	cr_assert_eq(segue_testpeer_ask(&one, &ask), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_ENOTFOUND), "no stream 's'"));
	segue_testpeer_open(&one);
	cr_assert_gt(LIST_FIRST(&test.streams.all)->id, id);
}

Test(dropping, not_while_a_lane_is_held_or_asked_for)
{
	uint64_t of_one = segue_testpeer_open(&one);
	uint64_t lease = segue_testpeer_take(&two, segue_testpeer_open(&two), 2);

	cr_assert_eq(segue_testpeer_ask(&one, &ask), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_EBUSY), "lane 2 of it is held"));
	cr_assert_not(LIST_FIRST(&test.streams.all)->dropped);
	segue_testpeer_take(&one, of_one, 1); /* it goes on as if nothing had been asked */
	cr_assert_eq(segue_testpeer_ask(&two, &ask), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&two, SEGUE_EBUSY), "held"));
	struct segue_message detach = {
		.type = SEGUE_MESSAGE_LANE_DETACH, .lane_detach = {.lease = lease}};
	segue_testpeer_send(&two, &detach);
	segue_drop_request(two.session, &ask); /* on its way back, or held by the other one */
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_FAILURE);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_DONE);
	segue_session_close(one.session);
	segue_testserver_settle(&test);
	cr_assert_eq(segue_testpeer_ask(&two, &ask), SEGUE_MESSAGE_DONE);
}

/* The name is neither taken nor free until the first transaction is on disk. */
Test(dropping, while_it_is_being_dropped)
{
	uint64_t of_one = segue_testpeer_open(&one);
	struct segue_stream *stream = LIST_FIRST(&test.streams.all);

	segue_drop_request(two.session, &ask);
	cr_assert(stream->dropped);
	cr_assert_eq(segue_drops_check(&test.server, "s", NULL), SEGUE_EBUSY);
	cr_assert_eq(segue_drops_check(&test.server, "t", NULL), 0);
	segue_drop_request(two.session, &ask);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&two, SEGUE_EBUSY), "being dropped just now"));
	do
		segue_testpeer_receive(&two);
	while (two.reply.type == SEGUE_MESSAGE_PROGRESS);
	cr_assert_eq(two.reply.type, SEGUE_MESSAGE_DONE);
	cr_assert_eq(segue_drops_check(&test.server, "s", NULL), 0);
	/* Who had it open is told, may close it, and finds the new one beside it. */
	segue_testpeer_want(&one, of_one, 0, SEGUE_ATTACH_NONE, 0);
	cr_assert_eq(segue_testpeer_receive(&one), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_ENOTFOUND), "has been dropped"));
	const struct segue_message checkpoint = {
		.type = SEGUE_MESSAGE_CHECKPOINT, .checkpoint = {.stream = of_one}};
	cr_assert_eq(segue_testpeer_ask(&one, &checkpoint), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_ENOTFOUND), "has been dropped"));
	segue_testpeer_take(&two, segue_testpeer_open(&two), 0);
	cr_assert_neq(LIST_FIRST(&test.streams.all)->id, stream->id);
	const struct segue_message close = {
		.type = SEGUE_MESSAGE_STREAM_CLOSE, .stream_close = {.stream = of_one}};
	cr_assert_eq(segue_testpeer_ask(&one, &close), SEGUE_MESSAGE_DONE);
	cr_assert_null(LIST_NEXT(LIST_FIRST(&test.streams.all), link));
}

static bool record_is_gone(void *arg)
{
	(void)arg;
	return count(SEGUE_TABLE_STREAMS, "", 0) == 0;
}

Test(dropping, nobody_need_wait_for_it)
{
	segue_testpeer_open(&one);
	segue_drop_request(two.session, &ask);
	cr_assert(segue_testserver_run(&test, record_is_gone, NULL));
	segue_session_close(two.session);
	segue_session_close(one.session);
	cr_assert(segue_testserver_run(&test, none_is_left, NULL));
	cr_assert_eq(count(SEGUE_TABLE_STREAMS, "", 0) + notes(), 0);
}

/* ---- Groups ---- */

static const struct segue_message ask_group = {.type = SEGUE_MESSAGE_STREAM_DROP,
	.serial = 8,
	.stream_drop = {.stream = "s", .group = "b"}};

static uint32_t group_of(struct segue_testpeer *peer, uint64_t stream, const char *name)
{
	const struct segue_message message = {.type = SEGUE_MESSAGE_GROUP,
		.serial = 9,
		.group = {.stream = stream, .name = name}};

	cr_assert_eq(segue_testpeer_ask(peer, &message), SEGUE_MESSAGE_GROUPED);
	return peer->reply.grouped.group;
}

static struct segue_message wish(uint64_t stream, uint32_t group, int64_t timeout_ns)
{
	return (struct segue_message){.type = SEGUE_MESSAGE_LANE_ATTACH,
		.serial = 10,
		.lane_attach = {.stream = stream,
			.group = group,
			.lane = 1,
			.mode = SEGUE_ATTACH_CONTINUE,
			.timeout_ns = timeout_ns}};
}

Test(dropping, of_a_group_not_while_a_lane_is_held_or_asked_for)
{
	uint64_t of_one = segue_testpeer_open(&one), of_two = segue_testpeer_open(&two);
	uint32_t b = group_of(&one, of_one, "b");
	const struct segue_message attach = wish(of_one, b, 0), wait = wish(of_two, b, INT64_MAX);

	cr_assert_eq(segue_testpeer_ask(&one, &attach), SEGUE_MESSAGE_ATTACHED);
	const struct segue_message detach = {.type = SEGUE_MESSAGE_LANE_DETACH,
		.lane_detach = {.lease = one.reply.attached.lease}};
	segue_testpeer_send(&two, &wait);
	cr_assert_eq(segue_testpeer_ask(&one, &ask_group), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_EBUSY),
		"group 'b' of stream 's' cannot be dropped: lane 1 of it is held by process"));
	cr_assert_eq(segue_testpeer_ask(&one, &detach), SEGUE_MESSAGE_DONE);
	/* On its way to the other one, or held by it. */
	cr_assert_eq(segue_testpeer_ask(&one, &ask_group), SEGUE_MESSAGE_FAILURE);
	cr_assert(*segue_testpeer_failure(&one, SEGUE_EBUSY));
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_ATTACHED);
	segue_session_close(two.session);
	segue_testserver_settle(&test);
	cr_assert_eq(segue_testpeer_ask(&one, &ask_group), SEGUE_MESSAGE_DONE);
}

/* By its number nobody gets it any more, nor another group; the stream and its others are there. */
Test(dropping, of_a_group_by_its_number_nothing_is_found)
{
	uint64_t of_one = segue_testpeer_open(&one), of_two = segue_testpeer_open(&two);
	uint32_t b = group_of(&one, of_one, "b"), c = group_of(&one, of_one, "c"), number;
	const struct segue_message attach = wish(of_one, b, 0), other = wish(of_two, c, 0);
	const struct segue_message checkpoint = {.type = SEGUE_MESSAGE_CHECKPOINT,
		.checkpoint = {.stream = of_one, .group = b, .lane = 1}};
	uint32_t id = LIST_FIRST(&test.streams.all)->id;
	uint64_t memory = segue_testserver_taken(&test, SEGUE_LIMIT_MEMORY);

	cr_assert_eq(segue_testpeer_ask(&one, &attach), SEGUE_MESSAGE_ATTACHED);
	segue_testpeer_commit(&one, 1);
	segue_session_close(one.session);
	segue_testserver_settle(&test);
	segue_testpeer_close(&one);
	segue_testpeer_greet(&one, &test);
	of_one = segue_testpeer_open(&one);
	cr_assert_eq(segue_testpeer_ask(&two, &other), SEGUE_MESSAGE_ATTACHED);
	cr_assert_gt(count_under(id), 1);
	cr_assert_eq(segue_testpeer_ask(&one, &ask_group), SEGUE_MESSAGE_DONE);
	cr_assert_eq(one.reply.serial, 8);
	cr_assert_eq(notes(), 0);
	cr_assert_eq(count_under(id), 1, "the lane of the other group: %zu", count_under(id));
	struct segue_message again = attach;
	again.lane_attach.stream = of_one;
	cr_assert_eq(segue_testpeer_ask(&one, &again), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_ENOTFOUND), "has been dropped since"));
	again = checkpoint;
	again.checkpoint.stream = of_one;
	cr_assert_eq(segue_testpeer_ask(&one, &again), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_ENOTFOUND), "has been dropped since"));
	cr_assert_eq(segue_testpeer_ask(&one, &ask_group), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_ENOTFOUND), "has no group 'b'"));
	number = group_of(&one, of_one, "b");
	cr_assert_gt(number, c);
	segue_session_close(two.session);
	segue_testserver_settle(&test);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_MEMORY), memory, "it is paid back");
}

/* Until the first transaction is on disk: that group is not made anew, and all else goes on. */
Test(dropping, of_a_group_while_it_is_being_dropped)
{
	uint64_t of_one = segue_testpeer_open(&one);
	uint32_t b = group_of(&one, of_one, "b");
	const struct segue_message attach = wish(of_one, b, 0);
	struct segue_message make = {
		.type = SEGUE_MESSAGE_GROUP, .group = {.stream = of_one, .name = "b"}};

	segue_drop_request(two.session, &ask_group);
	cr_assert_eq(segue_drops_check(&test.server, "s", "b"), SEGUE_EBUSY);
	cr_assert(strstr(segue_error_detail(), "group 'b' of stream 's' is being dropped"));
	cr_assert_eq(segue_drops_check(&test.server, "s", NULL), SEGUE_EBUSY);
	cr_assert_eq(segue_drops_check(&test.server, "s", "c"), 0);
	cr_assert_eq(segue_drops_check(&test.server, "s", ""), 0);
	cr_assert_not(LIST_FIRST(&test.streams.all)->dropped);
	segue_drop_request(two.session, &ask_group);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&two, SEGUE_EBUSY), "being dropped just now"));
	cr_assert_eq(segue_testpeer_ask(&one, &make), SEGUE_MESSAGE_FAILURE);
	cr_assert_eq(segue_testpeer_ask(&one, &attach), SEGUE_MESSAGE_FAILURE);
	do
		segue_testpeer_receive(&two);
	while (two.reply.type == SEGUE_MESSAGE_PROGRESS);
	cr_assert_eq(two.reply.type, SEGUE_MESSAGE_DONE);
	cr_assert_gt(group_of(&one, of_one, "b"), b);
}

/* One that another client is having made just then may be the same. */
Test(dropping, of_a_group_not_while_one_is_being_made)
{
	uint64_t of_one = segue_testpeer_open(&one);
	const struct segue_message make = {
		.type = SEGUE_MESSAGE_GROUP, .serial = 9, .group = {.stream = of_one, .name = "c"}};

	group_of(&one, of_one, "b");
	segue_group_request(one.session, &make);
	/* Both before the loop runs, which may end it. */
	segue_drop_request(two.session, &ask_group);
	segue_drop_request(two.session, &ask);
	for (size_t i = 0; i < 2; i++) {
		cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_FAILURE);
		cr_assert(strstr(segue_testpeer_failure(&two, SEGUE_EBUSY), "being made just now"));
	}
	cr_assert_eq(segue_testpeer_receive(&one), SEGUE_MESSAGE_GROUPED);
	cr_assert_eq(segue_testpeer_ask(&two, &ask_group), SEGUE_MESSAGE_DONE);
}

Test(dropping, a_stop_leaves_the_rest_to_the_next_server)
{
	segue_testpeer_take(&two, segue_testpeer_open(&two), 0);
	uint32_t id = LIST_FIRST(&test.streams.all)->id;
	segue_session_close(two.session);
	segue_testserver_settle(&test);
	segue_drop_request(one.session, &ask);
	segue_drops_stop(&test.server);
	cr_assert_eq(segue_testpeer_receive(&one), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_EGONE), "goes on"));
	cr_assert_eq(notes(), 1);
	cr_assert_gt(count_under(id), 0);
	size_t applied = 0;
	const struct segue_dropping how = {.apply = apply_counted, .arg = &applied};
	OK(segue_drop_resume(test.server.store, &how));
	cr_assert_eq(applied, 2);
	cr_assert_eq(count_under(id) + notes(), 0);
}
