/* What the files that read and write sequence files byte by byte share, and nobody else sees. */
#ifndef SEGUE_CORE_SEQUENCE_BYTES_H
#define SEGUE_CORE_SEQUENCE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/crc32c.h"

static inline uint64_t align_up(uint64_t size, uint64_t to)
{
	return (size + to - 1) / to * to;
}

static inline bool are_zeros(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (bytes[i])
			return false;
	return true;
}

/* Whether the last 4 of `size` bytes are the CRC32C of those before. */
static inline bool is_sound(const void *bytes, size_t size)
{
	uint32_t crc;

	memcpy(&crc, (const uint8_t *)bytes + size - sizeof(crc), sizeof(crc));
	return crc == segue_crc32c(0, bytes, size - sizeof(crc));
}

static inline uint32_t put_crc(void *bytes, size_t size)
{
	uint32_t crc = segue_crc32c(0, bytes, size - sizeof(crc));

	memcpy((uint8_t *)bytes + size - sizeof(crc), &crc, sizeof(crc));
	return crc;
}

/* It is of a later version: `what` is `value`. SEGUE_EFORMAT. */
int segue_seqfile_fail_later(const char *what, unsigned value);

#endif
