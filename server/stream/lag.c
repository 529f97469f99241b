/* Groups that keep one another waiting: told, detached, brought together again. */
#include "stream/lag.h"

#include <stdio.h>

#include "core/error.h"
#include "core/wait.h"
#include "os/loop.h"
#include "stream/gather.h"

#define MS       INT64_C(1000000)
#define MOVE_NS  (1000 * MS)  /* a slot is kept for one that is to come */
#define AGAIN_NS (10000 * MS) /* until the same is asked again */
#define ASKED_NS (10000 * MS) /* those who go on together wait for one another, at most */

/* ---- Who uses a feed ---- */

static struct segue_ledger *user_in(
	struct segue_ledger_group *group, const struct segue_stream_feed *feed)
{
	struct segue_ledger *ledger = &group->of_lane[feed->filler->plan_spec.lane];

	return ledger->feed == feed && ledger->lease.state == SEGUE_LEASE_HELD ? ledger : NULL;
}

static const char *print_name(const struct segue_ledger_group *group)
{
	return *group->name ? group->name : "the one without a name";
}

static unsigned count_users(struct segue_stream *stream, const struct segue_stream_feed *feed)
{
	struct segue_ledger_group *group;
	unsigned count = 0;

	LIST_FOREACH(group, &stream->ledgers.groups, link)
		count += user_in(group, feed) != NULL;
	return count;
}

/* ---- Who keeps whom waiting ---- */

/* The next batch would come where it has one still. With the filler's lock, as below. */
static bool keeps(const struct segue_ledger *ledger)
{
	const struct segue_feed *feed = &ledger->feed->filler->feed;

	return feed->published >= ledger->grant->carry.released + feed->geometry->depth;
}

static bool waits(const struct segue_ledger *ledger)
{
	return ledger->grant->carry.committed == ledger->feed->filler->feed.published;
}

/* What it is like at a feed now. */
struct lag {
	const struct segue_ledger_group *keeper; /* one that keeps others waiting; NULL: none */
	uint64_t published;
	uint32_t limit_ms; /* the least of those who wait; 0: they wait for ever */
	bool detach;       /* then this becomes of them */
};

static void count_waiting(const struct segue_ledger *ledger, struct lag *lag)
{
	const struct segue_spec *spec = ledger->grant->spec;

	if (spec->max_lag_ms && (!lag->limit_ms || spec->max_lag_ms < lag->limit_ms)) {
		lag->limit_ms = spec->max_lag_ms;
		lag->detach = spec->on_lag == SEGUE_ON_LAG_DETACH;
	}
}

static struct lag look_at(struct segue_stream *stream, const struct segue_stream_feed *feed)
{
	struct segue_filler *filler = feed->filler;
	struct segue_ledger_group *group;
	struct lag lag = {.keeper = NULL};
	bool waiting = false;

	pthread_mutex_lock(&filler->lock);
	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		struct segue_ledger *ledger = user_in(group, feed);
		if (!ledger || !segue_carry_observe(&ledger->grant->carry, filler->feed.published))
			continue;
		if (keeps(ledger)) {
			lag.keeper = group;
		} else if (waits(ledger)) {
			waiting = true;
			count_waiting(ledger, &lag);
		}
	}
	lag.published = filler->feed.published;
	pthread_mutex_unlock(&filler->lock);
	if (!waiting || filler->feed.ended)
		lag.keeper = NULL;
	return lag;
}

/* Whether they are kept waiting, and since when in one piece. */
static struct lag note(struct segue_stream *stream, struct segue_stream_feed *feed, int64_t now)
{
	struct lag lag = look_at(stream, feed);

	if (!lag.keeper) {
		feed->kept_since = 0;
	} else if (!feed->kept_since || feed->kept_at != lag.published) {
		feed->kept_since = now;
		feed->kept_at = lag.published;
		feed->told = false;
	}
	feed->kept_limit = lag.limit_ms * MS;
	if (feed->kept_since && feed->kept_limit && !feed->told)
		segue_loop_tick_within(stream->server->loop, feed->kept_since + feed->kept_limit);
	return lag;
}

const char *segue_lag_waits_for(const struct segue_ledger *ledger, int64_t *since)
{
	const struct segue_stream_feed *feed = ledger->feed;

	if (!feed || ledger->lease.state != SEGUE_LEASE_HELD || !feed->kept_since)
		return NULL;
	struct lag lag = look_at(ledger->stream, feed);
	pthread_mutex_lock(&feed->filler->lock);
	bool is_kept = lag.keeper && waits(ledger) && !keeps(ledger);
	pthread_mutex_unlock(&feed->filler->lock);
	if (!is_kept || lag.published != feed->kept_at)
		return NULL;
	*since = feed->kept_since;
	return lag.keeper->name;
}

/* ---- Asked to come ---- */

static void ask_to_renew(struct segue_ledger *ledger, int64_t until)
{
	struct segue_filler *filler = ledger->feed->filler;

	ledger->asked_until = until;
	pthread_mutex_lock(&filler->lock);
	ledger->asked_step = ledger->grant->carry.committed;
	segue_carry_ask(&ledger->grant->carry, SEGUE_ASKS_RENEW);
	segue_feed_ring(&filler->feed);
	pthread_mutex_unlock(&filler->lock);
	segue_loop_tick_within(ledger->stream->server->loop, until);
}

/* ---- Detached ---- */

/* What it will cost who goes: refused before anything is done. */
static int check_limits(const struct segue_ledger *ledger)
{
	uint64_t ring = ledger->feed->filler->geometry.ring_size;

	int rc = segue_account_take(ledger->account, SEGUE_LIMIT_MEMORY, ring);
	if (!rc)
		segue_account_give(ledger->account, SEGUE_LIMIT_MEMORY, ring);
	return rc;
}

/* Of the feed's groups those who are not slow go on by themselves. */
static int leave_behind(struct segue_stream *stream, struct segue_stream_feed *feed, int64_t now)
{
	struct segue_ledger_group *group;
	int64_t until = feed->kept_limit < ASKED_NS ? feed->kept_limit : ASKED_NS;
	int rc = 0;

	until = now + (until > MOVE_NS ? until : MOVE_NS);
	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		const struct segue_ledger *ledger = user_in(group, feed);
		if (ledger && !keeps(ledger) && !rc)
			rc = check_limits(ledger);
	}
	if (rc)
		return rc;
	feed->alone = true;
	feed->alone_until = now + feed->kept_limit;
	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		struct segue_ledger *ledger = user_in(group, feed);
		if (ledger && !keeps(ledger))
			ask_to_renew(ledger, until);
	}
	segue_gather_reserve(stream, feed->filler->plan_spec.lane);
	/* Of those who stay one may come to wait for another: that is another piece. */
	feed->kept_since = 0;
	return 0;
}

static void act(struct segue_stream *stream, struct segue_stream_feed *feed, int64_t now)
{
	struct lag lag = note(stream, feed, now);

	if (!lag.keeper || feed->told || now < feed->kept_since + feed->kept_limit)
		return;
	feed->told = true;
	int rc = lag.detach ? leave_behind(stream, feed, now) : 0;
	fprintf(stderr,
		"segue: lane %u of stream '%s': group '%s' has kept others waiting for %.10g s "
		"(max_lag): %s%s\n",
		feed->filler->plan_spec.lane, stream->spec->name, print_name(lag.keeper),
		(double)lag.limit_ms / 1e3,
		!lag.detach ? "they wait"
		: rc        ? "they wait, for they cannot have a ring of their own: "
			    : "they go on without it",
		rc ? segue_error_detail() : "");
}

void segue_lag_give_up(struct segue_ledger *ledger)
{
	struct segue_stream_feed *feed;

	if (!ledger->asked_until)
		return;
	LIST_FOREACH(feed, &ledger->stream->feeds.all, link)
		if (feed->filler->plan_spec.lane == ledger->place.lane)
			feed->alone = false;
}

/* ---- Brought together again ---- */

/* Whether who is at `step` of `own` may go over to the feed. */
static bool takes(
	const struct segue_stream_feed *feed, const struct segue_stream_feed *own, uint64_t step)
{
	struct segue_filler *filler = feed->filler;

	if (feed == own || feed->alone || feed->followed ||
		filler->geometry.places != own->filler->geometry.places ||
		filler->geometry.depth != own->filler->geometry.depth)
		return false;
	pthread_mutex_lock(&filler->lock);
	bool reaches = !filler->stalled && !filler->feed.ended && step < filler->feed.published &&
		       segue_feed_reaches(&filler->feed, step);
	pthread_mutex_unlock(&filler->lock);
	return reaches;
}

/* So that nobody goes to and fro: more groups have it, or as many, and for longer. */
static bool is_better(struct segue_stream *stream, const struct segue_stream_feed *feed,
	const struct segue_stream_feed *own)
{
	unsigned theirs = count_users(stream, feed), ours = count_users(stream, own);

	return own->alone || theirs > ours || (theirs == ours && feed->number < own->number);
}

static bool is_on_its_way(struct segue_stream *stream, const struct segue_stream_feed *feed)
{
	struct segue_ledger_group *group;

	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		const struct segue_ledger *ledger = user_in(group, feed);
		if (ledger && ledger->asked_until)
			return true;
	}
	return false;
}

/* Else one that shares by chance could come to wait for another that stands still. */
static bool belongs_with_others(const struct segue_spec *spec)
{
	return spec->groups > 1 || spec->on_lag == SEGUE_ON_LAG_DETACH;
}

static void move_over(struct segue_ledger *ledger, int64_t now)
{
	struct segue_stream *stream = ledger->stream;
	const struct segue_stream_feed *own = ledger->feed;
	uint64_t step = ledger->grant->carry.committed;
	struct segue_ledger_group *group;

	if (!belongs_with_others(ledger->grant->spec) || ledger->asked_until ||
		now < ledger->asked_again || own->followed ||
		(own->alone && now < own->alone_until))
		return;
	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		const struct segue_ledger *other = &group->of_lane[ledger->place.lane];
		const struct segue_stream_feed *feed = other->feed;
		if (!feed || other->lease.state != SEGUE_LEASE_HELD || !takes(feed, own, step) ||
			!is_better(stream, feed, own) || is_on_its_way(stream, feed))
			continue;
		ledger->asked_again = now + AGAIN_NS;
		ask_to_renew(ledger, now + MOVE_NS);
		segue_gather_reserve(stream, ledger->place.lane);
		return;
	}
}

/* ---- When ---- */

void segue_lag_event(struct segue_ledger *ledger)
{
	struct segue_stream *stream = ledger->stream;

	if (!LIST_NEXT(LIST_FIRST(&stream->ledgers.groups), link))
		return; /* a stream with one group */
	int64_t now = segue_now_ns();
	if (ledger->feed->uses > 1)
		note(stream, ledger->feed, now);
	move_over(ledger, now);
}

void segue_lag_look(struct segue_ledger *ledger, int64_t now)
{
	struct segue_stream_feed *feed = ledger->feed;

	if (!feed || !feed->kept_since || !feed->kept_limit || feed->told)
		return;
	if (now >= feed->kept_since + feed->kept_limit)
		act(ledger->stream, feed, now);
	else /* each tick asks for the next */
		segue_loop_tick_within(
			ledger->stream->server->loop, feed->kept_since + feed->kept_limit);
}
