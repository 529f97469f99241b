/*
 * What a lease owes the store: its newest commit, and, once it is over, that nobody holds the lane
 * any more. It is added to one transaction as operations, and learns what became of them.
 *
 *	segue_owed_add --> the transaction --> segue_owed_settle
 *
 * On the committer's thread.
 */
#ifndef SEGUE_ENGINE_OWED_H
#define SEGUE_ENGINE_OWED_H

#include "engine/grant.h"

/* Transactions without memory for a lane after which its worker is told, each time. */
enum { SEGUE_OWED_MISSES_TOLD = 3 };

/* What a lane owes is left for the next transaction. */
enum segue_owed_left {
	SEGUE_OWED_NOTHING_LEFT,
	SEGUE_OWED_NO_MEMORY,  /* for it */
	SEGUE_OWED_NOT_SYNCED, /* the log, as far as the lane has seen */
};

struct segue_owed {
	struct segue_grant *grant;
	enum segue_grant_state state; /* as it was when the transaction began */
	struct segue_image *image;    /* NULL: nothing new was committed */
	size_t first, count;          /* its operations */
	enum segue_owed_left left;
	int rc; /* what became of the transaction */
};

struct segue_owed_means {
	struct segue_store *store;
	/* The lowest step of the lane of which a checkpoint is on its way; SEGUE_NEVER: of none. */
	uint64_t (*pinned)(void *arg, struct segue_place place);
	void *arg;
};

/* The lease is over: its last commit goes to disk. */
static inline bool segue_owed_is_over(const struct segue_owed *owed)
{
	return owed->state != SEGUE_GRANT_WATCHED;
}

/* Whether something is committed that is not on disk, and may be written. */
bool segue_owed_owes(struct segue_grant *grant);
/*
 * Adds what it owes. Without memory, and while the log that it reads is not synced as far, it is
 * left for the next transaction; what else goes wrong (with the lane's own records, or with its
 * worker's words) will not get better: segue_owed_give_up().
 */
void segue_owed_add(
	const struct segue_owed_means *means, struct segue_ops *ops, struct segue_owed *owed);
/* That nobody holds the lane any more, and nothing else. Its position stands. */
int segue_owed_add_release(
	const struct segue_owed_means *means, struct segue_ops *ops, const struct segue_owed *owed);
/* The lane is not written any more, and its holder learns why. */
void segue_owed_give_up(struct segue_owed *owed, int rc);
/* The transaction is over, as `rc` says; frees the image. */
void segue_owed_settle(struct segue_owed *owed);

#endif
