/* What the store holds of logs: comes back as it was, goes with its stream, and nothing is guessed. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/wire.h"
#include "report/contents.h"
#include "sample_spec.h"
#include "store/drop.h"
#include "store/logs.h"
#include "tmpdir.h"

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, segue_error_detail())

static struct segue_tmpdir tmp;
static char dir[SEGUE_TMPDIR_MAX];
static struct segue_store *store;

static void begin(void)
{
	segue_tmpdir_make(&tmp, "stored_log");
	segue_tmpdir_path(&tmp, "store", dir);
	OK(segue_store_open(dir, SEGUE_STORE_SERVE, &store));
}

static void end(void)
{
	segue_store_close(store);
	segue_tmpdir_remove(&tmp);
}

TestSuite(stored_log, .init = begin, .fini = end, .timeout = 60);

static const struct segue_log_known some = {
	.id = "sixteen bytes..", .first = 100, .synced = {.number = 250, .hash = {7, UINT64_MAX}}};

static void apply(struct segue_ops *ops)
{
	OK(segue_store_apply(store, ops->op, ops->count));
	segue_ops_finish(ops);
}

static void put_known(uint32_t stream, const struct segue_log_known *known)
{
	struct segue_ops ops = {0};

	OK(segue_logs_put_known(&ops, stream, known));
	apply(&ops);
}

static void put_end(uint32_t stream, uint64_t count, bool ended, uint32_t names)
{
	struct segue_log_end what = {.count = count,
		.ended = ended,
		.closed = calloc(names + 1, sizeof(*what.closed)),
		.closed_count = names};
	struct segue_ops ops = {0};

	for (uint32_t i = 0; i < names; i++)
		snprintf(what.closed[i], sizeof(what.closed[i]), "producer %u", i);
	OK(segue_logs_put_end(&ops, stream, &what));
	apply(&ops);
	segue_log_end_finish(&what);
}

/* As a damaged store, or one of a later version, would have it under the log of stream 5. */
static void put_raw(const char *name, const void *value, size_t size)
{
	char key[SEGUE_STORE_KEY_MAX];
	struct segue_ops ops = {0};

	snprintf(key, sizeof(key), "log.00000005.%s", name);
	OK(segue_ops_put_copy(&ops, SEGUE_TABLE_META, key, strlen(key), value, size));
	apply(&ops);
}

static void expect_refused(const char *says)
{
	struct segue_stored_log log;

	cr_expect_eq(segue_logs_load(store, 5, &log), SEGUE_ESTORE, "%s", says);
	cr_expect(strstr(segue_error_detail(), "the log of stream 5"), "%s", segue_error_detail());
	cr_expect(strstr(segue_error_detail(), says), "%s: %s", says, segue_error_detail());
}

Test(stored_log, comes_back_as_it_was)
{
	struct segue_stored_log log;

	cr_assert_eq(segue_logs_load(store, 5, &log), SEGUE_ENOTFOUND);
	put_known(5, &some);
	put_known(50, &some);
	OK(segue_logs_load(store, 5, &log));
	cr_assert_arr_eq(&log.known, &some, sizeof(some));
	cr_assert(!log.some && !log.end.ended && log.end.closed_count == 0);
	for (uint32_t names = 0; names <= SEGUE_SEQLOG_PRODUCERS_MAX;
		names += SEGUE_SEQLOG_PRODUCERS_MAX / 2) {
		put_end(5, 250, names > 0, names);
		OK(segue_logs_load(store, 5, &log));
		cr_assert(log.some && log.end.count == 250 && log.end.ended == (names > 0));
		cr_assert_eq(log.end.closed_count, names);
		for (uint32_t i = 0; i < names; i++) {
			char name[32];
			snprintf(name, sizeof(name), "producer %u", i);
			cr_assert_str_eq(log.end.closed[i], name);
		}
		segue_stored_log_finish(&log);
	}
	OK(segue_logs_load(store, 50, &log));
	cr_assert(!log.some, "another stream's");
	cr_assert_eq(segue_logs_load(store, 0x500, &log), SEGUE_ENOTFOUND);
}

Test(stored_log, what_does_not_go_together_is_refused)
{
	struct segue_log_known wrong = some;
	struct segue_ops ops = {0};

	put_end(5, 1, false, 1);
	expect_refused("it has an end, and nothing else");
	put_known(5, &some);
	put_end(5, 251, true, 0);
	expect_refused("closed after 251 sequences, and 250 are known");
	put_end(5, 250, true, SEGUE_SEQLOG_PRODUCERS_MAX + 1);
	expect_refused("number of closed producers");
	put_end(5, 250, true, 0);
	wrong.first = 251;
	put_known(5, &wrong);
	expect_refused("sequences below 251 are given up, of 250");
	OK(segue_logs_remove(&ops, 5));
	apply(&ops);
	put_known(5, &some);
	put_raw("later", "x", 1);
	expect_refused("there is 'later'");
}

Test(stored_log, what_is_damaged_is_refused)
{
	static const uint8_t required[] = {0x78, 0x01}, end_without_text[] = {0x1a, 0x00};
	struct segue_stored_log log;
	void *value;
	size_t size;

	put_known(5, &some);
	OK(segue_logs_load(store, 5, &log));
	OK(segue_log_known_pack(&some, &value, &size));
	uint8_t *longer = malloc(size + sizeof(required));
	memcpy(longer, value, size);
	memcpy(longer + size, required, sizeof(required));
	put_raw("known", longer, size + sizeof(required));
	cr_assert_eq(segue_logs_load(store, 5, &log), SEGUE_EFORMAT);
	cr_assert(strstr(segue_error_detail(), "does not know (bits 0x1)"));
	put_raw("known", longer, 0);
	expect_refused("id");
	/* Cut anywhere: refused, or what is left says less, but never what was not written. */
	for (size_t i = 0; i < size; i++) {
		put_raw("known", value, i);
		if (segue_logs_load(store, 5, &log) == 0)
			cr_assert_arr_eq(log.known.id, some.id, sizeof(some.id));
	}
	free(longer);
	free(value);
	put_known(5, &some);
	put_raw("end", end_without_text, sizeof(end_without_text));
	expect_refused("name of a closed producer is empty");
	put_raw("end", "\xff", 1);
	expect_refused("end of a log");
}

static int apply_always(void *arg, const struct segue_ops *ops)
{
	(void)arg;
	return segue_store_apply(store, ops->op, ops->count);
}

static void put_stream(const char *name, uint32_t id)
{
	struct segue_spec *spec;
	struct segue_ops ops = {0};
	struct sample sample;
	void *value;
	size_t size;

	sample_init(&sample);
	sample.spec.name = name;
	OK(segue_draft_make(&sample.spec, &spec));
	const struct segue_stream_record record = {.id = id, .spec = spec, .created_ms = 1};
	OK(segue_stream_record_pack(&record, &value, &size));
	OK(segue_ops_put(&ops, SEGUE_TABLE_STREAMS, name, strlen(name), value, size));
	segue_spec_destroy(spec);
	apply(&ops);
}

Test(stored_log, goes_with_its_stream)
{
	const struct segue_dropping how = {.apply = apply_always};
	struct segue_stored_log log;
	struct segue_ops ops = {0};
	struct segue_drop drop;

	put_stream("a", 5);
	put_stream("b", 6);
	for (uint32_t id = 5; id <= 6; id++) {
		put_known(id, &some);
		put_end(id, 250, true, 2);
	}
	OK(segue_drop_begin(&ops, store, "a", NULL, &drop));
	apply(&ops);
	OK(segue_logs_load(store, 5, &log)); /* whoever goes on has to know which files to remove */
	segue_stored_log_finish(&log);
	OK(segue_drop_rest(store, &drop, &how));
	cr_assert_eq(segue_logs_load(store, 5, &log), SEGUE_ENOTFOUND);
	OK(segue_logs_load(store, 6, &log));
	cr_assert(log.some);
	segue_stored_log_finish(&log);
}

Test(stored_log, is_shown)
{
	char *report;

	put_stream("a", 5);
	OK(segue_report_inspect(store, dir, "", &report));
	cr_assert_null(strstr(report, "\"log\""), "%s", report);
	free(report);
	put_known(5, &some);
	put_end(5, 250, true, 1);
	OK(segue_report_inspect(store, dir, "", &report));
	cr_assert(strstr(report, "\"log\":{\"files\":0,\"bytes\":0,\"first\":100,\"synced\":250,"
				 "\"ended\":true,"
				 "\"closed\":[\"producer 0\"]}"),
		"%s", report);
	free(report);
	put_raw("known", "\xff", 1);
	cr_assert_eq(segue_report_inspect(store, dir, "", &report), SEGUE_ESTORE);
}
