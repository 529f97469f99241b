/*
 * A log and all around it: a server, producers, lanes, a store; what they were told, and whether it
 * stays true. One seed decides everything.
 */
#ifndef SEGUE_SIM_LOG_WORLD_H
#define SEGUE_SIM_LOG_WORLD_H

#include <stdbool.h>
#include <stdint.h>

/* What can happen to a run, or come of it: counted over all runs. */
#define SIMLOG_EVENTS(X)                                                                           \
	X(KILLED, "server killed inside a call")                                                   \
	X(STOPPED, "server killed between calls")                                                  \
	X(POWER_CUT, "power cut")                                                                  \
	X(FAILED, "log failed for good")                                                           \
	X(FULL, "insert refused, the disk is full")                                                \
	X(ACKNOWLEDGED, "sequence acknowledged")                                                   \
	X(AGAIN, "sequence sent again that was there")                                             \
	X(FENCED, "insert of a producer that was taken over")                                      \
	X(TAKEN_OVER, "producer taken over")                                                       \
	X(DIED, "producer died and resumed")                                                       \
	X(STORED, "transaction of lanes")                                                          \
	X(LEFT_OUT, "lane left out, the log is not synced as far")                                 \
	X(OFFERED, "lane offered its position to a new server")                                    \
	X(REFUSED, "offer refused, the log lost what it saw")                                      \
	X(CUT_BACK, "sequences lost that nobody was told of")                                      \
	X(GIVEN_UP, "files given up")                                                              \
	X(TOKEN, "token handed out")                                                               \
	X(RESTORED, "token found to fit")                                                          \
	X(EXPIRED, "token whose sequences were given up")                                          \
	X(CLOSED, "producer closed")                                                               \
	X(ENDED, "input ended")

enum simlog_event {
#define X(name, text) SIMLOG_##name,
	SIMLOG_EVENTS(X)
#undef X
		SIMLOG_EVENT_KINDS
};
extern uint64_t simlog_happened[SIMLOG_EVENT_KINDS];

struct simlog_failure {
	bool failed;
	char text[512];
};

/* Runs one history. */
struct simlog_failure simlog_run(uint64_t seed, const char *mutant, bool trace);

#endif
