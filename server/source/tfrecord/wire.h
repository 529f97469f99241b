/* Protobuf's wire format: what a message in a record and one in memory have in common. */
#ifndef SEGUE_SOURCE_TFRECORD_WIRE_H
#define SEGUE_SOURCE_TFRECORD_WIRE_H

#include <stddef.h>
#include <stdint.h>

enum segue_wire {
	SEGUE_WIRE_VARINT = 0,
	SEGUE_WIRE_64 = 1,
	SEGUE_WIRE_BYTES = 2,
	SEGUE_WIRE_GROUP = 3,
	SEGUE_WIRE_GROUP_END = 4,
	SEGUE_WIRE_32 = 5,
};

/* Groups within groups that are passed over. */
#define SEGUE_GROUPS_MAX 100

/*
 * A varint from at most `size` bytes: bytes taken; 0 if it does not end in them, or is no 64-bit
 * value.
 */
static inline size_t segue_varint(const uint8_t *bytes, size_t size, uint64_t *value)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < size && i < 10; i++) {
		sum |= (uint64_t)(bytes[i] & 127) << 7 * i;
		if (bytes[i] < 128) {
			*value = sum;
			return i == 9 && bytes[i] > 1 ? 0 : i + 1;
		}
	}
	return 0;
}

#endif
