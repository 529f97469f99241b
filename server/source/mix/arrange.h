/*
 * Which part of a mix each sequence is of, and which place it has there: arithmetic alone.
 * docs/mix.md defines it. Pure.
 *
 * Numbers come in blocks of SEGUE_MIX_BLOCK. A part has its quota of each, at places that are
 * permuted by key; its own places are counted through all blocks, in the order of the numbers.
 */
#ifndef SEGUE_SOURCE_MIX_ARRANGE_H
#define SEGUE_SOURCE_MIX_ARRANGE_H

#include "core/spec_source.h"

#define SEGUE_MIX_PLACES (UINT64_C(1) << 52) /* a part has fewer: all numbers are below 2^62 */

struct segue_mix_shape {
	uint64_t seed;
	uint32_t count;
	uint32_t quota[SEGUE_PARTS_MAX]; /* each at least 1; together SEGUE_MIX_BLOCK */
};

/* A block as it is arranged: of each number in it the part, and which of that part's it is here. */
struct segue_mix_block {
	uint64_t number; /* of the block */
	uint16_t rank[SEGUE_MIX_BLOCK];
	uint8_t part[SEGUE_MIX_BLOCK];
};

void segue_mix_shape_init(
	struct segue_mix_shape *shape, const struct segue_spec_mix *mix, uint64_t seed);
/* The part that `number` is of. */
uint32_t segue_mix_part(const struct segue_mix_shape *shape, uint64_t number);
void segue_mix_arrange(
	const struct segue_mix_shape *shape, uint64_t number, struct segue_mix_block *block);
/* The place in its part of `number`, which lies in that block. */
uint64_t segue_mix_place(
	const struct segue_mix_shape *shape, const struct segue_mix_block *block, uint64_t number);
/* The number that is place `place` of a part; the other way round. place < SEGUE_MIX_PLACES. */
uint64_t segue_mix_number(const struct segue_mix_shape *shape, uint32_t part, uint64_t place);
/* How many of the first `count` numbers are of a part. */
uint64_t segue_mix_below(const struct segue_mix_shape *shape, uint32_t part, uint64_t count);
/* The record, of `records`, that place `place` of a part is. */
uint64_t segue_mix_record(const struct segue_mix_shape *shape, uint32_t part, uint64_t place,
	uint64_t records, bool shuffle);

/*
 * The log that a stream reads, as a part of it: its places are its sequences, which come one by one
 * and in their order. A mix has its numbers up to the first whose sequence is not there yet, those
 * of other parts, too. So whoever has seen a number finds all below it; and
 *
 *	segue_mix_inserted(count) <= inserted, just when count <= segue_mix_there(inserted)
 *
 * for each count <= end. A stream over a log alone is a mix of that one part: both are the same.
 */
struct segue_mix_log {
	struct segue_mix_shape shape;
	uint32_t part;
	uint64_t end; /* numbers up to the end of the other parts; UINT64_MAX: they have none */
};

/* So many numbers are there when so many sequences are in the log. */
uint64_t segue_mix_there(const struct segue_mix_log *log, uint64_t inserted);
/* So many sequences of the log are among the first `count` numbers. */
uint64_t segue_mix_inserted(const struct segue_mix_log *log, uint64_t count);
/* Of a stream over a log alone. */
#define SEGUE_MIX_LOG_ALONE                                                                        \
	((struct segue_mix_log){                                                                   \
		.shape = {.count = 1, .quota = {SEGUE_MIX_BLOCK}}, .end = UINT64_MAX})

#endif
