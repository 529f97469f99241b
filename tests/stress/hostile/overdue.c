/* C4: stopped for longer than lease_timeout: another takes the lane and the same batch; who comes back late
 * is fenced. */
#include "hostile.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "core/wait.h"

enum { LANE = 1, TIMEOUT_MS = 200 };

static void open_stream(
	const struct hostile *hostile, struct segue_client **client, struct segue_stream **stream)
{
	struct hostile_spec spec;

	hostile_spec(hostile, "overdue", &spec);
	spec.spec.lease_timeout_ms = TIMEOUT_MS;
	EXPECT(segue_open(hostile->dir, NULL, client) == 0, "open: %s", segue_error_detail());
	EXPECT(segue_draft_open(*client, &spec.spec, stream) == 0, "stream: %s",
		segue_error_detail());
}

struct held {
	uint64_t step, hash;
};

/* Stops with a batch in hand; once continued, writes nonsense, and is told that the lane is another's. */
static _Noreturn void sleeper(const struct hostile *hostile, int out)
{
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_batch *batch;
	struct held held;

	open_stream(hostile, &client, &stream);
	struct segue_lane *lane = hostile_take(stream, LANE, SEGUE_START_CONTINUE);
	hostile_commit(hostile_next(lane));
	batch = hostile_next(lane);
	held = (struct held){segue_batch_step(batch), hostile_check(batch)};
	int64_t *states = segue_batch_state_out(batch, 0);
	EXPECT(write(out, &held, sizeof(held)) == (ssize_t)sizeof(held), "pipe");
	raise(SIGSTOP);
	memset(states, 0x55, sizeof(*states) * HOSTILE_WORDS);
	segue_batch_mark_saved(batch, 0);
	int rc = segue_batch_commit(batch);
	EXPECT(rc == SEGUE_EFENCED, "a late commit: %s, not EFENCED", segue_error_name(rc));
	segue_batch_release(batch);
	rc = segue_lane_next(lane, 0, &batch);
	EXPECT(rc == SEGUE_EFENCED, "next of the late one: %s, not EFENCED", segue_error_name(rc));
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
	_exit(0);
}

/* Milliseconds from the stop until another has the lane. */
static int64_t stop_one(const struct hostile *hostile, struct segue_stream *stream)
{
	struct held held;
	int fds[2], status;

	EXPECT(pipe(fds) == 0, "pipe");
	pid_t pid = hostile_fork();
	if (pid == 0)
		sleeper(hostile, fds[1]);
	EXPECT(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status),
		"the holder did not come to its batch");
	int64_t before = segue_now_ns();
	EXPECT(read(fds[0], &held, sizeof(held)) == (ssize_t)sizeof(held), "pipe");
	close(fds[0]);
	close(fds[1]);
	struct segue_lane *lane = hostile_take(stream, LANE, SEGUE_START_CONTINUE);
	int64_t took = (segue_now_ns() - before) / 1000000;
	struct segue_batch *batch = hostile_next(lane);
	EXPECT(segue_batch_step(batch) == held.step && hostile_check(batch) == held.hash,
		"another batch %llu after %llu", (unsigned long long)segue_batch_step(batch),
		(unsigned long long)held.step);
	kill(pid, SIGCONT);
	/* Meanwhile the new holder goes on: it is held to the same timeout. */
	do {
		hostile_commit(batch);
		hostile_sleep_ms(5);
		batch = hostile_next(lane);
		hostile_check(batch);
	} while (waitpid(pid, &status, WNOHANG) == 0);
	EXPECT(status == 0, "the late one ends with status 0x%x", (unsigned)status);
	segue_batch_release(batch);
	segue_lane_close(lane);
	return took;
}

void attack_overdue(struct hostile *hostile)
{
	int64_t least = INT64_MAX, most = 0;
	struct segue_client *client;
	struct segue_stream *stream;
	unsigned stops = 0;

	open_stream(hostile, &client, &stream);
	segue_lane_close(hostile_take(stream, LANE, SEGUE_START_FRESH));
	for (; stops < 2 || hostile_time_left(hostile); stops++) {
		int64_t took = stop_one(hostile, stream);
		least = took < least ? took : least;
		most = took > most ? took : most;
	}
	segue_stream_close(stream);
	segue_client_close(client);
	printf("lease_timeout of %d ms: another has the lane after %lld to %lld ms\n", TIMEOUT_MS,
		(long long)least, (long long)most);
	EXPECT(least >= TIMEOUT_MS / 2, "taken away after %lld ms", (long long)least);
	EXPECT(most < TIMEOUT_MS + 5000, "taken away after %lld ms only", (long long)most);
}
