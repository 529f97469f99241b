/* A lane: whether it can be used, and what is known of it. */
#include "client/lane.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/wait.h"

void segue_lane_drop(struct segue_lane *lane)
{
	if (--lane->users > 0)
		return;
	segue_kept_rows_finish(&lane->kept);
	segue_stream_drop(lane->stream);
	free(lane);
}

/* ---- Whether it can be used ---- */

int segue_lane_fail_lost(const struct segue_lane *lane)
{
	const char *name = segue_lane_spec(lane)->name;

	if (segue_lane_is_taken(lane))
		return segue_fail(SEGUE_EFENCED,
			"lane %u of stream '%s' was taken over by a newer handle of this process: "
			"go on with that one",
			lane->index, name);
	return segue_fail(SEGUE_EFENCED,
		"lane %u of stream '%s' has gone to another holder: make a new loader (in C: "
		"attach "
		"again), or go back to a checkpoint",
		lane->index, name);
}

void segue_lane_lose(struct segue_lane *lane)
{
	segue_fork_lock();
	if (!segue_lane_is_lost(lane))
		segue_store_release(&lane->lost, SEGUE_LOSS_FENCED); /* no pair: see above */
	segue_fork_unlock();
}

int segue_lane_check_storage(const struct segue_lane *lane)
{
	const struct segue_lease_page *page = segue_mapping_page(lane->mapping);
	/*
	 * acquire: pairs with segue_carry_storage_failed (lane/carry.c); the text was written
	 * before it. Once: a server that can store again takes it back.
	 */
	int code = -(int)segue_load_acquire(&page->error);

	if (code == 0)
		return 0;
	return segue_fail(code,
		"stream '%s': the server cannot store any more, batches below %" PRIu64
		" are on disk: "
		"%.*s",
		segue_lane_spec(lane)->name, segue_lane_durable(lane), SEGUE_ERROR_TEXT,
		page->error_text);
}

int segue_lanes_may_start(const struct segue_lane *lanes)
{
	for (const struct segue_lane *lane = lanes; lane; lane = lane->next) {
		int rc = lane->mapping ? segue_lane_check_storage(lane) : 0;
		if (rc)
			return segue_fail_within(rc,
				"the server is gone, and is not started again after a storage "
				"error");
	}
	return 0;
}

void segue_lane_ring(struct segue_lane *lane)
{
	segue_event_ring(lane->mapping->guard.fd);
	lane->wakes++;
}

void segue_lane_count_wait(struct segue_lane *lane, int64_t *since)
{
	int64_t now = segue_now_ns();

	lane->waited += (uint64_t)(now - *since);
	segue_track_waited(&lane->track, (uint64_t)(now - *since));
	*since = now;
}

/* ---- What is known of it ---- */

uint32_t segue_lane_index(const struct segue_lane *lane)
{
	return lane ? lane->index : 0;
}

uint32_t segue_lane_batch_size(const struct segue_lane *lane)
{
	return lane ? lane->batch_size : 0;
}

uint64_t segue_lane_committed(const struct segue_lane *lane)
{
	return lane ? lane->track.committed : 0;
}

uint64_t segue_lane_durable(const struct segue_lane *lane)
{
	if (segue_lane_usable(lane))
		return 0;
	/* acquire: pairs with segue_carry_set_durable (lane/carry.c) */
	return segue_load_acquire(&segue_mapping_page(lane->mapping)->durable);
}

uint64_t segue_lane_undelivered(const struct segue_lane *lane)
{
	if (segue_lane_usable(lane))
		return 0;
	const struct segue_ring_header *ring = segue_mapping_ring(lane->mapping);
	/* acquire: pairs with segue_feed_end (lane/feed.c); `undelivered` was written before it */
	return segue_load_acquire(&ring->end) == SEGUE_NEVER ? 0 : ring->undelivered;
}

uint64_t segue_lane_skipped(const struct segue_lane *lane)
{
	if (segue_lane_usable(lane))
		return 0;
	/* A count that orders nothing; relaxed: pairs with count_skipped (engine/filler.c) */
	return lane->skipped + segue_load_relaxed(&segue_mapping_ring(lane->mapping)->skipped);
}

void segue_lane_steps(const struct segue_lane *lane, uint64_t *steps, uint64_t *valid)
{
	if (steps)
		*steps = lane ? lane->steps : 0;
	if (valid)
		*valid = lane ? lane->valid : 0;
}

uint64_t segue_lane_waited(const struct segue_lane *lane)
{
	return lane ? lane->waited : 0;
}

void segue_lane_wakes(const struct segue_lane *lane, uint64_t *waits, uint64_t *wakes)
{
	if (waits)
		*waits = lane ? lane->waits : 0;
	if (wakes)
		*wakes = lane ? lane->wakes : 0;
}
