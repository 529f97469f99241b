/*
 * The committer: the one thread that writes to the store. Every interval it takes the newest commit
 * of each lease in force, and writes them all, with whatever else waits, in one transaction (group
 * commit).
 */
#ifndef SEGUE_ENGINE_COMMITTER_H
#define SEGUE_ENGINE_COMMITTER_H

#include "engine/changes.h"
#include "engine/grant.h"

struct segue_committer;

/*
 * Starts the thread. `failed` is called on the loop's thread when a transaction fails (code) or,
 * after SEGUE_ENOSPACE or SEGUE_EMOVED, one succeeds again (0). Where nothing is to be written it
 * is looked whether the store is in its place (segue_store_look()). What the store refuses because
 * of one lane's operations (SEGUE_EINVAL, SEGUE_ELIMIT) is that lane's affair:
 * segue_grant_refuse(), and the others are written.
 */
int segue_committer_create(struct segue_store *store, struct segue_loop *loop,
	void (*failed)(void *arg, const struct segue_outcome *outcome), void *arg,
	struct segue_committer **out);
/*
 * Ends the thread after a last transaction. Returns how many leases have ended with commits that
 * could not be written. NULL is fine.
 */
unsigned segue_committer_destroy(struct segue_committer *committer);

/* Watches a lease in force: its commits go to disk from now on. */
void segue_committer_add(struct segue_committer *committer, struct segue_grant *grant);
/*
 * The lease is over: its last commit goes to disk at once (with held = `held` in the record), then
 * `finished` is called on the loop's thread and the committer knows the grant no more. Each time
 * that it could not be written and will be tried again (no room), `delayed` is called there, after
 * `failed`.
 */
void segue_committer_finish(struct segue_committer *committer, struct segue_grant *grant, bool held,
	void (*finished)(void *arg), void (*delayed)(void *arg), void *arg);
/* A transaction is wanted now (durability = commit). */
void segue_committer_urge(struct segue_committer *committer);
/* The same, and `failed` is called if it fails, even if the one before did. */
void segue_committer_flush(struct segue_committer *committer);
/*
 * From now on a lease that is over is forgotten even if its last commit could not be written (no
 * room): a server that is told to stop does not wait for room, and for memory 2 s.
 */
void segue_committer_try_once(struct segue_committer *committer);
/* Through these other threads have it write. Its own; as long as it. */
struct segue_changes *segue_committer_changes(struct segue_committer *committer);
/*
 * Inside a change's `build`: whether the grant's batches below `step`, and the rows that ended in
 * them, are in the store or in this transaction.
 */
bool segue_committer_covers(
	const struct segue_committer *committer, const struct segue_grant *grant, uint64_t step);

/* A checkpoint of this step is on its way: final states that came with it must stay undoable. */
struct segue_pin {
	struct segue_pin *next;
	struct segue_place place;
	uint64_t step;
};
void segue_committer_pin(struct segue_committer *committer, struct segue_pin *pin);
void segue_committer_unpin(struct segue_committer *committer, struct segue_pin *pin);
/* The lowest step of a lane of which a checkpoint is on its way; SEGUE_NEVER: of none. */
uint64_t segue_committer_pinned(struct segue_committer *committer, struct segue_place place);

#endif
