/*
 * Keys of the tables. Integers are of fixed width and big endian, so that the order of bytes is the
 * order of numbers: what belongs to a lane lies side by side, and is written in that order.
 *
 *	STREAMS     name                                     -> StreamRecord (segue.proto)
 *	LANES       lane                                     -> LaneRecord
 *	STATES      lane, sequence number u64                -> row
 *	FINALS      lane, hash of the record key, number u64 -> row
 *	FINALS      the same, 1, step u64                    -> row that was put (finals.h)
 *	UNDO        lane, step u64, number u64               -> hash of the record key
 *	UNDO        the same, 1, hash of the record key      -> the same, of a row that was put
 *	CHECKPOINTS lane                                     -> CatalogueRecord
 *	CHECKPOINTS lane, id u64                             -> token
 *	INDEX       name, NUL, number u32                    -> piece
 *	META        texts: drop.c, groups.c, logs.h
 *
 * lane: stream, group, lane, each u32. Hashes are XXH3-128.
 */
#ifndef SEGUE_STORE_KEY_H
#define SEGUE_STORE_KEY_H

#include "store/store.h"

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

/* Which lane of which group of which stream. */
struct segue_place {
	uint32_t stream, group, lane;
};

enum { SEGUE_KEY_LANE = 12, SEGUE_KEY_HASH = 16 };

/* Writes SEGUE_KEY_LANE bytes and returns the place behind them. */
static inline uint8_t *segue_key_put_lane(uint8_t *at, struct segue_place place)
{
	at = segue_key_put32(at, place.stream);
	at = segue_key_put32(at, place.group);
	return segue_key_put32(at, place.lane);
}

/* Writes SEGUE_KEY_HASH bytes, made of `bytes`, and returns the place behind them. */
uint8_t *segue_key_put_hash(uint8_t *at, const void *bytes, size_t size);

/* The key of a stream: its name; of one above 63 bytes NUL and a hash (in `hash`). */
const void *segue_key_stream(const char *name, uint8_t hash[SEGUE_STORE_KEY_MAX], size_t *size);

#endif
