/* The queue of changes: asked for by many threads, taken by the committer. */
#include "engine/changes.h"

#include <assert.h>

bool segue_place_same(struct segue_place a, struct segue_place b)
{
	return a.stream == b.stream && a.group == b.group && a.lane == b.lane;
}

/* ---- Asking ---- */

static void enqueue(
	struct segue_changes *changes, struct segue_change *change, void (*done)(void *arg))
{
	change->done = done;
	segue_outcome_take(&change->outcome, 0);
	change->finished = false;
	change->ops = (struct segue_ops){0};
	change->next = NULL;
	pthread_mutex_lock(&changes->lock);
	*changes->last = change;
	changes->last = &change->next;
	pthread_mutex_unlock(&changes->lock);
	changes->wanted(changes->arg);
}

static int await(struct segue_changes *changes, struct segue_change *change)
{
	enqueue(changes, change, NULL);
	pthread_mutex_lock(&changes->lock);
	while (!change->finished)
		pthread_cond_wait(&changes->answered, &changes->lock);
	pthread_mutex_unlock(&changes->lock);
	return segue_outcome_give(&change->outcome);
}

int segue_changes_make(struct segue_changes *changes, struct segue_change *change)
{
	change->ready = NULL;
	return await(changes, change);
}

int segue_changes_apply(struct segue_changes *changes, const struct segue_ops *ops)
{
	struct segue_change change = {.ready = ops};

	return await(changes, &change);
}

void segue_changes_submit(
	struct segue_changes *changes, struct segue_change *change, void (*done)(void *arg))
{
	change->ready = NULL;
	enqueue(changes, change, done);
}

/* ---- Taking ---- */

void segue_changes_init(struct segue_changes *changes, struct segue_loop *loop,
	void (*wanted)(void *arg), void *arg)
{
	*changes = (struct segue_changes){
		.last = &changes->first, .loop = loop, .wanted = wanted, .arg = arg};
	pthread_mutex_init(&changes->lock, NULL);
	pthread_cond_init(&changes->answered, NULL);
}

void segue_changes_finish(struct segue_changes *changes)
{
	assert(!changes->first);
	pthread_cond_destroy(&changes->answered);
	pthread_mutex_destroy(&changes->lock);
}

bool segue_changes_pending(struct segue_changes *changes)
{
	pthread_mutex_lock(&changes->lock);
	bool some = changes->first;
	pthread_mutex_unlock(&changes->lock);
	return some;
}

static bool meet(struct segue_place a, struct segue_place b)
{
	if (a.lane == SEGUE_LANES_ALL || b.lane == SEGUE_LANES_ALL)
		return a.stream == b.stream;
	return segue_place_same(a, b);
}

/* Operations that are ready read nothing of any place. */
static bool is_taken(const struct segue_change *taken, const struct segue_change *change)
{
	if (change->ready)
		return false;
	while (taken && (taken->ready || !meet(taken->place, change->place)))
		taken = taken->next;
	return taken;
}

struct segue_change *segue_changes_take(struct segue_changes *changes)
{
	struct segue_change *taken = NULL, **last = &taken, **link = &changes->first;

	pthread_mutex_lock(&changes->lock);
	while (*link) {
		struct segue_change *change = *link;
		if (is_taken(taken, change)) {
			link = &change->next;
			continue;
		}
		*link = change->next;
		change->next = NULL;
		*last = change;
		last = &change->next;
	}
	changes->last = link;
	pthread_mutex_unlock(&changes->lock);
	return taken;
}

const struct segue_ops *segue_change_ops(const struct segue_change *change)
{
	return change->ready ? change->ready : &change->ops;
}

void segue_changes_build(struct segue_change *list)
{
	for (struct segue_change *change = list; change; change = change->next) {
		int rc = change->ready ? 0 : change->build(change->arg, &change->ops);
		if (!rc)
			continue;
		segue_outcome_take(&change->outcome, rc);
		segue_ops_truncate(&change->ops, 0);
	}
}

void segue_changes_answer(struct segue_changes *changes, struct segue_change *list)
{
	struct segue_change *change, *next, *posted = NULL;

	pthread_mutex_lock(&changes->lock);
	for (change = list; change; change = next) {
		next = change->next;
		segue_ops_finish(&change->ops);
		if (change->done) {
			change->next = posted;
			posted = change;
		} else {
			change->finished = true; /* and may be gone as soon as the lock is */
		}
	}
	pthread_cond_broadcast(&changes->answered);
	pthread_mutex_unlock(&changes->lock);
	for (change = posted; change; change = next) {
		next = change->next;
		segue_loop_post(changes->loop, change->done, change->arg);
	}
}
