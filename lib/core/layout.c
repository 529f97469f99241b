/*
 * Where everything lies in the shared segments, computed from the spec.
 */
#include "core/layout.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/barrier.h"
#include "core/error.h"

#define PAGE     4096
#define SIZE_TOP ((uint64_t)1 << 40)

/* lib/LAYOUT.md draws these numbers; another compiler or a careless edit must not move them. */
#define PLACE(type, member, offset)                                                                \
	_Static_assert(offsetof(struct type, member) == (offset), #type "." #member)
PLACE(segue_segment, magic, 0);
PLACE(segue_segment, version, 4);
PLACE(segue_segment, size, 8);
PLACE(segue_segment, hash, 16);
_Static_assert(sizeof(struct segue_segment) == 32, "segue_segment");
PLACE(segue_ring_header, published, 128);
PLACE(segue_ring_header, end, 136);
PLACE(segue_ring_header, undelivered, 144);
PLACE(segue_ring_header, error, 152);
PLACE(segue_ring_header, error_step, 160);
PLACE(segue_ring_header, error_text, 168);
PLACE(segue_ring_header, skipped, 1192);
PLACE(segue_ring_header, bell, 1280);
_Static_assert(sizeof(struct segue_ring_header) == 1408, "segue_ring_header");
PLACE(segue_slot, step, 0);
PLACE(segue_slot, rows, 8);
PLACE(segue_slot, spans, 12);
PLACE(segue_slot, seen, 16);
PLACE(segue_slot, steps, 40);
PLACE(segue_slot, valid, 48);
_Static_assert(sizeof(struct segue_slot) == 64, "segue_slot");
PLACE(segue_slot_span, number, 0);
PLACE(segue_slot_span, epoch, 8);
PLACE(segue_slot_span, first_step, 16);
PLACE(segue_slot_span, array_steps, 24);
PLACE(segue_slot_span, total_length, 32);
PLACE(segue_slot_span, row, 40);
PLACE(segue_slot_span, offset, 44);
PLACE(segue_slot_span, length, 48);
PLACE(segue_slot_span, segment, 52);
PLACE(segue_slot_span, segment_count, 56);
PLACE(segue_slot_span, previous_row, 60);
PLACE(segue_slot_span, flags, 64);
PLACE(segue_slot_span, key_size, 68);
PLACE(segue_slot_span, key_offset, 72);
PLACE(segue_slot_span, part, 76);
_Static_assert(sizeof(struct segue_slot_span) == 88, "segue_slot_span");
PLACE(segue_carry_header, committed, 128);
PLACE(segue_carry_header, taken, 136);
PLACE(segue_carry_header, waited, 144);
PLACE(segue_carry_header, released, 256);
PLACE(segue_carry_header, sleeping, 384);
PLACE(segue_carry_header, again, 512);
_Static_assert(sizeof(struct segue_carry_header) == 768, "segue_carry_header");
PLACE(segue_lease_page, generation, 128);
PLACE(segue_lease_page, wake_at, 256);
PLACE(segue_lease_page, durable, 384);
PLACE(segue_lease_page, error, 392);
PLACE(segue_lease_page, error_text, 396);
PLACE(segue_lease_page, bell, 1536);
PLACE(segue_lease_page, asks, 1540);
PLACE(segue_lease_page, followers, 1544);
PLACE(segue_lease_page, gone, 1548);
PLACE(segue_lease_page, gone_text, 1552);
PLACE(segue_lease_page, missing_text, 1808);
_Static_assert(sizeof(struct segue_lease_page) == 2176, "segue_lease_page");

static uint64_t align(uint64_t offset, uint64_t to)
{
	return (offset + to - 1) & ~(to - 1);
}

/* Puts `count` things of `size` bytes at the next aligned place; *end moves behind them. */
static int place(uint64_t *end, uint64_t alignment, uint64_t count, uint64_t size, uint64_t *offset)
{
	uint64_t begin = align(*end, alignment), bytes;

	if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_TOP - begin)
		return SEGUE_ELIMIT;
	*offset = begin;
	*end = begin + bytes;
	return 0;
}

static int place_fields(const char *kind, const struct segue_field *fields, size_t count,
	uint64_t rows, uint64_t *end, uint64_t *offsets)
{
	for (size_t i = 0; i < count; i++)
		if (place(end, SEGUE_ALIGN, rows, fields[i].size, &offsets[i]) < 0)
			return segue_fail(SEGUE_ELIMIT,
				"%s \"%s\": %" PRIu64 " times %" PRIu64
				" bytes make a batch larger than 2^40 bytes; make batch_size, "
				"num_unroll or the shape smaller",
				kind, fields[i].name, rows, fields[i].size);
	return 0;
}

/* Each is dense, or has offsets: one more than it has steps, or rows. */
static int place_features(const struct segue_spec *spec, struct segue_geometry *g, uint64_t *end)
{
	uint64_t rows = g->places, steps = rows * segue_spec_unroll(spec);
	int rc = 0;

	for (size_t i = 0; i < spec->sequence_count + spec->context_count && !rc; i++) {
		bool sequence = i < spec->sequence_count;
		struct segue_field field =
			sequence ? spec->sequences[i] : spec->contexts[i - spec->sequence_count];
		uint64_t count = sequence ? steps : rows;

		if (field.form != SEGUE_FORM_DENSE) {
			field.size = sizeof(int64_t);
			count += sequence ? rows : 1;
			g->variable++;
		}
		/* Those of context follow: layout.h. */
		rc = place_fields(sequence ? "sequences" : "context", &field, 1, count, end,
			&g->sequence_offset[i]);
	}
	return rc;
}

/* Initial values, of the states that have them in the slot. */
static int place_initial(
	const struct segue_spec *spec, uint64_t rows, uint64_t *end, uint64_t *offsets)
{
	int rc = 0;

	for (size_t i = 0; i < spec->state_count && !rc; i++)
		if (segue_spec_brings_initial(spec, i))
			rc = place_fields("states", &spec->states[i], 1, rows, end, &offsets[i]);
	return rc;
}

static int place_slot(const struct segue_spec *spec, uint32_t key_max, struct segue_geometry *g)
{
	uint64_t end = sizeof(struct segue_slot), rows = g->places;
	int rc;

	/* Cannot overflow: places and num_unroll have 32 bits. */
	(void)place(&end, SEGUE_ALIGN, rows, sizeof(uint32_t), &g->previous_offset);
	(void)place(&end, SEGUE_ALIGN, rows, sizeof(struct segue_slot_span), &g->span_offset);
	rc = place_features(spec, g, &end);
	if (!rc)
		rc = place_initial(spec, rows, &end, g->initial_offset);
	if (rc)
		return rc;
	if (g->variable)
		(void)place(&end, SEGUE_ALIGN, 1 + g->variable, sizeof(uint64_t), &g->side_offset);
	if (place(&end, SEGUE_ALIGN, rows, key_max, &g->heap_offset) < 0)
		return segue_fail(SEGUE_ELIMIT,
			"%" PRIu64 " keys of %" PRIu32
			" bytes make a batch larger than 2^40 bytes; make batch_size smaller",
			rows, key_max);
	g->heap_size = rows * key_max;
	g->slot_size = align(end, PAGE);
	return 0;
}

static int place_segments(const struct segue_spec *spec, struct segue_geometry *g)
{
	uint64_t end = 0;
	int rc;

	rc = place_fields(
		"states", spec->states, spec->state_count, g->places, &end, g->state_offset);
	if (rc)
		return rc;
	g->buffer_size = align(end, PAGE);
	g->ring_size = sizeof(struct segue_ring_header);
	g->carry_size = sizeof(struct segue_carry_header);
	if (place(&g->ring_size, PAGE, spec->depth, g->slot_size, &g->slots_offset) < 0)
		return segue_fail(SEGUE_ELIMIT,
			"a ring of depth %" PRIu32 " with batches of %" PRIu64
			" bytes is larger than 2^40 bytes; make depth or batch_size smaller",
			spec->depth, g->slot_size);
	if (place(&g->carry_size, PAGE, spec->depth + 1u, g->buffer_size, &g->buffers_offset) < 0)
		return segue_fail(SEGUE_ELIMIT,
			"the states of %" PRIu32 " + 1 batches of %" PRIu64
			" bytes are larger than 2^40 bytes; make depth or batch_size smaller",
			spec->depth, g->buffer_size);
	g->ring_size = align(g->ring_size, PAGE);
	g->carry_size = align(g->carry_size, PAGE);
	g->lease_size = align(sizeof(struct segue_lease_page), PAGE);
	return 0;
}

static void hash_fields(XXH3_state_t *state, const struct segue_field *fields, size_t count,
	const uint64_t *offsets)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t numbers[] = {fields[i].dtype, fields[i].size, offsets[i]};
		uint64_t form = fields[i].form;

		XXH3_64bits_update(state, numbers, sizeof(numbers));
		if (form != SEGUE_FORM_DENSE)
			XXH3_64bits_update(state, &form, sizeof(form));
	}
}

static uint64_t hash(const struct segue_spec *spec, const struct segue_geometry *g)
{
	uint64_t numbers[] = {
		SEGUE_LAYOUT_VERSION,
		SEGUE_LINE,
		SEGUE_ALIGN,
		SEGUE_ERROR_TEXT,
		sizeof(struct segue_ring_header),
		sizeof(struct segue_carry_header),
		sizeof(struct segue_lease_page),
		sizeof(struct segue_slot),
		sizeof(struct segue_slot_span),
		g->depth,
		g->places,
		g->num_unroll,
		g->sequence_count,
		g->context_count,
		g->state_count,
		g->previous_offset,
		g->span_offset,
		g->heap_offset,
		g->heap_size,
		g->slot_size,
		g->slots_offset,
		g->ring_size,
		g->buffer_size,
		g->buffers_offset,
		g->carry_size,
		g->lease_size,
	};
	XXH3_state_t state;

	XXH3_64bits_reset(&state);
	XXH3_64bits_update(&state, numbers, sizeof(numbers));
	hash_fields(&state, spec->sequences, spec->sequence_count, g->sequence_offset);
	hash_fields(&state, spec->contexts, spec->context_count, g->context_offset);
	hash_fields(&state, spec->states, spec->state_count, g->state_offset);
	for (size_t i = 0; i < spec->state_count; i++)
		if (segue_spec_brings_initial(spec, i))
			hash_fields(&state, &spec->states[i], 1, &g->initial_offset[i]);
	if (g->variable)
		XXH3_64bits_update(&state, &g->side_offset, sizeof(g->side_offset));
	return XXH3_64bits_digest(&state);
}

int segue_geometry_init(const struct segue_spec *spec, uint32_t places, uint32_t key_max,
	struct segue_geometry *geometry)
{
	size_t fields = spec->sequence_count + spec->context_count + 2 * spec->state_count;
	struct segue_geometry g = {
		.depth = spec->depth,
		.places = places,
		.num_unroll = segue_spec_unroll(spec),
		.sequence_count = spec->sequence_count,
		.context_count = spec->context_count,
		.state_count = spec->state_count,
	};
	int rc;

	/* One block, in this order; the first array owns it. */
	g.sequence_offset = calloc(fields, sizeof(uint64_t));
	if (!g.sequence_offset)
		return segue_fail(SEGUE_ENOMEM, "no memory for the offsets of %zu tensors", fields);
	g.context_offset = g.sequence_offset + g.sequence_count;
	g.state_offset = g.context_offset + g.context_count;
	g.initial_offset = g.state_offset + g.state_count;
	rc = place_slot(spec, key_max, &g);
	if (!rc)
		rc = place_segments(spec, &g);
	if (rc) {
		segue_geometry_finish(&g);
		return rc;
	}
	g.hash = hash(spec, &g);
	*geometry = g;
	return 0;
}

void segue_geometry_finish(struct segue_geometry *geometry)
{
	free(geometry->sequence_offset);
	*geometry = (struct segue_geometry){.depth = 0};
}

static const char *kind_name(enum segue_segment_kind kind)
{
	switch (kind) {
	case SEGUE_SEGMENT_RING:
		return "batch ring";
	case SEGUE_SEGMENT_CARRY:
		return "carry";
	case SEGUE_SEGMENT_LEASE:
		return "lease page";
	case SEGUE_SEGMENT_FOLLOWER:
		return "follower page";
	}
	return "segment";
}

int segue_segment_check(const struct segue_segment *segment, enum segue_segment_kind kind,
	uint64_t size, const struct segue_geometry *geometry)
{
	/* Another process can write here: read once. */
	const struct segue_segment seen = *(const volatile struct segue_segment *)segment;
	const char *name = kind_name(kind);

	if (seen.magic != (uint32_t)kind)
		return segue_fail(SEGUE_EPROTOCOL,
			"the segment is no %s: magic 0x%08" PRIx32 ", expected 0x%08" PRIx32, name,
			seen.magic, (uint32_t)kind);
	if (seen.version != SEGUE_LAYOUT_VERSION)
		return segue_fail(SEGUE_EVERSION,
			"the %s has layout version %" PRIu32 ", this side has %d: use the same "
			"version of segue for server and workers",
			name, seen.version, SEGUE_LAYOUT_VERSION);
	if (seen.size != size)
		return segue_fail(SEGUE_EPROTOCOL,
			"the %s says it has %" PRIu64 " bytes, expected %" PRIu64, name, seen.size,
			size);
	if (seen.hash != geometry->hash)
		return segue_fail(SEGUE_EPROTOCOL,
			"the %s has layout hash %016" PRIx64 ", this side computes %016" PRIx64
			" from the spec",
			name, seen.hash, geometry->hash);
	return 0;
}

void segue_segment_init(struct segue_segment *segment, enum segue_segment_kind kind, uint64_t size,
	const struct segue_geometry *geometry)
{
	*segment = (struct segue_segment){
		.magic = (uint32_t)kind,
		.version = SEGUE_LAYOUT_VERSION,
		.size = size,
		.hash = geometry->hash,
	};
}

uint64_t segue_row_size(const struct segue_spec *spec)
{
	uint64_t size = 0;

	for (size_t i = 0; i < spec->state_count; i++)
		size += spec->states[i].size;
	return size;
}

void segue_states_scatter(const struct segue_spec *spec, const struct segue_geometry *geometry,
	const uint8_t *states, uint32_t rows, uint8_t *buffer)
{
	for (uint32_t row = 0; row < rows; row++) {
		for (size_t i = 0; i < spec->state_count; i++) {
			size_t size = spec->states[i].size;
			memcpy(buffer + geometry->state_offset[i] + row * size, states, size);
			states += size;
		}
	}
}

void segue_states_gather(const struct segue_spec *spec, const struct segue_geometry *geometry,
	const uint8_t *buffer, uint32_t row, uint8_t *states)
{
	for (size_t i = 0; i < spec->state_count; i++) {
		size_t size = spec->states[i].size;
		memcpy(states, buffer + geometry->state_offset[i] + row * size, size);
		states += size;
	}
}

bool segue_state_zeroed(
	const struct segue_spec *spec, size_t state, const struct segue_slot_span *span)
{
	uint64_t number = SEGUE_MUTANT(policy_of_the_row) ? span->row : span->number;

	return segue_policy_zeroes(
		&spec->states[state].policy, spec->seed, state, number, span->segment);
}
