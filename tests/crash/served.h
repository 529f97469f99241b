/*
 * A scripted worker of a real server, at durability "commit": two lanes, two states, all a function
 * of sequence and segment; and the oracle of the store that the server leaves.
 *
 * A line of the oracle is a lane: generation * SERVED_STEPS + step, which only grows.
 */
#ifndef SEGUE_CRASH_SERVED_H
#define SEGUE_CRASH_SERVED_H

#include "oracle.h"

#define SERVED_LANES 2
#define SERVED_STEPS 1000

/* Writes the data set. */
void served_data(const char *path);

struct served_session {
	const char *dir, *data;
	int trace;                         /* for marks */
	uint64_t generation[SERVED_LANES]; /* that the lanes have had before */
	uint64_t step[SERVED_LANES];       /* where they stand */
	uint64_t rounds;
	bool restore; /* lane 0 goes back by a token after half of them */
};

/*
 * Connects to the server of `dir`, takes the lanes, goes on by some batches, gives the lanes back.
 * 0, or the code that a call failed with: nothing is tried after that,
 * the process is to end. Aborts if a state that comes
 * in is not the one that was committed.
 */
int served_work(struct served_session *session);

extern const struct oracle served_oracle;

#endif
