/* Streams of the two shapes, and the files that they read. */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "tfwrite.h"

#define DIFFERENT 32

const struct bench_shape bench_shape_s = {"S", 32, 20, 64, 128};
const struct bench_shape bench_shape_l = {"L", 256, 64, 256, 1024};

void bench_spec_init(struct bench_spec *spec, const struct bench_shape *shape, const char *path)
{
	*spec = (struct bench_spec){
		.feature = {.name = "x",
			.dtype = SEGUE_FLOAT32,
			.rank = 1,
			.dims = {shape->floats}},
		.state = {{.name = "h", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {shape->state}},
			{.name = "c", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {shape->state}}},
		.path = {path},
	};
	spec->stream = (struct segue_stream_spec){
		.name = "bench",
		.source = {.kind = SEGUE_SOURCE_TFRECORD,
			.tfrecord = {.paths = spec->path, .path_count = 1}},
		.sequences = &spec->feature,
		.sequence_count = 1,
		.states = spec->state,
		.state_count = 2,
		.num_unroll = shape->unroll,
		.batch_size = shape->rows,
		.lanes = 1,
		.shuffle = true,
		.seed = 1,
	};
}

/* Made once and written often: the writer for tests is plain and slow. */
struct made {
	struct segue_tfbytes record[DIFFERENT];
	float *values[DIFFERENT];
	uint64_t segments[DIFFERENT];
};

static float *make_record(struct segue_tfbytes *record, const struct bench_shape *shape,
	uint64_t segments, uint64_t *random)
{
	size_t steps = segments * shape->unroll;
	float *values = bench_alloc(steps * shape->floats * sizeof(*values));
	const struct segue_tffeature feature = {.name = "x",
		.kind = SEGUE_TF_FLOAT,
		.steps = steps,
		.each = shape->floats,
		.values = values};
	struct segue_tfbytes example = {0};

	for (size_t i = 0; i < steps * shape->floats; i++)
		values[i] = (float)(bench_random(random) >> 40) * 0x1p-24f;
	segue_tfwrite_example(&example, NULL, 0, &feature, 1);
	segue_tfwrite_record(record, example.bytes, example.size);
	segue_tfbytes_free(&example);
	return values;
}

/* Evenly spread, in a mixed order. */
static uint64_t segments_of(const struct bench_data *data, size_t i)
{
	uint32_t range = data->segments_max - data->segments_min + 1;

	return data->segments_min + (i * 13 % DIFFERENT) * range / DIFFERENT;
}

static void make(struct made *made, const struct bench_data *data)
{
	uint64_t random = 1;

	for (size_t i = 0; i < DIFFERENT; i++) {
		made->segments[i] = segments_of(data, i);
		made->values[i] =
			make_record(&made->record[i], data->shape, made->segments[i], &random);
	}
}

static uint64_t write_tfrecord(
	const char *path, const struct bench_data *data, const struct made *made)
{
	uint64_t written = 0, segments = 0;

	/* "T": plain, by the same calls. */
	gzFile file = gzopen(path, data->gzip ? "wbe1" : "wbeT");
	if (!file)
		bench_die(path);
	/* As large writes leave it in the page cache: in large pieces. */
	gzbuffer(file, 1 << 20);
	for (uint64_t i = 0; data->records ? i < data->records : written < data->bytes; i++) {
		const struct segue_tfbytes *record = &made->record[i % DIFFERENT];

		if (gzwrite(file, record->bytes, (unsigned)record->size) != (int)record->size)
			bench_die(path);
		written += record->size;
		segments += made->segments[i % DIFFERENT];
	}
	if (gzclose(file) != Z_OK)
		bench_die(path);
	return segments;
}

static uint64_t write_files(
	const char *path, const struct bench_data *data, const struct made *made)
{
	const struct segue_feature feature = {
		.name = "x", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {data->shape->floats}};
	const struct segue_file_spec spec = {
		.size = sizeof(spec), .sequences = &feature, .sequence_count = 1};
	struct segue_file_writer *writer;
	uint64_t written = 0, segments = 0;

	if (segue_file_writer_create(path, &spec, &writer))
		bench_die(segue_error_detail());
	for (uint64_t i = 0; data->records ? i < data->records : written < data->bytes; i++) {
		const void *array = made->values[i % DIFFERENT];
		const struct segue_sequence sequence = {.size = sizeof(sequence),
			.steps = made->segments[i % DIFFERENT] * data->shape->unroll,
			.arrays = &array};

		if (segue_file_writer_add(writer, &sequence))
			bench_die(segue_error_detail());
		segments += made->segments[i % DIFFERENT];
		segue_file_writer_written(writer, NULL, NULL, &written);
	}
	if (segue_file_writer_close(writer))
		bench_die(segue_error_detail());
	segue_file_writer_destroy(writer);
	return segments;
}

/* The steps alone, one behind the other. */
static uint64_t write_arrays(
	const char *path, const struct bench_data *data, const struct made *made)
{
	uint64_t written = 0, segments = 0;
	FILE *file = fopen(path, "wbe");

	if (!file)
		bench_die(path);
	for (uint64_t i = 0; data->records ? i < data->records : written < data->bytes; i++) {
		size_t size = made->segments[i % DIFFERENT] * bench_row_bytes(data->shape);

		if (fwrite(made->values[i % DIFFERENT], 1, size, file) != size)
			bench_die(path);
		written += size;
		segments += made->segments[i % DIFFERENT];
	}
	if (fclose(file))
		bench_die(path);
	return segments;
}

uint64_t bench_data_write(const char *path, const struct bench_data *data)
{
	struct made made = {0};
	uint64_t segments;

	make(&made, data);
	segments = data->kind == SEGUE_SOURCE_FILES    ? write_files(path, data, &made)
		   : data->kind == SEGUE_SOURCE_ARRAYS ? write_arrays(path, data, &made)
						       : write_tfrecord(path, data, &made);
	for (size_t i = 0; i < DIFFERENT; i++) {
		segue_tfbytes_free(&made.record[i]);
		free(made.values[i]);
	}
	return segments;
}

void bench_spec_from_files(struct bench_spec *spec)
{
	spec->stream.source = (struct segue_stream_source){
		.kind = SEGUE_SOURCE_FILES, .files = {.paths = spec->path, .path_count = 1}};
}

void bench_spec_from_arrays(struct bench_spec *spec, const struct bench_data *data)
{
	uint64_t written = 0;
	size_t count = 0, room = 0;

	for (; data->records ? count < data->records : written < data->bytes; count++) {
		uint64_t segments = segments_of(data, count % DIFFERENT);

		if (count == room) {
			room = room ? 2 * room : 1024;
			spec->sequences = realloc(spec->sequences, room * sizeof(*spec->sequences));
			if (!spec->sequences)
				bench_die("no memory");
		}
		spec->sequences[count] = (struct segue_array_sequence){
			.first = spec->steps, .steps = (uint32_t)segments * data->shape->unroll};
		spec->steps += spec->sequences[count].steps;
		written += segments * bench_row_bytes(data->shape);
	}
	spec->array = (struct segue_array){.dtype = SEGUE_FLOAT32};
	spec->stream.source = (struct segue_stream_source){.kind = SEGUE_SOURCE_ARRAYS,
		.arrays = {.paths = spec->path,
			.path_count = 1,
			.group_steps = &spec->steps,
			.group_count = 1,
			.arrays = &spec->array,
			.sequences = spec->sequences,
			.sequence_count = count}};
}
