/* Lanes shared out among the takers of a group: who gets which, who is asked to give one back. */
#include "stream/any.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/wait.h"
#include "lane/share.h"
#include "os/process.h"
#include "stream/attach.h"
#include "stream/drop.h"
#include "stream/opening.h"
#include "stream/taker.h"

#define GRACE_NS     INT64_C(1000000000) /* between two questions of who waits in turns */
#define LOOK_NS      INT64_C(100000000)  /* at the process of a reservation */
#define DEFAULT_WAIT INT64_C(10000000000)

/* ---- At work ---- */

/* Whether a server before this one had lanes of the group in use, and by whom else. */
static bool goes_on(
	const struct segue_ledger_group *group, uint32_t lanes, const struct segue_holder *holder)
{
	for (uint32_t i = 0; i < lanes; i++) {
		const struct segue_lease *lease = &group->of_lane[i].lease;
		if (lease->state == SEGUE_LEASE_RESERVED &&
			!segue_holder_same(&lease->holder, holder) &&
			segue_process_presence(&lease->holder) != SEGUE_PRESENCE_GONE)
			return true;
	}
	return false;
}

/* ---- Given, and asked for ---- */

static void refuse(struct segue_taker *taker, int64_t until, int code)
{
	taker->waits = false;
	taker->deadline = until;
	segue_session_fail(taker->session, taker->message.serial, code);
}

/* Which of those at work that is; SEGUE_SHARE_NOBODY: none. */
static uint32_t index_of(const struct segue_takers *takers, const struct segue_session *session)
{
	const struct segue_taker *taker;
	uint32_t index = 0;

	TAILQ_FOREACH(taker, &takers->takers, link) {
		if (taker->works && taker->session == session)
			return index;
		index += taker->works;
	}
	return SEGUE_SHARE_NOBODY;
}

static struct segue_share_lane look_at_lane(
	const struct segue_stream *stream, const struct segue_ledger_group *group, uint32_t index)
{
	const struct segue_ledger *ledger = &group->of_lane[index];
	const struct segue_taken *lane = &group->takers->lane[index];
	struct segue_share_lane out = {.worker = SEGUE_SHARE_NOBODY,
		.asked = lane->asks & SEGUE_ASKS_BACK,
		.since = lane->since};

	switch (ledger->lease.state) {
	case SEGUE_LEASE_FREE:
		out.over = segue_taken_is_over(stream, lane);
		out.apart = !TAILQ_EMPTY(&ledger->waiting) || !TAILQ_EMPTY(&ledger->loading);
		break;
	case SEGUE_LEASE_ENDING:
		out.leaving = true;
		out.apart = !TAILQ_EMPTY(&ledger->waiting);
		break;
	case SEGUE_LEASE_RESERVED:
		out.apart = true;
		break;
	case SEGUE_LEASE_GRANTING:
	case SEGUE_LEASE_HELD:
		out.worker = index_of(group->takers, lane->to);
		out.apart = out.worker == SEGUE_SHARE_NOBODY;
		break;
	}
	return out;
}

static void set_asks(struct segue_ledger *ledger, struct segue_taken *lane, uint32_t asks)
{
	struct segue_grant *grant = ledger->grant;

	if (ledger->lease.state != SEGUE_LEASE_HELD || lane->asks == asks)
		return;
	lane->asks = asks;
	pthread_mutex_lock(&grant->filler->lock);
	segue_carry_unask(&grant->carry, SEGUE_ASKS_BACK | SEGUE_ASKS_MORE);
	if (asks)
		segue_carry_ask(&grant->carry, asks);
	segue_feed_ring(&grant->filler->feed);
	pthread_mutex_unlock(&grant->filler->lock);
}

static void tell_asks(struct segue_ledger_group *group, const struct segue_share *share)
{
	for (uint32_t i = 0; i < share->lanes; i++) {
		uint32_t worker = index_of(group->takers, group->takers->lane[i].to);
		bool more = worker != SEGUE_SHARE_NOBODY && share->worker[worker].more;
		set_asks(&group->of_lane[i], &group->takers->lane[i],
			(share->lane[i].asked ? SEGUE_ASKS_BACK : 0u) |
				(more ? SEGUE_ASKS_MORE : 0u));
	}
}

static void dispatch(struct segue_ledger_group *group, struct segue_taker *taker, uint32_t lane)
{
	struct segue_message message = taker->message;

	taker->waits = false;
	taker->deadline = 0;
	message.lane_attach.any = SEGUE_ANY_NAMED;
	message.lane_attach.lane = lane;
	message.lane_attach.take = false;
	if (group->takers->lane[lane].begun)
		message.lane_attach.mode = SEGUE_ATTACH_CONTINUE;
	segue_attach_request(taker->session, &message);
}

static struct segue_taker *taker_at(struct segue_takers *takers, uint32_t index)
{
	struct segue_taker *taker;

	TAILQ_FOREACH(taker, &takers->takers, link) {
		if (taker->works && index-- == 0)
			break;
	}
	return taker;
}

/* Those for whom no lane will come any more. */
static void tell_end(struct segue_stream *stream, struct segue_ledger_group *group, int64_t now)
{
	struct segue_taker *taker;

	for (uint32_t i = 0; i < stream->spec->lanes; i++) {
		if (group->of_lane[i].lease.state != SEGUE_LEASE_FREE ||
			!segue_taken_is_over(stream, &group->takers->lane[i]))
			return;
	}
	TAILQ_FOREACH(taker, &group->takers->takers, link) {
		if (taker->waits)
			refuse(taker, now + GRACE_NS,
				segue_fail(SEGUE_EEND, "all lanes of stream '%s' have ended",
					stream->spec->name));
	}
}

static void share_out(struct segue_stream *stream, struct segue_ledger_group *group,
	struct segue_share *share, int64_t now)
{
	const struct segue_taker *taker;
	uint32_t who, lane, index = 0;

	for (uint32_t i = 0; i < share->lanes; i++)
		share->lane[i] = look_at_lane(stream, group, i);
	TAILQ_FOREACH(taker, &group->takers->takers, link)
		if (taker->works)
			share->worker[index++] = (struct segue_share_worker){.waits = taker->waits};
	segue_share_count(share);
	while (segue_share_give(share, &who, &lane))
		dispatch(group, taker_at(group->takers, who), lane);
	segue_share_ask(share);
	tell_asks(group, share);
	tell_end(stream, group, now);
}

/* ---- Time passes ---- */

static bool look_at_reserved(
	struct segue_stream *stream, struct segue_ledger_group *group, int64_t now)
{
	bool reserved = false;

	for (uint32_t i = 0; i < stream->spec->lanes; i++) {
		struct segue_lease *lease = &group->of_lane[i].lease;
		if (lease->state != SEGUE_LEASE_RESERVED)
			continue;
		if (segue_lease_expire(lease, segue_process_presence(&lease->holder), now))
			group->takers->dirty = true;
		else
			reserved = true;
	}
	return reserved;
}

/* Who has none asks again, perhaps. */
static void refuse_late(
	struct segue_stream *stream, struct segue_taker *taker, bool has_lanes, int64_t now)
{
	refuse(taker, has_lanes ? 0 : now + GRACE_NS,
		segue_fail(SEGUE_EBUSY,
			"all %u lanes of stream '%s' are in use, and this worker waits for one of "
			"them: "
			"start fewer workers, or open the stream with more lanes",
			stream->spec->lanes, stream->spec->name));
}

static void look_at_takers(
	struct segue_stream *stream, struct segue_ledger_group *group, int64_t now)
{
	struct segue_taker *taker;

	TAILQ_FOREACH(taker, &group->takers->takers, link) {
		bool has_lanes = segue_taker_has_lanes(group, stream->spec->lanes, taker->session);
		if (taker->waits && now >= taker->deadline)
			refuse_late(stream, taker, has_lanes, now);
		bool works = has_lanes || taker->waits || now < taker->deadline;
		if (works && (taker->waits || now < taker->deadline))
			segue_loop_tick_within(stream->server->loop, taker->deadline);
		if (works != taker->works)
			group->takers->dirty = true;
		taker->works = works;
	}
}

static uint32_t count_at_work(const struct segue_takers *takers)
{
	const struct segue_taker *taker;
	uint32_t count = 0;

	TAILQ_FOREACH(taker, &takers->takers, link)
		count += taker->works;
	return count;
}

static void look_at_group(
	struct segue_stream *stream, struct segue_ledger_group *group, int64_t now)
{
	struct segue_takers *takers = group->takers;
	struct segue_share share = {.lanes = stream->spec->lanes};

	look_at_takers(stream, group, now);
	share.workers = count_at_work(takers);
	if (share.workers == 0)
		return;
	if (look_at_reserved(stream, group, now))
		segue_loop_tick_within(stream->server->loop, now + LOOK_NS);
	if (!takers->dirty)
		return;
	share.lane = calloc(share.lanes, sizeof(*share.lane));
	share.worker = calloc(share.workers, sizeof(*share.worker));
	if (share.lane && share.worker) {
		takers->dirty = false;
		share_out(stream, group, &share, now);
	} else {
		segue_loop_tick_within(stream->server->loop, now + LOOK_NS);
	}
	free(share.lane);
	free(share.worker);
}

void segue_any_tick(struct segue_stream *stream, int64_t now)
{
	struct segue_ledger_group *group;

	if (stream->server->stopping || stream->dropped)
		return;
	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		if (group->takers && !group->dropped)
			look_at_group(stream, group, now);
	}
}

/* ---- A request ---- */

static int check(const struct segue_session *session, const struct segue_opening *opening,
	const struct segue_message *message)
{
	const struct segue_stream *stream = opening->stream;

	if (!stream->spec->persist)
		return segue_fail(SEGUE_EINVAL,
			"stream '%s' has persist=False: its lanes do not move from worker to "
			"worker; open it with persist=True",
			stream->spec->name);
	if (message->lane_attach.mode > SEGUE_ATTACH_FRESH)
		return segue_fail(SEGUE_EPROTOCOL, "any lane is asked for, with mode %d",
			(int)message->lane_attach.mode);
	if (message->lane_attach.replicas > 1)
		return segue_fail(SEGUE_EPROTOCOL, "any lane is asked for, with %u replicas",
			message->lane_attach.replicas);
	int rc = segue_drop_check_stream(stream);
	return rc ? rc
		  : segue_guard_check(session->server->guard, SEGUE_LIMIT_LANES, session->lanes, 1);
}

/*
 * Of a server before this one: the client has taken back by now what it still has of them, or says
 * which it comes back for.
 */
static void free_reserved(struct segue_ledger_group *group, uint32_t lanes,
	const struct segue_holder *holder, const struct segue_message *message, int64_t now)
{
	const uint8_t *kept = message->lane_attach.kept;

	for (uint32_t i = 0; i < lanes; i++) {
		struct segue_lease *lease = &group->of_lane[i].lease;
		bool stays = i / 8 < message->lane_attach.kept_size && kept[i / 8] >> i % 8 & 1;
		if (lease->state == SEGUE_LEASE_RESERVED && !stays &&
			segue_holder_same(&lease->holder, holder))
			segue_lease_expire(lease, SEGUE_PRESENCE_GONE, now);
	}
}

static int find_or_make(struct segue_session *session, const struct segue_message *message,
	struct segue_opening **opening, struct segue_ledger_group **group)
{
	int rc = segue_opening_find(session, message->lane_attach.stream, opening);

	if (!rc)
		rc = check(session, *opening, message);
	if (rc)
		return rc;
	*group = segue_ledgers_group(&(*opening)->stream->ledgers, message->lane_attach.group);
	if (!*group)
		return segue_drop_fail_group((*opening)->stream, message->lane_attach.lane);
	return segue_takers_make(*group, (*opening)->stream->spec->lanes);
}

void segue_any_request(struct segue_session *session, const struct segue_message *message)
{
	int64_t timeout = message->lane_attach.timeout_ns, now = segue_now_ns();
	struct segue_ledger_group *group;
	struct segue_opening *opening;
	struct segue_taker *taker = NULL;

	if (message->lane_attach.any != SEGUE_ANY_CHOOSE) {
		segue_attach_request(session, message);
		return;
	}
	int rc = find_or_make(session, message, &opening, &group);
	if (!rc) {
		uint32_t lanes = opening->stream->spec->lanes;
		look_at_takers(opening->stream, group, now);
		taker = segue_taker_find(group->takers, session);
		if (taker && taker->waits)
			rc = segue_fail(
				SEGUE_EPROTOCOL, "this connection waits for a lane already");
		/* A newer loader of the process: what the one before it had is given back. */
		if (!rc && taker && message->lane_attach.take &&
			!segue_taker_has_lanes(group, lanes, session))
			segue_taker_remove(group->takers, taker);
		if (!rc)
			free_reserved(group, lanes, &session->holder, message, now);
		/* One that has asked before goes on: it may have given the last lanes back. */
		if (!rc && !segue_taker_find(group->takers, session) &&
			!count_at_work(group->takers))
			segue_takers_begin(group, lanes, goes_on(group, lanes, &session->holder),
				message->lane_attach.mode == SEGUE_ATTACH_CONTINUE);
		taker = rc ? NULL : segue_taker_add(group->takers, session, opening);
		if (!rc && !taker)
			rc = segue_fail(SEGUE_ENOMEM, "no memory for a lane");
	}
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		return;
	}
	if (timeout <= 0)
		timeout = DEFAULT_WAIT;
	taker->message = *message;
	taker->message.lane_attach.kept = NULL; /* it goes with the request */
	taker->message.lane_attach.kept_size = 0;
	taker->waits = true;
	taker->deadline = timeout > INT64_MAX - now ? INT64_MAX : now + timeout;
	group->takers->dirty = true;
	segue_loop_tick_within(session->server->loop, now);
}

/* ---- What befalls a stream ---- */

void segue_any_session_gone(struct segue_stream *stream, struct segue_session *session)
{
	struct segue_ledger_group *group;

	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		struct segue_taker *taker =
			group->takers ? segue_taker_find(group->takers, session) : NULL;
		if (!taker)
			continue;
		segue_taker_remove(group->takers, taker);
		for (uint32_t i = 0; i < stream->spec->lanes; i++)
			if (group->takers->lane[i].to == session)
				group->takers->lane[i].to = NULL;
		segue_loop_tick_within(stream->server->loop, segue_now_ns());
	}
}

void segue_any_opening_closed(struct segue_stream *stream, const struct segue_opening *opening)
{
	struct segue_ledger_group *group;
	struct segue_taker *taker, *next;

	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		if (!group->takers)
			continue;
		TAILQ_FOREACH_SAFE(taker, &group->takers->takers, link, next) {
			if (taker->opening != opening)
				continue;
			if (taker->waits)
				refuse(taker, 0,
					segue_fail(SEGUE_EINVAL,
						"stream '%s' was closed while a lane of it was "
						"asked for",
						stream->spec->name));
			segue_taker_remove(group->takers, taker);
		}
	}
}
