/* The keyed permutation: a bijection for every n, the values docs/shuffle.md gives, no visible
 * bias. */
#include "lane/permutation.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static uint64_t place(uint64_t seed, uint64_t epoch, uint64_t n, uint64_t index)
{
	struct segue_permutation permutation;

	segue_permutation_init(&permutation, seed, epoch, n);
	return segue_permutation_apply(&permutation, index);
}

static void check_bijection(uint64_t seed, uint64_t epoch, uint64_t n)
{
	struct segue_permutation permutation;
	bool *seen = calloc(n, sizeof(seen[0]));

	cr_assert_not_null(seen);
	segue_permutation_init(&permutation, seed, epoch, n);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t to = segue_permutation_apply(&permutation, i);

		if (to >= n || seen[to])
			cr_assert_fail("seed %ju epoch %ju n %ju: %ju goes to %ju, %s",
				(uintmax_t)seed, (uintmax_t)epoch, (uintmax_t)n, (uintmax_t)i,
				(uintmax_t)to, to >= n ? "outside" : "as another does");
		seen[to] = true;
	}
	free(seen);
}

/* Every index reached at most once, none outside: n of them, so each exactly once. */
Test(permutation, is_a_bijection)
{
	for (uint64_t n = 1; n <= 1100; n++) {
		check_bijection(n * 3, 0, n);
		check_bijection(~n, n, n);
	}
	for (uint64_t n = 1 << 16; n <= (1 << 16) + 2; n++)
		check_bijection(1, 2, n - 1);
	check_bijection(5, 6, 1000003);
}

static void check_values(uint64_t seed, uint64_t epoch, uint64_t n, const uint64_t *expected)
{
	for (uint64_t i = 0; i < n; i++)
		cr_assert_eq(place(seed, epoch, n, i), expected[i],
			"seed %ju epoch %ju n %ju index %ju", (uintmax_t)seed, (uintmax_t)epoch,
			(uintmax_t)n, (uintmax_t)i);
}

/* The table of docs/shuffle.md, made by a program in another language from the definition there. */
Test(permutation, golden_small)
{
	check_values(0, 0, 1, (uint64_t[]){0});
	check_values(0, 0, 2, (uint64_t[]){0, 1});
	check_values(0, 0, 5, (uint64_t[]){2, 0, 1, 4, 3});
	check_values(1, 0, 10, (uint64_t[]){2, 0, 8, 3, 6, 9, 5, 1, 4, 7});
	check_values(1, 1, 10, (uint64_t[]){5, 8, 7, 4, 0, 1, 2, 6, 9, 3});
	check_values(UINT64_MAX, UINT64_MAX, 16,
		(uint64_t[]){4, 7, 13, 12, 2, 9, 1, 14, 0, 3, 5, 6, 11, 10, 8, 15});
	check_values(
		42, 7, 17, (uint64_t[]){14, 2, 7, 16, 1, 15, 0, 12, 10, 11, 9, 6, 5, 13, 4, 3, 8});
}

Test(permutation, golden_large)
{
	const struct {
		uint64_t n, first, second, middle, last;
	} table[] = {
		{UINT64_C(1000003), 0x49e80, 0xdf46f, 0x12d22, 0xb341},
		{UINT64_C(1) << 32, 0xd3d9f89c, 0x71b82c7a, 0xa42fd963, 0x5ee6fcfe},
		{(UINT64_C(1) << 32) + 1, 0xcb4dfab0, 0x30d0f6c0, 0xaa05b4b2, 0x6ae57e79},
		{UINT64_C(1) << 63, 0x5d3f8ef2d0cbd74f, 0x319d04d235b88f73, 0x723074580ec867ad,
			0x5ecb6137cb038b56},
		{UINT64_MAX, 0x9e50c9ee3540c795, 0xcec735c2d146f308, 0x5ecb6137cb038b56,
			0x2b7cb06db76134b1},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		uint64_t n = table[i].n;

		cr_assert_eq(place(7, 3, n, 0), table[i].first, "n %ju", (uintmax_t)n);
		cr_assert_eq(place(7, 3, n, 1), table[i].second, "n %ju", (uintmax_t)n);
		cr_assert_eq(place(7, 3, n, n / 2), table[i].middle, "n %ju", (uintmax_t)n);
		cr_assert_eq(place(7, 3, n, n - 1), table[i].last, "n %ju", (uintmax_t)n);
	}
}

/* Chi-square of `count` cells against equal shares of `total`. */
static double chi_square(const uint32_t *cell, size_t count, double total)
{
	double share = total / (double)count;
	double sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += ((double)cell[i] - share) * ((double)cell[i] - share) / share;
	return sum;
}

/*
 * Over 10,000 seeds every index goes to every place equally often. 4 sigma above the mean of
 * chi-square with f degrees of freedom: f + 4 sqrt(2 f), rounded up; the seeds are fixed, so this
 * cannot fail by chance.
 */
static void check_uniform_over_seeds(uint64_t n, double limit)
{
	enum { SEEDS = 10000, LARGEST = 32 };
	uint32_t cell[LARGEST][LARGEST] = {{0}};

	cr_assert(n <= LARGEST);
	for (uint64_t seed = 0; seed < SEEDS; seed++)
		for (uint64_t i = 0; i < n; i++)
			cell[i][place(seed, 0, n, i)]++;
	for (uint64_t i = 0; i < n; i++) {
		double chi = chi_square(cell[i], n, SEEDS);

		cr_assert(chi < limit, "n %ju index %ju: chi-square %f", (uintmax_t)n, (uintmax_t)i,
			chi);
	}
}

Test(permutation, places_are_uniform_over_seeds)
{
	check_uniform_over_seeds(5, 16);
	check_uniform_over_seeds(8, 22);
	check_uniform_over_seeds(13, 32);
	check_uniform_over_seeds(32, 63);
}

/* All 24 orders of four records are about equally frequent over seeds, and over epochs. */
Test(permutation, orders_are_uniform)
{
	uint32_t by_seed[256] = {0}, by_epoch[256] = {0}, seeds[24], epochs[24];
	size_t found = 0;

	for (uint64_t k = 0; k < 24000; k++) {
		unsigned seed_order = 0, epoch_order = 0;

		for (uint64_t i = 0; i < 4; i++) {
			seed_order = seed_order << 2 | (unsigned)place(k, 0, 4, i);
			epoch_order = epoch_order << 2 | (unsigned)place(9, k, 4, i);
		}
		by_seed[seed_order]++;
		by_epoch[epoch_order]++;
	}
	for (size_t order = 0; order < 256; order++) {
		if (by_seed[order] == 0)
			continue;
		cr_assert_lt(found, 24);
		seeds[found] = by_seed[order];
		epochs[found++] = by_epoch[order];
	}
	cr_assert_eq(found, 24);
	cr_assert_lt(chi_square(seeds, 24, 24000), 23 + 4 * 6.8);
	cr_assert_lt(chi_square(epochs, 24, 24000), 23 + 4 * 6.8);
}

/* Neighbours in the data set are no neighbours in the order: about 2 of n remain by chance. */
Test(permutation, neighbours_part)
{
	enum { N = 10000 };
	unsigned pairs = 0;

	for (uint64_t i = 0; i + 1 < N; i++)
		pairs += place(11, 0, N, i) + 1 == place(11, 0, N, i + 1);
	cr_assert_lt(pairs, 8, "%u pairs", pairs);
}

static unsigned agreement(uint64_t seed_a, uint64_t epoch_a, uint64_t seed_b, uint64_t epoch_b)
{
	unsigned same = 0;

	for (uint64_t i = 0; i < 1000; i++)
		same += place(seed_a, epoch_a, 1000, i) == place(seed_b, epoch_b, 1000, i);
	return same;
}

/* About one index in 1,000 keeps its place by chance. */
Test(permutation, epochs_and_seeds_differ)
{
	for (uint64_t k = 0; k < 50; k++) {
		cr_assert_lt(agreement(3, k, 3, k + 1), 10, "epochs %ju", (uintmax_t)k);
		cr_assert_lt(agreement(k, 0, k + 1, 0), 10, "seeds %ju", (uintmax_t)k);
		cr_assert_lt(agreement(k, k + 1, k + 1, k), 10, "exchanged %ju", (uintmax_t)k);
	}
}
