/* Classes of lengths against a count of the boundaries that are no more than the length. */
#include "core/boundaries.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/error.h"

static uint32_t seed_of(void)
{
	const char *text = getenv("SEGUE_TEST_SEED");
	uint32_t seed = text ? (uint32_t)strtoul(text, NULL, 10) : (uint32_t)time(NULL);

	fprintf(stderr, "SEGUE_TEST_SEED=%u\n", seed);
	return seed;
}

Test(boundaries, classes_begin_at_them)
{
	const struct segue_boundaries two = SEGUE_BOUNDARIES(10, 20);

	cr_assert_eq(segue_boundaries_class(&two, 1), 0);
	cr_assert_eq(segue_boundaries_class(&two, 9), 0);
	cr_assert_eq(segue_boundaries_class(&two, 10), 1);
	cr_assert_eq(segue_boundaries_class(&two, 19), 1);
	cr_assert_eq(segue_boundaries_class(&two, 20), 2);
	cr_assert_eq(segue_boundaries_class(&two, UINT64_MAX), 2);
	cr_assert_eq(segue_boundaries_class(&(struct segue_boundaries){0}, 7), 0);
}

Test(boundaries, against_a_count)
{
	srand(seed_of());
	for (int trial = 0; trial < 2000; trial++) {
		struct segue_boundaries some = {.count = (uint32_t)rand() % 9};
		uint64_t at = 0;

		for (uint32_t i = 0; i < some.count; i++)
			some.length[i] = at += 1 + (uint64_t)rand() % 5;
		cr_assert_eq(segue_boundaries_check(&some), 0);
		for (uint64_t steps = 0; steps < at + 3; steps++) {
			uint32_t count = 0;

			for (uint32_t i = 0; i < some.count; i++)
				count += some.length[i] <= steps;
			cr_assert_eq(segue_boundaries_class(&some, steps), count);
		}
	}
}

Test(boundaries, what_is_none)
{
	struct segue_boundaries wrong = SEGUE_BOUNDARIES(0, 3);

	cr_assert_eq(segue_boundaries_check(&(struct segue_boundaries){0}), 0);
	cr_assert_eq(segue_boundaries_check(&wrong), SEGUE_EINVAL);
	wrong = SEGUE_BOUNDARIES(3, 3);
	cr_assert_eq(segue_boundaries_check(&wrong), SEGUE_EINVAL);
	cr_assert_str_eq(segue_error_detail(),
		"bucket_boundaries[1] is 3: they are lengths, from 1 on, and rise: give each once, "
		"in order");
	wrong = SEGUE_BOUNDARIES(UINT64_MAX, 5);
	cr_assert_eq(segue_boundaries_check(&wrong), SEGUE_EINVAL);
	wrong.count = SEGUE_BOUNDARIES_MAX + 1;
	cr_assert_eq(segue_boundaries_check(&wrong), SEGUE_EINVAL);
}

Test(boundaries, as_people_write_them)
{
	struct segue_boundaries many = {.count = 9};
	char text[SEGUE_BOUNDARIES_TEXT];

	cr_assert_str_eq(segue_boundaries_print(&(struct segue_boundaries){0}, text), "None");
	cr_assert_str_eq(segue_boundaries_print(&SEGUE_BOUNDARIES(7), text), "[7]");
	cr_assert_str_eq(
		segue_boundaries_print(&SEGUE_BOUNDARIES(1, 2, 3, 4, 5), text), "[1, 2, 3, 4, 5]");
	for (uint32_t i = 0; i < many.count; i++)
		many.length[i] = UINT64_MAX - many.count + 1 + i;
	cr_assert_str_eq(segue_boundaries_print(&many, text),
		"[18446744073709551607, 18446744073709551608, 18446744073709551609, "
		"18446744073709551610, ..., 18446744073709551615]");
}
