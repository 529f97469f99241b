/* C22: a signal every millisecond, whose handler does not restart calls. */
#include "hostile.h"

#include <signal.h>
#include <stdio.h>
#include <sys/time.h>

#include "core/wait.h"

enum { LANE = 8 };

static volatile sig_atomic_t signals;

static void count(int signal)
{
	(void)signal;
	signals++;
}

static void storm(suseconds_t us)
{
	const struct sigaction action = {.sa_handler = count};
	const struct itimerval timer = {{0, us}, {0, us}};

	EXPECT(sigaction(SIGALRM, &action, NULL) == 0, "sigaction");
	EXPECT(setitimer(ITIMER_REAL, &timer, NULL) == 0, "setitimer");
}

/* All that a worker does, under the storm. */
static unsigned work(const struct hostile *hostile)
{
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_batch *batch = NULL;
	unsigned batches = 0;
	void *token;
	size_t size;

	hostile_open(hostile, hostile->dir, &client, &stream);
	struct segue_lane *lane = hostile_take(stream, LANE, SEGUE_START_CONTINUE);
	for (int part = 0; part < 5; part++) {
		for (int i = 0; i < 100; i++, batches++) {
			batch = hostile_next(lane);
			hostile_check(batch);
			hostile_commit(batch);
		}
		uint64_t step = segue_lane_committed(lane);
		EXPECT(segue_lane_checkpoint(lane, &token, &size) == 0, "checkpoint: %s",
			segue_error_detail());
		hostile_commit(hostile_next(lane));
		EXPECT(segue_lane_restore(lane, token, size) == 0, "restore: %s",
			segue_error_detail());
		segue_free(token);
		batch = hostile_next(lane);
		EXPECT(segue_batch_step(batch) == step, "restored to %llu, not %llu",
			(unsigned long long)segue_batch_step(batch), (unsigned long long)step);
		hostile_check(batch);
		segue_batch_release(batch);
	}
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
	return batches;
}

void attack_signals(struct hostile *hostile)
{
	struct segue_client *client;
	struct segue_stream *stream;
	unsigned batches = 0;

	hostile_open(hostile, hostile->dir, &client, &stream);
	segue_lane_close(hostile_take(stream, LANE, SEGUE_START_FRESH));
	segue_stream_close(stream);
	segue_client_close(client);
	storm(1000);
	do
		batches += work(hostile);
	while (hostile_time_left(hostile));
	storm(0);
	EXPECT(signals > 0, "no signal came");
	printf("%u batches under %d signals\n", batches, (int)signals);
}
