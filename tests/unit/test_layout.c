/*
 * Tests of the layout of the shared segments.
 */
#include "core/layout.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "sample_spec.h"

#define KEY_MAX 100

static struct segue_spec *make(const struct sample *sample)
{
	struct segue_spec *spec = NULL;

	cr_assert_eq(segue_draft_make(&sample->spec, &spec), 0, "%s", segue_error_detail());
	return spec;
}

static int geometry_of(const struct sample *sample, uint32_t key_max, struct segue_geometry *out)
{
	struct segue_spec *spec = make(sample);
	int rc = segue_geometry_init(spec, spec->batch_size, key_max, out);

	segue_spec_destroy(spec);
	return rc;
}

/* The sample by hand: batch 6, unroll 20, depth 4. */
Test(layout, sample_by_hand)
{
	struct segue_geometry g;
	struct sample sample;

	sample_init(&sample);
	cr_assert_eq(geometry_of(&sample, KEY_MAX, &g), 0);
	cr_assert_eq(g.depth, 4);
	cr_assert_eq(g.places, 6);
	cr_assert_eq(g.num_unroll, 20);
	cr_assert_eq(g.previous_offset, 64);
	cr_assert_eq(g.span_offset, 128);         /* 64 + 6 * 4 = 88 */
	cr_assert_eq(g.sequence_offset[0], 704);  /* 128 + 6 * 88 = 656 */
	cr_assert_eq(g.sequence_offset[1], 7936); /* 704 + 6 * 20 * 60 = 7904 */
	cr_assert_eq(g.context_offset[0], 8896);  /* 7936 + 6 * 20 * 8 = 8896 */
	cr_assert_eq(g.context_offset[1], 8960);  /* 8896 + 6 * 8 = 8944 */
	cr_assert_eq(g.heap_offset, 9024);        /* 8960 + 6 * 7 = 9002 */
	cr_assert_eq(g.heap_size, 600);
	cr_assert_eq(g.slot_size, 12288); /* 9624 */
	cr_assert_eq(g.slots_offset, 4096);
	cr_assert_eq(g.ring_size, 4096 + 4 * 12288);
	cr_assert_eq(g.state_offset[0], 0);
	cr_assert_eq(g.state_offset[1], 128); /* 6 * 16 = 96 */
	cr_assert_eq(g.buffer_size, 4096);
	cr_assert_eq(g.buffers_offset, 4096);
	cr_assert_eq(g.carry_size, 4096 + 5 * 4096);
	cr_assert_eq(g.lease_size, 4096);
	segue_geometry_finish(&g);
	segue_geometry_finish(&g); /* a zeroed struct is fine */
}

/* ---- Random specs against the rules that a layout must keep ---------------------------------- */

struct extent {
	uint64_t begin, size;
};

static uint32_t below(unsigned *seed, uint32_t limit)
{
	return (uint32_t)rand_r(seed) % limit;
}

static void random_shape(unsigned *seed, enum segue_dtype *dtype, uint32_t *rank, uint64_t *dims)
{
	*dtype = 1 + below(seed, 6);
	*rank = below(seed, 4);
	for (uint32_t d = 0; d < *rank; d++)
		dims[d] = 1 + below(seed, 9);
}

static void check_extents(const struct extent *extents, size_t count, uint64_t size, unsigned seed)
{
	for (size_t i = 0; i < count; i++) {
		cr_assert_eq(extents[i].begin % SEGUE_ALIGN, 0, "seed %u", seed);
		cr_assert_leq(extents[i].begin + extents[i].size, size, "seed %u", seed);
		for (size_t k = 0; k < i; k++)
			cr_assert(extents[k].begin + extents[k].size <= extents[i].begin,
				"seed %u: %zu and %zu overlap", seed, k, i);
	}
}

static void check_random(unsigned seed)
{
	static char names[24][8];
	struct segue_feature features[24];
	struct segue_state states[24];
	struct extent slot[56], buffer[24];
	struct segue_geometry g;
	struct segue_spec *spec;
	struct sample sample;
	unsigned draw = seed;
	uint64_t rows, unroll;
	size_t n = 0;

	sample_init(&sample);
	sample.spec.source = (struct segue_draft_source){
		.kind = SEGUE_SOURCE_FILES, .files = {.paths = sample.paths, .path_count = 2}};
	for (size_t i = 0; i < 24; i++) {
		snprintf(names[i], sizeof(names[i]), "f%zu", i);
		features[i] = (struct segue_feature){.name = names[i]};
		states[i] = (struct segue_state){.name = names[i]};
		states[i].init_from_data = below(&draw, 3) == 0;
		random_shape(&draw, &features[i].dtype, &features[i].rank, features[i].dims);
		random_shape(&draw, &states[i].dtype, &states[i].rank, states[i].dims);
	}
	sample.spec.sequences = features;
	sample.spec.sequence_count = 1 + below(&draw, 12);
	sample.spec.contexts = features + 12;
	sample.spec.context_count = below(&draw, 13);
	sample.spec.states = states;
	sample.spec.state_count = below(&draw, 25);
	rows = sample.spec.batch_size = 1 + below(&draw, 300);
	unroll = sample.spec.num_unroll = 1 + below(&draw, 70);
	if (below(&draw, 3) == 0) {
		sample.spec.initial = SEGUE_INITIAL_KEPT;
		sample.spec.lanes_by = SEGUE_LANES_BY_RECORD;
		sample.spec.keep_final = true;
	}
	sample.spec.depth = 2 + below(&draw, 9);
	spec = make(&sample);
	cr_assert_eq(segue_geometry_init(spec, spec->batch_size, below(&draw, 5000) % 4097, &g), 0);

	slot[n++] = (struct extent){0, sizeof(struct segue_slot)};
	slot[n++] = (struct extent){g.previous_offset, rows * sizeof(uint32_t)};
	slot[n++] = (struct extent){g.span_offset, rows * sizeof(struct segue_slot_span)};
	for (size_t i = 0; i < spec->sequence_count; i++)
		slot[n++] = (struct extent){
			g.sequence_offset[i], rows * unroll * spec->sequences[i].size};
	for (size_t i = 0; i < spec->context_count; i++)
		slot[n++] = (struct extent){g.context_offset[i], rows * spec->contexts[i].size};
	for (size_t i = 0; i < spec->state_count; i++)
		if (spec->states[i].from_data || sample.spec.initial == SEGUE_INITIAL_KEPT)
			slot[n++] =
				(struct extent){g.initial_offset[i], rows * spec->states[i].size};
		else
			cr_assert_eq(g.initial_offset[i], 0);
	slot[n++] = (struct extent){g.heap_offset, g.heap_size};
	check_extents(slot, n, g.slot_size, seed);
	for (size_t i = 0; i < spec->state_count; i++)
		buffer[i] = (struct extent){g.state_offset[i], rows * spec->states[i].size};
	check_extents(buffer, spec->state_count, g.buffer_size, seed);

	cr_assert_eq(g.slot_size % 4096, 0);
	cr_assert_eq(g.buffer_size % 4096, 0);
	cr_assert_eq(g.slots_offset % 4096, 0);
	cr_assert_eq(g.buffers_offset % 4096, 0);
	cr_assert_geq(g.slots_offset, sizeof(struct segue_ring_header));
	cr_assert_geq(g.buffers_offset, sizeof(struct segue_carry_header));
	cr_assert_eq(g.ring_size, g.slots_offset + spec->depth * g.slot_size);
	cr_assert_eq(g.carry_size, g.buffers_offset + (spec->depth + 1) * g.buffer_size);
	segue_geometry_finish(&g);
	segue_spec_destroy(spec);
}

Test(layout, random_specs_keep_the_rules)
{
	for (unsigned seed = 1; seed <= 500; seed++)
		check_random(seed);
}

Test(layout, slots_and_buffers_go_round)
{
	struct segue_geometry g;
	struct sample sample;
	char *ring;

	sample_init(&sample);
	cr_assert_eq(geometry_of(&sample, KEY_MAX, &g), 0);
	ring = aligned_alloc(SEGUE_LINE, g.ring_size);
	for (uint64_t t = 0; t < 20; t++) {
		cr_assert_eq((char *)segue_ring_slot(ring, &g, t) - ring,
			(ptrdiff_t)(4096 + t % 4 * 12288));
		cr_assert_eq(segue_carry_offset(&g, t), 4096 + t % 5 * 4096);
	}
	free(ring);
	segue_geometry_finish(&g);
}

/* ---- Limits -------------------------------------------------------------------------------- */

static void expect_limit(const struct sample *sample, uint32_t key_max, const char *says)
{
	struct segue_geometry g = {.hash = 77};

	cr_expect_eq(geometry_of(sample, key_max, &g), SEGUE_ELIMIT, "%s", says);
	cr_expect(strstr(segue_error_detail(), says), "\"%s\" does not say \"%s\"",
		segue_error_detail(), says);
	cr_expect_eq(g.hash, 77, "written without success");
}

Test(layout, sizes_that_overflow)
{
	struct sample sample;

	sample_init(&sample);
	sample.spec.batch_size = sample.spec.num_unroll = 1u << 20;
	expect_limit(&sample, KEY_MAX, "sequences \"x\"");
	sample_init(&sample);
	sample.spec.batch_size = 1u << 20;
	sample.contexts[1].dims[0] = 1u << 20;
	expect_limit(&sample, KEY_MAX, "context \"flag\"");
	sample_init(&sample);
	sample.spec.batch_size = 1u << 20;
	sample.states[1].dims[0] = (1u << 20);
	sample.states[1].init = NULL;
	expect_limit(&sample, KEY_MAX, "states \"c\"");
	sample_init(&sample);
	sample.spec.batch_size = 1u << 16;
	sample.spec.depth = 64;
	sample.spec.num_unroll = 1u << 12;
	expect_limit(&sample, KEY_MAX, "ring of depth 64");
	sample_init(&sample);
	sample.spec.batch_size = 1u << 20;
	sample.spec.num_unroll = 1;
	sample.states[0].dims[0] = (1u << 18) - 4;
	expect_limit(&sample, KEY_MAX, "the states of 4 + 1 batches");
	sample_init(&sample);
	sample.spec.batch_size = 1u << 20;
	expect_limit(&sample, UINT32_MAX, "keys of 4294967295 bytes");
}

/* ---- Hash ---------------------------------------------------------------------------------- */

static struct segue_feature four[4];

Test(layout, hash_follows_every_number)
{
	struct {
		uint64_t hash;
		const char *what;
	} seen[16];
	struct segue_geometry g;
	struct sample sample;
	size_t count = 0;

	memset(seen, 0, sizeof(seen));
	for (int change = 0; change < 12; change++) {
		uint32_t key_max = KEY_MAX;

		sample_init(&sample);
		switch (change) {
		case 1:
			key_max = 300;
			break;
		case 2:
			sample.spec.depth = 5;
			break;
		case 3:
			sample.spec.batch_size = 7;
			break;
		case 4:
			sample.spec.num_unroll = 21;
			break;
		case 5: /* the same sizes and offsets, another type */
			sample.sequences[0].dtype = SEGUE_INT32;
			break;
		case 6:
			sample.states[1].dims[0] = 4;
			sample.states[1].init = NULL;
			break;
		case 7:
			sample.spec.state_count = 1;
			break;
		case 8:
			sample.spec.context_count = 1;
			break;
		case 9: /* three sequence features and one context at the same places */
			memcpy(four, sample.sequences, sizeof(sample.sequences));
			memcpy(four + 2, sample.contexts, sizeof(sample.contexts));
			sample.spec.num_unroll = 1;
			break;
		case 10:
			sample.spec.sequences = four;
			sample.spec.sequence_count = 3;
			sample.spec.contexts = four + 3;
			sample.spec.context_count = 1;
			sample.spec.num_unroll = 1;
			break;
		case 11: /* not part of the layout */
			sample.spec.seed = 10;
			sample.spec.lanes = 7;
			sample.spec.name = "other";
			sample.spec.num_threads = 3;
			break;
		}
		cr_assert_eq(geometry_of(&sample, key_max, &g), 0, "%s", segue_error_detail());
		for (size_t i = 0; i < count; i++)
			cr_expect_eq(g.hash == seen[i].hash, change == 11 && i == 0,
				"changes %d and %zu", change, i);
		seen[count++].hash = g.hash;
		segue_geometry_finish(&g);
	}
}

/* ---- First bytes --------------------------------------------------------------------------- */

Test(layout, segments_are_recognized)
{
	struct segue_geometry g;
	struct sample sample;
	struct segue_segment good, bad;

	sample_init(&sample);
	cr_assert_eq(geometry_of(&sample, KEY_MAX, &g), 0);
	memset(&good, 0xff, sizeof(good));
	segue_segment_init(&good, SEGUE_SEGMENT_CARRY, g.carry_size, &g);
	cr_assert_eq(memcmp(&good, "SEGC", 4), 0, "the magic reads as text in a dump");
	cr_assert_eq(good.reserved, 0);
	cr_assert_eq(segue_segment_check(&good, SEGUE_SEGMENT_CARRY, g.carry_size, &g), 0);

	cr_assert_eq(
		segue_segment_check(&good, SEGUE_SEGMENT_RING, g.carry_size, &g), SEGUE_EPROTOCOL);
	cr_assert(strstr(segue_error_detail(), "no batch ring: magic 0x43474553"));
	bad = good;
	bad.version = SEGUE_LAYOUT_VERSION + 1;
	cr_assert_eq(
		segue_segment_check(&bad, SEGUE_SEGMENT_CARRY, g.carry_size, &g), SEGUE_EVERSION);
	cr_assert(strstr(segue_error_detail(), "carry has layout version 8, this side has 7"));
	cr_assert_eq(segue_segment_check(&good, SEGUE_SEGMENT_CARRY, g.carry_size + 1, &g),
		SEGUE_EPROTOCOL);
	cr_assert(strstr(segue_error_detail(), "24576 bytes, expected 24577"));
	bad = good;
	bad.hash ^= 1;
	cr_assert_eq(
		segue_segment_check(&bad, SEGUE_SEGMENT_CARRY, g.carry_size, &g), SEGUE_EPROTOCOL);
	cr_assert(strstr(segue_error_detail(), "layout hash"));
	segue_segment_init(&good, SEGUE_SEGMENT_LEASE, g.lease_size, &g);
	cr_assert_eq(segue_segment_check(&good, SEGUE_SEGMENT_LEASE, g.lease_size, &g), 0);
	cr_assert_eq(memcmp(&good, "SEGL", 4), 0);
	cr_assert_neq(segue_segment_check(&good, SEGUE_SEGMENT_CARRY, g.lease_size, &g), 0);
	cr_assert(strstr(segue_error_detail(), "no carry"));
	cr_assert_neq(segue_segment_check(&bad, SEGUE_SEGMENT_LEASE, g.lease_size, &g), 0);
	cr_assert(strstr(segue_error_detail(), "no lease page"));
	segue_geometry_finish(&g);
}

Test(layout, scatter_and_gather_are_each_others_reverse)
{
	enum { ROWS = 2, ROW_SIZE = 11 };
	static struct segue_field states[] = {
		{.name = "h", .dtype = SEGUE_UINT8, .elements = 3, .size = 3},
		{.name = "c", .dtype = SEGUE_INT32, .elements = 2, .size = 8},
	};
	const struct segue_spec spec = {.states = states,
		.state_count = 2,
		.num_unroll = 1,
		.batch_size = ROWS,
		.depth = 2};
	uint8_t rows[ROWS * ROW_SIZE], back[ROW_SIZE];
	struct segue_geometry g;

	cr_assert_eq(
		segue_geometry_init(&spec, spec.batch_size, 0, &g), 0, "%s", segue_error_detail());
	cr_assert_eq(segue_row_size(&spec), ROW_SIZE);
	for (size_t i = 0; i < sizeof(rows); i++)
		rows[i] = (uint8_t)(i + 1);
	uint8_t *buffer = calloc(1, g.buffer_size);
	segue_states_scatter(&spec, &g, rows, ROWS, buffer);
	cr_assert_eq(buffer[g.state_offset[0] + 3], 12, "row 1 of h follows row 0");
	cr_assert_eq(buffer[g.state_offset[1] + 8], 15, "row 1 of c");
	for (uint32_t row = 0; row < ROWS; row++) {
		segue_states_gather(&spec, &g, buffer, row, back);
		cr_assert_arr_eq(back, rows + row * ROW_SIZE, ROW_SIZE);
	}
	free(buffer);
	segue_geometry_finish(&g);
}
