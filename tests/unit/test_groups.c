/* The groups of a stream in the store: names and numbers. */
#include <criterion/criterion.h>
#include <string.h>

#include "core/error.h"
#include "store/groups.h"
#include "store/key.h"
#include "tmpdir.h"

#define OK(call) cr_assert_eq((call), 0, "%s: %s", #call, segue_error_detail())

enum { ID = 7 };

static struct segue_tmpdir tmp;
static struct segue_store *store;
static struct segue_groups groups;

static void begin(void)
{
	char dir[SEGUE_TMPDIR_MAX];

	segue_tmpdir_make(&tmp, "groups");
	segue_tmpdir_path(&tmp, "store", dir);
	OK(segue_store_open(dir, SEGUE_STORE_SERVE, &store));
}

static void end(void)
{
	segue_groups_finish(&groups);
	segue_store_close(store);
	segue_tmpdir_remove(&tmp);
}

TestSuite(groups, .init = begin, .fini = end);

static void apply(struct segue_ops *ops)
{
	OK(segue_store_apply(store, ops->op, ops->count));
	segue_ops_finish(ops);
}

static void load(uint32_t stream)
{
	segue_groups_finish(&groups);
	OK(segue_groups_load(store, stream, &groups));
}

static uint32_t make(uint32_t stream, const char *name)
{
	struct segue_group group = {.number = 0};
	struct segue_ops ops = {0};

	load(stream);
	strcpy(group.name, name);
	OK(segue_groups_put(&ops, stream, &groups, &group));
	apply(&ops);
	return group.number;
}

Test(groups, a_stream_has_one_without_a_name)
{
	load(ID);
	cr_assert_eq(groups.count, 1);
	cr_assert_eq(groups.group[0].number, 0);
	cr_assert_str_empty(groups.group[0].name);
	cr_assert_eq(segue_groups_find(&groups, ""), &groups.group[0]);
	cr_assert_null(segue_groups_find(&groups, "b"));
}

Test(groups, each_has_its_number_and_streams_their_own)
{
	char longest[SEGUE_NAME_MAX + 1] = "";

	memset(longest, 'n', SEGUE_NAME_MAX);
	cr_assert_eq(make(ID, "z"), 1);
	cr_assert_eq(make(ID + 1, "a"), 1);
	cr_assert_eq(make(ID, "a.b"), 2);
	cr_assert_eq(make(ID, longest), 3);
	load(ID);
	cr_assert_eq(groups.count, 4);
	for (uint32_t i = 0; i < 4; i++)
		cr_assert_eq(groups.group[i].number, i);
	cr_assert_str_eq(segue_groups_name(&groups, 1), "z");
	cr_assert_str_eq(segue_groups_name(&groups, 3), longest);
	cr_assert_str_empty(segue_groups_name(&groups, 0));
	cr_assert_str_empty(segue_groups_name(&groups, 4));
	cr_assert_eq(segue_groups_find(&groups, "a.b")->number, 2);
	cr_assert_null(segue_groups_find(&groups, "a"));
}

Test(groups, a_number_is_found_by_the_name)
{
	uint32_t number = 9;

	make(ID, "a");
	make(ID, "b");
	OK(segue_groups_number(store, ID, "train", "b", &number));
	cr_assert_eq(number, 2);
	OK(segue_groups_number(store, ID, "train", NULL, &number));
	cr_assert_eq(number, 0);
	cr_assert_eq(segue_groups_number(store, ID, "train", "c", &number), SEGUE_ENOTFOUND);
	cr_assert_str_eq(segue_error_detail(), "stream 'train' has no group 'c'");
	cr_assert_eq(segue_groups_number(store, ID + 1, "other", "b", &number), SEGUE_ENOTFOUND);
}

Test(groups, all_of_a_stream_go)
{
	struct segue_ops ops = {0};

	make(ID, "a");
	make(ID, "b");
	make(ID + 1, "a");
	OK(segue_groups_remove(&ops, ID));
	apply(&ops);
	load(ID);
	cr_assert_eq(groups.count, 1);
	cr_assert_eq(groups.made, 0);
	load(ID + 1);
	cr_assert_eq(groups.count, 2);
}

Test(groups, what_is_damaged_is_no_group)
{
	static const char key[] = "group.00000007.x";
	struct segue_ops ops = {0};

	OK(segue_ops_put_copy(&ops, SEGUE_TABLE_META, key, strlen(key), "12345", 5));
	apply(&ops);
	cr_assert_eq(segue_groups_load(store, ID, &groups), SEGUE_ESTORE);
}
