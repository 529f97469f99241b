/*
 * Followers of a lease: replicas that read its batches, and write nothing but how far they are.
 *
 * Each has a page of its own, like the head of a carry. What it writes there is a hint until it is
 * checked: each word is loaded once, must not go back, and must stay below what was published; one
 * that breaks this is `broken`, releases nothing more, and is to be thrown out. Its holder is none
 * the worse for it.
 *
 * All functions want the feed's lock. Pure but for the shared words.
 */
#ifndef SEGUE_LANE_FOLLOWER_H
#define SEGUE_LANE_FOLLOWER_H

#include "lane/carry.h"

struct segue_follower {
	struct segue_follower *next;      /* of the same carry */
	struct segue_carry_header *words; /* mapped; the follower writes them */
	uint64_t committed, released;     /* greatest values seen, checked */
	bool broken;
};

/*
 * Formats the words of a follower that begins with batch `step`, and adds it to those of the carry:
 * from now on the gate waits for it. `words`, fresh and zeroed, stay the caller's.
 */
void segue_followers_add(struct segue_carry *carry, struct segue_follower *follower,
	struct segue_carry_header *words, uint64_t step);
void segue_followers_remove(struct segue_carry *carry, struct segue_follower *follower);

/* Looks at the words of all: the step below which none of them reads; SEGUE_NEVER without any. */
uint64_t segue_followers_observe(const struct segue_carry *carry, uint64_t published);

/*
 * Tells the holder, in its page, that so many follow it, and which are `missing`; `gone` says of
 * one that went, or is NULL.
 */
void segue_followers_tell(
	struct segue_carry *carry, uint32_t count, const char *missing, const char *gone);

#endif
