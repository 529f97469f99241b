/* A lane: its lease, taken and taken again; the next batch; waiting; tokens. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/client.h"
#include "core/barrier.h"
#include "core/error.h"
#include "core/wait.h"

#define MILLISECOND     INT64_C(1000000)
#define ATTACH_NS       (10000 * MILLISECOND) /* for a lane that is being given back */
#define ANSWER_NS       (5000 * MILLISECOND)  /* on top of a time that the server was told */
#define ANSWER_LEAST_NS (1000 * MILLISECOND)
#define SLEEP_NS        (20 * MILLISECOND) /* how often a sleeper looks for the server */
#define SPIN_NS         10000

static const struct segue_spec *spec_of(const struct segue_lane *lane)
{
	return lane->stream->shape->spec;
}

static unsigned long long committed_of(const struct segue_lane *lane)
{
	return lane->track.committed;
}

static int check_lane(const struct segue_lane *lane)
{
	if (!lane)
		return segue_fail(SEGUE_EINVAL, "a lane is wanted, not NULL");
	return segue_fork_check(&lane->client->connection.guard);
}

/* ---- Leases -------------------------------------------------------------------------------- */

static bool attached(const struct segue_lane *lane)
{
	return segue_connection_live(&lane->client->connection) &&
	       lane->epoch == lane->client->epoch;
}

static int detach(struct segue_lane *lane, uint64_t lease)
{
	struct segue_message request = {
		.type = SEGUE_MESSAGE_LANE_DETACH, .lane_detach = {.lease = lease}};
	struct segue_reply reply;

	return segue_client_call(
		lane->client, &request, SEGUE_MESSAGE_DONE, SEGUE_REQUEST_NS, &reply);
}

static int request_lease(
	struct segue_lane *lane, struct segue_message *request, struct segue_reply *reply)
{
	request->type = SEGUE_MESSAGE_LANE_ATTACH;
	request->lane_attach.stream = lane->stream->id;
	request->lane_attach.lane = lane->index;
	return segue_client_call(lane->client, request, SEGUE_MESSAGE_ATTACHED,
		segue_deadline(request->lane_attach.timeout_ns, ANSWER_NS), reply);
}

/*
 * A request may have been granted, for good, though all that came back is a failure or nothing: it
 * counts, unless the answer says that it was not.
 */
static int request_counted(
	struct segue_lane *lane, struct segue_message *request, struct segue_reply *reply)
{
	lane->unanswered++;
	int rc = request_lease(lane, request, reply);
	if (rc == 0 || rc == SEGUE_EFENCED || rc == SEGUE_EBUSY)
		lane->unanswered--;
	return rc;
}

/* Goes on with the lease that was granted. The lane is as before if that cannot be done. */
static int adopt(struct segue_lane *lane, const struct segue_reply *reply)
{
	struct segue_mapping *mapping;
	uint64_t step = reply->message.attached.step;
	int rc = segue_mapping_create(lane, reply, &mapping);

	if (rc) {
		detach(lane, reply->message.attached.lease);
		return rc;
	}
	if (lane->mapping)
		segue_mapping_drop(lane->mapping);
	lane->mapping = mapping;
	lane->epoch = lane->client->epoch;
	lane->lease = reply->message.attached.lease;
	lane->generation = reply->message.attached.generation;
	memcpy(lane->token, reply->message.attached.token, sizeof(lane->token));
	lane->rows = reply->message.attached.rows;
	lane->unanswered = 0;
	lane->fenced = false;
	segue_track_init(&lane->track, segue_mapping_ring(mapping), segue_mapping_carry(mapping),
		segue_mapping_page(mapping), mapping->shape->geometry.depth, lane->generation,
		step);
	return 0;
}

/* As adopt(), for the lane where it was left: a grant that came to nothing is one of ours still. */
static int adopt_again(struct segue_lane *lane, const struct segue_reply *reply)
{
	int rc = adopt(lane, reply);

	if (rc)
		lane->unanswered++;
	return rc;
}

/* A grant that is not what was asked for is given back unused. */
static int decline(struct segue_lane *lane, const struct segue_reply *reply)
{
	lane->unanswered++;
	for (size_t i = 0; i < SEGUE_FRAME_FDS; i++)
		close(reply->fds[i]);
	return detach(lane, reply->message.attached.lease);
}

/* The lane got a position of its own, which has nothing to do with what was committed before. */
static int adopt_elsewhere(struct segue_lane *lane, const struct segue_reply *reply)
{
	int rc = adopt(lane, reply);

	if (!rc)
		segue_kept_rows_finish(&lane->kept);
	return rc;
}

/* Takes the lane again where it was left, whatever the server still knows of it. */
static int offer(struct segue_lane *lane)
{
	struct segue_message request = {.lane_attach = {.mode = SEGUE_ATTACH_OFFER,
						.step = lane->track.committed,
						.timeout_ns = ATTACH_NS}};
	struct segue_reply reply;
	int rc = segue_offer_upload(lane, &request.lane_attach.upload);

	if (rc)
		return rc;
	memcpy(request.lane_attach.token, lane->token, sizeof(lane->token));
	rc = request_counted(lane, &request, &reply);
	if (rc)
		return rc;
	unsigned long long step = reply.message.attached.step;
	if (step == lane->track.committed)
		return adopt_again(lane, &reply);
	rc = decline(lane, &reply);
	return rc ? rc
		  : segue_fail(SEGUE_EPROTOCOL,
			    "lane %u was offered at step %llu, the server goes on at %llu",
			    lane->index, committed_of(lane), step);
}

/*
 * An offer is refused when the server knows better: somebody else has the lane; or the server has
 * itself taken what the lane had committed, since the connection was lost and the server was not;
 * or an earlier offer was accepted by a server that died before it could say so. In the last two
 * cases the lane is ours still, and where we left it: no grant came between but our own.
 */
static int resume(struct segue_lane *lane)
{
	struct segue_message request = {
		.lane_attach = {.mode = SEGUE_ATTACH_CONTINUE, .timeout_ns = ATTACH_NS}};
	struct segue_reply reply;
	int rc = request_counted(lane, &request, &reply);

	if (rc)
		return rc;
	uint64_t between = reply.message.attached.generation - lane->generation - 1;
	if (reply.message.attached.step == lane->track.committed && between <= lane->unanswered)
		return adopt_again(lane, &reply);
	unsigned long long step = reply.message.attached.step;
	rc = decline(lane, &reply);
	return rc ? rc
		  : segue_fail(SEGUE_EFENCED,
			    "lane %u of stream '%s' has had another holder since batch %llu: it "
			    "stands at step %llu now; attach again, or go back to a checkpoint",
			    lane->index, spec_of(lane)->name, committed_of(lane), step);
}

static int check_fenced(const struct segue_lane *lane)
{
	if (!lane->fenced)
		return 0;
	return segue_fail(SEGUE_EFENCED,
		"lane %u of stream '%s' has gone to another holder; attach again, or go back to a "
		"checkpoint",
		lane->index, spec_of(lane)->name);
}

int segue_lane_ready(struct segue_lane *lane)
{
	int rc = check_fenced(lane);

	if (rc || attached(lane))
		return rc;
	rc = segue_stream_ready(lane->stream);
	if (rc)
		return rc;
	rc = offer(lane);
	if (rc == SEGUE_EFENCED)
		rc = resume(lane);
	if (rc == SEGUE_EBUSY)
		rc = segue_fail_within(SEGUE_EFENCED, "the lane has gone to another holder");
	if (rc == SEGUE_EFENCED)
		lane->fenced = true;
	return rc;
}

static int attempt_ready(void *arg)
{
	return segue_lane_ready(arg);
}

/* ---- Attach and close ---------------------------------------------------------------------- */

/* A lane to be set to a position: a start, or a token. */
struct placing {
	struct segue_lane *lane;
	enum segue_attach_mode mode;
	const void *token;
	size_t token_size;
	int64_t timeout_ns;
};

/*
 * What was committed and not yet stored when the server died is brought to the new one before the
 * lane is set elsewhere: the states of rows that ended below the token's step are in no token.
 */
static int offer_before_restore(struct segue_lane *lane)
{
	if (!lane->mapping || lane->fenced)
		return 0;
	int rc = segue_lane_ready(lane);

	return rc == SEGUE_EFENCED ? 0 : rc;
}

static int attempt_place(void *arg)
{
	struct placing *placing = arg;
	struct segue_lane *lane = placing->lane;
	struct segue_message request = {
		.lane_attach = {.mode = placing->mode, .timeout_ns = placing->timeout_ns}};
	struct segue_reply reply;
	int rc = segue_stream_ready(lane->stream);

	if (rc == 0 && placing->mode == SEGUE_ATTACH_RESTORE)
		rc = offer_before_restore(lane);
	if (rc == 0 && placing->mode == SEGUE_ATTACH_RESTORE) {
		rc = segue_client_upload_bytes(lane->client, placing->token, placing->token_size,
			&request.lane_attach.upload);
		request.lane_attach.lease = attached(lane) ? lane->lease : 0;
	}
	if (rc == 0)
		rc = request_counted(lane, &request, &reply);
	return rc ? rc : adopt_elsewhere(lane, &reply);
}

/* The server would wait for this very process to give the lane back. */
static int check_free(const struct segue_stream *stream, uint32_t index)
{
	const struct segue_spec *spec = stream->shape->spec;

	if (index >= spec->lanes)
		return segue_fail(SEGUE_EINVAL, "stream '%s' has no lane %u: it has %u", spec->name,
			index, spec->lanes);
	for (struct segue_lane *lane = stream->client->lanes; lane; lane = lane->next) {
		if (lane->index == index && !lane->fenced && spec->persist &&
			strcmp(spec_of(lane)->name, spec->name) == 0)
			return segue_fail(SEGUE_EBUSY,
				"lane %u of stream '%s' is held by this process: close that handle "
				"first",
				index, spec->name);
	}
	return 0;
}

int segue_lane_attach(struct segue_stream *stream, uint32_t index,
	const struct segue_attach_options *options, struct segue_lane **out)
{
	static const struct segue_attach_options defaults;

	if (!stream || !out)
		return segue_fail(
			SEGUE_EINVAL, "segue_lane_attach wants a stream and a place for the lane");
	int rc = segue_fork_check(&stream->client->connection.guard);
	if (rc)
		return rc;
	if (!options)
		options = &defaults;
	if (options->timeout_ns < 0 || (unsigned)options->start > SEGUE_START_FRESH)
		return segue_fail(SEGUE_EINVAL, options->timeout_ns < 0
							? "timeout_ns is negative"
							: "start is none of enum segue_start");
	if (options->token && options->token_size == 0)
		return segue_fail(SEGUE_ETOKEN, "lane %u: the token is empty", index);
	rc = check_free(stream, index);
	if (rc)
		return rc;
	struct segue_lane *lane = calloc(1, sizeof(*lane));
	if (!lane)
		return segue_fail(SEGUE_ENOMEM, "no memory for a lane");
	lane->client = stream->client;
	lane->stream = stream;
	stream->users++;
	lane->index = index;
	lane->users = 1;
	struct placing placing = {
		.lane = lane,
		.mode = options->token ? SEGUE_ATTACH_RESTORE
				       : (enum segue_attach_mode)options->start,
		.token = options->token,
		.token_size = options->token_size,
		.timeout_ns = options->timeout_ns ? options->timeout_ns : ATTACH_NS,
	};
	rc = segue_client_run(lane->client, INT64_MAX, attempt_place, &placing);
	if (rc) {
		segue_lane_drop(lane);
		return rc;
	}
	lane->next = lane->client->lanes;
	lane->client->lanes = lane;
	*out = lane;
	return 0;
}

void segue_lane_drop(struct segue_lane *lane)
{
	if (--lane->users > 0)
		return;
	segue_kept_rows_finish(&lane->kept);
	segue_stream_drop(lane->stream);
	free(lane);
}

/* Whether something committed would be lost if the lane went without a word to a server. */
static bool has_more_than_disk(const struct segue_lane *lane)
{
	return spec_of(lane)->persist && !lane->fenced &&
	       lane->track.committed > segue_lane_durable(lane);
}

static int attempt_detach(void *arg)
{
	struct segue_lane *lane = arg;
	int rc = segue_lane_ready(lane);

	return rc ? rc : detach(lane, lane->lease);
}

int segue_lane_close(struct segue_lane *lane)
{
	int rc = 0;

	if (!lane)
		return 0;
	if (!lane->client->connection.guard.forked) {
		rc = attached(lane) ? detach(lane, lane->lease) : SEGUE_EGONE;
		if (rc == SEGUE_EGONE)
			rc = has_more_than_disk(lane) ? segue_client_run(lane->client, INT64_MAX,
								attempt_detach, lane)
						      : 0;
	}
	struct segue_lane **link = &lane->client->lanes;
	while (*link != lane)
		link = &(*link)->next;
	*link = lane->next;
	lane->closed = true;
	segue_mapping_drop(lane->mapping);
	segue_lane_drop(lane);
	return rc;
}

/* ---- Waiting ------------------------------------------------------------------------------- */

void segue_lane_ring(struct segue_lane *lane)
{
	segue_event_ring(lane->mapping->guard.fd);
	lane->wakes++;
}

int segue_lane_check_storage(const struct segue_lane *lane)
{
	const struct segue_lease_page *page = segue_mapping_page(lane->mapping);
	/*
	 * acquire: pairs with segue_carry_storage_failed; the text was written before it. Once: a
	 * server that can store again takes it back.
	 */
	int code = -(int)segue_load_acquire(&page->error);

	if (code == 0)
		return 0;
	return segue_fail(code,
		"stream '%s': the server cannot store any more, batches below %llu are on disk: "
		"%.*s",
		spec_of(lane)->name, (unsigned long long)segue_lane_durable(lane), SEGUE_ERROR_TEXT,
		page->error_text);
}

/*
 * A new lease would leave the open batch behind: what was done of it would be lost, and come again.
 */
static int check_none_open(const struct segue_lane *lane)
{
	if (!segue_track_open(&lane->track))
		return 0;
	return segue_fail(SEGUE_EUNSAVED,
		"lane %u of stream '%s': the server, or the lease, was lost while batch %llu is "
		"open: commit or release it, then flush",
		lane->index, spec_of(lane)->name, committed_of(lane));
}

/* The lease, or the server, is gone: gets the lane back, or says why that cannot be. */
static int recover(struct segue_lane *lane, struct segue_losses *losses, int64_t deadline_ns)
{
	/* One that was lost long ago does not count as often. */
	if (segue_now_ns() - losses->last > lane->client->timeout_ns)
		*losses = (struct segue_losses){0};
	int rc = segue_client_lost(lane->client, losses, deadline_ns);
	if (rc)
		return rc;
	lane->epoch = 0;
	return segue_client_run(lane->client, deadline_ns, attempt_ready, lane);
}

/* Whether the server is there, and after a sleep whether the caller wants to go on. */
static int look_around(struct segue_lane *lane, bool slept)
{
	if (!attached(lane))
		return SEGUE_EGONE;
	int rc = segue_connection_check(&lane->client->connection);
	if (rc == 0 && slept)
		rc = segue_hooks_interrupted(&lane->client->hooks);
	return rc;
}

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
	int rc = look_around(lane, waiting->slept);

	waiting->waited = true;
	if (rc)
		return rc;
	int64_t now = segue_now_ns();
	if (now >= waiting->deadline_ns)
		return segue_fail(SEGUE_ETIMEOUT,
			"batch %llu of lane %u of stream '%s' did not come in time",
			(unsigned long long)track->next, lane->index, spec_of(lane)->name);
	if (!waiting->rung)
		spin(track);
	if (!segue_track_sleep_begin(track, &seen))
		return 0;
	/* The server may wait for more free slots than we can give back while we wait. */
	if (!waiting->rung)
		segue_lane_ring(lane);
	waiting->rung = true;
	int64_t slice = now + SLEEP_NS;
	segue_wait_word(&segue_mapping_ring(lane->mapping)->bell, seen,
		slice < waiting->deadline_ns ? slice : waiting->deadline_ns);
	segue_track_sleep_end(track);
	waiting->slept = true;
	return 0;
}

static int fail_held(const struct segue_lane *lane)
{
	return segue_fail(SEGUE_EHELD,
		"lane %u: %u batches are held and the ring has only %u: release batch %llu and "
		"those after it (drop the arrays that were taken from them), or open the stream "
		"with a greater depth",
		lane->index, lane->held, lane->track.depth,
		(unsigned long long)lane->track.released);
}

static int fail_end(const struct segue_lane *lane)
{
	return segue_fail(SEGUE_EEND, "lane %u of stream '%s' has ended at step %llu", lane->index,
		spec_of(lane)->name, (unsigned long long)lane->track.next);
}

static int fail_ring(const struct segue_lane *lane)
{
	const struct segue_ring_header *ring = segue_mapping_ring(lane->mapping);
	/* acquire: pairs with segue_feed_fail; the text was written before it */
	int code = -(int)segue_load_acquire(&ring->error);

	return segue_fail(code, "%.*s", SEGUE_ERROR_TEXT, ring->error_text);
}

/* What stands between the lane and its next batch: 0 if it should be looked at again. */
static int meet(struct segue_lane *lane, enum segue_track_result met, struct waiting *waiting)
{
	int rc = SEGUE_EGONE;

	switch (met) {
	case SEGUE_TRACK_READY:
		return 0;
	case SEGUE_TRACK_WAIT:
		rc = wait_once(lane, waiting);
		break;
	case SEGUE_TRACK_HELD:
		return fail_held(lane);
	case SEGUE_TRACK_END:
		return fail_end(lane);
	case SEGUE_TRACK_ERROR:
		return fail_ring(lane);
	case SEGUE_TRACK_STORAGE:
		rc = look_around(lane, false);
		if (rc == 0)
			return segue_lane_check_storage(lane);
		break;
	case SEGUE_TRACK_FENCED: /* by a server that is going, perhaps: it is asked */
		break;
	}
	if (rc != SEGUE_EGONE)
		return rc;
	waiting->rung = false;
	return recover(lane, &waiting->losses, waiting->deadline_ns);
}

static int wait_ready(struct segue_lane *lane, int64_t timeout_ns)
{
	int64_t began = segue_now_ns();
	struct waiting waiting = {.deadline_ns = segue_deadline(began, timeout_ns)};
	enum segue_track_result met;
	int rc = 0;

	while (rc == 0 && (met = segue_track_poll(&lane->track)) != SEGUE_TRACK_READY)
		rc = meet(lane, met, &waiting);
	if (waiting.waited) {
		lane->waits++;
		lane->waited += (uint64_t)(segue_now_ns() - began);
	}
	return rc;
}

int segue_lane_next(struct segue_lane *lane, int64_t timeout_ns, struct segue_batch **out)
{
	struct segue_batch *batch;
	int rc = check_lane(lane);

	if (rc)
		return rc;
	if (!out || timeout_ns < 0)
		return segue_fail(SEGUE_EINVAL, !out ? "a place for the batch is wanted, not NULL"
						     : "timeout_ns is negative");
	struct segue_track *track = &lane->track;
	if (segue_track_open(track))
		return segue_batch_fail_unsaved(
			&lane->mapping->batches[track->committed % track->depth]);
	/* Its last ring may hold more, if its server was gone when that became known. */
	rc = check_fenced(lane);
	if (rc == 0 && segue_track_poll(track) != SEGUE_TRACK_READY)
		rc = wait_ready(lane, timeout_ns);
	if (rc)
		return rc;
	rc = segue_batch_begin(lane->mapping, track->next, &batch);
	if (rc)
		return rc;
	segue_track_take(track);
	batch->taken = true;
	lane->mapping->users++;
	lane->held++;
	*out = batch;
	return 0;
}

/* ---- Durability ---------------------------------------------------------------------------- */

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
	/* acquire: pairs with segue_carry_ring */
	bool news = !wanted->old_error || segue_load_acquire(&page->bell) != wanted->bell;

	/* acquire: pairs with segue_carry_set_durable */
	if (segue_load_acquire(&page->durable) >= wanted->step)
		return 0;
	int rc = news ? segue_lane_check_storage(lane) : 0;
	if (rc)
		return rc;
	/* acquire: pairs with segue_carry_fence */
	if (segue_load_acquire(&page->generation) != lane->generation)
		return SEGUE_EGONE;
	return 1;
}

/* Sleeps on the page's bell unless something has happened. */
static void sleep_on_page(struct segue_lane *lane, const struct durability *wanted)
{
	const struct segue_lease_page *page = segue_mapping_page(lane->mapping);
	struct segue_carry_header *carry = segue_mapping_carry(lane->mapping);
	/* acquire: an event after this load changes the bell, and the sleep returns */
	uint32_t bell = segue_load_acquire(&page->bell);
	int64_t slice = segue_now_ns() + SLEEP_NS;

	/* release: pairs with the load in carry.c (segue_carry_ring) */
	segue_store_release(&carry->sleeping, 1);
	/* The flag must be seen before we look again: pairs with the fence in segue_carry_ring. */
	segue_fence();
	if (durable_or_why_not(lane, wanted) == 1)
		segue_wait_word(&page->bell, bell,
			slice < wanted->deadline_ns ? slice : wanted->deadline_ns);
	segue_store_release(&carry->sleeping, 0);
}

static int fail_late(const struct segue_lane *lane, uint64_t step)
{
	return segue_fail(SEGUE_ETIMEOUT,
		"lane %u of stream '%s': batches below %llu are not on disk in time, those below "
		"%llu are",
		lane->index, spec_of(lane)->name, (unsigned long long)step,
		(unsigned long long)segue_lane_durable(lane));
}

static int wait_durable(struct segue_lane *lane, struct durability *wanted)
{
	struct segue_losses losses = {0};
	bool slept = false;

	for (;;) {
		int rc = durable_or_why_not(lane, wanted);
		if (rc == 1)
			rc = look_around(lane, slept);
		else if (rc != SEGUE_EGONE)
			return rc;
		if (rc == 0 && segue_now_ns() >= wanted->deadline_ns)
			return fail_late(lane, wanted->step);
		/* An accepted offer is on disk: the new page says so. */
		if (rc == SEGUE_EGONE) {
			rc = check_none_open(lane);
			if (rc == 0)
				rc = recover(lane, &losses, wanted->deadline_ns);
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

/* Has the server write now; what the page says of an earlier transaction is then no answer. */
static int attempt_flush(void *arg)
{
	const struct flush_attempt *call = arg;
	struct segue_lane *lane = call->lane;
	struct segue_reply reply;
	int rc = attached(lane) ? 0 : check_none_open(lane);

	if (rc == 0)
		rc = segue_lane_ready(lane);
	if (rc)
		return rc;
	const struct segue_lease_page *page = segue_mapping_page(lane->mapping);
	/* acquire: pairs with segue_carry_ring */
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
	int rc = check_lane(lane);

	if (rc)
		return rc;
	if (timeout_ns < 0)
		return segue_fail(SEGUE_EINVAL, "timeout_ns is negative");
	if (!spec_of(lane)->persist)
		return segue_fail(SEGUE_EINVAL,
			"stream '%s' was opened with persist = false: nothing of it is stored, so "
			"there is nothing to wait for",
			spec_of(lane)->name);
	struct durability wanted = {.step = lane->track.committed,
		.deadline_ns = segue_deadline(segue_now_ns(), timeout_ns)};
	struct flush_attempt call = {lane, &wanted};
	if (segue_lane_durable(lane) >= wanted.step)
		return 0;
	rc = segue_client_run(lane->client, wanted.deadline_ns, attempt_flush, &call);
	return rc ? rc : wait_durable(lane, &wanted);
}

/* ---- Tokens -------------------------------------------------------------------------------- */

struct token_attempt {
	struct segue_lane *lane;
	void *token;
	size_t size;
};

static int attempt_token(void *arg)
{
	struct token_attempt *call = arg;
	struct segue_lane *lane = call->lane;
	int rc = segue_lane_ready(lane);

	if (rc)
		return rc;
	struct segue_message request = {
		.type = SEGUE_MESSAGE_CHECKPOINT,
		.checkpoint = {.stream = lane->stream->id,
			.lane = lane->index,
			.step = lane->track.committed,
			.timeout_ns = SEGUE_REQUEST_NS},
	};
	return segue_client_fetch(
		lane->client, &request, SEGUE_REQUEST_NS + ANSWER_NS, &call->token, &call->size);
}

int segue_lane_checkpoint(struct segue_lane *lane, void **token, size_t *size)
{
	int rc = check_lane(lane);

	if (rc)
		return rc;
	if (!token || !size)
		return segue_fail(SEGUE_EINVAL, "places for the token and its size are wanted");
	const struct segue_track *track = &lane->track;
	if (segue_track_open(track))
		return segue_batch_fail_unsaved(
			&lane->mapping->batches[track->committed % track->depth]);
	struct token_attempt call = {.lane = lane};
	rc = segue_client_run(lane->client, INT64_MAX, attempt_token, &call);
	if (rc)
		return rc;
	*token = call.token;
	*size = call.size;
	return 0;
}

int segue_lane_restore(struct segue_lane *lane, const void *token, size_t size)
{
	int rc = check_lane(lane);

	if (rc)
		return rc;
	if (!token || size == 0)
		return segue_fail(SEGUE_ETOKEN, "lane %u: the token is empty", lane->index);
	if (lane->held)
		return segue_fail(SEGUE_EHELD,
			"lane %u: %u batches are held: release them before the lane is restored",
			lane->index, lane->held);
	struct placing placing = {
		.lane = lane,
		.mode = SEGUE_ATTACH_RESTORE,
		.token = token,
		.token_size = size,
		.timeout_ns = ATTACH_NS,
	};
	return segue_client_run(lane->client, INT64_MAX, attempt_place, &placing);
}

static int attempt_check(void *arg)
{
	struct placing *placing = arg;
	struct segue_lane *lane = placing->lane;
	struct segue_message request = {
		.type = SEGUE_MESSAGE_LANE_ATTACH,
		.lane_attach = {.mode = SEGUE_ATTACH_CHECK, .lane = lane->index},
	};
	struct segue_reply reply;
	int rc = segue_stream_ready(lane->stream);

	if (rc == 0)
		rc = segue_client_upload_bytes(lane->client, placing->token, placing->token_size,
			&request.lane_attach.upload);
	request.lane_attach.stream = lane->stream->id;
	return rc ? rc
		  : segue_client_call(
			    lane->client, &request, SEGUE_MESSAGE_DONE, SEGUE_REQUEST_NS, &reply);
}

int segue_lane_check(struct segue_lane *lane, const void *token, size_t size)
{
	int rc = check_lane(lane);

	if (rc)
		return rc;
	if (!token || size == 0)
		return segue_fail(SEGUE_ETOKEN, "lane %u: the token is empty", lane->index);
	struct placing placing = {.lane = lane, .token = token, .token_size = size};
	return segue_client_run(lane->client, INT64_MAX, attempt_check, &placing);
}

/* ---- What is known of it ------------------------------------------------------------------- */

uint32_t segue_lane_index(const struct segue_lane *lane)
{
	return lane ? lane->index : 0;
}

uint64_t segue_lane_committed(const struct segue_lane *lane)
{
	return lane ? lane->track.committed : 0;
}

uint64_t segue_lane_durable(const struct segue_lane *lane)
{
	if (check_lane(lane))
		return 0;
	/* acquire: pairs with segue_carry_set_durable */
	return segue_load_acquire(&segue_mapping_page(lane->mapping)->durable);
}

uint64_t segue_lane_undelivered(const struct segue_lane *lane)
{
	if (check_lane(lane))
		return 0;
	const struct segue_ring_header *ring = segue_mapping_ring(lane->mapping);
	/* acquire: pairs with segue_feed_end; `undelivered` was written before it */
	return segue_load_acquire(&ring->end) == SEGUE_NEVER ? 0 : ring->undelivered;
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
