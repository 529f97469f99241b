/* States by record key, as bytes. */
#include "core/keyed.h"

#include <string.h>

struct entry {
	uint64_t step, number, states_size;
	uint32_t kind, lane, key_size, zero;
};
_Static_assert(sizeof(struct entry) == SEGUE_KEYED_ENTRY, "entry");
_Static_assert(sizeof(struct segue_keyed_head) == SEGUE_KEYED_HEAD, "head");

static uint64_t filled_up(uint64_t size)
{
	return (size + 7) & ~UINT64_C(7);
}

uint64_t segue_keyed_size(const struct segue_states *states)
{
	return SEGUE_KEYED_ENTRY + filled_up(states->key_size) + filled_up(states->bytes_size);
}

void segue_keyed_pack(const struct segue_states *states, uint8_t *to)
{
	const struct entry entry = {.step = states->step,
		.number = states->number,
		.states_size = states->bytes_size,
		.kind = states->kind,
		.lane = states->lane,
		.key_size = (uint32_t)states->key_size};

	memset(to, 0, segue_keyed_size(states));
	memcpy(to, &entry, sizeof(entry));
	to += sizeof(entry);
	memcpy(to, states->key, states->key_size);
	memcpy(to + filled_up(states->key_size), states->bytes, states->bytes_size);
}

uint64_t segue_keyed_unpack(const uint8_t *bytes, size_t left, struct segue_states *states)
{
	struct entry entry;

	if (left < sizeof(entry))
		return 0;
	memcpy(&entry, bytes, sizeof(entry));
	const uint64_t room = left - sizeof(entry);
	if (entry.key_size > SEGUE_KEY_MAX || filled_up(entry.key_size) > room ||
		entry.states_size > room - filled_up(entry.key_size) ||
		filled_up(entry.states_size) > room - filled_up(entry.key_size))
		return 0;
	*states = (struct segue_states){
		.kind = (enum segue_states_kind)entry.kind,
		.lane = entry.lane,
		.step = entry.step,
		.number = entry.number,
		.key = (const char *)bytes + sizeof(entry),
		.key_size = entry.key_size,
		.bytes = bytes + sizeof(entry) + filled_up(entry.key_size),
		.bytes_size = entry.states_size,
	};
	return segue_keyed_size(states);
}
