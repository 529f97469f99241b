/*
 * Runs $SEGUE_KILL_PROGRAM with the arguments given, and lets it be killed at its n-th system call:
 * $SEGUE_KILL_AT, the first time; $SEGUE_KILL_REPORT says afterwards what became of it, and that
 * this was the first time.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kill_at.h"

int main(int argc, char **argv)
{
	const char *program = getenv("SEGUE_KILL_PROGRAM"), *report = getenv("SEGUE_KILL_REPORT");
	const char *index = getenv("SEGUE_KILL_AT");

	(void)argc;
	if (!program || !report || !index)
		return 127;
	int first = open(report, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (first >= 0) {
		close(first);
		if (kill_at_arm(strtoull(index, NULL, 10), report) < 0) {
			perror("kill_at");
			return 127;
		}
	}
	execv(program, argv);
	perror(program);
	return 127;
}
