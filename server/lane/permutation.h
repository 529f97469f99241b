/*
 * A keyed permutation of [0, n), computed one index at a time: shuffling without a list or a
 * buffer.
 *
 * A balanced Feistel network over the next even number of bits, with cycle walking. docs/shuffle.md
 * defines it; the order of an epoch depends on nothing but (seed, epoch, n). Pure.
 */
#ifndef SEGUE_LANE_PERMUTATION_H
#define SEGUE_LANE_PERMUTATION_H

#include <stdint.h>

struct segue_permutation {
	uint64_t n, key, mask;
	unsigned half; /* bits of each half */
};

/* n >= 1. */
void segue_permutation_init(
	struct segue_permutation *permutation, uint64_t seed, uint64_t epoch, uint64_t n);
/* The place of `index` < n: < n, each exactly once. */
uint64_t segue_permutation_apply(const struct segue_permutation *permutation, uint64_t index);

#endif
