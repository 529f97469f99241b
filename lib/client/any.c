/* Lanes that move: what the server asks of their holder, and waiting for the first of several. */
#include "client/resume.h"
#include "client/side.h"
#include "core/error.h"
#include "core/wait.h"

unsigned segue_lane_asks(const struct segue_lane *lane)
{
	if (segue_lane_usable(lane) || !lane->mapping)
		return 0;
	return segue_lane_asked(lane) & (SEGUE_LANE_ASKED_BACK | SEGUE_LANE_ASKED_MORE);
}

struct waiting {
	struct segue_lane *const *lane;
	size_t count;
	int64_t deadline_ns;
	struct segue_losses losses;
	bool slept, rung;
};

static bool is_asked(const struct waiting *waiting)
{
	for (size_t i = 0; i < waiting->count; i++)
		if (segue_lane_asks(waiting->lane[i]))
			return true;
	return false;
}

/*
 * Whether there is something to be told at once. What is asked comes after what is ready: it is
 * looked at between two batches anyway. Places that are held: only where they are in all lanes.
 */
static bool find_ready(const struct waiting *waiting, size_t *which)
{
	size_t held = 0;

	for (size_t i = 0; i < waiting->count; i++) {
		const struct segue_lane *lane = waiting->lane[i];
		enum segue_track_result met = segue_track_poll(&lane->track);
		held += met == SEGUE_TRACK_HELD;
		if (!segue_lane_is_lost(lane) &&
			(met == SEGUE_TRACK_WAIT || met == SEGUE_TRACK_HELD))
			continue;
		*which = i;
		return true;
	}
	bool asked = is_asked(waiting);
	if (asked || held == waiting->count)
		*which = asked ? waiting->count : 0;
	return asked || held == waiting->count;
}

/* Not on lanes whose places are held: nothing comes there. */
static void sleep_on_all(struct waiting *waiting, int64_t until)
{
	struct segue_track *tracks[SEGUE_WAIT_WORDS];
	const _Atomic uint32_t *bells[SEGUE_WAIT_WORDS];
	uint32_t seen[SEGUE_WAIT_WORDS];
	size_t count = 0;
	bool sleeps = true;

	for (size_t i = 0; i < waiting->count && sleeps; i++) {
		struct segue_lane *lane = waiting->lane[i];
		if (segue_track_poll(&lane->track) == SEGUE_TRACK_HELD)
			continue;
		tracks[count] = &lane->track;
		bells[count] = &segue_mapping_ring(lane->mapping)->bell;
		sleeps = segue_track_sleep_begin(tracks[count], &seen[count]);
		count += sleeps;
	}
	/* What is asked is looked at after the flags are up, as a batch is. */
	if (sleeps && count > 0 && !is_asked(waiting)) {
		/* The server may wait for more free slots than we can give back while we wait. */
		for (size_t i = 0; i < waiting->count && !waiting->rung; i++)
			segue_lane_ring(waiting->lane[i]);
		waiting->rung = true;
		segue_wait_words(bells, seen, count, until);
		waiting->slept = true;
	}
	while (count > 0)
		segue_track_sleep_end(tracks[--count]);
}

/* Until something may have happened: 0, or why not to wait any longer. */
static int wait_once(struct waiting *waiting)
{
	int64_t now = segue_now_ns(), slice = now + SEGUE_LOOK_NS;
	struct segue_lane *lost = NULL;
	int rc = 0;

	for (size_t i = 0; i < waiting->count && !rc; i++) {
		rc = segue_lane_look_around(waiting->lane[i], waiting->slept && i == 0);
		lost = rc == SEGUE_EGONE ? waiting->lane[i] : NULL;
	}
	if (lost) {
		waiting->rung = false;
		return segue_lane_recover(lost, &waiting->losses, waiting->deadline_ns);
	}
	if (rc)
		return rc;
	if (now >= waiting->deadline_ns)
		return segue_fail(SEGUE_ETIMEOUT,
			"no batch of the %zu lanes that this worker has of stream '%s' came in "
			"time: "
			"ask again, or give it longer (timeout)",
			waiting->count, segue_lane_spec(waiting->lane[0])->name);
	sleep_on_all(waiting, slice < waiting->deadline_ns ? slice : waiting->deadline_ns);
	return 0;
}

static int check(struct segue_lane *const *lanes, size_t count, int64_t timeout_ns, size_t *which)
{
	int rc = 0;

	if (!lanes || !count || count > SEGUE_WAIT_WORDS || !which || timeout_ns < 0)
		return segue_fail(SEGUE_EINVAL,
			"segue_lanes_wait wants 1 to %d lanes, a time of 0 or more and a place for "
			"which it is",
			SEGUE_WAIT_WORDS);
	for (size_t i = 0; i < count && !rc; i++) {
		rc = segue_lane_usable(lanes[i]);
		if (!rc && lanes[i]->client != lanes[0]->client)
			rc = segue_fail(SEGUE_EINVAL, "segue_lanes_wait wants lanes of one client");
		if (!rc && lanes[i]->replicas > 1)
			rc = segue_fail(
				SEGUE_EINVAL, "segue_lanes_wait wants lanes without replicas");
		if (!rc)
			rc = segue_lane_check_no_batch(lanes[i]);
	}
	return rc;
}

int segue_lanes_wait(
	struct segue_lane *const *lanes, size_t count, int64_t timeout_ns, size_t *which)
{
	int rc = check(lanes, count, timeout_ns, which);

	if (rc)
		return rc;
	int64_t since = segue_now_ns();
	struct waiting waiting = {
		.lane = lanes, .count = count, .deadline_ns = segue_deadline(since, timeout_ns)};
	bool waited = false;
	while (!rc && !find_ready(&waiting, which)) {
		waited = true;
		rc = wait_once(&waiting);
		segue_lane_count_wait(lanes[0], &since);
	}
	lanes[0]->waits += waited;
	return rc;
}
