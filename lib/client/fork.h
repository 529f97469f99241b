/*
 * What a forked child must not keep: fds of the parent's connections, and the right to use them.
 *
 * Each object of the library that owns such an fd has a guard. In a child made by fork() every
 * guard's fd is closed without a word to the server, and the guard is marked. Functions may be
 * called from any thread; one guard belongs to one thread.
 */
#ifndef SEGUE_CLIENT_FORK_H
#define SEGUE_CLIENT_FORK_H

#include <stdbool.h>

struct segue_fork_guard {
	struct segue_fork_guard *next, **link;
	int fd;      /* -1: none */
	bool forked; /* this is a child: the object is the parent's */
};

/* Registers the guard, with no fd. SEGUE_ENOMEM. A guard must not be moved afterwards. */
int segue_fork_guard_init(struct segue_fork_guard *guard);
/* Takes `fd` over (-1: none) and closes the one that was there. */
void segue_fork_guard_set(struct segue_fork_guard *guard, int fd);
/* Closes the fd and unregisters; a zeroed guard is fine. */
void segue_fork_guard_finish(struct segue_fork_guard *guard);

/*
 * The lock of all guards, which is held across fork(): what is done under it is whole in a child.
 * No function of this header may be called under it but segue_fork_check().
 */
void segue_fork_lock(void);
void segue_fork_unlock(void);

/* SEGUE_EFORKED in a child, else 0. */
int segue_fork_check(const struct segue_fork_guard *guard);

#endif
