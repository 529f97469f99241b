/*
 * Part 5: what the store writes to disk at durability = interval, against the speed of training.
 *
 * The committer takes the newest state of each row, once an interval: the disk must not see how
 * often a row's state was overwritten in between. Twice: with sequences that outlast the run, so
 * that only states change, and with those of shape S, where a faster worker also comes to new
 * sequences more often: at most, a row is removed and another inserted in place of one update, hence
 * the goal of 2. The interval is a quarter of a second, so that a short run holds many.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "tfwrite.h"

#define INTERVAL_MS 250
#define LONG_STEPS  600000

/* Batches at `rate` a second (0: as fast as can be) for `seconds`; returns how many. */
static uint64_t train(struct bench_worker *worker, double rate, double seconds)
{
	int64_t start = bench_now();
	uint64_t batches = 0;

	while (bench_seconds_since(start) < seconds) {
		bench_worker_batch(worker);
		batches++;
		if (rate > 0) {
			int64_t due = start + (int64_t)((double)batches * 1e9 / rate);
			int64_t now = bench_now();
			if (due > now)
				bench_sleep(due - now);
		}
	}
	return batches;
}

/* Bytes a second on disk at one speed. */
static double measure(const struct bench_server *server, struct bench_worker *worker, double rate,
	double seconds, const char *rows)
{
	double states = 2.0 * worker->shape->rows * (double)bench_state_bytes(worker->shape) *
			1000 / INTERVAL_MS;
	char name[64], speed[32];

	train(worker, rate, 2e-3 * INTERVAL_MS);
	double before = bench_server_written(server);
	int64_t start = bench_now();
	uint64_t batches = train(worker, rate, seconds);
	double spent = bench_seconds_since(start);
	double written = (bench_server_written(server) - before) / spent;
	if (rate > 0)
		snprintf(speed, sizeof(speed), "at %.0f batches/s", rate);
	else
		snprintf(speed, sizeof(speed), "unthrottled");
	snprintf(name, sizeof(name), "%s, %s", rows, speed);
	bench_print(&(struct bench_figure){.part = 5,
			    .name = name,
			    .shape = worker->shape->name,
			    .value = written * 1e-6,
			    .unit = "MB/s",
			    .beside = "the states once an interval",
			    .beside_value = states * 1e-6},
		"%.0f batches/s, interval %d ms", (double)batches / spent, INTERVAL_MS);
	return written;
}

static void measure_all(const struct bench_server *server, struct bench_worker *worker,
	double seconds, const char *rows, double goal)
{
	static const double rates[] = {10, 100, 1000, 0};
	double least = INFINITY, most = 0;
	char name[64];

	for (size_t i = 0; i < BENCH_COUNT(rates); i++) {
		double written = measure(server, worker, rates[i], seconds, rows);
		least = fmin(least, written);
		most = fmax(most, written);
	}
	snprintf(name, sizeof(name), "%s: most over least", rows);
	bench_print(&(struct bench_figure){.part = 5,
			    .name = name,
			    .shape = worker->shape->name,
			    .value = most * 1e-6,
			    .unit = "MB/s",
			    .beside = "least",
			    .beside_value = least * 1e-6,
			    .kind = BENCH_RATIO_MAX,
			    .goal = goal},
		"%s", most > 0 ? "over all speeds" : "nothing reached a disk: TMPDIR is no disk");
}

/* One record of so many steps of one float. */
static void write_long(const char *path)
{
	float *values = bench_alloc(LONG_STEPS * sizeof(*values));
	const struct segue_tffeature feature = {.name = "x",
		.kind = SEGUE_TF_FLOAT,
		.steps = LONG_STEPS,
		.each = 1,
		.values = values};
	struct segue_tfwriter *writer = segue_tfwriter_open(path, false);

	segue_tfwriter_add(writer, NULL, 0, &feature, 1);
	segue_tfwriter_close(writer);
	free(values);
}

static void run(const struct segue_tmpdir *dir, const struct bench_shape *shape, const char *store,
	const char *rows, double seconds, double goal)
{
	char path[SEGUE_TMPDIR_MAX], store_path[SEGUE_TMPDIR_MAX];
	const char *paths[64];
	struct bench_server server;
	struct bench_worker worker;
	struct bench_spec spec;

	bench_spec_init(&spec, shape, segue_tmpdir_path(dir, rows, path));
	for (uint32_t i = 0; i < shape->rows; i++)
		paths[i] = path;
	spec.stream.source.tfrecord.paths = paths;
	spec.stream.source.tfrecord.path_count = shape->rows;
	spec.stream.interval_ms = INTERVAL_MS;
	bench_server_start(&server, segue_tmpdir_path(dir, store, store_path));
	bench_worker_open(&worker, &server, &spec, shape);
	measure_all(&server, &worker, seconds, rows, goal);
	bench_worker_close(&worker);
	bench_server_stop(&server);
}

int main(int argc, char **argv)
{
	static const struct bench_shape stay = {"32 x 1 x 1, states of S", 32, 1, 1, 128};
	bool quick = bench_options(argc, argv);
	const struct bench_data data = {
		.shape = &bench_shape_s, .segments_min = 5, .segments_max = 50, .bytes = 100000000};
	char path[SEGUE_TMPDIR_MAX];
	struct segue_tmpdir dir;

	segue_tmpdir_make(&dir, "bench");
	write_long(segue_tmpdir_path(&dir, "rows stay", path));
	run(&dir, &stay, "store-stay", "rows stay", quick ? 1.5 : 6, 1.25);
	if (!quick) {
		bench_data_write(segue_tmpdir_path(&dir, "rows change", path), &data);
		run(&dir, &bench_shape_s, "store-change", "rows change", 6, 2);
	}
	segue_tmpdir_remove(&dir);
	return 0;
}
