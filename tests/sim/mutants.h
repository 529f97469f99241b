/*
 * The mutants: each breaks one rule that the design rests on, and the oracle must see it.
 *
 * A mutant is a branch on SEGUE_MUTANT(name) in the code that ships (the branch is gone from every
 * build but the simulator's), or in the simulator's driver.
 */
#ifndef SEGUE_SIM_MUTANTS_H
#define SEGUE_SIM_MUTANTS_H

/* X(name, what it breaks) */
#define SIM_MUTANTS(X)                                                                             \
	X(no_released_word, "slots are reused when their batch is committed, not when released")   \
	X(copy_without_hold, "states are copied while publication goes on")                        \
	X(ended_rows_not_taken, "a buffer is rewritten before its ended rows are taken")           \
	X(grant_not_durable, "a lease is handed out before its grant is on disk")                  \
	X(offer_of_any_token, "an offer is taken although its lease is not the latest")            \
	X(carry_reused, "the next lease gets the carry of the last one")                           \
	X(wake_without_fence, "sleeper and waker store, then load, without a fence between")       \
	X(resume_takes, "going on after a lost server takes a lane that somebody holds")           \
	X(no_offer_before_taking, "a lane is taken before what an older handle has is offered")    \
	X(mark_forgotten, "a grant that comes late makes good a handle whose lane was taken")      \
	X(last_to_hear_wins, "of two handles that take at once, the last to hear of it is newer")  \
	X(unknown_is_same, "holders of which nothing is known are taken for one process")          \
	X(growth_not_durable, "a stream has grown before its record says so")                      \
	X(token_fillers_position, "an image takes the filler's position, not the commit's")

#endif
