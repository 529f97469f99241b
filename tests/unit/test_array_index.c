/*
 * The index of arrays: what is packed is read again, and what cannot be is refused, whether the
 * application asks for it or a client sends it.
 */
#include "core/array_index.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

#define GROUPS    2
#define COLUMNS   2
#define SEQUENCES 3

/* x float32 [3] a step, c int64 a sequence; two groups of 10 and 4 steps. */
static const struct segue_array_column columns[COLUMNS] = {
	{.rank = 1, .dims = {3}}, {.context = 1}};
static uint32_t files;
static const uint64_t steps[GROUPS] = {10, 4};

static struct segue_array arrays[GROUPS * COLUMNS];
static struct segue_array_sequence sequences[SEQUENCES];
static struct segue_arrays asked;

static void setup(void)
{
	static const uint64_t ends[SEQUENCES] = {1, 3, 6};

	memcpy(arrays,
		(struct segue_array[]){
			{.size = sizeof(struct segue_array), .offset = 128, .dtype = SEGUE_FLOAT32},
			{.size = sizeof(struct segue_array),
				.offset = 7,
				.file = 1,
				.dtype = SEGUE_INT64},
			{.size = sizeof(struct segue_array),
				.offset = 9,
				.stride = 100,
				.dtype = SEGUE_INT16,
				.big_endian = true},
			{.size = sizeof(struct segue_array),
				.offset = 23,
				.file = 1,
				.dtype = SEGUE_INT64},
		},
		sizeof(arrays));
	memcpy(sequences, (struct segue_array_sequence[]){{0, 0, 4}, {4, 0, 6}, {1, 1, 3}},
		sizeof(sequences));
	files = 2;
	asked = (struct segue_arrays){
		.size = sizeof(asked),
		.group_steps = steps,
		.group_count = GROUPS,
		.arrays = arrays,
		.sequences = sequences,
		.sequence_count = SEQUENCES,
		.keys = "abbccc",
		.key_ends = ends,
	};
}

TestSuite(array_index, .init = setup);

static struct segue_array_index *pack(void)
{
	struct segue_array_index *index = NULL;

	cr_assert_eq(segue_array_index_pack(&asked, files, columns, COLUMNS, &index), SEGUE_OK,
		"%s", segue_error_detail());
	return index;
}

static void refused(const char *text)
{
	struct segue_array_index *index;
	int rc = segue_array_index_pack(&asked, files, columns, COLUMNS, &index);

	cr_assert_eq(rc, SEGUE_EINVAL, "%d instead of '%s'", rc, text);
	cr_assert(strstr(segue_error_detail(), text), "'%s' is not in '%s'", text,
		segue_error_detail());
}

Test(array_index, what_is_packed_is_read)
{
	struct segue_array_index *index = pack(), *again;
	uint8_t *two = malloc(2 * index->size);

	memcpy(two, index->bytes, index->size);
	memcpy(two + index->size, index->bytes, index->size);
	for (size_t at = 0; at < 2 * index->size; at += index->size) {
		cr_assert_eq(segue_array_index_read(two + at, 2 * index->size - at, &again), 0);
		cr_assert(segue_array_index_equal(index, again));
		segue_array_index_drop(again);
	}
	free(two);
	cr_assert(index->columns == COLUMNS && index->groups == GROUPS && index->files == 2);
	cr_assert(index->sequences == SEQUENCES && index->key_max == 3);
	cr_assert_eq(segue_array_index_sequences(index, 0), 2);
	cr_assert_eq(segue_array_index_sequences(index, 1), 1);
	cr_assert_eq(segue_array_index_place(index, 0, 0)->stride, 12, "they lie side by side");
	cr_assert_eq(segue_array_index_end(index, 0, 0), 128 + 10 * 12);
	cr_assert_eq(segue_array_index_end(index, 0, 1), 7 + 2 * 8, "a value a sequence");
	cr_assert_eq(segue_array_index_end(index, 1, 0), 9 + 3 * 100 + 6);
	cr_assert_eq(memcmp(index->keys + index->key_end[0], "bb", 2), 0);
	segue_array_index_drop(segue_array_index_hold(index));
	cr_assert_eq(index->sequences, SEQUENCES, "one holder is left");
	segue_array_index_drop(index);
}

Test(array_index, what_cannot_be_is_refused)
{
	arrays[1].file = 2;
	refused("file 2 is none of the 2");
	setup();
	arrays[2].dtype = 77;
	refused("dtype is 77");
	setup();
	arrays[2].stride = UINT64_MAX / 2;
	refused("lead beyond any file");
	setup();
	arrays[0].offset = UINT64_MAX;
	refused("lead beyond any file");
	setup();
	sequences[1].steps = 7;
	refused("7 steps from step 4 on, and the arrays of its group have 10");
	setup();
	sequences[1].first = UINT64_MAX;
	refused("of its group have 10");
	setup();
	sequences[2].steps = 0;
	refused("sequence 2 has no steps");
	setup();
	sequences[0].group = 1;
	refused("must come group by group");
	setup();
	sequences[2].group = 9;
	refused("must come group by group");
	setup();
	asked.sequence_count = 0;
	refused("arrays of 0 sequences");
	setup();
	files = 0;
	refused("in 2 groups and 0 files");
	setup();
	asked.key_ends = (uint64_t[]){1, 1, 6};
	refused("the key of sequence 1");
	setup();
	asked.key_ends = (uint64_t[]){3, 2, 6};
	refused("the key of sequence 1");
	setup();
	asked.key_ends = (uint64_t[]){0, 0, 0};
	refused("keys are not empty");
	setup();
	asked.sequences = NULL;
	refused("arrays.sequences is NULL");
}

/* A client may send any bytes: each byte of an index in turn is another. */
Test(array_index, hostile_bytes_lead_nowhere)
{
	struct segue_array_index *index = pack(), *other;
	size_t taken = 0;

	for (size_t i = 0; i < index->size; i++)
		for (unsigned bit = 0; bit < 8; bit++) {
			index->bytes[i] ^= (uint8_t)(1u << bit);
			int rc = segue_array_index_read(index->bytes, index->size, &other);
			index->bytes[i] ^= (uint8_t)(1u << bit);
			if (rc)
				continue;
			taken++;
			for (uint64_t k = 0; k < other->sequences; k++)
				cr_assert(other->sequence[k].group < other->groups);
			for (uint32_t k = 0; k < other->groups * other->columns; k++)
				cr_assert(other->array[k].file < other->files);
			segue_array_index_drop(other);
		}
	cr_assert(taken > 0, "offsets and keys may be any");
	for (size_t size = 0; size < index->size; size++) {
		uint8_t *bytes = malloc(size + 1); /* a sanitizer sees what is read behind it */

		memcpy(bytes, index->bytes, size);
		cr_assert_eq(segue_array_index_read(bytes, size, &other), SEGUE_EINVAL);
		free(bytes);
	}
	index->bytes[8] = 2;
	cr_assert_eq(segue_array_index_read(index->bytes, index->size, &other), SEGUE_EFORMAT);
	segue_array_index_drop(index);
}
