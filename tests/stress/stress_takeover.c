/*
 * Two threads of one process, each with clients of its own, that take one lane from each other while
 * they work, and a server that is killed under them: nothing is lost that was committed before a
 * takeover began, and every state that comes in is the one that was committed. A commit while one
 * is under way may return and not count: whose takeover began first need not get the lane first.
 *
 *	stress_takeover [TAKEOVERS [SEED]]        (environment SEGUE_PROGRAM: the server)
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "draft.h"
#include "spans.h"
#include "tfwrite.h"
#include "tmpdir.h"

enum { RECORDS = 12, ROWS = 3, UNROLL = 2, DEPTH = 3, THREADS = 2, BATCHES = 12 };

static char data[SEGUE_TMPDIR_MAX], dir[SEGUE_TMPDIR_MAX];
static uint64_t seed;
static int takeovers = 120;

/*
 * Under the lock: changes of what is known (takeovers begun, and those that ended behind a later
 * one), takeovers under way, and what was committed since the last change, with none under way.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t era, done;
static int under_way;
static int refused, commits, counted, kills;
static atomic_bool over;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "stress_takeover: %s: %s (seed %" PRIu64 ")\n", what, segue_error_detail(),
		seed);
	abort();
}

static uint64_t steps_of(uint64_t record)
{
	return 1 + record % 7;
}

static void open_stream(struct segue_client **client, struct segue_stream **stream)
{
	const char *paths = data;
	const struct segue_feature feature = {.name = "x", .dtype = SEGUE_INT64};
	const struct segue_state state = {.name = "s", .dtype = SEGUE_INT64};
	const struct segue_draft spec = {
		.name = "train",
		.source = {.kind = SEGUE_SOURCE_TFRECORD,
			.tfrecord = {.paths = &paths, .path_count = 1}},
		.sequences = &feature,
		.sequence_count = 1,
		.states = &state,
		.state_count = 1,
		.num_unroll = UNROLL,
		.batch_size = ROWS,
		.lanes = 1,
		.keep_final = true,
		.depth = DEPTH,
		.interval_ms = 3600000,
	};

	if (segue_open(dir, NULL, client) || segue_draft_open(*client, &spec, stream))
		die("open");
}

/* The state is the number of segments of the sequence so far. */
static int work_on(struct segue_batch *batch)
{
	struct segue_span spans[ROWS];
	uint32_t count = segue_test_spans(batch, spans, ROWS);
	const int64_t *in = segue_batch_state(batch, 0, NULL);
	int64_t out[ROWS];

	for (uint32_t row = 0; row < count; row++) {
		if (in[row] != spans[row].segment)
			die("a state that is not the one that was committed");
		out[row] = in[row] + 1;
	}
	return segue_batch_save_state(batch, 0, out, count * sizeof(out[0]));
}

/* Takes the lane; what was committed before that began is still there. */
static struct segue_lane *take(struct segue_stream *stream, uint64_t *mine)
{
	const struct segue_attach_options how = {
		.size = sizeof(how), .start = SEGUE_START_CONTINUE, .take = true};
	struct segue_lane *lane;

	pthread_mutex_lock(&lock);
	*mine = ++era;
	under_way++;
	uint64_t wanted = done;
	pthread_mutex_unlock(&lock);
	if (segue_lane_attach(stream, 0, &how, &lane))
		die("attach");
	pthread_mutex_lock(&lock);
	under_way--;
	if (segue_lane_committed(lane) < wanted)
		die("a commit from before the takeover is lost");
	if (era == *mine)
		done = segue_lane_committed(lane);
	else
		era++; /* the lane is, or was, taken from the one that began later */
	pthread_mutex_unlock(&lock);
	return lane;
}

static void note_commit(const struct segue_lane *lane, uint64_t mine)
{
	pthread_mutex_lock(&lock);
	commits++;
	if (era == mine && under_way == 0) {
		done = segue_lane_committed(lane);
		counted++;
	}
	pthread_mutex_unlock(&lock);
}

/* A batch: false if the lane has gone. */
static bool go_on(struct segue_lane *lane, uint64_t mine, unsigned *random)
{
	struct segue_batch *batch;
	int rc = segue_lane_next(lane, SEGUE_FOREVER, &batch);

	if (rc == SEGUE_EFENCED)
		return false;
	if (rc)
		die("next");
	rc = work_on(batch);
	if (rand_r(random) % 8 == 0) /* an open batch is left to whoever comes */
		usleep((useconds_t)rand_r(random) % 2000);
	if (!rc && rand_r(random) % 4)
		rc = segue_batch_commit(batch);
	else
		segue_batch_put_back(batch);
	if (!rc && segue_batch_committed(batch))
		note_commit(lane, mine);
	segue_batch_release(batch);
	if (rc && rc != SEGUE_EFENCED)
		die("save or commit");
	return true; /* the next call says what has become of the lane */
}

static void *contend(void *arg)
{
	unsigned random = (unsigned)seed + (unsigned)(uintptr_t)arg;

	while (!atomic_load(&over)) {
		struct segue_client *client;
		struct segue_stream *stream;
		open_stream(&client, &stream);
		uint64_t mine;
		struct segue_lane *lane = take(stream, &mine);
		bool has = true;
		for (int i = rand_r(&random) % BATCHES; has && i >= 0; i--)
			has = go_on(lane, mine, &random);
		while (has && rand_r(&random) % 2) /* until it is taken */
			has = go_on(lane, mine, &random);
		pthread_mutex_lock(&lock);
		refused += !has;
		pthread_mutex_unlock(&lock);
		int rc = segue_lane_close(lane);
		if (rc && rc != SEGUE_EFENCED) /* a commit that raced with the takeover */
			die("close");
		segue_stream_close(stream);
		segue_client_close(client);
		pthread_mutex_lock(&lock);
		if (takeovers-- <= 0)
			atomic_store(&over, true);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

static void kill_server(void)
{
	char path[SEGUE_TMPDIR_MAX + 16], text[32] = "";

	snprintf(path, sizeof(path), "%s/server.pid", dir);
	FILE *file = fopen(path, "r");
	if (!file)
		return;
	pid_t pid = fgets(text, sizeof(text), file) ? atoi(text) : 0;
	fclose(file);
	if (pid > 0 && kill(pid, SIGKILL) == 0)
		kills++;
}

/* Where a server takes longer to start than the pauses between kills, none would ever be up. */
static void wait_for_a_commit(void)
{
	int before, now;

	pthread_mutex_lock(&lock);
	before = now = commits;
	pthread_mutex_unlock(&lock);
	while (now == before && !atomic_load(&over)) {
		usleep(1000);
		pthread_mutex_lock(&lock);
		now = commits;
		pthread_mutex_unlock(&lock);
	}
}

int main(int argc, char **argv)
{
	struct segue_tmpdir tmp;
	pthread_t threads[THREADS];

	takeovers = argc > 1 ? atoi(argv[1]) : takeovers;
	seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL);
	printf("stress_takeover: %d takeovers, seed %" PRIu64 "\n", takeovers, seed);
	fflush(stdout);
	segue_tmpdir_make(&tmp, "takeover");
	segue_tmpdir_path(&tmp, "data.tfrecord", data);
	segue_tmpdir_path(&tmp, "run", dir);
	segue_tfwrite_numbers(data, RECORDS, steps_of);
	/* Somebody who is always there, so that an embedded server does not end in between. */
	struct segue_client *client;
	struct segue_stream *stream;
	open_stream(&client, &stream);
	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, contend, (void *)i))
			die("thread");
	unsigned random = (unsigned)seed + 99;
	while (!atomic_load(&over)) {
		usleep((useconds_t)rand_r(&random) % 60000);
		kill_server();
		if (kills % 3 == 0)
			wait_for_a_commit();
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	segue_stream_close(stream);
	segue_client_close(client);
	segue_tmpdir_remove(&tmp);
	printf("stress_takeover: %d commits, %d of them looked for, %d lanes taken away, %d "
	       "kills\n",
		commits, counted, refused, kills);
	return counted > 0 && refused > 0 && kills > 0 ? 0 : 1;
}
