/*
 * Fuzzes the scanner and decoder of SequenceExample, or (FUZZ_PLAIN_EXAMPLE) of Example: any bytes
 * are accepted or refused alike, whole and through windows, and what is accepted decodes to the same
 * values.
 *
 * For libFuzzer, or with replay_main.c as a program that runs files. The first byte picks a spec.
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

		if (segue_example_seek(spec, example, i, window, first) < 0 ||
			segue_example_seek(spec, example, i, window, 0) < 0 ||
			segue_example_read(spec, example, i, window, first, outcome->values + at) <
				0 ||
			segue_example_read(spec, example, i, window, example->steps - first,
				outcome->values + at + first * spec->sequences[i].size) < 0)
			abort();
		at += size_of(spec, i, example->steps);
	}
}

static struct outcome run(const struct segue_spec *spec, struct input *input, uint32_t block)
{
	struct outcome outcome = {0};
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
	whole = run(&test.spec, &input, 0);
	sliding = run(&test.spec, &input, 64);
	if (whole.rc != SEGUE_OK && whole.rc != SEGUE_EDATA && whole.rc != SEGUE_EMISFIT)
		abort();
	if (whole.rc != sliding.rc || whole.steps != sliding.steps || whole.size != sliding.size)
		abort();
	if (whole.size && memcmp(whole.values, sliding.values, whole.size) != 0)
		abort();
	free(whole.values);
	free(sliding.values);
	return 0;
}
