/* Lanes that move: who gets which, who gives one back. All small cases, run until nothing moves. */
#include "lane/share.h"

#include <criterion/criterion.h>
#include <string.h>

enum { LANES = 6, WORKERS = 4, TURNS = 40 };

static struct segue_share_lane lane[LANES];
static struct segue_share_worker worker[WORKERS];
static uint64_t turn;
static unsigned gives, backs;

static struct segue_share make(uint32_t lanes, uint32_t workers)
{
	struct segue_share share = {lane, worker, lanes, workers, 0, 0, 0};

	memset(lane, 0, sizeof(lane));
	memset(worker, 0, sizeof(worker));
	for (uint32_t i = 0; i < LANES; i++)
		lane[i].worker = SEGUE_SHARE_NOBODY;
	turn = 0;
	gives = backs = 0;
	return share;
}

/* As the server does, then as the workers do. False: nothing has moved. */
static bool turn_once(struct segue_share *share)
{
	uint32_t who, which;
	bool moved = false;

	segue_share_count(share);
	while (segue_share_give(share, &who, &which)) {
		gives++;
		moved = true;
		cr_assert_lt(who, share->workers);
		cr_assert_eq(lane[which].worker, who);
	}
	struct segue_share_lane before[LANES];
	memcpy(before, lane, sizeof(lane));
	segue_share_ask(share);
	for (uint32_t i = 0; i < share->lanes; i++) {
		lane[i].worker = before[i].worker; /* what `more` gives is not taken yet */
		if (!lane[i].asked)
			continue;
		lane[i] = (struct segue_share_lane){.worker = SEGUE_SHARE_NOBODY, .since = ++turn};
		backs++;
		moved = true;
	}
	for (uint32_t i = 0; i < share->workers; i++) {
		moved = moved || worker[i].more;
		worker[i].waits = worker[i].waits || worker[i].more;
	}
	return moved;
}

static void settle(struct segue_share *share)
{
	int turns = 0;

	while (turn_once(share))
		cr_assert_lt(turns++, TURNS, "lanes move for ever");
}

static void check_shares(struct segue_share *share)
{
	segue_share_count(share);
	cr_assert_eq(share->unheld, 0);
	for (uint32_t i = 0; i < share->workers; i++) {
		uint32_t held = worker[i].held, least = share->shared / share->workers;
		cr_assert(held >= least && held <= least + (share->shared % share->workers != 0),
			"%u lanes, %u workers: worker %u has %u", share->shared, share->workers, i,
			held);
	}
}

/* The least that must be given back, by who had what. */
static uint32_t moves_needed(const struct segue_share *share, uint32_t from)
{
	uint32_t least = share->lanes / share->workers, over = 0, under = 0, free = share->lanes;
	uint32_t most = least + (share->lanes % share->workers != 0);
	uint32_t held[WORKERS] = {0};

	for (uint32_t i = 0; i < share->lanes; i++, from /= share->workers + 1)
		if (from % (share->workers + 1) < share->workers) {
			held[from % (share->workers + 1)]++;
			free--;
		}
	for (uint32_t i = 0; i < share->workers; i++) {
		over += held[i] > most ? held[i] - most : 0;
		under += held[i] < least ? least - held[i] : 0;
	}
	under = under > free ? under - free : 0;
	return under > over ? under : over;
}

/*
 * From whoever has what, of whom any wait: shares are even in the end, by no more moves than that
 * takes, and then nothing moves.
 */
Test(share, all_small_cases)
{
	for (uint32_t lanes = 1; lanes <= LANES; lanes++)
		for (uint32_t workers = 1; workers <= WORKERS; workers++) {
			uint32_t cases = 1;
			for (uint32_t i = 0; i < lanes; i++)
				cases *= workers + 1;
			for (uint32_t at = 0; at < cases; at++)
				for (uint32_t waits = 0; waits < 1u << workers; waits++) {
					struct segue_share share = make(lanes, workers);
					for (uint32_t i = 0, of = at; i < lanes;
						i++, of /= workers + 1)
						if (of % (workers + 1) < workers)
							lane[i].worker = of % (workers + 1);
					for (uint32_t i = 0; i < workers; i++)
						worker[i].waits = waits >> i & 1;
					settle(&share);
					check_shares(&share);
					cr_assert_eq(backs, moves_needed(&share, at));
				}
		}
}

Test(share, what_has_been_free_longest_comes_first)
{
	struct segue_share share = make(4, 1);
	const uint32_t order[] = {2, 3, 1, 0};
	uint32_t who, which;

	lane[0].since = 9;
	lane[1].since = 4;
	segue_share_count(&share);
	for (int i = 0; i < 4; i++) {
		worker[0].waits = true;
		cr_assert(segue_share_give(&share, &who, &which));
		cr_assert_eq(which, order[i]);
	}
	worker[0].waits = true;
	cr_assert_not(segue_share_give(&share, &who, &which));
}

Test(share, what_is_apart_over_or_leaving_is_given_to_nobody)
{
	struct segue_share share = make(3, 1);
	uint32_t who, which;

	lane[0].apart = lane[1].over = lane[2].leaving = true;
	worker[0].waits = true;
	segue_share_count(&share);
	cr_assert_not(segue_share_give(&share, &who, &which));
	segue_share_ask(&share);
	cr_assert_not(worker[0].more);
	cr_assert(lane[2].leaving && !lane[2].asked);
}

/* A lane on its way back is asked for once: no second one goes for the same newcomer. */
Test(share, what_is_asked_for_stays_asked_for)
{
	struct segue_share share = make(4, 2);

	for (uint32_t i = 0; i < 4; i++)
		lane[i].worker = 0;
	lane[1].asked = true;
	worker[1].waits = true;
	segue_share_count(&share);
	segue_share_ask(&share);
	cr_assert(lane[1].asked && lane[3].asked && !lane[0].asked && !lane[2].asked);
	lane[3].leaving = true; /* it has been given back, and its commit is being written */
	lane[3].worker = SEGUE_SHARE_NOBODY;
	segue_share_count(&share);
	segue_share_ask(&share);
	cr_assert(lane[1].asked && !lane[0].asked && !lane[2].asked);
	worker[0].waits = false;
	share.workers = 1; /* the newcomer is gone */
	segue_share_count(&share);
	segue_share_ask(&share);
	for (uint32_t i = 0; i < 4; i++)
		cr_assert_not(lane[i].asked);
}
