/* A small thread pool with one queue. */
#include "os/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/error.h"

struct segue_pool {
	pthread_mutex_t lock;
	pthread_cond_t some;
	struct segue_job *first, **last;
	bool stopping;
	const char *name; /* of the threads */
	uint32_t threads;
	pthread_t thread[];
};

static void *work(void *arg)
{
	struct segue_pool *pool = arg;
	const struct sched_param priority = {0};

	/* By the thread itself: of another one it would take a file in /proc. */
	pthread_setname_np(pthread_self(), pool->name);
	/* Filling ahead can wait: a loader that wakes does not take the worker's core. */
	sched_setscheduler(0, SCHED_BATCH, &priority);
	pthread_mutex_lock(&pool->lock);
	for (;;) {
		struct segue_job *job = pool->first;
		if (!job) {
			if (pool->stopping)
				break;
			pthread_cond_wait(&pool->some, &pool->lock);
			continue;
		}
		pool->first = job->next;
		if (!pool->first)
			pool->last = &pool->first;
		pthread_mutex_unlock(&pool->lock);
		job->fn(job->arg);
		pthread_mutex_lock(&pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

int segue_pool_create(const char *name, uint32_t threads, struct segue_pool **out)
{
	struct segue_pool *pool = calloc(1, sizeof(*pool) + threads * sizeof(pthread_t));

	if (!pool)
		return segue_fail(SEGUE_ENOMEM, "no memory for %u loader threads", threads);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->some, NULL);
	pool->last = &pool->first;
	pool->name = name;
	for (; pool->threads < threads; pool->threads++) {
		int error = pthread_create(&pool->thread[pool->threads], NULL, work, pool);
		if (error) {
			uint32_t started = pool->threads;
			segue_pool_destroy(pool);
			return segue_fail(SEGUE_ESYSTEM,
				"only %u of %u loader threads could be started: give a smaller "
				"num_threads",
				started, threads);
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

void segue_pool_run(struct segue_pool *pool, struct segue_job *job)
{
	job->next = NULL;
	pthread_mutex_lock(&pool->lock);
	*pool->last = job;
	pool->last = &job->next;
	pthread_cond_signal(&pool->some);
	pthread_mutex_unlock(&pool->lock);
}
