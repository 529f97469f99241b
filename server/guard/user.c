/* Users: found by uid; the threads for their long work. */
#include "guard/user.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/error.h"

enum { HELPERS = 2, HELPER_NICE = 10 }; /* what serves everybody comes first */

struct segue_user *segue_user_join(struct segue_users *users, uid_t uid)
{
	struct segue_user *user;

	LIST_FOREACH(user, users, link) {
		if (user->uid == uid)
			break;
	}
	if (!user) {
		user = calloc(1, sizeof(*user));
		if (!user)
			return NULL;
		user->uid = uid;
		snprintf(user->name, sizeof(user->name), "uid %u", (unsigned)uid);
		LIST_INSERT_HEAD(users, user, link);
	}
	user->accounts++;
	return user;
}

void segue_user_leave(struct segue_user *user)
{
	if (--user->accounts > 0)
		return;
	LIST_REMOVE(user, link);
	segue_user_finish_tasks(user); /* none: they hold an account */
	free(user);
}

int segue_user_run(
	struct segue_user *user, struct segue_loop *loop, struct segue_task *task, bool apart)
{
	const struct segue_pool_options options = {.name = "helper",
		.threads = apart ? 1 : HELPERS,
		.nice = HELPER_NICE,
		.loop = loop};
	struct segue_pool **pool = apart ? &user->apart : &user->helpers;

	int rc = *pool ? 0 : segue_pool_create(&options, pool);
	if (!rc)
		segue_pool_run(*pool, task);
	return rc;
}

void segue_user_finish_tasks(struct segue_user *user)
{
	segue_pool_destroy(user->helpers);
	segue_pool_destroy(user->apart);
	user->helpers = user->apart = NULL;
}
