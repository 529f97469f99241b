/*
 * Part 2, and the processor time of part 4: from files in the page cache to a worker that reads all
 * inputs and writes all states.
 *
 * Beside it: one process that copies random rows out of decoded arrays of the same size into the
 * same number of slots, states in and out of a table, and reads the slot: all the copies, no
 * hand-off. The two take turns, so that both see the same machine.
 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define SLOTS  4
#define ROUNDS 7

/* ---- The same copies without a service ------------------------------------------------------- */

struct plain {
	const struct bench_shape *shape;
	uint8_t *pool, *table, *slots, *saved;
	size_t segments, keys; /* rows in the pool, states in the table */
	uint64_t random, batches;
};

static void plain_init(struct plain *plain, const struct bench_shape *shape, size_t segments)
{
	size_t state = 2 * bench_state_bytes(shape);
	size_t slot = shape->rows * (bench_row_bytes(shape) + 2 * state);

	*plain = (struct plain){.shape = shape, .segments = segments, .random = 2};
	plain->keys = ((size_t)128 << 20) / state;
	plain->pool = bench_alloc(segments * bench_row_bytes(shape));
	plain->table = bench_alloc(plain->keys * state);
	plain->slots = bench_alloc(SLOTS * slot);
	plain->saved = bench_alloc(shape->rows * state);
}

static void plain_finish(struct plain *plain)
{
	free(plain->pool);
	free(plain->table);
	free(plain->slots);
	free(plain->saved);
}

/* Into the slot; what a server would spend. */
static uint8_t *plain_inputs(struct plain *plain)
{
	const struct bench_shape *shape = plain->shape;
	size_t row = bench_row_bytes(shape), state = 2 * bench_state_bytes(shape);
	uint8_t *slot = plain->slots + plain->batches++ % SLOTS * shape->rows * (row + 2 * state);

	for (uint32_t i = 0; i < shape->rows; i++)
		memcpy(slot + i * row,
			plain->pool + bench_random(&plain->random) % plain->segments * row, row);
	return slot;
}

static void plain_batch(struct plain *plain)
{
	const struct bench_shape *shape = plain->shape;
	size_t row = bench_row_bytes(shape), state = 2 * bench_state_bytes(shape);
	uint64_t random = plain->random;
	uint8_t *slot = plain_inputs(plain);
	uint8_t *in = slot + shape->rows * row, *out = in + shape->rows * state;

	for (uint32_t i = 0; i < shape->rows; i++)
		memcpy(in + i * state, plain->table + bench_random(&random) % plain->keys * state,
			state);
	bench_use(bench_sum(slot, shape->rows * row));
	memcpy(out, plain->saved, shape->rows * state);
	for (uint32_t i = 0; i < shape->rows; i++)
		memcpy(plain->table + bench_random(&random) % plain->keys * state, out + i * state,
			state);
}

/* ---- Rounds ---------------------------------------------------------------------------------- */

struct rounds {
	struct bench_samples service, plain; /* batches a second */
	struct bench_samples ratio;
	struct bench_samples cpu, inputs; /* us a batch */
	double waited;                    /* share of the worker's time */
};

static double time_service(struct bench_worker *worker, double seconds, uint64_t *batches)
{
	int64_t start = bench_now();
	double spent;

	*batches = 0;
	do {
		bench_worker_batch(worker);
		++*batches;
		spent = bench_seconds_since(start);
	} while (spent < seconds);
	return spent;
}

static double time_plain(struct plain *plain, double seconds, bool inputs_only)
{
	uint64_t batches = 0;
	int64_t start = bench_now();
	double spent;

	do {
		if (inputs_only)
			plain_inputs(plain);
		else
			plain_batch(plain);
		batches++;
		spent = bench_seconds_since(start);
	} while (spent < seconds);
	return (double)batches / spent;
}

static void take_turns(const struct bench_server *server, struct bench_worker *worker,
	struct plain *plain, double seconds, struct rounds *rounds)
{
	double total = 0;
	uint64_t batches, waited;

	time_service(worker, 2 * seconds, &batches);
	waited = segue_lane_waited(worker->lane);
	for (int i = 0; i < ROUNDS; i++) {
		double copies = time_plain(plain, seconds, false);
		double inputs = time_plain(plain, seconds / 4, true);
		int64_t cpu = bench_server_cpu(server);
		double spent = time_service(worker, seconds, &batches);
		/* What it still fills is for batches like these. */
		bench_server_wait_idle(server);
		cpu = bench_server_cpu(server) - cpu;
		total += spent;
		bench_samples_add(&rounds->service, (double)batches / spent);
		bench_samples_add(&rounds->plain, copies);
		bench_samples_add(&rounds->ratio, (double)batches / spent / copies);
		bench_samples_add(&rounds->cpu, (double)cpu * 1e-3 / (double)batches);
		bench_samples_add(&rounds->inputs, 1e6 / inputs);
	}
	rounds->waited = (double)(segue_lane_waited(worker->lane) - waited) * 1e-9 / total;
}

static void print(const struct bench_shape *shape, enum segue_source_kind kind,
	struct rounds *rounds, double goal, uint64_t bytes)
{
	static const struct {
		const char *pipeline, *cpu;
	} names[] = {
		[SEGUE_SOURCE_TFRECORD] = {"TFRecord to worker", "server CPU per batch"},
		[SEGUE_SOURCE_FILES] = {"sequence files to worker",
			"server CPU per batch, sequence files"},
		[SEGUE_SOURCE_ARRAYS] = {"arrays to worker", "server CPU per batch, arrays"},
	};
	double lowest = bench_samples_at(&rounds->ratio, 0);
	double highest = bench_samples_at(&rounds->ratio, 1);

	bench_print(&(struct bench_figure){.part = 2,
			    .name = names[kind].pipeline,
			    .shape = shape->name,
			    .value = bench_samples_at(&rounds->service, 0.5),
			    .unit = "batches/s",
			    .beside = "the copies alone, one process",
			    .beside_value = bench_samples_at(&rounds->plain, 0.5),
			    .ratio = bench_samples_at(&rounds->ratio, 0.5),
			    .kind = BENCH_RATIO_MIN,
			    .goal = goal},
		"ratio %.2f to %.2f in %d rounds; worker waited %.0f %%; %.0f MB of records",
		lowest, highest, ROUNDS, 100 * rounds->waited, (double)bytes * 1e-6);
	bench_print(&(struct bench_figure){.part = 4,
			    .name = names[kind].cpu,
			    .shape = shape->name,
			    .value = bench_samples_at(&rounds->cpu, 0.5),
			    .unit = "us",
			    .beside = "copy of the inputs alone",
			    .beside_value = bench_samples_at(&rounds->inputs, 0.5)},
		"all threads, user and system");
}

static void run(const struct bench_shape *shape, enum segue_source_kind kind, double goal,
	uint64_t bytes, double seconds)
{
	uint32_t most = 1000000 / (uint32_t)bench_row_bytes(shape);
	/* S: 100 to 1,000 steps, as limits.md has it; L: up to the greatest record kept whole. */
	const struct bench_data data = {.kind = kind,
		.shape = shape,
		.segments_min = most < 50 ? 4 : 5,
		.segments_max = most < 50 ? most : 50,
		.bytes = bytes};
	char path[SEGUE_TMPDIR_MAX], store[SEGUE_TMPDIR_MAX];
	struct rounds rounds = {0};
	struct segue_tmpdir dir;
	struct bench_server server;
	struct bench_worker worker;
	struct bench_spec spec;
	struct plain plain;

	segue_tmpdir_make(&dir, "bench");
	plain_init(&plain, shape, bench_data_write(segue_tmpdir_path(&dir, "data", path), &data));
	bench_spec_init(&spec, shape, path);
	if (kind == SEGUE_SOURCE_FILES)
		bench_spec_from_files(&spec);
	if (kind == SEGUE_SOURCE_ARRAYS)
		bench_spec_from_arrays(&spec, &data);
	bench_server_start(&server, segue_tmpdir_path(&dir, "store", store));
	bench_worker_open(&worker, &server, &spec, shape);
	free(spec.sequences);
	take_turns(&server, &worker, &plain, seconds, &rounds);
	bench_worker_close(&worker);
	bench_server_stop(&server);
	print(shape, kind, &rounds, goal, bytes);
	plain_finish(&plain);
	bench_samples_finish(&rounds.service);
	bench_samples_finish(&rounds.plain);
	bench_samples_finish(&rounds.ratio);
	bench_samples_finish(&rounds.cpu);
	bench_samples_finish(&rounds.inputs);
	segue_tmpdir_remove(&dir);
}

int main(int argc, char **argv)
{
	bool quick = bench_options(argc, argv);
	uint64_t bytes = quick ? 200000000 : 600000000;
	double seconds = quick ? 0.2 : 1;

	run(&bench_shape_s, SEGUE_SOURCE_TFRECORD, 0.6, bytes, seconds);
	run(&bench_shape_l, SEGUE_SOURCE_TFRECORD, 0.4, bytes, seconds);
	run(&bench_shape_s, SEGUE_SOURCE_FILES, 0.6, bytes, seconds);
	run(&bench_shape_l, SEGUE_SOURCE_FILES, 0.8, bytes, seconds);
	run(&bench_shape_s, SEGUE_SOURCE_ARRAYS, 0.6, bytes, seconds);
	run(&bench_shape_l, SEGUE_SOURCE_ARRAYS, 0.8, bytes, seconds);
	return 0;
}
