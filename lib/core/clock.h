/* The time of day, for dates that people read. Deadlines use segue_now_ns() (wait.h). */
#ifndef SEGUE_CORE_CLOCK_H
#define SEGUE_CORE_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Unix time in milliseconds. */
static inline int64_t segue_unix_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif
