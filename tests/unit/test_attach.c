/* Asking for a lane: who gets it, who waits, until when, and for nothing. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/error.h"
#include "core/wait.h"
#include "stream/attach.h"
#include "stream/streams.h"
#include "testserver.h"

#define SECOND INT64_C(1000000000)
/* What a loaded machine needs at most for what waits for nothing: others wait for 100 s. */
#define SOON (15 * SECOND)

static struct segue_testserver test;
static struct segue_testpeer one, two;
static uint64_t of_one, of_two; /* the stream */

static void come(void)
{
	segue_testserver_start(&test);
	segue_testpeer_greet(&one, &test);
	segue_testpeer_greet(&two, &test);
	of_one = segue_testpeer_open(&one);
	of_two = segue_testpeer_open(&two);
}

static void go(void)
{
	segue_testpeer_close(&one);
	segue_testpeer_close(&two);
	segue_testserver_stop(&test);
}

static void start(void)
{
	segue_testserver_init(&test, "attach");
	come();
}

static void stop(void)
{
	go();
	segue_testserver_finish(&test);
}

TestSuite(attach, .init = start, .fini = stop, .timeout = 60);

static struct segue_ledger *ledger_of(uint32_t lane)
{
	return segue_ledgers_find(&LIST_FIRST(&test.streams.all)->ledgers, NULL, 0, lane);
}

static bool waits(void *arg)
{
	return !TAILQ_EMPTY(&ledger_of(*(uint32_t *)arg)->waiting);
}

static void await_waiting(uint32_t lane)
{
	cr_assert(segue_testserver_run(&test, waits, &lane));
}

/* Asks at once for lane 0: its grant is being made when this returns. */
static void begin_to_ask(
	const struct segue_testpeer *peer, uint64_t stream, enum segue_attach_mode mode)
{
	const struct segue_message attach = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.serial = 3,
		.lane_attach = {.stream = stream, .mode = mode}};

	segue_attach_request(peer->session, &attach);
	cr_assert_not_null(ledger_of(0)->making);
}

/* Asks for lane 0 as a newer handle of its process does. */
static void want_to_take(struct segue_testpeer *peer, uint64_t stream)
{
	const struct segue_message attach = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.serial = 3,
		.lane_attach = {.stream = stream, .mode = SEGUE_ATTACH_CONTINUE, .take = true}};

	segue_testpeer_send(peer, &attach);
}

/* Asks for lane 0 before the loop runs again; would wait for 100 s. */
static void ask_now(const struct segue_testpeer *peer, uint64_t stream, enum segue_attach_mode mode)
{
	const struct segue_message attach = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.serial = 3,
		.lane_attach = {.stream = stream, .mode = mode, .timeout_ns = 100 * SECOND}};

	segue_attach_request(peer->session, &attach);
}

/* What the server takes it for: all peers are this process. */
static void become_another_process(const struct segue_testpeer *peer)
{
	peer->session->holder.start_time++;
}

static uint64_t generation_on_page(int page)
{
	uint64_t generation;

	cr_assert_eq(pread(page, &generation, sizeof(generation),
			     offsetof(struct segue_lease_page, generation)),
		sizeof(generation));
	return generation;
}

static void detach(struct segue_testpeer *peer, uint64_t lease)
{
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_LANE_DETACH, .serial = 6, .lane_detach = {.lease = lease}};

	cr_assert_eq(segue_testpeer_ask(peer, &message), SEGUE_MESSAGE_DONE);
}

Test(attach, a_free_lane_is_granted_and_given_back)
{
	uint64_t memory = segue_testserver_taken(&test, SEGUE_LIMIT_MEMORY);
	uint64_t lease = segue_testpeer_take(&one, of_one, 2);

	cr_assert_eq(one.session->lanes, 1);
	cr_assert_eq(ledger_of(2)->lease.state, SEGUE_LEASE_HELD);
	cr_assert_gt(segue_testserver_taken(&test, SEGUE_LIMIT_MEMORY), memory);
	segue_testpeer_commit(&one, 2);
	detach(&one, lease);
	cr_assert_eq(one.session->lanes, 0);
	cr_assert_eq(ledger_of(2)->lease.state, SEGUE_LEASE_FREE);
	cr_assert_eq(ledger_of(2)->durable, 2);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_MEMORY), memory);
	segue_testpeer_take(&two, of_two, 2);
	cr_assert_eq(two.reply.attached.step, 2);
}

Test(attach, who_waits_gets_it_when_the_holder_goes)
{
	uint64_t lease = segue_testpeer_take(&one, of_one, 0);

	segue_testpeer_want(&two, of_two, 0, SEGUE_ATTACH_CONTINUE, 0);
	await_waiting(0);
	detach(&one, lease);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_ATTACHED);
	cr_assert_eq(ledger_of(0)->session, two.session);
}

Test(attach, a_session_that_goes_leaves_its_lanes_to_who_waits)
{
	segue_testpeer_take(&one, of_one, 0);
	segue_testpeer_want(&two, of_two, 0, SEGUE_ATTACH_CONTINUE, 0);
	await_waiting(0);
	segue_session_close(one.session);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_ATTACHED);
}

Test(attach, the_oldest_request_comes_first)
{
	struct segue_testpeer three;

	segue_testpeer_greet(&three, &test);
	uint64_t of_three = segue_testpeer_open(&three);
	uint64_t lease = segue_testpeer_take(&one, of_one, 0);
	segue_testpeer_want(&two, of_two, 0, SEGUE_ATTACH_CONTINUE, 0);
	await_waiting(0);
	segue_testpeer_want(&three, of_three, 0, SEGUE_ATTACH_CONTINUE, 0);
	detach(&one, lease);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_ATTACHED);
	segue_testserver_settle(&test);
	cr_assert_eq(ledger_of(0)->session, two.session);
	segue_session_close(two.session);
	cr_assert_eq(segue_testpeer_receive(&three), SEGUE_MESSAGE_ATTACHED);
	segue_testpeer_close(&three);
}

Test(attach, it_waits_as_long_as_it_says)
{
	segue_testpeer_take(&one, of_one, 0);
	segue_testpeer_want(&two, of_two, 0, SEGUE_ATTACH_CONTINUE, 100 * SECOND);
	await_waiting(0);
	segue_streams_tick(&test.server, segue_now_ns() + 99 * SECOND);
	cr_assert_eq(two.session->lanes, 1);
	segue_streams_tick(&test.server, segue_now_ns() + 101 * SECOND);
	cr_assert_eq(two.session->lanes, 0);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_FAILURE);
	cr_assert(
		strstr(segue_testpeer_failure(&two, SEGUE_EBUSY), "lane 0 of stream 's' is held"));
	cr_assert_eq(ledger_of(0)->session, one.session);
}

Test(attach, another_process_waits_and_is_told_who_has_it)
{
	char who[64];

	become_another_process(&two);
	segue_testpeer_take(&one, of_one, 0);
	want_to_take(&two, of_two);
	await_waiting(0);
	cr_assert_eq(ledger_of(0)->session, one.session, "it takes nothing from another process");
	segue_streams_tick(&test.server, segue_now_ns() + 11 * SECOND);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_FAILURE);
	snprintf(who, sizeof(who), "held by process %ld (test_attach)", (long)getpid());
	cr_assert(strstr(segue_testpeer_failure(&two, SEGUE_EBUSY), who), "%s",
		two.reply.failure.detail);
	cr_assert_eq(ledger_of(0)->session, one.session);
	cr_assert_eq(generation_on_page(one.fds[2]), 1);
}

Test(attach, a_newer_session_of_the_process_takes_it_over)
{
	segue_testpeer_take(&one, of_one, 0);
	segue_testpeer_commit(&one, 2);
	want_to_take(&two, of_two);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_ATTACHED);
	cr_assert_eq(two.reply.attached.step, 2, "its last commit stands");
	cr_assert_eq(two.reply.attached.generation, 2);
	cr_assert_eq(ledger_of(0)->durable, 2, "and is on disk");
	cr_assert_eq(ledger_of(0)->session, two.session);
	cr_assert_eq(one.session->lanes, 0);
	cr_assert_neq(generation_on_page(one.fds[2]), 1, "it is fenced");
	cr_assert_eq(generation_on_page(two.fds[2]), 2);
}

Test(attach, who_takes_it_over_comes_before_those_who_wait)
{
	struct segue_testpeer three;

	segue_testpeer_greet(&three, &test);
	uint64_t of_three = segue_testpeer_open(&three);
	become_another_process(&three);
	segue_testpeer_take(&one, of_one, 0);
	segue_testpeer_want(&three, of_three, 0, SEGUE_ATTACH_CONTINUE, 0);
	await_waiting(0);
	want_to_take(&two, of_two);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_ATTACHED);
	segue_testserver_settle(&test);
	cr_assert_eq(ledger_of(0)->session, two.session);
	segue_session_close(two.session);
	cr_assert_eq(segue_testpeer_receive(&three), SEGUE_MESSAGE_ATTACHED);
	segue_testpeer_close(&three);
}

static void expect_refused(struct segue_testpeer *peer)
{
	cr_assert_eq(segue_testpeer_receive(peer), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(peer, SEGUE_EFENCED), "has passed to another"),
		"%s", peer->reply.failure.detail);
}

/* Of its own process or not: two handles would throw each other out for ever. */
Test(attach, what_the_library_asks_of_a_held_lane_is_refused_at_once)
{
	segue_testpeer_take(&one, of_one, 0);
	for (int i = 0; i < 2; i++) {
		ask_now(&two, of_two, SEGUE_ATTACH_RESUME);
		cr_assert(TAILQ_EMPTY(&ledger_of(0)->waiting));
		expect_refused(&two);
		ask_now(&two, of_two, SEGUE_ATTACH_OFFER);
		cr_assert(TAILQ_EMPTY(&ledger_of(0)->waiting));
		expect_refused(&two);
		become_another_process(&two);
	}
	cr_assert_eq(two.session->lanes, 0);
	cr_assert_eq(ledger_of(0)->session, one.session);
	cr_assert_eq(generation_on_page(one.fds[2]), 1);
}

Test(attach, what_the_library_asks_while_it_is_granted_is_refused_then)
{
	struct segue_testpeer three, four;

	segue_testpeer_greet(&three, &test);
	segue_testpeer_greet(&four, &test);
	uint64_t of_three = segue_testpeer_open(&three), of_four = segue_testpeer_open(&four);
	begin_to_ask(&one, of_one, SEGUE_ATTACH_CONTINUE);
	ask_now(&two, of_two, SEGUE_ATTACH_RESUME);
	ask_now(&four, of_four, SEGUE_ATTACH_CONTINUE);
	ask_now(&three, of_three, SEGUE_ATTACH_OFFER);
	cr_assert_eq(segue_testpeer_receive(&one), SEGUE_MESSAGE_ATTACHED);
	int64_t before = segue_now_ns();
	expect_refused(&two);
	expect_refused(&three);
	cr_assert_lt(segue_now_ns() - before, SOON);
	cr_assert_eq(four.session->lanes, 1, "who asks for it anew goes on waiting");
	detach(&one, one.reply.attached.lease);
	cr_assert_eq(segue_testpeer_receive(&four), SEGUE_MESSAGE_ATTACHED);
	segue_testpeer_close(&three);
	segue_testpeer_close(&four);
}

/* Who takes a lane that is just being granted to an older handle takes it then. */
Test(attach, a_lane_that_is_granted_meanwhile_is_taken_over_at_once)
{
	const struct segue_message attach = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.serial = 3,
		.lane_attach = {.stream = of_two, .mode = SEGUE_ATTACH_CONTINUE, .take = true}};

	begin_to_ask(&one, of_one, SEGUE_ATTACH_CONTINUE);
	segue_attach_request(two.session, &attach);
	cr_assert_eq(segue_testpeer_receive(&one), SEGUE_MESSAGE_ATTACHED);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_ATTACHED);
	cr_assert_eq(ledger_of(0)->session, two.session);
}

/* The end of a connection may be told after the request of the next one. */
Test(attach, who_goes_on_waits_for_the_end_of_its_lost_connection)
{
	segue_testpeer_take(&one, of_one, 0);
	segue_testpeer_commit(&one, 1);
	cr_assert_eq(shutdown(one.socket, SHUT_RDWR), 0);
	ask_now(&two, of_two, SEGUE_ATTACH_RESUME);
	cr_assert_not(TAILQ_EMPTY(&ledger_of(0)->waiting));
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_ATTACHED);
	cr_assert_eq(two.reply.attached.step, 1);
}

Test(attach, the_lost_connection_of_another_process_is_not_waited_for)
{
	become_another_process(&two);
	segue_testpeer_take(&one, of_one, 0);
	cr_assert_eq(shutdown(one.socket, SHUT_RDWR), 0);
	ask_now(&two, of_two, SEGUE_ATTACH_RESUME);
	expect_refused(&two);
}

Test(attach, its_own_lane_is_busy_at_once)
{
	segue_testpeer_take(&one, of_one, 0);
	segue_testpeer_want(&one, of_one, 0, SEGUE_ATTACH_CONTINUE, 0);
	cr_assert_eq(segue_testpeer_receive(&one), SEGUE_MESSAGE_FAILURE);
	cr_assert_neq(*segue_testpeer_failure(&one, SEGUE_EBUSY), '\0');
	cr_assert_eq(one.session->lanes, 1);
}

Test(attach, lanes_that_are_not_there)
{
	segue_testpeer_want(&one, of_one, 4, SEGUE_ATTACH_CONTINUE, 0);
	cr_assert_eq(segue_testpeer_receive(&one), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_EINVAL), "lanes 0 to 3, not 4"));
	segue_testpeer_want(&one, of_two, 0, SEGUE_ATTACH_CONTINUE, 0);
	cr_assert_eq(segue_testpeer_receive(&one), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_EPROTOCOL), "is not open"));
}

/* What came with it is freed after it is said what is wrong, not before. */
Test(attach, what_is_wrong_is_said_while_the_server_stops)
{
	const struct segue_message upload = {
		.type = SEGUE_MESSAGE_UPLOAD, .serial = 4, .upload = {.size = 2 << 20}};
	struct segue_message attach = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.serial = 5,
		.lane_attach = {.stream = of_one, .lane = 4}};

	cr_assert_eq(segue_testpeer_ask(&one, &upload), SEGUE_MESSAGE_BULK);
	attach.lane_attach.upload = one.reply.bulk.id;
	segue_guard_close(test.server.guard);
	cr_assert_eq(segue_testpeer_ask(&one, &attach), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_EINVAL), "lanes 0 to 3"), "%s",
		one.reply.failure.detail);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_UPLOADS), 0);
}

Test(attach, a_request_goes_with_its_session)
{
	segue_testpeer_take(&one, of_one, 0);
	segue_testpeer_want(&two, of_two, 0, SEGUE_ATTACH_CONTINUE, 0);
	await_waiting(0);
	segue_session_close(two.session);
	cr_assert(TAILQ_EMPTY(&ledger_of(0)->waiting));
}

Test(attach, one_that_is_made_for_nobody_changes_nothing)
{
	begin_to_ask(&two, of_two, SEGUE_ATTACH_CONTINUE);
	segue_session_close(two.session);
	segue_testserver_settle(&test);
	segue_testserver_settle(&test);
	cr_assert_eq(ledger_of(0)->lease.state, SEGUE_LEASE_FREE);
	cr_assert_null(ledger_of(0)->account);
	segue_testpeer_take(&one, of_one, 0);
}

Test(attach, closing_the_stream_ends_what_came_through_it)
{
	const struct segue_message close = {.type = SEGUE_MESSAGE_STREAM_CLOSE,
		.serial = 8,
		.stream_close = {.stream = of_two}};

	segue_testpeer_take(&one, of_one, 0);
	segue_testpeer_take(&two, of_two, 1);
	segue_testpeer_want(&two, of_two, 0, SEGUE_ATTACH_CONTINUE, 0);
	await_waiting(0);
	segue_testpeer_send(&two, &close);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_FAILURE);
	cr_assert_str_eq(segue_testpeer_failure(&two, SEGUE_EINVAL),
		"stream 's' was closed while a lane of it was asked for");
	cr_assert_eq(two.reply.serial, 3);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_DONE);
	cr_assert_eq(two.session->lanes, 0);
	segue_testserver_settle(&test);
	cr_assert_eq(ledger_of(0)->lease.state, SEGUE_LEASE_HELD);
	cr_assert_eq(ledger_of(1)->lease.state, SEGUE_LEASE_FREE);
}

Test(attach, limits)
{
	uint64_t *limit = test.rules.limits.value;

	limit[SEGUE_LIMIT_LANES] = 1;
	segue_testpeer_take(&one, of_one, 0);
	segue_testpeer_want(&one, of_one, 1, SEGUE_ATTACH_CONTINUE, 0);
	cr_assert_eq(segue_testpeer_receive(&one), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_ELIMIT), "--max-lanes"));
	limit[SEGUE_LIMIT_MEMORY] = segue_testserver_taken(&test, SEGUE_LIMIT_MEMORY) + 1;
	segue_testpeer_want(&two, of_two, 1, SEGUE_ATTACH_CONTINUE, 0);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&two, SEGUE_ELIMIT), "--max-memory"));
	cr_assert_eq(ledger_of(1)->lease.state, SEGUE_LEASE_FREE);
	cr_assert_eq(two.session->lanes, 0);
}

Test(attach, a_worker_that_writes_nonsense_loses_the_lane)
{
	const uint64_t absurd = UINT64_C(1) << 40;

	segue_testpeer_take(&one, of_one, 0);
	segue_testpeer_commit(&one, 1);
	cr_assert_eq(pwrite(one.fds[1], &absurd, sizeof(absurd),
			     offsetof(struct segue_carry_header, committed)),
		sizeof(absurd));
	segue_event_ring(one.fds[3]);
	segue_testpeer_want(&two, of_two, 0, SEGUE_ATTACH_CONTINUE, 0);
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_ATTACHED);
	cr_assert_leq(two.reply.attached.step, 1);
}

Test(attach, a_stop_keeps_the_lane_for_its_holder)
{
	segue_testpeer_take(&one, of_one, 0);
	segue_testpeer_commit(&one, 1);
	segue_testpeer_want(&two, of_two, 0, SEGUE_ATTACH_CONTINUE, 0);
	await_waiting(0);
	test.server.stopping = true;
	segue_streams_stop(&test.server);
	segue_testserver_settle(&test);
	cr_assert_eq(ledger_of(0)->lease.state, SEGUE_LEASE_FREE);
	cr_assert_not(TAILQ_EMPTY(&ledger_of(0)->waiting), "it is given to nobody");
	go();
	come();
	cr_assert_eq(ledger_of(0)->lease.state, SEGUE_LEASE_RESERVED);
	cr_assert_eq(ledger_of(0)->durable, 1);
}

/* A grant that fails leaves the lane as it was: here reserved, and for who waits to ask for. */
Test(attach, after_one_that_fails_the_next_may_ask)
{
	segue_testpeer_take(&one, of_one, 0);
	segue_testpeer_commit(&one, 1);
	test.server.stopping = true;
	segue_streams_stop(&test.server);
	segue_testserver_settle(&test);
	go();
	come();
	begin_to_ask(&one, of_one, SEGUE_ATTACH_NONE); /* it has begun: refused */
	segue_testpeer_want(&two, of_two, 0, SEGUE_ATTACH_CONTINUE, 0);
	int64_t before = segue_now_ns();
	cr_assert_eq(segue_testpeer_receive(&two), SEGUE_MESSAGE_ATTACHED);
	cr_assert_lt(segue_now_ns() - before, SOON);
	cr_assert_eq(segue_testpeer_receive(&one), SEGUE_MESSAGE_FAILURE);
	cr_assert_neq(*segue_testpeer_failure(&one, SEGUE_ESTART), '\0');
}
