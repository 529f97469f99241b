/*
 * A feed: a batch ring with a position in a lane, and the gate that says when its next slot may be
 * filled.
 *
 * Groups at the same place share one; their carries are its subscribers. The filler works on batch
 * `published`: gate() says GO, it fills the slot, publish() makes it readable. Position(t) of the
 * last depth + 1 batches is remembered with the keys of their rows, since copies of the carry
 * belong to the committed step, never to the filler's.
 *
 * Pure but for the shared words. All functions want the feed's lock, which is the driver's; filling
 * a slot and copying a carry happen without it.
 */
#ifndef SEGUE_LANE_FEED_H
#define SEGUE_LANE_FEED_H

#include "lane/carry.h"

/* Position(t), and for each row of batch t - 1, and each parked one, its record's key. */
struct segue_feed_entry {
	struct segue_position *position;
	struct segue_feed_key {
		uint32_t offset, size;
	} * key; /* places; into `heap` */
	char *heap;
	size_t heap_size;
};

struct segue_feed {
	struct segue_ring_header *ring; /* mapped */
	const struct segue_geometry *geometry;
	const struct segue_plan_spec *plan;
	uint64_t first;     /* the batch it began with */
	uint64_t published; /* batches below it are readable */
	uint64_t
		reserved; /* slots of batches from it on stay, for who is to come; or SEGUE_NEVER */
	bool ended, failed;
	struct segue_feed_entry *history; /* depth + 2; position(t) at t % (depth + 2) */
	struct segue_carry **subscribers;
	size_t subscriber_count;
	const struct segue_carry *awaited; /* by the last sleep; not read, it may be gone */
};

enum segue_feed_gate {
	SEGUE_FEED_GO,   /* slot published % depth may be rewritten */
	SEGUE_FEED_FULL, /* not released yet by a subscriber, or reserved */
	SEGUE_FEED_HELD, /* a copy is under way */
	SEGUE_FEED_TAKE, /* ended rows must be taken first: segue_feed_take() */
	SEGUE_FEED_OVER, /* ended or failed, or nobody subscribes */
};

/*
 * A feed that will publish batch start->step first. `keys` (of start's rows; may be NULL when it
 * has none) are copied, as is `start`. The ring's memory is fresh and zeroed. SEGUE_ENOMEM.
 */
int segue_feed_init(struct segue_feed *feed, struct segue_ring_header *ring,
	const struct segue_geometry *geometry, const struct segue_plan_spec *plan,
	const struct segue_position *start, const struct segue_feed_key *keys, const char *heap,
	size_t heap_size);
void segue_feed_finish(struct segue_feed *feed);

/* A carry granted at `step` may subscribe if its batch is still in the ring or comes next. */
bool segue_feed_reaches(const struct segue_feed *feed, uint64_t step);
int segue_feed_subscribe(struct segue_feed *feed, struct segue_carry *carry);
void segue_feed_unsubscribe(struct segue_feed *feed, struct segue_carry *carry);
/*
 * The lease of a subscriber is over, and nobody follows it any more. Those who did still read what
 * was taken of it: what they have not let go of is not written anew.
 */
void segue_feed_end_following(struct segue_feed *feed, struct segue_carry *carry);
/*
 * Until further notice no slot of a batch from `step` on is rewritten, though all subscribers are
 * done with it: a carry is to subscribe there. SEGUE_NEVER: none is. False: the step is behind what
 * is published, and not reached any more: nothing has changed.
 */
bool segue_feed_reserve(struct segue_feed *feed, uint64_t step);

/* Looks at every subscriber's words. A broken subscriber counts as one that releases nothing. */
enum segue_feed_gate segue_feed_gate(struct segue_feed *feed);
/* Takes what the gate asked for. */
int segue_feed_take(struct segue_feed *feed);
/*
 * Takes into memory the ended rows of all batches below `step` (<= committed) of a subscriber that
 * were not taken yet. Needs the history back to `taken`. Reads, and allocates: 0, SEGUE_ENOMEM, or
 * what the carry's `read` said; then nothing was taken of that batch.
 */
int segue_feed_take_of(const struct segue_feed *feed, struct segue_carry *carry, uint64_t step);

/*
 * Batch `published` lies in its slot: makes it readable and wakes sleepers. `after` is
 * position(published + 1) (copied); `keys` and `heap` those of its rows. Call it in the same locked
 * section as a gate() that said GO. SEGUE_ENOMEM: nothing was published.
 */
int segue_feed_publish(struct segue_feed *feed, const struct segue_position *after,
	const struct segue_feed_key *keys, const char *heap, size_t heap_size);
/* The lane has ended at batch `published`. */
void segue_feed_end(struct segue_feed *feed, uint64_t undelivered);
/* Batch `published` cannot be made; with SEGUE_ENOMEM: yet. A try that succeeds takes it back. */
void segue_feed_fail(struct segue_feed *feed, int code, const char *text);
/* Rings the bell for an event that is not a batch (fenced, storage). */
void segue_feed_ring(struct segue_feed *feed);

/*
 * The gate said FULL: asks the subscriber that is furthest behind to wake the filler when half the
 * ring is free of it, fences, looks again. False: there is something to do after all.
 */
bool segue_feed_sleep(struct segue_feed *feed);
/*
 * The step that must be committed before batch feed->published can begin rows of these keys:
 * carry->committed or less where it can now.
 */
uint64_t segue_feed_awaits(const struct segue_feed *feed, const struct segue_carry *carry,
	const struct segue_again_key *keys, size_t count);
/*
 * The filler waits for this subscriber to commit the batches below `step`: asks to be woken when it
 * has released them, fences, looks again. True: they are committed.
 */
bool segue_feed_await(struct segue_feed *feed, struct segue_carry *carry, uint64_t step);

/* Position(step) and its keys; NULL if that is no longer (or not yet) remembered. */
const struct segue_feed_entry *segue_feed_entry(const struct segue_feed *feed, uint64_t step);

#endif
