/*
 * Types of elements: one row a type, at its code of enum segue_dtype. A new type is a code in
 * segue.h and a row in dtype.c; one of floats that are neither 2, 4 nor 8 bytes is also a case in
 * segue_dtype_find_misfit(), segue_dtype_put_floats() and segue_dtype_get_float().
 *
 * Elements are in the byte order of the machine. The functions are inline: the loader calls them
 * once for each value of a varint. Pure.
 */
#ifndef SEGUE_CORE_DTYPE_H
#define SEGUE_CORE_DTYPE_H

#include <string.h>

#include "segue/segue.h"

enum segue_number {
	SEGUE_NUMBER_NONE = 0,
	SEGUE_NUMBER_FLOAT,
	SEGUE_NUMBER_SIGNED,
	SEGUE_NUMBER_UNSIGNED,
	SEGUE_NUMBER_BOOL,
};

struct segue_dtype_row {
	const char *name;   /* NumPy's */
	const char *format; /* Python's struct and the buffer protocol: native */
	size_t size;
	enum segue_number number;
	bool bits; /* there is no format for it: `format` is of an integer that has its bits */
	/* Integers: an int64 with the bits `value` fits if value - least <= range, modulo 2^64. */
	uint64_t least, range;
	int digits;        /* floats: significant ones that tell all values apart */
	unsigned fraction; /* floats of 2 bytes: its bits; exponent and sign are above them */
};

/* Codes are below it; a number here, so that finding a row costs a comparison. */
#define SEGUE_DTYPE_ROOM 32

extern const struct segue_dtype_row segue_dtype_rows[SEGUE_DTYPE_ROOM];

/* Of a code that is no type: a row of zeros. */
static inline const struct segue_dtype_row *segue_dtype_row(enum segue_dtype dtype)
{
	return &segue_dtype_rows[dtype < SEGUE_DTYPE_ROOM ? dtype : 0];
}

/* The codes that are types are 1 to this. */
enum segue_dtype segue_dtype_last(void);

/* Whether every value of `from` is one of `to`. */
bool segue_dtype_widens(enum segue_dtype from, enum segue_dtype to);
/*
 * Writes `count` elements of a type that widens, of any alignment, as elements of another, and of
 * the same type as they are.
 */
void segue_dtype_widen(
	enum segue_dtype from, const void *in, size_t count, enum segue_dtype to, void *out);

static inline bool segue_dtype_fits(const struct segue_dtype_row *row, uint64_t value)
{
	return value - row->least <= row->range;
}

/* Writes element `i` of `out`: an integer that fits. Of no type, nothing. */
static inline void segue_dtype_put_integer(
	const struct segue_dtype_row *row, void *out, uint64_t i, uint64_t value)
{
	switch (row->size) {
	case 1:
		((uint8_t *)out)[i] = (uint8_t)value;
		return;
	case 2:
		((uint16_t *)out)[i] = (uint16_t)value;
		return;
	case 4:
		((uint32_t *)out)[i] = (uint32_t)value;
		return;
	case 8:
		((uint64_t *)out)[i] = value;
	}
}

/* Whether floats of 32 bits, as TFRecord files have them, are its elements. */
static inline bool segue_dtype_is_float32(const struct segue_dtype_row *row)
{
	return row->number == SEGUE_NUMBER_FLOAT && row->size == sizeof(float);
}

/*
 * The first of `count` floats of 32 bits, of any alignment, that is no value of the type; `count`
 * if all are. A NaN is one of every type; what it holds is kept as far as there is room for it.
 */
size_t segue_dtype_find_misfit(const struct segue_dtype_row *row, const void *floats, size_t count);

/* As segue_dtype_put_floats(), for types of 2 bytes. */
void segue_dtype_put_short_floats(
	const struct segue_dtype_row *row, void *out, const void *floats, size_t count);

/* Whether any float of 32 bits is a value of the type, or it is none of floats. */
static inline bool segue_dtype_takes_float32(const struct segue_dtype_row *row)
{
	return row->fraction == 0;
}

static inline bool segue_dtype_floats_fit(
	const struct segue_dtype_row *row, const void *floats, size_t count)
{
	return segue_dtype_takes_float32(row) ||
	       segue_dtype_find_misfit(row, floats, count) == count;
}

/*
 * Writes `count` elements from `i` on: floats of 32 bits that fit, of any alignment. Of no type,
 * nothing.
 */
static inline void segue_dtype_put_floats(
	const struct segue_dtype_row *row, void *out, uint64_t i, const void *floats, size_t count)
{
	double *wide = (double *)out + i;

	switch (row->size) {
	case sizeof(uint16_t):
		segue_dtype_put_short_floats(row, (uint16_t *)out + i, floats, count);
		return;
	case sizeof(float):
		memcpy((float *)out + i, floats, count * sizeof(float));
		return;
	case sizeof(double):
		for (size_t k = 0; k < count; k++) {
			float value;

			memcpy(&value, (const float *)floats + k, sizeof(value));
			wide[k] = (double)value;
		}
	}
}

/* The value of a float at `element`, of any alignment. */
double segue_dtype_get_float(const struct segue_dtype_row *row, const void *element);

/* The integer at `element`, of any alignment; that of an unsigned type by its bits. */
int64_t segue_dtype_get_integer(const struct segue_dtype_row *row, const void *element);

/* "dense", "ragged", "bytes"; "?" for a value that is no form. Static. */
const char *segue_form_name(enum segue_form form);
/*
 * Whether a feature of that form may have this rank and dtype. SEGUE_EINVAL; `of` names the
 * feature: "sequences[0] \"x\"".
 */
int segue_form_check(const char *of, enum segue_form form, uint32_t rank, enum segue_dtype dtype);

#endif
