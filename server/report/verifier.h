/*
 * Verifying a store in a process of its own: the program itself, as `segue verify`. A damaged file
 * may end the process that reads it, and no process may open a store twice.
 */
#ifndef SEGUE_REPORT_VERIFIER_H
#define SEGUE_REPORT_VERIFIER_H

#include "segue/segue.h"

struct segue_verifier {
	bool if_due;                   /* only if the last end makes it necessary */
	segue_progress_fn *progress;   /* may be NULL */
	segue_interrupt_fn *interrupt; /* looked at now and then; may be NULL */
	void *arg;                     /* of both */
};

/*
 * Verifies the store of `dir` and waits for it. 0, or SEGUE_ESTORE if it is damaged: both write
 * *json, the report of `segue verify --json`, which the caller frees; the detail names the first
 * place. Else SEGUE_EGONE: interrupted (who started the server tries again), or SEGUE_ESYSTEM: it
 * could not be verified.
 */
int segue_verifier_run(const char *dir, const struct segue_verifier *how, char **json);

#endif
