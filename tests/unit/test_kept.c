/* Kept rows as an offer carries them: one format for who writes and who reads. */
#include "core/kept.h"

#include <criterion/criterion.h>
#include <segue/segue.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_SIZE = 3 };

/* The bytes of one row, of its own memory: what is read beyond them is seen by a sanitizer. */
static uint8_t *pack(const struct segue_kept_row *row, size_t *size)
{
	*size = segue_kept_row_size(row->key_size, ROW_SIZE);
	uint8_t *bytes = malloc(*size);

	cr_assert_not_null(bytes);
	uint8_t *states = segue_kept_row_pack(row, bytes);
	cr_assert_eq(states, bytes + *size - ROW_SIZE);
	memcpy(states, row->states, ROW_SIZE);
	return bytes;
}

/* proto/README.md: u64 step, u64 sequence number, u32 key size, u32 0, key, states. */
Test(kept, by_hand)
{
	static const uint8_t expected[] =
		"\x07\0\0\0\0\0\0\0\x09\x01\0\0\0\0\0\0\x02\0\0\0\0\0\0\0kyabc";
	const struct segue_kept_row row = {7, 265, 2, "ky", (const uint8_t *)"abc"};
	size_t size;
	uint8_t *bytes = pack(&row, &size);

	cr_assert_eq(size, sizeof(expected) - 1);
	cr_assert_arr_eq(bytes, expected, size);
	free(bytes);
}

Test(kept, rows_follow_one_another)
{
	const struct segue_kept_row rows[] = {
		{1, 10, 5, "first", (const uint8_t *)"abc"},
		{UINT64_MAX - 1, UINT64_MAX, 0, "", (const uint8_t *)"def"},
		{3, 12, 1, "x", (const uint8_t *)"ghi"},
	};
	uint8_t bytes[256], *end = bytes;
	const uint8_t *at = bytes;

	for (size_t i = 0; i < 3; i++) {
		end = segue_kept_row_pack(&rows[i], end);
		memcpy(end, rows[i].states, ROW_SIZE);
		end += ROW_SIZE;
	}
	for (size_t i = 0; i < 3; i++) {
		struct segue_kept_row row;
		uint64_t size = segue_kept_row_unpack(at, (size_t)(end - at), ROW_SIZE, &row);
		cr_assert_eq(size, segue_kept_row_size(rows[i].key_size, ROW_SIZE));
		cr_assert_eq(row.step, rows[i].step);
		cr_assert_eq(row.number, rows[i].number);
		cr_assert_eq(row.key_size, rows[i].key_size);
		cr_assert_eq(memcmp(row.key, rows[i].key, row.key_size), 0);
		cr_assert_arr_eq(row.states, rows[i].states, ROW_SIZE);
		at += size;
	}
	cr_assert_eq(at, end);
}

Test(kept, what_is_cut_short_is_refused)
{
	const struct segue_kept_row row = {7, 9, 2, "ky", (const uint8_t *)"abc"};
	struct segue_kept_row out;
	size_t size;
	uint8_t *bytes = pack(&row, &size);

	for (size_t left = 0; left < size; left++) {
		uint8_t *part = malloc(left ? left : 1);
		cr_assert_not_null(part);
		memcpy(part, bytes, left);
		cr_assert_eq(segue_kept_row_unpack(part, left, ROW_SIZE, &out), 0, "%zu", left);
		free(part);
	}
	cr_assert_eq(segue_kept_row_unpack(bytes, size, ROW_SIZE, &out), size);
	free(bytes);
}

Test(kept, sizes_that_cannot_be_are_refused)
{
	static uint8_t bytes[24 + SEGUE_KEY_MAX + 1 + ROW_SIZE];
	struct segue_kept_row row;
	const uint32_t longest = SEGUE_KEY_MAX, longer = SEGUE_KEY_MAX + 1, greatest = UINT32_MAX;

	memcpy(bytes + 16, &longest, sizeof(longest));
	cr_assert_eq(
		segue_kept_row_unpack(bytes, sizeof(bytes), ROW_SIZE, &row), sizeof(bytes) - 1);
	memcpy(bytes + 16, &longer, sizeof(longer));
	cr_assert_eq(segue_kept_row_unpack(bytes, sizeof(bytes), ROW_SIZE, &row), 0);
	memcpy(bytes + 16, &greatest, sizeof(greatest));
	cr_assert_eq(segue_kept_row_unpack(bytes, sizeof(bytes), ROW_SIZE, &row), 0);
}
