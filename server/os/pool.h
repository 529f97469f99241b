/* Threads that run jobs in the order they were given: the loader threads of a stream. */
#ifndef SEGUE_OS_POOL_H
#define SEGUE_OS_POOL_H

#include <stdint.h>

struct segue_pool;

/* Starts `threads` threads named `name`, which outlives the pool. SEGUE_ESYSTEM. */
int segue_pool_create(const char *name, uint32_t threads, struct segue_pool **out);
/* Lets the jobs that were given finish, then ends the threads. NULL is fine. */
void segue_pool_destroy(struct segue_pool *pool);
/* fn(arg) will run once on one of the threads. `job` belongs to the pool until it runs. */
struct segue_job {
	struct segue_job *next;
	void (*fn)(void *arg);
	void *arg;
};
void segue_pool_run(struct segue_pool *pool, struct segue_job *job);

#endif
