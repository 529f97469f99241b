/* What a worker does to a batch: saves states, commits, releases. */
#include <inttypes.h>
#include <string.h>

#include "client/batch.h"
#include "client/durable.h"
#include "client/follow.h"
#include "core/error.h"

/* ---- States out ---- */

static int fail_fenced(const struct segue_batch *batch)
{
	return segue_fail(SEGUE_EFENCED,
		"batch %" PRIu64
		": the lease of lane %u has ended; release the batch and take the next, "
		"which tells whether the lane can be gone on with",
		batch->step, batch->mapping->lane);
}

/* Whether the batch can still be saved to and committed. */
static int check_open(const struct segue_batch *batch)
{
	const struct segue_lane *lane = batch->lane;
	uint64_t step = batch->step;

	if (lane->replica)
		return segue_follow_fail_reads(lane, "saves states and commits");
	if (batch->committed)
		return segue_fail(SEGUE_ECOMMITTED,
			"batch %" PRIu64 " of lane %u is already committed: save before the commit",
			step, lane->index);
	if (lane->closed)
		return segue_fail(SEGUE_EFENCED,
			"batch %" PRIu64 ": its lane %u was closed before it was committed", step,
			lane->index);
	if (batch->mapping != lane->mapping)
		return segue_fail(SEGUE_ESTALE,
			"batch %" PRIu64
			" of lane %u was taken before the lane got another position: "
			"release it and take the next",
			step, lane->index);
	if (batch->put_back)
		return segue_fail(SEGUE_ESTALE,
			"batch %" PRIu64
			" of lane %u was put back: it comes again with the lane's next",
			step, lane->index);
	return segue_lane_is_lost(lane) ? fail_fenced(batch) : 0;
}

static int check_state(const struct segue_batch *batch, size_t i)
{
	if (!batch)
		return segue_fail(SEGUE_EINVAL, "a batch is wanted, not NULL");
	int rc = segue_fork_check(&batch->mapping->guard);
	if (rc)
		return rc;
	size_t count = batch->mapping->shape->spec->state_count;
	if (i >= count)
		return segue_fail(
			SEGUE_EINVAL, "there is no state %zu: the stream has %zu", i, count);
	return check_open(batch);
}

static uint8_t *out_of(const struct segue_batch *batch, size_t i)
{
	const struct segue_geometry *geometry = &batch->mapping->geometry;

	return (uint8_t *)batch->mapping->carry.map + segue_carry_offset(geometry, batch->step) +
	       geometry->state_offset[i];
}

void *segue_batch_state_out(struct segue_batch *batch, size_t i)
{
	if (check_state(batch, i))
		return NULL;
	if (segue_track_poll(&batch->lane->track) == SEGUE_TRACK_FENCED) {
		fail_fenced(batch);
		return NULL;
	}
	return out_of(batch, i);
}

int segue_batch_mark_saved(struct segue_batch *batch, size_t i)
{
	int rc = check_state(batch, i);

	if (!rc)
		segue_batch_note_saved(batch, i);
	return rc;
}

int segue_batch_save_state(struct segue_batch *batch, size_t i, const void *data, size_t size)
{
	int rc = check_state(batch, i);

	if (rc)
		return rc;
	size_t row = batch->mapping->shape->spec->states[i].size, expected = batch->rows * row;
	if (size != expected || (!data && size > 0))
		return segue_fail(SEGUE_ESTATE,
			"state '%s' of batch %" PRIu64
			" has %u rows of %zu bytes, %zu in all: %zu came",
			batch->mapping->shape->spec->states[i].name, batch->step, batch->rows, row,
			expected, data ? size : 0);
	if (size > 0) /* a batch may have no rows */
		memcpy(out_of(batch, i), data, size);
	segue_batch_note_saved(batch, i);
	return 0;
}

/* ---- Commit and release ---- */

/* Under the lock: a newer handle offers the commit and the rows that belong to it together. */
static int commit_with_kept(struct segue_batch *batch)
{
	struct segue_lane *lane = batch->lane;
	uint64_t durable = segue_lane_durable(lane);

	segue_fork_lock();
	segue_kept_rows_forget(&lane->kept, batch->mapping->shape, durable);
	int rc = segue_kept_rows_add(&lane->kept, batch);
	if (!rc) {
		rc = segue_track_commit(&lane->track);
		if (rc)
			segue_kept_rows_undo(&lane->kept, batch);
	}
	segue_fork_unlock();
	return rc;
}

int segue_batch_commit(struct segue_batch *batch)
{
	if (!batch)
		return segue_fail(SEGUE_EINVAL, "a batch is wanted, not NULL");
	int rc = segue_fork_check(&batch->mapping->guard);
	if (!rc)
		rc = check_open(batch);
	if (rc)
		return rc;
	if (!segue_batch_all_saved(batch))
		return segue_batch_fail_unsaved(batch);
	if (batch->parked)
		segue_batch_copy_parked(batch);
	struct segue_lane *lane = batch->lane;
	const struct segue_spec *spec = batch->mapping->shape->spec;
	bool kept = spec->keep_final && spec->persist;
	rc = kept ? commit_with_kept(batch) : segue_track_commit(&lane->track);
	if (rc)
		return rc == SEGUE_EFENCED ? fail_fenced(batch) : rc;
	batch->committed = true;
	if (spec->durability == SEGUE_DURABLE_COMMIT && spec->persist)
		return segue_lane_wait_durable(lane, batch->step + 1);
	return 0;
}

/* Whether the lane stands where the batch came from, and can be told of it. */
static bool is_current(const struct segue_batch *batch)
{
	const struct segue_lane *lane = batch->lane;

	return batch->mapping == lane->mapping && !lane->closed && !batch->mapping->guard.forked;
}

/* Whether a follower is done with it, as others are with what they have committed. */
static bool is_passed(const struct segue_batch *batch)
{
	return batch->lane->replica && batch->step < batch->lane->track.committed;
}

void segue_batch_put_back(struct segue_batch *batch)
{
	if (!batch || !batch->taken || batch->committed || batch->put_back || is_passed(batch))
		return;
	batch->put_back = true;
	if (!is_current(batch))
		return;
	segue_track_put_back(&batch->lane->track);
	batch->lane->left = batch->lane->replica > 0;
}

void segue_batch_untake(struct segue_batch *batch)
{
	segue_batch_put_back(batch);
	batch->lane->left = false;
}

void segue_batch_release(struct segue_batch *batch)
{
	if (!batch || !batch->taken)
		return;
	struct segue_mapping *mapping = batch->mapping;
	struct segue_lane *lane = batch->lane;
	uint64_t step = batch->step;
	bool current = is_current(batch);
	if (current && lane->replica && !batch->put_back && !is_passed(batch))
		segue_follow_pass(lane);
	segue_batch_put_back(batch);
	if (segue_batch_end(batch) && current && segue_track_release(&lane->track, step))
		segue_lane_ring(lane);
	segue_mapping_drop(mapping);
	segue_lane_drop(lane);
}
