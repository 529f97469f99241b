/* C1: killed with a batch in hand, also with a forked child that holds the socket: the lease is back at once,
 * and the next holder gets the same bytes. */
#include "hostile.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "core/wait.h"

enum { LANE = 1, KILLS_MAX = 2000 };

struct held {
	uint64_t step, hash;
	pid_t orphan;
};

/* A child that inherits the socket: the system call itself, because the library closes it in fork(). */
static pid_t leave_orphan(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid == 0)
		alarm(60); /* if nobody is left to kill it */
	while (pid == 0)
		pause();
	EXPECT(pid > 0, "clone: %s", strerror(errno));
	return pid;
}

static _Noreturn void victim(struct hostile *hostile, int out, bool orphan)
{
	struct segue_client *client;
	struct segue_stream *stream;
	struct held held = {0};

	hostile_open(hostile, hostile->dir, &client, &stream);
	struct segue_lane *lane = hostile_take(stream, LANE, SEGUE_START_CONTINUE);
	for (uint64_t i = hostile_random(hostile) % 7; i > 0; i--) {
		struct segue_batch *batch = hostile_next(lane);
		hostile_check(batch);
		hostile_commit(batch);
	}
	struct segue_batch *batch = hostile_next(lane);
	held.step = segue_batch_step(batch);
	held.hash = hostile_check(batch);
	if (orphan)
		held.orphan = leave_orphan();
	if (write(out, &held, sizeof(held)) == (ssize_t)sizeof(held))
		pause();
	_exit(1);
}

static int by_size(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

/* Kills a holder; returns nanoseconds until the lane is attached again. */
static int64_t kill_one(struct hostile *hostile, struct segue_stream *stream, bool orphan)
{
	struct held held;
	int fds[2];

	EXPECT(pipe(fds) == 0, "pipe");
	hostile_random(hostile);
	pid_t pid = hostile_fork();
	if (pid == 0)
		victim(hostile, fds[1], orphan);
	close(fds[1]);
	EXPECT(read(fds[0], &held, sizeof(held)) == (ssize_t)sizeof(held), "no batch was held");
	close(fds[0]);
	int64_t before = segue_now_ns();
	kill(pid, SIGKILL);
	struct segue_lane *lane = hostile_take(stream, LANE, SEGUE_START_CONTINUE);
	int64_t after = segue_now_ns();
	hostile_reap(pid, SIGKILL);
	struct segue_batch *batch = hostile_next(lane);
	EXPECT(segue_batch_step(batch) == held.step && hostile_check(batch) == held.hash,
		"batch %llu was held, then came %llu with %s bytes", (unsigned long long)held.step,
		(unsigned long long)segue_batch_step(batch),
		segue_batch_step(batch) == held.step ? "other" : "its own");
	segue_batch_release(batch);
	segue_lane_close(lane);
	if (held.orphan)
		kill(held.orphan, SIGKILL);
	return after - before;
}

void attack_killed(struct hostile *hostile)
{
	static int64_t ns[KILLS_MAX];
	struct segue_client *client;
	struct segue_stream *stream;
	size_t count = 0;

	hostile_open(hostile, hostile->dir, &client, &stream);
	segue_lane_close(hostile_take(stream, LANE, SEGUE_START_FRESH));
	while (count < KILLS_MAX && (count < 4 || hostile_time_left(hostile))) {
		ns[count] = kill_one(hostile, stream, count % 2);
		count++;
	}
	segue_stream_close(stream);
	segue_client_close(client);
	qsort(ns, count, sizeof(ns[0]), by_size);
	printf("%zu kills, half of them with a child left behind: lane attached again after p50 "
	       "%.1f ms, "
	       "p99 %.1f ms\n",
		count, (double)ns[count / 2] / 1e6, (double)ns[count * 99 / 100] / 1e6);
	EXPECT(hostile->crowded || ns[count / 2] < INT64_C(100000000),
		"the lease comes back after more than 100 ms");
}
