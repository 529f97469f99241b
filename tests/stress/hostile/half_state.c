/* C2: killed while it writes states: nothing of them is seen by the next holder. */
#include "hostile.h"

#include <signal.h>
#include <stdio.h>

enum { LANE = 2 };

static _Noreturn void victim(struct hostile *hostile, int out)
{
	struct segue_client *client;
	struct segue_stream *stream;

	hostile_open(hostile, hostile->dir, &client, &stream);
	struct segue_lane *lane = hostile_take(stream, LANE, SEGUE_START_CONTINUE);
	for (uint64_t i = hostile_random(hostile) % 9; i > 0; i--) {
		struct segue_batch *batch = hostile_next(lane);
		hostile_check(batch);
		hostile_commit(batch);
	}
	struct segue_batch *batch = hostile_next(lane);
	uint64_t step = segue_batch_step(batch);
	int64_t *states = segue_batch_state_out(batch, 0);
	EXPECT(write(out, &step, sizeof(step)) == (ssize_t)sizeof(step), "pipe");
	for (size_t i = 0;; i++)
		((volatile int64_t *)
				states)[i % ((size_t)segue_batch_rows(batch) * HOSTILE_WORDS)] =
			(int64_t)hostile_random(hostile);
}

static void kill_one(struct hostile *hostile, struct segue_stream *stream)
{
	uint64_t step;
	int fds[2];

	EXPECT(pipe(fds) == 0, "pipe");
	uint64_t pause_us = hostile_random(hostile) % 2000;
	pid_t pid = hostile_fork();
	if (pid == 0)
		victim(hostile, fds[1]);
	close(fds[1]);
	EXPECT(read(fds[0], &step, sizeof(step)) == (ssize_t)sizeof(step), "no batch was held");
	close(fds[0]);
	usleep((useconds_t)pause_us);
	kill(pid, SIGKILL);
	struct segue_lane *lane = hostile_take(stream, LANE, SEGUE_START_CONTINUE);
	hostile_reap(pid, SIGKILL);
	/* The states that come in are checked: those of the commit before, whole. */
	for (int i = 0; i < 3; i++) {
		struct segue_batch *batch = hostile_next(lane);
		EXPECT(i > 0 || segue_batch_step(batch) == step, "batch %llu, not %llu",
			(unsigned long long)segue_batch_step(batch), (unsigned long long)step);
		hostile_check(batch);
		hostile_commit(batch);
	}
	segue_lane_close(lane);
}

void attack_half_state(struct hostile *hostile)
{
	struct segue_client *client;
	struct segue_stream *stream;
	unsigned kills = 0;

	hostile_open(hostile, hostile->dir, &client, &stream);
	segue_lane_close(hostile_take(stream, LANE, SEGUE_START_FRESH));
	while (kills < 3 || hostile_time_left(hostile)) {
		kill_one(hostile, stream);
		kills++;
	}
	segue_stream_close(stream);
	segue_client_close(client);
	printf("%u kills in the middle of a state\n", kills);
}
