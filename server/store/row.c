/* Rows into values, and out of them. */
#include "store/row.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/error.h"

int segue_row_put(struct segue_ops *ops, enum segue_table table, const void *key, size_t key_size,
	const struct segue_row *row, uint64_t size)
{
	const size_t head = sizeof(row->key_size) + row->key_size;
	const size_t tail = row->step ? sizeof(row->step) : 0;
	uint8_t *value = malloc(head + size + tail);

	if (!value)
		return segue_fail(SEGUE_ENOMEM, "no memory for the states of a row");
	memcpy(value, &row->key_size, sizeof(row->key_size));
	if (row->key_size)
		memcpy(value + sizeof(row->key_size), row->key, row->key_size);
	if (size)
		memcpy(value + head, row->states, size);
	if (SEGUE_MUTANT(state_left_out) && size > 8)
		memset(value + head + size - 8, 0, 8);
	if (tail)
		memcpy(value + head + size, &row->step, tail);
	return segue_ops_put(ops, table, key, key_size, value, head + size + tail);
}

int segue_row_get(const void *value, size_t value_size, uint64_t size, struct segue_row *row)
{
	const uint8_t *bytes = value;
	uint32_t key_size = 0;
	uint64_t step = 0;

	if (value_size >= sizeof(key_size))
		memcpy(&key_size, bytes, sizeof(key_size));
	const size_t head = sizeof(key_size) + key_size;
	bool said = value_size == head + size + sizeof(step);
	if (value_size < sizeof(key_size) || (!said && value_size != head + size))
		return segue_fail(SEGUE_ESTORE,
			"a row of %zu bytes is stored where the stream has states of %" PRIu64
			": go back to a checkpoint with load_state_dict(), or restore a backup",
			value_size, size);
	if (said)
		memcpy(&step, bytes + head + size, sizeof(step));
	*row = (struct segue_row){.key = (const char *)bytes + sizeof(key_size),
		.key_size = key_size,
		.states = bytes + head,
		.step = step};
	return 0;
}

int segue_row_own(struct segue_row *row, const void *value, size_t value_size, void **owned)
{
	uint8_t *copy = malloc(value_size);

	if (!copy)
		return segue_fail(SEGUE_ENOMEM, "no memory for the states of a row");
	memcpy(copy, value, value_size);
	row->key = (const char *)copy + (row->key - (const char *)value);
	if (row->states)
		row->states = copy + (row->states - (const uint8_t *)value);
	free(*owned);
	*owned = copy;
	return 0;
}
