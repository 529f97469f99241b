/* Policies of states, drawn by Philox4x32-10. */
#include "core/policy.h"

#include <stdio.h>
#include <string.h>

#include "core/error.h"

#define ROUNDS 10

/* In the place of a state's number, of which there are SEGUE_STATES_MAX at most. */
#define OF_SEQUENCE UINT32_MAX
#define OF_SEGMENT  (UINT32_MAX - 1)

void segue_philox(const uint32_t key[2], uint32_t counter[4])
{
	uint32_t low = key[0], high = key[1];

	for (int round = 0; round < ROUNDS; round++) {
		uint64_t a = (uint64_t)counter[0] * 0xD2511F53;
		uint64_t b = (uint64_t)counter[2] * 0xCD9E8D57;

		counter[0] = (uint32_t)(b >> 32) ^ counter[1] ^ low;
		counter[1] = (uint32_t)b;
		counter[2] = (uint32_t)(a >> 32) ^ counter[3] ^ high;
		counter[3] = (uint32_t)a;
		low += 0x9E3779B9;
		high += 0xBB67AE85;
	}
}

/* What Philox draws for (number, segment, which) with this seed: two of its words. */
static uint64_t draw(uint64_t seed, uint64_t number, uint32_t segment, uint32_t which)
{
	uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
	uint32_t word[4] = {(uint32_t)number, (uint32_t)(number >> 32), segment, which};

	segue_philox(key, word);
	return (uint64_t)word[1] << 32 | word[0];
}

bool segue_policy_zeroes(const struct segue_state_policy *policy, uint64_t seed, size_t state,
	uint64_t number, uint32_t segment)
{
	if (policy->kind != SEGUE_POLICY_ZERO)
		return false;
	/* 53 bits, which a double has: both sides of the comparison are exact. */
	uint64_t drawn = draw(seed, number, segment, (uint32_t)state) >> 11;
	return (double)drawn < policy->probability * 0x1p53;
}

int64_t segue_seed_for(uint64_t seed, uint64_t number, const uint32_t *segment)
{
	uint32_t which = segment ? OF_SEGMENT : OF_SEQUENCE;

	return (int64_t)(draw(seed, number, segment ? *segment : 0, which) >> 1);
}

int segue_policy_check(const struct segue_state_policy *policy, size_t state, const char *name)
{
	bool zero = policy->kind == SEGUE_POLICY_ZERO;

	if (!zero && policy->kind != SEGUE_POLICY_CARRY)
		return segue_fail(SEGUE_EINVAL, "states[%zu] \"%s\": there is no policy %d", state,
			name, (int)policy->kind);
	if (zero && !(policy->probability > 0 && policy->probability <= 1))
		return segue_fail(SEGUE_EINVAL,
			"states[%zu] \"%s\": the probability of policy zero is %g; it must be "
			"above 0, and at most 1",
			state, name, policy->probability);
	if (!zero && segue_policy_bits(policy) != 0)
		return segue_fail(SEGUE_EINVAL,
			"states[%zu] \"%s\": a probability of %g is given, and no policy that has "
			"one: SEGUE_POLICY_ZERO has",
			state, name, policy->probability);
	return 0;
}

const char *segue_policy_print(
	const struct segue_state_policy *policy, char text[SEGUE_POLICY_TEXT])
{
	if (policy->kind == SEGUE_POLICY_CARRY)
		return "carry";
	snprintf(text, SEGUE_POLICY_TEXT, "zero(%.17g)", policy->probability);
	return text;
}

uint64_t segue_policy_bits(const struct segue_state_policy *policy)
{
	uint64_t bits;

	_Static_assert(sizeof(bits) == sizeof(policy->probability), "IEEE 754, as on the wire");
	memcpy(&bits, &policy->probability, sizeof(bits));
	return bits;
}
