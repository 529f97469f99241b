/* What the programs of tests/crash have in common: they run under crash_shim.so, and start others. */
#ifndef SEGUE_CRASH_LAUNCH_H
#define SEGUE_CRASH_LAUNCH_H

#include "replay.h"

/*
 * Runs this program again with crash_shim.so (beside it) preloaded, so that it finds itself in
 * another boot than what it records; returns in the second run. Then sets a place for temporary
 * files in memory, unless TMPDIR names one.
 */
void launch_under_shim(char **argv);
/* This program. */
const char *launch_self(void);
/* In a child: what the shim is to do in the program that comes. NULL: not that. */
void launch_environment(const char *root, const char *trace, const char *fail, const char *lie);
/* Ends with `what` and errno. */
void launch_die(const char *what) __attribute__((noreturn));

/* Zeroed memory that children share. */
void *launch_shared(size_t size);

double launch_seconds(void);

/* What the programs are told. */
struct launch_options {
	uint64_t images, seed, every;
	uint64_t point, index; /* of the image that is looked at again, with `random` and `again` */
	unsigned random;
	const char *again;  /* a kept violation; NULL: none */
	const char *mutant; /* "": none; NULL: this program has no mutants */
	bool mutants;       /* all of them */
};

/*
 * Reads the command line: what is not given stays as it is, but the seed, which is SEGUE_TEST_SEED or
 * the time. Ends with status 2 if it is wrong.
 */
void launch_read(struct launch_options *options, int argc, char **argv);

/* Replays; what is violated is replayed once more, and kept in a directory that is named. */
void launch_replay(struct replay *replay, const char *trace, struct replayed *sum);
/* One line of figures, and one of weaker images if there were any. */
void launch_print(const char *what, const struct replayed *sum, double since, uint64_t seed);
/* Writes that a trace has. */
uint64_t launch_writes(const struct trace *trace);

/* What a trace with a failure in it says of one line. */
struct outcome {
	bool injected, acknowledged; /* after the failure */
	uint64_t low[ORACLE_LINES], high[ORACLE_LINES];
	uint64_t failed; /* the last code that a transaction ended with */
};
struct outcome launch_outcome(const struct trace *trace);

/*
 * What the store below `root` is after a restart without a power cut, as a process of its own sees
 * it: exact, and between what was acknowledged and begun?
 */
bool launch_restarts(const struct oracle *oracle, const char *root, const struct outcome *outcome);

/* Looks at one image of a kept violation again, and says what it is. */
bool launch_again(const struct oracle *oracle, const char *kept, uint64_t point, uint64_t index,
	unsigned random, uint64_t seed);

/* How a call is made to fail. */
struct launch_error {
	const char *name;
	int number; /* 0: a short write */
	bool ends;  /* nothing may be acknowledged afterwards */
};
extern const struct launch_error launch_errors[];
#define LAUNCH_ERRORS 4

#endif
