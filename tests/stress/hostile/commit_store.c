/* C3: killed right before or after the store that commits: it counts once or not at all, and only the store
 * decides. */
#include "hostile.h"

#include <signal.h>
#include <stdio.h>

enum { LANE = 3 };

enum moment { BEFORE, AFTER, ANY, MOMENTS };

/* Tells each step before its commit, and dies at the moment given; ANY: is killed from outside. */
static _Noreturn void victim(struct hostile *hostile, enum moment moment, int out)
{
	struct segue_client *client;
	struct segue_stream *stream;

	hostile_open(hostile, hostile->dir, &client, &stream);
	struct segue_lane *lane = hostile_take(stream, LANE, SEGUE_START_CONTINUE);
	for (uint64_t left = hostile_random(hostile) % 9;; left--) {
		struct segue_batch *batch = hostile_next(lane);
		uint64_t step = segue_batch_step(batch);
		hostile_check(batch);
		hostile_save(batch);
		EXPECT(write(out, &step, sizeof(step)) == (ssize_t)sizeof(step), "pipe");
		if (moment == BEFORE && left == 0)
			raise(SIGKILL);
		EXPECT(segue_batch_commit(batch) == 0, "commit: %s", segue_error_detail());
		if (moment == AFTER && left == 0)
			raise(SIGKILL);
		segue_batch_release(batch);
		left += left == 0;
	}
}

static void kill_one(struct hostile *hostile, struct segue_stream *stream, enum moment moment)
{
	uint64_t step = 0, told;
	int fds[2];

	EXPECT(pipe(fds) == 0, "pipe");
	uint64_t until = hostile_random(hostile) % 200;
	pid_t pid = hostile_fork();
	if (pid == 0)
		victim(hostile, moment, fds[1]);
	close(fds[1]);
	for (uint64_t seen = 0; read(fds[0], &told, sizeof(told)) == (ssize_t)sizeof(told);
		seen++) {
		step = told;
		if (moment == ANY && seen == until)
			kill(pid, SIGKILL);
	}
	close(fds[0]);
	hostile_reap(pid, SIGKILL);
	struct segue_lane *lane = hostile_take(stream, LANE, SEGUE_START_CONTINUE);
	struct segue_batch *batch = hostile_next(lane);
	uint64_t next = segue_batch_step(batch);
	hostile_check(batch);
	EXPECT(next >= step + (moment == AFTER) && next <= step + (moment != BEFORE),
		"killed %s the commit of batch %llu, then came batch %llu",
		moment == BEFORE  ? "before"
		: moment == AFTER ? "after"
				  : "around",
		(unsigned long long)step, (unsigned long long)next);
	segue_batch_release(batch);
	segue_lane_close(lane);
}

void attack_commit_store(struct hostile *hostile)
{
	struct segue_client *client;
	struct segue_stream *stream;
	unsigned kills = 0;

	hostile_open(hostile, hostile->dir, &client, &stream);
	segue_lane_close(hostile_take(stream, LANE, SEGUE_START_FRESH));
	for (; kills < 2 * MOMENTS || hostile_time_left(hostile); kills++)
		kill_one(hostile, stream, kills % MOMENTS);
	segue_stream_close(stream);
	segue_client_close(client);
	printf("%u kills around a commit\n", kills);
}
