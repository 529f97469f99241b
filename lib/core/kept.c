/* Kept rows as an offer carries them. */
#include "core/kept.h"

#include <string.h>

#include "segue/segue.h"

/* As it travels; the key and the states of the row follow. */
struct head {
	uint64_t step, number;
	uint32_t key_size, zero;
};
_Static_assert(sizeof(struct head) == 24, "no padding in what is uploaded");

uint64_t segue_kept_row_size(uint32_t key_size, uint64_t row_size)
{
	return sizeof(struct head) + key_size + row_size;
}

uint8_t *segue_kept_row_pack(const struct segue_kept_row *row, uint8_t *to)
{
	const struct head head = {
		.step = row->step, .number = row->number, .key_size = row->key_size};

	memcpy(to, &head, sizeof(head));
	memcpy(to + sizeof(head), row->key, row->key_size);
	return to + sizeof(head) + row->key_size;
}

uint64_t segue_kept_row_unpack(
	const uint8_t *bytes, size_t left, uint64_t row_size, struct segue_kept_row *row)
{
	struct head head;

	if (left < sizeof(head))
		return 0;
	memcpy(&head, bytes, sizeof(head));
	uint64_t size = segue_kept_row_size(head.key_size, row_size);
	if (head.key_size > SEGUE_KEY_MAX || left < size)
		return 0;
	*row = (struct segue_kept_row){
		.step = head.step,
		.number = head.number,
		.key_size = head.key_size,
		.key = bytes + sizeof(head),
		.states = bytes + sizeof(head) + head.key_size,
	};
	return size;
}
