/* Private copies of the states of ended rows until they are on disk. */
#include "client/kept.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/kept.h"

#define KEPT_FIRST 4096

/* Where the rows of batches from `step` on begin. */
static size_t find_step(
	const struct segue_kept_rows *kept, const struct segue_shape *shape, uint64_t step)
{
	size_t at = kept->begin;
	struct segue_kept_row row;
	uint64_t size;

	while (at < kept->end && /* else there may be no bytes to point to */
		(size = segue_kept_row_unpack(
			 kept->bytes + at, kept->end - at, shape->row_size, &row)) &&
		row.step < step)
		at += size;
	return at;
}

/* Room for `more` bytes at the end: by moving what is there, or by memory while it still grows. */
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
	segue_mapping_gather(batch->mapping, batch->step, row,
		segue_kept_row_pack(&ended, kept->bytes + kept->end));
	kept->end += size;
	return 0;
}

int segue_kept_rows_add(struct segue_kept_rows *kept, const struct segue_batch *batch)
{
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

void segue_kept_rows_forget(
	struct segue_kept_rows *kept, const struct segue_shape *shape, uint64_t durable)
{
	kept->begin = find_step(kept, shape, durable);
}

void segue_kept_rows_finish(struct segue_kept_rows *kept)
{
	free(kept->bytes);
	*kept = (struct segue_kept_rows){0};
}
