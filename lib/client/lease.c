/* A lease: asked for, gone on with, given back. */
#include "client/lease.h"

#include <string.h>
#include <unistd.h>

#include "client/hold.h"
#include "core/error.h"

int segue_lease_detach(struct segue_lane *lane, uint64_t lease)
{
	struct segue_message request = {
		.type = SEGUE_MESSAGE_LANE_DETACH, .lane_detach = {.lease = lease}};
	struct segue_reply reply;

	return segue_client_call(
		lane->client, &request, SEGUE_MESSAGE_DONE, SEGUE_REQUEST_NS, &reply);
}

int64_t segue_lease_gathering_ns(const struct segue_lane *lane)
{
	const struct segue_spec *spec = segue_lane_spec(lane);

	return spec->groups > 1 ? spec->groups_timeout_ms * INT64_C(1000000) : 0;
}

static int request_lease(
	struct segue_lane *lane, struct segue_message *request, struct segue_reply *reply)
{
	request->type = SEGUE_MESSAGE_LANE_ATTACH;
	request->lane_attach.stream = lane->stream->id;
	bool any = lane->index == SEGUE_LANE_ANY;
	request->lane_attach.lane = any ? 0 : lane->index;
	request->lane_attach.any = !lane->moves ? SEGUE_ANY_NOT
				   : any        ? SEGUE_ANY_CHOOSE
						: SEGUE_ANY_NAMED;
	request->lane_attach.group = lane->group;
	request->lane_attach.replicas = lane->replicas;
	return segue_client_call(lane->client, request, SEGUE_MESSAGE_ATTACHED,
		segue_deadline(request->lane_attach.timeout_ns,
			segue_lease_gathering_ns(lane) + SEGUE_ANSWER_NS),
		reply);
}

int segue_lease_request(
	struct segue_lane *lane, struct segue_message *request, struct segue_reply *reply)
{
	struct segue_hold hold = {.mapping = NULL};

	if (request->lane_attach.lease) {
		int rc = segue_hold_begin(lane, &hold);
		if (rc)
			return rc;
	}
	lane->unanswered++;
	int rc = request_lease(lane, request, reply);
	if (!rc || rc == SEGUE_EFENCED || rc == SEGUE_EBUSY)
		lane->unanswered--;
	int kept = segue_hold_end(&hold);
	if (!rc && kept)
		segue_lease_decline(lane, reply);
	return rc ? rc : kept;
}

/* A grant that came to nothing: it is one of ours still. */
static int give_back(struct segue_lane *lane, const struct segue_reply *reply)
{
	lane->unanswered++;
	return segue_lease_detach(lane, reply->message.attached.lease);
}

int segue_lease_adopt(struct segue_lane *lane, const struct segue_reply *reply)
{
	struct segue_mapping *mapping, *before = lane->mapping;
	const struct segue_connection *connection = &lane->client->connection;
	uint64_t step = reply->message.attached.step;
	int rc = segue_mapping_create(lane->stream->shape, lane->index, reply, &mapping);

	if (!rc) {
		rc = segue_places_create(mapping);
		if (rc)
			segue_mapping_drop(mapping);
	}
	if (rc) {
		give_back(lane, reply);
		return rc;
	}
	if (before)
		lane->skipped = segue_lane_skipped(lane);
	segue_fork_lock();
	/* A newer handle has come since this was asked for: it stays the one that has the lane. */
	bool taken = segue_lane_is_taken(lane);
	if (taken) {
		segue_fork_unlock();
		segue_mapping_drop(mapping);
		rc = give_back(lane, reply);
		return rc ? rc : segue_lane_fail_lost(lane);
	}
	lane->epoch = lane->client->epoch;
	lane->lease = reply->message.attached.lease;
	lane->batch_size = reply->message.attached.batch_size;
	lane->unanswered = 0;
	lane->gone = 0;
	lane->mapping = mapping;
	lane->generation = reply->message.attached.generation;
	memcpy(lane->token, reply->message.attached.token, sizeof(lane->token));
	lane->instance = lane->granter = connection->instance;
	lane->connected = connection->number;
	lane->device = connection->device;
	lane->inode = connection->inode;
	segue_store_release(&lane->lost, SEGUE_LOSS_NONE); /* no pair: see segue_lane_is_lost */
	segue_fork_unlock();
	segue_track_init(&lane->track, segue_mapping_ring(mapping), segue_mapping_carry(mapping),
		segue_mapping_page(mapping), mapping->geometry.depth, lane->generation, step);
	if (before)
		segue_mapping_drop(before);
	return 0;
}

int segue_lease_decline(struct segue_lane *lane, const struct segue_reply *reply)
{
	for (size_t i = 0; i < SEGUE_FRAME_FDS; i++)
		close(reply->fds[i]);
	return give_back(lane, reply);
}
