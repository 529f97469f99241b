/*
 * Fuzzes what lies in the store's tables, as if a value had been damaged in a way that its checksum
 * does not see, or written by somebody else: records of lanes and streams, rows, the kept index.
 *
 * The first byte says which. For libFuzzer, or with replay_main.c as a program that runs files.
 */
#include "store/row.h"

#include <stdlib.h>
#include <string.h>

#include "core/layout.h"
#include "core/wire.h"
#include "lane/plan.h"
#include "source/kinds.h"
#include "source/index.h"
#include "testspec.h"
#include "tfwrite.h"
#include "tmpdir.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

/* ---- Records ------------------------------------------------------------------------------- */

static int admit(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	(void)arg;
	(void)number;
	expect(record < 10);
	*array_steps = *total_length = 1 + record;
	return 0;
}

static int longest(void *arg, uint64_t epoch, uint64_t *steps)
{
	(void)arg;
	(void)epoch;
	*steps = 20;
	return 0;
}

/* A position that the plan takes can be gone on from. */
static void go_on_from(const struct segue_position *position, enum segue_tail tail)
{
	struct segue_plan_spec spec = {.records = 10,
		.ends = {2, {1, 2}},
		.lanes = 2,
		.lane = 1,
		.batch_size = 4,
		.num_unroll = 3,
		.tail = tail};
	const struct segue_plan_input input = {NULL, admit, longest};
	struct segue_slot_span spans[4];
	struct segue_plan plan;
	uint32_t rows;

	if (position->waiting) {
		spec.boundaries = SEGUE_BOUNDARIES(6);
		spec.window = 8;
		spec.tail = spec.tail == SEGUE_TAIL_STOP ? SEGUE_TAIL_PAD : spec.tail;
	}
	expect(segue_plan_init(&plan, &spec) == 0);
	if (position->rows <= spec.batch_size && segue_plan_seek(&plan, position) == 0) {
		for (int i = 0; i < 4; i++) {
			int rc = segue_plan_step(&plan, &input, spans, &rows);
			expect(rc <= 0 || rows <= spec.batch_size);
			if (rc <= 0)
				break;
		}
	}
	segue_plan_finish(&plan);
}

static void fuzz_lane(const uint8_t *data, size_t size, uint8_t choice)
{
	struct segue_lane_record record;

	if (segue_lane_record_unpack(data, size, &record))
		return;
	go_on_from(record.position, (enum segue_tail)(choice % 3));
	free(record.position);
}

static void fuzz_stream(const uint8_t *data, size_t size)
{
	struct segue_stream_record record;
	struct segue_geometry geometry;
	uint64_t hash[2];

	if (segue_stream_record_unpack(data, size, &record))
		return;
	if (segue_spec_check(record.spec) == 0) {
		segue_spec_hash(record.spec, hash);
		expect(segue_spec_compare(record.spec, record.spec) == 0);
		if (segue_geometry_init(record.spec, record.spec->batch_size, 16, &geometry) == 0) {
			expect(geometry.ring_size >= geometry.slots_offset);
			segue_geometry_finish(&geometry);
		}
	}
	segue_spec_destroy(record.spec);
}

static void fuzz_row(const uint8_t *data, size_t size)
{
	if (size == 0)
		return;
	uint64_t row_size = data[0];
	const uint8_t *value = data + 1;
	struct segue_row row;

	size--;
	if (segue_row_get(value, size, row_size, &row))
		return;
	const uint8_t *key = (const uint8_t *)row.key;
	expect(key >= value && key + row.key_size <= value + size);
	expect(row.states >= value && row.states + row_size <= value + size);
}

/* ---- The kept index ------------------------------------------------------------------------ */

static struct segue_tmpdir dir;
static struct segue_testspec test;
static struct kept {
	uint8_t *bytes;
	size_t size;
} whole;

static int load(void *arg, const char *name, void **bytes, size_t *size)
{
	const struct kept *kept = arg;

	(void)name;
	if (!kept->bytes)
		return SEGUE_ENOTFOUND;
	*bytes = malloc(kept->size ? kept->size : 1);
	expect(*bytes != NULL);
	memcpy(*bytes, kept->bytes, kept->size);
	*size = kept->size;
	return 0;
}

static int save(void *arg, const char *name, const void *bytes, size_t size)
{
	struct kept *kept = arg;

	if (strncmp(name, "index-", 6) != 0)
		return 0;
	kept->bytes = malloc(size);
	expect(kept->bytes != NULL);
	memcpy(kept->bytes, bytes, size);
	kept->size = size;
	return 0;
}

static void clean_up(void)
{
	segue_testspec_finish(&test);
	segue_tmpdir_remove(&dir);
	free(whole.bytes);
}

/* Files that are there, and the index that was kept of them. */
static void make_data(void)
{
	const struct segue_index_keeper keeper = {&whole, load, save};
	const struct segue_source_means means = {.cache_dir = dir.root, .keeper = &keeper};
	struct segue_tfbytes file = {0};
	struct segue_source *source;
	char path[SEGUE_TMPDIR_MAX];

	segue_tmpdir_make(&dir, "fuzz-value");
	atexit(clean_up);
	segue_testspec_init(&test);
	for (size_t i = 0; i < 5; i++) {
		segue_tfwrite_record(&file, "0123456789", i);
		if (i < 3)
			continue;
		segue_tmpdir_path(&dir, i == 3 ? "a" : "b", path);
		segue_tfwrite_file(path, file.bytes, file.size);
		segue_testspec_path(&test, path);
	}
	segue_tfbytes_free(&file);
	expect(segue_source_driver(&test.spec)->open(&test.spec, &means, &source) == 0);
	source->ops->destroy(source);
	expect(whole.bytes != NULL);
}

/*
 * It names files by their path, so the input says what is changed in it: place, place / 256 and a
 * byte, three times and more; a byte that is left over cuts the end off. What is accepted leads to
 * records within the files.
 */
static void fuzz_index(const uint8_t *data, size_t size)
{
	struct kept kept;
	const struct segue_index_keeper keeper = {&kept, load, save};
	const struct segue_source_means means = {.cache_dir = dir.root, .keeper = &keeper};
	struct segue_source *source;

	if (!whole.bytes)
		make_data();
	kept.size = whole.size;
	kept.bytes = malloc(whole.size);
	expect(kept.bytes != NULL);
	memcpy(kept.bytes, whole.bytes, whole.size);
	for (; size >= 3; data += 3, size -= 3)
		kept.bytes[(data[0] + 256u * data[1]) % kept.size] ^= data[2];
	if (size > 0)
		kept.size -= data[0] % kept.size;
	int rc = segue_source_driver(&test.spec)->open(&test.spec, &means, &source);
	if (rc) {
		free(kept.bytes);
		return;
	}
	uint64_t records = source->ops->records(source);
	expect(records == 9);
	for (uint64_t i = 0; i < records; i++) {
		struct segue_admitted admitted;
		struct segue_record *record;
		if (source->ops->admit(source, i, &record, &admitted) == 0)
			record->ops->release(record);
	}
	/* The same bytes as what the data set was. */
	rc = source->ops->explain_change(source, (const uint64_t[2]){0, 0});
	expect(rc == SEGUE_ECHANGED || rc == SEGUE_ESTORE);
	source->ops->destroy(source);
	free(kept.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	switch (data[0] % 4) {
	case 0:
		fuzz_lane(data + 1, size - 1, data[0] / 4);
		break;
	case 1:
		fuzz_stream(data + 1, size - 1);
		break;
	case 2:
		fuzz_row(data + 1, size - 1);
		break;
	default:
		fuzz_index(data + 1, size - 1);
	}
	return 0;
}
