/*
 * Producers and workers in processes of their own, under a server that is killed: each sequence is
 * in the log once, in its producer's order, and comes to its lane once, whole.
 *
 *	producers KILLS [SEED]        (environment SEGUE_PROGRAM: the server)
 *
 * Each producer inserts sequences whose values say which they are; some of them are killed, and
 * others go on under their names, from what they are told. When all have closed the lanes end. The
 * workers write each segment that is committed to a pipe; the parent checks all of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "draft.h"
#include "segue/segue.h"
#include "spans.h"
#include "tmpdir.h"

enum {
	PRODUCERS = 2,
	LANES = 2,
	ROWS = 3,
	UNROLL = 4,
	EACH = 1200,
	STEPS_MAX = 40,
	NUMBERS = PRODUCERS * EACH,
	KILLED_OFTEN = 3, /* one in so many kills is of a producer */
};

static const char *store_dir;
static uint64_t seed;

static uint64_t mix(uint64_t z)
{
	z += UINT64_C(0x9E3779B97F4A7C15);
	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return z ^ z >> 31;
}

static uint64_t steps_of(uint64_t producer, uint64_t serial)
{
	return 1 + mix(producer << 32 | serial) % STEPS_MAX;
}

static int64_t value_of(uint64_t producer, uint64_t serial, uint64_t step)
{
	return (int64_t)(producer * 1000000000 + serial * 1000 + step);
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "producers: %s: %s (seed %llu)\n", what, segue_error_detail(),
		(unsigned long long)seed);
	_exit(1);
}

static void open_stream(struct segue_client **client, struct segue_stream **stream)
{
	const struct segue_feature feature = {.name = "x", .dtype = SEGUE_INT64};
	const struct segue_state state = {.name = "s", .dtype = SEGUE_INT64};
	const struct segue_draft draft = {
		.name = "train",
		.source = {.kind = SEGUE_SOURCE_LOG, .log = {.producers = PRODUCERS}},
		.sequences = &feature,
		.sequence_count = 1,
		.states = &state,
		.state_count = 1,
		.num_unroll = UNROLL,
		.batch_size = ROWS,
		.lanes = LANES,
		.epochs = 1,
		.depth = 3,
		.interval_ms = 10,
	};

	if (segue_open(store_dir, NULL, client) || segue_draft_open(*client, &draft, stream))
		die("open");
}

/* ---- Producers ---- */

static void produce(uint64_t index)
{
	const struct segue_producer_options options = {
		.size = sizeof(options), .takeover = true, .ring_bytes = 1 << 16};
	struct segue_producer *producer;
	struct segue_client *client;
	struct segue_stream *stream;
	int64_t values[STEPS_MAX];
	const void *arrays[] = {values}, *cursor;
	char name[16];
	uint64_t serial, random = mix(seed + index + 100 * (uint64_t)getpid());
	size_t cursor_size;

	snprintf(name, sizeof(name), "actor-%d", (int)index);
	open_stream(&client, &stream);
	if (segue_producer_open(stream, name, &options, &producer))
		die("producer");
	segue_producer_resumed(producer, &serial, &cursor, &cursor_size);
	if (cursor_size != (serial ? sizeof(serial) : 0) ||
		(serial && memcmp(cursor, &serial, sizeof(serial)) != 0))
		die("a cursor of another entry");
	while (++serial <= EACH) {
		struct segue_sequence sequence = {.size = sizeof(sequence),
			.steps = steps_of(index, serial),
			.arrays = arrays};

		for (uint64_t i = 0; i < sequence.steps; i++)
			values[i] = value_of(index, serial, i);
		if (segue_producer_insert(
			    producer, &sequence, &serial, sizeof(serial), SEGUE_FOREVER))
			die("insert");
		random = mix(random);
		if (random % 16 == 0)
			usleep((useconds_t)(random >> 32) % 2000);
	}
	if (segue_producer_close(producer, SEGUE_FOREVER))
		die("close");
	segue_producer_destroy(producer);
	segue_stream_close(stream);
	segue_client_close(client);
	_exit(0);
}

static pid_t start_producer(uint64_t index)
{
	pid_t pid = fork();

	if (pid == 0)
		produce(index);
	return pid;
}

/* ---- Workers ---- */

struct segment {
	uint64_t number, first_step;
	uint32_t lane, length;
	int64_t first; /* its first value */
};

static void take_row(const struct segue_span *span, const int64_t *x, uint32_t lane, int out)
{
	const struct segment segment = {span->number, span->first_step, lane, span->length, x[0]};

	for (uint32_t i = 0; i < UNROLL; i++)
		if (x[i] != (i < span->length ? x[0] + (int64_t)i : 0))
			die("values that are not one behind the other");
	if (write(out, &segment, sizeof(segment)) != (ssize_t)sizeof(segment))
		_exit(1);
}

static void work(uint32_t index, int out)
{
	const struct segue_attach_options options = {
		.size = sizeof(options), .start = SEGUE_START_CONTINUE};
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_batch *batch;
	struct segue_lane *lane;
	int rc;

	open_stream(&client, &stream);
	if (segue_lane_attach(stream, index, &options, &lane))
		die("attach");
	while ((rc = segue_lane_next(lane, SEGUE_FOREVER, &batch)) == 0) {
		struct segue_span spans[ROWS];
		int64_t x[ROWS][UNROLL], out_states[ROWS] = {0};
		uint32_t count = segue_test_spans(batch, spans, ROWS);

		memcpy(x, segue_batch_sequence(batch, 0), count * sizeof(*x));
		if (segue_batch_save_state(batch, 0, out_states, count * sizeof(*out_states)))
			die("save");
		if (segue_batch_commit(batch))
			die("commit");
		segue_batch_release(batch);
		for (uint32_t row = 0; row < count; row++)
			if (spans[row].length > 0)
				take_row(&spans[row], x[row], index, out);
	}
	if (rc != SEGUE_EEND)
		die("next");
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
	_exit(0);
}

/* ---- What came ---- */

/* Of each number: how far it has come, and which sequence it is. */
static struct {
	uint64_t steps, producer, serial;
} came[NUMBERS];
static uint64_t segments;

static void take_segment(const struct segment *segment)
{
	uint64_t value = (uint64_t)segment->first, producer = value / 1000000000;
	uint64_t serial = value / 1000 % 1000000, n = segment->number;

	if (n >= NUMBERS || n % LANES != segment->lane || producer >= PRODUCERS || serial == 0 ||
		serial > EACH || value % 1000 != segment->first_step)
		die("a segment that is none");
	if (came[n].steps != segment->first_step ||
		(came[n].steps && (came[n].producer != producer || came[n].serial != serial)))
		die("a segment that does not follow");
	came[n].steps += segment->length;
	came[n].producer = producer;
	came[n].serial = serial;
	segments++;
}

static bool read_segments(int pipe)
{
	struct segment segment;

	for (;;) {
		ssize_t got = read(pipe, &segment, sizeof(segment));

		if (got < 0 && errno == EAGAIN)
			return true;
		if (got == 0)
			return false;
		if (got != (ssize_t)sizeof(segment))
			die("half a segment");
		take_segment(&segment);
	}
}

static void check_all(void)
{
	uint64_t last[PRODUCERS] = {0};

	for (uint64_t n = 0; n < NUMBERS; n++) {
		uint64_t producer = came[n].producer;

		if (came[n].steps != steps_of(producer, came[n].serial))
			die("a sequence that is not whole");
		if (came[n].serial != last[producer] + 1)
			die("a serial that does not follow");
		last[producer]++;
	}
}

/* ---- Kills ---- */

static pid_t server_pid(void)
{
	char path[SEGUE_TMPDIR_MAX], text[32] = "";
	int pid = 0;

	snprintf(path, sizeof(path), "%s/server.pid", store_dir);
	FILE *file = fopen(path, "r");
	if (file) {
		if (fgets(text, sizeof(text), file))
			pid = atoi(text);
		fclose(file);
	}
	return pid;
}

static pid_t producer_pid[PRODUCERS], worker_pid[LANES];
static int pipes[LANES];

/* False: all have ended well. */
static bool look(void)
{
	bool some = false;
	int status;

	for (int i = 0; i < PRODUCERS; i++) {
		if (producer_pid[i] && waitpid(producer_pid[i], &status, WNOHANG) != 0) {
			if (status != 0)
				die("a producer has failed");
			producer_pid[i] = 0;
		}
		some = some || producer_pid[i];
	}
	for (int i = 0; i < LANES; i++)
		some = read_segments(pipes[i]) || some;
	return some;
}

static bool kill_producer(uint64_t index)
{
	pid_t pid = producer_pid[index];
	int status;

	if (!pid)
		return false;
	kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		producer_pid[index] = 0; /* it had ended before */
		return false;
	}
	producer_pid[index] = start_producer(index);
	return true;
}

static void start_worker(int index)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_DIRECT) < 0)
		die("pipe");
	worker_pid[index] = fork();
	if (worker_pid[index] == 0)
		work((uint32_t)index, fds[1]);
	close(fds[1]);
	pipes[index] = fds[0];
	fcntl(fds[0], F_SETFL, fcntl(fds[0], F_GETFL) | O_NONBLOCK);
}

int main(int argc, char **argv)
{
	unsigned kills = argc > 1 ? (unsigned)atoi(argv[1]) : 20, done = 0;
	char store[SEGUE_TMPDIR_MAX];
	struct segue_tmpdir dir;

	seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL);
	printf("producers: up to %u kills, seed %llu\n", kills, (unsigned long long)seed);
	fflush(stdout);
	segue_tmpdir_make(&dir, "producers");
	store_dir = segue_tmpdir_path(&dir, "run", store);
	for (int i = 0; i < LANES; i++)
		start_worker(i);
	for (uint64_t i = 0; i < PRODUCERS; i++)
		producer_pid[i] = start_producer(i);
	uint64_t random = mix(seed);
	while (look()) {
		random = mix(random);
		usleep((useconds_t)((random >> 8) % (done < kills ? 30000 : 3000)));
		if (done >= kills)
			continue;
		pid_t pid = server_pid();
		if (random % KILLED_OFTEN == 0)
			done += kill_producer((random >> 40) % PRODUCERS);
		else
			done += pid > 0 && kill(pid, random >> 16 & 7 ? SIGKILL : SIGTERM) == 0;
	}
	for (int i = 0; i < LANES; i++) {
		int status;

		if (waitpid(worker_pid[i], &status, 0) != worker_pid[i] || status != 0)
			die("a worker failed at its end");
		close(pipes[i]);
	}
	check_all();
	printf("producers: %d sequences, %llu segments, each once, after %u kills\n", NUMBERS,
		(unsigned long long)segments, done);
	segue_tmpdir_remove(&dir);
	return 0;
}
