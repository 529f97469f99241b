/*
 * An oracle: what a store may hold after a power cut. Its lines are counters that a trace's marks
 * move: line i of a sound store lies between the last that was acknowledged and the last that was
 * begun.
 */
#ifndef SEGUE_CRASH_ORACLE_H
#define SEGUE_CRASH_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#define ORACLE_LINES 4
#define ORACLE_WHY   160

enum verdict {
	VERDICT_GOOD = 1, /* exactly what the lines say */
	VERDICT_REFUSED,  /* a typed error before anything was served */
	VERDICT_WRONG,    /* anything else */
	VERDICT_DIED,     /* by a signal */
};

struct oracle {
	const char *name; /* of its program, behind "crash_" */
	int lines;
	/*
	 * Looks at the store in `dir` (the first directory of the image) as a server would that
	 * starts there after the machine did. `seq` gets the lines, `why` what is not right.
	 */
	enum verdict (*check)(const char *dir, uint64_t seq[ORACLE_LINES], char why[ORACLE_WHY]);
};

#endif
