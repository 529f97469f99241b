/*
 * Part 5: what the store writes to disk at durability = interval, against the speed of training.
 *
 * The committer takes the newest state of each row, once an interval: the disk must not see how
 * often a row's state was overwritten in between. The interval is a tenth of a second, so that a
 * short run holds many.
 */
#include <math.h>
#include <stdio.h>

#include "bench.h"

#define INTERVAL_MS 100

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

static double measure(const struct bench_server *server, struct bench_worker *worker, double rate,
	double seconds, double states)
{
	char name[64];

	train(worker, rate, 0.5);
	double before = bench_server_written(server);
	int64_t start = bench_now();
	uint64_t batches = train(worker, rate, seconds);
	double spent = bench_seconds_since(start);
	double written = (bench_server_written(server) - before) / spent;
	if (rate > 0)
		snprintf(name, sizeof(name), "disk at %.0f batches/s", rate);
	else
		snprintf(name, sizeof(name), "disk, worker unthrottled");
	bench_print(&(struct bench_figure){.part = 5,
			    .name = name,
			    .shape = "S",
			    .value = written * 1e-6,
			    .unit = "MB/s",
			    .beside = "the states once an interval",
			    .beside_value = states * 1e-6},
		"%.0f batches/s, interval %d ms", (double)batches / spent, INTERVAL_MS);
	return written;
}

int main(int argc, char **argv)
{
	static const double rates[] = {10, 100, 1000, 0};
	bool quick = bench_options(argc, argv);
	const struct bench_shape *shape = &bench_shape_s;
	const struct bench_data data = {
		.shape = shape, .segments_min = 5, .segments_max = 50, .bytes = 100000000};
	double states = 2.0 * shape->rows * (double)bench_state_bytes(shape) * 1000 / INTERVAL_MS;
	double least = INFINITY, most = 0;
	char path[SEGUE_TMPDIR_MAX], store[SEGUE_TMPDIR_MAX];
	struct segue_tmpdir dir;
	struct bench_server server;
	struct bench_worker worker;
	struct bench_spec spec;

	segue_tmpdir_make(&dir, "bench");
	bench_data_write(segue_tmpdir_path(&dir, "data", path), &data);
	bench_spec_init(&spec, shape, path);
	spec.stream.interval_ms = INTERVAL_MS;
	bench_server_start(&server, segue_tmpdir_path(&dir, "store", store));
	bench_worker_open(&worker, &server, &spec, shape);
	for (size_t i = 0; i < BENCH_COUNT(rates); i++) {
		double written = measure(&server, &worker, rates[i], quick ? 1.5 : 5, states);
		least = fmin(least, written);
		most = fmax(most, written);
	}
	bench_worker_close(&worker);
	bench_server_stop(&server);
	bench_print(&(struct bench_figure){.part = 5,
			    .name = "most over least",
			    .shape = "S",
			    .value = most * 1e-6,
			    .unit = "MB/s",
			    .beside = "least",
			    .beside_value = least * 1e-6,
			    .kind = BENCH_RATIO_MAX,
			    .goal = 1.5},
		"%s", most > 0 ? "over all speeds" : "nothing reached a disk: TMPDIR is no disk");
	segue_tmpdir_remove(&dir);
	return 0;
}
