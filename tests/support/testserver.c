#include "testserver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/layout.h"
#include "core/wait.h"
#include "engine/committer.h"
#include "serve/requests.h"
#include "stream/checkpoint.h"
#include "stream/streams.h"
#include "tfwrite.h"

#define PATIENCE_NS INT64_C(20000000000)

#define must(holds)                                                                                \
	do {                                                                                       \
		if (!(holds)) {                                                                    \
			fprintf(stderr, "%s: %s (%s)\n", __func__, #holds, segue_error_detail());  \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static void storage_news(void *arg, const struct segue_outcome *outcome)
{
	struct segue_testserver *test = arg;

	test->server.storage = *outcome;
	segue_streams_storage(&test->server);
}

void segue_testserver_init(struct segue_testserver *test, const char *name)
{
	*test = (struct segue_testserver){0};
	segue_tmpdir_make(&test->dir, name);
	segue_tmpdir_path(&test->dir, "store", test->store);
	must(mkdir(test->store, 0700) == 0);
	must(segue_store_open(test->store, SEGUE_STORE_SERVE, &test->server.store) == 0);
}

void segue_testserver_start(struct segue_testserver *test)
{
	struct segue_server *server = &test->server;

	*server = (struct segue_server){
		.dir = test->store,
		.socket_path = test->store,
		.instance = 1,
		.started_ns = segue_now_ns(),
		.store = server->store,
		.sessions = &test->sessions,
		.streams = &test->streams,
	};
	test->sessions = (struct segue_sessions){
		.received = segue_requests_received, .gone = segue_requests_gone};
	test->streams = (struct segue_streams){.next_id = 1};
	test->rules = (struct segue_rules){0};
	must(segue_limits_init(&test->rules.limits) == 0);
	must(segue_loop_create(&server->loop) == 0);
	must(segue_guard_create(&test->rules, server->loop, test->store, &server->guard) == 0);
	must(segue_committer_create(
		     server->store, server->loop, storage_news, test, &server->committer) == 0);
}

void segue_testserver_stop(struct segue_testserver *test)
{
	struct segue_server *server = &test->server;

	segue_sessions_close(server);
	segue_testserver_settle(test);
	segue_guard_finish_tasks(server->guard);
	segue_streams_quiesce(server);
	segue_committer_destroy(server->committer);
	segue_streams_destroy(server);
	segue_loop_destroy(server->loop);
	segue_sessions_destroy(server);
	segue_guard_destroy(server->guard);
}

void segue_testserver_finish(struct segue_testserver *test)
{
	segue_store_close(test->server.store);
	segue_tmpdir_remove(&test->dir);
}

void segue_testserver_tick(struct segue_testserver *test, int64_t now)
{
	struct segue_server *server = &test->server;

	segue_sessions_tick(server, now);
	segue_checkpoints_tick(server, now);
	segue_streams_tick(server, now);
}

struct run {
	struct segue_testserver *test;
	bool (*until)(void *arg);
	void *arg;
	int64_t end;
	bool done;
};

static void tick(void *arg, int64_t now)
{
	struct run *run = arg;
	struct segue_loop *loop = run->test->server.loop;

	segue_testserver_tick(run->test, now);
	run->done = run->until(run->arg);
	if (run->done || now >= run->end)
		segue_loop_stop(loop);
	segue_loop_tick_within(loop, now + 1000000);
}

static void signalled(void *arg, int signal)
{
	(void)arg;
	_exit(128 + signal);
}

bool segue_testserver_run(struct segue_testserver *test, bool (*until)(void *arg), void *arg)
{
	struct segue_loop *loop = test->server.loop;
	struct run run = {test, until, arg, segue_now_ns() + PATIENCE_NS, false};

	segue_loop_tick_within(loop, segue_now_ns());
	must(segue_loop_run(loop, tick, signalled, &run) == 0);
	return run.done;
}

static bool is_settled(void *arg)
{
	const struct segue_testserver *test = arg;

	return segue_loop_awaited(test->server.loop) == 0;
}

void segue_testserver_settle(struct segue_testserver *test)
{
	must(segue_testserver_run(test, is_settled, test));
	segue_testserver_tick(test, segue_now_ns());
}

struct taken {
	enum segue_limit limit;
	uint64_t total;
};

static void add_taken(void *arg, uid_t uid, const uint64_t taken[SEGUE_LIMIT_COUNT])
{
	struct taken *sum = arg;

	(void)uid;
	sum->total += taken[sum->limit];
}

uint64_t segue_testserver_taken(struct segue_testserver *test, enum segue_limit limit)
{
	struct taken sum = {.limit = limit};

	segue_guard_visit(test->server.guard, add_taken, &sum);
	return sum.total;
}

/* ---- Clients ---- */

void segue_testpeer_connect(struct segue_testpeer *peer, struct segue_testserver *test)
{
	int ends[2];

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
	*peer = (struct segue_testpeer){.test = test, .socket = ends[0]};
	segue_frame_reader_init(&peer->reader, true);
	must(segue_arena_init(&peer->arena, SEGUE_ARENA_SIZE) == 0);
	const struct segue_session *before = LIST_FIRST(&test->sessions.all);
	segue_session_create(&test->server, ends[1]);
	peer->session = LIST_FIRST(&test->sessions.all);
	if (peer->session == before)
		peer->session = NULL;
}

static void close_fds(struct segue_testpeer *peer)
{
	for (size_t i = 0; i < peer->fd_count; i++)
		close(peer->fds[i]);
	peer->fd_count = 0;
}

void segue_testpeer_close(struct segue_testpeer *peer)
{
	close(peer->socket);
	close_fds(peer);
	segue_frame_reader_finish(&peer->reader);
	segue_arena_finish(&peer->arena);
}

void segue_testpeer_send(struct segue_testpeer *peer, const struct segue_message *message)
{
	uint8_t bytes[SEGUE_FRAME_MAX];
	size_t size;

	must(segue_message_pack(message, bytes, &size) == 0);
	must(segue_frame_send(peer->socket, (uint16_t)message->type, bytes, size, NULL, 0,
		     segue_now_ns()) == 0);
}

struct arrival {
	struct segue_testpeer *peer;
	struct segue_frame frame;
	int rc;
};

static bool has_arrived(void *arg)
{
	struct arrival *arrival = arg;

	arrival->rc =
		segue_frame_read(&arrival->peer->reader, arrival->peer->socket, &arrival->frame);
	return arrival->rc != 0;
}

int segue_testpeer_receive(struct segue_testpeer *peer)
{
	struct arrival arrival = {.peer = peer};

	close_fds(peer);
	must(segue_testserver_run(peer->test, has_arrived, &arrival));
	if (arrival.rc < 0)
		return 0;
	must(segue_message_unpack(&arrival.frame, &peer->arena, &peer->reply) == 0);
	peer->fd_count = arrival.frame.fd_count;
	memcpy(peer->fds, arrival.frame.fds, sizeof(peer->fds));
	return (int)peer->reply.type;
}

int segue_testpeer_ask(struct segue_testpeer *peer, const struct segue_message *message)
{
	int type;

	segue_testpeer_send(peer, message);
	do
		type = segue_testpeer_receive(peer);
	while (type == SEGUE_MESSAGE_PROGRESS);
	return type;
}

const char *segue_testpeer_failure(const struct segue_testpeer *peer, int code)
{
	return peer->reply.type == SEGUE_MESSAGE_FAILURE && peer->reply.failure.code == code
		       ? peer->reply.failure.detail
		       : "";
}

void segue_testpeer_greet(struct segue_testpeer *peer, struct segue_testserver *test)
{
	const struct segue_message hello = {
		.type = SEGUE_MESSAGE_HELLO,
		.serial = 1,
		.hello = {.protocol = SEGUE_PROTOCOL,
			.layout_version = SEGUE_LAYOUT_VERSION,
			.version = SEGUE_VERSION_STRING,
			.program = "test"},
	};

	segue_testpeer_connect(peer, test);
	must(segue_testpeer_ask(peer, &hello) == SEGUE_MESSAGE_WELCOME);
}

static uint64_t six(uint64_t record)
{
	(void)record;
	return 6;
}

static void no_change(struct segue_draft *spec)
{
	(void)spec;
}

int segue_testpeer_open_as(struct segue_testpeer *peer, void (*change)(struct segue_draft *spec))
{
	static const struct segue_feature x = {.name = "x", .dtype = SEGUE_INT64};
	char data[SEGUE_TMPDIR_MAX];
	const char *path = segue_tmpdir_path(&peer->test->dir, "data", data);
	struct segue_draft wanted = {
		.name = "s",
		.source = {.kind = SEGUE_SOURCE_TFRECORD,
			.tfrecord = {.paths = &path, .path_count = 1}},
		.sequences = &x,
		.sequence_count = 1,
		.num_unroll = 2,
		.batch_size = 2,
		.lanes = 4,
		.epochs = 1,
		.interval_ms = 10,
	};
	struct segue_message open = {.type = SEGUE_MESSAGE_STREAM_OPEN, .serial = 2};

	if (access(path, F_OK) < 0)
		segue_tfwrite_numbers(path, 8, six);
	change(&wanted);
	must(segue_draft_make(&wanted, &open.stream_open.spec) == 0);
	int type = segue_testpeer_ask(peer, &open);
	segue_spec_destroy(open.stream_open.spec);
	return type;
}

uint64_t segue_testpeer_open(struct segue_testpeer *peer)
{
	must(segue_testpeer_open_as(peer, no_change) == SEGUE_MESSAGE_OPENED);
	return peer->reply.opened.stream;
}

void segue_testpeer_want(struct segue_testpeer *peer, uint64_t stream, uint32_t lane,
	enum segue_attach_mode mode, int64_t timeout_ns)
{
	const struct segue_message attach = {
		.type = SEGUE_MESSAGE_LANE_ATTACH,
		.serial = 3,
		.lane_attach = {.stream = stream,
			.lane = lane,
			.mode = mode,
			.timeout_ns = timeout_ns},
	};

	segue_testpeer_send(peer, &attach);
}

uint64_t segue_testpeer_take(struct segue_testpeer *peer, uint64_t stream, uint32_t lane)
{
	segue_testpeer_want(peer, stream, lane, SEGUE_ATTACH_CONTINUE, 0);
	must(segue_testpeer_receive(peer) == SEGUE_MESSAGE_ATTACHED && peer->fd_count == 4);
	return peer->reply.attached.lease;
}

struct readiness {
	int ring;
	uint64_t step;
};

static bool is_published(void *arg)
{
	const struct readiness *readiness = arg;
	uint64_t published;

	must(pread(readiness->ring, &published, sizeof(published),
		     offsetof(struct segue_ring_header, published)) == sizeof(published));
	return published >= readiness->step;
}

void segue_testpeer_commit(struct segue_testpeer *peer, uint64_t step)
{
	struct readiness readiness = {peer->fds[0], step};
	int carry = peer->fds[1], event = peer->fds[3];

	must(peer->fd_count == 4);
	must(segue_testserver_run(peer->test, is_published, &readiness));
	must(pwrite(carry, &step, sizeof(step), offsetof(struct segue_carry_header, committed)) ==
		sizeof(step));
	must(pwrite(carry, &step, sizeof(step), offsetof(struct segue_carry_header, released)) ==
		sizeof(step));
	segue_event_ring(event);
}
