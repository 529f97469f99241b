/*
 * SIGKILL at the entry of the n-th system call, counted over all threads of a process and of the
 * processes that it forks (not of those that it spawns).
 */
#ifndef SEGUE_TEST_KILL_AT_H
#define SEGUE_TEST_KILL_AT_H

#include <stdbool.h>
#include <stdint.h>

/* What the tracer leaves in the file `report` when all that it traced has ended. */
struct kill_at_report {
	uint64_t calls; /* seen, until the kill */
	bool killed;
};

/*
 * From here on the calling process is traced, by a process of its own that ends with it: the
 * process that makes call `index` (from 1) is killed before the call does anything. 0: never.
 * 0, or -1 with errno (no right to trace).
 */
int kill_at_arm(uint64_t index, const char *report);

#endif
