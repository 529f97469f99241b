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
