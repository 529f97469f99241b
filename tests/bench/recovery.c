/* Kills: how long until the next batch, when the server dies and when a worker dies. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

enum { DEPTH = 4, SETTLE = 32 };

/* A worker whose server the library starts, as a user's does. */
static void open_worker(struct bench_worker *worker, const char *dir, const struct bench_spec *spec,
	enum segue_start start)
{
	const struct segue_attach_options options = {.size = sizeof(options), .start = start};

	worker->shape = &bench_shape_s;
	BENCH_CHECK(segue_open(dir, NULL, &worker->client));
	BENCH_CHECK(segue_draft_open(worker->client, &spec->stream, &worker->stream));
	BENCH_CHECK(segue_lane_attach(worker->stream, 0, &options, &worker->lane));
	worker->states = bench_alloc(worker->shape->rows * bench_state_bytes(worker->shape));
}

static pid_t server_of(const char *dir)
{
	char path[SEGUE_TMPDIR_MAX];
	int pid = 0;

	snprintf(path, sizeof(path), "%.*s/server.pid", SEGUE_TMPDIR_MAX - 16, dir);
	FILE *file = fopen(path, "re");
	if (!file || fscanf(file, "%d", &pid) != 1)
		bench_die(path);
	fclose(file);
	return pid;
}

/* Until the first batch that no ring held when the server was killed. */
static void kill_servers(struct bench_worker *worker, const char *dir, int kills)
{
	struct bench_samples samples = {0};

	for (int i = 0; i < kills; i++) {
		for (int settle = 0; settle < SETTLE; settle++)
			bench_worker_batch(worker);
		int64_t start = bench_now();
		kill(server_of(dir), SIGKILL);
		for (int batch = 0; batch <= DEPTH; batch++)
			bench_worker_batch(worker);
		bench_samples_add(&samples, bench_seconds_since(start) * 1e3);
	}
	double p99 = bench_samples_at(&samples, 0.99);
	bench_print(&(struct bench_figure){.part = 7,
			    .name = "server killed to next batch",
			    .shape = worker->shape->name,
			    .value = bench_samples_at(&samples, 0.5),
			    .unit = "ms"},
		"p99 %.1f ms, %d kills; the ring of %d is used up first", p99, kills, DEPTH);
	bench_samples_finish(&samples);
}

/* A child that holds the lane with a batch open; returns when it says so. */
static pid_t start_holder(const char *dir, const struct bench_spec *spec, uint64_t *step)
{
	int ends[2];

	if (pipe(ends) < 0)
		bench_die("pipe");
	pid_t pid = fork();
	if (pid == 0) {
		struct bench_worker worker;
		open_worker(&worker, dir, spec, SEGUE_START_CONTINUE);
		for (int i = 0; i < SETTLE; i++)
			bench_worker_batch(&worker);
		uint64_t open = segue_batch_step(bench_worker_next(&worker));
		if (write(ends[1], &open, sizeof(open)) != (ssize_t)sizeof(open))
			_exit(1);
		for (;;)
			pause();
	}
	close(ends[1]);
	if (pid < 0 || read(ends[0], step, sizeof(*step)) != (ssize_t)sizeof(*step))
		bench_die("the holder of the lane");
	close(ends[0]);
	return pid;
}

/* Until another process has the batch that was open. */
static void kill_workers(const char *dir, const struct bench_spec *spec, int kills)
{
	const struct segue_attach_options options = {
		.size = sizeof(options), .start = SEGUE_START_CONTINUE};
	struct bench_samples samples = {0};

	for (int i = 0; i < kills; i++) {
		struct segue_client *client;
		struct segue_stream *stream;
		struct segue_batch *batch;
		struct segue_lane *lane;
		uint64_t step;
		int rc;
		pid_t holder = start_holder(dir, spec, &step);
		BENCH_CHECK(segue_open(dir, NULL, &client));
		BENCH_CHECK(segue_draft_open(client, &spec->stream, &stream));
		int64_t start = bench_now();
		kill(holder, SIGKILL);
		/* Until the kernel has taken it away it is alive, and the lane is held. */
		while ((rc = segue_lane_attach(stream, 0, &options, &lane)) == SEGUE_EBUSY)
			bench_sleep(200000);
		bench_check(rc, "segue_lane_attach");
		BENCH_CHECK(segue_lane_next(lane, SEGUE_FOREVER, &batch));
		bench_samples_add(&samples, bench_seconds_since(start) * 1e3);
		if (segue_batch_step(batch) != step)
			bench_die("another batch than the one that was open");
		segue_batch_release(batch);
		segue_lane_close(lane);
		segue_stream_close(stream);
		segue_client_close(client);
		waitpid(holder, NULL, 0);
	}
	double p50 = bench_samples_at(&samples, 0.5);
	bench_print(&(struct bench_figure){.part = 7,
			    .name = "worker killed to its batch elsewhere",
			    .shape = bench_shape_s.name,
			    .value = bench_samples_at(&samples, 0.99),
			    .unit = "ms (p99)",
			    .kind = BENCH_VALUE_MAX,
			    .goal = 100},
		"median %.1f ms, %d kills", p50, kills);
	bench_samples_finish(&samples);
}

int main(int argc, char **argv)
{
	bool quick = bench_options(argc, argv);
	const struct bench_data data = {
		.shape = &bench_shape_s, .segments_min = 5, .segments_max = 50, .bytes = 20000000};
	int kills = quick ? 20 : 200;
	char path[SEGUE_TMPDIR_MAX], store[SEGUE_TMPDIR_MAX];
	struct segue_client *guard;
	struct bench_worker worker;
	struct bench_spec spec;
	struct segue_tmpdir dir;

	segue_tmpdir_make(&dir, "bench");
	bench_data_write(segue_tmpdir_path(&dir, "data", path), &data);
	bench_spec_init(&spec, &bench_shape_s, path);
	spec.stream.depth = DEPTH;
	spec.stream.lanes = 2;
	open_worker(&worker, segue_tmpdir_path(&dir, "store", store), &spec, SEGUE_START_FRESH);
	kill_servers(&worker, store, kills);
	bench_worker_close(&worker);
	/* So that the server stays while workers come and go. */
	BENCH_CHECK(segue_open(store, NULL, &guard));
	kill_workers(store, &spec, kills);
	segue_client_close(guard);
	segue_tmpdir_remove(&dir);
	return 0;
}
