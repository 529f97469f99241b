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
/* The number that is place `place` of a part; the other way round. place < 2^52. */
uint64_t segue_mix_number(const struct segue_mix_shape *shape, uint32_t part, uint64_t place);
/* The record, of `records`, that place `place` of a part is. */
uint64_t segue_mix_record(const struct segue_mix_shape *shape, uint32_t part, uint64_t place,
	uint64_t records, bool shuffle);

#endif
