/* VERIFY: every value of a store read and checked, in a process of its own. */
#ifndef SEGUE_REPORT_VERIFIER_H
#define SEGUE_REPORT_VERIFIER_H

#include <stdbool.h>

#include "report/child.h"

struct segue_verifier {
	bool if_due;                   /* only if the last end makes it necessary */
	segue_progress_fn *progress;   /* may be NULL */
	segue_interrupt_fn *interrupt; /* looked at now and then; may be NULL */
	void *arg;                     /* of both */
};

/*
 * Verifies the store of `dir` and waits for it. 0, or SEGUE_ESTORE if it is damaged: both write
 * *report, JSON that the caller frees; the detail names the first place. SEGUE_EGONE: interrupted
 * (who started the server tries again). Any other code: it could not be verified.
 */
int segue_verifier_run(const char *dir, const struct segue_verifier *how, char **report);

/* The work "verify" of a child: a directory, and perhaps "if due". */
segue_child_fn segue_verifier_work;

#endif
