/*
 * Work for other threads: tasks, and pools of threads that run them in the order they were given.
 * What is said of a task's loop happens on its thread.
 */
#ifndef SEGUE_OS_POOL_H
#define SEGUE_OS_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

struct segue_loop;
struct segue_pool;

/* Work for another thread; the first member of what it is about. */
struct segue_task {
	/* On a thread of the pool. Its code, with that thread's detail, becomes `outcome`. */
	int (*work)(struct segue_task *task);
	/*
	 * Then, on the loop's thread; may free the task. NULL: nobody is told, and the pool knows
	 * the task no more once `work` is called, which may give it to a pool again, or free it.
	 */
	void (*done)(struct segue_task *task);
	struct segue_outcome outcome;
	/* The pool's. */
	struct segue_loop *loop;
	struct segue_task *next;
};

struct segue_pool_options {
	const char *name; /* of the threads; outlives the pool */
	uint32_t threads;
	int nice;                /* of the threads */
	struct segue_loop *loop; /* outlives the pool; NULL: its tasks have no `done` */
};

/* Starts the threads. SEGUE_ESYSTEM, SEGUE_ENOMEM. */
int segue_pool_create(const struct segue_pool_options *options, struct segue_pool **out);
/* Lets the tasks that were given finish, then ends the threads. NULL is fine. */
void segue_pool_destroy(struct segue_pool *pool);
/*
 * Has `work` and `done` called. With `done`: on the loop's thread, which waits for it
 * (segue_loop_awaited()).
 */
void segue_pool_run(struct segue_pool *pool, struct segue_task *task);
/* Whether a task waits for a thread; work that can be done in pieces lets it go first. */
bool segue_pool_waits(struct segue_pool *pool);

#endif
