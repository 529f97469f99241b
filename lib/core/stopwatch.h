/* For how long, all times together, something was the case. */
#ifndef SEGUE_CORE_STOPWATCH_H
#define SEGUE_CORE_STOPWATCH_H

#include "core/wait.h"

/* Zeroed: it never was, and is not. The caller keeps others off. */
struct segue_stopwatch {
	int64_t since;  /* it has been the case; 0: it is not */
	int64_t before; /* ns, of the times before */
};

/* It is the case from now on, or is not. The clock is read only where that changes. */
static inline void segue_stopwatch_set(struct segue_stopwatch *watch, bool runs)
{
	if (runs == (watch->since != 0))
		return;
	int64_t now = segue_now_ns();
	watch->before += runs ? 0 : now - watch->since;
	watch->since = runs ? now : 0;
}

/* ns, by now. */
static inline int64_t segue_stopwatch_read(const struct segue_stopwatch *watch)
{
	return watch->before + (watch->since ? segue_now_ns() - watch->since : 0);
}

#endif
