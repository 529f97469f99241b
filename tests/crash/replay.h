/*
 * Replays a trace: at each point where power could be cut it makes images of the disk, lets an
 * oracle look at each distinct one in a child process, and holds the answer against what was begun
 * and acknowledged there.
 *
 * A point is an event, or an O_DSYNC write before it has returned. Images of three strengths: what
 * a disk that keeps its word may leave must be a whole transaction; after a torn meta page (inside a
 * sector) the store may also be refused; where a disk lied about a sync it is refused, or whole,
 * however old. It is never served otherwise.
 */
#ifndef SEGUE_CRASH_REPLAY_H
#define SEGUE_CRASH_REPLAY_H

#include <stdio.h>

#include "disk.h"
#include "oracle.h"

enum strength { STRENGTH_WORD, STRENGTH_TORN, STRENGTH_LIE };

struct replay {
	const struct disk *base; /* where the trace begins */
	const struct trace *trace;
	const struct oracle *oracle;
	uint64_t seed;
	unsigned random; /* images at random a point, beside those that are counted through */
	unsigned jobs;
	bool after_fault;   /* only points behind the first TRACE_INJECTED */
	bool first_only;    /* stop at the first violation: for mutants */
	const char *save;   /* where a violation is put; NULL: nowhere */
	const char *mutant; /* for the line that repeats a violation; "": none */
};

struct replayed {
	uint64_t events, points, images, violations, deaths;
	uint64_t torn, torn_whole, torn_refused; /* images of STRENGTH_TORN */
	uint64_t lies, lies_whole, lies_refused; /* of STRENGTH_LIE */
	char first[2 * ORACLE_WHY];              /* the first violation */
};

/* Adds to *sum. Prints each of the first few violations. */
void replay_run(const struct replay *replay, struct replayed *sum);

/*
 * The images that replay_run() makes, one in `every`, for a second power cut: `visit` finds each
 * written into `root`.
 */
void replay_sample(const struct replay *replay, const char *root, unsigned every,
	void (*visit)(void *arg, uint64_t point, uint64_t index), void *arg);

/* Writes image `index` of point `point` into `root`. False: there is none. */
bool replay_image(const struct replay *replay, uint64_t point, uint64_t index, const char *root);

/* The first line of an image's directory: where the store is. */
#define REPLAY_STORE "run"

#endif
