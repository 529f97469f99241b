/* Tokens: of a lane where it stands, of any lane at a step; and whether one would do. */
#include <inttypes.h>

#include "client/bulk.h"
#include "client/resume.h"
#include "core/error.h"
#include "core/wait.h"

/* ---- Of a lane that is held ---- */

/* What is known of a token stays with its stream. */
static void take_answer(
	struct segue_stream *stream, const struct segue_answer *answer, void **token, size_t *size)
{
	stream->token_needs = answer->needs;
	stream->token_first = answer->first;
	*token = answer->bytes;
	*size = answer->size;
}

struct token_attempt {
	struct segue_lane *lane;
	struct segue_answer answer;
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
			.group = lane->group,
			.step = lane->track.committed,
			.timeout_ns = SEGUE_REQUEST_NS},
	};
	return segue_client_fetch(
		lane->client, &request, SEGUE_REQUEST_NS + SEGUE_ANSWER_NS, &call->answer);
}

/* The server tells where the lane stands; here is what is to be done about it. */
static int checkpoint_of_follower(struct segue_lane *lane, void **token, size_t *size)
{
	uint64_t step = lane->track.next;
	int rc = segue_lane_checkpoint_of(lane, lane->index, step, SEGUE_REQUEST_NS, token, size);

	if (rc != SEGUE_ETIMEOUT && rc != SEGUE_EROUND && rc != SEGUE_ELIMIT)
		return rc;
	return segue_fail_within(rc,
		"replica %" PRIu32 " of lane %u of stream '%s' has gone through %" PRIu64
		" batches, and replica 0 has committed %s: take checkpoints (state_dict) in "
		"replica 0 alone, for the token is the same in all, or in all of them between the "
		"same two batches",
		lane->replica, lane->index, segue_lane_spec(lane)->name, step,
		rc == SEGUE_ELIMIT ? "more" : "fewer");
}

int segue_lane_checkpoint(struct segue_lane *lane, void **token, size_t *size)
{
	int rc = segue_lane_usable(lane);

	if (rc)
		return rc;
	if (!token || !size)
		return segue_fail(SEGUE_EINVAL, "places for the token and its size are wanted");
	if (lane->replica)
		return checkpoint_of_follower(lane, token, size);
	rc = segue_lane_check_no_batch(lane);
	if (rc)
		return rc;
	struct token_attempt call = {.lane = lane};
	rc = segue_client_run(lane->client, INT64_MAX, attempt_token, &call);
	if (rc)
		return rc;
	take_answer(lane->stream, &call.answer, token, size);
	return 0;
}

struct check_attempt {
	struct segue_lane *lane;
	const void *token;
	size_t size;
};

static int attempt_check(void *arg)
{
	const struct check_attempt *call = arg;
	struct segue_lane *lane = call->lane;
	struct segue_message request = {
		.type = SEGUE_MESSAGE_LANE_ATTACH,
		.lane_attach = {.mode = SEGUE_ATTACH_CHECK,
			.lane = lane->index,
			.group = lane->group},
	};
	struct segue_reply reply;
	int rc = segue_stream_ready(lane->stream);

	if (!rc)
		rc = segue_client_upload_bytes(
			lane->client, call->token, call->size, &request.lane_attach.upload);
	request.lane_attach.stream = lane->stream->id;
	return rc ? rc
		  : segue_client_call(
			    lane->client, &request, SEGUE_MESSAGE_DONE, SEGUE_REQUEST_NS, &reply);
}

int segue_lane_check(struct segue_lane *lane, const void *token, size_t size)
{
	int rc = segue_lane_usable(lane);

	if (rc)
		return rc;
	if (!token || size == 0)
		return segue_fail(SEGUE_ETOKEN,
			"lane %u: the token is empty: give what state_dict() made of the lane",
			lane->index);
	struct check_attempt call = {lane, token, size};
	return segue_client_run(lane->client, INT64_MAX, attempt_check, &call);
}

/* ---- Of any lane ---- */

struct checkpoint_attempt {
	struct segue_stream *stream;
	struct segue_message request;
	struct segue_answer answer;
};

/*
 * Lanes of ours whose lease went with an earlier connection first say where they are: the server
 * would wait for them in vain. One with an open batch cannot; it is asked for at its own step only
 * after that batch.
 */
static int ready_lanes(struct segue_stream *stream)
{
	for (struct segue_lane *lane = stream->client->lanes; lane; lane = lane->next) {
		if (lane->replica || lane->stream != stream || segue_track_open(&lane->track) ||
			segue_lane_is_lost(lane))
			continue;
		int rc = segue_lane_ready(lane);
		if (rc && rc != SEGUE_EFENCED) /* then its holder has it, not we */
			return rc;
	}
	return 0;
}

static int attempt_checkpoint(void *arg)
{
	struct checkpoint_attempt *call = arg;
	int rc = segue_stream_ready(call->stream);

	if (!rc)
		rc = ready_lanes(call->stream);
	if (rc)
		return rc;
	call->request.checkpoint.stream = call->stream->id;
	return segue_client_fetch(call->stream->client, &call->request,
		segue_deadline(call->request.checkpoint.timeout_ns, SEGUE_REQUEST_NS),
		&call->answer);
}

static int take_checkpoint(struct segue_stream *stream, uint32_t group, uint32_t lane,
	uint64_t step, int64_t timeout_ns, void **token, size_t *size)
{
	if (!stream || !token || !size || timeout_ns < 0)
		return segue_fail(SEGUE_EINVAL, "a checkpoint of any lane wants a stream, or a "
						"lane, a timeout and places for the token and "
						"its size");
	int rc = segue_fork_check(&stream->client->connection.guard);
	if (rc)
		return rc;
	const struct segue_spec *spec = stream->shape->spec;
	if (lane >= spec->lanes)
		return segue_fail(SEGUE_EINVAL, "stream '%s' has no lane %u: its last is %u",
			spec->name, lane, spec->lanes - 1);
	struct checkpoint_attempt call = {
		.stream = stream,
		.request = {.type = SEGUE_MESSAGE_CHECKPOINT,
			.checkpoint = {.step = step,
				.lane = lane,
				.group = group,
				.timeout_ns = timeout_ns}},
	};
	rc = segue_client_run(stream->client, INT64_MAX, attempt_checkpoint, &call);
	if (rc)
		return rc;
	take_answer(stream, &call.answer, token, size);
	return 0;
}

int segue_stream_checkpoint(struct segue_stream *stream, uint32_t lane, uint64_t step,
	int64_t timeout_ns, void **token, size_t *size)
{
	return take_checkpoint(stream, 0, lane, step, timeout_ns, token, size);
}

int segue_lane_checkpoint_of(struct segue_lane *lane, uint32_t other, uint64_t step,
	int64_t timeout_ns, void **token, size_t *size)
{
	return take_checkpoint(lane ? lane->stream : NULL, lane ? lane->group : 0, other, step,
		timeout_ns, token, size);
}

void segue_stream_token_needs(const struct segue_stream *stream, uint64_t *needs, uint64_t *first)
{
	*needs = stream->token_needs;
	*first = stream->token_first;
}
