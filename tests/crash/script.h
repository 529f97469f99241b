/*
 * The scripted workload: numbered transactions of three lanes, each a function of its number alone,
 * through the code that a server uses (records, accounts, store); and the oracle of what the store
 * holds after transaction n.
 *
 * Lanes go on by a few batches or not at all, sequences end and their states are kept, rows end and
 * leave the table, lanes are put back to an earlier image (a restore), pieces of an index come and
 * go. Lane 2 has rows that fill a page of their own. Only script.c knows records.h.
 */
#ifndef SEGUE_CRASH_SCRIPT_H
#define SEGUE_CRASH_SCRIPT_H

#include "oracle.h"

/* X(name, what is wrong): mistakes of the program that writes; the others are in the code. */
#define SCRIPT_MISTAKES(X)                                                                         \
	X(ack_before_commit, "a transaction is acknowledged before it is applied")                 \
	X(position_apart, "positions have a transaction of their own")                             \
	X(restore_apart, "a restore removes the old rows in a transaction of its own")

/* Makes the states after each of the transactions up to `last`. Aborts without memory. */
void script_init(uint64_t last);
/* Learns from a clean run which values there are, so that nothing more is there. Aborts. */
void script_learn(void);

/*
 * Opens the store in `dir` as a server does (verifies it in a child process if it was left in
 * another boot), checks it, applies the transactions after its own up to `last` (`more` of
 * them at most), closes it. Marks go to the trace `fd`. A transaction that fails for want of room is tried again, as the committer
 * does; after any other failure the store must refuse writes and serve reads. Returns 0, or the
 * code that storage ended with; aborts with a message if a promise is broken.
 */
int script_run(const char *dir, uint64_t last, uint64_t more, int fd, const char *mistake);

extern const struct oracle script_oracle;

#endif
