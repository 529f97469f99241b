/* Groups that meet: gathered, granted one after the other, reserved for. */
#include "stream/gather.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/wait.h"
#include "os/loop.h"
#include "os/process.h"

#define MS        INT64_C(1000000)
#define LOSS_NS   (10000 * MS) /* after a loss: for those whose lanes are reserved */
#define FILLED_NS (10000 * MS) /* until what one stands at is published */
#define LOOK_NS   (2 * MS)
#define KEPT_NS   (1000 * MS) /* for who renews its lease */

/* The groups that meet at a lane. */
struct meeting {
	struct segue_gathered *lowest; /* of those that wait */
	unsigned there;                /* that have the lane, or ask for it */
	bool held;                     /* one has it */
	bool granting;                 /* a grant is being made */
	bool expected;                 /* one is reserved the lane, and has not come */
};

static struct segue_ledger *ledger_of(struct segue_ledger_group *group, uint32_t lane)
{
	return &group->of_lane[lane];
}

/* ---- Reserved slots ---- */

/* What a ledger needs of a feed that it may come to; SEGUE_NEVER: nothing. */
static uint64_t needs(const struct segue_ledger *ledger, const struct segue_stream_feed *feed)
{
	bool stays = ledger->lease.state == SEGUE_LEASE_HELD && ledger->feed == feed;

	if (ledger->gathered)
		return ledger->gathered->step;
	return ledger->asked_until && !stays ? ledger->asked_step : SEGUE_NEVER;
}

/* With the filler's lock. */
static uint64_t least_needed(struct segue_stream *stream, const struct segue_stream_feed *feed)
{
	const struct segue_feed *at = &feed->filler->feed;
	struct segue_ledger_group *group;
	uint64_t least = SEGUE_NEVER;

	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		uint64_t step = needs(ledger_of(group, feed->filler->plan_spec.lane), feed);
		if (step >= at->first && step < least &&
			(step > at->published || segue_feed_reaches(at, step)))
			least = step;
	}
	return least;
}

void segue_gather_reserve(struct segue_stream *stream, uint32_t lane)
{
	struct segue_stream_feed *feed;

	LIST_FOREACH(feed, &stream->feeds.all, link) {
		struct segue_filler *filler = feed->filler;
		if (filler->plan_spec.lane != lane || feed->followed)
			continue;
		pthread_mutex_lock(&filler->lock);
		uint64_t before = filler->feed.reserved;
		/* To groups that were left behind nobody comes. */
		segue_feed_reserve(
			&filler->feed, feed->alone ? SEGUE_NEVER : least_needed(stream, feed));
		bool freed = filler->feed.reserved > before;
		pthread_mutex_unlock(&filler->lock);
		if (freed)
			segue_filler_kick(filler);
	}
}

/* Whether a feed that it may join will publish what it stands at, with nobody going on. */
static bool is_being_filled(const struct segue_gathered *one)
{
	struct segue_stream *stream = one->ledger->stream;
	struct segue_stream_feed *feed;
	bool filled = false;

	LIST_FOREACH(feed, &stream->feeds.all, link) {
		struct segue_filler *filler = feed->filler;
		if (filler->plan_spec.lane != one->ledger->place.lane || feed->followed)
			continue;
		pthread_mutex_lock(&filler->lock);
		const struct segue_feed *at = &filler->feed;
		uint64_t end = at->reserved == SEGUE_NEVER ? 0 : at->first + at->geometry->depth;
		filled = filled || (at->published < one->step && one->step <= end && !at->failed &&
					   !at->ended && !filler->stalled);
		pthread_mutex_unlock(&filler->lock);
	}
	return filled;
}

/* ---- Meeting ---- */

bool segue_gather_wants(const struct segue_ledger *ledger, const struct segue_spec *spec,
	enum segue_attach_mode mode)
{
	if (mode == SEGUE_ATTACH_RESIZE || spec->initial == SEGUE_INITIAL_KEPT)
		return false;
	if (ledger->asked_until)
		return true;
	if (spec->groups < 2)
		return false;
	/* An error, which need not wait for others. */
	return mode != SEGUE_ATTACH_NONE || ledger->durable == 0;
}

/* Whether another's grant at the lane is being made. One that may be slow is not waited for. */
static bool is_ahead(struct segue_stream *stream, uint32_t lane)
{
	struct segue_ledger_group *group;
	bool ahead = false;

	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		const struct segue_ledger *ledger = ledger_of(group, lane);
		ahead = ahead || (ledger->making && !ledger->making_is_slow &&
					 (!ledger->gathered || ledger->gathered->going));
	}
	return ahead;
}

bool segue_gather_follows(const struct segue_ledger *ledger, const struct segue_spec *spec)
{
	return segue_feeds_may_share(spec) && is_ahead(ledger->stream, ledger->place.lane);
}

void segue_gather_join(struct segue_gathered *gathered, const struct segue_spec *spec)
{
	struct segue_ledger *ledger = gathered->ledger;
	int64_t limit = spec->groups_timeout_ms * MS;

	if (!gathered->wanted && limit > LOSS_NS)
		limit = LOSS_NS;
	gathered->since = segue_now_ns();
	gathered->deadline = gathered->since + limit;
	gathered->going = false;
	ledger->gathered = gathered;
	segue_loop_tick_within(ledger->stream->server->loop, gathered->deadline);
}

void segue_gather_keep_place(struct segue_ledger *ledger, enum segue_attach_mode mode)
{
	struct segue_stream *stream = ledger->stream;
	struct segue_filler *filler = ledger->grant->filler;

	if (mode != SEGUE_ATTACH_RESUME || ledger->asked_until || ledger->feed->uses < 2)
		return;
	pthread_mutex_lock(&filler->lock);
	segue_carry_observe(&ledger->grant->carry, filler->feed.published);
	ledger->asked_step = ledger->grant->carry.committed;
	/* Before the lease ends: nobody rewrites a slot in between. */
	if (ledger->asked_step < filler->feed.reserved)
		segue_feed_reserve(&filler->feed, ledger->asked_step);
	pthread_mutex_unlock(&filler->lock);
	ledger->asked_until = segue_now_ns() + KEPT_NS;
	segue_loop_tick_within(stream->server->loop, ledger->asked_until);
}

void segue_gather_settle(struct segue_ledger *ledger)
{
	if (!ledger->gathered && !ledger->asked_until)
		return;
	ledger->gathered = NULL;
	ledger->asked_until = 0;
	segue_gather_reserve(ledger->stream, ledger->place.lane);
}

void segue_gather_expire(struct segue_ledger *ledger, int64_t now)
{
	if (ledger->gathered || !ledger->asked_until)
		return;
	if (now >= ledger->asked_until)
		segue_gather_settle(ledger);
	else /* each tick asks for the next */
		segue_loop_tick_within(ledger->stream->server->loop, ledger->asked_until);
}

/* One that was asked to come, and has its lane still, or asks for it. */
static bool is_asked(const struct segue_ledger *ledger, int64_t now)
{
	return !ledger->gathered && now < ledger->asked_until &&
	       (ledger->lease.state == SEGUE_LEASE_HELD || !TAILQ_EMPTY(&ledger->waiting));
}

/* Whether who has it reserved may still come. */
static bool may_come(struct segue_ledger *ledger, int64_t now)
{
	enum segue_presence presence = segue_process_presence(&ledger->lease.holder);

	return !segue_lease_expire(&ledger->lease, presence, now);
}

static struct meeting look_around(struct segue_stream *stream, uint32_t lane, int64_t now)
{
	struct segue_ledger_group *group;
	struct meeting meeting = {.lowest = NULL};

	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		struct segue_ledger *ledger = ledger_of(group, lane);
		struct segue_gathered *one = ledger->gathered;
		bool waits = one && !one->going;
		if (waits && one->follows) /* it is none of them */
			continue;
		meeting.expected = meeting.expected || is_asked(ledger, now);
		switch (ledger->lease.state) {
		case SEGUE_LEASE_GRANTING:
			meeting.there++;
			meeting.granting = meeting.granting || !waits;
			break;
		case SEGUE_LEASE_HELD:
			meeting.there++;
			meeting.held = true;
			break;
		case SEGUE_LEASE_RESERVED:
			meeting.expected = meeting.expected || may_come(ledger, now);
			break;
		case SEGUE_LEASE_FREE:
		case SEGUE_LEASE_ENDING:
			break;
		}
		if (waits && (!meeting.lowest || one->step < meeting.lowest->step))
			meeting.lowest = one;
	}
	return meeting;
}

static int fail_missing(const struct segue_gathered *one)
{
	const struct segue_stream *stream = one->ledger->stream;
	uint32_t lane = one->ledger->place.lane;
	struct segue_ledger_group *group;
	char names[512] = "";
	unsigned there = 0;
	size_t used = 0;

	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		if (!ledger_of(group, lane)->gathered)
			continue;
		there++;
		if (used < sizeof(names))
			used += (size_t)snprintf(names + used, sizeof(names) - used,
				*group->name ? "%s'%s'" : "%sthe one without a name%s",
				used ? ", " : "", group->name);
	}
	return segue_fail(SEGUE_ETIMEOUT,
		"stream '%s', lane %u: %u of %" PRIu32
		" groups have asked for it within %.10g s: %s. Start the others, each in a process "
		"or thread of its own, or open the stream with fewer groups=, or a longer "
		"groups_timeout=",
		stream->spec->name, lane, there, one->wanted,
		(double)((one->deadline - one->since) / MS) / 1e3, names);
}

static bool is_ready(const struct segue_gathered *one, const struct meeting *meeting, int64_t now)
{
	if (meeting->expected && now - one->since < LOSS_NS && now < one->deadline)
		return false;
	return !one->wanted || meeting->held || meeting->there >= one->wanted;
}

static void refuse(struct segue_gathered *one, int code)
{
	one->ledger->gathered = NULL;
	one->refuse(one, code);
}

static void go(struct segue_gathered *one)
{
	one->going = true;
	one->go(one);
}

/* Refuses one that waits if nobody waits for it. */
static bool is_given_up(struct segue_stream *stream, struct segue_gathered *one)
{
	if (!one->request->session)
		refuse(one, SEGUE_EGONE);
	else if (stream->server->stopping)
		refuse(one, segue_fail(SEGUE_EGONE, "the server is being stopped"));
	else
		return false;
	return true;
}

/* The next of those that wait for a grant that was being made. */
static void look_at_following(struct segue_stream *stream, uint32_t lane)
{
	struct segue_ledger_group *group;

	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		struct segue_gathered *one = ledger_of(group, lane)->gathered;
		if (one && one->follows && !one->going && !is_given_up(stream, one) &&
			!is_ahead(stream, lane))
			go(one);
	}
}

/* Refuses whose time is up, or for whom nobody waits. True: one of them is ready. */
static bool look_at_each(
	struct segue_stream *stream, uint32_t lane, const struct meeting *meeting, int64_t now)
{
	struct segue_ledger_group *group;
	bool ready = false;

	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		struct segue_gathered *one = ledger_of(group, lane)->gathered;
		if (!one || one->going || one->follows || is_given_up(stream, one))
			continue;
		if (one->ready_at || is_ready(one, meeting, now))
			ready = true;
		else if (now >= one->deadline)
			refuse(one, fail_missing(one));
		else
			segue_loop_tick_within(stream->server->loop,
				meeting->expected ? now + 50 * LOOK_NS : one->deadline);
	}
	return ready;
}

/* One of those who wait: one look is enough for all of them. */
static bool is_first(const struct segue_ledger *ledger)
{
	struct segue_ledger_group *group;

	LIST_FOREACH(group, &ledger->stream->ledgers.groups, link) {
		const struct segue_ledger *other = ledger_of(group, ledger->place.lane);
		if (other->gathered && !other->gathered->going)
			return other == ledger;
	}
	return false;
}

void segue_gather_look(struct segue_ledger *ledger, int64_t now)
{
	struct segue_stream *stream = ledger->stream;
	uint32_t lane = ledger->place.lane;

	if (!is_first(ledger))
		return;
	look_at_following(stream, lane);
	struct meeting meeting = look_around(stream, lane, now);
	bool ready = look_at_each(stream, lane, &meeting, now);
	/* Who was refused counts no more. */
	struct segue_gathered *one = look_around(stream, lane, now).lowest;
	if (!ready || meeting.granting || !one)
		return;
	one->ready_at = one->ready_at ? one->ready_at : now;
	if (is_being_filled(one) && now - one->ready_at < FILLED_NS) {
		segue_loop_tick_within(stream->server->loop, now + LOOK_NS);
		return;
	}
	go(one);
}
