/* Policies of states: the draws of docs/policy.md, and what is refused. */
#include "core/policy.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "core/error.h"

/* Known answers of Random123 (kat_vectors). */
Test(policy, philox_is_the_published_one)
{
	static const struct {
		uint32_t key[2], counter[4], words[4];
	} known[] = {
		{{0, 0}, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{{UINT32_MAX, UINT32_MAX}, {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX},
			{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{{0xa4093822, 0x299f31d0}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
			{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		uint32_t words[4];

		memcpy(words, known[i].counter, sizeof(words));
		segue_philox(known[i].key, words);
		cr_expect_arr_eq(words, known[i].words, sizeof(words), "%zu", i);
	}
}

static struct segue_state_policy zero(double p)
{
	return (struct segue_state_policy){SEGUE_POLICY_ZERO, p};
}

/* The table of docs/policy.md, made by a program in another language. */
Test(policy, draws_are_those_of_the_table)
{
	static const struct {
		uint64_t seed, number;
		size_t state;
		uint32_t segments[7];
	} rows[] = {
		{0, 0, 0, {3, 12, 19, 24, 26}},
		{1, 0, 0, {17, 26, 31}},
		{1, 0, 1, {7, 13, 15, 19, 22, 32}},
		{UINT64_MAX, (UINT64_C(1) << 33) + 5, 2, {7, 11, 16, 19, 29, 30}},
	};

	const struct segue_state_policy policy = zero(0.25);

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const uint32_t *next = rows[i].segments;

		for (uint32_t k = 1; k <= 32; k++) {
			bool wanted = *next == k;

			next += wanted;
			cr_expect_eq(segue_policy_zeroes(&policy, rows[i].seed, rows[i].state,
					     rows[i].number, k),
				wanted, "row %zu, segment %u", i, k);
		}
	}
}

Test(policy, as_often_as_is_said_and_never_without)
{
	static const double p[] = {0.01, 0.1, 0.5, 0.9, 1.0};
	enum { DRAWS = 200000 };

	for (size_t i = 0; i < sizeof(p) / sizeof(p[0]); i++) {
		double zeroed = 0, variance = p[i] * (1 - p[i]) * DRAWS;

		const struct segue_state_policy policy = zero(p[i]);
		for (uint32_t k = 0; k < DRAWS; k++)
			zeroed += segue_policy_zeroes(&policy, 9, k % 3, k / 100, k % 100 + 1);
		double off = zeroed - p[i] * DRAWS;
		cr_expect(off * off <= 25 * variance, "%g: %g of %d", p[i], zeroed, DRAWS);
	}
	const struct segue_state_policy carry = {0};
	for (uint32_t k = 1; k < 1000; k++)
		cr_expect(!segue_policy_zeroes(&carry, 9, 0, k, k));
}

static void refused(enum segue_policy kind, double p, const char *says)
{
	const struct segue_state_policy policy = {kind, p};

	cr_expect_eq(segue_policy_check(&policy, 4, "h"), SEGUE_EINVAL, "%d, %g", (int)kind, p);
	cr_expect(strstr(segue_error_detail(), says), "%s", segue_error_detail());
	cr_expect(strstr(segue_error_detail(), "states[4] \"h\""), "%s", segue_error_detail());
}

Test(policy, what_is_none)
{
	refused((enum segue_policy)2, 0, "there is no policy 2");
	refused(SEGUE_POLICY_ZERO, 0, "zero is 0;");
	refused(SEGUE_POLICY_ZERO, -0.5, "zero is -0.5;");
	refused(SEGUE_POLICY_ZERO, 1.5, "zero is 1.5;");
	refused(SEGUE_POLICY_ZERO, NAN, "nan;");
	refused(SEGUE_POLICY_CARRY, 0.5, "no policy that has one");
	const struct segue_state_policy half = zero(0.5);
	cr_expect_eq(segue_policy_check(&half, 0, "h"), 0);
}
