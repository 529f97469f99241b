/*
 * The server killed with SIGKILL at random moments under two workers: no batch lost, none doubled, states
 * right.
 *
 *	kill_server KILLS [SEED]        (environment SEGUE_PROGRAM: the server)
 *
 * Two worker processes, a lane each, write (step, sequence, segment) of every committed row to a
 * pipe. The parent checks that steps follow one another and that what is in the rows is what the plan
 * says; the workers check every state that comes in against its closed form, and every input. Kills
 * come at any moment of serving, and again while a server starts; some are a SIGTERM.
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

#include "lane/plan.h"
#include "spans.h"
#include "draft.h"
#include "tfwrite.h"
#include "tmpdir.h"

enum { RECORDS = 40, LANES = 2, ROWS = 4, UNROLL = 3, DEPTH = 3 };

static const char *socket_dir;
static const char *data;
static uint64_t seed;

static uint64_t mix(uint64_t z)
{
	z += UINT64_C(0x9E3779B97F4A7C15);
	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return z ^ z >> 31;
}

static uint64_t steps_of(uint64_t record)
{
	return 1 + mix(record) % 14;
}

/* The state after a segment: both words. */
static uint64_t state_after(uint64_t number, uint64_t segment, int word)
{
	return mix(number * 1000003 + segment * 17 + (uint64_t)word);
}

static void die(const char *what)
{
	fprintf(stderr, "kill_server: %s: %s (seed %llu)\n", what, segue_error_detail(),
		(unsigned long long)seed);
	_exit(1);
}

static void open_stream(struct segue_client **client, struct segue_stream **stream)
{
	const struct segue_feature feature = {.name = "x", .dtype = SEGUE_INT64};
	const struct segue_state state = {
		.name = "s", .dtype = SEGUE_INT64, .rank = 1, .dims = {2}};
	const struct segue_draft spec = {
		.name = "train",
		.source = {.kind = SEGUE_SOURCE_TFRECORD,
			.tfrecord = {.paths = &data, .path_count = 1}},
		.sequences = &feature,
		.sequence_count = 1,
		.states = &state,
		.state_count = 1,
		.num_unroll = UNROLL,
		.batch_size = ROWS,
		.lanes = LANES,
		.shuffle = true,
		.seed = 7,
		.keep_final = true,
		.depth = DEPTH,
		.interval_ms = 20,
	};

	if (segue_open(socket_dir, NULL, client) || segue_draft_open(*client, &spec, stream))
		die("open");
}

/* ---- The worker ---- */

struct row {
	uint64_t number;
	uint32_t segment;
	uint32_t row;
};

struct report {
	uint32_t lane, rows;
	uint64_t step;
	struct row row[ROWS];
};

static void check_row(const struct segue_span *span, const int64_t *in, const int64_t *x)
{
	for (int word = 0; word < 2; word++) {
		uint64_t wanted =
			span->segment == 0 ? 0 : state_after(span->number, span->segment - 1, word);
		if ((uint64_t)in[word] != wanted)
			die("a state that is not the one that was committed");
	}
	for (uint32_t i = 0; i < UNROLL; i++) {
		int64_t place = (int64_t)(span->first_step + i);
		if (i < span->length ? x[i] % 100 != place : x[i] != 0)
			die("an input that is not in the data");
	}
}

static void work_on(struct segue_batch *batch, struct report *report)
{
	struct segue_span spans[ROWS];
	uint32_t count = segue_test_spans(batch, spans, ROWS);
	const int64_t *in = segue_batch_state(batch, 0, NULL), *x = segue_batch_sequence(batch, 0);
	int64_t out[ROWS][2];

	report->step = segue_batch_step(batch);
	report->rows = count;
	for (uint32_t row = 0; row < count; row++) {
		check_row(&spans[row], in + 2 * row, x + UNROLL * row);
		report->row[row] = (struct row){spans[row].number, spans[row].segment, row};
		for (int word = 0; word < 2; word++)
			out[row][word] =
				(int64_t)state_after(spans[row].number, spans[row].segment, word);
	}
	if (segue_batch_save_state(batch, 0, out, count * sizeof(out[0])))
		die("save");
}

static volatile sig_atomic_t stop;

static void on_term(int signal)
{
	(void)signal;
	stop = 1;
}

static void work(uint32_t index, int out)
{
	const struct segue_attach_options fresh = {
		.size = sizeof(fresh), .start = SEGUE_START_FRESH};
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_lane *lane;
	struct segue_batch *batch;
	struct report report = {.lane = index};
	uint64_t random = mix(seed + index);

	signal(SIGTERM, on_term);
	open_stream(&client, &stream);
	if (segue_lane_attach(stream, index, &fresh, &lane))
		die("attach");
	while (!stop) {
		if (segue_lane_next(lane, SEGUE_FOREVER, &batch))
			die("next");
		work_on(batch, &report);
		if (segue_batch_commit(batch))
			die("commit");
		segue_batch_release(batch);
		if (write(out, &report, sizeof(report)) != (ssize_t)sizeof(report))
			_exit(1);
		random = mix(random);
		if (random % 4 == 0)
			usleep((useconds_t)(random >> 32) % 3000);
	}
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
	_exit(0);
}

/* ---- The oracle: the plan, run alone ---- */

static int admit(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	(void)arg;
	(void)number;
	*array_steps = *total_length = steps_of(record);
	return 0;
}

struct lane {
	struct segue_plan plan;
	uint64_t batches;
	pid_t pid;
	int pipe;
};

static void check_report(struct lane *lane, const struct report *report)
{
	const struct segue_plan_input input = {NULL, admit, NULL};
	struct segue_slot_span spans[ROWS];
	uint32_t rows;

	if (segue_plan_step(&lane->plan, &input, spans, &rows) != 1)
		die("the plan");
	if (report->step != lane->batches || report->rows != rows) {
		fprintf(stderr,
			"kill_server: lane %u: batch %llu came where %llu was due (seed %llu)\n",
			report->lane, (unsigned long long)report->step,
			(unsigned long long)lane->batches, (unsigned long long)seed);
		_exit(1);
	}
	for (uint32_t row = 0; row < rows; row++) {
		if (report->row[row].number != spans[row].number ||
			report->row[row].segment != spans[row].segment)
			die("a row that the plan does not have");
	}
	lane->batches++;
}

static void read_reports(struct lane *lane)
{
	struct report report;

	for (;;) {
		ssize_t got = read(lane->pipe, &report, sizeof(report));
		if (got == (ssize_t)sizeof(report)) {
			check_report(lane, &report);
		} else if (got < 0 && errno == EAGAIN) {
			return;
		} else if (got == 0) {
			return;
		} else if (got > 0) {
			die("half a report");
		}
	}
}

static void start_worker(struct lane *lane, uint32_t index)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_DIRECT) < 0)
		die("pipe");
	lane->pid = fork();
	if (lane->pid == 0)
		work(index, fds[1]);
	close(fds[1]);
	lane->pipe = fds[0];
	fcntl(fds[0], F_SETFL, fcntl(fds[0], F_GETFL) | O_NONBLOCK);
	const struct segue_plan_spec spec = {.records = RECORDS,
		.ends = {1, {0}},
		.seed = 7,
		.lanes = LANES,
		.lane = index,
		.batch_size = ROWS,
		.num_unroll = UNROLL,
		.shuffle = true};
	if (segue_plan_init(&lane->plan, &spec))
		die("plan");
}

/* ---- Kills ---- */

static pid_t server_pid(void)
{
	char path[SEGUE_TMPDIR_MAX], text[32] = "";
	int pid = 0;

	snprintf(path, sizeof(path), "%s/server.pid", socket_dir);
	FILE *file = fopen(path, "r");
	if (file) {
		if (fgets(text, sizeof(text), file))
			pid = atoi(text);
		fclose(file);
	}
	return pid;
}

static bool kill_once(uint64_t random)
{
	usleep((useconds_t)(random % 3 == 0 ? (random >> 8) % 60000 : (random >> 8) % 8000));
	pid_t pid = server_pid();
	/* One in eight ends in order: its workers go on with the next server all the same. */
	return pid > 0 && kill(pid, random >> 16 & 7 ? SIGKILL : SIGTERM) == 0;
}

static void check_workers(struct lane *lanes)
{
	for (uint32_t i = 0; i < LANES; i++) {
		int status;
		read_reports(&lanes[i]);
		if (waitpid(lanes[i].pid, &status, WNOHANG) == lanes[i].pid)
			die("a worker has ended");
	}
}

/* Waits until both lanes have moved on, so that each kill meets a server that serves. */
static void let_move(struct lane *lanes)
{
	uint64_t from[LANES];

	for (uint32_t i = 0; i < LANES; i++)
		from[i] = lanes[i].batches;
	for (int tries = 0; tries < 20000; tries++) {
		bool moved = true;
		check_workers(lanes);
		for (uint32_t i = 0; i < LANES; i++)
			moved = moved && lanes[i].batches > from[i] + 2 * DEPTH;
		if (moved)
			return;
		usleep(1000);
	}
	die("no batch for 20 s");
}

int main(int argc, char **argv)
{
	struct lane lanes[LANES] = {0};
	struct segue_tmpdir dir;
	char path[SEGUE_TMPDIR_MAX], store[SEGUE_TMPDIR_MAX];
	unsigned kills = argc > 1 ? (unsigned)atoi(argv[1]) : 20;
	uint64_t random;

	seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL);
	printf("kill_server: %u kills, seed %llu\n", kills, (unsigned long long)seed);
	fflush(stdout);
	segue_tmpdir_make(&dir, "kill-server");
	data = segue_tmpdir_path(&dir, "data.tfrecord", path);
	socket_dir = segue_tmpdir_path(&dir, "run", store);
	segue_tfwrite_numbers(data, RECORDS, steps_of);
	for (uint32_t i = 0; i < LANES; i++)
		start_worker(&lanes[i], i);
	let_move(lanes);
	random = mix(seed);
	for (unsigned done = 0; done < kills;) {
		random = mix(random);
		done += kill_once(random);
		check_workers(lanes);
		if (random % 5 != 0)
			let_move(lanes);
	}
	let_move(lanes);
	for (uint32_t i = 0; i < LANES; i++)
		kill(lanes[i].pid, SIGTERM);
	for (uint32_t i = 0; i < LANES; i++) {
		int status;
		if (waitpid(lanes[i].pid, &status, 0) != lanes[i].pid || status != 0)
			die("a worker failed at its end");
		read_reports(&lanes[i]);
		printf("kill_server: lane %u: %llu batches, each once, in order\n", i,
			(unsigned long long)lanes[i].batches);
		segue_plan_finish(&lanes[i].plan);
		close(lanes[i].pipe);
	}
	segue_tmpdir_remove(&dir);
	return 0;
}
