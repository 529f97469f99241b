/* The next batch of a lane: taken, or waited for. */
#include <inttypes.h>

#include "client/follow.h"
#include "client/lease.h"
#include "client/resume.h"
#include "client/side.h"
#include "core/barrier.h"
#include "core/error.h"
#include "core/wait.h"

#define SPIN_NS 10000

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Short: on a small machine the server waits for the core that we spin on. */
static void spin(const struct segue_track *track)
{
	int64_t until = segue_now_ns() + SPIN_NS;

	do
		pause_cpu();
	while (segue_track_poll(track) == SEGUE_TRACK_WAIT && segue_now_ns() < until);
}

struct waiting {
	int64_t deadline_ns;
	struct segue_losses losses;
	bool waited, slept, rung;
};

/* Until something may have happened: 0, or why not to wait any longer. */
static int wait_once(struct segue_lane *lane, struct waiting *waiting)
{
	struct segue_track *track = &lane->track;
	uint32_t seen;
	int rc = segue_lane_look_around(lane, waiting->slept);

	waiting->waited = true;
	if (rc)
		return rc;
	int64_t now = segue_now_ns();
	if (now >= waiting->deadline_ns)
		return segue_fail(SEGUE_ETIMEOUT,
			"batch %" PRIu64 " of lane %u of stream '%s' did not come in time: ask "
			"again, or give it longer (timeout)",
			track->next, lane->index, segue_lane_spec(lane)->name);
	int64_t slice = now + SEGUE_LOOK_NS;
	slice = slice < waiting->deadline_ns ? slice : waiting->deadline_ns;
	if (lane->replica) {
		if (!waiting->rung)
			segue_lane_ring(lane);
		waiting->rung = waiting->slept = true;
		segue_follow_sleep(lane, slice);
		return 0;
	}
	if (!waiting->rung)
		spin(track);
	if (!segue_track_sleep_begin(track, &seen))
		return 0;
	/* The bell rings for it, too: it is looked for once more before the sleep. */
	if (segue_lane_asked(lane) & SEGUE_ASKS_RENEW) {
		segue_track_sleep_end(track);
		return 0;
	}
	/* The server may wait for more free slots than we can give back while we wait. */
	if (!waiting->rung)
		segue_lane_ring(lane);
	waiting->rung = true;
	segue_wait_word(&segue_mapping_ring(lane->mapping)->bell, seen, slice);
	segue_track_sleep_end(track);
	waiting->slept = true;
	return 0;
}

static int fail_held(const struct segue_lane *lane)
{
	int held = __builtin_popcountll(lane->track.held);

	return segue_fail(SEGUE_EHELD,
		"lane %u of stream '%s': no place for batch %" PRIu64
		": arrays or handles of %d earlier batch%s are alive, from batch %" PRIu64
		" on, and the stream has depth %u. Copy what you keep and release the rest, or "
		"open "
		"the stream with a greater depth",
		lane->index, segue_lane_spec(lane)->name, lane->track.next, held,
		held == 1 ? "" : "es", lane->track.released, lane->track.depth);
}

static int fail_end(const struct segue_lane *lane)
{
	return segue_fail(SEGUE_EEND, "lane %u of stream '%s' has ended at step %" PRIu64,
		lane->index, segue_lane_spec(lane)->name, lane->track.next);
}

static int fail_ring(struct segue_lane *lane)
{
	const struct segue_ring_header *ring = segue_mapping_ring(lane->mapping);
	/* acquire: pairs with segue_feed_fail (lane/feed.c); the text was written before it */
	int code = -(int)segue_load_acquire(&ring->error);

	if (code == SEGUE_ENOMEM)
		segue_lane_ring(lane); /* the server tries again */
	return segue_fail(code, "%.*s", SEGUE_ERROR_TEXT, ring->error_text);
}

/* The server has another ring for the lane: it is asked for again, between two batches. */
static bool is_asked(const struct segue_lane *lane)
{
	return (segue_lane_asked(lane) & SEGUE_ASKS_RENEW) && segue_lane_attached(lane);
}

static int renew(struct segue_lane *lane, struct waiting *waiting)
{
	int rc = segue_lane_renew(lane);

	if (rc != SEGUE_ELIMIT && rc != SEGUE_ENOMEM)
		return rc;
	/* The lease is in force: nothing was given up. */
	if (segue_lane_attached(lane) && segue_track_poll(&lane->track) != SEGUE_TRACK_FENCED)
		return rc;
	/* There is no memory for another ring: it goes on with what there is, as after a fence. */
	return segue_lane_recover(lane, &waiting->losses, waiting->deadline_ns);
}

/* What stands between the lane and its next batch: 0 if it should be looked at again. */
static int meet(struct segue_lane *lane, enum segue_track_result met, struct waiting *waiting)
{
	int rc = SEGUE_EGONE;

	switch (met) {
	case SEGUE_TRACK_READY:
		rc = segue_side_map(lane, lane->track.next);
		if (!rc && segue_lane_leads(lane))
			rc = segue_follow_await(lane, waiting->deadline_ns);
		break;
	case SEGUE_TRACK_WAIT:
		rc = is_asked(lane) ? renew(lane, waiting) : wait_once(lane, waiting);
		break;
	case SEGUE_TRACK_HELD:
		return fail_held(lane);
	case SEGUE_TRACK_END:
		return fail_end(lane);
	case SEGUE_TRACK_ERROR:
		return fail_ring(lane);
	case SEGUE_TRACK_STORAGE:
		rc = segue_lane_look_around(lane, false);
		if (!rc)
			return segue_lane_check_storage(lane);
		break;
	case SEGUE_TRACK_FENCED: /* by a server that is going, perhaps: it is asked */
		break;
	}
	if (rc != SEGUE_EGONE)
		return rc;
	waiting->rung = false;
	if (lane->replica)
		return segue_follow_recover(lane, waiting->deadline_ns);
	return segue_lane_recover(lane, &waiting->losses, waiting->deadline_ns);
}

static enum segue_track_result poll(struct segue_lane *lane)
{
	return lane->replica ? segue_follow_poll(lane) : segue_track_poll(&lane->track);
}

/* Whether the next batch is there, all of it can be read, and all are there who are to. */
static bool is_ready(struct segue_lane *lane)
{
	return poll(lane) == SEGUE_TRACK_READY &&
	       segue_side_is_mapped(lane->mapping, lane->track.next) &&
	       (!segue_lane_leads(lane) || segue_follow_is_whole(lane));
}

static int wait_ready(struct segue_lane *lane, int64_t timeout_ns)
{
	int64_t since = segue_now_ns();
	struct waiting waiting = {.deadline_ns = segue_deadline(since, timeout_ns)};
	int rc = 0;

	if (is_asked(lane))
		rc = renew(lane, &waiting);
	while (!rc && !is_ready(lane)) {
		rc = meet(lane, poll(lane), &waiting);
		if (waiting.waited)
			segue_lane_count_wait(lane, &since);
	}
	lane->waits += waiting.waited;
	return rc;
}

int segue_lane_next(struct segue_lane *lane, int64_t timeout_ns, struct segue_batch **out)
{
	struct segue_batch *batch;
	int rc = segue_lane_usable(lane);

	if (rc)
		return rc;
	if (!out || timeout_ns < 0)
		return segue_fail(SEGUE_EINVAL, !out ? "a place for the batch is wanted, not NULL"
						     : "timeout_ns is negative");
	if (lane->replica)
		segue_follow_pass(lane);
	rc = segue_lane_check_no_batch(lane);
	/* Its last ring may hold more, if its server was gone when that became known. */
	if (!rc)
		rc = segue_lane_check_lost(lane);
	struct segue_track *track = &lane->track;
	if (!rc && (!is_ready(lane) || is_asked(lane)))
		rc = wait_ready(lane, timeout_ns);
	if (rc)
		return rc;
	rc = segue_batch_begin(lane->mapping, track->next, &batch);
	if (rc)
		return rc;
	segue_track_take(track);
	if (segue_lane_leads(lane))
		segue_follow_tell(lane);
	lane->placed = true;
	lane->took = lane->generation;
	batch->follows = lane->replica > 0;
	batch->lane = lane;
	lane->steps += (uint64_t)batch->rows * batch->steps;
	lane->valid += batch->valid;
	lane->open = batch;
	lane->mapping->users++;
	lane->users++;
	*out = batch;
	return 0;
}
