/* The guard: who is let in, and the accounts of those who are. */
#include "guard/guard.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/error.h"
#include "core/list.h"

enum { HELPERS = 2, HELPER_NICE = 10 }; /* what serves everybody comes first */

/* A user, by uid: what all its connections together have taken, and its threads. */
struct user {
	LIST_ENTRY(user) link;
	uid_t uid;
	char name[24];     /* "uid 1000": for messages */
	unsigned accounts; /* that are its */
	_Atomic uint64_t taken[SEGUE_LIMIT_COUNT];
	struct segue_pool *helpers; /* made for the first task, */
	struct segue_pool *apart;   /* and for the first that is to be done apart */
};

struct segue_guard {
	const struct segue_rules *rules;
	struct segue_loop *loop;
	const char *dir;
	LIST_HEAD(, user) users;
	bool closed; /* no task is begun any more */
};

struct segue_account {
	struct segue_guard *guard;
	struct user *user;
	struct segue_reader reader;
	unsigned holders;
};

/* ---- Users ---- */

/* Waits for its tasks, and ends its threads. */
static void finish_tasks(struct user *user)
{
	segue_pool_destroy(user->helpers);
	segue_pool_destroy(user->apart);
	user->helpers = user->apart = NULL;
}

/* The user of that uid, for one account more. NULL: no memory. */
static struct user *join(struct segue_guard *guard, uid_t uid)
{
	struct user *user;

	LIST_FOREACH(user, &guard->users, link) {
		if (user->uid == uid)
			break;
	}
	if (!user) {
		user = calloc(1, sizeof(*user));
		if (!user)
			return NULL;
		user->uid = uid;
		snprintf(user->name, sizeof(user->name), "uid %u", (unsigned)uid);
		LIST_INSERT_HEAD(&guard->users, user, link);
	}
	user->accounts++;
	return user;
}

static void leave(struct user *user)
{
	if (--user->accounts > 0)
		return;
	LIST_REMOVE(user, link);
	finish_tasks(user); /* none: they hold an account */
	free(user);
}

/* ---- The guard ---- */

int segue_guard_create(const struct segue_rules *rules, struct segue_loop *loop, const char *dir,
	struct segue_guard **out)
{
	struct segue_guard *guard = calloc(1, sizeof(*guard));

	if (!guard)
		return segue_fail(SEGUE_ENOMEM, "no memory to start");
	*guard = (struct segue_guard){.rules = rules, .loop = loop, .dir = dir};
	*out = guard;
	return 0;
}

void segue_guard_close(struct segue_guard *guard)
{
	guard->closed = true;
}

void segue_guard_finish_tasks(struct segue_guard *guard)
{
	struct user *user;

	segue_guard_close(guard);
	LIST_FOREACH(user, &guard->users, link)
		finish_tasks(user);
}

void segue_guard_destroy(struct segue_guard *guard)
{
	free(guard);
}

int segue_guard_open_socket(const struct segue_guard *guard, const char *path)
{
	const struct segue_rules *rules = guard->rules;
	bool one_group = rules->group_count == 1 && rules->user_count == 0;

	if (rules->group_count == 0 && rules->user_count == 0)
		return 0;
	if (one_group && chown(path, (uid_t)-1, rules->groups[0]) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM,
			"the socket %s cannot be given to group %u: run the server with that group",
			path, (unsigned)rules->groups[0]);
	if (chmod(path, one_group ? 0660 : 0666) < 0)
		return segue_fail_errno(
			SEGUE_ESYSTEM, "cannot set the mode of the socket %s", path);
	return 0;
}

uint64_t segue_guard_limit(const struct segue_guard *guard, enum segue_limit limit)
{
	return guard->rules->limits.value[limit];
}

int segue_guard_check(
	const struct segue_guard *guard, enum segue_limit limit, uint64_t have, uint64_t more)
{
	return segue_limits_check(&guard->rules->limits, limit, have, more, "this connection");
}

void segue_guard_visit(const struct segue_guard *guard,
	void (*visit)(void *arg, uid_t uid, const uint64_t taken[SEGUE_LIMIT_COUNT]), void *arg)
{
	uint64_t taken[SEGUE_LIMIT_COUNT];
	const struct user *user;

	LIST_FOREACH(user, &guard->users, link) {
		for (size_t i = 0; i < SEGUE_LIMIT_COUNT; i++)
			taken[i] = atomic_load_explicit(&user->taken[i], memory_order_relaxed);
		visit(arg, user->uid, taken);
	}
}

/* ---- Who is let in ---- */

static bool admitted(const struct segue_rules *rules, const struct segue_reader *peer)
{
	if (segue_reader_trusted(peer))
		return true;
	for (size_t i = 0; i < rules->user_count; i++) {
		if (rules->users[i] == peer->uid)
			return true;
	}
	for (size_t i = 0; i < rules->group_count; i++) {
		if (segue_reader_in_group(peer, rules->groups[i]))
			return true;
	}
	return false;
}

static int admit(struct segue_account *account, int socket)
{
	int rc = segue_reader_of_socket(socket, &account->reader);

	if (rc)
		return rc;
	if (!admitted(account->guard->rules, &account->reader))
		return segue_fail(SEGUE_EINVAL,
			"uid %u may not use the server of %s, which runs as uid %u (segue serve "
			"--allow-user, --allow-group)",
			(unsigned)account->reader.uid, account->guard->dir, (unsigned)geteuid());
	account->user = join(account->guard, account->reader.uid);
	return account->user ? 0 : segue_fail(SEGUE_ENOMEM, "no memory for a user");
}

int segue_guard_admit(struct segue_guard *guard, int socket, struct segue_account **out)
{
	struct segue_account *account = calloc(1, sizeof(*account));

	if (!account)
		return segue_fail(SEGUE_ENOMEM, "no memory for a user");
	account->guard = guard;
	account->holders = 1;
	int rc = admit(account, socket);
	if (rc)
		segue_account_release(account);
	else
		*out = account;
	return rc;
}

/* ---- Accounts ---- */

struct segue_account *segue_account_hold(struct segue_account *account)
{
	account->holders++;
	return account;
}

void segue_account_release(struct segue_account *account)
{
	if (!account || --account->holders > 0)
		return;
	if (account->user)
		leave(account->user);
	segue_reader_finish(&account->reader);
	free(account);
}

uid_t segue_account_uid(const struct segue_account *account)
{
	return account->reader.uid;
}

int segue_account_take(struct segue_account *account, enum segue_limit limit, uint64_t more)
{
	const struct segue_limits *limits = &account->guard->rules->limits;
	_Atomic uint64_t *taken = &account->user->taken[limit];
	uint64_t have = atomic_load_explicit(taken, memory_order_relaxed);
	int rc;

	/* Counts alone, by which nothing else is ordered. */
	do
		rc = segue_limits_check(limits, limit, have, more, account->user->name);
	while (!rc && !atomic_compare_exchange_weak_explicit(taken, &have, have + more,
			      memory_order_relaxed, memory_order_relaxed));
	return rc;
}

void segue_account_give(struct segue_account *account, enum segue_limit limit, uint64_t less)
{
	atomic_fetch_sub_explicit(&account->user->taken[limit], less, memory_order_relaxed);
}

int segue_account_run(struct segue_account *account, struct segue_task *task, bool apart)
{
	const struct segue_pool_options options = {.name = "helper",
		.threads = apart ? 1 : HELPERS,
		.nice = HELPER_NICE,
		.loop = account->guard->loop};
	struct segue_pool **pool = apart ? &account->user->apart : &account->user->helpers;

	/* A stop waits for all that was begun: what came after it could put it off for ever. */
	if (account->guard->closed)
		return segue_fail(SEGUE_EGONE, "the server is being stopped");
	int rc = *pool ? 0 : segue_pool_create(&options, pool);
	if (!rc)
		segue_pool_run(*pool, task);
	return rc;
}

bool segue_account_reads_as(const struct segue_account *account, const struct segue_account *other)
{
	return !account->guard->rules->roots || segue_reader_trusted(&account->reader) ||
	       account->reader.uid == other->reader.uid;
}

struct segue_opener segue_account_opener(
	const struct segue_account *account, const _Atomic bool *given_up)
{
	return (struct segue_opener){account->guard->rules->roots, &account->reader, given_up};
}
