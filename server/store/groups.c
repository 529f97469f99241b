/*
 * Groups in the store, in META: "group.", the stream's id, "." and the group's number, both as 8
 * hexadecimal digits -> its name; without a number -> the last that was made, u32.
 */
#include "store/groups.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "store/key.h"

enum { PREFIX = sizeof("group.00000000.") - 1, KEY = PREFIX + 8 };

static void put_prefix(uint32_t stream, char key[KEY + 1])
{
	snprintf(key, KEY + 1, "group.%08" PRIx32 ".", stream);
}

static void put_key(uint32_t stream, uint32_t number, char key[KEY + 1])
{
	snprintf(key, KEY + 1, "group.%08" PRIx32 ".%08" PRIx32, stream, number);
}

static int fail_damaged(size_t key_size, size_t value_size)
{
	return segue_fail(SEGUE_ESTORE, "a group has a key of %zu bytes, and a value of %zu",
		key_size, value_size);
}

static int add(struct segue_groups *groups, uint32_t number, const void *name, size_t size)
{
	struct segue_group *grown =
		realloc(groups->group, (groups->count + 1) * sizeof(*groups->group));

	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for a group");
	groups->group = grown;
	grown[groups->count] = (struct segue_group){.number = number};
	memcpy(grown[groups->count++].name, name, size);
	return 0;
}

static uint32_t number_of(const char *key)
{
	char digits[9] = "";

	memcpy(digits, key + PREFIX, sizeof(digits) - 1);
	return (uint32_t)strtoul(digits, NULL, 16);
}

static int visit(void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct segue_groups *groups = arg;

	if (key_size == KEY && value_size > 0 && value_size <= SEGUE_NAME_MAX)
		return add(groups, number_of(key), value, value_size);
	if (key_size != PREFIX || value_size != 4)
		return fail_damaged(key_size, value_size);
	groups->made = segue_key_get32(value);
	return 0;
}

static int by_number(const void *a, const void *b)
{
	const struct segue_group *one = a, *other = b;

	return (one->number > other->number) - (one->number < other->number);
}

int segue_groups_load(struct segue_store *store, uint32_t stream, struct segue_groups *out)
{
	char key[KEY + 1];

	*out = (struct segue_groups){.count = 0};
	put_prefix(stream, key);
	int rc = add(out, 0, "", 0);
	if (!rc)
		rc = segue_store_scan(store, SEGUE_TABLE_META, key, PREFIX, visit, NULL, out);
	if (rc) {
		segue_groups_finish(out);
		return rc;
	}
	qsort(out->group, out->count, sizeof(*out->group), by_number);
	return 0;
}

void segue_groups_finish(struct segue_groups *groups)
{
	free(groups->group);
	*groups = (struct segue_groups){.count = 0};
}

const struct segue_group *segue_groups_find(const struct segue_groups *groups, const char *name)
{
	for (size_t i = 0; i < groups->count; i++)
		if (strcmp(groups->group[i].name, name) == 0)
			return &groups->group[i];
	return NULL;
}

static const struct segue_group *find_number(const struct segue_groups *groups, uint32_t number)
{
	for (size_t i = 0; i < groups->count; i++)
		if (groups->group[i].number == number)
			return &groups->group[i];
	return NULL;
}

bool segue_groups_have(const struct segue_groups *groups, uint32_t number)
{
	return find_number(groups, number);
}

const char *segue_groups_name(const struct segue_groups *groups, uint32_t number)
{
	const struct segue_group *group = find_number(groups, number);

	return group ? group->name : "";
}

int segue_groups_number(
	struct segue_store *store, uint32_t id, const char *stream, const char *name, uint32_t *out)
{
	struct segue_groups groups;

	if (!name || !*name) {
		*out = 0;
		return 0;
	}
	int rc = segue_groups_load(store, id, &groups);
	if (rc)
		return rc;
	const struct segue_group *group = segue_groups_find(&groups, name);
	if (group)
		*out = group->number;
	else
		rc = segue_fail(SEGUE_ENOTFOUND, "stream '%s' has no group '%s'", stream, name);
	segue_groups_finish(&groups);
	return rc;
}

int segue_groups_put(struct segue_ops *ops, uint32_t stream, struct segue_groups *groups,
	struct segue_group *group)
{
	size_t before = ops->count;
	char key[KEY + 1];
	uint8_t made[4];

	group->number = groups->made + 1;
	put_key(stream, group->number, key);
	int rc = segue_ops_put_copy(
		ops, SEGUE_TABLE_META, key, KEY, group->name, strlen(group->name));
	segue_key_put32(made, group->number);
	if (!rc)
		rc = segue_ops_put_copy(ops, SEGUE_TABLE_META, key, PREFIX, made, sizeof(made));
	if (rc)
		segue_ops_truncate(ops, before);
	else
		groups->made = group->number;
	return rc;
}

int segue_groups_remove_one(struct segue_ops *ops, uint32_t stream, uint32_t number)
{
	char key[KEY + 1];

	put_key(stream, number, key);
	return segue_ops_remove(ops, SEGUE_TABLE_META, key, KEY);
}

int segue_groups_remove(struct segue_ops *ops, uint32_t stream)
{
	char key[KEY + 1];

	put_prefix(stream, key);
	return segue_ops_remove_prefix(ops, SEGUE_TABLE_META, key, PREFIX);
}
