/* Feeds: joined, left. */
#include "stream/feeds.h"

#include <stdlib.h>

#include "core/error.h"
#include "os/loop.h"

void segue_feeds_end(struct segue_stream_feed *feed)
{
	segue_account_give(feed->account, SEGUE_LIMIT_MEMORY, feed->memory);
	segue_account_release(feed->account);
	--*feed->spec_uses;
	free(feed);
}

/* ---- Side segments, paid for by who brought the feed ---- */

static int take_more(void *arg, uint64_t bytes)
{
	struct segue_stream_feed *feed = arg;

	int rc = segue_account_take(feed->account, SEGUE_LIMIT_MEMORY, bytes);

	if (rc)
		return rc;
	rc = segue_account_take(feed->account, SEGUE_LIMIT_DESCRIPTORS, 1);
	if (rc)
		segue_account_give(feed->account, SEGUE_LIMIT_MEMORY, bytes);
	return rc;
}

static void give_some(void *arg, uint64_t bytes)
{
	struct segue_stream_feed *feed = arg;

	segue_account_give(feed->account, SEGUE_LIMIT_MEMORY, bytes);
	segue_account_give(feed->account, SEGUE_LIMIT_DESCRIPTORS, 1);
}

/* ---- A grant that is being made ---- */

bool segue_feeds_may_share(const struct segue_spec *spec)
{
	return spec->persist && spec->initial != SEGUE_INITIAL_KEPT;
}

int segue_feed_choice_init(struct segue_feed_choice *choice, struct segue_stream_feeds *feeds,
	struct segue_grant_order *order, uint64_t ring_size, unsigned *spec_uses)
{
	struct segue_stream_feed *feed;

	*choice = (struct segue_feed_choice){.feeds = feeds,
		.own = calloc(1, sizeof(*choice->own)),
		.ring_size = ring_size,
		.spec_uses = spec_uses};
	order->candidate_count = 0;
	if (!choice->own)
		return segue_fail(SEGUE_ENOMEM, "no memory for a lane");
	choice->own->followed = order->replicas > 1;
	LIST_FOREACH(feed, &feeds->all, link) {
		if (!segue_feeds_may_share(order->spec) || choice->own->followed ||
			feed->followed || feed->alone ||
			feed->filler->plan_spec.lane != order->plan.lane ||
			order->candidate_count == SEGUE_GRANT_CANDIDATES)
			continue;
		feed->uses++;
		choice->candidate[order->candidate_count] = feed;
		order->candidate[order->candidate_count++] = feed->filler;
	}
	return 0;
}

struct segue_stream_feed *segue_feeds_choose(struct segue_feed_choice *choice,
	const struct segue_grant *grant, struct segue_account *account)
{
	struct segue_stream_feed *feed = NULL;

	for (size_t i = 0; grant->joined && i < SEGUE_GRANT_CANDIDATES; i++)
		if (choice->candidate[i] && choice->candidate[i]->filler == grant->filler)
			feed = choice->candidate[i];
	if (feed) {
		segue_account_give(account, SEGUE_LIMIT_MEMORY, choice->ring_size);
	} else {
		feed = choice->own;
		choice->own = NULL;
		feed->feeds = choice->feeds;
		feed->number = ++feed->feeds->made;
		feed->filler = grant->filler;
		feed->account = segue_account_hold(account);
		feed->memory = choice->ring_size;
		feed->spec_uses = choice->spec_uses;
		++*feed->spec_uses;
		feed->filler->sides.purse = (struct segue_purse){take_more, give_some, feed};
		LIST_INSERT_HEAD(&feed->feeds->all, feed, link);
	}
	feed->uses++;
	return feed;
}

static void destroy_closed(void *arg)
{
	struct segue_stream_feed *feed = arg;

	segue_loop_arrive(feed->feeds->loop);
	segue_filler_destroy(feed->filler);
	segue_feeds_end(feed);
}

static void post_closed(void *arg)
{
	struct segue_stream_feed *feed = arg;

	segue_loop_post(feed->feeds->loop, destroy_closed, feed);
}

void segue_feed_choice_finish(struct segue_feed_choice *choice)
{
	for (size_t i = 0; i < SEGUE_GRANT_CANDIDATES; i++) {
		struct segue_stream_feed *feed = choice->candidate[i];
		if (!feed || --feed->uses > 0)
			continue;
		/* All its users have left since. */
		LIST_REMOVE(feed, link);
		segue_loop_await(feed->feeds->loop);
		segue_filler_close(feed->filler, post_closed, feed);
	}
	free(choice->own);
	*choice = (struct segue_feed_choice){.own = NULL};
}

/* ---- The end of a grant ---- */

bool segue_feeds_leave(struct segue_stream_feed *feed, struct segue_grant *grant)
{
	grant->joined = --feed->uses > 0;
	if (!grant->joined)
		LIST_REMOVE(feed, link);
	return !grant->joined;
}
