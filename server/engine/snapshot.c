/* A copy of a lane at one committed step. */
#include "engine/snapshot.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

/* Position and keys of `step`. With the lock. */
static int begin(struct segue_filler *filler, struct segue_carry *carry, uint64_t step,
	struct segue_image **out)
{
	const struct segue_feed_entry *entry = segue_feed_entry(&filler->feed, step);
	uint32_t rows = entry ? segue_position_count(entry->position) : 0;
	struct segue_image *image = NULL;

	if (entry)
		image = segue_image_create(
			&filler->plan_spec, entry->position, segue_row_size(carry->spec));
	if (!image)
		return entry ? segue_fail(SEGUE_ENOMEM, "no memory for the states of a lane")
			     : segue_fail(SEGUE_ELIMIT,
				       "lane %u: the states of step %" PRIu64
				       " are no longer known (take checkpoints of all lanes inside "
				       "rounds())",
				       filler->plan_spec.lane, step);
	for (uint32_t row = 0; row < rows; row++) {
		int rc = segue_image_set_key(
			image, row, entry->heap + entry->key[row].offset, entry->key[row].size);
		if (rc) {
			segue_image_destroy(image);
			return rc;
		}
	}
	*out = image;
	return 0;
}

/* Which step it will be, and whether its buffer is whole. With the lock, publication held. */
static int choose(const struct segue_filler *filler, const struct segue_carry *carry,
	uint64_t committed, uint64_t *step)
{
	if (carry->broken)
		return segue_fail(SEGUE_EPROTOCOL,
			"lane %u: what its worker says of its position makes no sense: the lane is "
			"taken from it",
			filler->plan_spec.lane);
	bool over = filler->feed.ended && committed == filler->feed.published;
	if (*step == SEGUE_NEVER || (over && *step > committed))
		*step = committed;
	if (committed < *step)
		return segue_fail(SEGUE_ETIMEOUT,
			"lane %u: a checkpoint of step %" PRIu64
			" is asked for, and its worker has committed step %" PRIu64 " only",
			filler->plan_spec.lane, *step, committed);
	/* Batch step + depth writes the buffer anew; while held it is not published. */
	if (*step < carry->granted || filler->feed.published > *step + filler->geometry.depth)
		return segue_fail(SEGUE_ELIMIT,
			"lane %u: a checkpoint of step %" PRIu64
			" is asked for, and its worker has committed step %" PRIu64
			", too far to take it back (take checkpoints of all lanes inside rounds())",
			filler->plan_spec.lane, *step, committed);
	return 0;
}

static int copy_states(
	struct segue_filler *filler, struct segue_carry *carry, struct segue_image *image)
{
	uint32_t rows = segue_position_count(image->position);

	if (rows == 0 || image->row_size == 0)
		return 0;
	uint8_t *buffer = malloc(filler->geometry.buffer_size);
	if (!buffer)
		return segue_fail(SEGUE_ENOMEM, "no memory for a copy of %" PRIu64 " bytes",
			filler->geometry.buffer_size);
	int rc = segue_carry_copy(carry, image->position->step - 1, buffer);
	for (uint32_t row = 0; row < rows && !rc; row++)
		segue_states_gather(carry->spec, &filler->geometry, buffer, row,
			image->states + row * image->row_size);
	free(buffer);
	return rc;
}

int segue_snapshot(struct segue_filler *filler, struct segue_carry *carry, uint64_t step,
	uint64_t *committed, struct segue_image **out)
{
	struct segue_image *image = NULL;

	pthread_mutex_lock(&filler->lock);
	*committed = segue_carry_hold(carry, filler->feed.published);
	int rc = choose(filler, carry, *committed, &step);
	if (!rc)
		rc = segue_feed_take_of(&filler->feed, carry, *committed);
	if (!rc)
		rc = begin(filler, carry, step, &image);
	pthread_mutex_unlock(&filler->lock);
	if (!rc)
		rc = copy_states(filler, carry, image);
	pthread_mutex_lock(&filler->lock);
	segue_carry_let_go(carry);
	pthread_mutex_unlock(&filler->lock);
	segue_filler_kick(filler);
	if (rc) {
		segue_image_destroy(image);
		return rc;
	}
	*out = image;
	return 0;
}
