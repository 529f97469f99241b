/*
 * Policies of states: what a row that goes on is handed instead of the state that it left.
 *
 * docs/policy.md defines the draws. They depend on nothing but the spec and on which segment of
 * which sequence the row is, so library and server draw the same. What is committed is never
 * changed by a policy. Pure.
 */
#ifndef SEGUE_CORE_POLICY_H
#define SEGUE_CORE_POLICY_H

#include "segue/segue.h"

struct segue_state_policy {
	enum segue_policy kind;
	double probability; /* or 0 */
};

/* Philox4x32-10: turns the counter into four random words. */
void segue_philox(const uint32_t key[2], uint32_t counter[4]);

/*
 * Whether a state, at place `state` of a stream's, is handed out as its initial value to a row with
 * segment `segment`, not the first, of sequence `number`.
 */
bool segue_policy_zeroes(const struct segue_state_policy *policy, uint64_t seed, size_t state,
	uint64_t number, uint32_t segment);

/*
 * A person's own seed for sequence `number`, or with `segment` not NULL for that segment of it: 63
 * bits, and no draw that a policy makes.
 */
int64_t segue_seed_for(uint64_t seed, uint64_t number, const uint32_t *segment);

/* SEGUE_EINVAL says what is wrong with the policy of state `state`, called `name`. */
int segue_policy_check(const struct segue_state_policy *policy, size_t state, const char *name);

#define SEGUE_POLICY_TEXT 40
/* "carry", "zero(0.1)" */
const char *segue_policy_print(
	const struct segue_state_policy *policy, char text[SEGUE_POLICY_TEXT]);

/* The bits of the probability, which are hashed and compared. */
uint64_t segue_policy_bits(const struct segue_state_policy *policy);

#endif
