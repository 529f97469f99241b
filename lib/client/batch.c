/* A batch: what is in it, the states that come in and go out, its commit and its release. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "core/error.h"

/* ---- Handle -------------------------------------------------------------------------------- */

static bool has_bit(const uint64_t *bits, size_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

static void set_bit(uint64_t *bits, size_t i)
{
	bits[i / 64] |= UINT64_C(1) << (i % 64);
}

static int fail_slot(const struct segue_mapping *mapping, uint64_t step, const char *what,
	uint64_t value, uint64_t limit)
{
	return segue_fail(SEGUE_EPROTOCOL,
		"batch %llu of lane %u: the server wrote %s %llu, expected was %llu or less",
		(unsigned long long)step, mapping->lane->index, what, (unsigned long long)value,
		(unsigned long long)limit);
}

/*
 * When a span is asked for: going from batch to batch must not read the span table, which comes
 * cold from the server's core.
 */
static int check_span(const struct segue_batch *batch, uint32_t row)
{
	const struct segue_mapping *mapping = batch->mapping;
	const struct segue_geometry *geometry = &mapping->shape->geometry;
	const struct segue_span *span = &batch->spans[row];
	uint32_t unroll = geometry->num_unroll;

	if (span->row != row)
		return fail_slot(mapping, batch->step, "a span of row", span->row, row);
	if (span->offset > unroll || span->length > unroll - span->offset)
		return fail_slot(mapping, batch->step, "a length of", span->length, unroll);
	if (span->key_offset > geometry->heap_size ||
		span->key_size > geometry->heap_size - span->key_offset)
		return fail_slot(
			mapping, batch->step, "a key of size", span->key_size, geometry->heap_size);
	return 0;
}

int segue_batch_begin(struct segue_mapping *mapping, uint64_t step, struct segue_batch **out)
{
	const struct segue_geometry *geometry = &mapping->shape->geometry;
	const struct segue_slot *slot = segue_ring_slot(mapping->ring.map, geometry, step);
	struct segue_batch *batch = &mapping->batches[step % geometry->depth];
	const uint32_t *previous = (const void *)((const char *)slot + geometry->previous_offset);
	uint32_t rows = slot->rows, before = mapping->lane->rows;
	bool identity = true;

	if (batch->taken)
		return segue_fail(SEGUE_EPROTOCOL,
			"batch %llu of lane %u came while batch %llu, whose slot it takes, is held",
			(unsigned long long)step, mapping->lane->index,
			(unsigned long long)batch->step);
	if (slot->step != step)
		return fail_slot(mapping, step, "step", slot->step, step);
	if (rows == 0 || rows > geometry->batch_size || slot->spans != rows)
		return fail_slot(mapping, step, "a number of rows or spans,", slot->spans,
			rows ? geometry->batch_size : 0);
	for (uint32_t row = 0; row < rows; row++) {
		if (previous[row] != SEGUE_NO_ROW && previous[row] >= before)
			return fail_slot(mapping, step, "a previous row, plus one, of",
				(uint64_t)previous[row] + 1, before);
		identity = identity && previous[row] == row;
	}
	*batch = (struct segue_batch){
		.mapping = mapping,
		.slot = slot,
		.previous = previous,
		.spans = (const void *)((const char *)slot + geometry->span_offset),
		.step = step,
		.rows = rows,
		.before = before,
		.identity = identity,
	};
	*out = batch;
	return 0;
}

/* Memory that a forked child does not have. */
static bool readable(const struct segue_batch *batch)
{
	return batch && segue_fork_check(&batch->mapping->guard) == 0;
}

uint64_t segue_batch_step(const struct segue_batch *batch)
{
	return batch ? batch->step : 0;
}

uint32_t segue_batch_rows(const struct segue_batch *batch)
{
	return batch ? batch->rows : 0;
}

/* ---- What is in it ------------------------------------------------------------------------- */

const struct segue_span *segue_batch_spans(const struct segue_batch *batch, uint32_t *count)
{
	bool there = readable(batch);

	for (uint32_t row = 0; there && row < batch->rows; row++)
		there = check_span(batch, row) == 0;
	if (count)
		*count = there ? batch->rows : 0;
	return there ? batch->spans : NULL;
}

static const char *heap_of(const struct segue_batch *batch)
{
	return (const char *)batch->slot + batch->mapping->shape->geometry.heap_offset;
}

const char *segue_batch_record_key(const struct segue_batch *batch, uint32_t row, size_t *size)
{
	bool there = readable(batch) && row < batch->rows && check_span(batch, row) == 0;

	if (size)
		*size = there ? batch->spans[row].key_size : 0;
	return there ? heap_of(batch) + batch->spans[row].key_offset : NULL;
}

size_t segue_batch_key(
	const struct segue_batch *batch, uint32_t row, bool next, char *buffer, size_t size)
{
	char prefix[32];

	if (size > 0)
		*buffer = '\0';
	if (!readable(batch) || row >= batch->rows || check_span(batch, row))
		return 0;
	const struct segue_span *span = &batch->spans[row];
	if (span->flags & SEGUE_SPAN_EMPTY)
		return 0;
	/* Two ints of up to 10 digits and 5 characters fit. */
	size_t length = (size_t)(next && span->flags & SEGUE_SPAN_LAST
					 ? snprintf(prefix, sizeof(prefix), "STOP:")
					 : snprintf(prefix, sizeof(prefix), "%05u_of_%05u:",
						   span->segment + next, span->segment_count));
	size_t whole = length + span->key_size;
	if (size > 0) {
		/* Not by snprintf: a key may hold any byte. */
		size_t room = size - 1, head = length < room ? length : room;
		size_t tail = span->key_size < room - head ? span->key_size : room - head;
		memcpy(buffer, prefix, head);
		memcpy(buffer + head, heap_of(batch) + span->key_offset, tail);
		buffer[head + tail] = '\0';
	}
	return whole;
}

const void *segue_batch_sequence(const struct segue_batch *batch, size_t i)
{
	if (!readable(batch) || i >= batch->mapping->shape->geometry.sequence_count)
		return NULL;
	return (const char *)batch->slot + batch->mapping->shape->geometry.sequence_offset[i];
}

const void *segue_batch_context(const struct segue_batch *batch, size_t i)
{
	if (!readable(batch) || i >= batch->mapping->shape->geometry.context_count)
		return NULL;
	return (const char *)batch->slot + batch->mapping->shape->geometry.context_offset[i];
}

/* ---- States in ----------------------------------------------------------------------------- */

/*
 * Row by row, and nothing twice: rows that begin are not read, and one copy of all rows, with the
 * initial ones written over it, was measured to take longer. The server may have written other
 * previous rows since they were checked: each is read once, and what is none is a row that begins.
 */
static void compose(const struct segue_batch *batch, size_t i, uint8_t *to, const uint8_t *from)
{
	const struct segue_shape *shape = batch->mapping->shape;
	const uint8_t *init = shape->init[i];
	size_t size = shape->spec->states[i].size;

	for (uint32_t row = 0; row < batch->rows; row++, to += size) {
		uint32_t previous = *(const volatile uint32_t *)&batch->previous[row];
		if (previous < batch->before) /* SEGUE_NO_ROW is not */
			memcpy(to, from + previous * size, size);
		else if (init)
			memcpy(to, init, size);
		else
			memset(to, 0, size);
	}
}

/*
 * Composed when it is first asked for: buffer step - 1 stays as it is while this batch is held,
 * since the batch that would write over it takes this one's slot.
 */
const void *segue_batch_state(struct segue_batch *batch, size_t i)
{
	if (!readable(batch) || i >= batch->mapping->shape->geometry.state_count)
		return NULL;
	const struct segue_mapping *mapping = batch->mapping;
	const struct segue_geometry *geometry = &mapping->shape->geometry;
	uint64_t offset = geometry->state_offset[i];
	/* At step 0, where every row is a first one, its bytes are of no account. */
	const uint8_t *before = (const uint8_t *)mapping->carry_view +
				segue_carry_offset(geometry, batch->step + geometry->depth) +
				offset;
	if (batch->identity)
		return before;
	uint64_t place = batch->step % geometry->depth * geometry->buffer_size + offset;
	if (!has_bit(batch->is_composed, i)) {
		/* By the mapping that it was written through: its pages are at hand. */
		compose(batch, i, (uint8_t *)mapping->composed.map + place,
			(const uint8_t *)mapping->carry.map +
				segue_carry_offset(geometry, batch->step + geometry->depth) +
				offset);
		set_bit(batch->is_composed, i);
	}
	return (const uint8_t *)mapping->composed_view + place;
}

/* ---- States out ---------------------------------------------------------------------------- */

static const char *state_name(const struct segue_batch *batch, size_t i)
{
	return batch->mapping->shape->spec->states[i].name;
}

static int fail_fenced(const struct segue_batch *batch)
{
	return segue_fail(SEGUE_EFENCED,
		"batch %llu: the lease of lane %u has ended; release the batch and take the next, "
		"which tells whether the lane can be gone on with",
		(unsigned long long)batch->step, batch->mapping->lane->index);
}

/* Whether the batch can still be saved to and committed. */
static int check_open(const struct segue_batch *batch)
{
	const struct segue_lane *lane = batch->mapping->lane;
	unsigned long long step = batch->step;

	if (batch->committed)
		return segue_fail(SEGUE_ECOMMITTED,
			"batch %llu of lane %u is already committed: save before the commit", step,
			lane->index);
	if (lane->closed)
		return segue_fail(SEGUE_EFENCED,
			"batch %llu: its lane %u was closed before it was committed", step,
			lane->index);
	if (batch->mapping != lane->mapping)
		return segue_fail(SEGUE_ESTALE,
			"batch %llu of lane %u was taken before the lane got another position: "
			"release it and take the next",
			step, lane->index);
	return lane->fenced ? fail_fenced(batch) : 0;
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
	const struct segue_geometry *geometry = &batch->mapping->shape->geometry;

	return (uint8_t *)batch->mapping->carry.map + segue_carry_offset(geometry, batch->step) +
	       geometry->state_offset[i];
}

static void mark(struct segue_batch *batch, size_t i)
{
	if (has_bit(batch->is_saved, i))
		return;
	set_bit(batch->is_saved, i);
	batch->saved++;
}

void *segue_batch_state_out(struct segue_batch *batch, size_t i)
{
	if (check_state(batch, i))
		return NULL;
	if (segue_track_poll(&batch->mapping->lane->track) == SEGUE_TRACK_FENCED) {
		fail_fenced(batch);
		return NULL;
	}
	return out_of(batch, i);
}

int segue_batch_mark_saved(struct segue_batch *batch, size_t i)
{
	int rc = check_state(batch, i);

	if (rc == 0)
		mark(batch, i);
	return rc;
}

int segue_batch_save_state(struct segue_batch *batch, size_t i, const void *data, size_t size)
{
	int rc = check_state(batch, i);

	if (rc)
		return rc;
	size_t expected = batch->rows * batch->mapping->shape->spec->states[i].size;
	if (size != expected || !data)
		return segue_fail(SEGUE_ESTATE,
			"state '%s' of batch %llu has %u rows of %zu bytes, %zu in all: %zu came",
			state_name(batch, i), (unsigned long long)batch->step, batch->rows,
			expected / batch->rows, expected, data ? size : 0);
	memcpy(out_of(batch, i), data, size);
	mark(batch, i);
	return 0;
}

bool segue_batch_all_saved(const struct segue_batch *batch)
{
	return batch && batch->saved == batch->mapping->shape->spec->state_count;
}

bool segue_batch_committed(const struct segue_batch *batch)
{
	return batch && batch->committed;
}

int segue_batch_fail_unsaved(const struct segue_batch *batch)
{
	char names[1024];
	size_t length = 0, count = batch->mapping->shape->spec->state_count;

	names[0] = '\0';
	for (size_t i = 0; i < count && length < sizeof(names) - 1; i++) {
		if (has_bit(batch->is_saved, i))
			continue;
		int more = snprintf(names + length, sizeof(names) - length, "%s'%s'",
			length ? ", " : "", state_name(batch, i));
		length += (size_t)more;
	}
	unsigned long long step = batch->step;
	if (length == 0)
		return segue_fail(SEGUE_EUNSAVED,
			"batch %llu of lane %u is not committed, though all states are saved: "
			"commit it, or release it",
			step, batch->mapping->lane->index);
	return segue_fail(SEGUE_EUNSAVED,
		"batch %llu of lane %u is not committed, these states are not saved: %s%s; save "
		"them and commit, or release the batch",
		step, batch->mapping->lane->index, names, length >= sizeof(names) ? " ..." : "");
}

/* ---- Commit and release -------------------------------------------------------------------- */

int segue_batch_commit(struct segue_batch *batch)
{
	if (!batch)
		return segue_fail(SEGUE_EINVAL, "a batch is wanted, not NULL");
	int rc = segue_fork_check(&batch->mapping->guard);
	if (rc == 0)
		rc = check_open(batch);
	if (rc)
		return rc;
	if (!segue_batch_all_saved(batch))
		return segue_batch_fail_unsaved(batch);
	struct segue_lane *lane = batch->mapping->lane;
	const struct segue_spec *spec = batch->mapping->shape->spec;
	bool kept = spec->keep_final && spec->persist;
	if (kept) {
		rc = segue_kept_rows_add(&lane->kept, batch, segue_lane_durable(lane));
		if (rc)
			return rc;
	}
	rc = segue_track_commit(&lane->track);
	if (rc) {
		if (kept)
			segue_kept_rows_undo(&lane->kept, batch);
		return fail_fenced(batch);
	}
	batch->committed = true;
	lane->rows = batch->rows;
	if (spec->durability == SEGUE_DURABLE_COMMIT && spec->persist)
		return segue_lane_wait_durable(lane, batch->step + 1);
	return 0;
}

void segue_batch_release(struct segue_batch *batch)
{
	if (!batch || !batch->taken)
		return;
	struct segue_mapping *mapping = batch->mapping;
	struct segue_lane *lane = mapping->lane;
	batch->taken = false;
	lane->held--;
	bool current = mapping == lane->mapping && !lane->closed && !mapping->guard.forked;
	if (current && segue_track_release(&lane->track, batch->step))
		segue_lane_ring(lane);
	segue_mapping_drop(mapping);
}
