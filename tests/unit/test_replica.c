/* Replicas that follow a lease, as the server has them: what they are told, and who is named. */
#include <criterion/criterion.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/layout.h"
#include "core/wait.h"
#include "testserver.h"

#define MS INT64_C(1000000)

static struct segue_testserver test;
static struct segue_testpeer leader, follower;
static uint64_t of_leader, of_follower; /* the stream */

static void start(void)
{
	segue_testserver_init(&test, "replica");
	segue_testserver_start(&test);
	segue_testpeer_greet(&leader, &test);
	segue_testpeer_greet(&follower, &test);
	of_leader = segue_testpeer_open(&leader);
	of_follower = segue_testpeer_open(&follower);
}

static void stop(void)
{
	segue_testpeer_close(&leader);
	segue_testpeer_close(&follower);
	segue_testserver_stop(&test);
	segue_testserver_finish(&test);
}

TestSuite(replica, .init = start, .fini = stop, .timeout = 60);

/* Ring, carry, page and event stay open until the leader is told something else. */
static uint64_t take(void)
{
	const struct segue_message attach = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.serial = 3,
		.lane_attach = {.stream = of_leader, .mode = SEGUE_ATTACH_CONTINUE, .replicas = 2}};

	cr_assert_eq(segue_testpeer_ask(&leader, &attach), SEGUE_MESSAGE_ATTACHED);
	return leader.reply.attached.lease;
}

static int ask_to_follow(void)
{
	const struct segue_message follow = {.type = SEGUE_MESSAGE_LANE_FOLLOW,
		.serial = 4,
		.lane_follow = {.stream = of_follower,
			.replica = 1,
			.replicas = 2,
			.step = SEGUE_NEVER,
			.timeout_ns = 20 * MS}};

	return segue_testpeer_ask(&follower, &follow);
}

static uint64_t follow(void)
{
	cr_assert_eq(ask_to_follow(), SEGUE_MESSAGE_FOLLOWING, "%s", follower.reply.failure.detail);
	return follower.reply.attached.lease;
}

static void give_back(struct segue_testpeer *peer, uint64_t lease)
{
	const struct segue_message detach = {
		.type = SEGUE_MESSAGE_LANE_DETACH, .serial = 5, .lane_detach = {.lease = lease}};

	cr_assert_eq(segue_testpeer_ask(peer, &detach), SEGUE_MESSAGE_DONE);
}

#define put(fd, type, member, value)                                                               \
	do {                                                                                       \
		__typeof__(((type *)0)->member) word_ = (value);                                   \
		cr_assert_eq(pwrite((fd), (void *)&word_, sizeof(word_), offsetof(type, member)),  \
			sizeof(word_));                                                            \
	} while (0)

static uint32_t in_page(size_t at)
{
	uint32_t word;

	cr_assert_eq(pread(leader.fds[2], &word, sizeof(word), (off_t)at), sizeof(word));
	return word;
}

static uint32_t followers(void)
{
	return in_page(offsetof(struct segue_lease_page, followers));
}

static uint32_t gone(void)
{
	return in_page(offsetof(struct segue_lease_page, gone));
}

static bool is_published(void *arg)
{
	uint64_t published;

	(void)arg;
	cr_assert_eq(pread(leader.fds[0], &published, sizeof(published),
			     offsetof(struct segue_ring_header, published)),
		sizeof(published));
	return published >= 2;
}

Test(replica, a_new_one_is_told_how_often_its_batch_was_taken)
{
	take();
	cr_assert(segue_testserver_run(&test, is_published, NULL));
	uint64_t lease = follow();
	cr_assert_eq(follower.reply.attached.step, 0);
	cr_assert_eq(follower.reply.attached.taken, 0);
	give_back(&follower, lease);
	put(leader.fds[1], struct segue_carry_header, taken, 1);
	lease = follow();
	cr_assert_eq(follower.reply.attached.step, 0);
	cr_assert_eq(follower.reply.attached.taken, 1);
	give_back(&follower, lease);
	put(leader.fds[1], struct segue_carry_header, again[0], 2);
	lease = follow();
	cr_assert_eq(follower.reply.attached.taken, 3);
	give_back(&follower, lease);
	put(leader.fds[1], struct segue_carry_header, committed, 1);
	lease = follow();
	cr_assert_eq(follower.reply.attached.step, 1);
	cr_assert_eq(follower.reply.attached.taken, 0);
}

Test(replica, each_that_went_is_counted_whoever_has_come)
{
	take();
	uint64_t lease = follow();
	cr_assert_eq(followers(), 1);
	cr_assert_eq(gone(), 0);
	give_back(&follower, lease);
	follow();
	cr_assert_eq(followers(), 1);
	cr_assert_eq(gone(), 1);
}

Test(replica, nonsense_is_found_without_a_ring)
{
	take();
	follow();
	put(follower.fds[4], struct segue_carry_header, committed, UINT64_C(1) << 63);
	segue_testserver_tick(&test, segue_now_ns());
	cr_assert_eq(followers(), 0);
	cr_assert_eq(gone(), 1);
}

static void expect_absent(const char *what)
{
	ask_to_follow();
	const char *says = segue_testpeer_failure(&follower, SEGUE_EREPLICA);
	cr_assert(strstr(says, what), "%s", says);
}

Test(replica, it_is_said_what_is_known_of_a_leader_that_is_not_there)
{
	char given[64];

	expect_absent("lane 0 of stream 's' waits for replica 0: no process has ever taken");
	give_back(&leader, take());
	snprintf(given, sizeof(given), "process %d, which had the lane last, has given it back",
		(int)getpid());
	expect_absent(given);
}
