#include "testserver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/wait.h"
#include "engine/committer.h"
#include "serve/requests.h"
#include "stream/checkpoint.h"

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
		.received = segue_requests_received, .gone = segue_requests_session_gone};
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
	segue_guard_finish_tasks(server->guard);
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
	segue_loop_tick_within(server->loop, segue_checkpoints_tick(server, now));
	segue_loop_tick_within(server->loop, segue_streams_tick(server, now));
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
