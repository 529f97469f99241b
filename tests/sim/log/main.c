/*
 * sim_log: runs seeded histories of a log, and looks for one that breaks a promise.
 *
 *	sim_log [--seeds N] [--seed S] [--mutant NAME | --mutants] [--trace]
 *
 * As sim: seeds S, S+1, ... With --mutants it succeeds if each of them is caught.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "mutants.h"
#include "world.h"

#define ENOUGH       2000  /* histories, that every kind of event must have happened */
#define MUTANT_SEEDS 20000 /* ... at most, until a mutant is caught */

static bool tell_events(bool all)
{
	static const char *const texts[] = {
#define X(name, text) text,
		SIMLOG_EVENTS(X)
#undef X
	};
	bool missing = false;

	for (unsigned i = 0; i < SIMLOG_EVENT_KINDS; i++) {
		bool never = all && simlog_happened[i] == 0;

		printf("%10" PRIu64 " %s%s\n", simlog_happened[i], texts[i],
			never ? ": NEVER, so nothing is known about it" : "");
		missing |= never;
	}
	return !missing;
}

static int run_all(uint64_t seed, uint64_t seeds, const char *mutant, bool trace)
{
	struct simlog_failure failure = {0};
	uint64_t runs = 0;

	for (; runs < seeds && !failure.failed; runs++)
		failure = simlog_run(seed + runs, mutant, trace);
	if (failure.failed)
		printf("seed %" PRIu64 "%s%s: %s\n", seed + runs - 1, mutant ? " --mutant " : "",
			mutant ? mutant : "", failure.text);
	printf("%s: %" PRIu64 " histories from seed %" PRIu64 "\n",
		mutant ? (failure.failed ? "caught" : "NOT CAUGHT")
		       : (failure.failed ? "FAILED" : "ok"),
		runs, seed);
	if (!mutant && !failure.failed && !tell_events(runs >= ENOUGH))
		return 1;
	return failure.failed == (mutant != NULL) ? 0 : 1;
}

static int run_mutants(uint64_t seed)
{
	int rc = 0;

#define X(name, what) rc |= run_all(seed, MUTANT_SEEDS, #name, false);
	SIMLOG_MUTANTS(X)
#undef X
	return rc;
}

int main(int argc, char **argv)
{
	uint64_t seed = 1, seeds = 2000;
	const char *mutant = NULL;
	bool mutants = false, trace = false;

	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "0";

		if (strcmp(argv[i], "--trace") == 0) {
			trace = true;
		} else if (strcmp(argv[i], "--mutants") == 0) {
			mutants = true;
		} else if (strcmp(argv[i], "--seeds") == 0) {
			seeds = strtoull(value, NULL, 10);
			i++;
		} else if (strcmp(argv[i], "--seed") == 0) {
			seed = strtoull(value, NULL, 10);
			i++;
		} else if (strcmp(argv[i], "--mutant") == 0) {
			mutant = value;
			i++;
		} else {
			fprintf(stderr, "usage: sim_log [--seeds N] [--seed S] "
					"[--mutant NAME | --mutants] [--trace]\n");
			return 2;
		}
	}
	return mutants ? run_mutants(seed) : run_all(seed, seeds, mutant, trace);
}
