/*
 * The guard: who may connect; what a connection may take and read, on whose account and on whose
 * threads. Nobody else in the server knows of users.
 *
 * All connections of a user pay together, and have threads of their own for what takes long, so
 * that one user's work delays no other's. What is limited, and how far, the table in quota.c says;
 * docs/deploy.md says what for. On the loop's thread, where nothing else is said.
 */
#ifndef SEGUE_GUARD_GUARD_H
#define SEGUE_GUARD_GUARD_H

#include "guard/quota.h"
#include "guard/roots.h"
#include "os/pool.h"

/* What whoever runs the server says. */
struct segue_rules {
	struct segue_limits limits;
	struct segue_roots *roots; /* files are read beneath these alone; NULL: anywhere */
	/* Who may connect, beside root and the server's own user. */
	uid_t *users;
	gid_t *groups;
	size_t user_count, group_count;
};

struct segue_guard;

/* `rules`, `loop` and `dir`, the store's directory, for messages, outlive it. SEGUE_ENOMEM. */
int segue_guard_create(const struct segue_rules *rules, struct segue_loop *loop, const char *dir,
	struct segue_guard **out);
/* From now on no task is begun: the server is being stopped. */
void segue_guard_close(struct segue_guard *guard);
/*
 * Closes it, and waits for the tasks that were begun: nothing runs any more; they are still to be
 * told.
 */
void segue_guard_finish_tasks(struct segue_guard *guard);
/* When all accounts have been released. NULL is fine. */
void segue_guard_destroy(struct segue_guard *guard);
/*
 * Who may open the socket at `path` at all: one group, if it is only one that is let in, else all
 * who are told apart when they connect. SEGUE_ESYSTEM.
 */
int segue_guard_open_socket(const struct segue_guard *guard, const char *path);
uint64_t segue_guard_limit(const struct segue_guard *guard, enum segue_limit limit);
/*
 * Whether a connection that has `have` may take `more`: 0, or SEGUE_ELIMIT, which names the flag.
 */
int segue_guard_check(
	const struct segue_guard *guard, enum segue_limit limit, uint64_t have, uint64_t more);
/* Tells of each user what all connections together have taken. */
void segue_guard_visit(const struct segue_guard *guard,
	void (*visit)(void *arg, uid_t uid, const uint64_t taken[SEGUE_LIMIT_COUNT]), void *arg);

/* ---- Accounts ---- */

/* On what a connection takes and reads. Held by all who have taken something on it. */
struct segue_account;

/*
 * The account of whoever is at the other end of a connected socket; the caller holds it.
 * SEGUE_EINVAL says that this user may not connect. SEGUE_ESYSTEM, SEGUE_ENOMEM.
 */
int segue_guard_admit(struct segue_guard *guard, int socket, struct segue_account **out);
struct segue_account *segue_account_hold(struct segue_account *account);
/* The last one frees it. NULL is fine. */
void segue_account_release(struct segue_account *account);
uid_t segue_account_uid(const struct segue_account *account);
/*
 * Takes `more` of what its user may take, or SEGUE_ELIMIT; gives it back. From any thread, for
 * whoever holds the account.
 */
int segue_account_take(struct segue_account *account, enum segue_limit limit, uint64_t more);
void segue_account_give(struct segue_account *account, enum segue_limit limit, uint64_t less);
/*
 * Has a task done on a thread of the user's; the caller holds the account until it is. `apart`: it
 * may last for minutes, and is done one after the other with its like, so that no other task waits
 * for it. SEGUE_ENOMEM, SEGUE_ESYSTEM: no thread for it; SEGUE_EGONE: the guard is closed.
 */
int segue_account_run(struct segue_account *account, struct segue_task *task, bool apart);
/* Whether it may read whatever the other one may, without being asked. */
bool segue_account_reads_as(const struct segue_account *account, const struct segue_account *other);

/* The opener of an account, good for as long as that is held. */
struct segue_opener segue_account_opener(
	const struct segue_account *account, const _Atomic bool *given_up);

#endif
