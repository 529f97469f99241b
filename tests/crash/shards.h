/*
 * A sweep over the n-th call or allocation, from a first one on until none is reached any more, with
 * the work divided among processes.
 */
#ifndef SEGUE_TEST_SHARDS_H
#define SEGUE_TEST_SHARDS_H

#include <stdint.h>

/* What a sweep has seen, or all of them together. */
struct crash_outcome {
	uint64_t faults;   /* calls that were killed at, allocations that failed */
	uint64_t last;     /* the last of them */
	uint64_t errors;   /* calls of the library that said so, and were made again */
	uint64_t refusals; /* workers that gave up */
	int64_t ns;        /* of the longest */
};

struct crash_shards {
	uint64_t first, every; /* what is taken */
	uint64_t count;        /* the processes */
	const char *unit;      /* what is counted */
};

/*
 * Reads [EVERY [SHARDS]] behind the first two arguments, chooses one of the first EVERY at random to
 * begin with, and says so.
 */
void crash_shards_read(
	struct crash_shards *shards, int argc, char **argv, const char *program, const char *unit);

/*
 * Runs `sweep` in each process, from `first` on by steps of `step`; dies if one of them failed, or if
 * none has seen a fault.
 */
struct crash_outcome crash_shards_run(const struct crash_shards *shards,
	void (*sweep)(uint64_t first, uint64_t step, struct crash_outcome *outcome));

#endif
