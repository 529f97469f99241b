/*
 * Mutants of the log: each breaks one rule that its promises rest on, and the oracle must see it.
 * They are branches on SEGUE_MUTANT(name) in the code that ships, or in the server of world.c.
 */
#ifndef SEGUE_SIM_LOG_MUTANTS_H
#define SEGUE_SIM_LOG_MUTANTS_H

/* X(name, what it breaks) */
#define SIMLOG_MUTANTS(X)                                                                          \
	X(headers_alone, "headers of entries are checked, their blocks are not")                   \
	X(serials_not_kept, "a new file does not say what producers inserted before it")           \
	X(cache_believed, "after a failed sync the cache is taken for the disk")                   \
	X(closing_not_durable, "an end is told before it is stored")                               \
	X(end_before_sync, "an end is stored before the log is synced as far")                     \
	X(store_before_sync, "a lane is stored before the log is synced as far")                   \
	X(ack_before_sync, "a sequence is acknowledged before it is synced")                       \
	X(resume_before_sync, "a producer goes on behind what is not synced")                      \
	X(token_before_sync, "a token is handed out before the log is synced as far")              \
	X(offer_not_checked, "a lane's offer is taken though the log lost what it saw")            \
	X(given_up_first, "files are removed before the store has that they are given up")         \
	X(checkpoint_not_counted, "what a kept checkpoint needs is given up")                      \
	X(place_given_up, "the place that a lane has seen is given up")                            \
	X(taken_over_goes_on, "a producer that was taken over still inserts")

#endif
