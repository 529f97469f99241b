/* What leases owe the store, as operations of a transaction. */
#include "engine/owed.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/barrier.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/wait.h"
#include "engine/snapshot.h"
#include "store/checkpoints.h"
#include "store/finals.h"
#include "store/lanes.h"

/*
 * Removals of older final states in one transaction, a lane's share: that many, and as many again
 * as twice the final states that it brings, so that none are left behind.
 */
enum { SETTLE_REMOVALS = 4096 };

/* What the lane's record is to say. */
static bool is_held(const struct segue_owed *owed)
{
	return owed->state != SEGUE_GRANT_ENDING;
}

bool segue_owed_owes(struct segue_grant *grant)
{
	pthread_mutex_lock(&grant->filler->lock);
	bool sound = segue_carry_observe(&grant->carry, grant->filler->feed.published);
	bool writable = sound && !grant->refused;
	uint64_t committed = grant->carry.committed;
	pthread_mutex_unlock(&grant->filler->lock);
	return writable && committed > grant->account.durable;
}

/* Final states that nothing can undo any more need no older ones behind them. */
static int add_settled(const struct segue_owed_means *means, struct segue_ops *ops,
	const struct segue_owed *owed, size_t finals)
{
	const struct segue_grant *grant = owed->grant;
	uint64_t committed = owed->image->position->step;
	/* So far back a checkpoint can be taken that nobody has asked for yet (snapshot.c). */
	uint64_t reach = grant->filler->geometry.depth + 2;
	uint64_t below = committed > reach ? committed - reach : 0;
	struct segue_catalogue catalogue;

	int rc = segue_catalogue_load(means->store, grant->place, &catalogue);
	if (rc)
		return rc;
	uint64_t floor = segue_catalogue_floor(&catalogue);
	below = floor < below ? floor : below;
	uint64_t pinned = means->pinned(means->arg, grant->place);
	below = pinned < below ? pinned : below;
	/* Rows that begin with what their own lane has kept need that of other lanes untouched. */
	bool alone = grant->spec->initial == SEGUE_INITIAL_KEPT;
	return segue_finals_settle(ops, means->store, grant->place, alone ? 0 : grant->spec->lanes,
		below, 1 + SETTLE_REMOVALS / grant->spec->lanes + 2 * finals);
}

/* Of the log, before what refers to it. SEGUE_LIVE_LATER. */
static int add_place(struct segue_ops *ops, const struct segue_owed *owed)
{
	struct segue_live *live = owed->grant->live;
	const struct segue_plan_spec plan = segue_filler_plan(owed->grant->filler);
	int rc = segue_live_covers(live, &plan, owed->image->position);

	return rc ? rc : segue_live_put(live, ops);
}

static int add_image(
	const struct segue_owed_means *means, struct segue_ops *ops, struct segue_owed *owed)
{
	struct segue_grant *grant = owed->grant;
	uint64_t committed;

	int rc =
		segue_snapshot(grant->filler, &grant->carry, SEGUE_NEVER, &committed, &owed->image);
	if (!rc && grant->live)
		rc = add_place(ops, owed);
	if (rc)
		return rc;
	grant->record.committed_ms = segue_unix_ms();
	grant->record.held = is_held(owed);
	grant->record.origin = segue_grant_origin(grant, owed->image->position->step);
	rc = segue_lanes_put_image(ops, grant->place, &grant->record, owed->image, &grant->account);
	if (rc)
		return rc;
	size_t before = ops->count;
	pthread_mutex_lock(&grant->filler->lock);
	rc = segue_finals_put(ops, grant->place, owed->image->row_size, grant->carry.kept,
		grant->account.durable, owed->image->position->step);
	pthread_mutex_unlock(&grant->filler->lock);
	if (!rc && grant->spec->keep_final)
		rc = add_settled(means, ops, owed, (ops->count - before) / 2);
	return rc;
}

int segue_owed_add_release(
	const struct segue_owed_means *means, struct segue_ops *ops, const struct segue_owed *owed)
{
	struct segue_lane_record stored;

	int rc = segue_lanes_load(means->store, owed->grant->place, &stored);
	if (rc)
		return rc;
	stored.held = is_held(owed);
	rc = segue_lanes_put(ops, owed->grant->place, &stored);
	free(stored.position);
	return rc;
}

void segue_owed_give_up(struct segue_owed *owed, int rc)
{
	fprintf(stderr, "segue: lane %u of stream '%s' is not written any more: %s\n",
		owed->grant->place.lane, owed->grant->spec->name, segue_error_detail());
	segue_grant_refuse(owed->grant, rc, segue_error_detail());
	segue_image_destroy(owed->image);
	owed->image = NULL;
}

/* Why it is left for the next transaction, if that may fare better. */
static enum segue_owed_left reason(int rc)
{
	if (rc == SEGUE_LIVE_LATER)
		return SEGUE_OWED_NOT_SYNCED;
	return rc == SEGUE_ENOMEM ? SEGUE_OWED_NO_MEMORY : SEGUE_OWED_NOTHING_LEFT;
}

void segue_owed_add(
	const struct segue_owed_means *means, struct segue_ops *ops, struct segue_owed *owed)
{
	int rc = 0;

	owed->first = ops->count;
	if (segue_owed_owes(owed->grant))
		rc = add_image(means, ops, owed);
	if (rc) {
		segue_ops_truncate(ops, owed->first);
		owed->left = reason(rc);
		if (!owed->left)
			segue_owed_give_up(owed, rc);
		segue_image_destroy(owed->image);
		owed->image = NULL;
	}
	if (!owed->image && segue_owed_is_over(owed) && !owed->left)
		owed->left = reason(segue_owed_add_release(means, ops, owed));
	owed->count = ops->count - owed->first;
}

static void settle(struct segue_owed *owed)
{
	struct segue_grant *grant = owed->grant;

	if (!owed->image)
		return;
	segue_account_settle(&grant->account, owed->image);
	if (grant->live)
		segue_live_stored(grant->live);
	uint64_t step = grant->account.durable;
	/*
	 * Before the step: who waits for it must not meet the error of before when it goes on.
	 * no pair: the server's own word
	 */
	if (segue_load_relaxed(&grant->carry.page->error))
		segue_grant_storage(grant, 0, "");
	pthread_mutex_lock(&grant->filler->lock);
	segue_carry_forget(&grant->carry, step);
	segue_carry_set_durable(&grant->carry, step);
	grant->durable_ms = grant->record.committed_ms;
	pthread_mutex_unlock(&grant->filler->lock);
}

/* A lane for which there is no memory again and again is not on disk: its worker must know. */
static void note_memory(struct segue_owed *owed)
{
	struct segue_grant *grant = owed->grant;

	if (owed->left == SEGUE_OWED_NO_MEMORY) {
		grant->misses += grant->misses < SEGUE_OWED_MISSES_TOLD;
		if (grant->misses == SEGUE_OWED_MISSES_TOLD)
			segue_grant_storage(
				grant, SEGUE_ENOMEM, "the server has no memory to write this lane");
	} else if (!owed->rc && !owed->left) {
		grant->misses = 0;
	}
}

void segue_owed_settle(struct segue_owed *owed)
{
	if (!owed->rc)
		settle(owed);
	note_memory(owed);
	segue_image_destroy(owed->image);
	owed->image = NULL;
}
