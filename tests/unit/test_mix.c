/* The arithmetic of a mix: the values of docs/mix.md, and what must hold of any weights and seed. */
#include "source/mix/arrange.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct segue_mix_shape shape_of(const uint32_t *weights, size_t count, uint64_t seed)
{
	struct segue_spec_part parts[SEGUE_PARTS_MAX] = {0};
	const struct segue_spec_mix mix = {.part = parts, .count = count};
	struct segue_mix_shape shape;

	for (size_t i = 0; i < count; i++)
		parts[i].weight = weights[i];
	segue_mix_shape_init(&shape, &mix, seed);
	return shape;
}

static void check_parts(const struct segue_mix_shape *shape, uint64_t first, const char *parts)
{
	for (uint64_t i = 0; parts[i]; i++)
		cr_assert_eq(segue_mix_part(shape, first + i), (uint32_t)(parts[i] - '0'),
			"number %ju", (uintmax_t)(first + i));
}

/* The table of docs/mix.md, made by tests/python/mixing.py. */
Test(mix, golden)
{
	const struct segue_mix_shape two = shape_of((uint32_t[]){2, 1}, 2, 7);
	const struct segue_mix_shape four = shape_of((uint32_t[]){20, 5, 1, 1}, 4, 0);
	const struct segue_mix_shape five = shape_of((uint32_t[]){1, 1, 1, 1, 1}, 5, UINT64_MAX);

	cr_expect(two.quota[0] == 683 && two.quota[1] == 341);
	cr_expect(four.quota[0] == 758 && four.quota[1] == 190 && four.quota[2] == 38 &&
		  four.quota[3] == 38);
	cr_expect(five.quota[0] == 205 && five.quota[3] == 205 && five.quota[4] == 204);
	check_parts(&two, 0, "001100001101000000000001");
	check_parts(&two, 2048, "010010000100001111110010");
	check_parts(&four, 0, "020000300000001000000001");
	check_parts(&four, 2048, "001010101000100000010101");
	check_parts(&five, 0, "421240004103021104330433");
	check_parts(&five, 2048, "000104131230013132121323");
}

/* Each part has its quota, its places follow each other, and lead back to their numbers. */
static void check_block(const struct segue_mix_shape *shape, uint64_t number)
{
	uint64_t next[SEGUE_PARTS_MAX];
	struct segue_mix_block block;

	for (uint32_t c = 0; c < shape->count; c++)
		next[c] = number * shape->quota[c];
	segue_mix_arrange(shape, number, &block);
	for (uint64_t i = 0; i < SEGUE_MIX_BLOCK; i++) {
		uint64_t g = number * SEGUE_MIX_BLOCK + i;
		uint32_t part = segue_mix_part(shape, g);

		cr_assert_eq(block.part[i], part);
		cr_assert_eq(segue_mix_place(shape, &block, g), next[part]);
		if (i % 97 == 0)
			cr_assert_eq(segue_mix_number(shape, part, next[part]), g);
		next[part]++;
	}
	for (uint32_t c = 0; c < shape->count; c++)
		cr_assert_eq(next[c], (number + 1) * shape->quota[c]);
}

Test(mix, places_follow_each_other)
{
	const char *text = getenv("SEGUE_TEST_SEED");
	unsigned seed = text ? (unsigned)strtoul(text, NULL, 10) : (unsigned)time(NULL);

	printf("SEGUE_TEST_SEED=%u\n", seed);
	for (unsigned run = 0; run < 60; run++) {
		uint32_t weights[SEGUE_PARTS_MAX];
		size_t count = 1 + (size_t)rand_r(&seed) % SEGUE_PARTS_MAX;
		uint32_t sum = 0;

		/* Now and then as large as they can be: no sum overflows. */
		for (size_t i = 0; i < count; i++)
			weights[i] = run % 4 == 0 ? UINT32_MAX - (uint32_t)i
						  : 1 + (uint32_t)rand_r(&seed) % 9;
		const struct segue_mix_shape shape =
			shape_of(weights, count, (uint64_t)rand_r(&seed));
		for (size_t i = 0; i < count; i++)
			sum += shape.quota[i];
		cr_assert_eq(sum, SEGUE_MIX_BLOCK);
		check_block(&shape, 0);
		check_block(&shape, (uint64_t)rand_r(&seed) % 100000);
	}
	check_block(&(struct segue_mix_shape){.seed = 1, .count = 2, .quota = {1023, 1}},
		(UINT64_C(1) << 52) - 1);
}

/* ---- A log among the parts ---- */

/* As counted one by one, from a block's end on, for each part as the log. */
static void check_counts(const struct segue_mix_shape *shape, uint64_t block, uint64_t end)
{
	uint64_t first = block * SEGUE_MIX_BLOCK, below[SEGUE_PARTS_MAX];

	for (uint32_t c = 0; c < shape->count; c++)
		below[c] = block * shape->quota[c];
	for (uint64_t g = first; g <= first + 2 * SEGUE_MIX_BLOCK; g++) {
		uint32_t part = segue_mix_part(shape, g);

		for (uint32_t c = 0; c < shape->count; c++) {
			const struct segue_mix_log log = {*shape, c, end};

			cr_assert_eq(segue_mix_below(shape, c, g), below[c], "%ju", (uintmax_t)g);
			cr_assert_eq(segue_mix_inserted(&log, g), below[c]);
			if (c == part)
				cr_assert_eq(segue_mix_there(&log, below[c]), g < end ? g : end);
		}
		below[part]++;
	}
}

enum { COUNTS = 3000 };

/* The one is there just when the other was inserted: for all pairs, with and without an end. */
static void check_pairs(const struct segue_mix_log *log, const uint64_t *below)
{
	uint64_t before = 0;

	for (uint64_t inserted = 0; inserted < 200; inserted++) {
		uint64_t there = segue_mix_there(log, inserted);

		cr_assert_geq(there, before);
		for (uint64_t count = 0; count <= COUNTS && count <= log->end; count++)
			if ((below[count] <= inserted) != (count <= there))
				cr_assert_fail("%ju of %ju", (uintmax_t)count, (uintmax_t)inserted);
		before = there;
	}
}

static void check_ends(const struct segue_mix_shape *shape, uint32_t part)
{
	const uint64_t ends[] = {UINT64_MAX, 0, 1, 1500};
	struct segue_mix_log log = {*shape, part, UINT64_MAX};
	uint64_t below[COUNTS + 1];

	for (uint64_t count = 0; count <= COUNTS; count++)
		below[count] = segue_mix_inserted(&log, count);
	for (unsigned i = 0; i < 4; i++) {
		log.end = ends[i];
		check_pairs(&log, below);
	}
}

Test(mix, numbers_beside_those_of_a_log)
{
	const uint32_t weights[][3] = {{2, 1, 0}, {1, 2, 0}, {1023, 1, 0}, {20, 5, 1}};

	for (unsigned i = 0; i < 4; i++) {
		const struct segue_mix_shape shape =
			shape_of(weights[i], weights[i][2] ? 3 : 2, UINT64_C(7) << i * 20);

		check_counts(&shape, 0, UINT64_MAX);
		check_counts(&shape, 12345, UINT64_MAX);
		check_counts(&shape, 0, 700);
		for (uint32_t part = 0; part < shape.count; part++)
			check_ends(&shape, part);
	}
}

/* The table of docs/mix.md, made by tests/python/mixing.py. */
Test(mix, where_a_log_ends_the_mix)
{
	const struct segue_mix_log two = {shape_of((uint32_t[]){2, 1}, 2, 7), 1, UINT64_MAX};
	const struct segue_mix_log four = {
		shape_of((uint32_t[]){20, 5, 1, 1}, 4, 0), 3, UINT64_MAX};
	const uint64_t inserted[] = {0, 1, 2, 100, 1000};
	const uint64_t of_two[] = {2, 3, 8, 276, 3002}, of_four[] = {6, 39, 74, 2812, 26995};

	for (unsigned i = 0; i < 5; i++) {
		cr_expect_eq(segue_mix_there(&two, inserted[i]), of_two[i]);
		cr_expect_eq(segue_mix_there(&four, inserted[i]), of_four[i]);
	}
}

Test(mix, a_log_alone_has_its_own_numbers)
{
	const struct segue_mix_log alone = SEGUE_MIX_LOG_ALONE;
	const struct segue_mix_log shared = {shape_of((uint32_t[]){3, 1}, 2, 1), 1, UINT64_MAX};

	for (unsigned bit = 0; bit < 64; bit++) {
		cr_expect_eq(segue_mix_there(&alone, UINT64_C(1) << bit), UINT64_C(1) << bit);
		cr_expect_eq(segue_mix_inserted(&alone, UINT64_C(1) << bit), UINT64_C(1) << bit);
	}
	/* What can be in no log goes on to the end. */
	cr_expect_eq(segue_mix_there(&shared, UINT64_MAX), UINT64_MAX);
	cr_expect_gt(segue_mix_inserted(&shared, UINT64_MAX), SEGUE_MIX_PLACES);
}
