/* A lane set to a position: attached, restored; and closed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/bulk.h"
#include "client/follow.h"
#include "client/hold.h"
#include "client/lease.h"
#include "client/resume.h"
#include "client/takeover.h"
#include "core/barrier.h"
#include "core/error.h"
#include "core/sized.h"

/* ---- Placing ---- */

/* A lane to be set to a position: a start, or a token. */
struct placing {
	struct segue_lane *lane;
	enum segue_attach_mode mode;
	const void *token;
	size_t token_size;
	int64_t timeout_ns;
	const char *group; /* NULL: 0 */
	bool first, take;  /* the first lease of the handle; it ends an older handle's */
};

/* The lane got a position of its own, which has nothing to do with what was committed before. */
static int adopt_elsewhere(struct segue_lane *lane, const struct segue_reply *reply)
{
	int rc = segue_lease_adopt(lane, reply);

	if (rc)
		return rc;
	segue_fork_lock();
	segue_kept_rows_finish(&lane->kept);
	segue_fork_unlock();
	return 0;
}

/*
 * What was committed and not yet stored when the server died is brought to the new one before the
 * lane is set elsewhere: the states of rows that ended below the token's step are in no token.
 */
static int offer_before_restore(struct segue_lane *lane)
{
	if (!lane->mapping || segue_lane_is_lost(lane))
		return 0;
	int rc = segue_lane_ready(lane);

	return rc == SEGUE_EFENCED || rc == SEGUE_ECHANGED ? 0 : rc;
}

static int find_group(struct segue_lane *lane, const char *name)
{
	struct segue_message request = {
		.type = SEGUE_MESSAGE_GROUP, .group = {.stream = lane->stream->id, .name = name}};
	struct segue_reply reply;

	int rc = segue_client_call(
		lane->client, &request, SEGUE_MESSAGE_GROUPED, SEGUE_REQUEST_NS, &reply);
	if (!rc)
		lane->group = reply.message.grouped.group;
	return rc;
}

/*
 * What this client has of the lanes that move is with the server before it asks for another: the
 * server gives away what it has reserved for this process, but for what other handles come for.
 */
static int offer_others(const struct segue_lane *lane)
{
	int rc = 0;

	for (struct segue_lane *other = lane->client->lanes; other && !rc; other = other->next) {
		if (other->moves && !segue_lane_is_lost(other))
			rc = segue_lane_ready(other);
		/* Its next call says so. */
		if (rc == SEGUE_EFENCED || rc == SEGUE_ECHANGED)
			rc = 0;
	}
	return rc;
}

static int attempt_place(void *arg)
{
	struct placing *placing = arg;
	struct segue_lane *lane = placing->lane;
	struct segue_message request = {.lane_attach = {.mode = placing->mode,
						.timeout_ns = placing->timeout_ns,
						.take = placing->take}};
	uint8_t kept[(SEGUE_LANES_MAX + 7) / 8];
	struct segue_reply reply;
	int rc = segue_stream_ready(lane->stream);

	if (!rc && placing->group)
		rc = find_group(lane, placing->group);
	if (!rc && lane->replica)
		return segue_follow_attach(
			lane, segue_deadline(placing->timeout_ns, segue_lease_gathering_ns(lane)));
	if (!rc && placing->first && !lane->moves && segue_lane_spec(lane)->persist)
		rc = segue_takeover_prepare(lane, placing->take, placing->mode);
	if (!rc && lane->index == SEGUE_LANE_ANY)
		rc = offer_others(lane);
	if (!rc && lane->index == SEGUE_LANE_ANY) {
		request.lane_attach.kept_size = segue_takeover_kept(lane, kept);
		request.lane_attach.kept = kept;
	}
	if (!rc && placing->mode == SEGUE_ATTACH_RESTORE)
		rc = offer_before_restore(lane);
	if (!rc && placing->mode == SEGUE_ATTACH_RESTORE) {
		rc = segue_client_upload_bytes(lane->client, placing->token, placing->token_size,
			&request.lane_attach.upload);
		request.lane_attach.lease = segue_lane_attached(lane) ? lane->lease : 0;
	}
	if (!rc)
		rc = segue_lease_request(lane, &request, &reply);
	if (!rc && lane->index == SEGUE_LANE_ANY)
		lane->index = reply.message.attached.lane;
	return rc ? rc : adopt_elsewhere(lane, &reply);
}

int segue_lane_restore(struct segue_lane *lane, const void *token, size_t size)
{
	int rc = segue_lane_usable(lane);

	if (rc)
		return rc;
	if (!token || size == 0)
		return segue_fail(SEGUE_ETOKEN,
			"lane %u: the token is empty: give what state_dict() made of the lane",
			lane->index);
	if (lane->replica) {
		segue_follow_forget(lane);
		return 0;
	}
	if (segue_lane_is_taken(lane))
		return segue_lane_fail_lost(lane);
	struct placing placing = {
		.lane = lane,
		.mode = SEGUE_ATTACH_RESTORE,
		.token = token,
		.token_size = size,
		.timeout_ns = SEGUE_ATTACH_NS,
	};
	return segue_client_run(lane->client, INT64_MAX, attempt_place, &placing);
}

/* ---- Renewed ---- */

/* The lease is ended and asked for again at once, or was lost: then it is resumed. */
static int attempt_renew(void *arg)
{
	struct segue_lane *lane = arg;
	struct segue_message request = {
		.lane_attach = {.mode = SEGUE_ATTACH_RESUME, .timeout_ns = SEGUE_ATTACH_NS}};
	struct segue_reply reply;

	if (!segue_lane_attached(lane))
		return segue_lane_ready(lane);
	request.lane_attach.lease = lane->lease;
	int rc = segue_lease_request(lane, &request, &reply);
	if (rc)
		return rc;
	if (reply.message.attached.step == lane->track.committed)
		return adopt_elsewhere(lane, &reply);
	rc = segue_lease_decline(lane, &reply);
	return rc ? rc
		  : segue_fail(SEGUE_EFENCED,
			    "lane %u: its memory is renewed at step %" PRIu64 ", step %" PRIu64
			    " is stored: somebody else has had it. Go back to a checkpoint with "
			    "load_state_dict()",
			    lane->index, lane->track.committed, reply.message.attached.step);
}

int segue_lane_renew(struct segue_lane *lane)
{
	int rc = segue_lane_usable(lane);

	if (!rc && lane->replica)
		rc = segue_follow_fail_reads(lane, "asks for new memory");
	if (!rc)
		rc = segue_lane_check_no_batch(lane);
	if (!rc)
		rc = segue_lane_check_lost(lane);
	return rc ? rc : segue_client_run(lane->client, INT64_MAX, attempt_renew, lane);
}

/* ---- Batch size ---- */

struct resizing {
	struct segue_lane *lane;
	uint32_t batch_size;
};

/*
 * As renewed, with another size. One whose answer was lost may have been made: then the lane that
 * was taken again has it.
 */
static int attempt_resize(void *arg)
{
	const struct resizing *resizing = arg;
	struct segue_lane *lane = resizing->lane;
	struct segue_message request = {.lane_attach = {.mode = SEGUE_ATTACH_RESIZE,
						.step = lane->track.committed,
						.batch_size = resizing->batch_size,
						.timeout_ns = SEGUE_ATTACH_NS}};
	struct segue_reply reply;
	int rc = segue_lane_ready(lane);

	if (rc || lane->batch_size == resizing->batch_size)
		return rc;
	request.lane_attach.lease = lane->lease;
	rc = segue_lease_request(lane, &request, &reply);
	if (rc)
		return rc;
	if (reply.message.attached.step == lane->track.committed &&
		reply.message.attached.batch_size == resizing->batch_size)
		return adopt_elsewhere(lane, &reply);
	rc = segue_lease_decline(lane, &reply);
	return rc ? rc
		  : segue_fail(SEGUE_EPROTOCOL,
			    "lane %u was to have batches of %u rows from step %" PRIu64
			    " on, the server goes on at %" PRIu64 " with %u",
			    lane->index, resizing->batch_size, lane->track.committed,
			    reply.message.attached.step, reply.message.attached.batch_size);
}

int segue_lane_set_batch_size(struct segue_lane *lane, uint32_t batch_size)
{
	struct resizing resizing = {lane, batch_size};
	int rc = segue_lane_usable(lane);

	if (!rc && batch_size > SEGUE_ROWS_MAX)
		rc = segue_fail(SEGUE_EINVAL,
			"batch_size is %u: a batch has %u rows at most: give a smaller one",
			batch_size, SEGUE_ROWS_MAX);
	if (!rc && lane->replica)
		return segue_follow_set_batch_size(lane, batch_size);
	if (!rc)
		rc = segue_lane_check_no_batch(lane);
	if (!rc)
		rc = segue_lane_check_lost(lane);
	return rc ? rc : segue_client_run(lane->client, INT64_MAX, attempt_resize, &resizing);
}

/* ---- Attach and close ---- */

static int check_attach(const struct segue_stream *stream, uint32_t index,
	const struct segue_attach_options *options)
{
	const struct segue_spec *spec = stream->shape->spec;

	if (options->timeout_ns < 0 || (unsigned)options->start > SEGUE_START_FRESH)
		return segue_fail(SEGUE_EINVAL, options->timeout_ns < 0
							? "timeout_ns is negative"
							: "start is none of enum segue_start");
	if (options->token && options->token_size == 0)
		return segue_fail(SEGUE_ETOKEN,
			"lane %u: the token is empty: give what state_dict() made of the lane",
			index);
	if (index == SEGUE_LANE_ANY && (options->token || !spec->persist))
		return segue_fail(SEGUE_EINVAL,
			options->token
				? "a token is of one lane: restore it with that, not with any"
				: "stream '%s' has persist=False: its lanes do not move from "
				  "worker "
				  "to worker; open it with persist=True",
			spec->name);
	if (index != SEGUE_LANE_ANY && index >= spec->lanes)
		return segue_fail(SEGUE_EINVAL, "stream '%s' has no lane %u: its last is %u",
			spec->name, index, spec->lanes - 1);
	if (options->replicas > SEGUE_REPLICAS_MAX ||
		(options->replica && options->replica >= options->replicas))
		return segue_fail(SEGUE_EINVAL,
			"replica: %u is not in 0 to replicas - 1, with replicas = %u, which is %u "
			"at "
			"most",
			options->replica, options->replicas, SEGUE_REPLICAS_MAX);
	if (options->replicas > 1 && !spec->persist)
		return segue_fail(SEGUE_EINVAL,
			"stream '%s': with persist = false nothing is shared: each loader is by "
			"itself, and has no replicas",
			spec->name);
	if (options->replicas > 1 && index == SEGUE_LANE_ANY)
		return segue_fail(SEGUE_EINVAL,
			"stream '%s': replicas are of lanes that stay with their worker, not of "
			"any: "
			"attach the lanes by their numbers",
			spec->name);
	return options->group ? segue_name_check("group", options->group, false) : 0;
}

int segue_lane_attach(struct segue_stream *stream, uint32_t index,
	const struct segue_attach_options *given, struct segue_lane **out)
{
	struct segue_attach_options options = {.size = sizeof(options)};

	if (!stream || !out)
		return segue_fail(
			SEGUE_EINVAL, "segue_lane_attach wants a stream and a place for the lane");
	int rc = segue_fork_check(&stream->client->connection.guard);
	if (!rc && given)
		rc = segue_sized_take("segue_attach_options", given, sizeof(options), &options);
	if (!rc)
		rc = check_attach(stream, index, &options);
	if (rc)
		return rc;
	struct segue_lane *lane = calloc(1, sizeof(*lane));
	if (!lane)
		return segue_fail(SEGUE_ENOMEM, "no memory for a lane");
	lane->client = stream->client;
	lane->stream = stream;
	stream->users++;
	lane->index = index;
	lane->replica = options.replica;
	lane->replicas = options.replicas;
	snprintf(lane->group_name, sizeof(lane->group_name), "%s",
		options.group ? options.group : "");
	lane->moves = index == SEGUE_LANE_ANY;
	lane->users = 1;
	struct placing placing = {
		.lane = lane,
		.mode = options.token ? SEGUE_ATTACH_RESTORE
				      : (enum segue_attach_mode)options.start,
		.token = options.token,
		.token_size = options.token_size,
		.timeout_ns = options.timeout_ns ? options.timeout_ns : SEGUE_ATTACH_NS,
		.group = options.group,
		.first = true,
		.take = options.take,
	};
	rc = segue_client_run(lane->client, INT64_MAX, attempt_place, &placing);
	if (rc) {
		segue_lane_drop(lane);
		return rc;
	}
	lane->next = lane->client->lanes;
	lane->client->lanes = lane;
	lane->client->may_start = segue_lanes_may_start;
	if (segue_lane_spec(lane)->persist && !lane->replica)
		segue_takeover_finish(lane);
	*out = lane;
	return 0;
}

/* Whether something committed would be lost if the lane went without a word to a server. */
static bool has_more_than_disk(const struct segue_lane *lane)
{
	return !lane->replica && segue_lane_spec(lane)->persist && !segue_lane_is_lost(lane) &&
	       lane->track.committed > segue_lane_durable(lane);
}

static int attempt_detach(void *arg)
{
	struct segue_lane *lane = arg;
	int rc = segue_lane_ready(lane);

	return rc ? rc : segue_lease_detach(lane, lane->lease);
}

/* Whether the lane was somebody else's before it was given back. */
static bool was_taken(const struct segue_lane *lane)
{
	/* acquire: pairs with segue_carry_fence (lane/carry.c) */
	return segue_lane_is_lost(lane) ||
	       segue_load_acquire(&segue_mapping_page(lane->mapping)->generation) !=
		       lane->generation;
}

static int check_on_disk(const struct segue_lane *lane)
{
	uint64_t durable = segue_lane_durable(lane), committed = lane->track.committed;

	segue_fork_lock();
	if (durable < lane->handed_over)
		durable = lane->handed_over;
	segue_fork_unlock();
	if (!segue_lane_spec(lane)->persist || committed <= durable)
		return 0;
	return segue_fail(SEGUE_EFENCED,
		"lane %u of stream '%s' has gone to another holder: batches from %" PRIu64
		" to %" PRIu64 " were committed and are not on disk; go back to a checkpoint",
		lane->index, segue_lane_spec(lane)->name, durable, committed - 1);
}

int segue_lane_close(struct segue_lane *lane)
{
	struct segue_hold hold;
	int rc = 0;

	if (!lane)
		return 0;
	if (!lane->client->connection.guard.forked) {
		bool taken = was_taken(lane);
		int kept = segue_hold_begin(lane, &hold);
		/* No memory for what is held: the lease stays until the client is closed. */
		rc = kept                        ? kept
		     : segue_lane_attached(lane) ? segue_lease_detach(lane, lane->lease)
						 : SEGUE_EGONE;
		bool waited_for = lane->moves && !segue_lane_is_lost(lane) &&
				  segue_connection_live(&lane->client->connection);
		if (rc == SEGUE_EGONE)
			rc = waited_for || has_more_than_disk(lane)
				     ? segue_client_run(
					       lane->client, INT64_MAX, attempt_detach, lane)
				     : 0;
		if (!rc && taken && !lane->replica)
			rc = check_on_disk(lane);
		kept = kept ? kept : segue_hold_end(&hold);
		rc = rc ? rc : kept;
	}
	struct segue_lane **link = &lane->client->lanes;
	while (*link != lane)
		link = &(*link)->next;
	*link = lane->next;
	segue_takeover_forget(lane);
	segue_follow_finish(lane);
	lane->closed = true;
	segue_mapping_drop(lane->mapping);
	segue_lane_drop(lane);
	return rc;
}
