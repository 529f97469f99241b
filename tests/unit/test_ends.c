/* Ends of the input: what a list may be, how it grows, and what is said of it. */
#include "core/ends.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"

static const struct segue_ends grown = {3, {1, 3, 0}};

Test(ends, what_a_list_may_be)
{
	struct segue_ends ends = SEGUE_ENDS(5);

	cr_assert_eq(segue_ends_check(&ends), 0);
	cr_assert_eq(segue_ends_check(&grown), 0);
	ends = SEGUE_ENDS(0);
	cr_assert_eq(segue_ends_check(&ends), 0);
	ends = SEGUE_ENDS(1, UINT64_MAX, 0);
	cr_assert_eq(segue_ends_check(&ends), 0);
	ends.count = 0;
	cr_assert_eq(segue_ends_check(&ends), SEGUE_EINVAL);
	ends.count = SEGUE_ENDS_MAX + 1;
	cr_assert_eq(segue_ends_check(&ends), SEGUE_EINVAL);
	ends = SEGUE_ENDS(2, 2);
	cr_assert_eq(segue_ends_check(&ends), SEGUE_EINVAL);
	ends = SEGUE_ENDS(2, 1);
	cr_assert_eq(segue_ends_check(&ends), SEGUE_EINVAL);
	ends = SEGUE_ENDS(0, 1);
	cr_assert_eq(segue_ends_check(&ends), SEGUE_EINVAL);
	ends = SEGUE_ENDS(0, 0);
	cr_assert_eq(segue_ends_check(&ends), SEGUE_EINVAL);
	ends = SEGUE_ENDS(1, 0, 3);
	cr_assert_eq(segue_ends_check(&ends), SEGUE_EINVAL);
}

Test(ends, where_an_epoch_lies)
{
	const struct segue_ends finite = SEGUE_ENDS(2, 4);
	static const struct {
		uint64_t epoch, after, after_finite;
		uint32_t until, until_finite;
	} cases[] = {{0, 1, 2, 1, 1}, {1, 3, 2, 2, 1}, {2, 3, 4, 2, 2}, {3, UINT64_MAX, 4, 3, 2},
		{4, UINT64_MAX, UINT64_MAX, 3, 2}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t epoch = cases[i].epoch;

		cr_expect_eq(segue_ends_after(&grown, epoch), cases[i].after, "%zu", i);
		cr_expect_eq(segue_ends_after(&finite, epoch), cases[i].after_finite, "%zu", i);
		cr_expect_eq(segue_ends_until(&grown, epoch), cases[i].until, "%zu", i);
		cr_expect_eq(segue_ends_until(&finite, epoch), cases[i].until_finite, "%zu", i);
	}
	cr_assert_eq(segue_ends_last(&grown), UINT64_MAX);
	cr_assert_eq(segue_ends_last(&finite), 4);
	cr_assert(segue_ends_have(&grown, 3) && segue_ends_have(&grown, 0));
	cr_assert_not(segue_ends_have(&grown, 2) || segue_ends_have(&finite, 0));
}

Test(ends, lists_that_agree)
{
	const struct segue_ends other = SEGUE_ENDS(1, 3, 5, 7);

	cr_assert(segue_ends_agree(&grown, &other, 2));
	cr_assert_not(segue_ends_agree(&grown, &other, 3));
	cr_assert_not(segue_ends_agree(&other, &grown, 4), "one has no fourth");
	cr_assert(segue_ends_agree(&other, &other, 4));
}

#define REFUSED(ends, epochs, ...)                                                                 \
	do {                                                                                       \
		const char *says[] = {__VA_ARGS__};                                                \
		const struct segue_ends before = *(ends);                                          \
		cr_assert_eq(segue_ends_grow(ends, epochs), SEGUE_ESPEC);                          \
		cr_assert_eq(memcmp(ends, &before, sizeof(before)), 0);                            \
		for (size_t k = 0; k < sizeof(says) / sizeof(says[0]); k++)                        \
			cr_assert(strstr(segue_error_detail(), says[k]), "%s",                     \
				segue_error_detail());                                             \
	} while (0)

Test(ends, a_list_grows_and_never_shrinks)
{
	struct segue_ends ends = SEGUE_ENDS(2);

	cr_assert_eq(segue_ends_grow(&ends, 2), 0);
	cr_assert_eq(ends.count, 1);
	REFUSED(&ends, 1, "epochs=1 is asked for", "has epochs=2:", "Give epochs=2 or more",
		"another name");
	cr_assert_eq(segue_ends_grow(&ends, 4), 1);
	cr_assert_eq(segue_ends_grow(&ends, 4), 0);
	REFUSED(&ends, 2, "(it grew: 2, 4)");
	REFUSED(&ends, 3, "epochs=4 or more");
	cr_assert_eq(segue_ends_grow(&ends, 0), 1);
	cr_assert_eq(segue_ends_grow(&ends, 0), 0);
	REFUSED(&ends, 9, "has epochs=None (it grew: 2, 4, None)",
		"Give epochs=None, or another name");
	cr_assert_eq(segue_ends_check(&ends), 0);
	cr_assert_eq(ends.count, 3);
}

Test(ends, a_list_has_room_for_so_many)
{
	struct segue_ends ends = SEGUE_ENDS(1);
	char text[SEGUE_ENDS_TEXT];

	for (uint64_t epochs = 2; epochs <= SEGUE_ENDS_MAX; epochs++)
		cr_assert_eq(segue_ends_grow(&ends, epochs), 1);
	cr_assert_eq(segue_ends_grow(&ends, SEGUE_ENDS_MAX), 0);
	REFUSED(&ends, SEGUE_ENDS_MAX + 1, "64 ends", "another name", "first_epoch=64");
	REFUSED(&ends, 0, "epochs=None is asked for", "64 ends");
	cr_assert_str_eq(segue_ends_print(&ends, text), "1, 2, 3, 4, 5, ..., 62, 63, 64");
	for (uint32_t i = 0; i < SEGUE_ENDS_MAX; i++)
		ends.epochs[i] = UINT64_MAX - SEGUE_ENDS_MAX + i;
	cr_assert_eq(strlen(segue_ends_print(&ends, text)), 8 * 20 + 7 * 2 + 5);
	cr_assert_str_eq(segue_ends_print(&grown, text), "1, 3, None");
	ends.count = 8;
	cr_assert_null(strstr(segue_ends_print(&ends, text), "..."));
}
