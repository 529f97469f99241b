/*
 * Tests of the table of types: each row, and what is put comes back, within its place.
 */
#include "core/dtype.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	enum segue_dtype dtype;
	const char *name, *format;
	size_t size;
	bool is_signed, is_float;
} all[] = {
	{SEGUE_FLOAT32, "float32", "f", 4, true, true},
	{SEGUE_FLOAT64, "float64", "d", 8, true, true},
	{SEGUE_INT32, "int32", "i", 4, true, false},
	{SEGUE_INT64, "int64", "l", 8, true, false},
	{SEGUE_UINT8, "uint8", "B", 1, false, false},
	{SEGUE_BOOL, "bool", "?", 1, false, false},
};
#define ALL (sizeof(all) / sizeof(all[0]))

Test(dtype, rows)
{
	cr_assert_eq(segue_dtype_last(), ALL, "a new type is tested here, too");
	for (size_t i = 0; i < ALL; i++) {
		const struct segue_dtype_row *row = segue_dtype_row(all[i].dtype);

		cr_expect_eq(all[i].dtype, i + 1, "codes follow one another");
		cr_expect_str_eq(segue_dtype_name(all[i].dtype), all[i].name);
		cr_expect_eq(segue_dtype_size(all[i].dtype), all[i].size);
		cr_expect_eq(row->number == SEGUE_NUMBER_FLOAT, all[i].is_float);
		if (sizeof(long) == 8)
			cr_expect_str_eq(row->format, all[i].format);
	}
}

/* A code that is none has no bytes, so nothing is written for it. */
Test(dtype, codes_that_are_no_types)
{
	static const unsigned codes[] = {
		0, ALL + 1, SEGUE_DTYPE_ROOM - 1, SEGUE_DTYPE_ROOM, 255, UINT32_MAX};
	uint8_t bytes[64];
	float value = 1;

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		const struct segue_dtype_row *row = segue_dtype_row((enum segue_dtype)codes[i]);

		cr_expect_eq(segue_dtype_size((enum segue_dtype)codes[i]), 0, "%u", codes[i]);
		cr_expect_str_eq(segue_dtype_name((enum segue_dtype)codes[i]), "?");
		memset(bytes, 0x5a, sizeof(bytes));
		segue_dtype_put_integer(row, bytes, 3, UINT64_MAX);
		segue_dtype_put_floats(row, bytes, 3, &value, 1);
		for (size_t k = 0; k < sizeof(bytes); k++)
			cr_assert_eq(bytes[k], 0x5a, "code %u wrote at %zu", codes[i], k);
		cr_expect_eq(segue_dtype_get_integer(row, bytes), 0);
	}
}

/* Puts one value at place 1 of 3: it comes back, and the neighbours stay. */
static void round_trip(size_t i, uint64_t value)
{
	const struct segue_dtype_row *row = segue_dtype_row(all[i].dtype);
	uint64_t room[4];
	uint8_t *bytes = (uint8_t *)room;

	memset(room, 0x5a, sizeof(room));
	segue_dtype_put_integer(row, room, 1, value);
	cr_assert_eq((uint64_t)segue_dtype_get_integer(row, bytes + row->size), value, "%s %#lx",
		row->name, (unsigned long)value);
	for (size_t k = 0; k < sizeof(room); k++)
		if (k < row->size || k >= 2 * row->size)
			cr_assert_eq(bytes[k], 0x5a, "%s wrote at %zu", row->name, k);
}

/* All values of 16 bits and about each power of 2, of either sign: what fits comes back. */
Test(dtype, integers_that_fit_come_back)
{
	for (size_t i = 0; i < ALL; i++) {
		const struct segue_dtype_row *row = segue_dtype_row(all[i].dtype);
		unsigned bits = 8 * (unsigned)row->size;
		__int128 least = 0, most = 1;
		size_t fitting = 0;

		if (all[i].is_float)
			continue;
		if (row->number != SEGUE_NUMBER_BOOL) {
			most = ((__int128)1 << (all[i].is_signed ? bits - 1 : bits)) - 1;
			least = all[i].is_signed ? -most - 1 : 0;
		}
		for (unsigned power = 0; power < 64; power++)
			for (int32_t near = power ? -2 : -65536; near <= (power ? 2 : 65536);
				near++)
				for (int sign = -1; sign <= 1; sign += 2) {
					uint64_t value = (UINT64_C(1) << power) * (uint64_t)sign +
							 (uint64_t)(int64_t)near;
					__int128 as = (int64_t)value;
					bool fits = as >= least && as <= most;

					cr_assert_eq(segue_dtype_fits(row, value), fits, "%s %ld",
						row->name, (long)value);
					fitting += fits;
					if (fits)
						round_trip(i, value);
				}
		cr_expect(fitting >= 2);
	}
}

static const float floats[] = {0, -0.0F, 1, -1, 0.1F, FLT_MIN, FLT_TRUE_MIN, FLT_MAX, -FLT_MAX,
	INFINITY, -INFINITY, 16777217.0F, 3.0e-39F};
#define FLOATS (sizeof(floats) / sizeof(floats[0]))

/* From any alignment; as many as are asked for, at their place. */
Test(dtype, floats_come_back)
{
	uint8_t wire[sizeof(floats) + 1];

	memcpy(wire + 1, floats, sizeof(floats));
	for (size_t i = 0; i < ALL; i++) {
		const struct segue_dtype_row *row = segue_dtype_row(all[i].dtype);
		uint8_t *bytes = malloc((FLOATS + 2) * row->size);

		if (!all[i].is_float) {
			free(bytes);
			continue;
		}
		memset(bytes, 0x5a, (FLOATS + 2) * row->size);
		segue_dtype_put_floats(row, bytes, 1, wire + 1, FLOATS);
		for (size_t k = 0; k < FLOATS; k++) {
			double value = segue_dtype_get_float(row, bytes + (k + 1) * row->size);

			cr_expect_eq(memcmp(&value, &(double){(double)floats[k]}, sizeof(value)), 0,
				"%s %zu: %g", row->name, k, value);
		}
		for (size_t k = 0; k < row->size; k++) {
			cr_expect_eq(bytes[k], 0x5a);
			cr_expect_eq(bytes[(FLOATS + 1) * row->size + k], 0x5a);
		}
		free(bytes);
	}
}

/* So many digits tell neighbours apart. */
Test(dtype, digits)
{
	char a[64], b[64];

	for (size_t i = 0; i < ALL; i++) {
		const struct segue_dtype_row *row = segue_dtype_row(all[i].dtype);

		if (!all[i].is_float)
			continue;
		for (double value = 1e-30; value < 1e30; value *= 7.3) {
			uint64_t next[1] = {0}, here[1] = {0};
			float narrow = (float)value;

			memcpy(here, row->size == 4 ? (void *)&narrow : (void *)&value, row->size);
			next[0] = here[0] + 1;
			snprintf(a, sizeof(a), "%.*g", row->digits,
				segue_dtype_get_float(row, here));
			snprintf(b, sizeof(b), "%.*g", row->digits,
				segue_dtype_get_float(row, next));
			cr_expect_str_neq(a, b, "%s", row->name);
		}
	}
}
