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
	bool has_format; /* of its own */
} all[] = {
	{SEGUE_FLOAT32, "float32", "f", 4, true, true, true},
	{SEGUE_FLOAT64, "float64", "d", 8, true, true, true},
	{SEGUE_INT32, "int32", "i", 4, true, false, true},
	{SEGUE_INT64, "int64", "l", 8, true, false, true},
	{SEGUE_UINT8, "uint8", "B", 1, false, false, true},
	{SEGUE_BOOL, "bool", "?", 1, false, false, true},
	{SEGUE_FLOAT16, "float16", "e", 2, true, true, true},
	{SEGUE_BFLOAT16, "bfloat16", "H", 2, true, true, false},
	{SEGUE_INT8, "int8", "b", 1, true, false, true},
	{SEGUE_INT16, "int16", "h", 2, true, false, true},
	{SEGUE_UINT16, "uint16", "H", 2, false, false, true},
	{SEGUE_UINT32, "uint32", "I", 4, false, false, true},
	{SEGUE_UINT64, "uint64", "L", 8, false, false, true},
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
		cr_expect_neq(row->bits, all[i].has_format);
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
			/* An unsigned one of 64 bits has what an int64 can hold of it. */
			most = ((__int128)1 << (all[i].is_signed || bits == 64 ? bits - 1 : bits)) -
			       1;
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

		if (!all[i].is_float || row->size == 2) {
			free(bytes);
			continue;
		}
		cr_expect_eq(segue_dtype_find_misfit(row, wire + 1, FLOATS), FLOATS);
		cr_expect(segue_dtype_floats_fit(row, wire + 1, FLOATS));
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

/* ---- Floats of 2 bytes ------------------------------------------------------------------------ */

/* What the bits mean, by arithmetic; not of infinity and NaN. */
static const struct kind {
	enum segue_dtype dtype;
	int fraction, bias; /* bits; and of the exponent */
} shorts[] = {{SEGUE_FLOAT16, 10, 15}, {SEGUE_BFLOAT16, 7, 127}};
#define SHORTS (sizeof(shorts) / sizeof(shorts[0]))

static int exponent_of(const struct kind *kind, uint32_t bits)
{
	return (int)((bits & 0x7fff) >> kind->fraction);
}

static bool is_finite(const struct kind *kind, uint32_t bits)
{
	return exponent_of(kind, bits) != 0x7fff >> kind->fraction;
}

static double meaning(const struct kind *kind, uint32_t bits)
{
	int exponent = exponent_of(kind, bits), one = 1 << kind->fraction;
	int fraction = (int)bits & (one - 1);
	double value = ldexp(exponent ? one + fraction : fraction,
		(exponent ? exponent : 1) - kind->bias - kind->fraction);

	return bits & 0x8000 ? -value : value;
}

/* Whether a finite number has few enough digits before and behind the binary point. */
static bool has_value(const struct kind *kind, double value)
{
	double most = meaning(kind, 0x7fff - (UINT32_C(1) << kind->fraction));
	int exponent, least = 1 - kind->bias - kind->fraction;

	frexp(value, &exponent);
	exponent -= kind->fraction + 1;
	value = ldexp(value, -(exponent > least ? exponent : least));
	return fabs(ldexp(value, exponent > least ? exponent : least)) <= most &&
	       value == (double)(int)value;
}

static bool fits(const struct segue_dtype_row *row, float value)
{
	bool fits = segue_dtype_floats_fit(row, &value, 1);

	cr_assert_eq(segue_dtype_find_misfit(row, &value, 1), fits);
	return fits;
}

static uint16_t put_short(const struct segue_dtype_row *row, float value)
{
	uint64_t room[4]; /* as much as any type takes */
	uint16_t *place = (uint16_t *)room;

	memset(room, 0x5a, sizeof(room));
	segue_dtype_put_floats(row, room, 1, &value, 1);
	cr_assert(place[0] == 0x5a5a && place[2] == 0x5a5a);
	return place[1];
}

/* All there are: each is the number that it means, and comes of that float32 again. */
Test(dtype, all_short_floats)
{
	for (size_t i = 0; i < SHORTS; i++) {
		const struct segue_dtype_row *row = segue_dtype_row(shorts[i].dtype);

		for (uint32_t bits = 0; bits < 65536; bits++) {
			uint16_t element = (uint16_t)bits;
			double value = segue_dtype_get_float(row, &element);
			bool infinite = (bits & 0x7fff) == 0x7fffU >> shorts[i].fraction
									      << shorts[i].fraction;

			cr_assert_eq(signbit(value) != 0, bits >> 15, "%s %#x", row->name, bits);
			if (is_finite(&shorts[i], bits))
				cr_assert_eq(value, meaning(&shorts[i], bits), "%s %#x: %g",
					row->name, bits, value);
			else
				cr_assert(infinite ? isinf(value) : isnan(value), "%s %#x",
					row->name, bits);
			cr_assert(fits(row, (float)value), "%s %#x", row->name, bits);
			if (!isnan(value))
				cr_assert_eq(put_short(row, (float)value), bits, "%s %#x",
					row->name, bits);
		}
	}
}

/* A NaN stays one, of its sign, with the upper bits of what it holds. */
Test(dtype, not_a_number)
{
	for (size_t i = 0; i < SHORTS; i++) {
		const struct segue_dtype_row *row = segue_dtype_row(shorts[i].dtype);
		int lost = 23 - shorts[i].fraction;

		for (uint32_t held = 1; held < UINT32_C(1) << 23; held += held < 70000 ? 1 : 997) {
			uint32_t wide =
				(held & 1 ? UINT32_C(0xff800000) : UINT32_C(0x7f800000)) | held;
			uint32_t kept = held >> lost, bits;
			float value;

			memcpy(&value, &wide, sizeof(value));
			cr_assert(fits(row, value), "%s %#x", row->name, wide);
			bits = put_short(row, value);
			cr_assert(!is_finite(&shorts[i], bits));
			cr_assert_eq(bits >> 15, held & 1);
			cr_assert_eq(bits & ((UINT32_C(1) << shorts[i].fraction) - 1),
				kept ? kept : UINT32_C(1) << (shorts[i].fraction - 1), "%s %#x",
				row->name, wide);
		}
	}
}

static void check_fit(size_t i, uint32_t wide)
{
	const struct segue_dtype_row *row = segue_dtype_row(shorts[i].dtype);
	float value;

	memcpy(&value, &wide, sizeof(value));
	if (!isfinite(value))
		return;
	cr_assert_eq(fits(row, value), has_value(&shorts[i], (double)value), "%s %a", row->name,
		(double)value);
}

/* The neighbours of each, and others: none is rounded. */
Test(dtype, what_is_no_short_float_does_not_fit)
{
	uint64_t random = 88172645463325252U;

	for (size_t i = 0; i < SHORTS; i++) {
		for (uint32_t bits = 0; bits < 65536; bits++) {
			float value =
				(float)(is_finite(&shorts[i], bits) ? meaning(&shorts[i], bits)
								    : 0);
			uint32_t wide;

			memcpy(&wide, &value, sizeof(wide));
			for (int near = -1; near <= 1; near++)
				check_fit(i, wide + (uint32_t)near);
			check_fit(i, wide ^ UINT32_C(1) << (22 - shorts[i].fraction));
		}
		for (int turn = 0; turn < 1000000; turn++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			check_fit(i, (uint32_t)random & UINT32_MAX << random % 23);
		}
	}
	/* 65504 is float16's largest, 2^-24 its smallest. */
	cr_expect(fits(segue_dtype_row(SEGUE_FLOAT16), 65504));
	cr_expect(!fits(segue_dtype_row(SEGUE_FLOAT16), 65536));
	cr_expect(fits(segue_dtype_row(SEGUE_FLOAT16), 0x1p-24F));
	cr_expect(!fits(segue_dtype_row(SEGUE_FLOAT16), 0x1p-25F));
	cr_expect(!fits(segue_dtype_row(SEGUE_FLOAT16), 0x1.8p-24F));
	cr_expect(fits(segue_dtype_row(SEGUE_BFLOAT16), 0x1.fep127F));
	cr_expect(!fits(segue_dtype_row(SEGUE_BFLOAT16), FLT_MAX));
	cr_expect(fits(segue_dtype_row(SEGUE_BFLOAT16), 0x1p-133F));
	cr_expect(!fits(segue_dtype_row(SEGUE_BFLOAT16), FLT_TRUE_MIN));
}

/* Of several it is the first that is told, at any alignment. */
Test(dtype, the_first_misfit)
{
	const struct segue_dtype_row *row = segue_dtype_row(SEGUE_BFLOAT16);
	float values[5] = {1, NAN, 0.1F, 2, 0.1F};
	uint8_t wire[sizeof(values) + 1];

	memcpy(wire + 1, values, sizeof(values));
	cr_expect_eq(segue_dtype_find_misfit(row, wire + 1, 5), 2);
	cr_expect_eq(segue_dtype_find_misfit(row, wire + 1, 2), 2);
	cr_expect_eq(segue_dtype_find_misfit(row, wire + 1, 0), 0);
	cr_expect(!segue_dtype_floats_fit(row, wire + 1, 3));
	cr_expect(segue_dtype_floats_fit(row, wire + 1, 2));
}

/* ---- Digits ----------------------------------------------------------------------------------- */

/* All of 2 bytes: what is printed is nearest to that one, and not with a digit less. */
Test(dtype, digits_of_short_floats)
{
	for (size_t i = 0; i < SHORTS; i++) {
		const struct segue_dtype_row *row = segue_dtype_row(shorts[i].dtype);
		size_t same = 0;

		for (uint32_t bits = 0; is_finite(&shorts[i], bits + 1); bits++) {
			uint16_t here = (uint16_t)bits, next = (uint16_t)(bits + 1);
			double value = segue_dtype_get_float(row, &here);
			double above = segue_dtype_get_float(row, &next);
			char a[400], b[400];

			snprintf(a, sizeof(a), "%.*g", row->digits, value);
			cr_assert(strtod(a, NULL) < (value + above) / 2, "%s %s", row->name, a);
			snprintf(b, sizeof(b), "%.*g", row->digits, above);
			cr_assert(strtod(b, NULL) > (value + above) / 2, "%s %s", row->name, b);
			snprintf(a, sizeof(a), "%.*g", row->digits - 1, value);
			snprintf(b, sizeof(b), "%.*g", row->digits - 1, above);
			same += strcmp(a, b) == 0;
		}
		cr_expect_gt(same, 0, "%s: fewer digits would do", row->name);
	}
}

/* So many digits tell neighbours apart. */
Test(dtype, digits)
{
	char a[64], b[64];

	for (size_t i = 0; i < ALL; i++) {
		const struct segue_dtype_row *row = segue_dtype_row(all[i].dtype);

		if (!all[i].is_float || row->size == 2)
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

/* ---- Wider types ------------------------------------------------------------------------------ */

/* By hand: which types hold all values of another. */
static const struct {
	enum segue_dtype from;
	enum segue_dtype to[13];
} wider[] = {
	{SEGUE_BOOL, {SEGUE_INT8, SEGUE_UINT8, SEGUE_INT16, SEGUE_UINT16, SEGUE_INT32, SEGUE_UINT32,
			     SEGUE_INT64, SEGUE_UINT64, SEGUE_FLOAT16, SEGUE_BFLOAT16,
			     SEGUE_FLOAT32, SEGUE_FLOAT64}},
	{SEGUE_INT8, {SEGUE_INT16, SEGUE_INT32, SEGUE_INT64, SEGUE_FLOAT16, SEGUE_BFLOAT16,
			     SEGUE_FLOAT32, SEGUE_FLOAT64}},
	{SEGUE_UINT8,
		{SEGUE_INT16, SEGUE_UINT16, SEGUE_INT32, SEGUE_UINT32, SEGUE_INT64, SEGUE_UINT64,
			SEGUE_FLOAT16, SEGUE_BFLOAT16, SEGUE_FLOAT32, SEGUE_FLOAT64}},
	{SEGUE_INT16, {SEGUE_INT32, SEGUE_INT64, SEGUE_FLOAT32, SEGUE_FLOAT64}},
	{SEGUE_UINT16, {SEGUE_INT32, SEGUE_UINT32, SEGUE_INT64, SEGUE_UINT64, SEGUE_FLOAT32,
			       SEGUE_FLOAT64}},
	{SEGUE_INT32, {SEGUE_INT64, SEGUE_FLOAT64}},
	{SEGUE_UINT32, {SEGUE_INT64, SEGUE_UINT64, SEGUE_FLOAT64}},
	{SEGUE_FLOAT16, {SEGUE_FLOAT32, SEGUE_FLOAT64}},
	{SEGUE_BFLOAT16, {SEGUE_FLOAT32, SEGUE_FLOAT64}},
	{SEGUE_FLOAT32, {SEGUE_FLOAT64}},
};

static bool is_wider(enum segue_dtype from, enum segue_dtype to)
{
	for (size_t i = 0; i < sizeof(wider) / sizeof(wider[0]); i++)
		for (size_t k = 0; wider[i].from == from && wider[i].to[k]; k++)
			if (wider[i].to[k] == to)
				return true;
	return from == to;
}

Test(dtype, what_widens_loses_nothing)
{
	for (enum segue_dtype from = 0; from < SEGUE_DTYPE_ROOM + 2; from++)
		for (enum segue_dtype to = 0; to < SEGUE_DTYPE_ROOM + 2; to++)
			cr_expect_eq(segue_dtype_widens(from, to),
				segue_dtype_size(from) && segue_dtype_size(to) &&
					is_wider(from, to),
				"%s to %s", segue_dtype_name(from), segue_dtype_name(to));
}

/* Element `i` as a double; of whole numbers up to 4 bytes, and of those that came from them. */
static double value_at(enum segue_dtype dtype, const void *elements, size_t i)
{
	const struct segue_dtype_row *row = segue_dtype_row(dtype);
	const void *element = (const uint8_t *)elements + i * row->size;

	return row->number == SEGUE_NUMBER_FLOAT ? segue_dtype_get_float(row, element)
						 : (double)segue_dtype_get_integer(row, element);
}

/* Every bit pattern of 1 and 2 bytes, and many of 4; at places of any alignment. */
Test(dtype, widened_values_are_the_same)
{
	enum { COUNT = 1 << 16 };
	uint8_t *in = malloc(COUNT * 8 + 1), *out = malloc(COUNT * 8);

	for (size_t i = 0; i < sizeof(wider) / sizeof(wider[0]); i++) {
		enum segue_dtype from = wider[i].from;
		size_t size = segue_dtype_size(from);
		size_t count = from == SEGUE_BOOL ? 2 : size == 1 ? 256 : COUNT;

		for (uint32_t k = 0; k < count; k++) {
			uint32_t bits = size < 4 ? k : k * 0x9e3779b1u;

			memcpy(in + 1 + k * size, &bits, size);
		}
		for (size_t k = 0; wider[i].to[k]; k++) {
			segue_dtype_widen(from, in + 1, count, wider[i].to[k], out);
			for (size_t n = 0; n < count; n++) {
				double was = value_at(from, in + 1, n);
				double is = value_at(wider[i].to[k], out, n);

				cr_assert(was == is || (was != was && is != is),
					"%s to %s: %g became %g", segue_dtype_name(from),
					segue_dtype_name(wider[i].to[k]), was, is);
			}
		}
	}
	free(in);
	free(out);
}
