/* Replicas: following a lease, and being followed. */
#include "client/follow.h"

#include <inttypes.h>

#include "client/batch.h"
#include "client/lease.h"
#include "client/resume.h"
#include "core/barrier.h"
#include "core/error.h"
#include "core/wait.h"

/* Of an attempt to follow the next lease, and of the server's patience within it. */
#define ATTEMPT_NS INT64_C(200000000)
#define SERVER_NS  INT64_C(50000000)
/* Between two looks at what no wake-up tells of. */
#define LEFT_NS INT64_C(1000000)

int segue_follow_fail_reads(const struct segue_lane *lane, const char *what)
{
	return segue_fail(SEGUE_EREPLICA,
		"replica %" PRIu32 " of lane %u of stream '%s' only reads: replica 0 %s",
		lane->replica, lane->index, segue_lane_spec(lane)->name, what);
}

static uint64_t taken_by_holder(const struct segue_mapping *mapping)
{
	/* acquire: pairs with segue_follow_tell (client/follow.c); the states come before it */
	return segue_load_acquire(&segue_mapping_carry(mapping)->taken);
}

/* ---- Another lease ---- */

static void set_mapping(struct segue_lane *lane, struct segue_mapping *mapping, uint64_t generation)
{
	struct segue_mapping *before = lane->mapping;

	if (before)
		lane->skipped = segue_lane_skipped(lane);
	/* What was open when a lease ended comes again to all. */
	if (generation != lane->generation) {
		lane->left = false;
		lane->again = 0;
	}
	lane->mapping = mapping;
	lane->generation = generation;
	lane->went_back = false;
	segue_track_init(&lane->track, segue_mapping_ring(mapping), mapping->follower.map,
		segue_mapping_page(mapping), mapping->geometry.depth, generation, mapping->granted);
	if (before)
		segue_mapping_drop(before);
}

static void drop_coming(struct segue_lane *lane)
{
	if (lane->coming)
		segue_mapping_drop(lane->coming);
	lane->coming = NULL;
}

/* What the holder has committed before the lease that comes is taken first, if it is here. */
static int must_wait(const struct segue_lane *lane, uint64_t step, bool *wait)
{
	/* Also by one that has taken nothing yet, though its holder has. */
	bool is_owed = lane->mapping &&
		       (lane->placed || (!lane->went_back &&
						taken_by_holder(lane->mapping) > lane->track.next));

	*wait = is_owed && step > lane->track.next;
	if (!*wait || taken_by_holder(lane->mapping) >= step)
		return 0;
	return segue_fail(SEGUE_ESTALE,
		"replica %" PRIu32 " of lane %u of stream '%s' stands at step %" PRIu64
		", and replica 0 was set to step %" PRIu64
		": give all ranks the same token (load_state_dict), or make new loaders",
		lane->replica, lane->index, segue_lane_spec(lane)->name, lane->track.next, step);
}

static int adopt(struct segue_lane *lane, const struct segue_reply *reply)
{
	uint64_t lease = reply->message.attached.lease,
		 generation = reply->message.attached.generation;
	struct segue_mapping *mapping;
	bool wait = false;
	int rc = segue_mapping_create(lane->stream->shape, lane->index, reply, &mapping);

	if (!rc) {
		rc = segue_places_create(mapping);
		if (!rc)
			rc = must_wait(lane, mapping->granted, &wait);
		if (rc)
			segue_mapping_drop(mapping);
	}
	if (rc) {
		segue_lease_detach(lane, lease);
		return rc;
	}
	drop_coming(lane);
	lane->epoch = lane->client->epoch;
	lane->lease = lease;
	lane->batch_size = reply->message.attached.batch_size;
	lane->alone_since = 0;
	lane->coming_generation = generation;
	bool is_new = !lane->mapping;
	if (wait)
		lane->coming = mapping;
	else
		set_mapping(lane, mapping, generation);
	/* The batch that is open was for another: it is for the holder to say what comes of it. */
	uint32_t taken = reply->message.attached.taken;
	if (is_new && taken) {
		lane->left = true;
		lane->again = taken - 1;
	}
	return 0;
}

int segue_follow_attach(struct segue_lane *lane, int64_t timeout_ns)
{
	struct segue_message request = {.type = SEGUE_MESSAGE_LANE_FOLLOW};
	struct segue_reply reply;
	int rc = segue_stream_ready(lane->stream);

	if (rc)
		return rc;
	request.lane_follow.stream = lane->stream->id;
	request.lane_follow.lane = lane->index;
	request.lane_follow.group = lane->group;
	request.lane_follow.replica = lane->replica;
	request.lane_follow.replicas = lane->replicas;
	request.lane_follow.step = lane->placed ? lane->track.next : SEGUE_NEVER;
	request.lane_follow.generation = lane->mapping ? lane->generation : 0;
	request.lane_follow.timeout_ns = timeout_ns;
	rc = segue_client_call(lane->client, &request, SEGUE_MESSAGE_FOLLOWING,
		segue_deadline(timeout_ns, SEGUE_ANSWER_NS), &reply);
	return rc ? rc : adopt(lane, &reply);
}

static int attempt_again(void *arg)
{
	return segue_follow_attach(arg, SERVER_NS);
}

static bool may_pass(int rc)
{
	return rc == SEGUE_EREPLICA || rc == SEGUE_EBUSY || rc == SEGUE_ETIMEOUT ||
	       rc == SEGUE_EGONE;
}

int segue_follow_recover(struct segue_lane *lane, int64_t deadline_ns)
{
	int64_t now = segue_now_ns();

	if (lane->alone_since == 0)
		lane->alone_since = now;
	int rc = segue_client_run(lane->client, now + ATTEMPT_NS, attempt_again, lane);
	if (!may_pass(rc))
		return rc;
	now = segue_now_ns();
	/* It may wait for other groups to begin with. */
	int64_t patience = SEGUE_REPLICAS_NS + segue_lease_gathering_ns(lane);
	if (now - lane->alone_since >= patience) {
		lane->alone_since = 0;
		return segue_fail_within(SEGUE_EREPLICA,
			"lane %u of stream '%s': replica 0 has not come back for %d s", lane->index,
			segue_lane_spec(lane)->name, (int)(patience / 1000000000));
	}
	if (now >= deadline_ns)
		return segue_fail_within(SEGUE_ETIMEOUT,
			"batch %" PRIu64 " of lane %u of stream '%s' did not come in time",
			lane->track.next, lane->index, segue_lane_spec(lane)->name);
	rc = segue_hooks_interrupted(&lane->client->hooks);
	int64_t slice = now + SEGUE_LOOK_NS;
	if (!rc)
		segue_follow_sleep(lane, slice < deadline_ns ? slice : deadline_ns);
	return rc;
}

/* ---- Batches ---- */

static void take_coming(struct segue_lane *lane)
{
	struct segue_mapping *coming = lane->coming;

	lane->coming = NULL;
	if (coming)
		set_mapping(lane, coming, lane->coming_generation);
}

static void take_coming_if_due(struct segue_lane *lane)
{
	if (lane->coming && lane->track.next >= lane->coming->granted)
		take_coming(lane);
}

/* What becomes of the batch that it has put back: true if that is known. */
static bool settle_left(struct segue_lane *lane)
{
	const struct segue_carry_header *carry = segue_mapping_carry(lane->mapping);
	uint64_t step = lane->track.next;
	const _Atomic uint32_t *again = &carry->again[step % SEGUE_DEPTH_MAX];

	if (!lane->left)
		return true;
	/* acquire: pairs with segue_track_commit (core/track.c); `again` comes before it */
	bool over = segue_load_acquire(&carry->committed) > step;
	/* acquire: pairs with segue_follow_tell (client/follow.c) */
	if (segue_load_acquire(again) > lane->again) {
		lane->again++;
	} else if (over) {
		lane->again = 0;
		segue_batch_pass_over(lane->mapping, step);
		if (segue_track_skip(&lane->track))
			segue_lane_ring(lane);
	} else {
		return false;
	}
	lane->left = false;
	return true;
}

/* Since it was set to a token nothing is taken from the lease of before. */
static bool is_forgotten(const struct segue_lane *lane)
{
	return !lane->placed && lane->took == lane->generation;
}

enum segue_track_result segue_follow_poll(struct segue_lane *lane)
{
	const struct segue_track *track = &lane->track;
	bool settled = settle_left(lane);

	take_coming_if_due(lane);
	bool taken = settled && !is_forgotten(lane) && taken_by_holder(lane->mapping) > track->next;
	/*
	 * What has been taken is there, whatever has become of the lease, also for one that has
	 * taken nothing of it yet: a feed that is followed has one subscriber, so nobody writes to
	 * it then.
	 */
	if (taken && (lane->placed || !lane->went_back))
		return SEGUE_TRACK_READY;
	enum segue_track_result met = segue_track_poll(track);
	/*
	 * The holder may have gone from the end before this one was there.
	 * acquire: pairs with segue_feed_end (lane/feed.c)
	 */
	if (met == SEGUE_TRACK_FENCED && lane->placed &&
		segue_load_acquire(&track->ring->end) == track->next)
		return SEGUE_TRACK_END;
	return met == SEGUE_TRACK_READY && !taken ? SEGUE_TRACK_WAIT : met;
}

/* The half of the word that changes: a futex has 32 bits. */
static const _Atomic uint32_t *low_half(const _Atomic uint64_t *word)
{
	return (const _Atomic uint32_t *)word + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}

/*
 * The kernel compares the word once more when it puts us to sleep, with what the holder stores
 * before it wakes: so no wake-up is lost, and no flag is wanted.
 */
void segue_follow_sleep(const struct segue_lane *lane, int64_t until_ns)
{
	uint64_t seen = taken_by_holder(lane->mapping);
	int64_t soon = segue_now_ns() + LEFT_NS;

	/* Of a commit, or a batch that is taken again, it is not woken. */
	if ((lane->left || is_forgotten(lane)) && soon < until_ns)
		until_ns = soon;
	if (seen <= lane->track.next || lane->left || is_forgotten(lane))
		segue_wait_word(low_half(&segue_mapping_carry(lane->mapping)->taken),
			(uint32_t)seen, until_ns);
}

void segue_follow_pass(struct segue_lane *lane)
{
	if (!segue_track_open(&lane->track))
		return;
	lane->again = 0;
	segue_track_pass(&lane->track);
}

void segue_follow_leave(struct segue_lane *lane)
{
	if (segue_track_open(&lane->track))
		segue_batch_put_back(lane->open);
}

void segue_follow_forget(struct segue_lane *lane)
{
	segue_follow_pass(lane);
	lane->went_back = true;
	/* At its end it would wait for what is never taken. */
	take_coming(lane);
	/* A new one is not given what was open before it came. */
	lane->left = lane->left && !lane->placed;
	lane->placed = false;
}

int segue_follow_set_batch_size(struct segue_lane *lane, uint32_t batch_size)
{
	int64_t deadline = segue_now_ns() + SEGUE_REPLICAS_NS;

	segue_follow_pass(lane);
	while (lane->batch_size != batch_size) {
		int rc = segue_lane_look_around(lane, true);

		settle_left(lane);
		take_coming_if_due(lane);
		bool over = !lane->coming && segue_track_poll(&lane->track) == SEGUE_TRACK_FENCED;

		if (rc == SEGUE_EGONE || (!rc && over))
			rc = segue_follow_recover(lane, INT64_MAX);
		else if (!rc && segue_now_ns() >= deadline)
			rc = segue_fail(SEGUE_EREPLICA,
				"lane %u of stream '%s': replica 0 has not set batch_size=%" PRIu32
				" within %d s: all ranks set the same",
				lane->index, segue_lane_spec(lane)->name, batch_size,
				(int)(SEGUE_REPLICAS_NS / 1000000000));
		else if (!rc)
			segue_follow_sleep(lane, segue_now_ns() + SEGUE_LOOK_NS);
		if (rc)
			return rc;
	}
	return 0;
}

void segue_follow_finish(struct segue_lane *lane)
{
	drop_coming(lane);
}

/* ---- The holder ---- */

bool segue_follow_is_whole(const struct segue_lane *lane)
{
	const struct segue_lease_page *page = segue_mapping_page(lane->mapping);

	/* acquire: pairs with segue_followers_tell (lane/follower.c); `gone` comes before it */
	return segue_load_acquire(&page->followers) + 1 >= lane->replicas &&
	       segue_load_relaxed(&page->gone) == lane->gone;
}

/* 0; SEGUE_EREPLICA if one has gone since that was said last. */
static int check_gone(struct segue_lane *lane)
{
	const struct segue_lease_page *page = segue_mapping_page(lane->mapping);
	/* acquire: pairs with segue_followers_tell (lane/follower.c); the text comes before it */
	uint32_t gone = segue_load_acquire(&page->gone);

	if (gone == lane->gone)
		return 0;
	lane->gone = gone;
	return segue_fail(SEGUE_EREPLICA,
		"lane %u of stream '%s': %.*s. Batches are for all replicas: start it again, and "
		"ask for the next batch; or end all, and go on from a checkpoint",
		lane->index, segue_lane_spec(lane)->name, SEGUE_GONE_TEXT - 1, page->gone_text);
}

static int fail_missing(const struct segue_lane *lane)
{
	const struct segue_lease_page *page = segue_mapping_page(lane->mapping);

	return segue_fail(SEGUE_EREPLICA,
		"lane %u of stream '%s': of %" PRIu32
		" replicas these have not come within %d s: %.*s. Each rank makes its loader with "
		"replica=its number, replicas=%" PRIu32 ", and the same group",
		lane->index, segue_lane_spec(lane)->name, lane->replicas,
		(int)(SEGUE_REPLICAS_NS / 1000000000), SEGUE_GONE_TEXT - 1, page->missing_text,
		lane->replicas);
}

int segue_follow_await(struct segue_lane *lane, int64_t deadline_ns)
{
	const struct segue_lease_page *page = segue_mapping_page(lane->mapping);
	bool slept = false;

	for (;;) {
		/* acquire: pairs with segue_followers_tell (lane/follower.c) */
		uint32_t there = segue_load_acquire(&page->followers);
		int64_t now = segue_now_ns();
		int rc = segue_lane_look_around(lane, slept);
		if (!rc && segue_track_poll(&lane->track) == SEGUE_TRACK_FENCED)
			rc = SEGUE_EGONE;
		if (!rc)
			rc = check_gone(lane);
		if (rc)
			return rc;
		if (there + 1 >= lane->replicas) {
			lane->alone_since = 0;
			return 0;
		}
		lane->alone_since = lane->alone_since ? lane->alone_since : now;
		if (now - lane->alone_since >= SEGUE_REPLICAS_NS) {
			lane->alone_since = 0;
			return fail_missing(lane);
		}
		if (now >= deadline_ns)
			return segue_fail(SEGUE_ETIMEOUT,
				"lane %u of stream '%s' waits for replicas that have not come: "
				"%.*s",
				lane->index, segue_lane_spec(lane)->name, SEGUE_GONE_TEXT - 1,
				page->missing_text);
		int64_t slice = now + SEGUE_LOOK_NS;
		segue_wait_word(&page->followers, there, slice < deadline_ns ? slice : deadline_ns);
		slept = true;
	}
}

void segue_follow_tell(struct segue_lane *lane)
{
	struct segue_carry_header *carry = segue_mapping_carry(lane->mapping);
	uint64_t step = lane->track.next - 1;
	_Atomic uint32_t *again = &carry->again[step % SEGUE_DEPTH_MAX];
	bool is_first = segue_load_relaxed(&carry->taken) <= step;

	/* release: pairs with settle_left (client/follow.c) */
	segue_store_release(again, is_first ? 0 : segue_load_relaxed(again) + 1);
	/* release: pairs with taken_by_holder (client/follow.c); `committed` comes before it */
	segue_store_release(&carry->taken, step + 1);
	segue_wake_word((_Atomic uint32_t *)(uintptr_t)low_half(&carry->taken));
}
