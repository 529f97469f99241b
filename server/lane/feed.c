/* A feed: when the next slot of a batch ring may be filled, and what making it readable takes. */
#include "lane/feed.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/wait.h"
#include "lane/follower.h"

static struct segue_feed_entry *entry_of(const struct segue_feed *feed, uint64_t step)
{
	return &feed->history[step % (feed->geometry->depth + 2)];
}

static int remember(struct segue_feed *feed, const struct segue_position *position,
	const struct segue_feed_key *keys, const char *heap, size_t heap_size)
{
	struct segue_feed_entry *entry = entry_of(feed, position->step);
	uint32_t rows = segue_position_count(position);

	/* Never NULL: pointers into it are made of keys of no bytes as well. */
	if (heap_size > entry->heap_size || !entry->heap) {
		char *grown = realloc(entry->heap, heap_size ? heap_size : 1);
		if (!grown)
			return segue_fail(SEGUE_ENOMEM, "no memory for the keys of a batch");
		entry->heap = grown;
		entry->heap_size = heap_size;
	}
	memcpy(entry->position, position, segue_position_size(segue_position_entries(position)));
	if (keys) {
		memcpy(entry->key, keys, rows * sizeof(*keys));
		if (heap_size)
			memcpy(entry->heap, heap, heap_size);
	} else {
		memset(entry->key, 0, rows * sizeof(*keys));
	}
	return 0;
}

int segue_feed_init(struct segue_feed *feed, struct segue_ring_header *ring,
	const struct segue_geometry *geometry, const struct segue_plan_spec *plan,
	const struct segue_position *start, const struct segue_feed_key *keys, const char *heap,
	size_t heap_size)
{
	size_t entries = geometry->depth + 2;

	*feed = (struct segue_feed){
		.ring = ring,
		.geometry = geometry,
		.plan = plan,
		.first = start->step,
		.published = start->step,
		.reserved = SEGUE_NEVER,
		.history = calloc(entries, sizeof(struct segue_feed_entry)),
	};
	if (!feed->history)
		goto no_memory;
	for (size_t i = 0; i < entries; i++) {
		struct segue_feed_entry *entry = &feed->history[i];
		entry->position = calloc(1, segue_position_size(geometry->places + plan->window));
		entry->key = calloc(geometry->places, sizeof(*entry->key));
		if (!entry->position || !entry->key)
			goto no_memory;
		entry->position->step = SEGUE_NEVER;
	}
	if (remember(feed, start, keys, heap, heap_size))
		goto no_memory;
	/* no pair: nobody else has the ring yet */
	segue_store_release(&ring->published, start->step);
	segue_store_release(&ring->end, SEGUE_NEVER);
	return 0;

no_memory:
	segue_feed_finish(feed);
	return segue_fail(SEGUE_ENOMEM, "no memory for batches of %u rows", geometry->places);
}

void segue_feed_finish(struct segue_feed *feed)
{
	if (feed->history) {
		for (size_t i = 0; i < feed->geometry->depth + 2u; i++) {
			free(feed->history[i].position);
			free(feed->history[i].key);
			free(feed->history[i].heap);
		}
	}
	free(feed->history);
	free(feed->subscribers);
	*feed = (struct segue_feed){0};
}

bool segue_feed_reaches(const struct segue_feed *feed, uint64_t step)
{
	uint64_t depth = feed->geometry->depth;

	if (feed->failed || step < feed->first || step > feed->published ||
		step + depth < feed->published)
		return false;
	if (step + depth > feed->published)
		return true;
	/* The slot of the oldest may be being filled, unless somebody has not let go of it. */
	if (feed->reserved <= step)
		return true;
	for (size_t i = 0; i < feed->subscriber_count; i++)
		if (feed->subscribers[i]->released <= step)
			return true;
	return SEGUE_MUTANT(oldest_slot_not_held);
}

int segue_feed_subscribe(struct segue_feed *feed, struct segue_carry *carry)
{
	size_t count = feed->subscriber_count;
	struct segue_carry **grown = realloc(feed->subscribers, (count + 1) * sizeof(*grown));

	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for a lane");
	feed->subscribers = grown;
	grown[count] = carry;
	feed->subscriber_count = count + 1;
	return 0;
}

void segue_feed_unsubscribe(struct segue_feed *feed, struct segue_carry *carry)
{
	for (size_t i = 0; i < feed->subscriber_count; i++) {
		if (feed->subscribers[i] == carry) {
			feed->subscribers[i] = feed->subscribers[--feed->subscriber_count];
			return;
		}
	}
}

void segue_feed_end_following(struct segue_feed *feed, struct segue_carry *carry)
{
	uint64_t least = segue_followers_observe(carry, feed->published);

	/* Until now the gate has waited for them: not even the oldest slot is being filled. */
	if (least < feed->reserved && !SEGUE_MUTANT(followed_lease_forgotten))
		feed->reserved = least;
	carry->followers = NULL;
}

bool segue_feed_reserve(struct segue_feed *feed, uint64_t step)
{
	if (step <= feed->published && !segue_feed_reaches(feed, step))
		return false;
	feed->reserved = step;
	return true;
}

static uint64_t released_of(const struct segue_feed *feed, const struct segue_carry *carry)
{
	uint64_t released = SEGUE_MUTANT(no_released_word) ? carry->committed : carry->released;

	for (size_t i = 0; SEGUE_MUTANT(slot_freed_by_the_first) && i < feed->subscriber_count; i++)
		if (feed->subscribers[i]->released > released)
			released = feed->subscribers[i]->released;
	return released;
}

/* What one subscriber says about rewriting the slot, and buffer, that batch `published` uses. */
static enum segue_feed_gate gate_of(struct segue_feed *feed, struct segue_carry *carry)
{
	uint64_t depth = feed->geometry->depth, published = feed->published;

	if (!segue_carry_observe(carry, published))
		return SEGUE_FEED_FULL;
	uint64_t released = released_of(feed, carry);
	uint64_t others = segue_followers_observe(carry, published);
	if (published >= (others < released ? others : released) + depth)
		return SEGUE_FEED_FULL;
	if (carry->holds > 0)
		return SEGUE_FEED_HELD;
	/* The worker writes the states of batch t + depth + 1 over those of batch t. */
	if (carry->spec->keep_final && published > carry->taken + depth &&
		!SEGUE_MUTANT(ended_rows_not_taken))
		return SEGUE_FEED_TAKE;
	return SEGUE_FEED_GO;
}

enum segue_feed_gate segue_feed_gate(struct segue_feed *feed)
{
	if (feed->ended || feed->failed || feed->subscriber_count == 0)
		return SEGUE_FEED_OVER;
	for (size_t i = 0; i < feed->subscriber_count; i++) {
		enum segue_feed_gate gate = gate_of(feed, feed->subscribers[i]);
		if (gate != SEGUE_FEED_GO)
			return gate;
	}
	bool reserved = feed->published >= feed->reserved &&
			feed->published - feed->reserved >= feed->geometry->depth;
	return reserved ? SEGUE_FEED_FULL : SEGUE_FEED_GO;
}

static struct segue_kept *keep_row(const struct segue_carry *carry,
	const struct segue_feed_entry *entry, uint32_t row, const uint8_t *buffer)
{
	uint64_t row_size = segue_row_size(carry->spec);
	uint32_t key_size = entry->key[row].size;
	struct segue_kept *kept = malloc(sizeof(*kept) + row_size + key_size);

	if (!kept)
		return NULL;
	*kept = (struct segue_kept){
		.step = entry->position->step - 1,
		.number = entry->position->row[row].number,
		.key_size = key_size,
		.states = kept->bytes,
		.key = (char *)kept->bytes + row_size,
	};
	segue_states_gather(carry->spec, carry->geometry, buffer, row, kept->states);
	memcpy(kept->key, entry->heap + entry->key[row].offset, key_size);
	return kept;
}

/* The ended rows of batch entry->position->step - 1: all of them or none. */
static int take_batch(struct segue_carry *carry, const struct segue_plan_spec *plan,
	const struct segue_feed_entry *entry)
{
	const struct segue_position *position = entry->position;
	bool again = carry->spec->initial == SEGUE_INITIAL_KEPT;
	struct segue_kept *first = NULL, **tail = &first;
	uint8_t *buffer = NULL;
	int rc = again ? segue_again_reserve(&carry->again, position->rows) : 0;

	for (uint32_t row = 0; row < position->rows && !rc; row++) {
		const struct segue_plan_row *ended = &position->row[row];
		if (ended->number == SEGUE_NO_SEQUENCE || segue_plan_row_lives(plan, ended))
			continue;
		if (!buffer) {
			buffer = malloc(carry->geometry->buffer_size);
			rc = buffer ? segue_carry_copy(carry, position->step - 1, buffer)
				    : segue_fail(SEGUE_ENOMEM,
					      "no memory for the states of an ended row");
			if (rc)
				break;
		}
		*tail = keep_row(carry, entry, row, buffer);
		if (!*tail) {
			rc = segue_fail(SEGUE_ENOMEM, "no memory for the states of an ended row");
			break;
		}
		tail = &(*tail)->next;
	}
	free(buffer);
	if (rc) {
		while (first) {
			struct segue_kept *next = first->next;
			free(first);
			first = next;
		}
		return rc;
	}
	for (struct segue_kept *kept = first; kept && again; kept = kept->next)
		segue_again_add(&carry->again, kept);
	if (first) {
		*carry->kept_tail = first;
		carry->kept_tail = tail;
	}
	return 0;
}

int segue_feed_take_of(const struct segue_feed *feed, struct segue_carry *carry, uint64_t step)
{
	if (!carry->spec->keep_final)
		return 0;
	while (carry->taken < step) {
		const struct segue_feed_entry *entry = segue_feed_entry(feed, carry->taken + 1);
		if (!entry)
			return segue_fail(SEGUE_EPROTOCOL,
				"ended rows of batch %" PRIu64 " are no longer known",
				carry->taken);
		int rc = take_batch(carry, feed->plan, entry);
		if (rc)
			return rc;
		carry->taken++;
	}
	return 0;
}

int segue_feed_take(struct segue_feed *feed)
{
	uint64_t depth = feed->geometry->depth;

	for (size_t i = 0; i < feed->subscriber_count; i++) {
		struct segue_carry *carry = feed->subscribers[i];
		/* All that is committed, so that a single pass serves several batches. */
		if (!carry->broken && feed->published > carry->taken + depth) {
			int rc = segue_feed_take_of(feed, carry, carry->committed);
			if (rc)
				return rc;
		}
	}
	return 0;
}

void segue_feed_ring(struct segue_feed *feed)
{
	_Atomic uint32_t *bell = &feed->ring->bell;

	/* release: pairs with segue_track_sleep_begin (core/track.c); the event comes before it */
	segue_store_release(bell, segue_load_relaxed(bell) + 1);
	/* The event is seen before the flags: pairs with segue_track_sleep_begin (core/track.c). */
	if (!SEGUE_MUTANT(wake_without_fence))
		segue_fence();
	for (size_t i = 0; i < feed->subscriber_count; i++) {
		/* relaxed: pairs with segue_track_sleep_begin (core/track.c) */
		if (segue_load_relaxed(&feed->subscribers[i]->words->sleeping)) {
			segue_wake_word(bell);
			return;
		}
	}
}

int segue_feed_publish(struct segue_feed *feed, const struct segue_position *after,
	const struct segue_feed_key *keys, const char *heap, size_t heap_size)
{
	assert(after->step == feed->published + 1);
	int rc = remember(feed, after, keys, heap, heap_size);
	if (rc)
		return rc;
	feed->published++;
	/* release: pairs with segue_track_poll (core/track.c); the slot is complete before it */
	segue_store_release(&feed->ring->published, feed->published);
	segue_feed_ring(feed);
	return 0;
}

void segue_feed_end(struct segue_feed *feed, uint64_t undelivered)
{
	feed->ended = true;
	feed->ring->undelivered = undelivered;
	/*
	 * release: pairs with segue_track_poll (core/track.c), segue_lane_undelivered
	 * (client/lane.c)
	 */
	segue_store_release(&feed->ring->end, feed->published);
	segue_feed_ring(feed);
}

void segue_feed_fail(struct segue_feed *feed, int code, const char *text)
{
	feed->failed = code != SEGUE_ENOMEM;
	feed->ring->error_step = feed->published;
	strncpy(feed->ring->error_text, text, SEGUE_ERROR_TEXT - 1);
	/*
	 * release: pairs with segue_track_poll (core/track.c), fail_ring (client/next.c); step and
	 * text come before it
	 */
	segue_store_release(&feed->ring->error, (uint32_t)-code);
	segue_feed_ring(feed);
}

/* Looks at every subscriber: the one that is furthest behind; of several that which was awaited. */
static struct segue_carry *find_last(struct segue_feed *feed)
{
	struct segue_carry *last = NULL;
	uint64_t least = SEGUE_NEVER;

	for (size_t i = 0; i < feed->subscriber_count; i++) {
		struct segue_carry *carry = feed->subscribers[i];
		segue_carry_observe(carry, feed->published);
		uint64_t released = segue_followers_observe(carry, feed->published);
		released = carry->released < released ? carry->released : released;
		if (!last || released < least || (released == least && carry == feed->awaited)) {
			last = carry;
			least = released;
		}
	}
	return last;
}

bool segue_feed_sleep(struct segue_feed *feed)
{
	uint64_t depth = feed->geometry->depth;

	/* The others need not wake anybody: it is the last that makes way. */
	do {
		struct segue_carry *last = find_last(feed);
		feed->awaited = last;
		/*
		 * Half the ring is free when `released` gets there (depth >= 2).
		 * release: pairs with segue_track_release (core/track.c)
		 */
		segue_store_release(&last->page->wake_at, feed->published - depth + depth / 2);
		/* It is seen before we look again: pairs with segue_track_release (core/track.c) */
		if (!SEGUE_MUTANT(wake_without_fence))
			segue_fence();
	} while (find_last(feed) != feed->awaited);
	enum segue_feed_gate gate = segue_feed_gate(feed);
	return gate == SEGUE_FEED_FULL || gate == SEGUE_FEED_OVER;
}

static bool has_ended(const struct segue_feed *feed, const struct segue_feed_entry *entry,
	const struct segue_again_key *keys, size_t count)
{
	const struct segue_position *position = entry->position;

	for (uint32_t row = 0; row < position->rows; row++) {
		if (position->row[row].number == SEGUE_NO_SEQUENCE ||
			segue_plan_row_lives(feed->plan, &position->row[row]))
			continue;
		if (segue_again_is_one_of(entry->heap + entry->key[row].offset,
			    entry->key[row].size, keys, count))
			return true;
	}
	return false;
}

uint64_t segue_feed_awaits(const struct segue_feed *feed, const struct segue_carry *carry,
	const struct segue_again_key *keys, size_t count)
{
	uint64_t step = feed->published;

	if (SEGUE_MUTANT(kept_not_committed))
		return 0;
	/* position(step) is that of the rows of batch step - 1: they are committed at `step`. */
	while (step > carry->committed) {
		const struct segue_feed_entry *entry = segue_feed_entry(feed, step);
		if (!entry || has_ended(feed, entry, keys, count))
			break;
		step--;
	}
	return step;
}

bool segue_feed_await(struct segue_feed *feed, struct segue_carry *carry, uint64_t step)
{
	/* release: pairs with segue_track_release (core/track.c) */
	segue_store_release(&carry->page->wake_at, step);
	/* The word is seen before we look again: pairs with segue_track_release (core/track.c). */
	segue_fence();
	return segue_carry_observe(carry, feed->published) && carry->committed >= step;
}

const struct segue_feed_entry *segue_feed_entry(const struct segue_feed *feed, uint64_t step)
{
	const struct segue_feed_entry *entry = entry_of(feed, step);

	return entry->position->step == step ? entry : NULL;
}
