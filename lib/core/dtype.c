/*
 * The table of types.
 */
#include "core/dtype.h"

#define SIGNED(bits)                                                                               \
	.size = (bits) / 8, .number = SEGUE_NUMBER_SIGNED, .least = (uint64_t)INT##bits##_MIN,     \
	.range = UINT##bits##_MAX
#define UNSIGNED(bits)                                                                             \
	.size = (bits) / 8, .number = SEGUE_NUMBER_UNSIGNED, .range = UINT##bits##_MAX

const struct segue_dtype_row segue_dtype_rows[SEGUE_DTYPE_ROOM] = {
	[SEGUE_FLOAT32] = {"float32", "f", 4, SEGUE_NUMBER_FLOAT, .digits = 9},
	[SEGUE_FLOAT64] = {"float64", "d", 8, SEGUE_NUMBER_FLOAT, .digits = 17},
	[SEGUE_INT32] = {"int32", "i", SIGNED(32)},
	/* NumPy's is the C type that is `long` where that has 64 bits. */
	[SEGUE_INT64] = {"int64", sizeof(long) == 8 ? "l" : "q", SIGNED(64)},
	[SEGUE_UINT8] = {"uint8", "B", UNSIGNED(8)},
	[SEGUE_BOOL] = {"bool", "?", 1, SEGUE_NUMBER_BOOL, .range = 1},
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

double segue_dtype_get_float(const struct segue_dtype_row *row, const void *element)
{
	double wide = 0;
	float value;

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
