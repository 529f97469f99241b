/*
 * The source of sequence files: what was written comes back, whole or by windows; whatever byte is
 * changed is noticed before it is delivered; files that are none, unfinished or of others are named.
 */
#include "core/sequence_file.h"
#include "source/kinds.h"
#include "source/seqfile/seqfile.h"

#include "testspec.h"
#include "tmpdir.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define FIELDS 4 /* x float32 [3], y int32, w uint8 (a stream need not declare it), c int64 [2] */
#define STATES 1

static struct segue_tmpdir dir;
static struct segue_testspec test;
static struct segue_field state; /* of the stream: h, from the data */
static size_t whole_max;

static int saved; /* how often something was given to be kept */

/* ---- Nothing is kept ------------------------------------------------------------------------- */

static int keep_load(void *arg, const char *name, void **bytes, size_t *size)
{
	(void)arg, (void)name, (void)bytes, (void)size;
	return SEGUE_ENOTFOUND;
}

static int keep_save(void *arg, const char *name, const void *bytes, size_t size)
{
	(void)arg, (void)name, (void)bytes, (void)size;
	saved++;
	return SEGUE_OK;
}

static const struct segue_index_keeper keeper = {NULL, keep_load, keep_save};
static const struct segue_source_means means = {.keeper = &keeper};

static void setup(void)
{
	segue_tmpdir_make(&dir, "seqsource");
	segue_testspec_init(&test);
	test.spec.source.kind = SEGUE_SOURCE_FILES;
	segue_testspec_sequence(&test, "y", SEGUE_INT32, 1);
	test.sequences[0].rank = 0;
	segue_testspec_sequence(&test, "x", SEGUE_FLOAT32, 3);
	segue_testspec_context(&test, "c", SEGUE_INT64, 2);
	state = (struct segue_field){
		.name = "h", .dtype = SEGUE_FLOAT64, .elements = 1, .size = 8, .from_data = true};
	test.spec.states = &state;
	test.spec.state_count = 1;
	whole_max = 1 << 20;
}

static void teardown(void)
{
	segue_testspec_finish(&test);
	segue_tmpdir_remove(&dir);
}

TestSuite(sequence_source, .init = setup, .fini = teardown);

/* ---- Writing --------------------------------------------------------------------------------- */

struct bytes {
	uint8_t *at;
	size_t size;
};

static void put(struct bytes *to, const void *bytes, size_t size)
{
	to->at = realloc(to->at, to->size + size);
	memcpy(to->at + to->size, bytes, size);
	to->size += size;
}

static void align(struct bytes *to)
{
	static const uint8_t zeros[SEGUE_SEQFILE_ALIGN];

	put(to, zeros,
		(SEGUE_SEQFILE_ALIGN - to->size % SEGUE_SEQFILE_ALIGN) % SEGUE_SEQFILE_ALIGN);
}

static struct segue_seqfile_field field(const char *name, enum segue_seqfile_place place,
	enum segue_dtype dtype, uint32_t rank, uint64_t dim)
{
	struct segue_seqfile_field made = {
		.place = place, .dtype = dtype, .rank = rank, .dims = {dim}};

	strcpy(made.name, name);
	return made;
}

static float value_x(uint64_t number, uint64_t step, uint64_t i)
{
	return (float)(number * 1000 + step) + (float)i / 4;
}

static int32_t value_y(uint64_t number, uint64_t step)
{
	return (int32_t)(number * 3 + step) - 5;
}

static uint64_t steps_of(uint64_t number)
{
	return number % 4 == 3 ? 3000 + number : 1 + number * 7 % 50;
}

/* The data of column i of a sequence: malloc'd. */
static uint8_t *column_of(uint64_t number, uint64_t steps, size_t i, size_t *size)
{
	static const size_t sizes[] = {12, 4, 1, 16, 8};
	uint8_t *out;

	*size = sizes[i] * (i < 3 ? steps : 1);
	out = malloc(*size);
	memset(out, (int)number, *size);
	for (uint64_t step = 0; step < steps && i == 0; step++)
		for (uint64_t k = 0; k < 3; k++)
			((float *)(void *)out)[3 * step + k] = value_x(number, step, k);
	for (uint64_t step = 0; step < steps && i == 1; step++)
		((int32_t *)(void *)out)[step] = value_y(number, step);
	if (i == 3)
		memcpy(out, (int64_t[]){(int64_t)number, -1}, 16);
	return out;
}

static void put_entry(struct bytes *to, const struct segue_seqfile_head *head, uint64_t number,
	struct segue_seqfile_indexed *indexed, XXH3_state_t *all)
{
	struct segue_seqfile_entry entry = {
		.steps = steps_of(number), .total_length = SEGUE_SEQFILE_NO_TOTAL};
	uint64_t begins[FIELDS + STATES], start = to->size;
	struct bytes tables = {0}, column[FIELDS + STATES] = {{0}};
	char key[32], header[SEGUE_SEQFILE_ENTRY_MAX];

	entry.key = key;
	entry.key_size = (uint32_t)snprintf(key, sizeof(key), "key %ju", (uintmax_t)number);
	cr_assert_eq(segue_seqfile_lay_out(head, &entry, begins), SEGUE_OK);
	for (size_t i = 0; i < FIELDS + STATES; i++) {
		size_t size;
		uint8_t *data = column_of(number, entry.steps, i, &size);
		size_t table = segue_seqfile_blocks(size) * 4;
		uint8_t *crc = malloc(table);

		segue_seqfile_put_table(data, size, crc);
		put(&column[i], data, size);
		put(&column[i], crc, table);
		put(&tables, crc, table);
		free(data);
		free(crc);
	}
	XXH128_hash_t hash = XXH3_128bits(tables.at, tables.size);
	entry.hash[0] = hash.low64;
	entry.hash[1] = hash.high64;
	segue_seqfile_pack_entry(&entry, header);
	put(to, header, entry.header_size);
	XXH3_128bits_update(all, header, entry.header_size);
	for (size_t i = 0; i < FIELDS + STATES; i++) {
		align(to);
		cr_assert_eq(to->size - start, begins[i]);
		put(to, column[i].at, column[i].size);
		free(column[i].at);
	}
	align(to);
	cr_assert_eq(to->size - start, entry.size);
	free(tables.at);
	*indexed = (struct segue_seqfile_indexed){start, (uint32_t)entry.steps, entry.crc};
}

/* Sequences [first, first + count). */
static struct bytes make_bytes(uint64_t first, uint64_t count)
{
	struct segue_seqfile_field fields[] = {
		field("x", SEGUE_SEQFILE_SEQUENCE, SEGUE_FLOAT32, 1, 3),
		field("y", SEGUE_SEQFILE_SEQUENCE, SEGUE_INT32, 0, 0),
		field("w", SEGUE_SEQFILE_SEQUENCE, SEGUE_UINT8, 0, 0),
		field("c", SEGUE_SEQFILE_CONTEXT, SEGUE_INT64, 1, 2),
		field("h", SEGUE_SEQFILE_STATE, SEGUE_FLOAT64, 0, 0),
	};
	struct segue_seqfile_head head = {.fields = fields, .count = FIELDS + STATES};
	struct segue_seqfile_indexed *indexed = calloc(count + 1, sizeof(*indexed));
	struct segue_seqfile_foot foot = {.entries = count, .key_max = count ? 6 : 0};
	XXH3_state_t *all = XXH3_createState();
	struct bytes out = {0};
	uint8_t tail[SEGUE_SEQFILE_FOOT];

	cr_assert_eq(segue_seqfile_check_fields(&head), SEGUE_OK, "%s", segue_error_detail());
	out.at = malloc(head.size);
	out.size = head.size;
	segue_seqfile_pack_head(&head, out.at);
	XXH3_128bits_reset(all);
	XXH3_128bits_update(all, out.at, head.size);
	for (uint64_t i = 0; i < count; i++) {
		put_entry(&out, &head, first + i, &indexed[i], all);
		foot.steps += indexed[i].steps;
	}
	foot.index = out.size;
	foot.head_size = head.size;
	uint32_t crc = segue_seqfile_crc(indexed, count * sizeof(*indexed));
	put(&out, indexed, count * sizeof(*indexed));
	put(&out, &crc, sizeof(crc));
	align(&out);
	XXH128_hash_t hash = XXH3_128bits_digest(all);
	foot.fingerprint[0] = hash.low64;
	foot.fingerprint[1] = hash.high64;
	segue_seqfile_pack_foot(&foot, tail);
	put(&out, tail, sizeof(tail));
	XXH3_freeState(all);
	free(indexed);
	return out;
}

static const char *path_of(const char *name)
{
	static char path[SEGUE_TMPDIR_MAX];

	return segue_tmpdir_path(&dir, name, path);
}

static void write_bytes(const char *name, const struct bytes *bytes, size_t size)
{
	FILE *file = fopen(path_of(name), "wbe");

	cr_assert_not_null(file);
	cr_assert_eq(fwrite(bytes->at, 1, size, file), size);
	fclose(file);
}

static void make_file(const char *name, uint64_t first, uint64_t count)
{
	struct bytes bytes = make_bytes(first, count);

	write_bytes(name, &bytes, bytes.size);
	free(bytes.at);
}

/* ---- Reading --------------------------------------------------------------------------------- */

static int try_open(struct segue_source **source)
{
	int rc = segue_source_driver(&test.spec)->open(&test.spec, &means, source);

	if (!rc)
		segue_source_files_limit(*source, whole_max);
	return rc;
}

static struct segue_source *open_source(void)
{
	struct segue_source *source;

	cr_assert_eq(try_open(&source), SEGUE_OK, "%s", segue_error_detail());
	return source;
}

static void refused(int code, const char *text)
{
	struct segue_source *source;
	int rc = try_open(&source);

	cr_assert_eq(rc, code, "%d instead of %d (%s): %s", rc, code, text, segue_error_detail());
	cr_assert(strstr(segue_error_detail(), text), "'%s' is not in '%s'", text,
		segue_error_detail());
}

/* Whether steps [first, first + count) of both features are right; an error is one, too. */
static int steps_are(struct segue_record *record, uint64_t number, uint64_t first, uint64_t count)
{
	float *x = malloc(3 * count * sizeof(float));
	int32_t *y = malloc(count * sizeof(int32_t));
	int rc = record->ops->read(record, 0, count, y);

	if (!rc)
		rc = record->ops->read(record, 1, count, x);
	for (uint64_t k = 0; !rc && k < count; k++) {
		for (uint64_t i = 0; i < 3; i++)
			cr_assert_eq(x[3 * k + i], value_x(number, first + k, i));
		cr_assert_eq(y[k], value_y(number, first + k));
	}
	free(x);
	free(y);
	return rc;
}

static int record_is(struct segue_source *source, uint64_t place, uint64_t number, uint64_t window)
{
	struct segue_admitted admitted;
	struct segue_record *record;
	uint64_t steps = steps_of(number);
	int64_t c[2];
	uint8_t h[8];
	size_t size;
	char key[32];
	int rc = source->ops->admit(source, place, &record, &admitted);

	if (rc)
		return rc;
	cr_assert_eq(admitted.array_steps, steps);
	cr_assert_eq(admitted.total_length, steps);
	snprintf(key, sizeof(key), "key %ju", (uintmax_t)number);
	const char *has = record->ops->key(record, &size);
	cr_assert(size == strlen(key) && memcmp(has, key, size) == 0);
	rc = record->ops->context(record, 0, c);
	if (!rc) {
		cr_assert(c[0] == (int64_t)number && c[1] == -1);
		rc = record->ops->initial(record, 0, h);
	}
	for (size_t i = 0; !rc && i < sizeof(h); i++)
		cr_assert_eq(h[i], number);
	for (uint64_t at = 0, n; !rc && at < steps; at += n) {
		n = steps - at < window ? steps - at : window;
		rc = steps_are(record, number, at, n);
	}
	for (uint64_t turn = 0; !rc && turn < 4; turn++) {
		uint64_t at = turn * 1013 % steps;

		rc = record->ops->seek(record, at);
		if (!rc)
			rc = steps_are(record, number, at, 1);
	}
	record->ops->release(record);
	return rc;
}

static void reads_back(uint64_t window)
{
	struct segue_source *source = open_source();

	cr_assert_eq(source->ops->records(source), 12);
	for (uint64_t i = 12; i--;)
		cr_assert_eq(record_is(source, i, i < 8 ? 2 + i : i - 8, window), SEGUE_OK, "%s",
			segue_error_detail());
	source->ops->destroy(source);
}

Test(sequence_source, what_was_written_comes_back)
{
	static const uint64_t windows[] = {1, 7, 1024, 1365, 4096};

	make_file("b.segue", 2, 8);
	make_file("a.segue", 0, 4);
	segue_testspec_path(&test, path_of("b.segue"));
	segue_testspec_path(&test, path_of("a.segue"));
	for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
		whole_max = 1 << 20;
		reads_back(windows[i]);
		whole_max = 0;
		reads_back(windows[i]);
		whole_max = 4096; /* some of both */
		reads_back(windows[i]);
	}
}

Test(sequence_source, lengths_and_numbers)
{
	struct segue_source_stats stats;
	struct segue_source *source;
	const uint32_t *lengths;

	make_file("a.segue", 0, 12);
	segue_testspec_path(&test, path_of("*.segue"));
	source = open_source();
	cr_assert_eq(segue_source_lengths(source, NULL, NULL, &lengths), SEGUE_OK);
	for (uint64_t i = 0; i < 12; i++)
		cr_assert_eq(lengths[i], steps_of(i));
	cr_assert_eq(source->ops->key_max(source), 6);
	segue_source_stats(source, &stats);
	cr_assert_eq(stats.records, 12);
	cr_assert_eq(stats.files, 1);
	source->ops->destroy(source);
}

/* ---- Damage ---------------------------------------------------------------------------------- */

/*
 * Each byte of a file of two sequences is changed, in turn. Opening, admission or reading says so,
 * or it was one that nothing is made of: then all is as it was written.
 */
static void every_flip(uint64_t step)
{
	struct bytes bytes = make_bytes(2, 2);
	uint64_t opened = 0, silent = 0, changed = 0;

	segue_testspec_path(&test, path_of("a.segue"));
	for (size_t at = 0; at < bytes.size; at += step) {
		struct segue_source *source;

		bytes.at[at] ^= 0x10;
		write_bytes("a.segue", &bytes, bytes.size);
		bytes.at[at] ^= 0x10;
		changed++;
		if (try_open(&source))
			continue;
		opened++;
		int first = record_is(source, 0, 2, 700), second = record_is(source, 1, 3, 700);
		cr_assert(!first || first == SEGUE_EDATA || first == SEGUE_ECHANGED, "%s",
			segue_error_detail());
		silent += !first && !second;
		source->ops->destroy(source);
	}
	/* The padding, and what belongs to columns that the stream does not declare. */
	cr_assert_gt(opened, silent);
	cr_assert_lt(silent, changed / 4, "%ju of %ju", (uintmax_t)silent, (uintmax_t)changed);
	free(bytes.at);
}

Test(sequence_source, every_changed_byte_is_noticed)
{
	every_flip(7);
}

Test(sequence_source, every_changed_byte_is_noticed_by_windows)
{
	whole_max = 0;
	every_flip(7);
}

/* Cut anywhere it has no foot; the files that come after it are not looked at. */
Test(sequence_source, a_file_that_is_cut)
{
	struct bytes bytes = make_bytes(2, 2);
	struct segue_source *source;

	segue_testspec_path(&test, path_of("a.segue"));
	for (size_t size = 0; size < bytes.size; size += 61) {
		write_bytes("a.segue", &bytes, size);
		int rc = try_open(&source);
		cr_assert_eq(rc, SEGUE_EDATA, "%d at %zu", rc, size);
	}
	write_bytes("a.segue", &bytes, bytes.size - SEGUE_SEQFILE_FOOT);
	refused(SEGUE_EDATA, "ends without a foot: is somebody writing it?");
	free(bytes.at);
}

Test(sequence_source, damaged_ones_are_passed_over)
{
	struct bytes bytes = make_bytes(0, 12);
	struct segue_source *source;
	struct segue_admitted admitted;
	struct segue_record *record;
	const uint32_t *lengths;

	test.spec.on_error = SEGUE_ON_ERROR_SKIP;
	bytes.at[bytes.size / 2] ^= 1; /* number 7, which is long */
	write_bytes("a.segue", &bytes, bytes.size);
	segue_testspec_path(&test, path_of("a.segue"));
	for (whole_max = 0; whole_max <= 1 << 20; whole_max += 1 << 20) {
		uint64_t passed = 0;

		source = open_source();
		cr_assert_eq(segue_source_lengths(source, NULL, NULL, &lengths), SEGUE_OK, "%s",
			segue_error_detail());
		for (uint64_t i = 0; i < 12; i++) {
			int rc = segue_source_admit(source, i, &record, &admitted);

			cr_assert_eq(lengths[i], rc ? 0 : steps_of(i));
			cr_assert(rc == 0 || rc == SEGUE_SOURCE_SKIPPED);
			passed += rc != 0;
			if (!rc)
				record->ops->release(record);
		}
		cr_assert_eq(passed, 1);
		source->ops->destroy(source);
	}
	free(bytes.at);
}

/* ---- Ragged columns --------------------------------------------------------------------------- */

/* What a record writes into, in memory that moves. */
static int sink_grow(struct segue_sink *sink, uint64_t room)
{
	uint8_t *bytes = malloc(room);

	cr_assert_not_null(bytes);
	if (sink->size)
		memcpy(bytes, sink->bytes, sink->size);
	free(sink->bytes);
	sink->bytes = bytes;
	sink->room = room;
	return 0;
}

/* A file of one sequence: w, ragged int16, value i of which is i % 1000; t, bytes of context. */
static void make_ragged(const char *name, const int64_t *offsets, uint64_t steps, uint64_t count)
{
	struct segue_seqfile_field fields[] = {
		field("w", SEGUE_SEQFILE_SEQUENCE, SEGUE_INT16, 0, 0),
		field("t", SEGUE_SEQFILE_CONTEXT, SEGUE_UINT8, 0, 0),
	};
	struct segue_seqfile_head head = {.fields = fields, .count = 2};
	const uint64_t counts[2] = {count, 4};
	struct segue_seqfile_entry entry = {.steps = steps,
		.total_length = SEGUE_SEQFILE_NO_TOTAL,
		.key = "k",
		.key_size = 1,
		.counts = (const uint8_t *)counts};
	struct segue_seqfile_foot foot = {.entries = 1, .steps = steps, .key_max = 1};
	struct bytes out = {0}, columns[2] = {{0}}, tables = {0}, headers = {0};
	uint8_t header[SEGUE_SEQFILE_ENTRY_MAX], tail[SEGUE_SEQFILE_FOOT];
	uint64_t begins[2];

	fields[0].form = SEGUE_FORM_RAGGED;
	fields[1].form = SEGUE_FORM_BYTES;
	cr_assert_eq(segue_seqfile_check_fields(&head), SEGUE_OK, "%s", segue_error_detail());
	cr_assert_eq(segue_seqfile_lay_out(&head, &entry, begins), SEGUE_OK);
	put(&columns[0], offsets, (steps + 1) * sizeof(*offsets));
	for (uint64_t i = 0; i < count; i++)
		put(&columns[0], &(int16_t){(int16_t)(i % 1000)}, 2);
	put(&columns[1], (const int64_t[]){0, 4}, 16);
	put(&columns[1], "text", 4);
	for (size_t i = 0; i < 2; i++) {
		size_t size = columns[i].size, table = segue_seqfile_blocks(size) * 4;
		uint8_t *crc = malloc(table);

		segue_seqfile_put_table(columns[i].at, size, crc);
		put(&columns[i], crc, table);
		put(&tables, crc, table);
		free(crc);
	}
	XXH128_hash_t hash = XXH3_128bits(tables.at, tables.size);
	entry.hash[0] = hash.low64;
	entry.hash[1] = hash.high64;
	segue_seqfile_pack_entry(&entry, header);
	out.at = malloc(head.size);
	out.size = head.size;
	segue_seqfile_pack_head(&head, out.at);
	put(&headers, out.at, head.size);
	put(&headers, header, entry.header_size);
	put(&out, header, entry.header_size);
	for (size_t i = 0; i < 2; i++) {
		align(&out);
		cr_assert_eq(out.size, head.size + begins[i]);
		put(&out, columns[i].at, columns[i].size);
		free(columns[i].at);
	}
	align(&out);
	foot.index = out.size;
	foot.head_size = head.size;
	const struct segue_seqfile_indexed indexed = {head.size, (uint32_t)steps, entry.crc};
	uint32_t crc = segue_seqfile_crc(&indexed, sizeof(indexed));
	put(&out, &indexed, sizeof(indexed));
	put(&out, &crc, sizeof(crc));
	align(&out);
	hash = XXH3_128bits(headers.at, headers.size);
	foot.fingerprint[0] = hash.low64;
	foot.fingerprint[1] = hash.high64;
	segue_seqfile_pack_foot(&foot, tail);
	put(&out, tail, sizeof(tail));
	write_bytes(name, &out, out.size);
	free(out.at);
	free(tables.at);
	free(headers.at);
}

static void over_ragged(void)
{
	static struct segue_field fields[2];

	fields[0] = (struct segue_field){.name = "w",
		.dtype = SEGUE_INT16,
		.form = SEGUE_FORM_RAGGED,
		.elements = 1,
		.size = 2};
	fields[1] = (struct segue_field){.name = "t",
		.dtype = SEGUE_UINT8,
		.form = SEGUE_FORM_BYTES,
		.elements = 1,
		.size = 1};
	test.spec.sequences = &fields[0];
	test.spec.contexts = &fields[1];
	test.spec.sequence_count = test.spec.context_count = 1;
	test.spec.state_count = 0;
	segue_testspec_path(&test, path_of("ragged.segue"));
}

/* Steps [first, first + count) into a sink that has some of the feature already. */
static int ragged_are(struct segue_record *record, const int64_t *written, uint64_t first,
	uint64_t count, struct segue_sink *sink)
{
	int64_t *offsets = calloc(count + 1, sizeof(*offsets));
	uint64_t before = sink->size;

	offsets[0] = 77;
	int rc = record->ops->read_variable(record, 0, count, offsets, sink);
	for (uint64_t k = 0; !rc && k <= count; k++)
		cr_assert_eq(offsets[k] - 77, written[first + k] - written[first]);
	if (!rc)
		cr_assert_eq(sink->size - before,
			2 * (uint64_t)(written[first + count] - written[first]));
	for (uint64_t i = 0; !rc && before + 2 * i < sink->size; i++) {
		int16_t value;

		memcpy(&value, sink->bytes + before + 2 * i, 2);
		cr_assert_eq(value, (written[first] + (int64_t)i) % 1000);
	}
	free(offsets);
	return rc;
}

#define RAGGED_STEPS 3000 /* offsets of several blocks */

static int ragged_is(const int64_t *written, uint64_t window)
{
	struct segue_sink sink = {.grow = sink_grow};
	struct segue_source *source = open_source();
	struct segue_admitted admitted;
	struct segue_record *record;
	int64_t text[2] = {5, 0};
	uint8_t *out;
	int rc = source->ops->admit(source, 0, &record, &admitted);

	if (!rc) {
		cr_assert_eq(segue_sink_add(&sink, 3, &out), 0); /* others' */
		for (uint64_t at = 0, n; !rc && at < RAGGED_STEPS; at += n) {
			n = RAGGED_STEPS - at < window ? RAGGED_STEPS - at : window;
			rc = ragged_are(record, written, at, n, &sink);
		}
		for (uint64_t turn = 0; !rc && turn < 4; turn++) {
			uint64_t at = turn * 1013 % (RAGGED_STEPS - 1);

			cr_assert_eq(record->ops->seek(record, at), 0);
			rc = ragged_are(record, written, at, 2, &sink);
		}
		uint64_t before = sink.size;
		if (!rc)
			rc = record->ops->context_variable(record, 0, text, &sink);
		if (!rc)
			cr_assert(text[0] == 5 && text[1] == 9 && sink.size == before + 4 &&
				  memcmp(sink.bytes + before, "text", 4) == 0);
		record->ops->release(record);
	}
	free(sink.bytes);
	source->ops->destroy(source);
	return rc;
}

static void draw_offsets(int64_t *offsets)
{
	offsets[0] = 0;
	for (int64_t i = 0; i < RAGGED_STEPS; i++)
		offsets[i + 1] = offsets[i] + (i % 5 == 0 ? 0 : i * 7 % 11) + (i == 100 ? 9000 : 0);
}

Test(sequence_source, ragged_columns_come_back)
{
	static const uint64_t windows[] = {1, 7, 511, 512, 513, RAGGED_STEPS};
	static int64_t offsets[RAGGED_STEPS + 1];

	draw_offsets(offsets);
	make_ragged("ragged.segue", offsets, RAGGED_STEPS, (uint64_t)offsets[RAGGED_STEPS]);
	over_ragged();
	for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++)
		for (whole_max = 0; whole_max <= 1 << 20; whole_max += 1 << 20)
			cr_assert_eq(ragged_is(offsets, windows[i]), 0, "%s", segue_error_detail());
}

#define LARGE 6000000 /* values: their checksums outgrow the buffer that the header was read to */
#define SMALL 2500    /* values: the sequence fits into such a buffer, and is read to one whole */
#define TURNS 2000

static atomic_bool large_done;

/* Admits sequence 1 until sequence 0 has been admitted TURNS times. */
static void *admit_small(void *arg)
{
	struct segue_source *source = arg;
	struct segue_admitted admitted;
	struct segue_record *record;
	int rc = 0;

	while (!rc && !atomic_load(&large_done)) {
		rc = source->ops->admit(source, 1, &record, &admitted);
		if (!rc)
			record->ops->release(record);
	}
	return (void *)(intptr_t)rc;
}

Test(sequence_source, a_long_ragged_sequence_beside_others)
{
	const int64_t large[2] = {0, LARGE}, small[2] = {0, SMALL};
	struct segue_admitted admitted;
	struct segue_record *record;
	pthread_t other;
	void *result;
	int rc = 0;

	make_ragged("ragged.segue", large, 1, LARGE);
	make_ragged("small.segue", small, 1, SMALL);
	over_ragged();
	segue_testspec_path(&test, path_of("small.segue"));
	struct segue_source *source = open_source();
	cr_assert_eq(pthread_create(&other, NULL, admit_small, source), 0);
	for (int i = 0; !rc && i < TURNS; i++) {
		rc = source->ops->admit(source, 0, &record, &admitted);
		if (!rc)
			record->ops->release(record);
	}
	atomic_store(&large_done, true);
	cr_assert_eq(pthread_join(other, &result), 0);
	cr_assert_eq(rc, 0, "%s", segue_error_detail());
	cr_assert_null(result);
	source->ops->destroy(source);
}

/* Sound checksums of offsets that lead elsewhere: seen before anything is read by them. */
Test(sequence_source, ragged_offsets_that_cannot_be)
{
	static const struct {
		uint64_t at;
		int64_t value;
	} cases[] = {{0, 1}, {0, -1}, {1000, 0}, {1000, INT64_MAX}, {1000, INT64_MIN},
		{2000, 1 << 30}, {RAGGED_STEPS, 0}, {RAGGED_STEPS, INT64_MAX}};
	static int64_t offsets[RAGGED_STEPS + 1];

	over_ragged();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		draw_offsets(offsets);
		uint64_t count = (uint64_t)offsets[RAGGED_STEPS];
		offsets[cases[i].at] = cases[i].value;
		make_ragged("ragged.segue", offsets, RAGGED_STEPS, count);
		for (whole_max = 0; whole_max <= 1 << 20; whole_max += 1 << 20) {
			struct segue_admitted admitted;
			struct segue_record *record;

			test.spec.on_error = SEGUE_ON_ERROR_RAISE;
			cr_expect_eq(ragged_is(offsets, 100), SEGUE_EDATA, "case %zu", i);
			cr_expect(strstr(segue_error_detail(), "the offsets of 'w' do not rise"),
				"case %zu: %s", i, segue_error_detail());
			test.spec.on_error = SEGUE_ON_ERROR_SKIP;
			struct segue_source *source = open_source();
			cr_expect_eq(segue_source_admit(source, 0, &record, &admitted),
				SEGUE_SOURCE_SKIPPED, "case %zu", i);
			source->ops->destroy(source);
		}
	}
}

/* ---- What is refused ------------------------------------------------------------------------- */

Test(sequence_source, what_does_not_fit_is_named)
{
	make_file("a.segue", 0, 4);
	segue_testspec_path(&test, path_of("a.segue"));
	strcpy(test.sequences[0].name = strdup("z"), "z");
	refused(SEGUE_EDATA, "no feature 'z'; the file has 'x', 'y', 'w', 'c' (context)");
	free(test.sequences[0].name);
	test.sequences[0].name = strdup("c");
	refused(SEGUE_EDATA, "'c' is a context feature of the file");
	free(test.sequences[0].name);
	test.sequences[0].name = strdup("y");
	test.sequences[0].dtype = SEGUE_INT64;
	refused(SEGUE_EDATA, "the file has int32 of shape (), the stream declares int64");
	free(test.sequences[0].name);
	test.sequences[0].name = "y";
	test.sequences[0].dtype = SEGUE_INT32;
	state.dtype = SEGUE_INT64;
	refused(SEGUE_EDATA,
		"state 'h': the file has float64 of shape (), the stream declares int64");
	state.name = "c";
	refused(SEGUE_EDATA, "no initial values of state 'c'; the file has those of 'h'");
	state.from_data = false;
	struct segue_source *source = open_source();
	source->ops->destroy(source);
}

Test(sequence_source, what_is_no_sequence_file)
{
	struct bytes text = {(uint8_t *)(uintptr_t) "a,b,c\n1,2,3\n", 12};
	struct bytes numpy = {(uint8_t *)(uintptr_t) "\x93NUMPY\1\0v\0{", 11};
	/* A record of nothing: its length, and that one's checksum. */
	struct bytes record = {
		(uint8_t *)(uintptr_t) "\0\0\0\0\0\0\0\0\x29\x03\x98\x07\xd8\xea\x82\xa2", 16};
	struct bytes empty = make_bytes(0, 0);

	write_bytes("a.csv", &text, text.size);
	segue_testspec_path(&test, path_of("a.csv"));
	refused(SEGUE_EDATA, "a.csv: is no sequence file (segue.FileWriter and segue.convert");
	write_bytes("a.csv", &record, record.size);
	refused(SEGUE_EDATA,
		"a.csv: is a TFRecord file, no sequence file: open it with segue.TFRecord");
	write_bytes("a.csv", &numpy, numpy.size);
	refused(SEGUE_EDATA,
		"a.csv: is a NumPy array (.npy), no sequence file: open it with segue.Arrays");
	write_bytes("a.csv", &empty, empty.size);
	refused(SEGUE_EDATA, "no sequences, the data set is empty");
	free(empty.at);
}

/* The file that is open is exchanged for one of other content, of the same size. */
Test(sequence_source, a_file_that_is_written_anew)
{
	struct bytes bytes = make_bytes(4, 1), other;
	struct segue_source *source;
	struct segue_admitted admitted;
	struct segue_record *record;

	write_bytes("a.segue", &bytes, bytes.size);
	segue_testspec_path(&test, path_of("a.segue"));
	source = open_source();
	other = make_bytes(4 + 50 * 4, 1); /* as many steps, other values */
	cr_assert_eq(steps_of(4), steps_of(204));
	cr_assert_eq(other.size, bytes.size);
	write_bytes("a.segue", &other, other.size);
	int rc = source->ops->admit(source, 0, &record, &admitted);
	cr_assert_eq(rc, SEGUE_ECHANGED, "%d: %s", rc, segue_error_detail());
	write_bytes("a.segue", &other, 100);
	rc = source->ops->admit(source, 0, &record, &admitted);
	cr_assert_eq(rc, SEGUE_ECHANGED, "%d: %s", rc, segue_error_detail());
	source->ops->destroy(source);
	free(bytes.at);
	free(other.at);
}

/* Nobody would ask for it, and nothing would remove it from the store. */
Test(sequence_source, what_is_kept_is_of_the_streams_own_data)
{
	const struct segue_source_driver *driver = segue_source_driver(&test.spec);
	uint64_t fingerprint[2] = {0, 0};
	const struct segue_source_means again = {.keeper = &keeper, .fingerprint = fingerprint};
	struct segue_source_stats stats;

	make_file("a.segue", 0, 3);
	segue_testspec_path(&test, path_of("a.segue"));
	test.spec.persist = false;
	struct segue_source *source = open_source();
	segue_source_stats(source, &stats);
	source->ops->destroy(source);
	test.spec.persist = true;
	cr_assert_eq(driver->open(&test.spec, &again, &source), SEGUE_OK);
	source->ops->destroy(source);
	cr_assert_eq(saved, 0);
	memcpy(fingerprint, stats.fingerprint, sizeof(fingerprint));
	cr_assert_eq(driver->open(&test.spec, &again, &source), SEGUE_OK);
	source->ops->destroy(source);
	cr_assert_eq(saved, 1);
}
