/*
 * Part 6: checkpoints. Time and size of a token, and the time to go back to one, with 10^3 to 10^6
 * keys whose final states are in the store: they must not matter.
 *
 * A checkpoint is on disk when it is answered, so each of them waits for a sync; beside it stands a
 * plain write of as many bytes to a file, synced, in the same run.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench.h"

#define ROUNDS  15
#define WARM_UP 5
#define BEHIND  500 /* batches that are not on disk, at most */
#define APART   2   /* batches between a checkpoint and a restore */

/* A record of 4 steps of one float: one segment. States as those of S. */
static const struct bench_shape shape = {"32 rows, states of S", 32, 4, 1, 128};

struct result {
	double checkpoint, restore; /* ms */
	size_t size;
};

/* Milliseconds of a plain write of so many bytes, and its sync. */
static double write_plainly(const struct segue_tmpdir *dir, size_t size)
{
	struct bench_samples samples = {0};
	char path[SEGUE_TMPDIR_MAX];
	void *bytes = bench_alloc(size);
	int fd = open(segue_tmpdir_path(dir, "plain", path), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	for (int i = 0; fd >= 0 && i < ROUNDS; i++) {
		int64_t start = bench_now();
		if (pwrite(fd, bytes, size, (off_t)(i * (int)size)) != (ssize_t)size ||
			fdatasync(fd))
			bench_die(path);
		bench_samples_add(&samples, bench_seconds_since(start) * 1e3);
	}
	if (fd >= 0)
		close(fd);
	double median = bench_samples_at(&samples, 0.5);
	bench_samples_finish(&samples);
	free(bytes);
	return median;
}

/* Without final states piling up in memory: this worker does nothing but end sequences. */
static void run_to(struct bench_worker *worker, uint64_t batches)
{
	uint64_t committed;

	while ((committed = segue_lane_committed(worker->lane)) < batches) {
		while (committed > segue_lane_durable(worker->lane) + BEHIND)
			bench_sleep(1000000);
		bench_worker_batch(worker);
	}
}

/* So far, and all of it on disk: what is measured then is the act alone. */
static void go_on(struct bench_worker *worker)
{
	uint64_t batches = segue_lane_committed(worker->lane) + APART;

	run_to(worker, batches);
	while (segue_lane_durable(worker->lane) < batches)
		bench_sleep(1000000);
}

/* Once over all records, so that each has its final states in the store; then the two by turns. */
static struct result measure(struct bench_worker *worker, uint64_t keys)
{
	struct bench_samples checkpoints = {0}, restores = {0};
	struct result result = {0};
	void *token = NULL;

	run_to(worker, keys / shape.rows + 2);
	for (int i = -WARM_UP; i < ROUNDS; i++) {
		segue_free(token);
		go_on(worker);
		int64_t start = bench_now();
		BENCH_CHECK(segue_lane_checkpoint(worker->lane, &token, &result.size));
		double checkpoint = bench_seconds_since(start) * 1e3;
		go_on(worker);
		start = bench_now();
		BENCH_CHECK(segue_lane_restore(worker->lane, token, result.size));
		if (i < 0)
			continue;
		bench_samples_add(&checkpoints, checkpoint);
		bench_samples_add(&restores, bench_seconds_since(start) * 1e3);
	}
	segue_free(token);
	result.checkpoint = bench_samples_at(&checkpoints, 0.5);
	result.restore = bench_samples_at(&restores, 0.5);
	bench_samples_finish(&checkpoints);
	bench_samples_finish(&restores);
	return result;
}

static struct result run(const struct segue_tmpdir *dir, uint64_t keys)
{
	const struct bench_data data = {
		.shape = &shape, .segments_min = 1, .segments_max = 1, .records = keys};
	char path[SEGUE_TMPDIR_MAX], store[SEGUE_TMPDIR_MAX], name[32];
	struct bench_server server;
	struct bench_worker worker;
	struct bench_spec spec;

	snprintf(name, sizeof(name), "%llu.tfrecord", (unsigned long long)keys);
	bench_data_write(segue_tmpdir_path(dir, name, path), &data);
	bench_spec_init(&spec, &shape, path);
	spec.stream.keep_final = true;
	spec.stream.interval_ms = 50;
	snprintf(name, sizeof(name), "store-%llu", (unsigned long long)keys);
	bench_server_start(&server, segue_tmpdir_path(dir, name, store));
	bench_worker_open(&worker, &server, &spec, &shape);
	struct result result = measure(&worker, keys);
	bench_worker_close(&worker);
	bench_server_stop(&server);
	segue_tmpdir_remove_path(store);
	unlink(path);
	return result;
}

static void print(const char *what, uint64_t keys, double value, double least, const char *unit,
	const char *note)
{
	char name[64];

	snprintf(name, sizeof(name), "%s, %llu keys", what, (unsigned long long)keys);
	bench_print(&(struct bench_figure){.part = 6,
			    .name = name,
			    .shape = shape.name,
			    .value = value,
			    .unit = unit,
			    .beside = "10^3 keys",
			    .beside_value = least,
			    .kind = BENCH_RATIO_MAX,
			    .goal = 2},
		"%s", note);
}

int main(int argc, char **argv)
{
	bool quick = bench_options(argc, argv);
	struct segue_tmpdir dir;
	struct result first = {0};

	segue_tmpdir_make(&dir, "bench");
	for (uint64_t keys = 1000; keys <= (quick ? 10000u : 1000000u); keys *= 10) {
		struct result result = run(&dir, keys);
		if (keys == 1000) {
			first = result;
			bench_print(&(struct bench_figure){.part = 6,
					    .name = "checkpoint",
					    .shape = shape.name,
					    .value = result.checkpoint,
					    .unit = "ms",
					    .beside = "write and sync",
					    .beside_value = write_plainly(&dir, result.size)},
				"median of %d", ROUNDS);
		}
		print("checkpoint", keys, result.checkpoint, first.checkpoint, "ms",
			"on disk when answered");
		print("token", keys, (double)result.size / 1024, (double)first.size / 1024, "KiB",
			"states of 32 rows and their place");
		print("restore", keys, result.restore, first.restore, "ms",
			"2 batches back, with their final states");
	}
	segue_tmpdir_remove(&dir);
	return 0;
}
