/*
 * Parts of store keys: integers of fixed width, big endian, so that the order of bytes is the order
 * of numbers.
 */
#ifndef SEGUE_STORE_KEY_H
#define SEGUE_STORE_KEY_H

#include <stdint.h>

/* Writes 4 or 8 bytes at `at` and returns the place behind them. */
static inline uint8_t *segue_key_put32(uint8_t *at, uint32_t value)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		*at++ = (uint8_t)(value >> shift);
	return at;
}

static inline uint8_t *segue_key_put64(uint8_t *at, uint64_t value)
{
	at = segue_key_put32(at, (uint32_t)(value >> 32));
	return segue_key_put32(at, (uint32_t)value);
}

/* What segue_key_put32 and _put64 wrote at `at`. */
static inline uint32_t segue_key_get32(const uint8_t *at)
{
	uint32_t value = 0;
	for (int i = 0; i < 4; i++)
		value = value << 8 | at[i];
	return value;
}

static inline uint64_t segue_key_get64(const uint8_t *at)
{
	return (uint64_t)segue_key_get32(at) << 32 | segue_key_get32(at + 4);
}

#endif
