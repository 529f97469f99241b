/* A lane whose lease, or whose server, was lost: taken again where it was left. */
#include "client/resume.h"

#include <inttypes.h>
#include <string.h>

#include "client/bulk.h"
#include "client/lease.h"
#include "core/error.h"
#include "core/wait.h"

/* ---- Offers ---- */

size_t segue_offer_size(const struct segue_lane *lane, uint64_t committed)
{
	const struct segue_mapping *mapping = lane->mapping;
	const struct segue_kept_rows *kept = &lane->kept;
	/* What the lease began with is on disk since its grant, if the stream has a disk at all. */
	bool known = committed == mapping->granted && mapping->shape->spec->persist;

	if (committed == 0 || known)
		return 0;
	return segue_mapping_rows(mapping, committed - 1) * mapping->shape->row_size + kept->end -
	       kept->begin;
}

void segue_offer_fill(const struct segue_lane *lane, uint64_t committed, uint8_t *to)
{
	const struct segue_mapping *mapping = lane->mapping;
	const struct segue_kept_rows *kept = &lane->kept;
	uint32_t rows = segue_mapping_rows(mapping, committed - 1);

	for (uint32_t row = 0; row < rows; row++, to += mapping->shape->row_size)
		segue_mapping_gather(mapping, committed - 1, row, to);
	if (kept->end > kept->begin)
		memcpy(to, kept->bytes + kept->begin, kept->end - kept->begin);
}

/* Uploads what the lane has to offer; *id is 0 if that is nothing. */
static int upload_offer(struct segue_lane *lane, uint64_t *id)
{
	uint64_t committed = lane->track.committed;
	struct segue_shm upload;

	*id = 0;
	segue_fork_lock();
	segue_kept_rows_forget(&lane->kept, lane->mapping->shape, segue_lane_durable(lane));
	segue_fork_unlock();
	size_t size = segue_offer_size(lane, committed);
	if (size == 0)
		return 0;
	int rc = segue_client_upload(lane->client, size, &upload, id);
	if (rc)
		return rc;
	segue_offer_fill(lane, committed, upload.map);
	segue_shm_destroy(&upload);
	return 0;
}

/* Takes the lane again where it was left, whatever the server still knows of it. */
static int offer(struct segue_lane *lane)
{
	struct segue_message request = {
		.lane_attach = {.mode = SEGUE_ATTACH_OFFER,
			.step = lane->track.committed,
			.timeout_ns = SEGUE_ATTACH_NS,
			.seen = *segue_mapping_seen(lane->mapping, lane->track.committed - 1)}};
	struct segue_reply reply;
	int rc = upload_offer(lane, &request.lane_attach.upload);

	if (rc)
		return rc;
	memcpy(request.lane_attach.token, lane->token, sizeof(lane->token));
	rc = segue_lease_request(lane, &request, &reply);
	if (rc)
		return rc;
	uint64_t step = reply.message.attached.step;
	if (step == lane->track.committed)
		return segue_lease_adopt(lane, &reply);
	rc = segue_lease_decline(lane, &reply);
	return rc ? rc
		  : segue_fail(SEGUE_EPROTOCOL,
			    "lane %u was offered at step %" PRIu64
			    ", the server goes on at %" PRIu64,
			    lane->index, lane->track.committed, step);
}

/*
 * An offer is refused when the server knows better: somebody else has the lane; or the server has
 * itself taken what the lane had committed, since the connection was lost and the server was not;
 * or an earlier offer was accepted by a server that died before it could say so. In the last two
 * cases the lane is ours still, and where we left it: no grant came between but our own.
 *
 * SEGUE_ECHANGED is none of these: the log has lost sequences that the lane had read. What it had
 * committed behind them is of no use; the lane can be set to a checkpoint.
 */
static int resume(struct segue_lane *lane)
{
	struct segue_message request = {
		.lane_attach = {.mode = SEGUE_ATTACH_RESUME, .timeout_ns = SEGUE_ATTACH_NS}};
	struct segue_reply reply;
	int rc = segue_lease_request(lane, &request, &reply);

	if (rc)
		return rc;
	uint64_t between = reply.message.attached.generation - lane->generation - 1;
	if (reply.message.attached.step == lane->track.committed && between <= lane->unanswered)
		return segue_lease_adopt(lane, &reply);
	uint64_t step = reply.message.attached.step;
	rc = segue_lease_decline(lane, &reply);
	return rc ? rc
		  : segue_fail(SEGUE_EFENCED,
			    "lane %u of stream '%s' has had another holder since batch %" PRIu64
			    ": it "
			    "stands at step %" PRIu64
			    " now: make a new loader (in C: attach again), or go back to a "
			    "checkpoint",
			    lane->index, segue_lane_spec(lane)->name, lane->track.committed, step);
}

int segue_lane_ready(struct segue_lane *lane)
{
	int rc = segue_lane_check_lost(lane);

	if (rc || segue_lane_attached(lane))
		return rc;
	rc = segue_stream_ready(lane->stream);
	if (rc)
		return rc;
	rc = offer(lane);
	if (rc == SEGUE_EFENCED && !segue_lane_is_lost(lane))
		rc = resume(lane);
	if (rc == SEGUE_EBUSY)
		rc = segue_fail_within(SEGUE_EFENCED, "the lane has gone to another holder");
	if (rc == SEGUE_EFENCED)
		segue_lane_lose(lane);
	return rc;
}

/* ---- Losses ---- */

int segue_lane_look_around(struct segue_lane *lane, bool slept)
{
	if (!segue_lane_attached(lane))
		return SEGUE_EGONE;
	int rc = segue_connection_check(&lane->client->connection);
	if (!rc && slept)
		rc = segue_hooks_interrupted(&lane->client->hooks);
	return rc;
}

static int attempt_ready(void *arg)
{
	return segue_lane_ready(arg);
}

int segue_lane_recover(struct segue_lane *lane, struct segue_losses *losses, int64_t deadline_ns)
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
