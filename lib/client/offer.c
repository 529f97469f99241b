/* What a lane offers to a server that has lost its last commit: states, and rows that ended. */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "core/barrier.h"
#include "core/error.h"
#include "core/kept.h"

#define KEPT_FIRST 4096

/* The row's states side by side in the order of the spec, out of the buffer of batch `step`. */
static void gather(const struct segue_mapping *mapping, uint64_t step, uint32_t row, uint8_t *to)
{
	const struct segue_geometry *geometry = &mapping->shape->geometry;

	segue_states_gather(mapping->shape->spec, geometry,
		(const uint8_t *)mapping->carry.map + segue_carry_offset(geometry, step), row, to);
}

/* ---- Kept rows ----------------------------------------------------------------------------- */

/* Where the rows of batches from `step` on begin. */
static size_t find_step(
	const struct segue_kept_rows *kept, const struct segue_shape *shape, uint64_t step)
{
	size_t at = kept->begin;
	struct segue_kept_row row;
	uint64_t size;

	while ((size = segue_kept_row_unpack(
			kept->bytes + at, kept->end - at, shape->row_size, &row)) &&
		row.step < step)
		at += size;
	return at;
}

/* Room for `more` bytes at the end: by moving what is there, or, while it still grows, by memory. */
static int make_room(struct segue_kept_rows *kept, size_t more)
{
	size_t have = kept->end - kept->begin, capacity = kept->capacity;

	if (more <= capacity - kept->end)
		return 0;
	if (capacity < KEPT_FIRST)
		capacity = KEPT_FIRST;
	/* Moving pays when at least half is free: then it is rare. */
	while (capacity / 2 < have + more)
		capacity *= 2;
	if (capacity > kept->capacity) {
		uint8_t *grown = realloc(kept->bytes, capacity);
		if (!grown)
			return segue_fail(SEGUE_ENOMEM,
				"no memory for the states of ended rows that are not on disk yet "
				"(%zu bytes)",
				capacity);
		kept->bytes = grown;
		kept->capacity = capacity;
	}
	memmove(kept->bytes, kept->bytes + kept->begin, have);
	kept->begin = 0;
	kept->end = have;
	return 0;
}

static int add_row(struct segue_kept_rows *kept, const struct segue_batch *batch, uint32_t row)
{
	struct segue_kept_row ended = {.step = batch->step, .number = batch->spans[row].number};
	size_t key_size;

	ended.key = segue_batch_record_key(batch, row, &key_size);
	if (!ended.key)
		return SEGUE_EPROTOCOL;
	ended.key_size = (uint32_t)key_size;
	uint64_t size = segue_kept_row_size(ended.key_size, batch->mapping->shape->row_size);
	int rc = make_room(kept, size);
	if (rc)
		return rc;
	gather(batch->mapping, batch->step, row,
		segue_kept_row_pack(&ended, kept->bytes + kept->end));
	kept->end += size;
	return 0;
}

int segue_kept_rows_add(
	struct segue_kept_rows *kept, const struct segue_batch *batch, uint64_t durable)
{
	kept->begin = find_step(kept, batch->mapping->shape, durable);
	for (uint32_t row = 0; row < batch->rows; row++) {
		uint32_t flags = batch->spans[row].flags;
		if (!(flags & SEGUE_SPAN_LAST) || flags & SEGUE_SPAN_EMPTY)
			continue;
		int rc = add_row(kept, batch, row);
		if (rc) {
			segue_kept_rows_undo(kept, batch);
			return rc;
		}
	}
	return 0;
}

void segue_kept_rows_undo(struct segue_kept_rows *kept, const struct segue_batch *batch)
{
	kept->end = find_step(kept, batch->mapping->shape, batch->step);
}

void segue_kept_rows_finish(struct segue_kept_rows *kept)
{
	free(kept->bytes);
	*kept = (struct segue_kept_rows){0};
}

/* ---- Offer --------------------------------------------------------------------------------- */

int segue_offer_upload(struct segue_lane *lane, uint64_t *id)
{
	const struct segue_mapping *mapping = lane->mapping;
	size_t row_size = mapping->shape->row_size;
	uint64_t committed = lane->track.committed;
	struct segue_kept_rows *kept = &lane->kept;
	struct segue_shm upload;

	*id = 0;
	kept->begin = find_step(kept, mapping->shape, segue_lane_durable(lane));
	size_t states = lane->rows * row_size, ended = kept->end - kept->begin;
	/* What the lease began with is on disk since its grant, if the stream has a disk at all. */
	bool known = committed == mapping->granted && mapping->shape->spec->persist;
	if (committed == 0 || known || states + ended == 0)
		return 0;
	int rc = segue_client_upload(lane->client, states + ended, &upload, id);
	if (rc)
		return rc;
	for (uint32_t row = 0; row < lane->rows; row++)
		gather(mapping, committed - 1, row, (uint8_t *)upload.map + row * row_size);
	if (ended)
		memcpy((uint8_t *)upload.map + states, kept->bytes + kept->begin, ended);
	segue_shm_destroy(&upload);
	return 0;
}
