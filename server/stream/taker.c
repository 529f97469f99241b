/* Sessions that take any lane of a group, and which lanes they have. */
#include "stream/taker.h"

#include <stdlib.h>

#include "core/error.h"
#include "core/wait.h"
#include "stream/opening.h"

/* ---- Found ---- */

static struct segue_takers *takers_of(const struct segue_ledger *ledger)
{
	const struct segue_ledger_group *group =
		segue_ledgers_group(&ledger->stream->ledgers, ledger->place.group);

	return group ? group->takers : NULL;
}

struct segue_taker *segue_taker_find(
	struct segue_takers *takers, const struct segue_session *session)
{
	struct segue_taker *taker;

	TAILQ_FOREACH(taker, &takers->takers, link) {
		if (taker->session == session)
			break;
	}
	return taker;
}

struct segue_taker *segue_taker_add(
	struct segue_takers *takers, struct segue_session *session, struct segue_opening *opening)
{
	struct segue_taker *taker = segue_taker_find(takers, session);

	if (!taker) {
		taker = calloc(1, sizeof(*taker));
		if (!taker)
			return NULL;
		taker->session = session;
		TAILQ_INSERT_TAIL(&takers->takers, taker, link);
	}
	taker->opening = opening;
	taker->works = true;
	return taker;
}

void segue_taker_remove(struct segue_takers *takers, struct segue_taker *taker)
{
	TAILQ_REMOVE(&takers->takers, taker, link);
	free(taker);
	takers->dirty = true;
}

bool segue_taker_has_lanes(
	const struct segue_ledger_group *group, uint32_t lanes, const struct segue_session *session)
{
	for (uint32_t i = 0; i < lanes; i++) {
		enum segue_lease_state state = group->of_lane[i].lease.state;
		if (group->takers->lane[i].to == session &&
			(state == SEGUE_LEASE_HELD || state == SEGUE_LEASE_GRANTING))
			return true;
	}
	return false;
}

void segue_takers_begin(struct segue_ledger_group *group, uint32_t lanes, bool begun, bool goes_on)
{
	for (uint32_t i = 0; i < lanes; i++) {
		group->takers->lane[i].begun = begun;
		group->takers->lane[i].over = group->takers->lane[i].over && goes_on;
	}
}

int segue_takers_make(struct segue_ledger_group *group, uint32_t lanes)
{
	if (group->takers)
		return 0;
	struct segue_takers *takers = calloc(1, sizeof(*takers) + lanes * sizeof(takers->lane[0]));
	if (!takers)
		return segue_fail(SEGUE_ENOMEM, "no memory for %u lanes", lanes);
	TAILQ_INIT(&takers->takers);
	group->takers = takers;
	return 0;
}

bool segue_taken_is_over(const struct segue_stream *stream, const struct segue_taken *lane)
{
	return lane->over && lane->ends == stream->plan.ends.count;
}

/* ---- What befalls a ledger ---- */

void segue_taken_making(struct segue_ledger *ledger, struct segue_session *to)
{
	struct segue_takers *takers = takers_of(ledger);

	if (takers)
		takers->lane[ledger->place.lane].to = to;
}

void segue_taken_granted(struct segue_ledger *ledger, struct segue_session *to, bool by_library)
{
	struct segue_stream *stream = ledger->stream;
	struct segue_ledger_group *group =
		segue_ledgers_group(&stream->ledgers, ledger->place.group);

	if (!group || (!group->takers && (!to || segue_takers_make(group, stream->spec->lanes))))
		return;
	struct segue_taken *lane = &group->takers->lane[ledger->place.lane];
	if (to && by_library)
		segue_takers_begin(group, stream->spec->lanes, true, true);
	if (to && !segue_taker_add(group->takers, to, ledger->opening))
		to = NULL;
	lane->to = to;
	lane->begun = lane->begun || to;
	lane->over = false;
	lane->asks = 0;
	group->takers->dirty = true;
	segue_loop_tick_within(stream->server->loop, segue_now_ns());
}

void segue_taken_freed(struct segue_ledger *ledger)
{
	struct segue_takers *takers = takers_of(ledger);
	struct segue_filler *filler = ledger->grant->filler;

	if (!takers)
		return;
	struct segue_taken *lane = &takers->lane[ledger->place.lane];
	lane->to = NULL;
	lane->asks = 0;
	lane->since = ++takers->turn;
	pthread_mutex_lock(&filler->lock);
	lane->over = filler->feed.ended && ledger->grant->account.durable >= filler->feed.published;
	pthread_mutex_unlock(&filler->lock);
	lane->ends = ledger->stream->plan.ends.count;
	takers->dirty = true;
	segue_loop_tick_within(ledger->stream->server->loop, segue_now_ns());
}

bool segue_takers_wait(const struct segue_ledger_group *group)
{
	const struct segue_taker *taker = NULL;

	if (group->takers)
		TAILQ_FOREACH(taker, &group->takers->takers, link)
			if (taker->waits)
				break;
	return taker != NULL;
}

void segue_takers_finish_group(struct segue_ledger_group *group)
{
	while (group->takers && !TAILQ_EMPTY(&group->takers->takers))
		segue_taker_remove(group->takers, TAILQ_FIRST(&group->takers->takers));
	free(group->takers);
	group->takers = NULL;
}

void segue_takers_finish(struct segue_stream *stream)
{
	struct segue_ledger_group *group;

	LIST_FOREACH(group, &stream->ledgers.groups, link)
		segue_takers_finish_group(group);
}
