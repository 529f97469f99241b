/* A small thread pool with one queue. */
#include "os/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "os/loop.h"

struct segue_pool {
	pthread_mutex_t lock;
	pthread_cond_t some;
	struct segue_task *first, **last;
	bool stopping;
	struct segue_pool_options options;
	uint32_t threads; /* that were started */
	pthread_t thread[];
};

static void tell_done(void *arg)
{
	struct segue_task *task = arg;

	segue_loop_arrive(task->loop);
	task->done(task);
}

static void run(struct segue_task *task)
{
	if (!task->done) {
		task->work(task);
		return;
	}
	segue_outcome_take(&task->outcome, task->work(task));
	segue_loop_post(task->loop, tell_done, task);
}

static void *work(void *arg)
{
	struct segue_pool *pool = arg;
	const struct sched_param priority = {0};

	/* By the thread itself: of another one it would take a file in /proc. */
	pthread_setname_np(pthread_self(), pool->options.name);
	/* Filling ahead can wait: a loader that wakes does not take the worker's core. */
	sched_setscheduler(0, SCHED_BATCH, &priority);
	if (pool->options.nice)
		setpriority(PRIO_PROCESS, 0, pool->options.nice); /* Linux: of this thread alone */
	pthread_mutex_lock(&pool->lock);
	for (;;) {
		struct segue_task *task = pool->first;
		if (!task) {
			if (pool->stopping)
				break;
			pthread_cond_wait(&pool->some, &pool->lock);
			continue;
		}
		pool->first = task->next;
		if (!pool->first)
			pool->last = &pool->first;
		pthread_mutex_unlock(&pool->lock);
		run(task);
		pthread_mutex_lock(&pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

int segue_pool_create(const struct segue_pool_options *options, struct segue_pool **out)
{
	uint32_t threads = options->threads;
	struct segue_pool *pool = calloc(1, sizeof(*pool) + threads * sizeof(pthread_t));

	if (!pool)
		return segue_fail(SEGUE_ENOMEM, "no memory for %u %s thread%s", threads,
			options->name, threads == 1 ? "" : "s");
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->some, NULL);
	pool->last = &pool->first;
	pool->options = *options;
	for (; pool->threads < threads; pool->threads++) {
		int error = pthread_create(&pool->thread[pool->threads], NULL, work, pool);
		if (error) {
			uint32_t started = pool->threads;
			segue_pool_destroy(pool);
			return segue_fail(SEGUE_ESYSTEM,
				"only %u of %u %s threads could be started: %s (ulimit -u, ulimit "
				"-v, pids.max of the cgroup); give a smaller num_threads, or raise "
				"the limit",
				started, threads, options->name, strerror(error));
		}
	}
	*out = pool;
	return 0;
}

void segue_pool_destroy(struct segue_pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->stopping = true;
	pthread_cond_broadcast(&pool->some);
	pthread_mutex_unlock(&pool->lock);
	for (uint32_t i = 0; i < pool->threads; i++)
		pthread_join(pool->thread[i], NULL);
	pthread_cond_destroy(&pool->some);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

void segue_pool_run(struct segue_pool *pool, struct segue_task *task)
{
	task->loop = pool->options.loop;
	task->next = NULL;
	if (task->done)
		segue_loop_await(task->loop);
	pthread_mutex_lock(&pool->lock);
	*pool->last = task;
	pool->last = &task->next;
	pthread_cond_signal(&pool->some);
	pthread_mutex_unlock(&pool->lock);
}

bool segue_pool_waits(struct segue_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	bool waits = pool->first != NULL;
	pthread_mutex_unlock(&pool->lock);
	return waits;
}
