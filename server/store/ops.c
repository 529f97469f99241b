/* Lists of store operations. */
#include "store/ops.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"

void segue_ops_truncate(struct segue_ops *ops, size_t count)
{
	while (ops->count > count) {
		struct segue_store_op *op = &ops->op[--ops->count];
		free((void *)(uintptr_t)op->key);
		free((void *)(uintptr_t)op->value);
	}
}

void segue_ops_finish(struct segue_ops *ops)
{
	segue_ops_truncate(ops, 0);
	free(ops->op);
	*ops = (struct segue_ops){0};
}

/* Adds `op` with a copy of its key; its value is the list's from now on, or freed. */
static int add(struct segue_ops *ops, struct segue_store_op op)
{
	if (ops->count == ops->capacity) {
		size_t capacity = ops->capacity ? 2 * ops->capacity : 64;
		struct segue_store_op *grown = realloc(ops->op, capacity * sizeof(*grown));
		if (!grown)
			goto no_memory;
		ops->op = grown;
		ops->capacity = capacity;
	}
	void *key = malloc(op.key_size);
	if (!key)
		goto no_memory;
	memcpy(key, op.key, op.key_size);
	op.key = key;
	ops->op[ops->count++] = op;
	return 0;

no_memory:
	free((void *)(uintptr_t)op.value);
	return segue_fail(SEGUE_ENOMEM, "no memory to write %zu values to the store", ops->count);
}

int segue_ops_put(struct segue_ops *ops, enum segue_table table, const void *key, size_t key_size,
	void *value, size_t value_size)
{
	return add(ops, (struct segue_store_op){.table = table,
				.key = key,
				.key_size = key_size,
				.value = value,
				.value_size = value_size});
}

int segue_ops_put_copy(struct segue_ops *ops, enum segue_table table, const void *key,
	size_t key_size, const void *bytes, size_t size)
{
	void *value = malloc(size ? size : 1);

	if (!value)
		return segue_fail(SEGUE_ENOMEM, "no memory for a value of %zu bytes", size);
	if (size)
		memcpy(value, bytes, size);
	return segue_ops_put(ops, table, key, key_size, value, size);
}

int segue_ops_remove(struct segue_ops *ops, enum segue_table table, const void *key, size_t size)
{
	return add(ops, (struct segue_store_op){
				.table = table, .remove = true, .key = key, .key_size = size});
}

int segue_ops_remove_some(struct segue_ops *ops, enum segue_table table, const void *prefix,
	size_t size, size_t limit)
{
	return add(ops, (struct segue_store_op){.table = table,
				.remove = true,
				.prefix = true,
				.limit = limit,
				.key = prefix,
				.key_size = size});
}

int segue_ops_remove_prefix(
	struct segue_ops *ops, enum segue_table table, const void *prefix, size_t size)
{
	return segue_ops_remove_some(ops, table, prefix, size, 0);
}

int segue_ops_remove_below(
	struct segue_ops *ops, enum segue_table table, const void *key, size_t size, size_t shared)
{
	return add(ops, (struct segue_store_op){.table = table,
				.remove = true,
				.shared = shared,
				.key = key,
				.key_size = size});
}
