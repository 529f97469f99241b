/* The keyed permutation that orders an epoch: a Feistel network with cycle walking. */
#include "lane/permutation.h"

#define GOLDEN UINT64_C(0x9E3779B97F4A7C15)
#define ROUNDS 8

/* The finalizer of splitmix64: a bijection of 64-bit words in which every bit moves every other. */
static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return z ^ z >> 31;
}

static unsigned bits(uint64_t value)
{
	return value == 0 ? 0 : 64 - (unsigned)__builtin_clzll(value);
}

void segue_permutation_init(
	struct segue_permutation *permutation, uint64_t seed, uint64_t epoch, uint64_t n)
{
	unsigned width = bits(n - 1);
	unsigned half = width <= 2 ? 1 : (width + 1) / 2;

	*permutation = (struct segue_permutation){
		.n = n,
		.key = mix(seed ^ mix(epoch + GOLDEN)),
		.mask = (UINT64_C(1) << half) - 1,
		.half = half,
	};
}

static uint64_t encrypt(const struct segue_permutation *permutation, uint64_t value)
{
	uint64_t left = value >> permutation->half;
	uint64_t right = value & permutation->mask;

	for (uint64_t round = 1; round <= ROUNDS; round++) {
		uint64_t f = mix(right + round * GOLDEN + permutation->key) & permutation->mask;
		uint64_t turned = left ^ f;

		left = right;
		right = turned;
	}
	return left << permutation->half | right;
}

uint64_t segue_permutation_apply(const struct segue_permutation *permutation, uint64_t index)
{
	/* The walk stays on index's own cycle of the network, so it ends, at the latest at index
	 * itself. Fewer than four rounds on average: the network is below 4 n wide. */
	do
		index = encrypt(permutation, index);
	while (index >= permutation->n);
	return index;
}
