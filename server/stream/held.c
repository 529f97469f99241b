/* A lane that somebody has: events of its worker, and looks at it. */
#include "stream/held.h"

#include <stdio.h>

#include "core/error.h"
#include "core/wait.h"
#include "engine/committer.h"
#include "os/process.h"
#include "stream/lag.h"
#include "stream/release.h"
#include "stream/replica.h"

enum { LOOKS_A_TIMEOUT = 16 };

int segue_held_fail(const struct segue_ledger *ledger)
{
	char program[64] = "";

	segue_process_name(&ledger->lease.holder, program, sizeof(program));
	return segue_fail(SEGUE_EBUSY,
		"lane %u of stream '%s' is %s by process %ld%s: each lane has one worker at a "
		"time. "
		"End that process, or close its loader; if it is another worker of this training, "
		"give each its own rank, or replica",
		ledger->place.lane, ledger->stream->spec->name,
		ledger->lease.state == SEGUE_LEASE_RESERVED
			? "reserved, after a restart of the server,"
			: "held",
		(long)ledger->lease.holder.pid, program);
}

/* The worker has released enough, committed at durability = commit, or is about to sleep. */
void segue_held_event(struct segue_watch *watch, uint32_t events)
{
	struct segue_ledger *ledger = SEGUE_CONTAINER(watch, struct segue_ledger, event);

	(void)events;
	segue_event_clear(watch->fd);
	/* Words that cannot be are seen here: the tick that follows ends the lease. */
	pthread_mutex_lock(&ledger->grant->filler->lock);
	segue_carry_observe(&ledger->grant->carry, ledger->grant->filler->feed.published);
	pthread_mutex_unlock(&ledger->grant->filler->lock);
	segue_filler_kick(ledger->grant->filler);
	if (ledger->stream->spec->persist)
		segue_lag_event(ledger);
	if (ledger->stream->live)
		segue_live_moved(ledger->stream->live);
	if (ledger->stream->spec->persist &&
		ledger->grant->spec->durability == SEGUE_DURABLE_COMMIT)
		segue_committer_urge(ledger->stream->server->committer);
}

void segue_held_look(struct segue_ledger *ledger, int64_t now)
{
	struct segue_grant *grant = ledger->grant;
	int64_t timeout = grant->spec->lease_timeout_ms * INT64_C(1000000);
	const struct segue_feed *feed = &grant->filler->feed;
	bool over = false;

	pthread_mutex_lock(&grant->filler->lock);
	if (segue_replicas_await(ledger))
		grant->carry.since = 0; /* it has no batch */
	if (timeout)
		over = segue_carry_overdue(&grant->carry, feed->published, now, timeout);
	if (timeout)
		over |= segue_carry_keeps_all(
			&grant->carry, feed->published, feed->subscriber_count > 1, now, timeout);
	bool broken = grant->carry.broken;
	pthread_mutex_unlock(&grant->filler->lock);
	if (over)
		fprintf(stderr,
			"segue: lane %u of stream '%s': process %ld has had a batch for %u ms "
			"(lease_timeout) and committed none, or, of a ring that is shared, let go "
			"of none: the lane is taken from it\n",
			ledger->place.lane, ledger->stream->spec->name,
			(long)ledger->lease.holder.pid, grant->spec->lease_timeout_ms);
	if (over || broken)
		segue_ledger_end(ledger, false);
	else if (timeout)
		segue_loop_tick_within(
			ledger->stream->server->loop, now + timeout / LOOKS_A_TIMEOUT + 1);
	segue_lag_look(ledger, now);
}
