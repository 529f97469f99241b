/* C23: a client that holds a connection forks: the child is refused, the parent goes on. */
#include "hostile.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

enum { LANE = 9 };

struct world {
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_lane *lane;
	struct segue_batch *batch;
	const void *state;
};

/* Every call of the child: EFORKED, and closing is harmless. */
static _Noreturn void child(const struct world *world)
{
	struct segue_lane *lane;
	struct segue_batch *batch;
	struct segue_span span;
	size_t size;
	void *token;
	char *json;
	int64_t value = 0;

	EXPECT(segue_client_report(world->client, SEGUE_REPORT_STATUS, NULL, NULL, &json) ==
			SEGUE_EFORKED,
		"report in a child");
	EXPECT(segue_lane_attach(world->stream, LANE, NULL, &lane) == SEGUE_EFORKED,
		"attach in a child");
	EXPECT(segue_lane_next(world->lane, 0, &batch) == SEGUE_EFORKED, "next in a child");
	EXPECT(segue_lane_checkpoint(world->lane, &token, &size) == SEGUE_EFORKED,
		"checkpoint in a child");
	EXPECT(segue_batch_save_state(world->batch, 0, &value, sizeof(value)) == SEGUE_EFORKED,
		"save in a child");
	EXPECT(segue_batch_commit(world->batch) == SEGUE_EFORKED, "commit in a child");
	EXPECT(segue_batch_span(world->batch, 0, &span, sizeof(span)) == SEGUE_EFORKED,
		"spans in a child");
	EXPECT(!segue_batch_state(world->batch, 0, NULL), "states in a child");
	EXPECT(!segue_batch_state_out(world->batch, 0), "room for states in a child");
	segue_batch_release(world->batch);
	segue_lane_close(world->lane);
	segue_stream_close(world->stream);
	segue_client_close(world->client);
	exit(0); /* with all exit handlers */
}

/* A child that reads a state by a pointer from before the fork. */
static _Noreturn void reader(const struct world *world)
{
	signal(SIGSEGV, SIG_DFL);
	_exit(*(const volatile char *)world->state ? 0 : 0);
}

static void reap_reader(pid_t pid)
{
	int status;

	/* Killed by the fault; a sanitizer makes an exit status of it. */
	EXPECT(waitpid(pid, &status, 0) == pid && status != 0,
		"shared memory is mapped in a forked child");
}

void attack_forked(struct hostile *hostile)
{
	struct world world;
	unsigned forks = 0;

	hostile_open(hostile, hostile->dir, &world.client, &world.stream);
	world.lane = hostile_take(world.stream, LANE, SEGUE_START_FRESH);
	for (; forks < 5 || hostile_time_left(hostile); forks++) {
		world.batch = hostile_next(world.lane);
		hostile_check(world.batch);
		world.state = segue_batch_state_out(world.batch, 0);
		pid_t pid = hostile_fork();
		if (pid == 0)
			child(&world);
		hostile_reap(pid, 0);
		pid = hostile_fork();
		if (pid == 0) {
			close(STDERR_FILENO);
			reader(&world);
		}
		reap_reader(pid);
		hostile_commit(world.batch);
	}
	segue_lane_close(world.lane);
	segue_stream_close(world.stream);
	segue_client_close(world.client);
	printf("%u forks with a batch in hand\n", forks);
}
