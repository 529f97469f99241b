/* C4: stopped with a batch in hand: it keeps its lease, and goes on when it is continued. */
#include "hostile.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

enum { LANE = 4 };

static _Noreturn void holder(struct hostile *hostile)
{
	struct segue_client *client;
	struct segue_stream *stream;

	hostile_open(hostile, hostile->dir, &client, &stream);
	struct segue_lane *lane = hostile_take(stream, LANE, SEGUE_START_CONTINUE);
	for (int i = 0; i < 5; i++) {
		struct segue_batch *batch = hostile_next(lane);
		hostile_check(batch);
		if (i == 2)
			raise(SIGSTOP);
		hostile_commit(batch);
	}
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
	_exit(0);
}

void attack_stopped(struct hostile *hostile)
{
	const struct segue_attach_options hurried = {.size = sizeof(hurried),
		.start = SEGUE_START_CONTINUE,
		.timeout_ns = 200000000,
		.group = hostile->group};
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_lane *lane;
	unsigned stops = 0;

	hostile_open(hostile, hostile->dir, &client, &stream);
	segue_lane_close(hostile_take(stream, LANE, SEGUE_START_FRESH));
	for (; stops < 2 || hostile_time_left(hostile); stops++) {
		int status;
		pid_t pid = hostile_fork();
		if (pid == 0)
			holder(hostile);
		EXPECT(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status),
			"the holder did not come to its batch");
		int rc = segue_lane_attach(stream, LANE, &hurried, &lane);
		EXPECT(rc == SEGUE_EBUSY, "the lane of a stopped holder: %s, not EBUSY",
			segue_error_name(rc));
		kill(pid, SIGCONT);
		hostile_reap(pid, 0);
	}
	lane = hostile_take(stream, LANE, SEGUE_START_CONTINUE);
	struct segue_batch *batch = hostile_next(lane);
	hostile_check(batch);
	EXPECT(segue_batch_step(batch) == 5 * stops, "batch %llu after %u times 5",
		(unsigned long long)segue_batch_step(batch), stops);
	segue_batch_release(batch);
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
	printf("%u times stopped and continued\n", stops);
}
