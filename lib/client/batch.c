/* What is in a batch, and the states that come in. */
#include "client/batch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/sized.h"

/* ---- Handle ---- */

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
		"batch %" PRIu64 " of lane %u: the server wrote %s %" PRIu64
		", expected was %" PRIu64 " or less",
		step, mapping->lane, what, value, limit);
}

/*
 * Copies a span and checks the copy, when it is asked for: going from batch to batch must not read
 * the span table, which comes cold from the server's core.
 */
static int read_span(const struct segue_batch *batch, uint32_t row, struct segue_slot_span *span)
{
	const struct segue_mapping *mapping = batch->mapping;
	const struct segue_geometry *geometry = &mapping->geometry;

	memcpy(span, &batch->spans[row], sizeof(*span));
	if (span->row != row)
		return fail_slot(mapping, batch->step, "a span of row", span->row, row);
	if (span->offset > batch->steps || span->length > batch->steps - span->offset)
		return fail_slot(mapping, batch->step, "a length of", span->length, batch->steps);
	if (span->key_offset > geometry->heap_size ||
		span->key_size > geometry->heap_size - span->key_offset ||
		span->key_size > mapping->shape->key_max)
		return fail_slot(mapping, batch->step, "a key of size", span->key_size,
			mapping->shape->key_max);
	return 0;
}

int segue_places_create(struct segue_mapping *mapping)
{
	mapping->places = calloc(mapping->geometry.depth, sizeof(*mapping->places));
	return mapping->places ? 0
			       : segue_fail(SEGUE_ENOMEM, "no memory for the batches of a lease");
}

/* A handle for batch `step` in its place: the place's own, unless that is held. */
static int use_place(struct segue_mapping *mapping, uint64_t step, struct segue_batch **out)
{
	struct segue_place *place = &mapping->places[step % mapping->geometry.depth];

	if (place->users > 0 && place->first.step != step)
		return segue_fail(SEGUE_EPROTOCOL,
			"batch %" PRIu64 " of lane %u came while batch %" PRIu64
			", whose slot it takes, is held",
			step, mapping->lane, place->first.step);
	if (place->users == 0)
		memset(place->is_composed, 0, sizeof(place->is_composed));
	*out = place->first.taken ? malloc(sizeof(**out)) : &place->first;
	if (!*out)
		return segue_fail(SEGUE_ENOMEM, "no memory for a batch");
	**out = (struct segue_batch){.mapping = mapping, .place = place, .step = step};
	return 0;
}

bool segue_batch_end(struct segue_batch *batch)
{
	struct segue_place *place = batch->place;

	batch->taken = false;
	if (batch != &place->first)
		free(batch);
	return --place->users == 0;
}

int segue_batch_begin(struct segue_mapping *mapping, uint64_t step, struct segue_batch **out)
{
	const struct segue_geometry *geometry = &mapping->geometry;
	const struct segue_slot *slot = segue_ring_slot(mapping->ring.map, geometry, step);
	uint32_t before = segue_mapping_rows(mapping, step - 1);
	struct segue_batch *batch;
	const uint32_t *previous = (const void *)((const char *)slot + geometry->previous_offset);
	uint32_t rows = slot->rows, spans = slot->spans, steps = slot->steps;
	uint64_t valid = slot->valid;
	bool identity = true;

	if (slot->step != step)
		return fail_slot(mapping, step, "step", slot->step, step);
	if (spans > geometry->places)
		return fail_slot(mapping, step, "a number of spans,", spans, geometry->places);
	if (rows > spans)
		return fail_slot(mapping, step, "a number of rows,", rows, spans);
	if (steps == 0 || steps > geometry->num_unroll)
		return fail_slot(mapping, step, "a number of steps,", steps,
			steps ? geometry->num_unroll : 0);
	if (valid > (uint64_t)rows * steps)
		return fail_slot(mapping, step, "valid steps,", valid, (uint64_t)rows * steps);
	for (uint32_t row = 0; row < spans; row++) {
		if (previous[row] >= before && (row >= rows || previous[row] != SEGUE_NO_ROW))
			return fail_slot(mapping, step, "a previous row, plus one, of",
				(uint64_t)previous[row] + 1, before);
		identity = identity && (previous[row] == row || row >= rows);
	}
	int rc = use_place(mapping, step, &batch);
	if (rc)
		return rc;
	batch->slot = slot;
	batch->previous = previous;
	batch->spans = (const void *)((const char *)slot + geometry->span_offset);
	batch->rows = rows;
	batch->parked = spans - rows;
	batch->steps = steps;
	batch->valid = valid;
	batch->before = before;
	batch->identity = identity;
	batch->taken = true;
	batch->place->users++;
	segue_mapping_set_rows(mapping, step, spans);
	*segue_mapping_seen(mapping, step) = slot->seen;
	*out = batch;
	return 0;
}

void segue_batch_pass_over(struct segue_mapping *mapping, uint64_t step)
{
	uint32_t spans = segue_ring_slot(mapping->ring.map, &mapping->geometry, step)->spans;
	uint32_t places = mapping->geometry.places;

	segue_mapping_set_rows(mapping, step, spans < places ? spans : places);
}

/* Memory that a forked child does not have. */
static bool readable(const struct segue_batch *batch)
{
	return batch && !segue_fork_check(&batch->mapping->guard);
}

uint64_t segue_batch_step(const struct segue_batch *batch)
{
	return batch ? batch->step : 0;
}

uint32_t segue_batch_rows(const struct segue_batch *batch)
{
	return batch ? batch->rows : 0;
}

uint32_t segue_batch_steps(const struct segue_batch *batch)
{
	return batch ? batch->steps : 0;
}

/* ---- What is in it ---- */

int segue_batch_span(
	const struct segue_batch *batch, uint32_t i, struct segue_span *out, size_t size)
{
	struct segue_span span;
	struct segue_slot_span from;
	int rc;

	if (!batch || !out || i >= batch->rows)
		return segue_fail(SEGUE_EINVAL,
			"segue_batch_span wants a batch, the number of a span below %" PRIu32
			", and a place for it",
			batch ? batch->rows : 0);
	rc = segue_fork_check(&batch->mapping->guard);
	if (!rc)
		rc = read_span(batch, i, &from);
	if (rc)
		return rc;
	memset(&span, 0, sizeof(span)); /* its padding, too */
	span.number = from.number;
	span.epoch = from.epoch;
	span.first_step = from.first_step;
	span.array_steps = from.array_steps;
	span.total_length = from.total_length;
	span.row = from.row;
	span.offset = from.offset;
	span.length = from.length;
	span.segment = from.segment;
	span.segment_count = from.segment_count;
	span.previous_row = from.previous_row;
	span.flags = from.flags;
	span.part = from.part;
	segue_sized_give(&span, sizeof(span), out, size);
	return 0;
}

static const char *heap_of(const struct segue_batch *batch)
{
	return (const char *)batch->slot + batch->mapping->geometry.heap_offset;
}

const char *segue_batch_record_key(const struct segue_batch *batch, uint32_t row, size_t *size)
{
	struct segue_slot_span span;
	bool there = readable(batch) && row < batch->rows && !read_span(batch, row, &span);

	if (size)
		*size = there ? span.key_size : 0;
	return there ? heap_of(batch) + span.key_offset : NULL;
}

size_t segue_batch_key(
	const struct segue_batch *batch, uint32_t row, bool next, char *buffer, size_t size)
{
	struct segue_slot_span span;
	char prefix[32];

	if (size > 0)
		*buffer = '\0';
	if (!readable(batch) || row >= batch->rows || read_span(batch, row, &span) ||
		span.flags & SEGUE_SPAN_EMPTY)
		return 0;
	/* Two ints of up to 10 digits and 5 characters fit. */
	size_t length = (size_t)(next && span.flags & SEGUE_SPAN_LAST
					 ? snprintf(prefix, sizeof(prefix), "STOP:")
					 : snprintf(prefix, sizeof(prefix), "%05u_of_%05u:",
						   span.segment + next, span.segment_count));
	size_t whole = length + span.key_size;
	if (size > 0) {
		/* Not by snprintf: a key may hold any byte. */
		size_t room = size - 1, head = length < room ? length : room;
		size_t tail = span.key_size < room - head ? span.key_size : room - head;
		memcpy(buffer, prefix, head);
		memcpy(buffer + head, heap_of(batch) + span.key_offset, tail);
		buffer[head + tail] = '\0';
	}
	return whole;
}

const void *segue_batch_sequence(const struct segue_batch *batch, size_t i)
{
	if (!readable(batch) || i >= batch->mapping->geometry.sequence_count ||
		batch->mapping->shape->spec->sequences[i].form != SEGUE_FORM_DENSE)
		return NULL;
	return (const char *)batch->slot + batch->mapping->geometry.sequence_offset[i];
}

const void *segue_batch_context(const struct segue_batch *batch, size_t i)
{
	if (!readable(batch) || i >= batch->mapping->geometry.context_count ||
		batch->mapping->shape->spec->contexts[i].form != SEGUE_FORM_DENSE)
		return NULL;
	return (const char *)batch->slot + batch->mapping->geometry.context_offset[i];
}

/* Of the features that are not dense, sequences first: the number of feature `i`. */
static uint32_t variable_number(const struct segue_spec *spec, size_t i)
{
	uint32_t number = 0;

	for (size_t k = 0; k < i; k++)
		number += (k < spec->sequence_count ? spec->sequences[k]
						    : spec->contexts[k - spec->sequence_count])
				  .form != SEGUE_FORM_DENSE;
	return number;
}

/* Whether they begin at 0, never fall, and end where the values do that have room. */
static bool offsets_fit(const int64_t *offsets, uint64_t count, uint64_t room)
{
	int64_t before = 0;

	for (uint64_t k = 0; k < count; k++) {
		if (offsets[k] < before || (k == 0 && offsets[k] != 0))
			return false;
		before = offsets[k];
	}
	return (uint64_t)before <= room;
}

/*
 * Feature `i` of all: context features follow those of sequences. The side segment was mapped when
 * the batch was taken, and is exchanged by nobody while it is held.
 */
static int get_ragged(const struct segue_batch *batch, size_t i, const struct segue_field *field,
	uint64_t count, struct segue_ragged *out, size_t out_size)
{
	const struct segue_mapping *mapping = batch->mapping;
	const struct segue_geometry *geometry = &mapping->geometry;
	const struct segue_shm *side = &mapping->sides[batch->step % geometry->depth].shm;
	const char *slot = (const char *)batch->slot;
	const uint64_t *table = (const void *)(slot + geometry->side_offset);
	const int64_t *offsets = (const void *)(slot + geometry->sequence_offset[i]);
	uint64_t begin = table[1 + variable_number(mapping->shape->spec, i)];
	uint64_t size = table[0] && side->map ? side->size : 0;
	struct segue_ragged ragged;

	if (begin > size || begin % SEGUE_ALIGN ||
		!offsets_fit(offsets, count, (size - begin) / field->size))
		return segue_fail(SEGUE_EPROTOCOL,
			"batch %" PRIu64 " of lane %u: the server wrote offsets of '%s' that "
			"cannot be",
			batch->step, mapping->lane, field->name);
	ragged.offsets = offsets;
	ragged.count = count ? (uint64_t)offsets[count - 1] : 0; /* a batch may have no rows */
	ragged.values = ragged.count ? (const char *)side->map + begin : NULL;
	segue_sized_give(&ragged, sizeof(ragged), out, out_size);
	return 0;
}

static int check_ragged(const struct segue_batch *batch, const struct segue_field *field,
	const struct segue_ragged *out)
{
	if (!field || !out || field->form == SEGUE_FORM_DENSE)
		return segue_fail(SEGUE_EINVAL,
			"a batch, the number of a feature that is ragged or bytes, and a place for "
			"it are wanted");
	return segue_fork_check(&batch->mapping->guard);
}

int segue_batch_sequence_ragged(
	const struct segue_batch *batch, size_t i, struct segue_ragged *out, size_t size)
{
	const struct segue_spec *spec = batch ? batch->mapping->shape->spec : NULL;
	const struct segue_field *field =
		spec && i < spec->sequence_count ? &spec->sequences[i] : NULL;
	int rc = check_ragged(batch, field, out);

	if (rc)
		return rc;
	return get_ragged(batch, i, field, batch->rows * ((uint64_t)batch->steps + 1), out, size);
}

int segue_batch_context_ragged(
	const struct segue_batch *batch, size_t i, struct segue_ragged *out, size_t size)
{
	const struct segue_spec *spec = batch ? batch->mapping->shape->spec : NULL;
	const struct segue_field *field =
		spec && i < spec->context_count ? &spec->contexts[i] : NULL;
	int rc = check_ragged(batch, field, out);

	if (rc)
		return rc;
	return get_ragged(
		batch, spec->sequence_count + i, field, (uint64_t)batch->rows + 1, out, size);
}

/* ---- States in ---- */

/* Whether the state of a row that goes on is handed out as its initial value. */
static bool is_zeroed(const struct segue_batch *batch, size_t i, uint32_t row)
{
	return segue_state_zeroed(batch->mapping->shape->spec, i, &batch->spans[row]);
}

static bool has_zeroed(const struct segue_batch *batch, size_t i)
{
	bool zeroed = false;

	if (batch->mapping->shape->spec->states[i].policy.kind != SEGUE_POLICY_CARRY)
		for (uint32_t row = 0; row < batch->rows && !zeroed; row++)
			zeroed = is_zeroed(batch, i, row);
	return zeroed;
}

/*
 * Row by row, and nothing twice: rows that begin are not read, and one copy of all rows, with the
 * initial ones written over it, was measured to take longer. The server may have written other
 * previous rows since they were checked: each is read once, and what is none is a row that begins.
 */
static void compose(const struct segue_batch *batch, size_t i, uint8_t *to, const uint8_t *from)
{
	const struct segue_shape *shape = batch->mapping->shape;
	const uint8_t *init = shape->spec->init[i], *brought = NULL;
	size_t size = shape->spec->states[i].size;
	bool policy = shape->spec->states[i].policy.kind != SEGUE_POLICY_CARRY;
	bool all = shape->spec->states[i].from_data;

	if (segue_spec_brings_initial(shape->spec, i))
		brought = (const uint8_t *)batch->slot + batch->mapping->geometry.initial_offset[i];
	for (uint32_t row = 0; row < batch->rows; row++, to += size) {
		uint32_t previous = *(const volatile uint32_t *)&batch->previous[row];
		if (previous < batch->before /* SEGUE_NO_ROW is not */ &&
			!(policy && is_zeroed(batch, i, row)))
			memcpy(to, from + previous * size, size);
		else if (brought && (all || batch->spans[row].flags & SEGUE_SPAN_KEPT))
			memcpy(to, brought + row * size, size);
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
const void *segue_batch_state(struct segue_batch *batch, size_t i, uint32_t *rows)
{
	if (rows)
		*rows = 0;
	if (!readable(batch) || i >= batch->mapping->geometry.state_count)
		return NULL;
	if (rows)
		*rows = batch->rows;
	const struct segue_mapping *mapping = batch->mapping;
	const struct segue_geometry *geometry = &mapping->geometry;
	uint64_t offset = geometry->state_offset[i];
	/* At step 0, where every row is a first one, its bytes are of no account. */
	const uint8_t *before = (const uint8_t *)mapping->carry_view +
				segue_carry_offset(geometry, batch->step + geometry->depth) +
				offset;
	if (batch->identity && !has_zeroed(batch, i))
		return before;
	uint64_t place = batch->step % geometry->depth * geometry->buffer_size + offset;
	if (!has_bit(batch->place->is_composed, i)) {
		/* By the mapping that it was written through: its pages are at hand. */
		compose(batch, i, (uint8_t *)mapping->composed.map + place,
			(const uint8_t *)mapping->carry.map +
				segue_carry_offset(geometry, batch->step + geometry->depth) +
				offset);
		set_bit(batch->place->is_composed, i);
	}
	return (const uint8_t *)mapping->composed_view + place;
}

/*
 * The server may have written other previous rows since they were checked: each is read once, and
 * one that is none copies nothing.
 */
void segue_batch_copy_parked(const struct segue_batch *batch)
{
	const struct segue_mapping *mapping = batch->mapping;
	const struct segue_geometry *geometry = &mapping->geometry;
	const struct segue_spec *spec = mapping->shape->spec;
	uint8_t *carry = mapping->carry.map;
	uint8_t *to = carry + segue_carry_offset(geometry, batch->step);
	const uint8_t *from = carry + segue_carry_offset(geometry, batch->step + geometry->depth);

	for (uint32_t row = batch->rows; row < batch->rows + batch->parked; row++) {
		uint32_t previous = *(const volatile uint32_t *)&batch->previous[row];
		for (size_t i = 0; i < spec->state_count && previous < batch->before; i++) {
			size_t size = spec->states[i].size;
			memcpy(to + geometry->state_offset[i] + row * size,
				from + geometry->state_offset[i] + previous * size, size);
		}
	}
}

/* ---- What is saved of it ---- */

bool segue_batch_all_saved(const struct segue_batch *batch)
{
	return batch && !batch->follows && batch->saved == batch->mapping->shape->spec->state_count;
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
			length ? ", " : "", batch->mapping->shape->spec->states[i].name);
		length += (size_t)more;
	}
	if (length == 0)
		return segue_fail(SEGUE_EUNSAVED,
			"batch %" PRIu64
			" of lane %u is not committed, though all states are saved: "
			"commit it, or release it",
			batch->step, batch->mapping->lane);
	return segue_fail(SEGUE_EUNSAVED,
		"batch %" PRIu64
		" of lane %u is not committed, these states are not saved: %s%s; save "
		"them and commit, or release the batch (in Python: batch.states = ..., or "
		"batch.save_state(name, value) for each; going on in the loop commits)",
		batch->step, batch->mapping->lane, names, length >= sizeof(names) ? " ..." : "");
}
