/* INSPECT of a store with many rows. */
#include "report/contents.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/layout.h"
#include "report/states.h"
#include "sample_spec.h"
#include "store/row.h"
#include "tmpdir.h"
#include "work.h"

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, segue_error_detail())

enum { UNROLL = 20 }; /* of the sample */

static const struct segue_place place = {.stream = 1};

static void put_stream(struct segue_ops *ops, uint32_t rows, uint64_t *row_size)
{
	struct segue_spec *spec;
	struct sample sample;
	void *value;
	size_t size;

	sample_init(&sample);
	sample.spec.batch_size = rows;
	OK(segue_draft_make(&sample.spec, &spec));
	*row_size = segue_row_size(spec);
	const struct segue_stream_record record = {
		.id = place.stream, .spec = spec, .created_ms = 1};
	OK(segue_stream_record_pack(&record, &value, &size));
	OK(segue_ops_put(ops, SEGUE_TABLE_STREAMS, "train", 5, value, size));
	segue_spec_destroy(spec);
}

static void put_states(
	struct segue_ops *ops, struct segue_place of, uint64_t number, uint64_t row_size)
{
	uint8_t key[SEGUE_KEY_LANE + 8], *states = calloc(1, row_size);
	char name[32];

	snprintf(name, sizeof(name), "record-%" PRIu64, number);
	const struct segue_row row = {
		.key = name, .key_size = (uint32_t)strlen(name), .states = states};
	segue_key_put64(segue_key_put_lane(key, of), number);
	OK(segue_row_put(ops, SEGUE_TABLE_STATES, key, sizeof(key), &row, row_size));
	free(states);
}

/* A lane of so many rows that go on; the states of row 1 are not there. */
static void fill(struct segue_store *store, uint32_t rows)
{
	struct segue_position *position = calloc(1, segue_position_size(rows));
	struct segue_ops ops = {0};
	uint64_t row_size;

	put_stream(&ops, rows, &row_size);
	position->step = 1;
	position->next = position->rows = rows;
	for (uint32_t row = 0; row < rows; row++) {
		position->row[row] = (struct segue_plan_row){
			.number = 2u * (rows - row), .array_steps = 3 * UNROLL};
		if (row != 1)
			put_states(&ops, place, position->row[row].number, row_size);
	}
	const struct segue_lane_record record = {.generation = 1, .position = position};
	OK(segue_lanes_put(&ops, place, &record));
	OK(segue_store_apply(store, ops.op, ops.count));
	segue_ops_finish(&ops);
	free(position);
}

/* The report of such a store, and what it took. */
static uint64_t work_of(uint32_t rows, char **report)
{
	char dir[SEGUE_TMPDIR_MAX];
	struct segue_store *store;
	struct segue_tmpdir tmp;

	segue_tmpdir_make(&tmp, "contents");
	OK(segue_store_open(segue_tmpdir_path(&tmp, "store", dir), SEGUE_STORE_SERVE, &store));
	fill(store, rows);
	uint64_t before = segue_work();
	OK(segue_report_inspect(store, dir, "", report));
	uint64_t work = segue_work() - before;
	segue_store_close(store);
	segue_tmpdir_remove(&tmp);
	return work;
}

Test(contents, rows_with_their_keys)
{
	char *report;

	work_of(3, &report);
	const char *rows = strstr(report, "\"rows\"");
	cr_assert_not_null(rows);
	cr_assert_not_null(strstr(rows, "\"key\":\"record-6\""), "%s", rows);
	cr_assert_not_null(strstr(rows, "\"key\":null"), "%s", rows);
	cr_assert_not_null(strstr(rows, "\"key\":\"record-2\""), "%s", rows);
	free(report);
}

/* Its name has gone, and what it has not all yet. */
Test(contents, a_group_that_is_being_dropped_is_not_seen)
{
	const struct segue_place gone = {.stream = 1, .group = 7};
	struct segue_position position = {.step = 9};
	const struct segue_lane_record record = {.generation = 1, .position = &position};
	char dir[SEGUE_TMPDIR_MAX], *report;
	struct segue_ops ops = {0};
	struct segue_store *store;
	struct segue_tmpdir tmp;
	uint64_t row_size;

	segue_tmpdir_make(&tmp, "contents");
	OK(segue_store_open(segue_tmpdir_path(&tmp, "store", dir), SEGUE_STORE_SERVE, &store));
	fill(store, 3);
	put_stream(&ops, 3, &row_size);
	put_states(&ops, gone, 2, row_size);
	put_states(&ops, gone, 9, row_size);
	OK(segue_lanes_put(&ops, gone, &record));
	OK(segue_store_apply(store, ops.op, ops.count));
	segue_ops_finish(&ops);
	OK(segue_report_inspect(store, dir, "", &report));
	cr_assert_not_null(strstr(report, "\"group\":0"));
	cr_assert_null(strstr(report, "\"group\":7"), "%s", report);
	free(report);
	OK(segue_report_get(store, dir, "", "record-2", &report));
	cr_assert_not_null(strstr(report, "\"group\":0"));
	cr_assert_null(strstr(report, "\"group\":7"), "%s", report);
	free(report);
	cr_assert_eq(segue_report_get(store, dir, "", "record-9", &report), SEGUE_ENOTFOUND);
	segue_store_close(store);
	segue_tmpdir_remove(&tmp);
}

Test(contents, many_rows_are_as_much_work_as_there_are_rows)
{
	char *report;
	uint64_t some = work_of(100, &report);

	free(report);
	uint64_t many = work_of(5000, &report);
	free(report);
	cr_assert_gt(some, 100, "nothing is counted");
	cr_assert_lt(many, 55 * some, "%" PRIu64 " blocks for 100 rows, %" PRIu64 " for 5,000",
		some, many);
}
