/*
 * A user of the server, by uid: what all its connections together have taken, and the threads that
 * do its long work, so that one user's work delays no other's.
 *
 * On the loop's thread, but for the work of a task.
 */
#ifndef SEGUE_GUARD_USER_H
#define SEGUE_GUARD_USER_H

#include <stdbool.h>
#include <sys/types.h>

#include "guard/quota.h"
#include "os/pool.h"

struct segue_server;

struct segue_user {
	struct segue_user *next;
	struct segue_server *server;
	uid_t uid;
	char name[24];       /* "uid 1000": for messages */
	unsigned references; /* sessions, and whatever has taken something */
	uint64_t taken[SEGUE_LIMIT_COUNT];
	struct segue_pool *helpers; /* made for the first task, */
	struct segue_pool *apart;   /* and for the first that is to be done apart */
};

/* The user of that uid, with one reference more. NULL: no memory. */
struct segue_user *segue_user_join(struct segue_server *server, uid_t uid);
struct segue_user *segue_user_hold(struct segue_user *user);
/* One reference less; the last frees it. */
void segue_user_release(struct segue_user *user);

/* Takes `more` of what `limit` limits, with a reference, or SEGUE_ELIMIT; gives it back. */
int segue_user_take(struct segue_user *user, enum segue_limit limit, uint64_t more);
void segue_user_give(struct segue_user *user, enum segue_limit limit, uint64_t less);

/* Long work for a user. */
struct segue_task {
	struct segue_job job;
	struct segue_user *user;
	bool apart; /* may last for minutes: one after the other, and no other task waits for it */
	void (*work)(struct segue_task *task); /* on a thread of the user's */
	void (*done)(struct segue_task *task); /* then, on the loop's thread; may free it */
};

/* Has it done; holds the user until then. SEGUE_ENOMEM, SEGUE_ESYSTEM: no thread for it;
 * SEGUE_EGONE once the server is being stopped. */
int segue_user_run(struct segue_user *user, struct segue_task *task,
	void (*work)(struct segue_task *task), void (*done)(struct segue_task *task));

/* Ends the threads of all users: nothing runs any more, what is done is still to be told. */
void segue_users_stop(struct segue_server *server);
/* Frees them all. */
void segue_users_destroy(struct segue_server *server);

#endif
