/*
 * Changes of the store that other threads ask the committer for: a queue, from which each
 * transaction takes its share.
 *
 * Who asks waits (make, apply), or is called back on the loop's thread (submit). What the committer
 * alone does with the queue stands below.
 */
#ifndef SEGUE_ENGINE_CHANGES_H
#define SEGUE_ENGINE_CHANGES_H

#include <pthread.h>

#include "core/error.h"
#include "os/loop.h"
#include "store/key.h"
#include "store/ops.h"

/* As the lane of a change: of all lanes of all groups of its stream. */
#define SEGUE_LANES_ALL UINT32_MAX

/*
 * A change of what the store holds of a lane that depends on what it holds: `build` is called on
 * the committer's thread, before the transaction that its operations become part of. A transaction
 * takes one change of a place at most, and none beside one of all lanes: what `build` reads of it
 * is as the last transaction left it, but for the newest commit of a lease in force, which is in
 * the same transaction.
 */
struct segue_change {
	struct segue_place place;
	int (*build)(void *arg, struct segue_ops *ops);
	void *arg;
	struct segue_outcome outcome; /* of `build`, or of the transaction */
	/* The queue's. */
	const struct segue_ops *ready; /* instead of `build` */
	void (*done)(void *arg);
	bool finished;
	struct segue_ops ops;
	struct segue_change *next;
};

struct segue_changes {
	pthread_mutex_t lock;
	pthread_cond_t answered;
	struct segue_change *first, **last; /* that wait for a transaction */
	struct segue_loop *loop;
	void (*wanted)(void *arg); /* called after each that is added, without the lock */
	void *arg;
};

/* Writes it in the next transaction, at once, and waits for it. From any thread but the loop's. */
int segue_changes_make(struct segue_changes *changes, struct segue_change *change);
/*
 * The same for these operations. What segue_store_apply says; SEGUE_ESTORE once storage has failed.
 */
int segue_changes_apply(struct segue_changes *changes, const struct segue_ops *ops);
/* The same without waiting, from any thread: done(arg) is called on the loop's thread. */
void segue_changes_submit(
	struct segue_changes *changes, struct segue_change *change, void (*done)(void *arg));

/* ---- The committer's ---- */

void segue_changes_init(struct segue_changes *changes, struct segue_loop *loop,
	void (*wanted)(void *arg), void *arg);
/* None may wait. */
void segue_changes_finish(struct segue_changes *changes);
/* Whether some wait for a transaction. */
bool segue_changes_pending(struct segue_changes *changes);
/* Takes those that the next transaction takes: of each place the first. */
struct segue_change *segue_changes_take(struct segue_changes *changes);
/* Each of a list adds its own operations, or learns why it cannot. */
void segue_changes_build(struct segue_change *list);
const struct segue_ops *segue_change_ops(const struct segue_change *change);
/* Tells those who asked. None of the list may be touched afterwards. */
void segue_changes_answer(struct segue_changes *changes, struct segue_change *list);

bool segue_place_same(struct segue_place a, struct segue_place b);

#endif
