/*
 * A log as a source: what was inserted is read while more is inserted, by any windows, from files
 * that grow, are finished, and are given up.
 */
#include "source/log/reading.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lane/plan.h"
#include "logwork.h"
#include "testspec.h"
#include "tmpdir.h"
#include "core/error.h"

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, segue_error_detail())

enum {
	LONG = 6000, /* steps of a sequence that is not read whole */
	MORE = 100,
	FILE_BYTES = 30000
};

static struct segue_tmpdir tmp;
static char dir[SEGUE_TMPDIR_MAX];
static struct segue_testspec test;
static struct segue_field states[2];
static struct segue_log *segue_log;
static struct segue_source *source;
static uint64_t seed;

static uint64_t below(uint64_t most)
{
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (seed >> 33) % most;
}

static void open_source(enum segue_on_error on_error)
{
	if (source)
		source->ops->destroy(source);
	test.spec.on_error = on_error;
	OK(segue_log_source_create(&test.spec, segue_log, &source));
}

static void begin(void)
{
	const char *text = getenv("SEGUE_TEST_SEED");
	struct segue_seqfile_head head;

	seed = (uint64_t)getpid();
	if (text)
		seed = strtoull(text, NULL, 10);
	fprintf(stderr, "log_source: SEGUE_TEST_SEED=%" PRIu64 "\n", seed);
	segue_tmpdir_make(&tmp, "logsource");
	segue_tmpdir_path(&tmp, "log", dir);
	segue_testspec_init(&test);
	segue_testspec_sequence(&test, "x", SEGUE_FLOAT32, 3);
	segue_testspec_context(&test, "who", SEGUE_UINT64, 1);
	test.contexts[0].rank = 0;
	states[0] = (struct segue_field){.name = "same", .dtype = SEGUE_FLOAT32, .size = 4};
	states[1] = (struct segue_field){.name = "h",
		.dtype = SEGUE_FLOAT32,
		.rank = 1,
		.dims = {20},
		.size = 80,
		.from_data = true};
	test.spec.states = states;
	test.spec.state_count = 2;
	test.spec.num_unroll =
		3000; /* windows long enough that long sequences are not read whole */
	test.spec.pad = true;
	OK(segue_insert_fields(&test.spec, &head));
	const struct segue_log_means means = {
		.dir = dir, .fields = head.fields, .count = head.count, .file_bytes = FILE_BYTES};
	OK(segue_log_create(&means, (const uint8_t *)"of test_logsource", &segue_log));
	segue_seqfile_free_head(&head);
	open_source(SEGUE_ON_ERROR_RAISE);
}

static void end(void)
{
	source->ops->destroy(source);
	segue_log_close(segue_log);
	segue_testspec_finish(&test);
	segue_tmpdir_remove(&tmp);
}

TestSuite(log_source, .init = begin, .fini = end, .timeout = 60);

static void append(uint64_t number, uint64_t steps)
{
	const struct segue_logwork work = {
		.what = number, .serial = number + 1, .producer = "a", .steps = steps};
	uint64_t got;

	OK(segue_logwork_append(segue_log, &work, &got));
	cr_assert_eq(got, number);
}

/* Reads it by windows of any size, forwards and after a jump; beside it as the log itself has it. */
static void compare(struct segue_record *record, uint64_t number, uint64_t array_steps)
{
	struct segue_log_entry *entry;
	uint8_t window[(LONG + MORE) * 12], context[8], initial[80];
	uint64_t at = 0;
	size_t size;

	OK(segue_log_read(segue_log, number, &entry));
	cr_assert_eq(array_steps, entry->entry.steps);
	const char *key = record->ops->key(record, &size);
	cr_assert_eq(size, entry->entry.key_size);
	cr_assert_arr_eq(key, entry->entry.key, size);
	OK(record->ops->seek(record, 0));
	for (int turns = 0; at < array_steps && turns < 40; turns++) {
		uint64_t most = array_steps - at, steps = 1 + below(most);

		OK(record->ops->read(record, 0, steps, window));
		cr_assert_arr_eq(window, entry->bytes + entry->column[0] + at * 12, steps * 12,
			"steps %" PRIu64 " of %" PRIu64, at, number);
		at += steps;
		if (below(5) == 0)
			OK(record->ops->seek(record, at = below(array_steps)));
	}
	OK(record->ops->context(record, 0, context));
	cr_assert_arr_eq(context, entry->bytes + entry->column[1], 8);
	OK(record->ops->initial(record, 1, initial));
	cr_assert_arr_eq(initial, entry->bytes + entry->column[2], 80);
	segue_log_entry_free(entry);
}

static void expect_same(uint64_t number)
{
	struct segue_admitted admitted;
	struct segue_record *record;

	OK(segue_source_admit(source, number, &record, &admitted));
	cr_assert_eq(admitted.total_length, admitted.array_steps);
	compare(record, number, admitted.array_steps);
	record->ops->release(record);
}

Test(log_source, has_the_fields_of_the_spec)
{
	struct segue_seqfile_head head;

	OK(segue_insert_fields(&test.spec, &head));
	cr_assert_eq(head.count, SEGUE_LOGWORK_FIELDS);
	for (uint32_t i = 0; i < head.count; i++) {
		cr_assert_str_eq(head.fields[i].name, segue_logwork_fields[i].name);
		cr_assert_eq(head.fields[i].place, segue_logwork_fields[i].place);
		cr_assert_eq(head.fields[i].size, segue_logwork_fields[i].size);
	}
	segue_seqfile_free_head(&head);
}

Test(log_source, reads_what_is_there_and_waits_for_the_rest)
{
	struct segue_admitted admitted;
	struct segue_record *record;
	struct segue_source_stats stats = {0};
	const uint32_t *lengths;

	for (uint64_t n = 0; n < 60; n++) {
		cr_assert_eq(segue_source_admit(source, n, &record, &admitted), SEGUE_ENOTYET);
		append(n, below(4) == 0 ? LONG + below(MORE) : 0);
		expect_same(n);
		expect_same(below(n + 1));
		if (below(10) == 0)
			OK(segue_log_sync(segue_log));
	}
	segue_source_stats(source, &stats);
	cr_assert_eq(stats.records, 60);
	cr_assert_gt(stats.files, 3);
	cr_assert_eq(source->ops->records(source), SEGUE_PLAN_LIVE);
	OK(segue_log_finish(segue_log));
	segue_log_source_end(source, 60);
	cr_assert_eq(source->ops->records(source), 60);
	OK(segue_source_lengths(source, NULL, NULL, &lengths));
	for (uint64_t n = 0; n < 60; n++) {
		expect_same(n);
		OK(segue_source_admit(source, n, &record, &admitted));
		cr_assert_eq(lengths[n], admitted.array_steps);
		record->ops->release(record);
	}
}

Test(log_source, what_is_given_up_stays_with_who_reads_it)
{
	struct segue_admitted admitted;
	struct segue_record *reading, *record;
	uint8_t before[LONG * 12], after[LONG * 12];

	for (uint64_t n = 0; n < 6; n++)
		append(n, LONG);
	struct segue_source_stats stats = {0};
	OK(segue_source_admit(source, 0, &reading, &admitted));
	OK(segue_source_admit(source, 0, &record, &admitted));
	segue_source_stats(source, &stats);
	cr_assert_eq(stats.descriptors, 1, "records share what is open");
	record->ops->release(record);
	OK(reading->ops->read(reading, 0, LONG, before));
	OK(segue_log_sync(segue_log));
	OK(segue_log_give_up(segue_log, 4));
	OK(reading->ops->seek(reading, 0));
	OK(reading->ops->read(reading, 0, LONG, after));
	cr_assert_arr_eq(before, after, sizeof(before));
	reading->ops->release(reading);
	cr_assert_eq(segue_source_admit(source, 0, &record, &admitted), SEGUE_ESOURCE);
	cr_assert(strstr(segue_error_detail(), "was given up: the first that is left is 4"), "%s",
		segue_error_detail());
	expect_same(4);
}

/* In the middle of the file that has the sequence, which is its only one. */
static void change_byte(uint64_t number)
{
	char path[SEGUE_TMPDIR_MAX + 40];
	uint8_t byte;

	cr_assert_eq(segue_log_floor(segue_log, number), number);
	snprintf(path, sizeof(path), "%s/%020" PRIu64 ".segue", dir, number);
	FILE *file = fopen(path, "r+");
	cr_assert(file && fseek(file, 0, SEEK_END) == 0);
	long middle = ftell(file) / 2;
	cr_assert(fseek(file, middle, SEEK_SET) == 0 && fread(&byte, 1, 1, file));
	byte ^= 0x10;
	cr_assert(fseek(file, middle, SEEK_SET) == 0 && fwrite(&byte, 1, 1, file));
	fclose(file);
}

Test(log_source, what_is_damaged_is_named_or_passed_over)
{
	static uint8_t window[LONG * 12];
	struct segue_admitted admitted;
	struct segue_record *record;

	append(0, FILE_BYTES / 12); /* small: read whole */
	append(1, LONG);
	append(2, 1);
	change_byte(0);
	change_byte(1);
	cr_assert_eq(segue_source_admit(source, 0, &record, &admitted), SEGUE_EDATA);
	cr_assert(strstr(segue_error_detail(), ".segue: sequence 0 (at byte "), "%s",
		segue_error_detail());
	OK(segue_source_admit(source, 1, &record, &admitted)); /* its header is sound */
	cr_assert_eq(record->ops->read(record, 0, LONG, window), SEGUE_EDATA);
	cr_assert(strstr(segue_error_detail(), ".segue: sequence 1 (at byte "), "%s",
		segue_error_detail());
	record->ops->release(record);
	open_source(SEGUE_ON_ERROR_SKIP);
	for (uint64_t n = 0; n < 2; n++)
		cr_assert_eq(
			segue_source_admit(source, n, &record, &admitted), SEGUE_SOURCE_SKIPPED);
	expect_same(2);
}

/* ---- While it is written -------------------------------------------------------------------- */

enum { MANY = 400, READERS = 2 };

static void *read_all(void *arg)
{
	struct segue_admitted admitted;
	struct segue_record *record;

	for (uint64_t n = 0; n < MANY;) {
		int rc = segue_source_admit(source, n, &record, &admitted);
		if (rc == SEGUE_ENOTYET) {
			usleep(100);
			continue;
		}
		cr_assert_eq(rc, 0, "%s", segue_error_detail());
		record->ops->release(record);
		atomic_fetch_add((_Atomic uint64_t *)arg, admitted.array_steps);
		n++;
	}
	return NULL;
}

Test(log_source, is_read_by_many_while_it_is_written)
{
	_Atomic uint64_t steps[READERS] = {0};
	pthread_t thread[READERS];
	uint64_t inserted = 0;

	for (int i = 0; i < READERS; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, read_all, &steps[i]), 0);
	for (uint64_t n = 0; n < MANY; n++) {
		uint64_t one = n % 50 == 7 ? LONG : 1 + below(300);
		append(n, one);
		inserted += one;
	}
	for (int i = 0; i < READERS; i++) {
		pthread_join(thread[i], NULL);
		cr_assert_eq(steps[i], inserted);
	}
}
