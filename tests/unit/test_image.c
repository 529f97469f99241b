/* Images, accounts, and when a transaction may begin. */
#include "lane/image.h"

#include <criterion/criterion.h>
#include <string.h>

#define UNROLL 2

static const struct segue_plan_spec plan = {
	.records = 100, .epochs = 1, .lanes = 1, .batch_size = 4, .num_unroll = UNROLL};

/* Row `row` is at segment `segment` of `segments` of sequence `number`. */
static void set_row(struct segue_image *image, uint32_t row, uint64_t number, uint64_t segment,
	uint64_t segments)
{
	image->position->row[row] = (struct segue_plan_row){
		.number = number, .array_steps = segments * UNROLL, .segment = segment};
}

/* Step 8: sequences 3 and 7 go on, 5 has ended, one row is empty. */
static struct segue_image *make_image(void)
{
	struct segue_image *image = segue_image_create(4, 4, 16);

	cr_assert_not_null(image);
	image->position->step = 8;
	set_row(image, 0, 3, 1, 4);
	set_row(image, 1, 5, 1, 2);
	set_row(image, 2, 7, 0, 2);
	image->position->row[3] = (struct segue_plan_row){.number = SEGUE_NO_SEQUENCE};
	return image;
}

Test(image, an_image_is_zeroed_and_owns_its_keys)
{
	struct segue_image *image = segue_image_create(4, 2, 16);
	char key[] = "data:17";

	cr_assert_eq(image->position->rows, 2);
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
	struct segue_image *image = segue_image_create(4, 0, 0);

	cr_assert_eq(image->position->rows, 0);
	segue_image_destroy(image);
}

Test(image, an_account_knows_the_live_rows_on_disk)
{
	struct segue_account account = {0};
	struct segue_image *image = make_image();

	cr_assert_eq(segue_account_settle(&account, &plan, image), 0);
	cr_assert_eq(account.durable, 8);
	cr_assert_eq(account.stored_count, 2);
	cr_assert_eq(account.stored[0], 3);
	cr_assert_eq(account.stored[1], 7);
	image->position->step = 9;
	image->position->rows = 1;
	cr_assert_eq(segue_account_settle(&account, &plan, image), 0, "the newest counts");
	cr_assert_eq(account.durable, 9);
	cr_assert_eq(account.stored_count, 1);
	segue_image_destroy(image);
	segue_account_finish(&account);
	cr_assert_null(account.stored);
}

Test(image, rows_that_ended_or_left_are_dropped)
{
	struct segue_image *image = make_image();

	cr_assert_not(segue_account_drops(&plan, image->position, 3));
	cr_assert(segue_account_drops(&plan, image->position, 5), "it has ended");
	cr_assert_not(segue_account_drops(&plan, image->position, 7));
	cr_assert(segue_account_drops(&plan, image->position, 2), "it is in no row");
	segue_image_destroy(image);
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
