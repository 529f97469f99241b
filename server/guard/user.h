/* A user of the server, by uid: what all its connections together have taken, and its threads. */
#ifndef SEGUE_GUARD_USER_H
#define SEGUE_GUARD_USER_H

#include "core/list.h"
#include "guard/quota.h"
#include "os/pool.h"

LIST_HEAD(segue_users, segue_user);

struct segue_user {
	LIST_ENTRY(segue_user) link;
	uid_t uid;
	char name[24];     /* "uid 1000": for messages */
	unsigned accounts; /* that are its */
	uint64_t taken[SEGUE_LIMIT_COUNT];
	struct segue_pool *helpers; /* made for the first task, */
	struct segue_pool *apart;   /* and for the first that is to be done apart */
};

/* The user of that uid, for one account more. NULL: no memory. */
struct segue_user *segue_user_join(struct segue_users *users, uid_t uid);
/* One account less; the last frees it. */
void segue_user_leave(struct segue_user *user);
/* Has a task done on its threads, which `loop` hears of. SEGUE_ENOMEM, SEGUE_ESYSTEM. */
int segue_user_run(
	struct segue_user *user, struct segue_loop *loop, struct segue_task *task, bool apart);
/* Waits for its tasks, and ends its threads. */
void segue_user_finish_tasks(struct segue_user *user);

#endif
