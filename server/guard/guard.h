/*
 * The guard: who may connect; what a connection may take and read, on whose account and on whose
 * threads. Nobody else in the server knows of users.
 *
 * All connections of a user pay together, and have threads of their own for what takes long, so that
 * one user's work delays no other's. What is limited, and how far, the table in quota.c says;
 * docs/deploy.md says what for. On the loop's thread, where nothing else is said.
 */
#ifndef SEGUE_GUARD_GUARD_H
#define SEGUE_GUARD_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "os/pool.h"

/* ---- What whoever runs the server says ---- */

enum segue_limit {
	SEGUE_LIMIT_CONNECTIONS, /* of a user */
	SEGUE_LIMIT_STREAMS,     /* open in a connection */
	SEGUE_LIMIT_LANES,       /* held, or asked for, by a connection */
	SEGUE_LIMIT_MEMORY,      /* bytes of rings, carries, lanes and indexes of a user */
	SEGUE_LIMIT_UPLOADS,     /* bytes of uploads of a user */
	SEGUE_LIMIT_DESCRIPTORS, /* open for a user */
	SEGUE_LIMIT_THREADS,     /* of the streams that a user has opened */
	SEGUE_LIMIT_FRAMES,      /* a second, from a connection: read more slowly, not refused */
	SEGUE_LIMIT_QUEUE,       /* bytes that wait for a connection that does not read */
	SEGUE_LIMIT_COUNT,
};

struct segue_limits {
	uint64_t value[SEGUE_LIMIT_COUNT];
};

/* Names and text of a limit, for the help. */
struct segue_limit_info {
	const char *flag;     /* "max-connections" */
	const char *variable; /* "SEGUE_MAX_CONNECTIONS" */
	const char *unit;     /* " N" or " BYTES" */
	const char *text;     /* one line */
	const char *normal;   /* the default, in words */
};
const struct segue_limit_info *segue_limit_info(enum segue_limit limit);

/*
 * The defaults (half of the machine's or the cgroup's memory, half of the descriptors that this
 * process may have), then what the environment says. SEGUE_EINVAL names the variable.
 */
int segue_limits_init(struct segue_limits *limits);
/* From the command line: "512", "64K", "2G". SEGUE_EINVAL names the flag and its bounds. */
int segue_limits_set(struct segue_limits *limits, enum segue_limit limit, const char *value);

struct segue_roots;
/*
 * Opens the directories. SEGUE_EINVAL: not absolute, or not a directory; SEGUE_ESYSTEM: this kernel
 * (or its filter of system calls) has no openat2, without which there can be no roots.
 */
int segue_roots_create(char *const *dirs, size_t count, struct segue_roots **out);
void segue_roots_destroy(struct segue_roots *roots);

struct segue_rules {
	struct segue_limits limits;
	struct segue_roots *roots; /* files are read beneath these alone; NULL: anywhere */
	/* Who may connect, beside root and the server's own user. */
	uid_t *users;
	gid_t *groups;
	size_t user_count, group_count;
};

/* ---- The guard ---- */

struct segue_guard;

/* `rules`, `loop` and `dir`, the store's directory, for messages, outlive it. SEGUE_ENOMEM. */
int segue_guard_create(const struct segue_rules *rules, struct segue_loop *loop, const char *dir,
	struct segue_guard **out);
/* From now on no task is begun: the server is being stopped. */
void segue_guard_close(struct segue_guard *guard);
/* Closes it, and waits for the tasks that were begun: nothing runs any more; they are still to be told. */
void segue_guard_finish_tasks(struct segue_guard *guard);
/* When all accounts have been released. NULL is fine. */
void segue_guard_destroy(struct segue_guard *guard);
/* Who may open the socket at `path` at all: one group, if it is only one that is let in, else all who
 * are told apart when they connect. SEGUE_ESYSTEM. */
int segue_guard_open_socket(const struct segue_guard *guard, const char *path);
uint64_t segue_guard_limit(const struct segue_guard *guard, enum segue_limit limit);
/* Whether a connection that has `have` may take `more`: 0, or SEGUE_ELIMIT, which names the flag. */
int segue_guard_check(
	const struct segue_guard *guard, enum segue_limit limit, uint64_t have, uint64_t more);
/* Tells of each user what all connections together have taken. */
void segue_guard_visit(const struct segue_guard *guard,
	void (*visit)(void *arg, uid_t uid, const uint64_t taken[SEGUE_LIMIT_COUNT]), void *arg);

/* ---- Accounts ---- */

/* On what a connection takes and reads. Held by all who have taken something on it. */
struct segue_account;

/*
 * The account of whoever is at the other end of a connected socket; the caller holds it. SEGUE_EINVAL
 * says that this user may not connect. SEGUE_ESYSTEM, SEGUE_ENOMEM.
 */
int segue_guard_admit(struct segue_guard *guard, int socket, struct segue_account **out);
struct segue_account *segue_account_hold(struct segue_account *account);
/* The last one frees it. NULL is fine. */
void segue_account_release(struct segue_account *account);
uid_t segue_account_uid(const struct segue_account *account);
/* Takes `more` of what its user may take, or SEGUE_ELIMIT; gives it back. */
int segue_account_take(struct segue_account *account, enum segue_limit limit, uint64_t more);
void segue_account_give(struct segue_account *account, enum segue_limit limit, uint64_t less);
/*
 * Has a task done on a thread of the user's; the caller holds the account until it is. `apart`: it may last for
 * minutes, and is done one after the other with its like, so that no other task waits for it.
 * SEGUE_ENOMEM, SEGUE_ESYSTEM: no thread for it; SEGUE_EGONE: the guard is closed.
 */
int segue_account_run(struct segue_account *account, struct segue_task *task, bool apart);
/* Whether it may read whatever the other one may, without being asked. */
bool segue_account_reads_as(const struct segue_account *account, const struct segue_account *other);

/* ---- Files ---- */

struct segue_reader;

/*
 * Through what files are opened. Beneath roots only, if there are any: component by component with
 * openat2, following no symbolic link, never a FIFO or a device. A client of another user must be able
 * to read the file itself, and to search the directories from the root on. No roots: with the server's
 * own rights, anywhere. From any thread.
 */
struct segue_opener {
	const struct segue_roots *roots;
	const struct segue_reader *reader;
	const _Atomic bool *given_up; /* nobody waits for what is read any more; may be NULL */
};

/*
 * A plain file, for reading: its fd and what it is. NULL: an opener without roots. SEGUE_ESOURCE:
 * not there, not beneath a root, a symbolic link on the way, no right to read it, not a plain file.
 */
int segue_opener_open(const struct segue_opener *opener, const char *path, struct stat *info);
/* Whether there is something of that name: 1, 0, or SEGUE_ESOURCE if it may not be looked at. */
int segue_opener_exists(const struct segue_opener *opener, const char *path);
/* A directory to be listed, or NULL and errno. */
void *segue_opener_list(const struct segue_opener *opener, const char *path);
/* lstat(), as the reader: 0, or -1 and errno. */
int segue_opener_look(const struct segue_opener *opener, const char *path, struct stat *info);
/* The opener of an account, good for as long as that is held. */
struct segue_opener segue_account_opener(
	const struct segue_account *account, const _Atomic bool *given_up);

/* ---- Rate ---- */

/* How fast a connection may send: a rate, and a burst of one second's worth. */
struct segue_rate {
	int64_t paid_until; /* monotonic ns: when all that was taken would be due */
};

/* Takes `cost` frames at `now`. */
void segue_rate_take(struct segue_rate *rate, uint64_t per_second, unsigned cost, int64_t now);
/* When more may be taken: `now` or earlier if at once. */
int64_t segue_rate_open_at(const struct segue_rate *rate);

#endif
