/* How the lanes that move are shared among the workers that take any. */
#include "lane/share.h"

static bool is_shared(const struct segue_share_lane *lane)
{
	return !lane->apart && !lane->over;
}

static bool is_free(const struct segue_share_lane *lane)
{
	return is_shared(lane) && !lane->leaving && lane->worker == SEGUE_SHARE_NOBODY;
}

static bool is_held(const struct segue_share_lane *lane)
{
	return is_shared(lane) && !lane->leaving && lane->worker != SEGUE_SHARE_NOBODY;
}

void segue_share_count(struct segue_share *share)
{
	share->shared = share->unheld = 0;
	for (uint32_t i = 0; i < share->workers; i++)
		share->worker[i].held = 0;
	for (uint32_t i = 0; i < share->lanes; i++) {
		const struct segue_share_lane *lane = &share->lane[i];
		share->shared += is_shared(lane);
		if (is_held(lane))
			share->worker[lane->worker].held++;
		else
			share->unheld += is_shared(lane);
	}
	share->least = share->workers ? share->shared / share->workers : 0;
}

/* Lanes that those lack who have less than the least share. */
static uint32_t count_lacking(const struct segue_share *share)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < share->workers; i++)
		if (share->worker[i].held < share->least)
			count += share->least - share->worker[i].held;
	return count;
}

/* ---- Giving ---- */

static uint32_t find_free(const struct segue_share *share)
{
	uint32_t best = SEGUE_SHARE_NOBODY;

	for (uint32_t i = 0; i < share->lanes; i++)
		if (is_free(&share->lane[i]) &&
			(best == SEGUE_SHARE_NOBODY ||
				share->lane[i].since < share->lane[best].since))
			best = i;
	return best;
}

/* One beyond the least share is for whoever comes, where nobody lacks what is free. */
static bool may_take(const struct segue_share *share, uint32_t held)
{
	return held < share->least ||
	       (held == share->least && share->unheld > count_lacking(share));
}

/* Of those that wait, or of those that do not: who has least, and may have more. */
static uint32_t find_taker(const struct segue_share *share, bool waits)
{
	uint32_t best = SEGUE_SHARE_NOBODY;

	for (uint32_t i = 0; i < share->workers; i++)
		if (share->worker[i].waits == waits &&
			(best == SEGUE_SHARE_NOBODY ||
				share->worker[i].held < share->worker[best].held))
			best = i;
	return best != SEGUE_SHARE_NOBODY && may_take(share, share->worker[best].held)
		       ? best
		       : SEGUE_SHARE_NOBODY;
}

static bool give(struct segue_share *share, bool waits, uint32_t *worker, uint32_t *lane)
{
	uint32_t found = find_free(share);
	uint32_t taker = found == SEGUE_SHARE_NOBODY ? found : find_taker(share, waits);

	if (taker == SEGUE_SHARE_NOBODY)
		return false;
	share->lane[found].worker = taker;
	share->worker[taker].held++;
	share->unheld--;
	*worker = taker;
	*lane = found;
	return true;
}

bool segue_share_give(struct segue_share *share, uint32_t *worker, uint32_t *lane)
{
	if (!give(share, true, worker, lane))
		return false;
	share->worker[*worker].waits = false;
	return true;
}

/* ---- Asking ---- */

/* What others lack beyond what is free; and what is more than one too many. */
static uint32_t count_surplus(const struct segue_share *share)
{
	uint32_t lacking = count_lacking(share), excess = 0, most = share->least;

	most += share->workers && share->shared % share->workers != 0;
	for (uint32_t i = 0; i < share->workers; i++)
		if (share->worker[i].held > most)
			excess += share->worker[i].held - most;
	lacking = lacking > share->unheld ? lacking - share->unheld : 0;
	return lacking > excess ? lacking : excess;
}

static uint32_t find_fullest(const struct segue_share *share)
{
	uint32_t best = 0;

	for (uint32_t i = 1; i < share->workers; i++)
		if (share->worker[i].held > share->worker[best].held)
			best = i;
	return best;
}

/* One that has been asked for already, else the last. `leaving` marks those chosen before. */
static struct segue_share_lane *find_surplus(const struct segue_share *share, uint32_t worker)
{
	struct segue_share_lane *best = NULL;

	for (uint32_t i = 0; i < share->lanes; i++) {
		struct segue_share_lane *lane = &share->lane[i];
		if (is_held(lane) && lane->worker == worker &&
			(!best || lane->asked || !best->asked))
			best = lane;
	}
	return best;
}

void segue_share_ask(struct segue_share *share)
{
	uint32_t worker, lane;

	for (uint32_t i = 0; i < share->workers; i++)
		share->worker[i].more = false;
	while (give(share, false, &worker, &lane))
		share->worker[worker].more = true;
	for (uint32_t surplus = count_surplus(share); surplus > 0; surplus--) {
		worker = find_fullest(share);
		find_surplus(share, worker)->leaving = true;
		share->worker[worker].held--;
	}
	for (uint32_t i = 0; i < share->lanes; i++) {
		struct segue_share_lane *at = &share->lane[i];
		at->asked = at->leaving && is_shared(at) && at->worker != SEGUE_SHARE_NOBODY;
		at->leaving = at->leaving && !at->asked;
	}
}
