/*
 * The table of types.
 */
#include "core/dtype.h"

#include "core/error.h"

#define SIGNED(bits)                                                                               \
	.size = (bits) / 8, .number = SEGUE_NUMBER_SIGNED, .least = (uint64_t)INT##bits##_MIN,     \
	.range = UINT##bits##_MAX
#define UNSIGNED(bits)                                                                             \
	.size = (bits) / 8, .number = SEGUE_NUMBER_UNSIGNED, .range = UINT##bits##_MAX
#define SHORT_FLOAT(fraction_bits)                                                                 \
	.size = 2, .number = SEGUE_NUMBER_FLOAT, .fraction = (fraction_bits)

const struct segue_dtype_row segue_dtype_rows[SEGUE_DTYPE_ROOM] = {
	[SEGUE_FLOAT32] = {"float32", "f", 4, SEGUE_NUMBER_FLOAT, .digits = 9},
	[SEGUE_FLOAT64] = {"float64", "d", 8, SEGUE_NUMBER_FLOAT, .digits = 17},
	[SEGUE_INT32] = {"int32", "i", SIGNED(32)},
	/* NumPy's is the C type that is `long` where that has 64 bits. */
	[SEGUE_INT64] = {"int64", sizeof(long) == 8 ? "l" : "q", SIGNED(64)},
	[SEGUE_UINT8] = {"uint8", "B", UNSIGNED(8)},
	[SEGUE_BOOL] = {"bool", "?", 1, SEGUE_NUMBER_BOOL, .range = 1},
	[SEGUE_FLOAT16] = {"float16", "e", SHORT_FLOAT(10), .digits = 5},
	[SEGUE_BFLOAT16] = {"bfloat16", "H", .bits = true, SHORT_FLOAT(7), .digits = 4},
	[SEGUE_INT8] = {"int8", "b", SIGNED(8)},
	[SEGUE_INT16] = {"int16", "h", SIGNED(16)},
	[SEGUE_UINT16] = {"uint16", "H", UNSIGNED(16)},
	[SEGUE_UINT32] = {"uint32", "I", UNSIGNED(32)},
	[SEGUE_UINT64] = {"uint64", sizeof(long) == 8 ? "L" : "Q", 8, SEGUE_NUMBER_UNSIGNED,
		.range = INT64_MAX},
};

enum segue_dtype segue_dtype_last(void)
{
	enum segue_dtype dtype = SEGUE_DTYPE_ROOM - 1;

	while (!segue_dtype_rows[dtype].size)
		dtype--;
	return dtype;
}

size_t segue_dtype_size(enum segue_dtype dtype)
{
	return segue_dtype_row(dtype)->size;
}

const char *segue_dtype_name(enum segue_dtype dtype)
{
	const char *name = segue_dtype_row(dtype)->name;

	return name ? name : "?";
}

/* ---- Floats of 2 bytes, by the bits of those of 4: no rounding mode matters ---- */

#define FRACTION   23 /* bits of a float32's */
#define MAGNITUDE  UINT32_C(0x7fffffff)
#define INFINITE   UINT32_C(0x7f800000)
#define SHORT_SIGN UINT32_C(0x8000)

/* What a short float with the exponent of infinity and NaN holds there. */
static uint32_t top_exponent(unsigned fraction)
{
	return (SHORT_SIGN - 1) >> fraction;
}

/* How much larger the same exponent is in a float32. */
static uint32_t exponent_offset(unsigned fraction)
{
	return 127 - (top_exponent(fraction) >> 1);
}

static uint32_t widen(unsigned fraction, uint32_t bits)
{
	uint32_t sign = (bits & SHORT_SIGN) << 16, value = bits & (SHORT_SIGN - 1);
	uint32_t offset = exponent_offset(fraction);

	if (value >> fraction == top_exponent(fraction))
		return sign | INFINITE | value << (FRACTION - fraction);
	if (!value)
		return sign;
	/* Values below the normal ones are normal where there are more exponents. */
	for (; offset && value >> fraction == 0; offset--)
		value <<= 1;
	return sign | ((value << (FRACTION - fraction)) + (offset << FRACTION));
}

/* Of a NaN the upper bits. What does not fit gives anything. */
static uint32_t narrow(unsigned fraction, uint32_t wide)
{
	uint32_t sign = wide >> 16 & SHORT_SIGN, value = wide & MAGNITUDE;
	uint32_t offset = exponent_offset(fraction), shift = FRACTION - fraction;
	uint32_t most = top_exponent(fraction) << fraction, below;

	if (value >= INFINITE) {
		value = (value - INFINITE) >> shift;
		if (!value && (wide & MAGNITUDE) > INFINITE)
			value = UINT32_C(1) << (fraction - 1); /* not to become infinity */
		return sign | most | value;
	}
	if (value >> FRACTION > offset || !offset)
		return sign | ((value >> shift) - (offset << fraction));
	below = shift + 1 + offset - (value >> FRACTION);
	value = (value & ((UINT32_C(1) << FRACTION) - 1)) | UINT32_C(1) << FRACTION;
	return sign | (below < 32 ? value >> below : 0);
}

static uint32_t load_float(const void *floats, size_t i)
{
	uint32_t wide;

	memcpy(&wide, (const uint8_t *)floats + i * sizeof(wide), sizeof(wide));
	return wide;
}

static bool is_exact(unsigned fraction, uint32_t wide)
{
	uint32_t normal = (wide & MAGNITUDE) - ((exponent_offset(fraction) + 1) << FRACTION);

	/* What is common first. */
	if (normal < (top_exponent(fraction) - 1) << FRACTION)
		return (wide & ((UINT32_C(1) << (FRACTION - fraction)) - 1)) == 0;
	return (wide & MAGNITUDE) > INFINITE || widen(fraction, narrow(fraction, wide)) == wide;
}

size_t segue_dtype_find_misfit(const struct segue_dtype_row *row, const void *floats, size_t count)
{
	if (segue_dtype_takes_float32(row))
		return count;
	for (size_t i = 0; i < count; i++)
		if (!is_exact(row->fraction, load_float(floats, i)))
			return i;
	return count;
}

void segue_dtype_put_short_floats(
	const struct segue_dtype_row *row, void *out, const void *floats, size_t count)
{
	for (size_t i = 0; i < count; i++)
		((uint16_t *)out)[i] = (uint16_t)narrow(row->fraction, load_float(floats, i));
}

double segue_dtype_get_float(const struct segue_dtype_row *row, const void *element)
{
	double wide = 0;
	float value;

	if (row->fraction) {
		uint32_t bits =
			widen(row->fraction, (uint32_t)segue_dtype_get_integer(row, element));
		memcpy(&value, &bits, sizeof(value));
		return (double)value;
	}
	if (segue_dtype_is_float32(row)) {
		memcpy(&value, element, sizeof(value));
		return (double)value;
	}
	memcpy(&wide, element, row->size);
	return wide;
}

int64_t segue_dtype_get_integer(const struct segue_dtype_row *row, const void *element)
{
	uint64_t value = 0;
	unsigned above = 64 - 8 * (unsigned)row->size;

	if (row->size == 0)
		return 0;
	/* Little-endian or not: the low bytes of the machine's own integer. */
	if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
		memcpy(&value, element, row->size);
	else
		memcpy((uint8_t *)&value + sizeof(value) - row->size, element, row->size);
	if (row->number == SEGUE_NUMBER_SIGNED)
		return (int64_t)(value << above) >> above;
	return (int64_t)value;
}

/* ---- From a type to a wider one ---- */

/* Bits of the largest whole numbers of which none is left out; a sign is not counted. */
static unsigned whole_bits(const struct segue_dtype_row *row)
{
	switch (row->number) {
	case SEGUE_NUMBER_FLOAT:
		return row->fraction ? row->fraction + 1 : row->size == sizeof(float) ? 24 : 53;
	case SEGUE_NUMBER_SIGNED:
		return 8 * (unsigned)row->size - 1;
	case SEGUE_NUMBER_UNSIGNED:
		return 8 * (unsigned)row->size;
	case SEGUE_NUMBER_BOOL:
		return 1;
	case SEGUE_NUMBER_NONE:
		break;
	}
	return 0;
}

bool segue_dtype_widens(enum segue_dtype from, enum segue_dtype to)
{
	const struct segue_dtype_row *narrow_row = segue_dtype_row(from);
	const struct segue_dtype_row *wide_row = segue_dtype_row(to);

	if (!narrow_row->size || !wide_row->size)
		return false;
	if (from == to)
		return true;
	switch (narrow_row->number) {
	case SEGUE_NUMBER_FLOAT: /* float16 has values that bfloat16 has not, and the other way */
		return wide_row->number == SEGUE_NUMBER_FLOAT && wide_row->size > narrow_row->size;
	case SEGUE_NUMBER_SIGNED:
		return wide_row->number != SEGUE_NUMBER_UNSIGNED &&
		       wide_row->number != SEGUE_NUMBER_BOOL &&
		       whole_bits(wide_row) >= whole_bits(narrow_row);
	case SEGUE_NUMBER_UNSIGNED:
	case SEGUE_NUMBER_BOOL:
		return wide_row->number != SEGUE_NUMBER_BOOL &&
		       whole_bits(wide_row) >= whole_bits(narrow_row);
	case SEGUE_NUMBER_NONE:
		break;
	}
	return false;
}

#define WIDEN_ROOM 512 /* elements that are on their way at once */

#define GET_EACH(type)                                                                             \
	for (size_t i = 0; i < count; i++) {                                                       \
		type value;                                                                        \
                                                                                                   \
		memcpy(&value, (const uint8_t *)in + i * sizeof(value), sizeof(value));            \
		out[i] = (__typeof__(out[0]))value;                                                \
	}

/* Whole numbers of up to 4 bytes, and of 8 that have a sign. */
static void get_whole(const struct segue_dtype_row *row, const void *in, size_t count, int64_t *out)
{
	bool has_sign = row->number == SEGUE_NUMBER_SIGNED;

	switch (row->size) {
	case 1:
		if (has_sign)
			GET_EACH(int8_t)
		else
			GET_EACH(uint8_t)
		return;
	case 2:
		if (has_sign)
			GET_EACH(int16_t)
		else
			GET_EACH(uint16_t)
		return;
	case 4:
		if (has_sign)
			GET_EACH(int32_t)
		else
			GET_EACH(uint32_t)
		return;
	default:
		GET_EACH(int64_t)
	}
}

static void put_whole(
	const struct segue_dtype_row *row, const int64_t *values, size_t count, void *out)
{
	for (size_t i = 0; i < count; i++)
		segue_dtype_put_integer(row, out, i, (uint64_t)values[i]);
}

/* Floats of up to 4 bytes, and whole numbers that are values of the float type `to`. */
static void get_floats(const struct segue_dtype_row *row, const void *in, size_t count, double *out)
{
	int64_t whole[WIDEN_ROOM];

	if (row->number == SEGUE_NUMBER_FLOAT) {
		for (size_t i = 0; i < count; i++)
			out[i] = segue_dtype_get_float(row, (const uint8_t *)in + i * row->size);
		return;
	}
	get_whole(row, in, count, whole);
	for (size_t i = 0; i < count; i++)
		out[i] = (double)whole[i];
}

static void put_floats(
	const struct segue_dtype_row *row, const double *values, size_t count, void *out)
{
	float narrow_values[WIDEN_ROOM];

	if (row->size == sizeof(double)) {
		memcpy(out, values, count * sizeof(double));
		return;
	}
	for (size_t i = 0; i < count; i++)
		narrow_values[i] = (float)values[i];
	segue_dtype_put_floats(row, out, 0, narrow_values, count);
}

void segue_dtype_widen(
	enum segue_dtype from, const void *in, size_t count, enum segue_dtype to, void *out)
{
	const struct segue_dtype_row *narrow_row = segue_dtype_row(from);
	const struct segue_dtype_row *wide_row = segue_dtype_row(to);
	union {
		int64_t whole[WIDEN_ROOM];
		double floats[WIDEN_ROOM];
	} values;

	if (from == to) {
		memcpy(out, in, count * narrow_row->size);
		return;
	}
	for (size_t done = 0, part; done < count; done += part) {
		const uint8_t *next = (const uint8_t *)in + done * narrow_row->size;
		uint8_t *place = (uint8_t *)out + done * wide_row->size;

		part = count - done < WIDEN_ROOM ? count - done : WIDEN_ROOM;
		if (wide_row->number == SEGUE_NUMBER_FLOAT) {
			get_floats(narrow_row, next, part, values.floats);
			put_floats(wide_row, values.floats, part, place);
		} else {
			get_whole(narrow_row, next, part, values.whole);
			put_whole(wide_row, values.whole, part, place);
		}
	}
}

/* ---- Forms ---- */

static const char *const forms[] = {"dense", "ragged", "bytes"};

const char *segue_form_name(enum segue_form form)
{
	return (unsigned)form < sizeof(forms) / sizeof(forms[0]) ? forms[form] : "?";
}

int segue_form_check(const char *of, enum segue_form form, uint32_t rank, enum segue_dtype dtype)
{
	if ((unsigned)form >= sizeof(forms) / sizeof(forms[0]))
		return segue_fail(SEGUE_EINVAL,
			"%s: form is %u, which is no form; 0 (dense), 1 (ragged) and 2 (bytes) are",
			of, (unsigned)form);
	if (form != SEGUE_FORM_DENSE && rank > 0)
		return segue_fail(
			SEGUE_EINVAL, "%s: it is %s, and then has no shape", of, forms[form]);
	if (form == SEGUE_FORM_BYTES && dtype != SEGUE_UINT8)
		return segue_fail(SEGUE_EINVAL, "%s: the dtype of bytes is uint8 (5), not %s", of,
			segue_dtype_name(dtype));
	return 0;
}
