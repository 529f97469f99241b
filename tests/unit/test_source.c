/*
 * The source of TFRecord files: values and keys out as they went in, long records through windows,
 * indexes kept, changes and damage named, memory and file descriptors bounded.
 */
#include "source/cache.h"
#include "source/kinds.h"
#include "source/tfrecord/tfrecord.h"

#include "descriptors.h"
#include "testspec.h"
#include "tfwrite.h"
#include "tmpdir.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct segue_tmpdir dir;
static struct segue_testspec test;
static char cache[SEGUE_TMPDIR_MAX];

/* ---- A keeper in memory ---------------------------------------------------------------------- */

struct kept {
	char name[64];
	void *bytes;
	size_t size;
};

static struct kept kept[16];
static size_t kept_count;

static int keep_load(void *arg, const char *name, void **bytes, size_t *size)
{
	(void)arg;
	for (size_t i = 0; i < kept_count; i++) {
		if (strcmp(kept[i].name, name) != 0)
			continue;
		*bytes = malloc(kept[i].size);
		memcpy(*bytes, kept[i].bytes, kept[i].size);
		*size = kept[i].size;
		return SEGUE_OK;
	}
	return SEGUE_ENOTFOUND;
}

static int keep_save(void *arg, const char *name, const void *bytes, size_t size)
{
	struct kept *entry = &kept[kept_count++];

	(void)arg;
	cr_assert_leq(kept_count, 16);
	cr_assert_lt(strlen(name), sizeof(entry->name));
	strcpy(entry->name, name);
	entry->bytes = malloc(size);
	memcpy(entry->bytes, bytes, size);
	entry->size = size;
	return SEGUE_OK;
}

static const struct segue_index_keeper keeper = {NULL, keep_load, keep_save};

static void forget(void)
{
	while (kept_count)
		free(kept[--kept_count].bytes);
}

/* ---- Files ----------------------------------------------------------------------------------- */

static void setup(void)
{
	segue_tmpdir_make(&dir, "source");
	segue_tmpdir_path(&dir, "cache/of/copies", cache);
	segue_testspec_init(&test);
	segue_testspec_sequence(&test, "x", SEGUE_FLOAT32, 3);
	segue_testspec_sequence(&test, "y", SEGUE_INT32, 1);
	segue_testspec_context(&test, "c", SEGUE_INT64, 2);
}

static void teardown(void)
{
	forget();
	segue_testspec_finish(&test);
	segue_tmpdir_remove(&dir);
}

TestSuite(source, .init = setup, .fini = teardown);

static const char *path_of(const char *name)
{
	static char path[SEGUE_TMPDIR_MAX];

	return segue_tmpdir_path(&dir, name, path);
}

/* What step `step` of record `number` holds. */
static float value_x(uint64_t number, uint64_t step, uint64_t i)
{
	return (float)(number * 1000 + step) + (float)i / 4;
}

static int64_t value_y(uint64_t number, uint64_t step)
{
	return (int64_t)(number * step % 300) - 5;
}

/* As an Example, where the spec says that records are such. */
static void add_record(struct segue_tfbytes *to, uint64_t number, size_t steps, bool packed)
{
	bool plain = test.spec.source.tfrecord.record == SEGUE_RECORD_EXAMPLE;
	enum segue_tfform form = packed ? SEGUE_TF_PACKED : SEGUE_TF_MIXED;
	float *x = malloc(3 * steps * sizeof(float) + 1);
	int64_t *y = malloc(steps * sizeof(int64_t) + 1);
	int64_t c[2] = {(int64_t)number, -1};
	struct segue_tffeature context = {"c", SEGUE_TF_INT64, SEGUE_TF_PACKED, 1, 2, c};
	struct segue_tffeature sequences[] = {
		{"x", SEGUE_TF_FLOAT, form, steps, 3, x}, {"y", SEGUE_TF_INT64, form, steps, 1, y}};
	struct segue_tfbytes data = {0};

	/* The same number makes the same bytes. */
	srandom((unsigned)number);
	for (size_t step = 0; step < steps; step++) {
		for (size_t i = 0; i < 3; i++)
			x[3 * step + i] = value_x(number, step, i);
		y[step] = value_y(number, step);
	}
	struct segue_tffeature all[] = {sequences[0], context, sequences[1]};
	for (size_t i = 0; i < 3; i++) {
		all[i].each *= all[i].steps;
		all[i].steps = 1;
	}
	if (plain)
		segue_tfwrite_example(&data, all, 3, NULL, 0);
	else
		segue_tfwrite_example(&data, &context, 1, sequences, 2);
	segue_tfwrite_record(to, data.bytes, data.size);
	segue_tfbytes_free(&data);
	free(x);
	free(y);
}

static size_t steps_of(uint64_t number)
{
	return 1 + number * 7 % 50;
}

/* Records [first, first + count) in one file. */
static void make_bytes(struct segue_tfbytes *to, uint64_t first, uint64_t count)
{
	for (uint64_t i = first; i < first + count; i++)
		add_record(to, i, steps_of(i), i % 3 != 0);
}

static void make_file(const char *name, uint64_t first, uint64_t count, bool gzip)
{
	struct segue_tfbytes bytes = {0}, packed = {0};

	make_bytes(&bytes, first, count);
	if (gzip)
		segue_tfwrite_gzip(&packed, bytes.bytes, bytes.size);
	segue_tfwrite_file(
		path_of(name), gzip ? packed.bytes : bytes.bytes, gzip ? packed.size : bytes.size);
	segue_tfbytes_free(&bytes);
	segue_tfbytes_free(&packed);
}

static void read_whole(const char *name, struct segue_tfbytes *to)
{
	FILE *file = fopen(path_of(name), "rbe");
	uint8_t part[4096];
	size_t n;

	cr_assert_not_null(file);
	while ((n = fread(part, 1, sizeof(part), file)))
		segue_tfbytes_put(to, part, n);
	fclose(file);
}

/* Changes one byte where it lies: same file, same size. */
static void flip(const char *name, long at)
{
	FILE *file = fopen(path_of(name), "r+be");
	int byte;

	cr_assert_not_null(file);
	fseek(file, at, at < 0 ? SEEK_END : SEEK_SET);
	byte = fgetc(file);
	fseek(file, at, at < 0 ? SEEK_END : SEEK_SET);
	fputc(byte ^ 1, file);
	fclose(file);
}

/* ---- Opening --------------------------------------------------------------------------------- */

static int indexed, inflated;

static void count_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	(void)arg;
	cr_assert_leq(done, total);
	indexed += strcmp(what, "index") == 0;
	inflated += strcmp(what, "inflate") == 0;
}

static const struct segue_source_means means = {
	.cache_dir = cache, .keeper = &keeper, .progress = count_progress};

static int try_open(struct segue_source **source)
{
	indexed = inflated = 0;
	return segue_source_driver(&test.spec)->open(&test.spec, &means, source);
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

static void use(const char *name)
{
	segue_testspec_path(&test, path_of(name));
}

/* ---- Checking -------------------------------------------------------------------------------- */

static struct segue_record *admit(struct segue_source *source, uint64_t number)
{
	struct segue_record *record;
	struct segue_admitted admitted;
	int rc = source->ops->admit(source, number, &record, &admitted);

	cr_assert_eq(rc, SEGUE_OK, "record %ju: %s", (uintmax_t)number, segue_error_detail());
	cr_assert_eq(admitted.total_length, admitted.array_steps);
	return record;
}

/* Steps [first, first + count) of both features. */
static void check_steps(
	struct segue_record *record, uint64_t number, uint64_t first, uint64_t count)
{
	float *x = malloc(3 * count * sizeof(float));
	int32_t *y = malloc(count * sizeof(int32_t));

	cr_assert_eq(record->ops->read(record, 0, count, x), SEGUE_OK, "%s", segue_error_detail());
	cr_assert_eq(record->ops->read(record, 1, count, y), SEGUE_OK, "%s", segue_error_detail());
	for (uint64_t k = 0; k < count; k++) {
		for (uint64_t i = 0; i < 3; i++)
			cr_assert_eq(x[3 * k + i], value_x(number, first + k, i));
		cr_assert_eq(y[k], value_y(number, first + k));
	}
	free(x);
	free(y);
}

/* Everything about record `number` of what make_file writes. */
static void check_record(struct segue_source *source, uint64_t place, uint64_t number)
{
	struct segue_record *record;
	struct segue_admitted admitted;
	uint64_t steps = steps_of(number);
	int64_t c[2];

	cr_assert_eq(source->ops->admit(source, place, &record, &admitted), SEGUE_OK, "%s",
		segue_error_detail());
	cr_assert_eq(admitted.array_steps, steps);
	cr_assert_eq(record->ops->context(record, 0, c), SEGUE_OK);
	cr_assert(c[0] == (int64_t)number && c[1] == -1);
	for (uint64_t at = 0, n; at < steps; at += n) {
		n = steps - at < 4 ? steps - at : 4;
		check_steps(record, number, at, n);
	}
	for (uint64_t turn = 0; turn < 4; turn++) {
		uint64_t at = turn * 13 % steps;

		cr_assert_eq(record->ops->seek(record, at), SEGUE_OK);
		check_steps(record, number, at, 1);
	}
	record->ops->release(record);
}

static void check_key(struct segue_source *source, uint64_t number, const char *expected)
{
	struct segue_record *record = admit(source, number);
	const char *key;
	size_t size;

	key = record->ops->key(record, &size);
	cr_assert(size == strlen(expected) && memcmp(key, expected, size) == 0, "%.*s, not %s",
		(int)size, key, expected);
	cr_assert_leq(size, source->ops->key_max(source));
	record->ops->release(record);
}

/* ---- What works ------------------------------------------------------------------------------ */

Test(source, one_file)
{
	struct segue_source_stats stats;
	struct segue_source *source;
	struct stat st;

	make_file("toydata.tfrecords", 0, 60, false);
	use("toydata.tfrecords");
	source = open_source();
	cr_assert_eq(source->ops->records(source), 60);
	for (uint64_t i = 60; i--;)
		check_record(source, i, i);
	check_key(source, 0, "toydata.tfrecords:0");
	segue_source_stats(source, &stats);
	cr_assert_eq(stat(path_of("toydata.tfrecords"), &st), 0);
	cr_assert_eq(stats.records, 60);
	cr_assert_eq(stats.files, 1);
	cr_assert_eq(stats.bytes, (uint64_t)st.st_size);
	cr_assert_eq(stats.skipped, 0);
	cr_assert_eq(stats.descriptors, 1);
	cr_assert(stats.index_memory >= 60 * 16 && stats.index_memory < 60 * 16 + 4096);
	cr_assert(strlen(stats.crc) > 0);
	source->ops->destroy(source);
}

/* Names below the common directory, offsets of records, the longest of both. */
Test(source, keys)
{
	struct segue_tfbytes first = {0};
	struct segue_source *source;
	char key[64];

	make_bytes(&first, 0, 1);
	mkdir(path_of("d"), 0700);
	mkdir(path_of("d/left"), 0700);
	mkdir(path_of("d/lemon"), 0700);
	make_file("d/left/a.tfrecord", 0, 2, false);
	make_file("d/lemon/a-longer.tfrecord", 0, 2, false);
	use("d/*/*.tfrecord");
	source = open_source();
	check_key(source, 0, "left/a.tfrecord:0");
	snprintf(key, sizeof(key), "lemon/a-longer.tfrecord:%zu", first.size);
	check_key(source, 3, key);
	cr_assert_eq(source->ops->key_max(source), strlen(key));
	source->ops->destroy(source);
	segue_tfbytes_free(&first);
}

Test(source, key_feature)
{
	struct segue_tfbytes data = {0}, file = {0};
	int64_t c[2] = {0, 0}, y = 0;
	float x[3] = {0};
	struct segue_tffeature contexts[] = {{"c", SEGUE_TF_INT64, SEGUE_TF_PACKED, 1, 2, c},
		{"id", SEGUE_TF_BYTES, SEGUE_TF_PACKED, 1, 9, "speaker-1"}};
	struct segue_tffeature sequences[] = {{"x", SEGUE_TF_FLOAT, SEGUE_TF_PACKED, 1, 3, x},
		{"y", SEGUE_TF_INT64, SEGUE_TF_PACKED, 1, 1, &y}};
	struct segue_source *source;

	segue_tfwrite_example(&data, contexts, 2, sequences, 2);
	segue_tfwrite_record(&file, data.bytes, data.size);
	segue_tfwrite_file(path_of("a"), file.bytes, file.size);
	use("a");
	test.spec.source.tfrecord.key_feature = (char *)(uintptr_t) "id";
	source = open_source();
	check_key(source, 0, "speaker-1");
	source->ops->destroy(source);
	segue_tfbytes_free(&data);
	segue_tfbytes_free(&file);
}

/* Patterns are sorted by name; a list keeps its order; what is listed twice is there twice. */
Test(source, order_of_files)
{
	static const uint64_t expected[] = {20, 21, 10, 0, 1, 2, 10, 20, 21, 10};
	struct segue_source_stats stats;
	struct segue_source *source;

	make_file("a", 0, 3, false);
	make_file("b", 10, 1, false);
	make_file("c", 20, 2, false);
	use("c");
	use("b");
	use("[abc]");
	use("b");
	source = open_source();
	cr_assert_eq(source->ops->records(source), 10);
	for (uint64_t i = 0; i < 10; i++)
		check_record(source, i, expected[i]);
	segue_source_stats(source, &stats);
	cr_assert_eq(stats.files, 3);
	cr_assert_eq(stats.records, 10);
	source->ops->destroy(source);
}

/* A path that is there stands for itself, whatever is in its name. */
Test(source, a_name_like_a_pattern)
{
	struct segue_source *source;

	make_file("[a]*", 5, 1, false);
	make_file("a", 6, 1, false);
	use("[a]*");
	source = open_source();
	cr_assert_eq(source->ops->records(source), 1);
	check_record(source, 0, 5);
	source->ops->destroy(source);
}

Test(source, an_empty_file_among_others)
{
	struct segue_source *source;

	make_file("a", 0, 3, false);
	make_file("b", 0, 0, false);
	make_file("c", 3, 3, false);
	use("?");
	source = open_source();
	for (uint64_t i = 0; i < 6; i++)
		check_record(source, i, i);
	source->ops->destroy(source);
	source = open_source();
	check_record(source, 5, 5);
	source->ops->destroy(source);
}

/* ---- Long records ---------------------------------------------------------------------------- */

/* Read by windows, every record is what it is in memory; small blocks make many of them. */
static void windows_equal_memory(void)
{
	static const uint32_t blocks[] = {64, 100, 512, 4096, 65536};
	struct segue_source *source;

	make_file("a", 0, 50, false);
	use("a");
	source = open_source();
	for (size_t b = 0; b < 5; b++) {
		segue_source_tfrecord_limits(source, 0, blocks[b]);
		for (uint64_t i = 0; i < 50; i++)
			check_record(source, i, i);
	}
	source->ops->destroy(source);
}

Test(source, windows_equal_memory)
{
	windows_equal_memory();
}

Test(source, windows_equal_memory_in_examples)
{
	test.spec.source.tfrecord.record = SEGUE_RECORD_EXAMPLE;
	windows_equal_memory();
}

static void long_records(size_t least, bool packed)
{
	enum { STEPS = 300000, ROWS = 8 };
	struct segue_tfbytes file = {0};
	struct segue_source *source;
	struct segue_record *rows[ROWS];

	add_record(&file, 3, STEPS, packed);
	cr_assert_gt(file.size, least);
	segue_tfwrite_file(path_of("a"), file.bytes, file.size);
	for (int i = 0; i < ROWS; i++)
		use("a");
	source = open_source();
	for (size_t i = 0; i < ROWS; i++) {
		rows[i] = admit(source, i);
		cr_assert_leq(rows[i]->ops->memory(rows[i]), 512 * 1024);
	}
	for (uint64_t at = 0; at < STEPS; at += 7500)
		for (size_t i = 0; i < ROWS; i++)
			check_steps(rows[i], 3, at, 7500);
	cr_assert_eq(rows[0]->ops->seek(rows[0], STEPS - 5), SEGUE_OK);
	check_steps(rows[0], 3, STEPS - 5, 5);
	cr_assert_eq(rows[0]->ops->seek(rows[0], 11), SEGUE_OK);
	check_steps(rows[0], 3, 11, 1000);
	for (size_t i = 0; i < ROWS; i++) {
		cr_assert_leq(rows[i]->ops->memory(rows[i]), 512 * 1024);
		rows[i]->ops->release(rows[i]);
	}
	source->ops->destroy(source);
	segue_tfbytes_free(&file);
}

Test(source, long_records_need_little_memory)
{
	long_records(6u << 20, true);
}

Test(source, long_examples_need_little_memory)
{
	test.spec.source.tfrecord.record = SEGUE_RECORD_EXAMPLE;
	long_records(3u << 20, true);
	segue_testspec_finish(&test);
	forget();
	long_records(3u << 20, false);
}

Test(source, a_long_record_that_changes)
{
	struct segue_tfbytes file = {0};
	struct segue_source *source;
	struct segue_record *record;
	float *x = malloc(200000 * 3 * sizeof(float));
	int rc;

	add_record(&file, 3, 200000, true);
	segue_tfwrite_file(path_of("a"), file.bytes, file.size);
	use("a");
	source = open_source();
	record = admit(source, 0);
	flip("a", 1500000);
	rc = record->ops->read(record, 0, 200000, x);
	cr_assert_eq(rc, SEGUE_ECHANGED);
	cr_assert(strstr(segue_error_detail(), "/a: record at byte 0: its bytes from "), "%s",
		segue_error_detail());
	record->ops->release(record);
	cr_assert_eq(truncate(path_of("a"), 1000), 0);
	flip("a", 0);
	source->ops->destroy(source);
	free(x);
	segue_tfbytes_free(&file);
}

/* ---- The kept index -------------------------------------------------------------------------- */

Test(source, the_index_is_kept)
{
	struct segue_source_stats first, second;
	struct segue_source *source;

	make_file("a", 0, 30, false);
	make_file("b", 30, 1, false);
	use("?");
	source = open_source();
	segue_source_stats(source, &first);
	cr_assert_gt(indexed, 0);
	cr_assert_eq(kept_count, 2); /* the index, and what the data set was */
	source->ops->destroy(source);
	source = open_source();
	cr_assert_eq(indexed, 0);
	cr_assert_eq(kept_count, 2);
	for (uint64_t i = 0; i < 31; i++)
		check_record(source, i, i);
	segue_source_stats(source, &second);
	cr_assert_eq(memcmp(first.fingerprint, second.fingerprint, sizeof(first.fingerprint)), 0);
	source->ops->destroy(source);
}

/* Opens data of which an index is kept, after `change`. */
Test(source, changed_since_it_was_indexed)
{
	struct segue_source *source;

	make_file("a", 0, 3, false);
	make_file("b", 3, 3, false);
	use("[a-z]*");
	source = open_source();
	source->ops->destroy(source);
	make_file("c", 3, 3, false);
	refused(SEGUE_ECHANGED, "/c: new in the data set");
	unlink(path_of("c"));
	make_file("ab", 3, 3, false);
	refused(SEGUE_ECHANGED, "/ab: new in the data set");
	unlink(path_of("ab"));
	unlink(path_of("b"));
	refused(SEGUE_ECHANGED, "/b: gone from the data set");
	make_file("b", 3, 4, false);
	refused(SEGUE_ECHANGED, "/b: has ");
	make_file("b", 3, 3, false);
	source = open_source();
	source->ops->destroy(source);
	flip("b", -1);
	refused(SEGUE_ECHANGED, "/b: the checksum of the record at byte ");
	flip("b", -1);
	flip("a", 1);
	refused(SEGUE_ECHANGED, "/a: the record at byte 0 is not what it was");
}

Test(source, listed_otherwise)
{
	struct segue_source *source;

	make_file("a", 0, 3, false);
	make_file("b", 3, 3, false);
	use("a");
	use("b");
	source = open_source();
	source->ops->destroy(source);
	segue_testspec_finish(&test);
	/* Another list is another data set. */
	use("b");
	use("a");
	source = open_source();
	check_record(source, 0, 3);
	source->ops->destroy(source);
	cr_assert_eq(kept_count, 4);
}

/* The keeper checks sums; what passes them and is no index is refused all the same. */
Test(source, a_kept_index_that_is_none)
{
	struct segue_source *source;
	size_t size;

	make_file("a", 0, 3, false);
	use("a");
	source = open_source();
	source->ops->destroy(source);
	size = kept[0].size;
	for (kept[0].size = 1; kept[0].size < size; kept[0].size++)
		refused(SEGUE_ESTORE, "is no index of files");
	for (size_t i = 0; i < size; i++) {
		uint8_t *byte = (uint8_t *)kept[0].bytes + i;
		int rc;

		*byte ^= 0x11;
		rc = try_open(&source);
		cr_assert(rc == SEGUE_ESTORE || rc == SEGUE_EFORMAT || rc == SEGUE_ECHANGED ||
				  rc == SEGUE_OK,
			"byte %zu: %d", i, rc);
		if (rc == SEGUE_OK)
			source->ops->destroy(source);
		*byte ^= 0x11;
	}
}

static void move(const char *from, const char *to)
{
	char old[SEGUE_TMPDIR_MAX];

	cr_assert_eq(rename(segue_tmpdir_path(&dir, from, old), path_of(to)), 0);
}

static void fingerprint_of(const char *pattern, uint64_t fingerprint[2])
{
	struct segue_source_stats stats;
	struct segue_source *source;

	segue_testspec_finish(&test);
	use(pattern);
	source = open_source();
	segue_source_stats(source, &stats);
	memcpy(fingerprint, stats.fingerprint, sizeof(stats.fingerprint));
	source->ops->destroy(source);
}

Test(source, fingerprint)
{
	uint64_t here[2], there[2];

	mkdir(path_of("here"), 0700);
	mkdir(path_of("there"), 0700);
	for (int i = 0; i < 2; i++) {
		make_file(i ? "there/a" : "here/a", 0, 3, false);
		make_file(i ? "there/b" : "here/b", 3, 3, false);
	}
	fingerprint_of("here/*", here);
	fingerprint_of("there/*", there);
	cr_assert_eq(memcmp(here, there, sizeof(here)), 0);
	forget();
	move("there/b", "there/c");
	fingerprint_of("there/*", there);
	cr_assert_neq(memcmp(here, there, sizeof(here)), 0);
	forget();
	move("there/c", "there/b");
	flip("there/b", -1);
	fingerprint_of("there/*", there);
	cr_assert_neq(memcmp(here, there, sizeof(here)), 0);
}

/* ---- Damage ---------------------------------------------------------------------------------- */

/* Opens and admits everything: the first error, or 0. */
static int go_through(void)
{
	struct segue_source *source;
	int rc = try_open(&source);

	if (rc < 0)
		return rc;
	for (uint64_t i = 0; rc == SEGUE_OK && i < source->ops->records(source); i++) {
		struct segue_admitted admitted;
		struct segue_record *record;

		rc = source->ops->admit(source, i, &record, &admitted);
		if (rc == SEGUE_OK)
			record->ops->release(record);
	}
	source->ops->destroy(source);
	forget();
	return rc;
}

Test(source, every_flipped_bit_is_seen)
{
	struct segue_tfbytes bytes = {0};

	add_record(&bytes, 1, 3, true);
	add_record(&bytes, 2, 2, true);
	use("a");
	for (size_t bit = 0; bit < 8 * bytes.size; bit++) {
		bytes.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		segue_tfwrite_file(path_of("a"), bytes.bytes, bytes.size);
		cr_assert_eq(go_through(), SEGUE_EDATA, "bit %zu", bit);
		cr_assert(strstr(segue_error_detail(), "/a: record at byte "), "%s",
			segue_error_detail());
		bytes.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	segue_tfbytes_free(&bytes);
}

Test(source, cut_off_anywhere)
{
	struct segue_tfbytes bytes = {0};
	size_t first;

	add_record(&bytes, 1, 3, true);
	first = bytes.size;
	add_record(&bytes, 2, 2, true);
	use("a");
	for (size_t size = 0; size <= bytes.size; size++) {
		segue_tfwrite_file(path_of("a"), bytes.bytes, size);
		cr_assert_eq(go_through(),
			size == first || size == bytes.size ? SEGUE_OK : SEGUE_EDATA, "%zu", size);
	}
	segue_tfbytes_free(&bytes);
}

/* The checksum speaks first: what the scan made of damaged bytes would lead astray. */
Test(source, damaged_data_are_called_damaged)
{
	struct segue_source *source;
	struct segue_admitted admitted;
	struct segue_record *record;

	make_file("a", 0, 3, false);
	use("a");
	source = open_source();
	flip("a", 13);
	cr_assert_eq(source->ops->admit(source, 0, &record, &admitted), SEGUE_EDATA);
	cr_assert(strstr(segue_error_detail(),
			  "/a: record at byte 0: damaged: the checksum of its data is wrong"),
		"%s", segue_error_detail());
	cr_assert_eq(segue_source_admit(source, 0, &record, &admitted), SEGUE_EDATA);
	cr_assert(strstr(segue_error_detail(), "on_error=\"skip\" passes over such records"));
	source->on_error = SEGUE_ON_ERROR_SKIP;
	for (uint64_t times = 1; times < 3; times++) {
		struct segue_source_stats stats;

		cr_assert_eq(
			segue_source_admit(source, 0, &record, &admitted), SEGUE_SOURCE_SKIPPED);
		segue_source_stats(source, &stats);
		cr_assert_eq(stats.skipped, times);
	}
	check_record(source, 1, 1);
	source->ops->destroy(source);
}

Test(source, a_record_that_does_not_fit)
{
	struct segue_source *source;
	struct segue_admitted admitted;
	struct segue_record *record;

	make_file("a", 0, 3, false);
	use("a");
	test.sequences[1].name = (char *)(uintptr_t) "z";
	source = open_source();
	for (int skip = 0; skip < 2; skip++) {
		source->on_error = skip ? SEGUE_ON_ERROR_SKIP : SEGUE_ON_ERROR_RAISE;
		cr_assert_eq(source->ops->admit(source, 1, &record, &admitted), SEGUE_EMISFIT);
		cr_assert_eq(segue_source_admit(source, 1, &record, &admitted), SEGUE_EDATA);
		cr_assert(strstr(segue_error_detail(), "/a: record at byte "), "%s",
			segue_error_detail());
		cr_assert(strstr(segue_error_detail(), "feature 'y': not declared"), "%s",
			segue_error_detail());
		cr_assert(strstr(segue_error_detail(), "the record holds: context c (int64); "
						       "sequences x (float), y (int64)"),
			"%s", segue_error_detail());
		cr_assert_not(strstr(segue_error_detail(), "on_error"));
	}
	source->ops->destroy(source);
}

/* Truncated, changed, taken away while it is read: an error each time, no signal. */
Test(source, changed_while_it_is_read)
{
	struct segue_source *source;
	struct segue_admitted admitted;
	struct segue_record *record;

	make_file("a", 0, 9, false);
	use("a");
	source = open_source();
	check_record(source, 8, 8);
	/* Other data with other checksums, not data damaged below their checksum. */
	flip("a", -1);
	check_record(source, 8, 8);
	flip("a", -8);
	cr_assert_eq(source->ops->admit(source, 8, &record, &admitted), SEGUE_ECHANGED);
	cr_assert(strstr(segue_error_detail(), "stored checksum has changed"), "%s",
		segue_error_detail());
	cr_assert_eq(truncate(path_of("a"), 100), 0);
	cr_assert_eq(source->ops->admit(source, 8, &record, &admitted), SEGUE_ECHANGED);
	cr_assert(strstr(segue_error_detail(), "was it cut off?"), "%s", segue_error_detail());
	source->ops->destroy(source);
}

/* An open file outlives its name. */
Test(source, deleted_while_it_is_read)
{
	struct segue_source *source;

	make_file("a", 0, 9, false);
	use("a");
	source = open_source();
	check_record(source, 0, 0);
	unlink(path_of("a"));
	check_record(source, 8, 8);
	source->ops->destroy(source);
	refused(SEGUE_ESOURCE, "no such file");
}

Test(source, bad_paths)
{
	make_file("empty", 0, 0, false);
	use("empty");
	refused(SEGUE_EDATA, "/empty: no records, the data set is empty");
	segue_testspec_finish(&test);
	use("nothing");
	refused(SEGUE_ESOURCE, "/nothing: no such file");
	segue_testspec_finish(&test);
	use("*.none");
	refused(SEGUE_ESOURCE, "nothing matches it");
	segue_testspec_finish(&test);
	mkdir(path_of("directory"), 0700);
	use("directory");
	refused(SEGUE_ESOURCE, "/directory: is a directory");
	segue_testspec_finish(&test);
	cr_assert_eq(mkfifo(path_of("fifo"), 0600), 0);
	use("fifo");
	refused(SEGUE_ESOURCE, "/fifo: is not a plain file");
	segue_testspec_finish(&test);
	make_file("secret", 0, 1, false);
	chmod(path_of("secret"), 0);
	use("secret");
	if (geteuid() != 0)
		refused(SEGUE_ESOURCE, "/secret: cannot be opened: Permission denied");
	segue_testspec_finish(&test);
	use("empty/below");
	refused(SEGUE_ESOURCE, "/empty/below: no such file");
}

/* ---- gzip ------------------------------------------------------------------------------------ */

Test(source, gzip)
{
	struct segue_source_stats stats;
	struct segue_source *source;

	make_file("a.gz", 0, 20, true);
	make_file("b", 20, 20, false);
	use("a.gz");
	use("b");
	source = open_source();
	cr_assert_gt(inflated, 0);
	for (uint64_t i = 0; i < 40; i++)
		check_record(source, i, i);
	check_key(source, 0, "a.gz:0");
	segue_source_stats(source, &stats);
	cr_assert_gt(stats.bytes, 40);
	source->ops->destroy(source);
	/* Once is enough; a copy that was cleared away is made again. */
	source = open_source();
	cr_assert(inflated == 0 && indexed == 0);
	source->ops->destroy(source);
	segue_tmpdir_remove_path(cache);
	mkdir(path_of("cache"), 0700);
	mkdir(path_of("cache/of"), 0700);
	mkdir(path_of("cache/of/copies"), 0700);
	segue_tfwrite_file(path_of("cache/of/copies/0123.inflated.aBcDeF"), "left", 4);
	source = open_source();
	cr_assert(inflated > 0 && indexed == 0);
	cr_assert_neq(access(path_of("cache/of/copies/0123.inflated.aBcDeF"), F_OK), 0);
	check_record(source, 19, 19);
	source->ops->destroy(source);
}

Test(source, gzip_said_or_not)
{
	struct segue_source *source;

	make_file("a", 0, 2, true);
	make_file("b", 0, 2, false);
	use("a");
	test.spec.source.tfrecord.compression = SEGUE_COMPRESSION_GZIP;
	source = open_source();
	check_record(source, 1, 1);
	source->ops->destroy(source);
	test.spec.source.tfrecord.compression = SEGUE_COMPRESSION_NONE;
	refused(SEGUE_EDATA,
		"/a: is compressed with gzip, and the source's compression is \"none\"");
	segue_testspec_finish(&test);
	use("b");
	source = open_source();
	source->ops->destroy(source);
	test.spec.source.tfrecord.compression = SEGUE_COMPRESSION_GZIP;
	refused(SEGUE_EDATA, "/b: is not gzip, and the source's compression is \"gzip\"");
}

Test(source, changed_gzip)
{
	struct segue_source *source;

	make_file("a", 0, 20, true);
	use("a");
	source = open_source();
	source->ops->destroy(source);
	flip("a", -6);
	refused(SEGUE_ECHANGED, "/a: its checksum is not what it was");
	flip("a", -6);
	make_file("a", 0, 21, true);
	refused(SEGUE_ECHANGED, "/a: has ");
}

Test(source, damaged_gzip)
{
	struct segue_tfbytes bytes = {0};

	make_file("a", 0, 20, true);
	use("a");
	flip("a", -6);
	refused(SEGUE_EDATA, "/a: damaged gzip data near byte ");
	flip("a", -6);
	read_whole("a", &bytes);
	segue_tfwrite_file(path_of("a"), bytes.bytes, bytes.size - 1);
	refused(SEGUE_EDATA, "/a: gzip data cut off at byte ");
	segue_tfbytes_free(&bytes);
}

/* ---- zlib ------------------------------------------------------------------------------------ */

static void make_zlib(const char *name, uint64_t first, uint64_t count)
{
	struct segue_tfbytes bytes = {0}, packed = {0};

	make_bytes(&bytes, first, count);
	segue_tfwrite_zlib(&packed, bytes.bytes, bytes.size);
	segue_tfwrite_file(path_of(name), packed.bytes, packed.size);
	segue_tfbytes_free(&bytes);
	segue_tfbytes_free(&packed);
}

/* Each file by its own first bytes; the data set is the same however its files are compressed. */
Test(source, zlib)
{
	struct segue_source_stats stats;
	struct segue_source *source;
	uint64_t fingerprint[2];

	make_zlib("a", 0, 20);
	make_file("b", 20, 20, false);
	make_file("c", 40, 20, true);
	use("?");
	source = open_source();
	cr_assert_gt(inflated, 0);
	for (uint64_t i = 0; i < 60; i++)
		check_record(source, i, i);
	check_key(source, 0, "a:0");
	segue_source_stats(source, &stats);
	memcpy(fingerprint, stats.fingerprint, sizeof(fingerprint));
	source->ops->destroy(source);
	source = open_source();
	cr_assert(inflated == 0 && indexed == 0);
	source->ops->destroy(source);
	forget();
	make_file("a", 0, 20, false);
	make_zlib("c", 40, 20);
	source = open_source();
	segue_source_stats(source, &stats);
	cr_assert_eq(memcmp(fingerprint, stats.fingerprint, sizeof(fingerprint)), 0);
	source->ops->destroy(source);
}

Test(source, zlib_said_or_not)
{
	struct segue_source *source;

	make_zlib("a", 0, 2);
	make_file("b", 0, 2, true);
	use("a");
	test.spec.source.tfrecord.compression = SEGUE_COMPRESSION_ZLIB;
	source = open_source();
	check_record(source, 1, 1);
	source->ops->destroy(source);
	test.spec.source.tfrecord.compression = SEGUE_COMPRESSION_GZIP;
	refused(SEGUE_EDATA,
		"/a: is compressed with zlib, and the source's compression is \"gzip\": give "
		"\"zlib\"");
	test.spec.source.tfrecord.compression = SEGUE_COMPRESSION_NONE;
	refused(SEGUE_EDATA, "is compressed with zlib, and the source's compression is \"none\"");
	segue_testspec_finish(&test);
	use("b");
	test.spec.source.tfrecord.compression = SEGUE_COMPRESSION_ZLIB;
	refused(SEGUE_EDATA, "is compressed with gzip, and the source's compression is \"zlib\"");
	make_file("b", 0, 2, false);
	refused(SEGUE_EDATA, "/b: is not zlib, and the source's compression is \"zlib\"");
}

Test(source, damaged_zlib)
{
	struct segue_source *source;
	struct segue_tfbytes bytes = {0};

	make_zlib("a", 0, 20);
	use("a");
	flip("a", -2);
	refused(SEGUE_EDATA, "/a: damaged zlib data near byte ");
	flip("a", -2);
	read_whole("a", &bytes);
	segue_tfwrite_file(path_of("a"), bytes.bytes, bytes.size - 1);
	refused(SEGUE_EDATA, "/a: zlib data cut off at byte ");
	segue_tfbytes_put(&bytes, "garbage", 7);
	segue_tfwrite_file(path_of("a"), bytes.bytes, bytes.size);
	refused(SEGUE_EDATA, "/a: bytes that are no zlib follow its end");
	make_zlib("a", 0, 20);
	source = open_source();
	source->ops->destroy(source);
	flip("a", -2);
	refused(SEGUE_ECHANGED, "/a: its checksum is not what it was");
	segue_tfbytes_free(&bytes);
}

/* A first record whose length is the head of zlib's format is that of a plain file, sound or not. */
Test(source, plain_files_that_begin_like_zlib)
{
	static const uint16_t lengths[] = {0x0178, 0x5e78, 0x9c78, 0xda78, 0x1d08, 0x8558, 0xde68};
	uint8_t *data = calloc(1, UINT16_MAX);

	use("a");
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct segue_tfbytes bytes = {0};
		struct segue_source *source;

		segue_tfwrite_record(&bytes, data, lengths[i]);
		for (int c = SEGUE_COMPRESSION_AUTO; c <= SEGUE_COMPRESSION_NONE; c++) {
			test.spec.source.tfrecord.compression = (enum segue_compression)c;
			segue_tfwrite_file(path_of("a"), bytes.bytes, bytes.size);
			source = open_source();
			cr_assert_eq(source->ops->records(source), 1);
			cr_assert_eq(inflated, 0);
			source->ops->destroy(source);
			forget();
			flip("a", 9);
			refused(SEGUE_EDATA, "record at byte 0: the checksum of its length");
		}
		bytes.size = 0;
		segue_tfbytes_put(&bytes, &lengths[i], 2);
		segue_tfbytes_put(&bytes, "no deflated data", 16);
		segue_tfwrite_file(path_of("a"), bytes.bytes, bytes.size);
		test.spec.source.tfrecord.compression = SEGUE_COMPRESSION_AUTO;
		refused(SEGUE_EDATA, "/a: damaged zlib data");
		segue_tfbytes_free(&bytes);
	}
	free(data);
}

/* ---- Copies ---------------------------------------------------------------------------------- */

/* The files of the cache: how many, and the name of one. */
static size_t copies(char name[SEGUE_TMPDIR_MAX])
{
	DIR *list = opendir(cache);
	struct dirent *entry;
	size_t count = 0;

	while (list && (entry = readdir(list)))
		if (entry->d_name[0] != '.') {
			count++;
			snprintf(name, SEGUE_TMPDIR_MAX, "cache/of/copies/%.200s", entry->d_name);
		}
	if (list)
		closedir(list);
	return count;
}

/* Damage to a copy is told from damage to the data: never passed over, and mended. */
Test(source, damaged_copy)
{
	struct segue_source *source;
	struct segue_admitted admitted;
	struct segue_record *record;
	char name[SEGUE_TMPDIR_MAX];

	make_file("a", 0, 20, true);
	use("a");
	test.spec.on_error = SEGUE_ON_ERROR_SKIP;
	source = open_source();
	cr_assert_eq(copies(name), 1);
	flip(name, 14);
	cr_assert_eq(segue_source_admit(source, 0, &record, &admitted), SEGUE_ESOURCE);
	cr_assert(strstr(segue_error_detail(), "/a (inflated to '"), "%s", segue_error_detail());
	cr_assert(strstr(segue_error_detail(), "the inflated copy of the file is damaged"), "%s",
		segue_error_detail());
	cr_assert_eq(copies(name), 0);
	source->ops->destroy(source);
	source = open_source();
	for (uint64_t i = 0; i < 20; i++)
		check_record(source, i, i);
	source->ops->destroy(source);
}

/* A damaged record of a compressed file is one: its copy is as it should be. */
Test(source, damaged_data_in_gzip)
{
	struct segue_tfbytes bytes = {0}, packed = {0};
	struct segue_source *source;
	struct segue_admitted admitted;
	struct segue_record *record;

	make_bytes(&bytes, 0, 5);
	bytes.bytes[14] ^= 1;
	segue_tfwrite_gzip(&packed, bytes.bytes, bytes.size);
	segue_tfwrite_file(path_of("a"), packed.bytes, packed.size);
	use("a");
	test.spec.on_error = SEGUE_ON_ERROR_SKIP;
	for (int turn = 0; turn < 2; turn++) {
		source = open_source();
		cr_assert_eq(
			segue_source_admit(source, 0, &record, &admitted), SEGUE_SOURCE_SKIPPED);
		check_record(source, 4, 4);
		source->ops->destroy(source);
	}
	segue_tfbytes_free(&bytes);
	segue_tfbytes_free(&packed);
}

/* Damage where the index looks first: not a change of the data. */
Test(source, a_damaged_copy_of_a_kept_index)
{
	struct segue_source *source;
	char name[SEGUE_TMPDIR_MAX];

	make_file("a", 0, 20, true);
	use("a");
	source = open_source();
	source->ops->destroy(source);
	cr_assert_eq(copies(name), 1);
	flip(name, 3);
	source = open_source();
	for (uint64_t i = 0; i < 20; i++)
		check_record(source, i, i);
	source->ops->destroy(source);
}

/* A compressed shard without records is one, also when its copy is there. */
Test(source, an_empty_gzip_file_among_others)
{
	struct segue_tfbytes packed = {0};

	mkdir(path_of("e"), 0700);
	segue_tfwrite_gzip(&packed, "", 0);
	segue_tfwrite_file(path_of("e/a"), packed.bytes, packed.size);
	make_file("e/b", 0, 20, false);
	use("e/*");
	for (int turn = 0; turn < 2; turn++) {
		struct segue_source *source = open_source();

		cr_assert_eq(source->ops->records(source), 20);
		source->ops->destroy(source);
		forget();
	}
	segue_tfbytes_free(&packed);
}

/* What is open is what is judged, whatever has taken the place of its name meanwhile. */
Test(source, a_damaged_copy_that_was_replaced)
{
	struct segue_source *source, *other;
	struct segue_admitted admitted;
	struct segue_record *record;
	char name[SEGUE_TMPDIR_MAX];

	make_file("a", 0, 20, true);
	use("a");
	test.spec.on_error = SEGUE_ON_ERROR_SKIP;
	source = open_source();
	cr_assert_eq(copies(name), 1);
	flip(name, 14);
	forget();
	other = open_source(); /* makes it anew */
	check_record(other, 0, 0);
	cr_assert_eq(segue_source_admit(source, 0, &record, &admitted), SEGUE_ESOURCE);
	cr_assert(strstr(segue_error_detail(), "the inflated copy of the file is damaged"), "%s",
		segue_error_detail());
	cr_assert_eq(copies(name), 1);
	source->ops->destroy(source);
	other->ops->destroy(other);
}

/* That a copy was sound when one record was found damaged says nothing of it later. */
Test(source, a_copy_damaged_after_it_was_checked)
{
	struct segue_tfbytes bytes = {0}, packed = {0};
	struct segue_source *source;
	struct segue_admitted admitted;
	struct segue_record *record;
	char name[SEGUE_TMPDIR_MAX];

	make_bytes(&bytes, 0, 5);
	bytes.bytes[14] ^= 1;
	segue_tfwrite_gzip(&packed, bytes.bytes, bytes.size);
	segue_tfwrite_file(path_of("a"), packed.bytes, packed.size);
	use("a");
	test.spec.on_error = SEGUE_ON_ERROR_SKIP;
	source = open_source();
	cr_assert_eq(segue_source_admit(source, 0, &record, &admitted), SEGUE_SOURCE_SKIPPED);
	usleep(20000); /* file systems tell times in ticks */
	cr_assert_eq(copies(name), 1);
	flip(name, (long)bytes.size - 6);
	cr_assert_eq(segue_source_admit(source, 4, &record, &admitted), SEGUE_ESOURCE);
	cr_assert(strstr(segue_error_detail(), "the inflated copy of the file is damaged"), "%s",
		segue_error_detail());
	source->ops->destroy(source);
	segue_tfbytes_free(&bytes);
	segue_tfbytes_free(&packed);
}

/* A copy that ends where a record ends, as a full disk or a hand may leave it: made anew. */
Test(source, a_copy_cut_between_records)
{
	struct segue_tfbytes first = {0};
	struct segue_source *source;
	char name[SEGUE_TMPDIR_MAX];

	make_bytes(&first, 0, 10);
	make_file("a", 0, 20, true);
	use("a");
	for (int turn = 0; turn < 2; turn++) {
		source = open_source();
		cr_assert_eq(source->ops->records(source), 20);
		source->ops->destroy(source);
		cr_assert_eq(copies(name), 1);
		cr_assert_eq(truncate(path_of(name), (off_t)first.size), 0);
		if (turn == 0)
			forget();
	}
	source = open_source();
	cr_assert_gt(inflated, 0);
	check_record(source, 19, 19);
	source->ops->destroy(source);
	segue_tfbytes_free(&first);
}

/* Three members of one record each, of equal sizes. */
static void make_members(uint64_t middle)
{
	const uint64_t numbers[] = {1, middle, 3};
	struct segue_tfbytes packed = {0};

	for (size_t i = 0; i < 3; i++) {
		struct segue_tfbytes record = {0}, member = {0};

		add_record(&record, numbers[i], 2, true);
		segue_tfwrite_gzip(&member, record.bytes, record.size);
		segue_tfbytes_put(&packed, member.bytes, member.size);
		segue_tfbytes_free(&record);
		segue_tfbytes_free(&member);
	}
	segue_tfwrite_file(path_of("a"), packed.bytes, packed.size);
	segue_tfbytes_free(&packed);
}

/* Same size, same beginning, same end: the old copy is no copy of it, the old index none either. */
Test(source, a_member_that_was_exchanged)
{
	struct segue_source *source;
	struct segue_record *record;
	struct stat before, after;
	char name[SEGUE_TMPDIR_MAX];
	uint64_t other = 10;

	use("a");
	make_members(other);
	cr_assert_eq(stat(path_of("a"), &before), 0);
	source = open_source();
	record = admit(source, 1);
	check_steps(record, 10, 0, 2);
	record->ops->release(record);
	do
		make_members(++other);
	while (stat(path_of("a"), &after) == 0 && after.st_size != before.st_size);
	refused(SEGUE_ECHANGED, "is not what it was");
	forget();
	source->ops->destroy(source);
	source = open_source();
	record = admit(source, 1);
	check_steps(record, other, 0, 2);
	record->ops->release(record);
	source->ops->destroy(source);
	cr_assert_eq(copies(name), 1); /* of the newer version alone */
}

Test(source, what_the_cache_holds)
{
	struct segue_source *source;
	uint64_t count, bytes;

	segue_cache_measure(cache, &count, &bytes);
	cr_assert(count == 0 && bytes == 0);
	make_file("a", 0, 20, true);
	make_file("b", 0, 20, true);
	use("?");
	source = open_source();
	source->ops->destroy(source);
	segue_cache_measure(cache, &count, &bytes);
	cr_assert_eq(count, 2);
	cr_assert_gt(bytes, 2000);
}

/* What was inflated and then refused takes no room. */
Test(source, a_refused_file_leaves_no_copy)
{
	struct segue_source *source;
	struct segue_tfbytes bytes = {0}, packed = {0};
	char name[SEGUE_TMPDIR_MAX];

	make_bytes(&bytes, 0, 20);
	use("a");
	make_file("a", 0, 20, true);
	source = open_source();
	source->ops->destroy(source);
	cr_assert_eq(copies(name), 1);
	forget();
	segue_tfwrite_gzip(&packed, bytes.bytes, bytes.size);
	segue_tfwrite_file(path_of("a"), packed.bytes, packed.size - 1);
	refused(SEGUE_EDATA, "gzip data cut off");
	cr_assert_eq(copies(name), 0);
	packed.size = 0;
	segue_tfwrite_gzip(&packed, bytes.bytes, bytes.size - 1);
	segue_tfwrite_file(path_of("a"), packed.bytes, packed.size);
	refused(SEGUE_EDATA, "the file ends within it");
	cr_assert_eq(copies(name), 0);
	packed.size = 0;
	segue_tfwrite_gzip(&packed, "", 0);
	segue_tfwrite_file(path_of("a"), packed.bytes, packed.size);
	refused(SEGUE_EDATA, "no records");
	cr_assert_eq(copies(name), 0);
	segue_tfbytes_free(&bytes);
	segue_tfbytes_free(&packed);
}

/* A stream that has the older version open is told; it never reads from the newer one. */
Test(source, an_older_version_that_is_open)
{
	struct segue_source *old, *new;
	struct segue_admitted admitted;
	struct segue_record *record;

	segue_test_limit_descriptors(1024);
	for (uint64_t i = 0; i < 70; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%03d", (int)i);
		make_file(name, i, 1, true);
	}
	use("f*");
	old = open_source();
	check_record(old, 0, 0);
	for (uint64_t i = 1; i < 70; i++)
		check_record(old, i, i); /* more than stay open */
	make_file("f000", 7, 1, true);
	forget();
	new = open_source();
	check_record(new, 0, 7);
	cr_assert_eq(old->ops->admit(old, 0, &record, &admitted), SEGUE_ECHANGED);
	cr_assert(
		strstr(segue_error_detail(), "is of the new version"), "%s", segue_error_detail());
	old->ops->destroy(old);
	new->ops->destroy(new);
}

/* Each way to compress is called by its name. */
Test(source, other_compressions)
{
	static const struct {
		const char *bytes;
		size_t size;
		const char *name;
	} kinds[] = {
		{"BZh91AY&SY", 10, "bzip2"},
		{"\x28\xb5\x2f\xfd", 4, "zstd"},
		{"\x04\x22\x4d\x18", 4, "lz4"},
		{"\xfd"
		 "7zXZ\0",
			6, "xz"},
	};

	use("a");
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct segue_tfbytes bytes = {0};
		char text[64];

		segue_tfbytes_put(&bytes, kinds[i].bytes, kinds[i].size);
		segue_tfbytes_put(&bytes, "0123456789abcdef0123456789abcdef", 32);
		segue_tfwrite_file(path_of("a"), bytes.bytes, bytes.size);
		snprintf(text, sizeof(text),
			"/a: is compressed with %s, which is not read: unpack it", kinds[i].name);
		for (int c = SEGUE_COMPRESSION_AUTO; c <= SEGUE_COMPRESSION_ZLIB; c++) {
			test.spec.source.tfrecord.compression = (enum segue_compression)c;
			refused(SEGUE_EDATA, text);
		}
		segue_tfbytes_free(&bytes);
	}
}

/* What is something else is called by its name, and so is the call that takes it. */
Test(source, files_of_other_kinds)
{
#define BYTES(text) (text), sizeof(text) - 1
	static const struct {
		const char *bytes;
		size_t size;
		const char *says; /* NULL: nothing of the kind */
	} kinds[] = {
		{BYTES("SEGUESEQ\1\0\0\0"),
			"a sequence file, no TFRecord file: open it with segue.Files"},
		{BYTES("PAR1\x15\0"),
			"a Parquet file, no TFRecord file: 'segue convert' makes a sequence"},
		{BYTES("PARE"), "an encrypted Parquet file, no"},
		{BYTES("ARROW1\0\0"), "an Arrow file, no"},
		{BYTES("\xff\xff\xff\xff\xa8\1\0\0\x10\0"), "an Arrow stream, no"},
		{BYTES("\x89HDF\r\n\x1a\n\0"), "an HDF5 file, no"},
		{BYTES("\x93NUMPY\1\0"), "a NumPy array (.npy), no"},
		{BYTES("PK\3\4\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\5\0\0\0x.npyDATA"),
			"an archive of NumPy arrays (.npz), no"},
		{BYTES("PK\3\4\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\5\0\0\0x.txtDATA"),
			"a zip archive, no TFRecord file: unpack it"},
		{BYTES("PK\3\4\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\0\0x.npyDATA"),
			"a zip archive, no TFRecord file: unpack it"},
		{BYTES("PK\5\6\0\0\0\0"), "an empty zip archive, no"},
		{BYTES("RIFF\x24\1\0\0WAVEfmt "), "a WAV file, no"},
		{BYTES("RF64\xff\xff\xff\xffWAVEds64"), "a WAV file, no"},
		{BYTES("fLaC\0\0\0\x22"), "a FLAC file, no"},
		{BYTES("{\"x\": [1, 2]}\n"),
			"JSON, no TFRecord file: if it is lines of JSON, 'segue convert'"},
		{BYTES("{\n  \"x\": 1}\n"), "JSON, no"},
		{BYTES("{}\n"), "JSON, no"},
		/* The length of a record, and text that is none of them. */
		{BYTES("{\"\0\0\0\0\0\0\0\0\0\0"), NULL},
		{BYTES("{x\": 1}, {}, {}"), NULL},
		{BYTES("RIFF\x24\1\0\0AVI LIST"), NULL},
		{BYTES("PAR"), NULL},
		{BYTES("fLa"), NULL},
		{BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"), NULL},
	};
#undef BYTES
	void (*const packers[])(struct segue_tfbytes * to, const void *bytes, size_t size) = {
		segue_tfbytes_put, segue_tfwrite_gzip, segue_tfwrite_zlib};

	use("a");
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		for (size_t p = 0; p < 3; p++) {
			struct segue_tfbytes bytes = {0};
			char text[200];

			packers[p](&bytes, kinds[i].bytes, kinds[i].size);
			segue_tfwrite_file(path_of("a"), bytes.bytes, bytes.size);
			segue_tfbytes_free(&bytes);
			snprintf(text, sizeof(text), "/a: %s%s",
				p ? "what it inflates to is " : "is ",
				kinds[i].says ? kinds[i].says : "no TFRecord file");
			if (kinds[i].says || p)
				refused(SEGUE_EDATA, text);
			else
				refused(SEGUE_EDATA, "record at byte 0: ");
		}
}

/* ---- Which data set it was ------------------------------------------------------------------- */

static struct segue_source *open_files(const char *const *names)
{
	segue_testspec_finish(&test);
	for (; *names; names++)
		use(*names);
	return open_source();
}

/* Data of another fingerprint: which, of all that may differ. */
Test(source, says_how_the_data_differ)
{
	const char *const both[] = {"d/a", "d/b", NULL}, *const turned[] = {"d/b", "d/a", NULL};
	const char *const one[] = {"d/b", NULL}, *const three[] = {"d/[abc]", NULL};
	const char *const other[] = {"d/a", "d/c", NULL}, *const twice[] = {
								  "d/a", "d/b", "d/b", NULL};
	const struct {
		const char *const *files;
		const char *text;
	} cases[] = {
		{turned, "the same files are listed in another order (b is number 0 now)"},
		{one, "1 of its 2 files is missing, the first is a"},
		{three, "1 file is there that was not when it was made, the first is c"},
		{other, "1 of its 2 files is missing, the first is b, and 1 other is there, the "
			"first "
			"is c"},
		{twice, "1 file is there that was not when it was made, the first is b"},
	};
	struct segue_source_stats was;
	struct segue_source *source;

	mkdir(path_of("d"), 0700);
	make_file("d/a", 0, 3, false);
	make_file("d/b", 3, 3, false);
	make_file("d/c", 6, 3, false);
	source = open_files(both);
	segue_source_stats(source, &was);
	source->ops->destroy(source);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		source = open_files(cases[i].files);
		cr_assert_eq(source->ops->explain_change(source, was.fingerprint), SEGUE_ECHANGED);
		cr_assert(strstr(segue_error_detail(), cases[i].text), "%s", segue_error_detail());
		source->ops->destroy(source);
	}
}

static void differs(const uint64_t fingerprint[2], const char *text)
{
	struct segue_source *source = open_source();

	cr_assert_eq(source->ops->explain_change(source, fingerprint), SEGUE_ECHANGED);
	cr_assert(strstr(segue_error_detail(), text), "%s", segue_error_detail());
	source->ops->destroy(source);
}

Test(source, says_how_a_file_differs)
{
	struct segue_source_stats was;
	struct segue_source *source;
	struct segue_tfbytes bytes = {0};

	make_file("a", 0, 6, false);
	use("a");
	source = open_source();
	segue_source_stats(source, &was);
	source->ops->destroy(source);
	kept_count = 2; /* what it was is kept; its index is not */
	free(kept[0].bytes);
	kept[0] = kept[--kept_count];
	make_file("a", 0, 7, false);
	differs(was.fingerprint, "a has 7 records, had 6");
	kept_count = 1;
	make_file("a", 1, 6, false);
	differs(was.fingerprint, "a has ");
	kept_count = 1;
	make_bytes(&bytes, 0, 6);
	bytes.bytes[bytes.size - 1] ^= 1;
	segue_tfwrite_file(path_of("a"), bytes.bytes, bytes.size);
	differs(was.fingerprint, "a: as many records and bytes as before, but other ones");
	kept_count = 0;
	differs(was.fingerprint, "is not the one that the stream was made with");
	segue_tfbytes_free(&bytes);
}

/* ---- Patterns -------------------------------------------------------------------------------- */

static void make_directories(const char *path)
{
	char part[SEGUE_TMPDIR_MAX];

	strcpy(part, path);
	for (char *slash = strchr(part, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path_of(part), 0700);
		*slash = '/';
	}
}

/* What the pattern finds, by the first record of each file, in order; ends with -1. */
static void finds(const char *pattern, const int *numbers)
{
	struct segue_source *source;
	uint64_t count = 0;

	segue_testspec_finish(&test);
	forget();
	use(pattern);
	source = open_source();
	for (; numbers[count] >= 0; count++) {
		cr_assert_lt(count, source->ops->records(source), "%s", pattern);
		check_record(source, count, (uint64_t)numbers[count]);
	}
	cr_assert_eq(source->ops->records(source), count, "%s", pattern);
	source->ops->destroy(source);
}

#define FINDS(pattern, ...) finds(pattern, (const int[]){__VA_ARGS__, -1})

/* As Python's glob(recursive=True) and bash's globstar: tests/python compares with the former. */
Test(source, two_stars_are_directories)
{
	static const char *const names[] = {"d/0.tf", "d/a/1.tf", "d/a/b/2.tf", "d/c/b/3.tf",
		"d/c/.hidden/4.tf", "d/c/x[*]y/5.tf", "d/c/b/.6.tf", "e/7.tf"};
	char link[SEGUE_TMPDIR_MAX];

	for (int i = 0; i < 8; i++) {
		make_directories(names[i]);
		make_file(names[i], (uint64_t)i, 1, false);
	}
	FINDS("d/**/*.tf", 0, 1, 2, 3, 5);
	FINDS("d/**/b/*.tf", 2, 3);
	FINDS("d/**/b/**/*.tf", 2, 3);
	FINDS("d/**/**/*.tf", 0, 1, 2, 3, 5);
	FINDS("d/**/2.tf", 2);
	FINDS("d/*/**/*.tf", 1, 2, 3, 5);
	FINDS("[de]/**/*.tf", 0, 1, 2, 3, 5, 7);
	FINDS("d/**", 0, 1, 2, 3, 5);
	FINDS("d/**/", 0, 1, 2, 3, 5);
	FINDS("d/**/.hidden/*.tf", 4);
	/* A link to a directory is gone through, but not one that leads back to where it is. */
	cr_assert_eq(symlink("..", segue_tmpdir_path(&dir, "d/a/up", link)), 0);
	cr_assert_eq(symlink("nowhere", segue_tmpdir_path(&dir, "d/a/lost", link)), 0);
	FINDS("d/**/*.tf", 0, 1, 2, 3, 5);
	cr_assert_eq(symlink("../e", segue_tmpdir_path(&dir, "d/f", link)), 0);
	FINDS("d/**/*.tf", 0, 1, 2, 3, 5, 7);
	segue_testspec_finish(&test);
	use("d/**/*.none");
	refused(SEGUE_ESOURCE, "nothing matches it");
}

Test(source, two_stars_within_a_name)
{
	static const char *const patterns[] = {"d**/*.tf", "**.tf", "a/**b/c", "d/x**"};

	for (size_t i = 0; i < 4; i++) {
		segue_testspec_finish(&test);
		use(patterns[i]);
		refused(SEGUE_EINVAL, "'**' stands for directories");
	}
	segue_testspec_finish(&test);
	make_file("x**y", 3, 1, false); /* a file of that name stands for itself */
	FINDS("x**y", 3);
}

Test(source, directories_without_end)
{
	char name[SEGUE_TMPDIR_MAX] = "d";

	for (int i = 0; i < 70; i++) {
		mkdir(path_of(name), 0700);
		strcat(name, "/d");
	}
	use("d/**/*.tf");
	refused(SEGUE_ELIMIT, "directories below where");
}

/* ---- Lengths --------------------------------------------------------------------------------- */

Test(source, lengths)
{
	struct segue_source_stats before, after;
	struct segue_source *source;
	const uint32_t *lengths, *again;

	make_file("a", 0, 30, false);
	make_file("b", 30, 10, false);
	use("b");
	use("a");
	use("b");
	source = open_source();
	segue_source_stats(source, &before);
	cr_assert_eq(segue_source_lengths(source, count_progress, NULL, &lengths), SEGUE_OK);
	for (uint64_t i = 0; i < 50; i++)
		cr_assert_eq(lengths[i], steps_of(i < 10 ? 30 + i : i < 40 ? i - 10 : i - 10));
	cr_assert_eq(segue_source_lengths(source, count_progress, NULL, &again), SEGUE_OK);
	cr_assert_eq(again, lengths);
	segue_source_stats(source, &after);
	cr_assert_eq(after.index_memory, before.index_memory + 50 * 4);
	source->ops->destroy(source);
	cr_assert_eq(kept_count, 3);
	/* From the keeper, without reading a record. */
	source = open_source();
	cr_assert_eq(truncate(path_of("a"), 20), 0);
	cr_assert_eq(segue_source_lengths(source, NULL, NULL, &lengths), SEGUE_OK);
	cr_assert_eq(lengths[12], steps_of(2));
	source->ops->destroy(source);
	kept[2].size--;
	make_file("a", 0, 30, false);
	source = open_source();
	cr_assert_eq(segue_source_lengths(source, NULL, NULL, &lengths), SEGUE_ESTORE);
	source->ops->destroy(source);
}

/* Lengths are kept by what records are: the same bytes may be both, and have others then. */
Test(source, lengths_of_examples)
{
	struct segue_source *source;
	const uint32_t *lengths;

	test.spec.source.tfrecord.record = SEGUE_RECORD_EXAMPLE;
	make_file("a", 0, 30, false);
	use("a");
	source = open_source();
	cr_assert_eq(segue_source_lengths(source, NULL, NULL, &lengths), SEGUE_OK);
	for (uint64_t i = 0; i < 30; i++) {
		cr_assert_eq(lengths[i], steps_of(i));
		check_record(source, i, i);
	}
	source->ops->destroy(source);
	cr_assert_eq(kept_count, 3);
	test.spec.source.tfrecord.record = SEGUE_RECORD_SEQUENCE_EXAMPLE;
	source = open_source();
	cr_assert_eq(segue_source_lengths(source, NULL, NULL, &lengths), SEGUE_EDATA);
	cr_assert(strstr(segue_error_detail(), "give TFRecord(..., record=\"example\")"), "%s",
		segue_error_detail());
	source->ops->destroy(source);
}

Test(source, lengths_of_damaged_records)
{
	struct segue_source *source;
	const uint32_t *lengths;

	make_file("a", 0, 10, false);
	flip("a", 14);
	use("a");
	source = open_source();
	cr_assert_eq(segue_source_lengths(source, NULL, NULL, &lengths), SEGUE_EDATA);
	cr_assert(strstr(segue_error_detail(), "/a: record at byte 0: "));
	source->ops->destroy(source);
	test.spec.on_error = SEGUE_ON_ERROR_SKIP;
	source = open_source();
	cr_assert_eq(segue_source_lengths(source, NULL, NULL, &lengths), SEGUE_OK);
	cr_assert_eq(lengths[0], 0);
	for (uint64_t i = 1; i < 10; i++)
		cr_assert_eq(lengths[i], steps_of(i));
	source->ops->destroy(source);
	/* Records that are whole and do not fit are not passed over: other rules, another name. */
	test.spec.pad = false;
	test.spec.num_unroll = 4;
	source = open_source();
	cr_assert_eq(segue_source_lengths(source, NULL, NULL, &lengths), SEGUE_EDATA);
	cr_assert(strstr(segue_error_detail(), "no multiple of num_unroll = 4"));
	source->ops->destroy(source);
}

/* ---- Many ------------------------------------------------------------------------------------ */

static size_t open_descriptors(void)
{
	DIR *list = opendir("/proc/self/fd");
	size_t count = 0;

	while (readdir(list))
		count++;
	closedir(list);
	return count;
}

/* Of 200 files, so many are kept open. */
static void check_descriptors(rlim_t limit, size_t expected)
{
	struct segue_source_stats stats;
	struct segue_source *source;
	size_t before;

	segue_test_limit_descriptors(limit);
	for (uint64_t i = 0; i < 200; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%03d", (int)i);
		make_file(name, i, 1, false);
	}
	use("f*");
	before = open_descriptors();
	source = open_source();
	for (uint64_t turn = 0; turn < 1000; turn++)
		check_record(source, turn * 77 % 200, turn * 77 % 200);
	cr_assert_eq(open_descriptors(), before + expected);
	segue_source_stats(source, &stats);
	cr_assert_eq(stats.descriptors, expected);
	source->ops->destroy(source);
	cr_assert_eq(open_descriptors(), before);
}

Test(source, many_files_few_descriptors)
{
	check_descriptors(48, 4);
}

Test(source, many_files_some_descriptors)
{
	check_descriptors(1024, 64);
}

Test(source, as_many_descriptors_as_files)
{
	struct rlimit limit;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_max < 64 * 200)
		cr_skip("the limit on open files (ulimit -Hn) is below 12,800");
	check_descriptors(64 * 200, 200);
}

struct worker {
	pthread_t thread;
	struct segue_source *source;
	uint64_t seed;
	bool wrong;
};

/* No assertions here: they are for the test's own thread. */
static void *work(void *arg)
{
	struct worker *worker = arg;

	for (uint64_t turn = 0; turn < 2000; turn++) {
		uint64_t number = (worker->seed += 41) % 100;
		struct segue_admitted admitted;
		struct segue_record *record;
		float x[3];

		if (worker->source->ops->admit(worker->source, number, &record, &admitted) < 0)
			worker->wrong = true;
		else if (admitted.array_steps != steps_of(number) ||
			 record->ops->read(record, 0, 1, x) < 0 || x[0] != value_x(number, 0, 0))
			worker->wrong = true;
		else
			record->ops->release(record);
	}
	return NULL;
}

Test(source, several_threads)
{
	struct worker workers[4];
	struct segue_source *source;

	for (uint64_t i = 0; i < 100; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%03d", (int)i);
		make_file(name, i, 1, i % 10 == 0);
	}
	use("f*");
	source = open_source();
	for (uint64_t i = 0; i < 4; i++) {
		workers[i] = (struct worker){.source = source, .seed = 13 * i};
		cr_assert_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (size_t i = 0; i < 4; i++) {
		pthread_join(workers[i].thread, NULL);
		cr_assert_not(workers[i].wrong);
	}
	source->ops->destroy(source);
}
