/* What a lane offers to a server that has lost its last commit: states, and rows that ended. */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "core/barrier.h"
#include "core/error.h"

#define KEPT_FIRST 4096

/* As it travels; the key and the states of the row follow. */
struct kept_header {
	uint64_t step, number;
	uint32_t key_size, zero;
};
_Static_assert(sizeof(struct kept_header) == 24, "no padding in what is uploaded");

/* The row's states side by side in the order of the spec, out of the buffer of batch `step`. */
static void gather(const struct segue_mapping *mapping, uint64_t step, uint32_t row, uint8_t *to)
{
	const struct segue_spec *spec = mapping->shape->spec;
	const struct segue_geometry *geometry = &mapping->shape->geometry;
	const uint8_t *buffer =
		(const uint8_t *)mapping->carry.map + segue_carry_offset(geometry, step);

	for (size_t i = 0; i < spec->state_count; i++) {
		size_t size = spec->states[i].size;
		memcpy(to, buffer + geometry->state_offset[i] + row * size, size);
		to += size;
	}
}

/* ---- Kept rows ----------------------------------------------------------------------------- */

static size_t record_size(const struct segue_shape *shape, const struct kept_header *header)
{
	return sizeof(*header) + header->key_size + shape->row_size;
}

static struct kept_header header_at(const struct segue_kept_rows *kept, size_t at)
{
	struct kept_header header;

	memcpy(&header, kept->bytes + at, sizeof(header));
	return header;
}

/* Where the records of batches from `step` on begin. */
static size_t find_step(
	const struct segue_kept_rows *kept, const struct segue_shape *shape, uint64_t step)
{
	size_t at = kept->begin;

	while (at < kept->end) {
		struct kept_header header = header_at(kept, at);
		if (header.step >= step)
			break;
		at += record_size(shape, &header);
	}
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
	const struct segue_span *span = &batch->spans[row];
	const char *key = segue_batch_record_key(batch, row, NULL);
	if (!key)
		return SEGUE_EPROTOCOL;
	struct kept_header header = {
		.step = batch->step, .number = span->number, .key_size = span->key_size};
	int rc = make_room(kept, record_size(batch->mapping->shape, &header));

	if (rc)
		return rc;
	uint8_t *to = kept->bytes + kept->end;
	memcpy(to, &header, sizeof(header));
	memcpy(to + sizeof(header), key, header.key_size);
	gather(batch->mapping, batch->step, row, to + sizeof(header) + header.key_size);
	kept->end += record_size(batch->mapping->shape, &header);
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
