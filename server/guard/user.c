/* Users: what each has taken, and the threads for its long work. */
#include "guard/user.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/error.h"
#include "session/server.h"

enum { HELPERS = 2, HELPER_NICE = 10 };

struct segue_user *segue_user_join(struct segue_server *server, uid_t uid)
{
	struct segue_user *user = server->users;

	while (user && user->uid != uid)
		user = user->next;
	if (user)
		return segue_user_hold(user);
	user = calloc(1, sizeof(*user));
	if (!user)
		return NULL;
	user->server = server;
	user->uid = uid;
	user->references = 1;
	snprintf(user->name, sizeof(user->name), "uid %u", (unsigned)uid);
	user->next = server->users;
	server->users = user;
	return user;
}

struct segue_user *segue_user_hold(struct segue_user *user)
{
	user->references++;
	return user;
}

static void destroy_pools(struct segue_user *user)
{
	segue_pool_destroy(user->helpers);
	segue_pool_destroy(user->apart);
	user->helpers = user->apart = NULL;
}

void segue_user_release(struct segue_user *user)
{
	struct segue_user **link = &user->server->users;

	if (--user->references > 0)
		return;
	while (*link != user)
		link = &(*link)->next;
	*link = user->next;
	destroy_pools(user); /* idle: a task holds its user */
	free(user);
}

int segue_user_take(struct segue_user *user, enum segue_limit limit, uint64_t more)
{
	const struct segue_limits *limits = &user->server->options.limits;

	int rc = segue_limits_check(limits, limit, user->taken[limit], more, user->name);
	if (rc && limit == SEGUE_LIMIT_DESCRIPTORS) {
		segue_session_settle(user->server); /* some may have been read since */
		rc = segue_limits_check(limits, limit, user->taken[limit], more, user->name);
	}
	if (rc)
		return rc;
	user->taken[limit] += more;
	segue_user_hold(user);
	return 0;
}

void segue_user_give(struct segue_user *user, enum segue_limit limit, uint64_t less)
{
	user->taken[limit] -= less;
	segue_user_release(user);
}

/* ---- Tasks ---- */

static void tell_done(void *arg)
{
	struct segue_task *task = arg;
	struct segue_user *user = task->user;

	user->server->jobs--;
	task->done(task);
	segue_user_release(user);
}

static void run_task(void *arg)
{
	struct segue_task *task = arg;

	/* Of this thread: what serves everybody comes first. */
	setpriority(PRIO_PROCESS, (id_t)gettid(), HELPER_NICE);
	task->work(task);
	segue_loop_post(task->user->server->loop, tell_done, task);
}

int segue_user_run(struct segue_user *user, struct segue_task *task,
	void (*work)(struct segue_task *task), void (*done)(struct segue_task *task))
{
	/* A stop waits for all that was begun: what came after it could put it off for ever. */
	if (user->server->stopping || user->server->ended)
		return segue_fail(SEGUE_EGONE, "the server is being stopped");
	struct segue_pool **pool = task->apart ? &user->apart : &user->helpers;
	if (!*pool) {
		int rc = segue_pool_create("helper", task->apart ? 1 : HELPERS, pool);
		if (rc)
			return rc;
	}
	task->user = segue_user_hold(user);
	task->work = work;
	task->done = done;
	task->job = (struct segue_job){.fn = run_task, .arg = task};
	user->server->jobs++;
	segue_pool_run(*pool, &task->job);
	return 0;
}

void segue_users_stop(struct segue_server *server)
{
	server->ended = true;
	for (struct segue_user *user = server->users; user; user = user->next)
		destroy_pools(user);
}

void segue_users_destroy(struct segue_server *server)
{
	while (server->users) {
		struct segue_user *next = server->users->next;
		destroy_pools(server->users);
		free(server->users);
		server->users = next;
	}
}
