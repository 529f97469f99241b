/*
 * The feeds of a stream that are in force. Groups at the same place of a lane share one: its
 * batches are read, and its slots filled, once for all of them. On the loop's thread.
 *
 * A grant is made with the feeds of its lane as candidates, which stay until it is made: it joins
 * one that is where it begins, or brings its own. Who leaves last closes it.
 */
#ifndef SEGUE_STREAM_FEEDS_H
#define SEGUE_STREAM_FEEDS_H

#include "core/list.h"
#include "engine/grant.h"
#include "guard/guard.h"

struct segue_loop;

struct segue_stream_feed {
	LIST_ENTRY(segue_stream_feed) link;
	struct segue_stream_feeds *feeds;
	struct segue_filler *filler;
	bool followed;                 /* replicas read it: nobody joins it */
	unsigned uses;                 /* by ledgers, and by grants that are being made */
	struct segue_account *account; /* pays for the ring, and what goes beside it: held */
	uint64_t memory;
	uint64_t number;     /* rises with each feed of the stream */
	unsigned *spec_uses; /* its filler reads that spec: counted as long as it does */

	/* Of groups that keep others waiting (lag.h). */
	int64_t kept_since, kept_limit; /* since when; 0: nobody does; until they are told, or go */
	uint64_t kept_at;    /* what was published then: it is one piece as long as it is */
	bool told;           /* of this piece */
	bool alone;          /* its groups were left behind: nobody else joins it, */
	int64_t alone_until; /* and they stay there until then */
};

struct segue_stream_feeds {
	struct segue_loop *loop;
	LIST_HEAD(, segue_stream_feed) all;
	uint64_t made; /* so many, so far */
};

/* For a grant that is being made. Zeroed: none. */
struct segue_feed_choice {
	struct segue_stream_feeds *feeds;
	struct segue_stream_feed *candidate[SEGUE_GRANT_CANDIDATES];
	struct segue_stream_feed *own; /* if it joins none; owned */
	uint64_t ring_size;            /* for which its ledger has paid */
	unsigned *spec_uses;           /* of the order's spec */
};

/* Where rows begin with what a group has kept, no other group has the same batches. */
bool segue_feeds_may_share(const struct segue_spec *spec);
/*
 * Which feeds the order, whose plan is set, may join; puts them in. A feed that it makes needs the
 * order's spec for longer than it: then *spec_uses counts it. SEGUE_ENOMEM.
 */
int segue_feed_choice_init(struct segue_feed_choice *choice, struct segue_stream_feeds *feeds,
	struct segue_grant_order *order, uint64_t ring_size, unsigned *spec_uses);
/*
 * The grant is made: the feed that it uses. What the account has paid for a ring goes to that feed,
 * or back.
 */
struct segue_stream_feed *segue_feeds_choose(struct segue_feed_choice *choice,
	const struct segue_grant *grant, struct segue_account *account);
/* Lets go of all but the one that was chosen. */
void segue_feed_choice_finish(struct segue_feed_choice *choice);

/*
 * The grant, which uses the feed, is going to be destroyed. True: its filler is to be closed before
 * that, and segue_feeds_end() called after it. False: others use it.
 */
bool segue_feeds_leave(struct segue_stream_feed *feed, struct segue_grant *grant);
void segue_feeds_end(struct segue_stream_feed *feed);

#endif
