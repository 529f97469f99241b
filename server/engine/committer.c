/* The committer thread: group commit of leases in force and of what other threads ask for. */
#include "engine/committer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/wait.h"
#include "engine/owed.h"

/* A server that stops waits so long for memory; a lane without any is tried so often. */
#define MEMORY_WAIT_NS  INT64_C(2000000000)
#define MEMORY_RETRY_NS INT64_C(50000000)

struct segue_committer {
	struct segue_store *store;
	struct segue_loop *loop;
	void (*failed)(void *arg, const struct segue_outcome *outcome);
	void *arg;
	pthread_t thread;
	pthread_mutex_t lock; /* of all below, but `changes`, `group` and `owed` */
	pthread_cond_t wanted;
	struct segue_changes changes;
	struct segue_owed_means means;
	struct segue_grant *grants;
	struct segue_pin *pins;
	bool urgent, stopping;
	bool tell_again;    /* somebody waits to hear if this transaction fails, as before or not */
	bool last_try;      /* the server stops: what cannot be written now is given up, */
	bool last;          /* and the transaction under way began after that was said; */
	int64_t last_ns;    /* lack of memory is waited out until then */
	unsigned unwritten; /* leases that ended with commits that are not on disk */
	int storage;        /* last code told to `failed` */
	struct segue_group_commit group;
	struct segue_owed *owed;
	size_t owed_count, owed_capacity;
};

/* For segue_owed_means. */
uint64_t segue_committer_pinned(struct segue_committer *committer, struct segue_place place)
{
	uint64_t lowest = SEGUE_NEVER;

	pthread_mutex_lock(&committer->lock);
	for (const struct segue_pin *pin = committer->pins; pin; pin = pin->next) {
		if (segue_place_same(pin->place, place) && pin->step < lowest)
			lowest = pin->step;
	}
	pthread_mutex_unlock(&committer->lock);
	return lowest;
}

static uint64_t pinned(void *arg, struct segue_place place)
{
	return segue_committer_pinned(arg, place);
}

static int64_t interval_ns(const struct segue_grant *grant)
{
	return grant->spec->interval_ms * INT64_C(1000000);
}

/* ---- One transaction ---- */

/* The grants that are looked at in this transaction. With the lock. */
static int collect(struct segue_committer *committer)
{
	size_t count = 0;

	for (struct segue_grant *grant = committer->grants; grant; grant = grant->next)
		count++;
	if (count > committer->owed_capacity) {
		struct segue_owed *grown = realloc(committer->owed, count * sizeof(*grown));
		if (!grown)
			return segue_fail(SEGUE_ENOMEM, "no memory to write to the store");
		committer->owed = grown;
		committer->owed_capacity = count;
	}
	committer->owed_count = 0;
	committer->last = committer->last_try;
	for (struct segue_grant *grant = committer->grants; grant; grant = grant->next)
		committer->owed[committer->owed_count++] =
			(struct segue_owed){.grant = grant, .state = grant->state};
	return 0;
}

bool segue_committer_covers(
	const struct segue_committer *committer, const struct segue_grant *grant, uint64_t step)
{
	for (size_t i = 0; i < committer->owed_count; i++) {
		const struct segue_owed *owed = &committer->owed[i];
		if (owed->grant == grant && owed->image && owed->image->position->step >= step)
			return true;
	}
	return grant->account.durable >= step;
}

/* ---- The transaction itself ---- */

/* What is wrong with the operations of one lane, not with the storage: it will not get better. */
static bool is_of_one(int rc)
{
	return rc == SEGUE_EINVAL || rc == SEGUE_ELIMIT;
}

/* All operations of the transaction as one list; what they point to stays where it is. */
static int flatten(const struct segue_ops *own, const struct segue_change *changes,
	struct segue_store_op **out, size_t *count)
{
	size_t total = own->count, at = own->count;

	for (const struct segue_change *change = changes; change; change = change->next)
		total += segue_change_ops(change)->count;
	struct segue_store_op *all = malloc((total ? total : 1) * sizeof(*all));
	if (!all)
		return segue_fail(SEGUE_ENOMEM, "no memory to write to the store");
	if (own->count)
		memcpy(all, own->op, own->count * sizeof(*all));
	for (const struct segue_change *change = changes; change; change = change->next) {
		const struct segue_ops *ops = segue_change_ops(change);
		if (ops->count)
			memcpy(all + at, ops->op, ops->count * sizeof(*all));
		at += ops->count;
	}
	*out = all;
	*count = total;
	return 0;
}

/* Whether what is on disk can still be found. A storage that stopped has said worse. */
static int look(const struct segue_committer *committer)
{
	return committer->group.state == SEGUE_GROUP_COMMIT_STOPPED
		       ? 0
		       : segue_store_look(committer->store);
}

static int apply(struct segue_committer *committer, const struct segue_store_op *op, size_t count)
{
	if (count == 0)
		return look(committer);
	if (!segue_group_commit_begin(&committer->group))
		return segue_fail(SEGUE_ESTORE,
			"an earlier write to the store failed: nothing more is written until the "
			"server is started again, which verifies the store first");
	int rc = segue_store_apply(committer->store, op, count);
	segue_group_commit_ended(&committer->group, rc);
	return rc;
}

/* All have the same result, but those that could not even be built. */
static void set_results(struct segue_committer *committer, struct segue_change *changes, int rc)
{
	for (size_t i = 0; i < committer->owed_count; i++)
		committer->owed[i].rc = rc;
	for (; changes; changes = changes->next) {
		if (!changes->outcome.rc)
			segue_outcome_take(&changes->outcome, rc);
	}
}

/* What became of the lane's own part of this transaction. */
static int result_at(const struct segue_committer *committer, struct segue_place place)
{
	for (size_t i = 0; i < committer->owed_count; i++) {
		if (segue_place_same(committer->owed[i].grant->place, place))
			return committer->owed[i].rc;
	}
	return 0;
}

/*
 * A transaction each, so that what is wrong with one of them stays its own affair. A change may
 * have been built on what its lane writes: it fails with it.
 */
static int write_each(struct segue_committer *committer, const struct segue_ops *own,
	struct segue_change *changes)
{
	int storage = 0;

	for (size_t i = 0; i < committer->owed_count; i++) {
		struct segue_owed *owed = &committer->owed[i];
		owed->rc = storage ? storage : apply(committer, own->op + owed->first, owed->count);
		if (is_of_one(owed->rc))
			segue_owed_give_up(owed, owed->rc);
		else
			storage = owed->rc;
	}
	for (; changes; changes = changes->next) {
		const struct segue_ops *ops = segue_change_ops(changes);
		if (changes->outcome.rc)
			continue;
		int rc = storage;
		if (!rc && !changes->ready && result_at(committer, changes->place))
			rc = segue_fail(result_at(committer, changes->place),
				"the store refuses what lane %u has committed, so this is not done "
				"either: the server's log says why",
				changes->place.lane);
		else if (!rc)
			rc = apply(committer, ops->op, ops->count);
		segue_outcome_take(&changes->outcome, rc);
		if (!is_of_one(rc))
			storage = rc;
	}
	return storage;
}

/* 0, or what the storage said; each part has its own result. */
static int write_all(struct segue_committer *committer, const struct segue_ops *own,
	struct segue_change *changes)
{
	struct segue_store_op *all = NULL;
	size_t count = 0;
	int rc = flatten(own, changes, &all, &count);

	if (!rc)
		rc = apply(committer, all, count);
	free(all);
	if (is_of_one(rc))
		return write_each(committer, own, changes);
	set_results(committer, changes, rc);
	return rc;
}

/* ---- What follows it ---- */

struct news {
	void (*failed)(void *arg, const struct segue_outcome *outcome);
	void *arg;
	struct segue_outcome outcome;
};

static void tell(void *arg)
{
	struct news *news = arg;

	news->failed(news->arg, &news->outcome);
	free(news);
}

/* Tells the server when storage fails (`again`: also as before), and when it works again. */
static void tell_storage(struct segue_committer *committer, int rc, bool again)
{
	if (rc == committer->storage && !(again && rc))
		return;
	struct news *news = malloc(sizeof(*news));
	if (!news)
		return;
	news->failed = committer->failed;
	news->arg = committer->arg;
	segue_outcome_take(&news->outcome, rc);
	committer->storage = rc;
	segue_loop_post(committer->loop, tell, news);
}

static void forget(struct segue_committer *committer, struct segue_grant *grant)
{
	struct segue_grant **link = &committer->grants;

	pthread_mutex_lock(&committer->lock);
	while (*link != grant)
		link = &(*link)->next;
	*link = grant->next;
	segue_grant_go(grant, SEGUE_GRANT_FORGOTTEN);
	pthread_mutex_unlock(&committer->lock);
	segue_loop_post(committer->loop, grant->finished, grant->arg);
}

/* That nobody holds the lane any more, where its last commit cannot be written for good. */
static void release_alone(struct segue_committer *committer, struct segue_owed *owed)
{
	struct segue_ops ops = {0};

	if (!segue_owed_add_release(&committer->means, &ops, owed))
		apply(committer, ops.op, ops.count);
	segue_ops_finish(&ops);
}

/* Whether what a lease that is over owes will not be tried again. */
static bool is_hopeless(const struct segue_committer *committer, const struct segue_owed *owed)
{
	bool memory = owed->left == SEGUE_OWED_NO_MEMORY || owed->rc == SEGUE_ENOMEM;

	if (committer->group.state == SEGUE_GROUP_COMMIT_STOPPED)
		return true;
	if (owed->left == SEGUE_OWED_NOT_SYNCED) /* it will be, or the log fails */
		return false;
	return committer->last && (!memory || segue_now_ns() >= committer->last_ns);
}

/* A lease that is over stays until its last commit is on disk, or can never be. */
static void conclude(struct segue_committer *committer)
{
	for (size_t i = 0; i < committer->owed_count; i++) {
		struct segue_owed *owed = &committer->owed[i];
		segue_owed_settle(owed);
		if (!segue_owed_is_over(owed))
			continue;
		if (is_of_one(owed->rc))
			release_alone(committer, owed);
		bool through = !owed->rc && !owed->left;
		bool hopeless = !through && !is_of_one(owed->rc) && is_hopeless(committer, owed);
		committer->unwritten += hopeless && segue_owed_owes(owed->grant);
		if (through || is_of_one(owed->rc) || hopeless)
			forget(committer, owed->grant);
		else if (!owed->left || owed->grant->misses == SEGUE_OWED_MISSES_TOLD)
			segue_loop_post(committer->loop, owed->grant->delayed, owed->grant->arg);
	}
}

static void transact(
	struct segue_committer *committer, struct segue_change *changes, bool tell_again)
{
	struct segue_ops own = {0};

	for (size_t i = 0; i < committer->owed_count; i++)
		segue_owed_add(&committer->means, &own, &committer->owed[i]);
	segue_changes_build(changes);
	bool some = own.count > 0 || changes;
	int rc = some ? write_all(committer, &own, changes) : look(committer);
	/* After ENOSPACE lanes that owe nothing may go on; a storage that stopped stays so. */
	bool well =
		committer->owed_count > 0 && committer->group.state != SEGUE_GROUP_COMMIT_STOPPED;
	if (some || well || rc)
		tell_storage(committer, rc, tell_again);
	segue_changes_answer(&committer->changes, changes);
	conclude(committer);
	segue_ops_finish(&own);
}

/* ---- The thread ---- */

/* When the next transaction is due. With the lock. */
static int64_t due(struct segue_committer *committer, int64_t last)
{
	int64_t when = INT64_MAX;

	if (committer->urgent || segue_changes_pending(&committer->changes))
		return 0;
	for (const struct segue_grant *grant = committer->grants; grant; grant = grant->next) {
		bool soon = committer->last_try || grant->misses > 0;
		int64_t at = last + (soon ? MEMORY_RETRY_NS : interval_ns(grant));
		when = at < when ? at : when;
	}
	return when;
}

static void sleep_until(struct segue_committer *committer, int64_t when)
{
	if (when == INT64_MAX) {
		pthread_cond_wait(&committer->wanted, &committer->lock);
		return;
	}
	struct timespec at = {.tv_sec = when / 1000000000, .tv_nsec = when % 1000000000};
	pthread_cond_timedwait(&committer->wanted, &committer->lock, &at);
}

static void *work(void *arg)
{
	struct segue_committer *committer = arg;
	int64_t last = segue_now_ns();

	pthread_setname_np(pthread_self(), "committer");
	pthread_mutex_lock(&committer->lock);
	for (;;) {
		int64_t when = due(committer, last);
		if (when > segue_now_ns() && !committer->stopping) {
			sleep_until(committer, when);
			continue;
		}
		bool stopping = committer->stopping;
		struct segue_change *changes = segue_changes_take(&committer->changes);
		bool tell_again = committer->tell_again;
		bool collected = collect(committer) == 0;
		if (collected)
			committer->urgent = committer->tell_again = false;
		else
			committer->owed_count = 0;
		pthread_mutex_unlock(&committer->lock);
		last = segue_now_ns();
		transact(committer, changes, tell_again);
		if (!collected)
			usleep(MEMORY_RETRY_NS / 1000);
		pthread_mutex_lock(&committer->lock);
		if (stopping && !segue_changes_pending(&committer->changes))
			break;
	}
	pthread_mutex_unlock(&committer->lock);
	return NULL;
}

static void wake(void *arg)
{
	struct segue_committer *committer = arg;

	pthread_mutex_lock(&committer->lock);
	pthread_cond_signal(&committer->wanted);
	pthread_mutex_unlock(&committer->lock);
}

int segue_committer_create(struct segue_store *store, struct segue_loop *loop,
	void (*failed)(void *arg, const struct segue_outcome *outcome), void *arg,
	struct segue_committer **out)
{
	struct segue_committer *committer = calloc(1, sizeof(*committer));
	pthread_condattr_t attributes;

	if (!committer)
		return segue_fail(SEGUE_ENOMEM, "no memory to start the server");
	committer->store = store;
	committer->means = (struct segue_owed_means){store, pinned, committer};
	committer->loop = loop;
	committer->failed = failed;
	committer->arg = arg;
	segue_changes_init(&committer->changes, loop, wake, committer);
	pthread_mutex_init(&committer->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&committer->wanted, &attributes);
	pthread_condattr_destroy(&attributes);
	int error = pthread_create(&committer->thread, NULL, work, committer);
	if (error) {
		free(committer);
		return segue_fail(SEGUE_ESYSTEM,
			"the thread that writes the store cannot be started: %s (ulimit -u, "
			"pids.max of the cgroup)",
			strerror(error));
	}
	*out = committer;
	return 0;
}

unsigned segue_committer_destroy(struct segue_committer *committer)
{
	if (!committer)
		return 0;
	pthread_mutex_lock(&committer->lock);
	committer->stopping = true;
	pthread_cond_signal(&committer->wanted);
	pthread_mutex_unlock(&committer->lock);
	pthread_join(committer->thread, NULL);
	pthread_cond_destroy(&committer->wanted);
	segue_changes_finish(&committer->changes);
	pthread_mutex_destroy(&committer->lock);
	unsigned unwritten = committer->unwritten;
	free(committer->owed);
	free(committer);
	return unwritten;
}

void segue_committer_add(struct segue_committer *committer, struct segue_grant *grant)
{
	pthread_mutex_lock(&committer->lock);
	segue_grant_go(grant, SEGUE_GRANT_WATCHED);
	grant->next = committer->grants;
	committer->grants = grant;
	pthread_cond_signal(&committer->wanted);
	pthread_mutex_unlock(&committer->lock);
}

void segue_committer_finish(struct segue_committer *committer, struct segue_grant *grant, bool held,
	void (*finished)(void *arg), void (*delayed)(void *arg), void *arg)
{
	pthread_mutex_lock(&committer->lock);
	segue_grant_go(grant, held ? SEGUE_GRANT_LEAVING : SEGUE_GRANT_ENDING);
	grant->finished = finished;
	grant->delayed = delayed;
	grant->arg = arg;
	committer->urgent = true;
	pthread_cond_signal(&committer->wanted);
	pthread_mutex_unlock(&committer->lock);
}

void segue_committer_urge(struct segue_committer *committer)
{
	pthread_mutex_lock(&committer->lock);
	committer->urgent = true;
	pthread_cond_signal(&committer->wanted);
	pthread_mutex_unlock(&committer->lock);
}

void segue_committer_flush(struct segue_committer *committer)
{
	pthread_mutex_lock(&committer->lock);
	committer->urgent = committer->tell_again = true;
	pthread_cond_signal(&committer->wanted);
	pthread_mutex_unlock(&committer->lock);
}

void segue_committer_try_once(struct segue_committer *committer)
{
	pthread_mutex_lock(&committer->lock);
	committer->last_try = true;
	committer->last_ns = segue_now_ns() + MEMORY_WAIT_NS;
	committer->urgent = true;
	pthread_cond_signal(&committer->wanted);
	pthread_mutex_unlock(&committer->lock);
}

struct segue_changes *segue_committer_changes(struct segue_committer *committer)
{
	return &committer->changes;
}

void segue_committer_pin(struct segue_committer *committer, struct segue_pin *pin)
{
	pthread_mutex_lock(&committer->lock);
	pin->next = committer->pins;
	committer->pins = pin;
	pthread_mutex_unlock(&committer->lock);
}

void segue_committer_unpin(struct segue_committer *committer, struct segue_pin *pin)
{
	struct segue_pin **link = &committer->pins;

	pthread_mutex_lock(&committer->lock);
	while (*link != pin)
		link = &(*link)->next;
	*link = pin->next;
	pthread_mutex_unlock(&committer->lock);
}
