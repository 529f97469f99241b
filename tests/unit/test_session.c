/* Sessions with callbacks of the test's: their states, their limits, what they leave behind. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/error.h"
#include "core/wait.h"
#include "session/request.h"
#include "session/upload.h"
#include "testserver.h"

#define SECOND INT64_C(1000000000)

static struct segue_testserver test;
static struct segue_testpeer peer;
static unsigned received, gone, cost;
static uint64_t last_serial;

static unsigned note_received(struct segue_session *session, const struct segue_message *message)
{
	received++;
	last_serial = message->serial;
	if (message->type == SEGUE_MESSAGE_HELLO)
		segue_session_greet(session, message->hello.program);
	else
		segue_session_send_done(session, message->serial);
	return cost;
}

static void note_gone(struct segue_session *session)
{
	cr_assert_eq(session->state, SEGUE_SESSION_LEAVING);
	gone++;
	segue_requests_session_gone(session);
	segue_uploads_session_gone(session);
}

static void start(void)
{
	segue_testserver_init(&test, "session");
	segue_testserver_start(&test);
	test.sessions.received = note_received;
	test.sessions.gone = note_gone;
	cost = 1;
}

static void stop(void)
{
	segue_testserver_stop(&test);
	segue_testserver_finish(&test);
}

TestSuite(session, .init = start, .fini = stop, .timeout = 60);

static void say(enum segue_message_type type, uint64_t serial)
{
	struct segue_message message = {.type = type, .serial = serial};

	if (type == SEGUE_MESSAGE_HELLO)
		message.hello.version = message.hello.program = "test";
	segue_testpeer_send(&peer, &message);
}

static bool has_received(void *arg)
{
	return received >= *(unsigned *)arg;
}

static void await_received(unsigned count)
{
	cr_assert(segue_testserver_run(&test, has_received, &count));
}

static bool all_gone(void *arg)
{
	(void)arg;
	return LIST_EMPTY(&test.sessions.all) && LIST_EMPTY(&test.sessions.leaving);
}

static void await_gone(void)
{
	cr_assert(segue_testserver_run(&test, all_gone, NULL));
}

static void connect_and_greet(void)
{
	segue_testpeer_connect(&peer, &test);
	cr_assert_not_null(peer.session);
	cr_assert_eq(peer.session->state, SEGUE_SESSION_NEW);
	say(SEGUE_MESSAGE_HELLO, 1);
	await_received(1);
	cr_assert_eq(peer.session->state, SEGUE_SESSION_SERVED);
}

/* ---- Life ---- */

Test(session, messages_come_and_answers_go)
{
	connect_and_greet();
	cr_assert_str_eq(peer.session->program, "test");
	say(SEGUE_MESSAGE_LANE_FLUSH, 77);
	cr_assert_eq(segue_testpeer_receive(&peer), SEGUE_MESSAGE_DONE);
	cr_assert_eq(peer.reply.serial, 77);
	cr_assert_eq(last_serial, 77);
	segue_testpeer_close(&peer);
}

Test(session, it_is_gone_once_when_its_peer_is)
{
	connect_and_greet();
	segue_testpeer_close(&peer);
	await_gone();
	cr_assert_eq(gone, 1);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_CONNECTIONS), 0);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_DESCRIPTORS), 0);
}

Test(session, it_may_be_closed_twice)
{
	connect_and_greet();
	segue_session_close(peer.session);
	segue_session_close(peer.session);
	await_gone();
	cr_assert_eq(gone, 1);
	segue_testpeer_close(&peer);
}

Test(session, who_says_no_hello_is_dropped)
{
	segue_testpeer_connect(&peer, &test);
	segue_sessions_tick(&test.server, segue_now_ns() + 4 * SECOND);
	cr_assert_eq(gone, 0);
	segue_sessions_tick(&test.server, segue_now_ns() + 6 * SECOND);
	cr_assert_eq(gone, 1);
	cr_assert_eq(segue_testpeer_receive(&peer), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&peer, SEGUE_ETIMEOUT), "no HELLO"));
	cr_assert_eq(segue_testpeer_receive(&peer), 0);
	segue_testpeer_close(&peer);
}

Test(session, who_has_said_it_is_not)
{
	connect_and_greet();
	segue_sessions_tick(&test.server, segue_now_ns() + 600 * SECOND);
	cr_assert_eq(gone, 0);
	segue_testpeer_close(&peer);
}

static bool is_midway(void *arg)
{
	(void)arg;
	return peer.session->frame_by != 0;
}

Test(session, a_frame_must_be_whole_in_time)
{
	connect_and_greet();
	cr_assert_eq(send(peer.socket, "SGF1", 4, MSG_NOSIGNAL), 4);
	cr_assert(segue_testserver_run(&test, is_midway, NULL));
	segue_sessions_tick(&test.server, segue_now_ns() + 9 * SECOND);
	cr_assert_eq(gone, 0);
	segue_sessions_tick(&test.server, segue_now_ns() + 11 * SECOND);
	cr_assert_eq(gone, 1);
	cr_assert_eq(segue_testpeer_receive(&peer), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&peer, SEGUE_ETIMEOUT), "was not whole"));
	segue_testpeer_close(&peer);
}

Test(session, after_a_hang_up_nothing_is_sent)
{
	connect_and_greet();
	segue_session_send_done(peer.session, 5);
	segue_session_hang_up(peer.session);
	segue_session_send_done(peer.session, 6);
	cr_assert_eq(peer.session->state, SEGUE_SESSION_FAILED);
	segue_session_greet(peer.session, "again");
	cr_assert_eq(peer.session->state, SEGUE_SESSION_FAILED);
	cr_assert_eq(segue_testpeer_receive(&peer), SEGUE_MESSAGE_DONE);
	cr_assert_eq(peer.reply.serial, 5);
	cr_assert_eq(segue_testpeer_receive(&peer), 0);
	cr_assert_eq(gone, 1);
	segue_testpeer_close(&peer);
}

/* ---- Limits ---- */

Test(session, connections_of_a_user)
{
	struct segue_testpeer second;

	test.rules.limits.value[SEGUE_LIMIT_CONNECTIONS] = 1;
	connect_and_greet();
	segue_testpeer_connect(&second, &test);
	cr_assert_null(second.session);
	cr_assert_eq(segue_testpeer_receive(&second), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&second, SEGUE_ELIMIT), "--max-connections"));
	segue_testpeer_close(&second);
	segue_testpeer_close(&peer);
	await_gone();
	segue_testpeer_connect(&second, &test);
	cr_assert_not_null(second.session);
	segue_testpeer_close(&second);
}

Test(session, who_sends_too_fast_is_read_later)
{
	test.rules.limits.value[SEGUE_LIMIT_FRAMES] = 10;
	cost = 4;
	connect_and_greet();
	for (uint64_t i = 0; i < 6; i++)
		say(SEGUE_MESSAGE_LANE_FLUSH, i);
	/* A second's worth at once, which the greeting has taken 4 of: two more, and one begun. */
	await_received(3);
	segue_testserver_settle(&test);
	cr_assert(segue_session_is_paused(peer.session));
	cr_assert_lt(received, 7);
	segue_sessions_tick(&test.server, segue_now_ns() + 100 * SECOND);
	cr_assert_not(segue_session_is_paused(peer.session));
	await_received(7);
	segue_testpeer_close(&peer);
}

Test(session, descriptors_that_a_peer_does_not_read_are_its_user_s)
{
	unsigned sent = 0;

	connect_and_greet();
	uint64_t place = segue_testserver_taken(&test, SEGUE_LIMIT_DESCRIPTORS);
	while (peer.session->state == SEGUE_SESSION_SERVED && sent < 1000) {
		segue_session_send_bulk(peer.session, 1, "x", 1);
		sent++;
		if (sent == SEGUE_FRAME_FDS)
			cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_DESCRIPTORS), place);
		if (sent == SEGUE_FRAME_FDS + 3)
			cr_assert_eq(
				segue_testserver_taken(&test, SEGUE_LIMIT_DESCRIPTORS), place + 3);
	}
	cr_assert_eq(sent, 65, "64 may be on their way");
	segue_testpeer_close(&peer);
	await_gone();
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_DESCRIPTORS), 0);
}

/* ---- Requests ---- */

struct work {
	struct segue_request base;
	int rc;
	bool worked, done, over;
};

static int do_work(struct segue_request *base)
{
	struct work *work = (struct work *)base;

	work->worked = true;
	return work->rc ? segue_fail(work->rc, "as the test wants") : 0;
}

static void note_done(struct segue_task *task)
{
	struct work *work = (struct work *)task;

	work->over = segue_request_is_over(&work->base);
	segue_request_end(&work->base);
	work->done = true;
}

static bool is_done(void *arg)
{
	return ((struct work *)arg)->done;
}

Test(session, a_request_that_fails_says_why)
{
	struct work work = {.rc = SEGUE_ENOTFOUND};

	connect_and_greet();
	cr_assert_eq(segue_request_run(&work.base, peer.session, 9, do_work, note_done), 0);
	cr_assert_eq(segue_testpeer_receive(&peer), SEGUE_MESSAGE_FAILURE);
	cr_assert_eq(peer.reply.serial, 9);
	cr_assert_str_eq(segue_testpeer_failure(&peer, SEGUE_ENOTFOUND), "as the test wants");
	cr_assert(work.done && work.over);
	segue_testpeer_close(&peer);
}

Test(session, nobody_waits_for_the_requests_of_one_that_is_gone)
{
	struct work work = {0};

	connect_and_greet();
	cr_assert_eq(segue_request_begin(&work.base, peer.session, 9), 0);
	segue_session_close(peer.session);
	cr_assert_null(work.base.session);
	cr_assert(segue_request_given_up(&work.base));
	cr_assert(segue_request_is_over(&work.base));
	segue_request_end(&work.base);
	segue_testpeer_close(&peer);
	await_gone();
}

Test(session, what_is_given_up_is_not_begun)
{
	struct work first = {0}, second = {0};

	connect_and_greet();
	cr_assert_eq(segue_request_begin(&first.base, peer.session, 1), 0);
	segue_requests_give_up(&test.server);
	cr_assert(segue_request_given_up(&first.base));
	cr_assert_eq(first.base.session, peer.session, "it is to be answered still");
	segue_request_end(&first.base);
	second.base.given_up = true;
	cr_assert_eq(segue_request_run(&second.base, peer.session, 2, do_work, note_done), 0);
	cr_assert(segue_testserver_run(&test, is_done, &second));
	cr_assert_not(second.worked);
	cr_assert_eq(second.base.task.outcome.rc, SEGUE_EGONE);
	segue_testpeer_close(&peer);
}

Test(session, long_requests_are_limited_and_none_is_begun_in_a_stop)
{
	static struct work work[257];
	struct work brief = {0};

	connect_and_greet();
	for (size_t i = 0; i < 256; i++) {
		work[i].base.is_long = true;
		cr_assert_eq(segue_request_begin(&work[i].base, peer.session, i), 0);
	}
	work[256].base.is_long = true;
	cr_assert_eq(segue_request_begin(&work[256].base, peer.session, 256), SEGUE_ELIMIT);
	cr_assert_eq(segue_request_begin(&brief.base, peer.session, 300), 0);
	segue_request_end(&brief.base);
	segue_request_end(&work[0].base);
	cr_assert_eq(segue_request_begin(&work[256].base, peer.session, 256), 0);
	for (size_t i = 1; i < 257; i++)
		segue_request_end(&work[i].base);
	cr_assert_eq(peer.session->long_requests, 0);
	test.server.stopping = true;
	cr_assert_eq(segue_request_begin(&work[0].base, peer.session, 1), SEGUE_EGONE);
	segue_testpeer_close(&peer);
}

/* ---- Uploads ---- */

static void ask_upload(uint64_t size)
{
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_UPLOAD, .serial = 4, .upload = {.size = size}};

	segue_upload_request(peer.session, &message);
	cr_assert_neq(segue_testpeer_receive(&peer), 0);
}

Test(session, an_upload_is_filled_and_read)
{
	struct segue_upload *upload;
	uint8_t *bytes;
	size_t size;

	connect_and_greet();
	ask_upload(3);
	cr_assert_eq(peer.reply.type, SEGUE_MESSAGE_BULK);
	cr_assert_eq(pwrite(peer.fds[0], "abc", 3, 0), 3);
	uint64_t id = peer.reply.bulk.id;
	cr_assert_eq(segue_upload_take(peer.session, id + 1, &upload), SEGUE_EPROTOCOL);
	cr_assert_eq(segue_upload_take(peer.session, id, &upload), 0);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_UPLOADS), 3);
	cr_assert_eq(segue_upload_read(upload, &bytes, &size), 0);
	cr_assert(size == 3 && memcmp(bytes, "abc", 3) == 0);
	free(bytes);
	segue_upload_destroy(upload);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_UPLOADS), 0);
	cr_assert_eq(segue_upload_take(peer.session, id, &upload), SEGUE_EPROTOCOL, "only once");
	cr_assert_eq(segue_upload_take(peer.session, 0, &upload), 0);
	cr_assert_null(upload);
	segue_testpeer_close(&peer);
}

Test(session, uploads_that_are_not_used_go_with_it)
{
	connect_and_greet();
	ask_upload(4 << 20);
	ask_upload(10);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_UPLOADS), (4 << 20) + 10);
	segue_testpeer_close(&peer);
	await_gone();
	segue_testserver_settle(&test);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_UPLOADS), 0);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_DESCRIPTORS), 0);
}

Test(session, an_upload_that_is_too_large_takes_nothing)
{
	test.rules.limits.value[SEGUE_LIMIT_UPLOADS] = 1 << 20;
	connect_and_greet();
	uint64_t descriptors = segue_testserver_taken(&test, SEGUE_LIMIT_DESCRIPTORS);
	ask_upload((1 << 20) + 1);
	cr_assert(strstr(segue_testpeer_failure(&peer, SEGUE_ELIMIT), "--max-uploads"));
	ask_upload(0);
	cr_assert(strstr(segue_testpeer_failure(&peer, SEGUE_EPROTOCOL), "0 bytes"));
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_UPLOADS), 0);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_DESCRIPTORS), descriptors);
	segue_testpeer_close(&peer);
}
