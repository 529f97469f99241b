/*
 * The source of arrays: what lies in a file comes back, wherever and however it lies there; files
 * that are cut, gone, replaced or too short are errors that name them; checksums see every change.
 */
#include "source/kinds.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/error.h"
#include "descriptors.h"
#include "testspec.h"
#include "tmpdir.h"

#define STEPS  50000 /* of x: 586 KiB, of which samples are taken */
#define HEADER 100

static struct segue_tmpdir dir;
static struct segue_testspec test;
static char path[SEGUE_TMPDIR_MAX], other_path[SEGUE_TMPDIR_MAX];

/* ---- What is kept ---------------------------------------------------------------------------- */

static struct kept {
	char name[SEGUE_KEPT_NAME_SIZE];
	void *bytes;
	size_t size;
} kept[8];

static int keep_load(void *arg, const char *name, void **bytes, size_t *size)
{
	(void)arg;
	for (size_t i = 0; i < 8 && kept[i].bytes; i++)
		if (strcmp(kept[i].name, name) == 0) {
			*size = kept[i].size;
			*bytes = malloc(*size);
			memcpy(*bytes, kept[i].bytes, *size);
			return 0;
		}
	return SEGUE_ENOTFOUND;
}

static int keep_save(void *arg, const char *name, const void *bytes, size_t size)
{
	size_t i = 0;

	(void)arg;
	while (kept[i].bytes)
		i++;
	strcpy(kept[i].name, name);
	kept[i].bytes = malloc(size);
	kept[i].size = size;
	memcpy(kept[i].bytes, bytes, size);
	return 0;
}

static const struct segue_index_keeper keeper = {NULL, keep_load, keep_save};
static const struct segue_source_means means = {.keeper = &keeper};

/* ---- Files ----------------------------------------------------------------------------------- */

static float value_x(uint64_t step, uint64_t i)
{
	return (float)(step * 3 + i) / 4;
}

static void write_x(const char *name, uint64_t steps, float first)
{
	FILE *file = fopen(name, "wbe");
	char header[HEADER] = {0};

	cr_assert_not_null(file);
	fwrite(header, 1, sizeof(header), file);
	for (uint64_t step = 0; step < steps; step++)
		for (uint64_t i = 0; i < 3; i++) {
			float value = step + i ? value_x(step, i) : first;

			fwrite(&value, sizeof(value), 1, file);
		}
	fclose(file);
}

/* int16, big-endian, 10 bytes apart. */
static void write_y(const char *name, uint64_t steps)
{
	FILE *file = fopen(name, "wbe");

	cr_assert_not_null(file);
	for (uint64_t step = 0; step < steps; step++) {
		uint8_t bytes[10] = {(uint8_t)(step >> 8), (uint8_t)step};

		fwrite(bytes, 1, sizeof(bytes), file);
	}
	fclose(file);
}

static void overwrite(uint64_t at, uint8_t byte)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	cr_assert_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

/* x float32 [3] and y float64 (of int16): one group, three sequences. */
static void set_index(uint64_t offset)
{
	const struct segue_array arrays[] = {
		{.offset = offset, .dtype = SEGUE_FLOAT32},
		{.file = 1, .dtype = SEGUE_INT16, .big_endian = true, .stride = 10},
	};
	const struct segue_array_sequence sequences[] = {
		{0, 0, 10}, {10, 0, STEPS - 15}, {STEPS - 5, 0, 5}};
	const struct segue_array_column columns[] = {{.rank = 1, .dims = {3}}, {.rank = 0}};
	const struct segue_arrays asked = {
		.paths = (const char *const *)test.spec.source.arrays.paths.path,
		.path_count = 2,
		.group_steps = (uint64_t[]){STEPS},
		.group_count = 1,
		.arrays = arrays,
		.sequences = sequences,
		.sequence_count = 3,
	};

	segue_array_index_drop(test.spec.source.arrays.index);
	cr_assert_eq(segue_array_index_pack(&asked, columns, 2, &test.spec.source.arrays.index),
		SEGUE_OK, "%s", segue_error_detail());
}

static void setup(void)
{
	segue_tmpdir_make(&dir, "arraysource");
	segue_tmpdir_path(&dir, "x*", path); /* no pattern */
	segue_tmpdir_path(&dir, "y", other_path);
	write_x(path, STEPS, 0);
	write_y(other_path, STEPS);
	segue_testspec_init(&test);
	test.spec.source.kind = SEGUE_SOURCE_ARRAYS;
	test.spec.persist = true;
	segue_testspec_sequence(&test, "x", SEGUE_FLOAT32, 3);
	segue_testspec_sequence(&test, "y", SEGUE_FLOAT64, 1);
	segue_testspec_path(&test, path);
	segue_testspec_path(&test, other_path);
	set_index(HEADER);
}

static void teardown(void)
{
	segue_array_index_drop(test.spec.source.arrays.index);
	segue_testspec_finish(&test);
	segue_tmpdir_remove(&dir);
	for (size_t i = 0; i < 8; i++)
		free(kept[i].bytes);
}

TestSuite(array_source, .init = setup, .fini = teardown);

/* ---- Reading --------------------------------------------------------------------------------- */

static struct segue_source *open_source(void)
{
	struct segue_source *source;

	cr_assert_eq(segue_source_driver(&test.spec)->open(&test.spec, &means, &source), SEGUE_OK,
		"%s", segue_error_detail());
	return source;
}

static void is_error(int rc, int code, const char *text)
{
	cr_assert_eq(rc, code, "%d instead of %d (%s): %s", rc, code, text, segue_error_detail());
	cr_assert(strstr(segue_error_detail(), text), "'%s' is not in '%s'", text,
		segue_error_detail());
}

static void refused(int code, const char *text)
{
	struct segue_source *source;

	is_error(segue_source_driver(&test.spec)->open(&test.spec, &means, &source), code, text);
}

static int read_steps(struct segue_record *record, uint64_t first, uint64_t at, uint64_t count)
{
	float *x = malloc(3 * count * sizeof(float));
	double *y = malloc(count * sizeof(double));
	int rc = record->ops->seek(record, at);

	if (!rc)
		rc = record->ops->read(record, 0, count, x);
	if (!rc)
		rc = record->ops->read(record, 1, count, y);
	for (uint64_t k = 0; !rc && k < count; k++) {
		for (uint64_t i = 0; i < 3; i++)
			cr_assert_eq(x[3 * k + i], value_x(first + at + k, i));
		cr_assert_eq(y[k], (double)(int16_t)(uint16_t)(first + at + k));
	}
	free(x);
	free(y);
	return rc;
}

static int read_sequence(struct segue_source *source, uint64_t number, uint64_t window)
{
	const struct segue_array_sequence *is = &test.spec.source.arrays.index->sequence[number];
	struct segue_admitted admitted;
	struct segue_record *record;
	char key[64];
	size_t size;
	int rc = source->ops->admit(source, number, &record, &admitted);

	if (rc)
		return rc;
	cr_assert(admitted.array_steps == is->steps && admitted.total_length == is->steps);
	snprintf(key, sizeof(key), "x*:%ju", (uintmax_t)is->first);
	const char *has = record->ops->key(record, &size);
	cr_assert(size == strlen(key) && memcmp(has, key, size) == 0, "%.*s", (int)size, has);
	cr_assert_leq(size, source->ops->key_max(source));
	for (uint64_t at = 0, n; !rc && at < is->steps; at += n) {
		n = is->steps - at < window ? is->steps - at : window;
		rc = read_steps(record, is->first, at, n);
	}
	record->ops->release(record);
	return rc;
}

Test(array_source, what_lies_there_comes_back)
{
	for (int checksum = 0; checksum < 2; checksum++) {
		test.spec.source.arrays.checksum = checksum;
		struct segue_source *source = open_source();
		const uint32_t *lengths;

		cr_assert_eq(source->ops->records(source), 3);
		for (uint64_t i = 0; i < 3; i++) {
			cr_assert_eq(read_sequence(source, i, 7), SEGUE_OK);
			cr_assert_eq(read_sequence(source, i, 9000), SEGUE_OK);
			cr_assert_eq(read_sequence(source, i, STEPS), SEGUE_OK);
		}
		cr_assert_eq(segue_source_lengths(source, NULL, NULL, &lengths), SEGUE_OK);
		cr_assert(lengths[0] == 10 && lengths[1] == STEPS - 15 && lengths[2] == 5);
		source->ops->destroy(source);
	}
}

Test(array_source, arrays_end_where_their_file_does)
{
	set_index(HEADER + 1);
	refused(SEGUE_EDATA, "would end at byte 600101");
	set_index(UINT64_C(1) << 61);
	refused(SEGUE_EDATA, "x*: has 600100 bytes");
	unlink(path);
	refused(SEGUE_ESOURCE, path);
}

Test(array_source, a_file_that_is_cut_is_an_error)
{
	struct segue_source *source = open_source();

	cr_assert_eq(read_sequence(source, 2, 5), SEGUE_OK);
	cr_assert_eq(truncate(path, HEADER + 12 * (STEPS - 2)), 0);
	is_error(read_sequence(source, 2, 5), SEGUE_ECHANGED, "was it cut off?");
	cr_assert(strstr(segue_error_detail(), path));
	cr_assert_eq(read_sequence(source, 0, 5), SEGUE_OK, "the rest is there");
	source->ops->destroy(source);
}

Test(array_source, other_files_are_other_data)
{
	struct segue_source *source = open_source();
	struct segue_source_stats was, is;

	segue_source_stats(source, &was);
	source->ops->destroy(source);
	source = open_source();
	segue_source_stats(source, &is);
	cr_assert_eq(memcmp(was.fingerprint, is.fingerprint, 16), 0, "the same");
	source->ops->destroy(source);
	overwrite(HEADER + 3, 77); /* in the first block */
	source = open_source();
	segue_source_stats(source, &is);
	cr_assert_neq(memcmp(was.fingerprint, is.fingerprint, 16), 0);
	is_error(source->ops->explain_change(source, was.fingerprint), SEGUE_ECHANGED,
		"x*: as many bytes as before, but other ones");
	source->ops->destroy(source);
	write_x(path, STEPS, 0);
	write_y(other_path, STEPS + 1);
	source = open_source();
	is_error(
		source->ops->explain_change(source, was.fingerprint), SEGUE_ECHANGED, "bytes, had");
	source->ops->destroy(source);
}

/* Every descriptor is in use for other files, so that this one is opened again. */
static void open_others(void)
{
	/* Fewer files stay open than there are, whatever `ulimit -n` is. */
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){256, 256}), 0);
	for (size_t i = 0; i < 100; i++) {
		char name[32], other[SEGUE_TMPDIR_MAX];

		snprintf(name, sizeof(name), "z%zu", i);
		write_y(segue_tmpdir_path(&dir, name, other), 1);
		segue_testspec_path(&test, other);
	}
	struct segue_array arrays[102] = {{.offset = HEADER, .dtype = SEGUE_FLOAT32},
		{.file = 1, .dtype = SEGUE_INT16, .big_endian = true, .stride = 10}};
	struct segue_array all[202];
	struct segue_array_sequence sequences[101] = {{0, 0, 10}};
	uint64_t steps[101] = {STEPS};

	memcpy(all, arrays, 2 * sizeof(arrays[0]));
	for (uint32_t i = 1; i <= 100; i++) {
		steps[i] = 1;
		sequences[i] = (struct segue_array_sequence){0, i, 1};
		all[2 * i] = (struct segue_array){.offset = HEADER, .dtype = SEGUE_FLOAT32};
		all[2 * i + 1] = (struct segue_array){
			.file = 1 + i, .dtype = SEGUE_INT16, .big_endian = true};
	}
	const struct segue_array_column columns[] = {{.rank = 1, .dims = {3}}, {.rank = 0}};
	const struct segue_arrays asked = {.path_count = 102,
		.group_steps = steps,
		.group_count = 101,
		.arrays = all,
		.sequences = sequences,
		.sequence_count = 101};

	segue_array_index_drop(test.spec.source.arrays.index);
	cr_assert_eq(segue_array_index_pack(&asked, columns, 2, &test.spec.source.arrays.index),
		SEGUE_OK, "%s", segue_error_detail());
}

static int read_others(struct segue_source *source)
{
	int rc = 0;

	for (uint64_t i = 1; !rc && i <= 100; i++) {
		struct segue_admitted admitted;
		struct segue_record *record;
		double y;

		cr_assert_eq(source->ops->admit(source, i, &record, &admitted), SEGUE_OK);
		rc = record->ops->read(record, 1, 1, &y);
		record->ops->release(record);
	}
	return rc;
}

Test(array_source, a_file_that_is_replaced_or_gone_is_an_error)
{
	char aside[SEGUE_TMPDIR_MAX];

	segue_test_limit_descriptors(1024); /* then 64 are kept open */
	segue_tmpdir_path(&dir, "aside", aside);
	open_others();
	struct segue_source *source = open_source();
	cr_assert_eq(read_sequence(source, 0, 10), SEGUE_OK);
	cr_assert_eq(read_others(source), SEGUE_OK);
	/* The same content under the same name is the same file. */
	rename(path, aside);
	write_x(path, STEPS, 0);
	cr_assert_eq(read_sequence(source, 0, 10), SEGUE_OK, "%s", segue_error_detail());
	cr_assert_eq(read_others(source), SEGUE_OK);
	unlink(path);
	write_x(path, STEPS, 9);
	is_error(read_sequence(source, 0, 10), SEGUE_ECHANGED,
		"holds something else than when the stream was opened");
	unlink(path);
	is_error(read_sequence(source, 0, 10), SEGUE_ESOURCE, path);
	write_x(path, STEPS - 1, 0);
	is_error(read_sequence(source, 0, 10), SEGUE_ECHANGED, "bytes, had");
	unlink(path);
	rename(aside, path);
	cr_assert_eq(read_sequence(source, 0, 10), SEGUE_OK, "%s", segue_error_detail());
	source->ops->destroy(source);
}

/* Twice within one step of the file system's clock, as often as not. */
Test(array_source, a_file_that_is_changed_and_changed_again_is_an_error)
{
	open_others();
	struct segue_source *source = open_source();

	for (int turn = 0; turn < 20; turn++) {
		cr_assert_eq(read_others(source), SEGUE_OK);
		write_x(path, STEPS, 0);
		cr_assert_eq(read_sequence(source, 0, 10), SEGUE_OK);
		cr_assert_eq(read_others(source), SEGUE_OK);
		write_x(path, STEPS, 9);
		is_error(read_sequence(source, 0, 10), SEGUE_ECHANGED,
			"holds something else than when the stream was opened");
	}
	source->ops->destroy(source);
}

Test(array_source, checksums_see_every_change)
{
	struct segue_source_stats was, is;
	uint64_t at = HEADER + 12 * 24000 + 5; /* between two samples */

	test.spec.source.arrays.checksum = true;
	struct segue_source *source = open_source();
	segue_source_stats(source, &was);
	overwrite(at, 201);
	is_error(read_sequence(source, 1, 500), SEGUE_ECHANGED,
		"are not what they were when the stream was made");
	cr_assert_eq(read_sequence(source, 0, 5), SEGUE_OK);
	source->ops->destroy(source);
	source = open_source(); /* they are kept */
	segue_source_stats(source, &is);
	cr_assert_eq(memcmp(was.fingerprint, is.fingerprint, 16), 0, "no sample has seen it");
	is_error(read_sequence(source, 1, 500), SEGUE_ECHANGED, "bytes ");
	source->ops->destroy(source);
}

/* Only of what the store has: else each opening with another index would leave one there. */
Test(array_source, nothing_is_kept_of_a_volatile_stream)
{
	test.spec.persist = false;
	test.spec.source.arrays.checksum = true;
	struct segue_source *source = open_source();

	cr_assert_eq(read_sequence(source, 1, 500), SEGUE_OK);
	source->ops->destroy(source);
	cr_assert_null(kept[0].bytes);
}

/* They are opened to say how they differ; each would leave its index in the store. */
Test(array_source, nothing_is_kept_of_data_that_are_refused)
{
	uint64_t fingerprint[2] = {0, 0};
	const struct segue_source_means again = {.keeper = &keeper, .fingerprint = fingerprint};
	struct segue_source_stats stats;
	struct segue_source *source;

	test.spec.source.arrays.checksum = true;
	cr_assert_eq(segue_source_driver(&test.spec)->open(&test.spec, &again, &source), SEGUE_OK);
	segue_source_stats(source, &stats);
	cr_assert_eq(source->ops->explain_change(source, fingerprint), SEGUE_ECHANGED);
	source->ops->destroy(source);
	cr_assert_null(kept[0].bytes);
	memcpy(fingerprint, stats.fingerprint, sizeof(fingerprint));
	cr_assert_eq(segue_source_driver(&test.spec)->open(&test.spec, &again, &source), SEGUE_OK);
	cr_assert_eq(read_sequence(source, 1, 500), SEGUE_OK);
	source->ops->destroy(source);
	cr_assert_not_null(kept[1].bytes, "its own: the index, and checksums");
}

Test(array_source, a_bool_is_0_or_1)
{
	struct segue_admitted admitted;
	struct segue_record *record;
	uint8_t values[6];

	segue_array_index_drop(test.spec.source.arrays.index);
	segue_testspec_finish(&test);
	segue_testspec_init(&test);
	test.spec.source.kind = SEGUE_SOURCE_ARRAYS;
	segue_testspec_sequence(&test, "b", SEGUE_BOOL, 1);
	segue_testspec_path(&test, path);
	const struct segue_array_column column = {.rank = 0};
	const struct segue_arrays asked = {.path_count = 1,
		.group_steps = (uint64_t[]){6},
		.group_count = 1,
		.arrays = &(struct segue_array){.dtype = SEGUE_BOOL},
		.sequences = &(struct segue_array_sequence){0, 0, 6},
		.sequence_count = 1};
	cr_assert_eq(segue_array_index_pack(&asked, &column, 1, &test.spec.source.arrays.index), 0);
	struct segue_source *source = open_source();
	cr_assert_eq(source->ops->admit(source, 0, &record, &admitted), SEGUE_OK);
	cr_assert_eq(record->ops->read(record, 0, 6, values), SEGUE_OK);
	overwrite(4, 2);
	record->ops->seek(record, 0);
	is_error(record->ops->read(record, 0, 6, values), SEGUE_EDATA, "neither 0 nor 1");
	record->ops->release(record);
	source->ops->destroy(source);
}
