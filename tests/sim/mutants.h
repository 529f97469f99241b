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
	X(size_not_durable, "a batch size is told of before it is on disk")                        \
	X(parked_dropped, "states of parked sequences are left out of what is stored")             \
	X(any_class, "a row that gets free is filled from another class")                          \
	X(window_forgotten, "what was looked at and waits is not gone back to")                    \
	X(kept_not_committed, "a row begins with what was kept before all of it is committed")     \
	X(kept_of_another_key, "a row begins with what another key has left")                      \
	X(kept_not_undone, "going back leaves what was kept since")                                \
	X(policy_of_the_row, "a policy draws by the row of the batch, not by the sequence")        \
	X(zeroed_not_read, "an initial value from the data is there for rows that begin alone")    \
	X(slot_freed_by_the_first, "a slot is reused when one group has released it, not all")     \
	X(oldest_slot_not_held, "a group joins at a slot that is being filled anew")               \
	X(states_of_another_group, "who joins a feed gets the states of one who has it")           \
	X(catch_up_skips_a_batch, "a group that catches up is let in one batch too late")          \
	X(joins_by_step_alone, "a group joins where another has other batches at its step")        \
	X(join_looks_once, "a group joins a feed that has gone on since it was looked at")         \
	X(leaver_closes_the_feed, "who leaves a feed closes it, though others go on with it")      \
	X(follower_not_waited_for, "a slot is reused when its holder has released it, not all")    \
	X(nonsense_believed, "a follower's words are taken as they are")                           \
	X(followed_lease_forgotten, "slots that followers of a lease look at end with it")         \
	X(follows_the_ring, "a follower takes what is in the ring, not what its holder has taken") \
	X(token_fillers_position, "an image takes the filler's position, not the commit's")

#endif
