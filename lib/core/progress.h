/* Tells a caller how far long work has come, about 200 times in all, and hears whether to go on. */
#ifndef SEGUE_CORE_PROGRESS_H
#define SEGUE_CORE_PROGRESS_H

#include <stdatomic.h>

#include "core/error.h"

struct segue_progress {
	segue_progress_fn *fn; /* NULL: nobody listens */
	void *arg;
	const char *what;
	uint64_t done, total;
	uint64_t told;                /* done when it was told last */
	const _Atomic bool *given_up; /* set by another thread; may be NULL */
};

/* SEGUE_EGONE once it is set. NULL: never. */
static inline int segue_check_given_up(const _Atomic bool *given_up)
{
	/* relaxed: a hint */
	if (!given_up || !atomic_load_explicit(given_up, memory_order_relaxed))
		return 0;
	return segue_fail(
		SEGUE_EGONE, "nobody waits for it any more, or the server is being stopped");
}

/* `units` more are done. SEGUE_EGONE: no more are wanted. */
static inline int segue_progress_add(struct segue_progress *progress, uint64_t units)
{
	int rc = segue_check_given_up(progress->given_up);

	if (rc)
		return rc;
	progress->done += units;
	if (!progress->fn || (progress->done - progress->told < progress->total / 200 &&
				     progress->done != progress->total))
		return 0;
	progress->told = progress->done;
	progress->fn(progress->arg, progress->what, progress->done, progress->total);
	return 0;
}

#endif
