/* Tells a caller how far long work has come, about 200 times in all. */
#ifndef SEGUE_SERVER_PROGRESS_H
#define SEGUE_SERVER_PROGRESS_H

#include "segue/segue.h"

struct segue_progress {
	segue_progress_fn *fn; /* NULL: nobody listens */
	void *arg;
	const char *what;
	uint64_t done, total;
	uint64_t told; /* done when it was told last */
};

/* `units` more are done. */
static inline void segue_progress_add(struct segue_progress *progress, uint64_t units)
{
	progress->done += units;
	if (!progress->fn || (progress->done - progress->told < progress->total / 200 &&
				     progress->done != progress->total))
		return;
	progress->told = progress->done;
	progress->fn(progress->arg, progress->what, progress->done, progress->total);
}

#endif
