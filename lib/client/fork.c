/* The register of guards, and the handler that runs in a forked child. */
#include "client/fork.h"

#include <pthread.h>
#include <unistd.h>

#include "core/error.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct segue_fork_guard *guards;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int registered;

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void in_parent(void)
{
	pthread_mutex_unlock(&lock);
}

/* Only what is allowed after fork() in a process with threads: no allocation, no message. */
static void in_child(void)
{
	for (struct segue_fork_guard *guard = guards; guard; guard = guard->next) {
		guard->forked = true;
		if (guard->fd >= 0)
			close(guard->fd);
		guard->fd = -1;
	}
	pthread_mutex_unlock(&lock);
}

static void register_handlers(void)
{
	registered = pthread_atfork(before_fork, in_parent, in_child);
}

int segue_fork_guard_init(struct segue_fork_guard *guard)
{
	pthread_once(&once, register_handlers);
	if (registered)
		return segue_fail(SEGUE_ENOMEM, "no memory for a fork handler");
	*guard = (struct segue_fork_guard){.fd = -1};
	pthread_mutex_lock(&lock);
	guard->next = guards;
	guard->link = &guards;
	if (guards)
		guards->link = &guard->next;
	guards = guard;
	pthread_mutex_unlock(&lock);
	return 0;
}

void segue_fork_guard_set(struct segue_fork_guard *guard, int fd)
{
	pthread_mutex_lock(&lock);
	if (guard->fd >= 0)
		close(guard->fd);
	guard->fd = fd;
	pthread_mutex_unlock(&lock);
}

void segue_fork_guard_finish(struct segue_fork_guard *guard)
{
	pthread_mutex_lock(&lock);
	if (guard->link) {
		if (guard->fd >= 0)
			close(guard->fd);
		*guard->link = guard->next;
		if (guard->next)
			guard->next->link = guard->link;
	}
	guard->link = NULL;
	pthread_mutex_unlock(&lock);
}

void segue_fork_lock(void)
{
	pthread_mutex_lock(&lock);
}

void segue_fork_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

int segue_fork_check(const struct segue_fork_guard *guard)
{
	if (!guard->forked)
		return 0;
	return segue_fail(SEGUE_EFORKED,
		"this handle belongs to the process that made it: open segue again after fork()");
}
