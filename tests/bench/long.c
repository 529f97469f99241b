/*
 * Part 4: one batch of 32 records of 10^6 steps x 64 floats: one file of 256 MB listed 32 times.
 *
 * Memory stays small, admission is a time of its own, and a batch takes as long at the end of the
 * records as at their beginning.
 */
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "tfwrite.h"

#define STEPS     1000000 /* a record */
#define PATTERN   1000    /* steps that differ */
#define LIMIT     (256.0 * 1024 * 1024)
#define READ_SIZE (1 << 20)
#define PIECES    100 /* of a third of the batches */

/* ---- The record ------------------------------------------------------------------------------ */

/* A step as it lies in a FeatureList: every one has the same size. */
static void make_pattern(struct segue_tfbytes *pattern, uint32_t floats)
{
	float *values = bench_alloc((size_t)PATTERN * floats * sizeof(*values));
	const struct segue_tffeature feature = {
		.kind = SEGUE_TF_FLOAT, .steps = PATTERN, .each = floats, .values = values};
	struct segue_tfbytes step = {0};
	uint64_t random = 4;

	for (size_t i = 0; i < (size_t)PATTERN * floats; i++)
		values[i] = (float)(bench_random(&random) >> 40) * 0x1p-24f;
	for (size_t i = 0; i < PATTERN; i++) {
		step.size = 0;
		segue_tfwrite_feature(&step, &feature, i);
		segue_tfbytes_field(pattern, 1, step.bytes, step.size);
	}
	segue_tfbytes_free(&step);
	free(values);
}

/* Field `number` around the bytes that follow: tag and length. */
static void put_head(struct segue_tfbytes *to, uint32_t number, uint64_t size)
{
	segue_tfbytes_varint(to, number << 3 | 2);
	segue_tfbytes_varint(to, size);
}

/*
 * The heads of SequenceExample.feature_lists, of the map entry and of its value, which each hold
 * all that follows: so from the inside out.
 */
static void put_heads(struct segue_tfbytes *to, uint64_t steps_size)
{
	struct segue_tfbytes list = {0}, entry = {0}, map = {0};

	segue_tfbytes_field(&list, 1, "x", 1);
	put_head(&list, 2, steps_size);
	put_head(&entry, 1, list.size + steps_size);
	segue_tfbytes_put(&entry, list.bytes, list.size);
	put_head(&map, 2, entry.size + steps_size);
	segue_tfbytes_put(&map, entry.bytes, entry.size);
	segue_tfbytes_put(to, map.bytes, map.size);
	segue_tfbytes_free(&list);
	segue_tfbytes_free(&entry);
	segue_tfbytes_free(&map);
}

static void write_record(const char *path, uint32_t floats, uint32_t steps)
{
	struct segue_tfbytes pattern = {0}, example = {0}, record = {0};

	make_pattern(&pattern, floats);
	put_heads(&example, (uint64_t)steps / PATTERN * pattern.size);
	for (uint32_t i = 0; i < steps / PATTERN; i++)
		segue_tfbytes_put(&example, pattern.bytes, pattern.size);
	segue_tfwrite_record(&record, example.bytes, example.size);
	segue_tfwrite_file(path, record.bytes, record.size);
	segue_tfbytes_free(&pattern);
	segue_tfbytes_free(&example);
	segue_tfbytes_free(&record);
}

/* ---- The batch ------------------------------------------------------------------------------- */

/* Seconds to read the file as often as it is listed. */
static double read_plainly(const char *path, uint32_t times)
{
	uint8_t *bytes = bench_alloc(READ_SIZE);
	int64_t start = bench_now();

	for (uint32_t i = 0; i < times; i++) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			bench_die(path);
		while (read(fd, bytes, READ_SIZE) > 0)
			;
		close(fd);
	}
	double seconds = bench_seconds_since(start);
	free(bytes);
	return seconds;
}

struct taken {
	double admission;           /* s */
	double first, middle, last; /* us a batch, by thirds */
	double mean;
	double read;                    /* s, the worker's time for all batches */
	double peak, anonymous, shared; /* bytes */
};

/*
 * us a batch in a third of all, in the tenth of its pieces that was fastest: what others do on the
 * machine slows down some pieces, what the server does slows down all.
 */
static double third(const int64_t *at, uint32_t batches, uint32_t number)
{
	struct bench_samples samples = {0};
	uint32_t piece = batches / (3 * PIECES);

	for (uint32_t i = 0; i < PIECES; i++) {
		/* at[0] is before admission. */
		uint32_t begin = 1 + (number * PIECES + i) * piece;
		uint32_t end = begin + piece <= batches ? begin + piece : batches;
		bench_samples_add(&samples, (double)(at[end] - at[begin]) * 1e-3 / (end - begin));
	}
	double value = bench_samples_at(&samples, 0.1);
	bench_samples_finish(&samples);
	return value;
}

static void take_all(const struct bench_server *server, struct bench_worker *worker,
	uint32_t batches, struct taken *taken)
{
	int64_t *at = bench_alloc((batches + 1) * sizeof(*at));

	int64_t start = bench_now();
	bench_worker_batch(worker);
	taken->admission = bench_seconds_since(start);
	at[1] = bench_now();
	for (uint32_t i = 1; i < batches; i++) {
		if (!bench_worker_batch(worker))
			bench_die("the records ended too early");
		at[i + 1] = bench_now();
	}
	taken->read = (double)(at[batches] - at[1]) * 1e-9;
	taken->mean = taken->read * 1e6 / (batches - 1);
	taken->first = third(at, batches, 0);
	taken->middle = third(at, batches, 1);
	taken->last = third(at, batches, 2);
	taken->peak = bench_server_memory(server, "VmHWM");
	taken->anonymous = bench_server_memory(server, "RssAnon");
	taken->shared = bench_server_memory(server, "RssShmem");
	free(at);
}

static void print(const struct bench_shape *shape, const struct taken *taken, double read_once)
{
	double low = fmin(taken->first, fmin(taken->middle, taken->last));
	double high = fmax(taken->first, fmax(taken->middle, taken->last));

	bench_print(&(struct bench_figure){.part = 4,
			    .name = "admission of 32 long records",
			    .shape = shape->name,
			    .value = taken->admission,
			    .unit = "s",
			    .beside = "reading them alone",
			    .beside_value = read_once},
		"one loader thread; every byte read, checked and scanned");
	bench_print(&(struct bench_figure){.part = 4,
			    .name = "all batches of 32 long records",
			    .shape = shape->name,
			    .value = taken->read,
			    .unit = "s",
			    .beside = "reading them alone",
			    .beside_value = read_once},
		"after admission");
	bench_print(&(struct bench_figure){.part = 4,
			    .name = "time per batch, slowest over fastest",
			    .shape = shape->name,
			    .value = high,
			    .unit = "us a batch",
			    .beside = "the fastest of three thirds",
			    .beside_value = low,
			    .kind = BENCH_RATIO_MAX,
			    .goal = 1.25},
		"thirds: %.1f, %.1f, %.1f us (fastest tenth of 100 pieces); mean of all %.1f us",
		taken->first, taken->middle, taken->last, taken->mean);
	bench_print(&(struct bench_figure){.part = 4,
			    .name = "server memory, peak",
			    .shape = shape->name,
			    .value = taken->peak * 1e-6,
			    .unit = "MB",
			    .kind = BENCH_VALUE_MAX,
			    .goal = LIMIT * 1e-6},
		"ring of %.1f MB and all else included; anonymous %.1f MB", taken->shared * 1e-6,
		taken->anonymous * 1e-6);
}

static void run(const struct bench_shape *shape, uint32_t steps)
{
	const char *paths[64];
	char path[SEGUE_TMPDIR_MAX], store[SEGUE_TMPDIR_MAX];
	struct segue_tmpdir dir;
	struct bench_server server;
	struct bench_worker worker;
	struct bench_spec spec;
	struct taken taken;

	segue_tmpdir_make(&dir, "bench");
	write_record(segue_tmpdir_path(&dir, "long", path), shape->floats, steps);
	double read_once = read_plainly(path, shape->rows);
	bench_spec_init(&spec, shape, path);
	for (uint32_t i = 0; i < shape->rows; i++)
		paths[i] = path;
	spec.stream.source.tfrecord.paths = paths;
	spec.stream.source.tfrecord.path_count = shape->rows;
	spec.stream.epochs = 1;
	bench_server_start(&server, segue_tmpdir_path(&dir, "store", store));
	bench_worker_open(&worker, &server, &spec, shape);
	take_all(&server, &worker, steps / shape->unroll, &taken);
	bench_worker_close(&worker);
	bench_server_stop(&server);
	print(shape, &taken, read_once);
	segue_tmpdir_remove(&dir);
}

int main(int argc, char **argv)
{
	static const struct bench_shape full = {"32 x 10^6 steps", 32, 20, 64, 128};
	static const struct bench_shape less = {"32 x 2x10^5 steps", 32, 20, 64, 128};
	bool quick = bench_options(argc, argv);

	run(quick ? &less : &full, quick ? STEPS / 5 : STEPS);
	return 0;
}
