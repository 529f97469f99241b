/*
 * What a worker hands out of features that are ragged, or bytes: what the server wrote cannot lead
 * it out of what is mapped.
 */
#include "client/batch.h"
#include "testspec.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define ROWS   2
#define UNROLL 3
#define SIZE   4096 /* of the side segment */

static struct segue_testspec test;
static struct segue_shape shape;
static struct segue_mapping mapping;
static struct segue_mapped_side sides[2];
static struct segue_batch batch;
static int64_t *offsets;
static uint64_t *table;

/* A batch of two rows; x is dense, w ragged of int32, t bytes of context. */
static void setup(void)
{
	segue_testspec_init(&test);
	segue_testspec_sequence(&test, "x", SEGUE_FLOAT32, 1);
	segue_testspec_sequence(&test, "w", SEGUE_INT32, 1);
	segue_testspec_context(&test, "t", SEGUE_UINT8, 1);
	test.sequences[1].form = SEGUE_FORM_RAGGED;
	test.contexts[0].form = SEGUE_FORM_BYTES;
	test.spec.batch_size = ROWS;
	test.spec.num_unroll = UNROLL;
	test.spec.depth = 2;
	shape.spec = &test.spec;
	cr_assert_eq(segue_geometry_init(&test.spec, test.spec.batch_size, 16, &shape.geometry), 0);
	mapping.shape = &shape;
	mapping.geometry = shape.geometry;
	mapping.sides = sides;
	sides[1] = (struct segue_mapped_side){
		7, {.fd = -1, .size = SIZE, .map = aligned_alloc(64, SIZE)}};
	char *slot = aligned_alloc(64, shape.geometry.slot_size);
	memset(slot, 0, shape.geometry.slot_size);
	cr_assert_eq(segue_fork_guard_init(&mapping.guard), 0);
	batch = (struct segue_batch){.mapping = &mapping,
		.slot = (const void *)slot,
		.step = 5,
		.rows = ROWS,
		.steps = UNROLL};
	offsets = (void *)(slot + shape.geometry.sequence_offset[1]);
	table = (void *)(slot + shape.geometry.side_offset);
	table[0] = 7;
	table[2] = 64;
}

static void teardown(void)
{
	segue_fork_guard_finish(&mapping.guard);
	segue_geometry_finish(&shape.geometry);
	free(sides[1].shm.map);
	free((void *)(uintptr_t)batch.slot);
	segue_testspec_finish(&test);
}

TestSuite(ragged, .init = setup, .fini = teardown);

static void set(const int64_t *to)
{
	memcpy(offsets, to, ROWS * (UNROLL + 1) * sizeof(*offsets));
}

Test(ragged, a_view_of_the_segment)
{
	struct segue_ragged got;

	set((const int64_t[]){0, 1, 1, 4, 4, 9, 9, 10});
	cr_assert_eq(segue_batch_sequence_ragged(&batch, 1, &got, sizeof(got)), 0, "%s",
		segue_error_detail());
	cr_assert(got.offsets == offsets && got.count == 10 && got.values == sides[1].shm.map);
	int64_t *text = (void *)((char *)(uintptr_t)batch.slot + shape.geometry.context_offset[0]);
	memcpy(text, (const int64_t[]){0, 3, SIZE - 64}, 24);
	cr_assert_eq(segue_batch_context_ragged(&batch, 0, &got, sizeof(got)), 0, "%s",
		segue_error_detail());
	cr_assert(got.count == SIZE - 64 && got.values == (char *)sides[1].shm.map + 64);
	text[2]++;
	cr_assert_eq(segue_batch_context_ragged(&batch, 0, &got, sizeof(got)), SEGUE_EPROTOCOL);
	/* A program that knows less of the struct, and one that knows more. */
	struct {
		struct segue_ragged known;
		uint64_t later;
	} more = {.later = 7};
	got.count = 7;
	cr_assert_eq(
		segue_batch_sequence_ragged(&batch, 1, &got, offsetof(struct segue_ragged, count)),
		0);
	cr_assert(got.values == sides[1].shm.map && got.count == 7);
	cr_assert_eq(segue_batch_sequence_ragged(&batch, 1, &more.known, sizeof(more)), 0);
	cr_assert(more.known.count == 10 && more.later == 0);
	cr_assert_null(segue_batch_sequence(&batch, 1));
	cr_assert_null(segue_batch_context(&batch, 0));
	cr_assert_not_null(segue_batch_sequence(&batch, 0));
}

Test(ragged, offsets_that_cannot_be)
{
	static const int64_t cases[][ROWS * (UNROLL + 1)] = {
		{1, 1, 1, 4, 4, 9, 9, 10},
		{0, 1, 0, 4, 4, 9, 9, 10},
		{0, 1, 1, 4, 3, 9, 9, 10},
		{-1, 1, 1, 4, 4, 9, 9, 10},
		{0, 1, 1, 4, 4, 9, 9, -1},
		{0, 1, 1, 4, 4, 9, 9, SIZE / 4 + 1},
		{0, 1, 1, 4, 4, 9, INT64_MAX, INT64_MAX},
		{0, 1, 1, 4, 4, INT64_MAX, 9, 10},
	};
	struct segue_ragged got;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		set(cases[i]);
		cr_expect_eq(segue_batch_sequence_ragged(&batch, 1, &got, sizeof(got)),
			SEGUE_EPROTOCOL, "case %zu", i);
	}
	static const uint64_t begins[] = {32, SIZE, SIZE + 64, UINT64_MAX - 63, UINT64_MAX};
	set((const int64_t[]){0, 1, 1, 4, 4, 9, 9, 10});
	for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++) {
		table[1] = begins[i];
		cr_expect_eq(segue_batch_sequence_ragged(&batch, 1, &got, sizeof(got)),
			SEGUE_EPROTOCOL, "begin %zu", i);
	}
	table[1] = 0;
	table[0] = 0; /* it needs no segment, and has values */
	cr_expect_eq(segue_batch_sequence_ragged(&batch, 1, &got, sizeof(got)), SEGUE_EPROTOCOL);
	memset(offsets, 0, sizeof(cases[0]));
	cr_expect_eq(segue_batch_sequence_ragged(&batch, 1, &got, sizeof(got)), 0);
	cr_expect(got.count == 0 && !got.values);
}

Test(ragged, features_that_are_not)
{
	struct segue_ragged got;

	cr_expect_eq(segue_batch_sequence_ragged(&batch, 0, &got, sizeof(got)), SEGUE_EINVAL);
	cr_expect_eq(segue_batch_sequence_ragged(&batch, 2, &got, sizeof(got)), SEGUE_EINVAL);
	cr_expect_eq(segue_batch_sequence_ragged(&batch, 1, NULL, sizeof(got)), SEGUE_EINVAL);
	cr_expect_eq(segue_batch_sequence_ragged(NULL, 1, &got, sizeof(got)), SEGUE_EINVAL);
	cr_expect_eq(segue_batch_context_ragged(&batch, 1, &got, sizeof(got)), SEGUE_EINVAL);
	mapping.guard.forked = true;
	cr_expect_eq(segue_batch_sequence_ragged(&batch, 1, &got, sizeof(got)), SEGUE_EFORKED);
	mapping.guard.forked = false;
}
