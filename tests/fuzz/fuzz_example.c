/*
 * Fuzzes the scanner and decoder of SequenceExample, or (FUZZ_PLAIN_EXAMPLE) of Example: any bytes
 * are accepted or refused alike, whole and through windows, and what is accepted decodes to the same
 * values.
 *
 * For libFuzzer, or with replay_main.c as a program that runs files. The first byte picks a spec; where
 * the next is 0, one whose features are not all dense, and the message follows behind that.
 */
#include "source/source.h"
#include "source/tfrecord/example.h"
#include "testspec.h"

#include <stdlib.h>
#include <string.h>

#ifdef FUZZ_PLAIN_EXAMPLE
#define RECORD SEGUE_RECORD_EXAMPLE
#else
#define RECORD SEGUE_RECORD_SEQUENCE_EXAMPLE
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *bytes;
	size_t size;
};

/* What came of one reading. */
struct outcome {
	int rc;
	uint64_t steps;
	size_t size; /* of values, each feature's at a multiple of 8 */
	uint8_t *values;
	struct segue_sink sink; /* of what is not dense: offsets and values, feature by feature */
};

static int read_input(void *arg, uint64_t position, void *bytes, size_t size)
{
	const struct input *input = arg;

	if (position + size > input->size)
		abort();
	memcpy(bytes, input->bytes + position, size);
	return SEGUE_OK;
}

/* Small shapes, so that random bytes have a chance. */
static void pick_spec(struct segue_testspec *test, uint8_t choice)
{
	static const enum segue_dtype dtypes[] = {SEGUE_FLOAT32, SEGUE_FLOAT64, SEGUE_INT32,
		SEGUE_INT64, SEGUE_UINT8, SEGUE_BOOL, SEGUE_FLOAT16, SEGUE_BFLOAT16, SEGUE_INT8,
		SEGUE_INT16, SEGUE_UINT16, SEGUE_UINT32, SEGUE_UINT64};
	enum { COUNT = sizeof(dtypes) / sizeof(dtypes[0]) };

	segue_testspec_init(test);
	test->spec.source.tfrecord.record = RECORD;
	/* Steps of no values cannot be counted by these. */
	segue_testspec_sequence(test, "x", dtypes[choice % COUNT],
		choice / COUNT % 3 + (RECORD == SEGUE_RECORD_EXAMPLE));
	if (choice & 0x40)
		segue_testspec_sequence(test, "y", SEGUE_INT64, 1);
	if (choice & 0x20)
		segue_testspec_context(test, "c", dtypes[choice / 3 % COUNT], 1);
	test->spec.source.tfrecord.allow_surplus = choice & 0x80;
	test->spec.source.tfrecord.key_feature = choice % 11 == 0 ? (char *)(uintptr_t) "k" : NULL;
}

/* The first sequence feature is ragged, or bytes; the second and the context are bytes. */
static void pick_forms(struct segue_testspec *test, uint8_t choice)
{
	struct segue_field *fields[] = {
		&test->sequences[0], &test->sequences[1], &test->contexts[0]};
	size_t counts[] = {1, test->spec.sequence_count - 1, test->spec.context_count};

	for (size_t i = 0; i < 3; i++) {
		bool ragged = (i == 0 && RECORD != SEGUE_RECORD_EXAMPLE && choice % 2) ||
			      (i == 2 && choice % 2 == 0);

		if (counts[i] == 0)
			continue;
		fields[i]->form = ragged ? SEGUE_FORM_RAGGED : SEGUE_FORM_BYTES;
		fields[i]->dtype = ragged ? fields[i]->dtype : SEGUE_UINT8;
		fields[i]->elements = 1;
		fields[i]->size = segue_dtype_size(fields[i]->dtype);
	}
}

static int grow(struct segue_sink *sink, uint64_t room)
{
	sink->room = 2 * room;
	sink->bytes = realloc(sink->bytes, sink->room);
	if (!sink->bytes)
		abort();
	return 0;
}

/* Appends to what there is, at a multiple of 8. */
static void append(struct segue_sink *sink, const void *bytes, size_t size)
{
	uint8_t *out;

	if (segue_sink_add(sink, size, &out) < 0)
		abort();
	if (size)
		memcpy(out, bytes, size);
	size_t rest = -size % 8;
	if (segue_sink_add(sink, rest, &out) < 0)
		abort();
	if (rest)
		memset(out, 0, rest);
}

static void read_variable(const struct segue_spec *spec, struct segue_example *example, size_t i,
	struct segue_window *window, struct segue_sink *out)
{
	uint64_t steps = example->steps, first = steps / 2;
	int64_t *offsets = calloc(steps + 1, sizeof(*offsets));
	struct segue_sink sink = {.grow = grow};

	if (!offsets || segue_example_seek(spec, example, i, window, first) < 0 ||
		segue_example_seek(spec, example, i, window, 0) < 0 ||
		segue_example_read_variable(spec, example, i, window, first, offsets, &sink) < 0 ||
		segue_example_read_variable(
			spec, example, i, window, steps - first, offsets + first, &sink) < 0)
		abort();
	for (uint64_t k = 0; k < steps; k++)
		if (offsets[k + 1] < offsets[k])
			abort();
	if ((uint64_t)offsets[steps] * spec->sequences[i].size != sink.size)
		abort();
	append(out, offsets, (steps + 1) * sizeof(*offsets));
	append(out, sink.bytes, sink.size);
	free(offsets);
	free(sink.bytes);
}

static void read_variable_context(const struct segue_spec *spec, struct segue_example *example,
	size_t i, struct segue_window *window, struct segue_sink *out)
{
	int64_t offsets[2] = {0};
	struct segue_sink sink = {.grow = grow};

	if (segue_example_context_variable(spec, example, i, window, offsets, &sink) < 0 ||
		(uint64_t)offsets[1] * spec->contexts[i].size != sink.size)
		abort();
	append(out, offsets, sizeof(offsets));
	append(out, sink.bytes, sink.size);
	free(sink.bytes);
}

static size_t size_of(const struct segue_spec *spec, size_t i, uint64_t steps)
{
	return (steps * spec->sequences[i].size + 7) & ~(size_t)7;
}

static void read_all(const struct segue_spec *spec, struct segue_example *example,
	struct segue_window *window, struct outcome *outcome)
{
	size_t at = 0;

	for (size_t i = 0; i < spec->sequence_count; i++)
		outcome->size += size_of(spec, i, example->steps);
	outcome->values = calloc(1, outcome->size + 1);
	if (!outcome->values)
		abort();
	for (size_t i = 0; i < spec->sequence_count; i++) {
		uint64_t first = example->steps / 2;

		if (spec->sequences[i].form != SEGUE_FORM_DENSE) {
			read_variable(spec, example, i, window, &outcome->sink);
			continue;
		}
		if (segue_example_seek(spec, example, i, window, first) < 0 ||
			segue_example_seek(spec, example, i, window, 0) < 0 ||
			segue_example_read(spec, example, i, window, first, outcome->values + at) <
				0 ||
			segue_example_read(spec, example, i, window, example->steps - first,
				outcome->values + at + first * spec->sequences[i].size) < 0)
			abort();
		at += size_of(spec, i, example->steps);
	}
	for (size_t i = 0; i < spec->context_count; i++)
		if (spec->contexts[i].form != SEGUE_FORM_DENSE)
			read_variable_context(spec, example, i, window, &outcome->sink);
}

static struct outcome run(const struct segue_spec *spec, struct input *input, uint32_t block)
{
	struct outcome outcome = {.sink.grow = grow};
	struct segue_buffers buffers;
	struct segue_blocks blocks;
	struct segue_window window;
	struct segue_example example;

	segue_buffers_init(&buffers);
	if (segue_example_init(&example, spec) < 0 ||
		segue_blocks_init(&blocks, input->size, block ? block : 4096, block) < 0 ||
		segue_window_init(&window, &buffers, &blocks, read_input, input) < 0)
		abort();
	if (block)
		window.capacity = 2 * block;
	outcome.rc = segue_example_scan(spec, &window, &example);
	if (segue_window_complete(&window) < 0)
		abort();
	if (outcome.rc == SEGUE_EMISFIT && segue_example_explain(spec, &window) != SEGUE_EMISFIT)
		abort();
	if (outcome.rc == SEGUE_OK) {
		outcome.steps = example.steps;
		read_all(spec, &example, &window, &outcome);
	}
	segue_window_finish(&window);
	segue_blocks_finish(&blocks);
	segue_example_finish(&example);
	segue_buffers_finish(&buffers);
	return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct segue_testspec test;
	struct input input = {data + 1, size - 1};
	struct outcome whole, sliding;

	if (size == 0)
		return 0;
	pick_spec(&test, data[0]);
	if (size > 1 && data[1] == 0) { /* with which no message begins */
		pick_forms(&test, data[0]);
		input = (struct input){data + 2, size - 2};
	}
	whole = run(&test.spec, &input, 0);
	sliding = run(&test.spec, &input, 64);
	if (whole.rc != SEGUE_OK && whole.rc != SEGUE_EDATA && whole.rc != SEGUE_EMISFIT)
		abort();
	if (whole.rc != sliding.rc || whole.steps != sliding.steps || whole.size != sliding.size)
		abort();
	if (whole.size && memcmp(whole.values, sliding.values, whole.size) != 0)
		abort();
	if (whole.sink.size != sliding.sink.size ||
		(whole.sink.size &&
			memcmp(whole.sink.bytes, sliding.sink.bytes, whole.sink.size) != 0))
		abort();
	free(whole.sink.bytes);
	free(sliding.sink.bytes);
	free(whole.values);
	free(sliding.values);
	return 0;
}
