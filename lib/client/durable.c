/* Waiting until what is committed is on disk. */
#include "client/durable.h"

#include <inttypes.h>

#include "client/follow.h"
#include "client/resume.h"
#include "core/barrier.h"
#include "core/error.h"
#include "core/wait.h"

#define ANSWER_LEAST_NS INT64_C(1000000000)

/*
 * A new lease would leave the open batch behind: what was done of it would be lost, and come again.
 */
static int check_none_open(const struct segue_lane *lane)
{
	if (!segue_track_open(&lane->track))
		return 0;
	return segue_fail(SEGUE_EUNSAVED,
		"lane %u of stream '%s': the server, or the lease, was lost while batch %" PRIu64
		" is "
		"open: commit or release it, then flush",
		lane->index, segue_lane_spec(lane)->name, lane->track.committed);
}

/* A wait until batches below `step` are on disk. */
struct durability {
	uint64_t step;
	int64_t deadline_ns;
	bool old_error; /* an error that the page told when its bell stood at `bell` is no answer */
	uint32_t bell;
};

/* 0: on disk; 1: not yet; else why it will not be. */
static int durable_or_why_not(const struct segue_lane *lane, const struct durability *wanted)
{
	const struct segue_lease_page *page = segue_mapping_page(lane->mapping);
	/* acquire: pairs with segue_carry_ring (lane/carry.c) */
	bool news = !wanted->old_error || segue_load_acquire(&page->bell) != wanted->bell;

	/* acquire: pairs with segue_carry_set_durable (lane/carry.c) */
	if (segue_load_acquire(&page->durable) >= wanted->step)
		return 0;
	int rc = news ? segue_lane_check_storage(lane) : 0;
	if (rc)
		return rc;
	/* acquire: pairs with segue_carry_fence (lane/carry.c) */
	if (segue_load_acquire(&page->generation) != lane->generation)
		return SEGUE_EGONE;
	return 1;
}

/* Sleeps on the page's bell unless something has happened. */
static void sleep_on_page(struct segue_lane *lane, const struct durability *wanted)
{
	const struct segue_lease_page *page = segue_mapping_page(lane->mapping);
	struct segue_carry_header *carry = segue_mapping_carry(lane->mapping);
	/*
	 * acquire: pairs with segue_carry_ring (lane/carry.c): an event after this load changes the
	 * bell, and the sleep returns.
	 */
	uint32_t bell = segue_load_acquire(&page->bell);
	int64_t slice = segue_now_ns() + SEGUE_LOOK_NS;

	/* release: pairs with segue_carry_ring (lane/carry.c) */
	segue_store_release(&carry->sleeping, 1);
	/* The flag is seen before we look again: pairs with segue_carry_ring (lane/carry.c). */
	segue_fence();
	if (durable_or_why_not(lane, wanted) == 1)
		segue_wait_word(&page->bell, bell,
			slice < wanted->deadline_ns ? slice : wanted->deadline_ns);
	/* release: pairs with segue_carry_ring (lane/carry.c) */
	segue_store_release(&carry->sleeping, 0);
}

static int fail_late(const struct segue_lane *lane, uint64_t step)
{
	return segue_fail(SEGUE_ETIMEOUT,
		"lane %u of stream '%s': batches below %" PRIu64
		" are not on disk in time, those below "
		"%" PRIu64 " are; flush again",
		lane->index, segue_lane_spec(lane)->name, step, segue_lane_durable(lane));
}

static int wait_durable(struct segue_lane *lane, struct durability *wanted)
{
	struct segue_losses losses = {0};
	bool slept = false;

	for (;;) {
		int rc = durable_or_why_not(lane, wanted);
		if (rc == 1)
			rc = segue_lane_look_around(lane, slept);
		else if (rc != SEGUE_EGONE)
			return rc;
		if (!rc && segue_now_ns() >= wanted->deadline_ns)
			return fail_late(lane, wanted->step);
		/* An accepted offer is on disk: the new page says so. */
		if (rc == SEGUE_EGONE) {
			rc = check_none_open(lane);
			if (!rc)
				rc = segue_lane_recover(lane, &losses, wanted->deadline_ns);
			wanted->old_error = false;
		}
		if (rc)
			return rc;
		sleep_on_page(lane, wanted);
		slept = true;
	}
}

int segue_lane_wait_durable(struct segue_lane *lane, uint64_t step)
{
	struct durability wanted = {.step = step, .deadline_ns = INT64_MAX};

	segue_lane_ring(lane);
	return wait_durable(lane, &wanted);
}

struct flush_attempt {
	struct segue_lane *lane;
	struct durability *wanted;
};

/* All is on disk, if that is still there; and the lane has no server to ask that. */
static bool needs_nobody(const struct segue_lane *lane, uint64_t step)
{
	const struct segue_lease_page *page = segue_mapping_page(lane->mapping);
	/* acquire: pairs with segue_carry_fence (lane/carry.c) */
	bool ours = segue_lane_attached(lane) && !segue_lane_is_lost(lane) &&
		    segue_load_acquire(&page->generation) == lane->generation;

	return !ours && segue_lane_durable(lane) >= step;
}

/* Has the server write now; what the page says of an earlier transaction is then no answer. */
static int attempt_flush(void *arg)
{
	const struct flush_attempt *call = arg;
	struct segue_lane *lane = call->lane;
	struct segue_reply reply;

	if (needs_nobody(lane, call->wanted->step))
		return segue_client_check_dir(lane->client);
	int rc = segue_lane_attached(lane) ? 0 : check_none_open(lane);

	if (!rc)
		rc = segue_lane_ready(lane);
	if (rc)
		return rc;
	const struct segue_lease_page *page = segue_mapping_page(lane->mapping);
	/* acquire: pairs with segue_carry_ring (lane/carry.c) */
	call->wanted->bell = segue_load_acquire(&page->bell);
	call->wanted->old_error = true;
	struct segue_message request = {
		.type = SEGUE_MESSAGE_LANE_FLUSH, .lane_flush = {.lease = lane->lease}};
	/* The server has a second for its answer in any case. */
	int64_t left = call->wanted->deadline_ns - segue_now_ns();
	left = left < SEGUE_REQUEST_NS ? left : SEGUE_REQUEST_NS;
	return segue_client_call(lane->client, &request, SEGUE_MESSAGE_DONE,
		left > ANSWER_LEAST_NS ? left : ANSWER_LEAST_NS, &reply);
}

int segue_lane_flush(struct segue_lane *lane, int64_t timeout_ns)
{
	int rc = segue_lane_usable(lane);

	if (rc)
		return rc;
	if (timeout_ns < 0)
		return segue_fail(SEGUE_EINVAL, "timeout_ns is negative");
	if (lane->replica)
		return segue_follow_fail_reads(lane, "flushes");
	if (!segue_lane_spec(lane)->persist)
		return segue_fail(SEGUE_EINVAL,
			"stream '%s' was opened with persist = false: nothing of it is stored, so "
			"there is nothing to wait for",
			segue_lane_spec(lane)->name);
	struct durability wanted = {.step = lane->track.committed,
		.deadline_ns = segue_deadline(segue_now_ns(), timeout_ns)};
	struct flush_attempt call = {lane, &wanted};
	if (needs_nobody(lane, wanted.step))
		return segue_client_check_dir(lane->client);
	rc = segue_client_run(lane->client, wanted.deadline_ns, attempt_flush, &call);
	return rc ? rc : wait_durable(lane, &wanted);
}
