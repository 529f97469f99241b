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
	uint8_t *value = malloc(head + size);

	if (!value)
		return segue_fail(SEGUE_ENOMEM, "no memory for the states of a row");
	memcpy(value, &row->key_size, sizeof(row->key_size));
	if (row->key_size)
		memcpy(value + sizeof(row->key_size), row->key, row->key_size);
	if (size)
		memcpy(value + head, row->states, size);
	if (SEGUE_MUTANT(state_left_out) && size > 8)
		memset(value + head + size - 8, 0, 8);
	return segue_ops_put(ops, table, key, key_size, value, head + size);
}

int segue_row_get(const void *value, size_t value_size, uint64_t size, struct segue_row *row)
{
	const uint8_t *bytes = value;
	uint32_t key_size = 0;

	if (value_size >= sizeof(key_size))
		memcpy(&key_size, bytes, sizeof(key_size));
	if (value_size < sizeof(key_size) || value_size - sizeof(key_size) < key_size ||
		value_size - sizeof(key_size) - key_size != size)
		return segue_fail(SEGUE_ESTORE,
			"a row of %zu bytes is stored where the stream has states of %" PRIu64
			": go back to a checkpoint with load_state_dict(), or restore a backup",
			value_size, size);
	*row = (struct segue_row){.key = (const char *)bytes + sizeof(key_size),
		.key_size = key_size,
		.states = bytes + sizeof(key_size) + key_size};
	return 0;
}
