/*
 * Work on a store in a process of its own: the program itself, as `segue child`. A damaged file may
 * kill the process that reads it, which is a verdict; and no process may open a store twice.
 */
#ifndef SEGUE_REPORT_CHILD_H
#define SEGUE_REPORT_CHILD_H

#include "segue/segue.h"

/* ---- The process that waits ---- */

struct segue_child {
	const char *const *arguments; /* which work (main.c has the list), and its own; then NULL */
	const char *what;             /* "verifying the store": for `progress` and messages */
	segue_progress_fn *progress;  /* may be NULL */
	segue_interrupt_fn *interrupt; /* looked at now and then; may be NULL */
	void *arg;                     /* of both */
};

/*
 * Has the work done, and waits for it. What the work has returned: its code and its report
 * (malloc'd; NULL: none, and the detail is the child's). A child that ended by SIGBUS, SIGSEGV,
 * SIGABRT, SIGFPE or SIGILL, or without a word, is SEGUE_ESTORE without a report: reading the file
 * has ended it. Killed by another signal, or before it began (a library that is being replaced), it
 * is SEGUE_ESYSTEM: nothing is known of the store.
 * SEGUE_EGONE: interrupted. SEGUE_ESYSTEM, SEGUE_ENOMEM. The child does not outlive the thread that
 * waits.
 */
int segue_child_run(const struct segue_child *child, char **report);

/* ---- The child ---- */

/* A code and, if it is 0 or SEGUE_ESTORE, perhaps a report (malloc'd; else *report stays NULL). */
typedef int segue_child_fn(char **arguments, char **report);

/* Does the work and tells the process `parent` (its id in decimal). Returns the exit status. */
int segue_child_answer(const char *parent, segue_child_fn *work, char **arguments);
/* A segue_progress_fn for the work: tells the parent. `arg` and `what` are not looked at. */
void segue_child_progress(void *arg, const char *what, uint64_t done, uint64_t total);

#endif
