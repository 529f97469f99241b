/*
 * Part 2, the decoder alone: records admitted (read from the page cache, checksum, scan) and their
 * steps written densely, as a loader thread does it, against memcpy of the same bytes from memory
 * that no cache holds.
 *
 * A record of 100 to 1,000 steps is read, checked and decoded in one buffer that fits the L2 cache
 * (at 64 floats a step), and goes in pieces of num_unroll steps to the rows of a ring's slots.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "core/crc32c.h"
#include "core/error.h"
#include "source/kinds.h"

#define SLOTS  4
#define ROUNDS 9

struct decode {
	const struct bench_shape *shape;
	struct segue_spec *spec;
	struct segue_source *source;
	uint8_t *file, *slots, *buffer;
	size_t size, record; /* of the file; of a record, on average */
	uint64_t pieces;
	int fd;
};

static int load_nothing(void *arg, const char *name, void **bytes, size_t *size)
{
	(void)arg, (void)bytes, (void)size;
	return segue_fail(SEGUE_ENOTFOUND, "nothing is kept as '%s'", name);
}

static int save_nothing(void *arg, const char *name, const void *bytes, size_t size)
{
	(void)arg, (void)name, (void)bytes, (void)size;
	return 0;
}

/* Where the next row goes. */
static uint8_t *next_row(struct decode *decode)
{
	const struct bench_shape *shape = decode->shape;

	return decode->slots + decode->pieces++ % (SLOTS * shape->rows) * bench_row_bytes(shape);
}

/* ---- What is compared ------------------------------------------------------------------------ */

static void read_steps(struct decode *decode, struct segue_record *record, uint64_t steps)
{
	uint32_t unroll = decode->shape->unroll;

	for (uint64_t done = 0; done < steps; done += unroll) {
		uint64_t left = steps - done;
		BENCH_CHECK(record->ops->read(
			record, 0, left < unroll ? left : unroll, next_row(decode)));
	}
}

static void decode_all(struct decode *decode)
{
	const struct segue_source_ops *ops = decode->source->ops;
	uint64_t records = ops->records(decode->source);

	for (uint64_t i = 0; i < records; i++) {
		struct segue_record *record;
		struct segue_admitted admitted;
		BENCH_CHECK(ops->admit(decode->source, i, &record, &admitted));
		read_steps(decode, record, admitted.array_steps);
		record->ops->release(record);
	}
}

static void copy_all(struct decode *decode)
{
	size_t row = bench_row_bytes(decode->shape);

	for (size_t at = 0; at + row <= decode->size; at += row)
		memcpy(next_row(decode), decode->file + at, row);
	bench_use(*decode->slots);
}

static void read_all(struct decode *decode)
{
	for (size_t at = 0; at < decode->size; at += decode->record)
		if (pread(decode->fd, decode->buffer, decode->record, (off_t)at) < 0)
			bench_die("pread");
}

static void sum_all(struct decode *decode)
{
	uint32_t crc = 0;

	for (size_t at = 0; at < decode->size; at += decode->record)
		crc = segue_crc32c(crc, decode->buffer, decode->record);
	bench_use(crc);
}

static double gigabytes_a_second(struct decode *decode, void (*all)(struct decode *decode))
{
	int64_t start = bench_now();

	all(decode);
	return (double)decode->size * 1e-9 / bench_seconds_since(start);
}

/* ---- The figures ----------------------------------------------------------------------------- */

static void measure(struct decode *decode, const char *crc, double goal)
{
	struct bench_samples decoded = {0}, copied = {0}, ratio = {0}, read = {0}, summed = {0};
	char name[64];

	for (int i = 0; i < ROUNDS; i++) {
		double copy = gigabytes_a_second(decode, copy_all);
		double value = gigabytes_a_second(decode, decode_all);
		bench_samples_add(&copied, copy);
		bench_samples_add(&decoded, value);
		bench_samples_add(&ratio, value / copy);
		bench_samples_add(&read, gigabytes_a_second(decode, read_all));
		bench_samples_add(&summed, gigabytes_a_second(decode, sum_all));
	}
	snprintf(name, sizeof(name), "read, check, decode, CRC by %s", crc);
	bench_print(&(struct bench_figure){.part = 2,
			    .name = name,
			    .shape = decode->shape->name,
			    .value = bench_samples_at(&decoded, 0.5),
			    .unit = "GB/s",
			    .beside = "memcpy, source cold",
			    .beside_value = bench_samples_at(&copied, 0.5),
			    .ratio = bench_samples_at(&ratio, 0.5),
			    .kind = goal > 0 ? BENCH_RATIO_MIN : BENCH_NO_GOAL,
			    .goal = goal},
		"pread alone %.1f GB/s, checksum alone %.1f GB/s", bench_samples_at(&read, 0.5),
		bench_samples_at(&summed, 0.5));
	bench_samples_finish(&decoded);
	bench_samples_finish(&copied);
	bench_samples_finish(&ratio);
	bench_samples_finish(&read);
	bench_samples_finish(&summed);
}

static void load_file(struct decode *decode, const char *path)
{
	struct stat info;

	decode->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (decode->fd < 0 || fstat(decode->fd, &info) < 0)
		bench_die(path);
	decode->size = (size_t)info.st_size;
	decode->record = decode->size / decode->source->ops->records(decode->source);
	decode->file = bench_alloc(decode->size);
	decode->buffer = bench_alloc(decode->record);
	if (pread(decode->fd, decode->file, decode->size, 0) != (ssize_t)decode->size)
		bench_die(path);
}

static void decode_open(struct decode *decode, const struct bench_shape *shape,
	const struct segue_tmpdir *dir, uint64_t bytes)
{
	const struct segue_index_keeper keeper = {.load = load_nothing, .save = save_nothing};
	const struct bench_data data = {
		.shape = shape, .segments_min = 5, .segments_max = 50, .bytes = bytes};
	char path[SEGUE_TMPDIR_MAX], cache[SEGUE_TMPDIR_MAX];
	struct bench_spec spec;

	*decode = (struct decode){.shape = shape};
	bench_data_write(segue_tmpdir_path(dir, "data", path), &data);
	bench_spec_init(&spec, shape, path);
	BENCH_CHECK(segue_draft_make(&spec.stream, &decode->spec));
	const struct segue_source_means means = {
		.cache_dir = segue_tmpdir_path(dir, "cache", cache), .keeper = &keeper};
	BENCH_CHECK(segue_source_driver(decode->spec)->open(decode->spec, &means, &decode->source));
	decode->slots = bench_alloc(SLOTS * shape->rows * bench_row_bytes(shape));
	load_file(decode, path);
}

static void decode_close(struct decode *decode)
{
	decode->source->ops->destroy(decode->source);
	segue_spec_destroy(decode->spec);
	close(decode->fd);
	free(decode->file);
	free(decode->slots);
	free(decode->buffer);
}

/* Goals are for 64 floats a step. */
static void run(const struct bench_shape *shape, uint64_t bytes, bool goals)
{
	static const struct {
		const char *crc;
		double goal;
	} ways[] = {{"vpclmulqdq", 0.5}, {"sse4.2", 0.3}};
	struct segue_tmpdir dir;
	struct decode decode;

	segue_tmpdir_make(&dir, "bench");
	decode_open(&decode, shape, &dir, bytes);
	for (size_t i = 0; i < BENCH_COUNT(ways); i++)
		if (segue_crc32c_select(ways[i].crc) == 0)
			measure(&decode, ways[i].crc, goals ? ways[i].goal : 0);
	if (segue_crc32c_select(NULL) == 0 && strcmp(segue_crc32c_name(), "table") == 0)
		measure(&decode, "table", 0);
	decode_close(&decode);
	segue_tmpdir_remove(&dir);
}

int main(int argc, char **argv)
{
	static const struct bench_shape shapes[] = {{"8 floats a step", 32, 20, 8, 1},
		{"64 floats a step", 32, 20, 64, 1}, {"256 floats a step", 32, 20, 256, 1}};
	bool quick = bench_options(argc, argv);

	for (size_t i = 0; i < BENCH_COUNT(shapes); i++)
		if (!quick || shapes[i].floats == 64)
			run(&shapes[i], quick ? 100000000 : 256000000, shapes[i].floats == 64);
	return 0;
}
