/* Images, accounts, and when a transaction may begin. */
#include "lane/image.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "work.h"

#define UNROLL 2

static const struct segue_plan_spec plan = {
	.records = 100, .ends = {1, {1}}, .lanes = 1, .batch_size = 4, .num_unroll = UNROLL};

struct row {
	uint64_t number, segment, segments;
};

/* An image of these rows at `step`. */
static struct segue_image *make_image(uint64_t step, const struct row *rows, uint32_t count)
{
	struct segue_position *position = calloc(1, segue_position_size(count));

	position->step = step;
	position->rows = count;
	for (uint32_t row = 0; row < count; row++)
		position->row[row] = (struct segue_plan_row){.number = rows[row].number,
			.array_steps = rows[row].segments * UNROLL,
			.segment = rows[row].segment};
	struct segue_image *image = segue_image_create(&plan, position, 16);
	cr_assert_not_null(image);
	cr_assert_eq(memcmp(image->position, position, segue_position_size(count)), 0);
	free(position);
	return image;
}

/* Sequences 7 and 3 go on, 5 has ended, one row is empty. */
static const struct row some[] = {{7, 1, 4}, {5, 1, 2}, {SEGUE_NO_SEQUENCE, 0, 0}, {3, 0, 2}};

Test(image, an_image_is_zeroed_and_owns_its_keys)
{
	struct segue_image *image = make_image(8, some, 2);
	char key[] = "data:17";

	cr_assert_eq(image->row_size, 16);
	for (int i = 0; i < 32; i++)
		cr_assert_eq(image->states[i], 0);
	cr_assert_eq(segue_image_set_key(image, 1, key, 7), 0);
	memset(key, 0, sizeof(key));
	cr_assert_eq(image->key[1].size, 7);
	cr_assert_arr_eq(image->key[1].bytes, "data:17", 7);
	cr_assert_eq(segue_image_set_key(image, 1, "x", 1), 0, "a key may be set again");
	cr_assert_eq(segue_image_set_key(image, 0, NULL, 0), 0, "an empty row has none");
	cr_assert_eq(image->key[0].size, 0);
	segue_image_destroy(image);
	segue_image_destroy(NULL);
}

Test(image, an_image_may_have_no_rows_and_no_states)
{
	struct segue_image *image = segue_image_create(&plan, NULL, 0);

	cr_assert_eq(image->position->step, 0);
	cr_assert_eq(image->position->rows, 0);
	cr_assert_eq(image->live_count, 0);
	segue_image_destroy(image);
}

Test(image, an_image_knows_its_live_rows)
{
	struct segue_image *image = make_image(8, some, 4);

	cr_assert_eq(image->live_count, 2);
	cr_assert_eq(image->live[0], 0);
	cr_assert_eq(image->live[1], 3);
	segue_image_destroy(image);
}

/* What is parked is on its way as what is in the batch is. */
Test(image, parked_rows_live)
{
	struct segue_position *position = calloc(1, segue_position_size(3));

	position->sized = 3;
	position->rows = 1;
	position->parked = 2;
	for (uint32_t row = 0; row < 3; row++)
		position->row[row] = (struct segue_plan_row){
			.number = row, .array_steps = 2 * UNROLL, .segment = row == 0};
	struct segue_image *image = segue_image_create(&plan, position, 16);
	cr_assert_eq(memcmp(image->position, position, segue_position_size(3)), 0);
	cr_assert_eq(image->live_count, 2);
	cr_assert_eq(image->live[0], 1);
	cr_assert_eq(image->live[1], 2);
	cr_assert_eq(image->states[2 * 16 + 15], 0);
	cr_assert_eq(segue_image_set_key(image, 2, "key", 3), 0);
	segue_image_destroy(image);
	free(position);
}

Test(image, an_account_knows_the_live_rows_on_disk)
{
	struct segue_account account;
	struct segue_image *image = make_image(8, some, 4);

	cr_assert_eq(segue_account_init(&account, 4), 0);
	cr_assert_eq(account.stored_count, 0);
	segue_account_settle(&account, image);
	cr_assert_eq(account.durable, 8);
	cr_assert_eq(account.stored_count, 2);
	cr_assert_eq(account.stored[0].number, 3, "by number");
	cr_assert_eq(account.stored[1].number, 7);
	segue_image_destroy(image);
	image = make_image(9, some, 1);
	segue_account_settle(&account, image);
	cr_assert_eq(account.durable, 9, "the newest counts");
	cr_assert_eq(account.stored_count, 1);
	segue_image_destroy(image);
	segue_account_finish(&account);
	cr_assert_null(account.stored);
}

Test(image, rows_that_ended_or_left_are_dropped)
{
	static const struct row before[] = {{2, 0, 2}, {7, 0, 4}, {5, 0, 2}, {3, 0, 2}};
	struct segue_account account = {0};
	struct segue_image *image = make_image(8, before, 4);
	static const bool lives[] = {false, true, false, true}; /* 2, 3, 5, 7 */

	segue_account_compare(&account, image);
	cr_assert_eq(account.stored_count, 0, "nothing was on disk");
	cr_assert_eq(segue_account_init(&account, 4), 0);
	segue_account_settle(&account, image);
	segue_account_compare(&account, image);
	for (uint32_t i = 0; i < 4; i++)
		cr_assert(account.stored[i].lives);
	segue_image_destroy(image);
	image = make_image(9, some, 4);
	segue_account_compare(&account, image);
	for (uint32_t i = 0; i < 4; i++)
		cr_assert_eq(account.stored[i].lives, lives[i], "%u", i);
	segue_image_destroy(image);
	segue_account_finish(&account);
}

/* What it takes to compare, and then to settle, images of so many rows of which half have ended. */
static uint64_t work_of(uint32_t count)
{
	struct row *rows = calloc(count, sizeof(*rows));
	struct segue_account account;
	uint64_t before;

	for (uint32_t i = 0; i < count; i++)
		rows[i] = (struct row){.number = i * UINT64_C(7919) % count, .segments = 9};
	struct segue_image *first = make_image(1, rows, count);
	for (uint32_t i = 0; i < count; i += 2)
		rows[i].number += count;
	struct segue_image *second = make_image(2, rows, count);
	cr_assert_eq(segue_account_init(&account, count), 0);
	segue_account_settle(&account, first);
	before = segue_work();
	segue_account_compare(&account, second);
	segue_account_settle(&account, second);
	before = segue_work() - before;
	segue_image_destroy(first);
	segue_image_destroy(second);
	segue_account_finish(&account);
	free(rows);
	return before;
}

Test(image, many_rows_are_not_compared_each_with_each)
{
	uint64_t some_rows = work_of(100), many_rows = work_of(10000);

	cr_assert_gt(some_rows, 100, "nothing is counted");
	cr_assert_lt(many_rows, 300 * some_rows,
		"%" PRIu64 " blocks for 100 rows, %" PRIu64 " for 10,000", some_rows, many_rows);
}

Test(image, one_transaction_at_a_time)
{
	struct segue_group_commit group = {0};

	cr_assert(segue_group_commit_begin(&group));
	cr_assert_eq(group.state, SEGUE_GROUP_COMMIT_WRITING);
	cr_assert_not(segue_group_commit_begin(&group));
	segue_group_commit_ended(&group, 0);
	cr_assert_eq(group.state, SEGUE_GROUP_COMMIT_IDLE);
}

Test(image, a_full_disk_is_tried_again)
{
	struct segue_group_commit group = {0};

	segue_group_commit_begin(&group);
	segue_group_commit_ended(&group, SEGUE_ENOSPACE);
	cr_assert_eq(group.state, SEGUE_GROUP_COMMIT_IDLE);
	cr_assert(segue_group_commit_begin(&group));
	segue_group_commit_ended(&group, 0);
}

Test(image, any_other_failure_is_for_good)
{
	struct segue_group_commit group = {0};

	segue_group_commit_begin(&group);
	segue_group_commit_ended(&group, SEGUE_ESTORE);
	cr_assert_eq(group.state, SEGUE_GROUP_COMMIT_STOPPED);
	cr_assert_not(segue_group_commit_begin(&group));
}
