/* Taking a lane over from an older handle of this process. */
#include "client/takeover.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/bulk.h"
#include "client/lease.h"
#include "client/resume.h"
#include "core/error.h"

static struct segue_lane *lanes; /* that were granted */

/* ---- Under the lock ---- */

/* Whether the process has `other` in that stream of that store. Not one of its parent's. */
static bool is_same_stream(
	const struct segue_lane *other, const struct segue_client *client, const char *stream)
{
	const struct segue_connection *connection = &client->connection;

	return other->inode && other->inode == connection->inode &&
	       other->device == connection->device && !other->client->connection.guard.forked &&
	       strcmp(segue_lane_spec(other)->name, stream) == 0;
}

/* In the same place of the same store as `lane`. */
static bool is_same_place(const struct segue_lane *other, const struct segue_lane *lane)
{
	return other != lane && other->index == lane->index && other->group == lane->group &&
	       is_same_stream(other, lane->client, segue_lane_spec(lane)->name);
}

/* As far as this process knows. */
static bool has_lease(const struct segue_lane *lane)
{
	/* acquire: pairs with segue_carry_fence (lane/carry.c) */
	return !segue_lane_is_lost(lane) &&
	       segue_load_acquire(&segue_mapping_page(lane->mapping)->generation) ==
		       lane->generation;
}

static void lose(struct segue_lane *older)
{
	if (!segue_lane_is_lost(older))
		segue_store_release(&older->lost, SEGUE_LOSS_TAKEN); /* no pair: a mark */
}

static uint64_t committed_of(const struct segue_lane *lane)
{
	/* acquire: pairs with segue_track_commit (core/track.c), in whichever thread */
	return segue_load_acquire(&segue_mapping_carry(lane->mapping)->committed);
}

/* What an older handle has committed, and by which right it can be offered. */
struct legacy {
	uint64_t step;
	size_t size;
	uint8_t *bytes;
	uint8_t token[SEGUE_TOKEN_BYTES];
	struct segue_log_place seen;
};

static int fail_start(const struct segue_lane *lane, uint64_t committed)
{
	return segue_fail(SEGUE_ESTART,
		"stream '%s', lane %u: an older loader of this process has it, at step %" PRIu64
		". Say what is meant: start=\"continue\" goes on from there, start=\"fresh\" drops "
		"position and states, load_state_dict() goes back to a checkpoint",
		segue_lane_spec(lane)->name, lane->index, committed);
}

/* What it commits from here on does not count, unless it comes to this server first. */
static int copy_legacy(const struct segue_lane *older, struct legacy *legacy)
{
	legacy->step = committed_of(older);
	legacy->size = segue_offer_size(older, legacy->step);
	legacy->bytes = legacy->size ? malloc(legacy->size) : NULL;
	if (legacy->size && !legacy->bytes)
		return segue_fail(SEGUE_ENOMEM, "no memory for what an older loader has committed");
	memcpy(legacy->token, older->token, SEGUE_TOKEN_BYTES);
	legacy->seen = *segue_mapping_seen(older->mapping, legacy->step - 1);
	if (legacy->size)
		segue_offer_fill(older, legacy->step, legacy->bytes);
	return 0;
}

/* 1: `legacy` is to be offered; 0: nothing is; else why the lane may not be asked for. */
static int look(struct segue_lane *lane, bool take, bool anywhere, struct legacy *legacy)
{
	uint64_t instance = lane->client->connection.instance;
	int rc = 0;

	for (struct segue_lane *older = lanes; older && !rc; older = older->listed) {
		if (!is_same_place(older, lane))
			continue;
		if (has_lease(older) && !take)
			rc = segue_fail(SEGUE_EBUSY,
				"lane %u of stream '%s' is held by this process: close that handle "
				"first, or take it over (take)",
				lane->index, segue_lane_spec(lane)->name);
		else if (has_lease(older) && !anywhere && committed_of(older) > 0)
			rc = fail_start(lane, committed_of(older));
		else if (older->instance != instance) {
			rc = copy_legacy(older, legacy);
			rc = rc ? rc : 1;
		}
	}
	return rc;
}

/* It is with this server, which has it on disk. */
static void note_offered(struct segue_lane *lane, const struct legacy *legacy, bool accepted)
{
	for (struct segue_lane *older = lanes; older; older = older->listed) {
		if (!is_same_place(older, lane) ||
			memcmp(older->token, legacy->token, SEGUE_TOKEN_BYTES) != 0)
			continue;
		older->instance = lane->client->connection.instance;
		if (accepted) {
			older->handed_over = legacy->step;
			lose(older);
		}
	}
}

int segue_takeover_check_group(
	const struct segue_client *client, const char *stream, const char *group)
{
	int rc = 0;

	segue_fork_lock();
	for (const struct segue_lane *lane = lanes; lane && !rc; lane = lane->listed)
		if (is_same_stream(lane, client, stream) && strcmp(lane->group_name, group) == 0 &&
			has_lease(lane))
			rc = segue_fail(SEGUE_EBUSY,
				"group '%s' of stream '%s' cannot be dropped: lane %u of it is "
				"held by this process, %ld: close its loader first",
				group, stream, lane->index, (long)getpid());
	segue_fork_unlock();
	return rc;
}

size_t segue_takeover_kept(const struct segue_lane *lane, uint8_t *bits)
{
	const struct segue_client *client = lane->client;
	size_t size = 0;

	segue_fork_lock();
	for (const struct segue_lane *other = lanes; other; other = other->listed) {
		if (!is_same_stream(other, client, segue_lane_spec(lane)->name) ||
			strcmp(other->group_name, lane->group_name) != 0 ||
			segue_lane_is_lost(other) || other->instance == client->connection.instance)
			continue;
		for (; size <= other->index / 8; size++)
			bits[size] = 0;
		bits[other->index / 8] |= (uint8_t)(1u << other->index % 8);
	}
	segue_fork_unlock();
	return size;
}

/* ---- Offers ---- */

/* As the older handle would, had it come back; the lease that comes of it is given back. */
static int offer(struct segue_lane *lane, const struct legacy *legacy)
{
	struct segue_message request = {.lane_attach = {.mode = SEGUE_ATTACH_OFFER,
						.step = legacy->step,
						.timeout_ns = SEGUE_ATTACH_NS,
						.seen = legacy->seen}};
	struct segue_reply reply;
	int rc = legacy->size ? segue_client_upload_bytes(lane->client, legacy->bytes, legacy->size,
					&request.lane_attach.upload)
			      : 0;

	if (rc)
		return rc;
	memcpy(request.lane_attach.token, legacy->token, SEGUE_TOKEN_BYTES);
	rc = segue_lease_request(lane, &request, &reply);
	return rc ? rc : segue_lease_decline(lane, &reply);
}

/*
 * Whether an older handle's commits come to nothing: the server, or a later one, has them, or has
 * what came after them; or they are behind what a log has lost, and the lane is not to go on there.
 */
static bool is_over(int rc, enum segue_attach_mode mode)
{
	bool elsewhere = mode == SEGUE_ATTACH_FRESH || mode == SEGUE_ATTACH_RESTORE;

	return rc == SEGUE_EFENCED || (rc == SEGUE_ECHANGED && elsewhere);
}

int segue_takeover_prepare(struct segue_lane *lane, bool take, enum segue_attach_mode mode)
{
	for (;;) {
		struct legacy legacy = {0};
		segue_fork_lock();
		int rc = look(lane, take, mode != SEGUE_ATTACH_NONE, &legacy);
		segue_fork_unlock();
		bool offered = rc == 1;
		if (offered)
			rc = offer(lane, &legacy);
		if (offered && (!rc || is_over(rc, mode))) {
			segue_fork_lock();
			note_offered(lane, &legacy, !rc);
			segue_fork_unlock();
			rc = 0;
		}
		free(legacy.bytes);
		if (rc || !offered)
			return rc;
	}
}

/* ---- The list ---- */

/*
 * Whether the grant of `other` came after that of `lane`; the list does not say that. Servers of a
 * store follow one another, and generations need not rise from one to the next: the stream may have
 * been dropped and made anew, or a backup restored.
 */
static bool came_later(const struct segue_lane *other, const struct segue_lane *lane)
{
	if (other->granter != lane->granter)
		return other->connected > lane->connected;
	return has_lease(other) && other->generation > lane->generation;
}

void segue_takeover_finish(struct segue_lane *lane)
{
	segue_fork_lock();
	for (struct segue_lane *other = lanes; other; other = other->listed)
		if (is_same_place(other, lane))
			lose(came_later(other, lane) ? lane : other);
	lane->listed = lanes;
	lane->listed_link = &lanes;
	if (lanes)
		lanes->listed_link = &lane->listed;
	lanes = lane;
	segue_fork_unlock();
}

void segue_takeover_forget(struct segue_lane *lane)
{
	segue_fork_lock();
	if (lane->listed_link) {
		*lane->listed_link = lane->listed;
		if (lane->listed)
			lane->listed->listed_link = lane->listed_link;
	}
	lane->listed_link = NULL;
	segue_fork_unlock();
}
