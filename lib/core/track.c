/* A worker's end of a lease: positions, and the two words that the server reads. */
#include "core/track.h"

#include <assert.h>
#include <stdlib.h>

#include "core/barrier.h"
#include "core/error.h"

static uint64_t bit(uint64_t step)
{
	return UINT64_C(1) << (step % SEGUE_DEPTH_MAX);
}

void segue_track_init(struct segue_track *track, const struct segue_ring_header *ring,
	struct segue_carry_header *carry, const struct segue_lease_page *page, uint32_t depth,
	uint64_t generation, uint64_t step)
{
	assert(depth >= 2 && depth <= SEGUE_DEPTH_MAX);
	*track = (struct segue_track){
		.ring = ring,
		.carry = carry,
		.page = page,
		.generation = generation,
		.depth = depth,
		.next = step,
		.committed = step,
		.released = step,
		.woken_at = SEGUE_NEVER,
	};
}

enum segue_track_result segue_track_poll(const struct segue_track *track)
{
	/* acquire: pairs with segue_carry_fence (lane/carry.c) */
	if (segue_load_acquire(&track->page->generation) != track->generation)
		return SEGUE_TRACK_FENCED;
	/* acquire: pairs with segue_feed_publish (lane/feed.c) */
	if (segue_load_acquire(&track->ring->published) > track->next)
		return SEGUE_TRACK_READY;
	/*
	 * acquire: pairs with segue_carry_storage_failed (lane/carry.c), segue_feed_publish
	 * (lane/feed.c). What was published before the failure is seen then, if it was not above.
	 */
	if (segue_load_acquire(&track->page->error))
		return segue_load_acquire(&track->ring->published) > track->next
			       ? SEGUE_TRACK_READY
			       : SEGUE_TRACK_STORAGE;
	/* acquire: pairs with segue_feed_end (lane/feed.c); `undelivered` was written before it */
	if (segue_load_acquire(&track->ring->end) == track->next)
		return SEGUE_TRACK_END;
	/* acquire: pairs with segue_feed_fail (lane/feed.c); step and text come before it */
	if (segue_load_acquire(&track->ring->error) && track->ring->error_step == track->next)
		return SEGUE_TRACK_ERROR;
	if (track->next - track->released >= track->depth)
		return SEGUE_TRACK_HELD;
	return SEGUE_TRACK_WAIT;
}

uint64_t segue_track_take(struct segue_track *track)
{
	assert(!segue_track_open(track));
	track->held |= bit(track->next);
	return track->next++;
}

bool segue_track_open(const struct segue_track *track)
{
	return track->next > track->committed;
}

int segue_track_commit(struct segue_track *track)
{
	assert(segue_track_open(track));
	/* acquire: pairs with segue_carry_fence (lane/carry.c) */
	if (segue_load_acquire(&track->page->generation) != track->generation)
		return SEGUE_EFENCED;
	track->committed = track->next;
	/* release: pairs with segue_carry_observe (lane/carry.c); the states come before it */
	segue_store_release(&track->carry->committed, track->committed);
	return 0;
}

void segue_track_pass(struct segue_track *track)
{
	assert(segue_track_open(track));
	track->committed = track->next;
	/* release: pairs with observe (lane/follower.c) */
	segue_store_release(&track->carry->committed, track->committed);
}

void segue_track_put_back(struct segue_track *track)
{
	assert(segue_track_open(track));
	track->next = track->committed;
}

bool segue_track_release(struct segue_track *track, uint64_t step)
{
	assert(step >= track->released && step <= track->committed && (track->held & bit(step)));
	assert(step < track->committed || !segue_track_open(track));
	track->held &= ~bit(step);
	uint64_t released = track->released;
	while (released < track->committed && !(track->held & bit(released)))
		released++;
	if (released == track->released)
		return false;
	track->released = released;
	/*
	 * release: pairs with segue_carry_observe (lane/carry.c), observe (lane/follower.c); the
	 * reads of the views come before it.
	 */
	segue_store_release(&track->carry->released, released);
	/*
	 * The store must be seen before the word is read: the fence, and the load, pairs with
	 * segue_feed_sleep (lane/feed.c).
	 */
	if (!SEGUE_MUTANT(wake_without_fence))
		segue_fence();
	uint64_t wake_at = segue_load_relaxed(&track->page->wake_at);
	if (released < wake_at || wake_at == track->woken_at)
		return false;
	track->woken_at = wake_at;
	return true;
}

bool segue_track_skip(struct segue_track *track)
{
	bool held = track->held & bit(track->next);
	uint64_t step = segue_track_take(track);

	segue_track_pass(track);
	return !held && segue_track_release(track, step);
}

bool segue_track_sleep_begin(struct segue_track *track, uint32_t *seen)
{
	/*
	 * acquire: pairs with segue_feed_ring (lane/feed.c): an event after this load changes the
	 * bell, and the sleep returns.
	 */
	uint32_t bell = segue_load_acquire(&track->ring->bell);
	/* release: pairs with segue_feed_ring (lane/feed.c) */
	segue_store_release(&track->carry->sleeping, 1);
	/* The flag must be seen before we look again: pairs with segue_feed_ring (lane/feed.c). */
	if (!SEGUE_MUTANT(wake_without_fence))
		segue_fence();
	if (segue_track_poll(track) != SEGUE_TRACK_WAIT) {
		segue_track_sleep_end(track);
		return false;
	}
	*seen = bell;
	return true;
}

void segue_track_sleep_end(struct segue_track *track)
{
	/* release: pairs with segue_feed_ring (lane/feed.c) */
	segue_store_release(&track->carry->sleeping, 0);
}

void segue_track_waited(struct segue_track *track, uint64_t ns)
{
	_Atomic uint64_t *waited = &track->carry->waited;

	/* A count, which orders nothing; release: pairs with put_ring (report/status.c) */
	segue_store_release(waited, segue_load_relaxed(waited) + ns);
}
