/* Side segments of a ring's slots, asked for and mapped. */
#include "client/side.h"

#include <inttypes.h>
#include <unistd.h>

#include "core/error.h"

static int ask(struct segue_lane *lane, uint64_t step, struct segue_reply *reply)
{
	struct segue_message request = {
		.type = SEGUE_MESSAGE_LANE_SIDE, .lane_side = {.lease = lane->lease, .step = step}};

	if (!segue_lane_attached(lane))
		return SEGUE_EGONE;
	/* A replica's: what it has not mapped by now went with the lease. */
	if (lane->mapping->lease != lane->lease)
		return segue_fail(SEGUE_ESTALE,
			"replica %" PRIu32 " of lane %u of stream '%s' is at batch %" PRIu64
			", whose ragged values, or bytes, went when replica 0 got another lease: "
			"give all ranks the same token (load_state_dict), or make new loaders",
			lane->replica, lane->index, segue_lane_spec(lane)->name, step);
	return segue_client_call(
		lane->client, &request, SEGUE_MESSAGE_BULK, SEGUE_REQUEST_NS, reply);
}

int segue_side_map(struct segue_lane *lane, uint64_t step)
{
	struct segue_mapping *mapping = lane->mapping;
	size_t place = step % mapping->geometry.depth;
	uint64_t number = segue_side_of(mapping, step);
	struct segue_reply reply;
	struct segue_shm shm;

	if (segue_side_is_mapped(mapping, step))
		return 0;
	/* The arrays of a batch that is held are there until it is released. */
	if (mapping->places[place].users > 0)
		return segue_fail(SEGUE_EPROTOCOL,
			"lane %u: the side segment of batch %" PRIu64 " was exchanged under it",
			lane->index, step);
	int rc = ask(lane, step, &reply);
	if (rc)
		return rc;
	if (reply.message.bulk.id != number)
		rc = segue_fail(SEGUE_EPROTOCOL,
			"lane %u: the server sent side segment %" PRIu64 " for batch %" PRIu64
			", which needs %" PRIu64,
			lane->index, reply.message.bulk.id, step, number);
	else
		rc = segue_shm_map(reply.fds[0], reply.message.bulk.size, SEGUE_SHM_READ, &shm);
	if (rc) {
		close(reply.fds[0]);
		return rc;
	}
	segue_mapping_set_side(mapping, place, number, &shm);
	return 0;
}
