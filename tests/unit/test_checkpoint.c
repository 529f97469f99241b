/* Checkpoints: now, later, too late, for nobody; in the store before they are sent. */
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/wait.h"
#include "os/process.h"
#include "store/checkpoints.h"
#include "stream/checkpoint.h"
#include "stream/release.h"
#include "testserver.h"

#define SECOND INT64_C(1000000000)

static struct segue_testserver test;
static struct segue_testpeer peer, other;
static uint64_t stream;

static void start(void)
{
	segue_testserver_init(&test, "checkpoint");
	segue_testserver_start(&test);
	segue_testpeer_greet(&peer, &test);
	segue_testpeer_greet(&other, &test);
	stream = segue_testpeer_open(&peer);
}

static void stop(void)
{
	segue_testpeer_close(&peer);
	segue_testpeer_close(&other);
	segue_testserver_stop(&test);
	segue_testserver_finish(&test);
}

TestSuite(checkpoint, .init = start, .fini = stop, .timeout = 60);

static struct segue_message asking(uint32_t lane, uint64_t step, int64_t timeout_ns)
{
	return (struct segue_message){
		.type = SEGUE_MESSAGE_CHECKPOINT,
		.serial = 9,
		.checkpoint = {.stream = stream,
			.lane = lane,
			.step = step,
			.timeout_ns = timeout_ns},
	};
}

static struct segue_ledger *ledger_of(uint32_t lane)
{
	return segue_ledgers_find(&LIST_FIRST(&test.streams.all)->ledgers, NULL, 0, lane);
}

static size_t stored(uint32_t lane)
{
	struct segue_catalogue catalogue;

	cr_assert_eq(
		segue_catalogue_load(test.server.store, ledger_of(lane)->place, &catalogue), 0);
	return catalogue.count;
}

static bool is_tried(void *arg)
{
	(void)arg;
	return !LIST_EMPTY(&test.streams.checkpoints) && segue_loop_awaited(test.server.loop) == 0;
}

/* The lane is held by another session: this one's answers are those to its requests. */
static void hold_lane(void)
{
	segue_testpeer_take(&other, segue_testpeer_open(&other), 0);
}

Test(checkpoint, of_what_is_committed_it_comes_at_once_and_is_stored)
{
	struct segue_message ask = asking(0, 2, 0);

	hold_lane();
	segue_testpeer_commit(&other, 2);
	cr_assert_eq(segue_testpeer_ask(&peer, &ask), SEGUE_MESSAGE_BULK);
	cr_assert_eq(peer.reply.serial, 9);
	cr_assert_eq(peer.reply.bulk.step, 2);
	cr_assert_gt(peer.reply.bulk.size, 0);
	cr_assert_eq(stored(0), 1);
	cr_assert(LIST_EMPTY(&test.streams.checkpoints));
	cr_assert_eq(ledger_of(0)->checkpoints, 0);
	cr_assert_eq(ledger_of(0)->pins, 0);
	cr_assert_eq(peer.session->long_requests, 0);
}

Test(checkpoint, of_a_later_step_it_waits_for_it)
{
	struct segue_message ask = asking(0, 3, 0);

	hold_lane();
	segue_testpeer_send(&peer, &ask);
	cr_assert(segue_testserver_run(&test, is_tried, NULL));
	segue_testpeer_commit(&other, 3);
	cr_assert_eq(segue_testpeer_receive(&peer), SEGUE_MESSAGE_BULK);
	cr_assert_eq(peer.reply.bulk.step, 3);
	cr_assert_eq(stored(0), 1);
}

Test(checkpoint, it_waits_as_long_as_it_says)
{
	struct segue_message ask = asking(0, 3, SECOND / 20);

	hold_lane();
	int64_t before = segue_now_ns();
	cr_assert_eq(segue_testpeer_ask(&peer, &ask), SEGUE_MESSAGE_FAILURE);
	cr_assert_neq(*segue_testpeer_failure(&peer, SEGUE_ETIMEOUT), '\0');
	cr_assert_geq(segue_now_ns() - before, SECOND / 20);
	cr_assert_eq(stored(0), 0);
}

Test(checkpoint, of_a_lane_that_nobody_holds_the_store_is_read)
{
	struct segue_message ask = asking(0, 2, 0), late = asking(0, 1, 0);

	hold_lane();
	segue_testpeer_commit(&other, 2);
	segue_session_close(other.session);
	cr_assert_eq(segue_testpeer_ask(&peer, &ask), SEGUE_MESSAGE_BULK);
	cr_assert_eq(ledger_of(0)->lease.state, SEGUE_LEASE_FREE);
	cr_assert_eq(stored(0), 1);
	cr_assert_eq(segue_testpeer_ask(&peer, &late), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&peer, SEGUE_ELIMIT), "stands at step 2"));
}

/* Who is waited for is somebody who has the lane, or may yet come to it. */
Test(checkpoint, of_a_lane_that_nobody_holds_it_does_not_wait_for_long)
{
	struct segue_message ask = asking(0, 3, 100 * SECOND), never = asking(1, 3, 100 * SECOND);

	hold_lane();
	segue_testpeer_commit(&other, 2);
	segue_session_close(other.session);
	int64_t before = segue_now_ns();
	cr_assert_eq(segue_testpeer_ask(&peer, &ask), SEGUE_MESSAGE_FAILURE);
	const char *why = segue_testpeer_failure(&peer, SEGUE_EROUND);
	cr_assert(
		strstr(why, "lane 0 stands at step 2 and nobody holds it; a checkpoint of step 3"),
		"%s", why);
	cr_assert(strstr(why, "rounds()"), "%s", why);
	cr_assert_geq(segue_now_ns() - before, 2 * SECOND, "its worker may have come");
	cr_assert_leq(segue_now_ns() - before, 10 * SECOND);
	cr_assert_eq(segue_testpeer_ask(&peer, &never), SEGUE_MESSAGE_FAILURE);
	why = segue_testpeer_failure(&peer, SEGUE_EROUND);
	cr_assert(strstr(why, "lane 1 was never begun"), "%s", why);
}

static bool is_long_tried(void *arg)
{
	return segue_now_ns() > *(int64_t *)arg;
}

Test(checkpoint, a_worker_that_comes_is_waited_for)
{
	struct segue_message ask = asking(0, 1, 100 * SECOND);
	int64_t soon = segue_now_ns() + SECOND, late = soon + 3 * SECOND;

	segue_testpeer_send(&peer, &ask);
	cr_assert(segue_testserver_run(&test, is_long_tried, &soon));
	hold_lane(); /* like one that was slow to start */
	cr_assert(segue_testserver_run(&test, is_long_tried, &late));
	segue_testpeer_commit(&other, 1);
	cr_assert_eq(segue_testpeer_receive(&peer), SEGUE_MESSAGE_BULK);
	cr_assert_eq(peer.reply.bulk.step, 1);
}

/* After a restart of the server its worker may come back, as long as it lives. */
Test(checkpoint, a_reservation_is_waited_for)
{
	struct segue_message ask = asking(0, 3, 100 * SECOND);
	int64_t late = segue_now_ns() + 3 * SECOND;
	struct segue_lease *lease = &ledger_of(0)->lease;

	lease->state = SEGUE_LEASE_RESERVED;
	lease->reserved_until = INT64_MAX;
	segue_process_identify(getpid(), &lease->holder);
	segue_testpeer_send(&peer, &ask);
	cr_assert(segue_testserver_run(&test, is_long_tried, &late));
	cr_assert_not(LIST_EMPTY(&test.streams.checkpoints));
	lease->holder.start_time++; /* it is gone */
	cr_assert_eq(segue_testpeer_receive(&peer), SEGUE_MESSAGE_FAILURE);
	cr_assert_neq(*segue_testpeer_failure(&peer, SEGUE_EROUND), '\0');
	cr_assert_eq(lease->state, SEGUE_LEASE_FREE);
}

Test(checkpoint, what_is_not_there)
{
	struct segue_message ask = asking(4, 0, 0);

	cr_assert_eq(segue_testpeer_ask(&peer, &ask), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&peer, SEGUE_EINVAL), "no lane 4"));
	ask.checkpoint.stream++;
	cr_assert_eq(segue_testpeer_ask(&peer, &ask), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&peer, SEGUE_EPROTOCOL), "is not open"));
	cr_assert_eq(peer.session->long_requests, 0);
}

static bool nothing_is_left(void *arg)
{
	(void)arg;
	return LIST_EMPTY(&test.streams.checkpoints);
}

Test(checkpoint, it_goes_with_its_session)
{
	struct segue_message ask = asking(0, 3, 100 * SECOND);

	hold_lane();
	segue_testpeer_send(&peer, &ask);
	cr_assert(segue_testserver_run(&test, is_tried, NULL));
	segue_session_close(peer.session);
	cr_assert(segue_testserver_run(&test, nothing_is_left, NULL));
	cr_assert_eq(ledger_of(0)->checkpoints, 0);
	cr_assert_eq(stored(0), 0);
}

Test(checkpoint, a_server_that_stops_sends_it_to_the_next)
{
	struct segue_message ask = asking(0, 3, 100 * SECOND);

	hold_lane();
	segue_testpeer_send(&peer, &ask);
	cr_assert(segue_testserver_run(&test, is_tried, NULL));
	test.server.stopping = true;
	cr_assert_eq(segue_testpeer_receive(&peer), SEGUE_MESSAGE_FAILURE);
	cr_assert_neq(*segue_testpeer_failure(&peer, SEGUE_EGONE), '\0');
	cr_assert(LIST_EMPTY(&test.streams.checkpoints));
}

static bool is_written(void *arg)
{
	(void)arg;
	return ledger_of(0)->written;
}

/* The grant that is read is not taken down under it. */
Test(checkpoint, the_end_of_the_lease_waits_for_it)
{
	struct segue_message ask = asking(0, 2, 0);

	hold_lane();
	segue_testpeer_commit(&other, 2);
	segue_checkpoint_request(peer.session, &ask);
	cr_assert_eq(ledger_of(0)->pins, 1);
	segue_ledger_pin(ledger_of(0)); /* as one that takes longer does */
	segue_session_close(other.session);
	cr_assert_eq(segue_testpeer_receive(&peer), SEGUE_MESSAGE_BULK);
	cr_assert(segue_testserver_run(&test, is_written, NULL));
	cr_assert_eq(ledger_of(0)->pins, 1);
	cr_assert_not_null(ledger_of(0)->grant);
	segue_ledger_unpin(ledger_of(0));
	segue_testserver_settle(&test);
	cr_assert_null(ledger_of(0)->grant);
	cr_assert_eq(ledger_of(0)->lease.state, SEGUE_LEASE_FREE);
}
