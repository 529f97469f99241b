/*
 * A scripted workload: numbered transactions, each a function of its number alone, and the oracle of
 * what is on disk after transaction n. crash_images.c runs and cuts the one that it is linked with.
 *
 * That of the store (script.c) has three lanes, through the code that a server uses (records,
 * accounts, store). Lanes go on by a few batches or not at all, sequences end and their states are
 * kept, rows end and leave the table, lanes are put back to an earlier image (a restore), states
 * are put under keys, pieces of an index come and go. Lane 2 has rows that fill a page of their own.
 *
 * That of the log (log_script.c) appends sequences of several producers, syncs them in groups, tells
 * what stands for the store how far that was, and gives files up.
 */
#ifndef SEGUE_CRASH_SCRIPT_H
#define SEGUE_CRASH_SCRIPT_H

#include "oracle.h"

/* What is made wrong, and must be seen. */
enum mutant_kind {
	MUTANT_LIE,     /* of the disk: TRACE_LIES */
	MUTANT_MISTAKE, /* of the script: whoever writes to what is tested */
	MUTANT_CODE,    /* of the code: mutants.h */
};

struct script_mutant {
	enum mutant_kind kind;
	const char *name, *what;
};

struct script {
	const struct oracle *oracle;
	const struct script_mutant *mutants; /* up to one without a name */
	bool short_write_ends;               /* it takes one for a failure, and does not go on */
	/* Makes what is to be expected after each of the transactions up to `last`. Aborts. */
	void (*init)(uint64_t last);
	/* Learns from a clean run what there is, so that nothing more is there. Aborts; or NULL. */
	void (*learn)(void);
	/*
	 * Opens what is in `dir` as a server does (also what was left in another boot), checks it,
	 * applies the transactions after its own up to `last` (`more` of them at most), closes it.
	 * Marks go to the trace `fd`. A transaction that fails for want of room is tried again;
	 * after any other failure writes must be refused and reads served. Returns 0, or the code
	 * that storage ended with; aborts with a message if a promise is broken.
	 */
	int (*run)(const char *dir, uint64_t last, uint64_t more, int fd, const char *mistake);
};

extern const struct script script;

#endif
