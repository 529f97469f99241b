/* Reads arrays: straight, or by a buffer where byte order, dtype or stride are others. */
#include "source/arrays/values.h"

#include <inttypes.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"

#define CHUNK (64 * 1024) /* bytes of a file that are on their way at once */
#define FEW   512         /* elements whose bytes are swapped at once */

size_t segue_array_file(const struct segue_array_files *from, const struct segue_array_place *place)
{
	return from->files->listing[place->file];
}

static int read_bytes(struct segue_array_files *from, const struct segue_array_place *place,
	uint64_t position, void *bytes, uint64_t size)
{
	size_t file = segue_array_file(from, place);

	if (from->sums.sum)
		return segue_sums_read(&from->sums, from->files, file, position, bytes, size);
	return segue_files_read(from->files, file, position, bytes, size);
}

/* ---- Elements -------------------------------------------------------------------------------- */

static void swap(void *elements, size_t count, size_t size)
{
	uint16_t *two = elements;
	uint32_t *four = elements;
	uint64_t *eight = elements;

	switch (size) {
	case 2:
		for (size_t i = 0; i < count; i++)
			two[i] = __builtin_bswap16(two[i]);
		return;
	case 4:
		for (size_t i = 0; i < count; i++)
			four[i] = __builtin_bswap32(four[i]);
		return;
	case 8:
		for (size_t i = 0; i < count; i++)
			eight[i] = __builtin_bswap64(eight[i]);
	}
}

static int check_bools(const struct segue_array_files *from, const struct segue_array_place *place,
	const struct segue_field *field, const uint8_t *bytes, size_t size)
{
	uint8_t any = 0;

	if (place->dtype != SEGUE_BOOL)
		return 0;
	for (size_t i = 0; i < size; i++)
		any |= bytes[i];
	if (any <= 1)
		return 0;
	return segue_fail(SEGUE_EDATA,
		"%s: feature '%s': a byte that is neither 0 nor 1 does not fit bool: declare uint8",
		from->files->file[segue_array_file(from, place)].path, field->name);
}

/* From bytes as they lie in the file, of any alignment. */
static int convert(const struct segue_array_files *from, const struct segue_array_place *place,
	const struct segue_field *field, const uint8_t *bytes, size_t count, uint8_t *out)
{
	size_t size = segue_dtype_size(place->dtype), wide = segue_dtype_size(field->dtype);
	uint64_t few[FEW];
	int rc = check_bools(from, place, field, bytes, count * size);

	if (rc)
		return rc;
	if (!place->big_endian) {
		segue_dtype_widen(place->dtype, bytes, count, field->dtype, out);
		return 0;
	}
	for (size_t done = 0, part; done < count; done += part) {
		part = count - done < FEW ? count - done : FEW;
		memcpy(few, bytes + done * size, part * size);
		swap(few, part, size);
		segue_dtype_widen(place->dtype, few, part, field->dtype, out + done * wide);
	}
	return 0;
}

/* ---- Runs of bytes --------------------------------------------------------------------------- */

static int read_straight(struct segue_array_files *from, const struct segue_array_place *place,
	const struct segue_field *field, uint64_t position, uint64_t elements, void *out)
{
	size_t size = segue_dtype_size(place->dtype);
	int rc = read_bytes(from, place, position, out, elements * size);

	if (rc)
		return rc;
	if (place->big_endian)
		swap(out, elements, size);
	return check_bools(from, place, field, out, elements * size);
}

/* Elements side by side, of another dtype. */
static int read_wider(struct segue_array_files *from, const struct segue_array_place *place,
	const struct segue_field *field, uint64_t position, uint64_t elements, uint8_t *buffer,
	uint8_t *out)
{
	size_t size = segue_dtype_size(place->dtype), wide = segue_dtype_size(field->dtype);
	int rc = 0;

	for (uint64_t done = 0, part; !rc && done < elements; done += part) {
		part = elements - done < CHUNK / size ? elements - done : CHUNK / size;
		rc = read_bytes(from, place, position + done * size, buffer, part * size);
		if (!rc)
			rc = convert(from, place, field, buffer, part, out + done * wide);
	}
	return rc;
}

/* Values that lie apart, as many at once as a buffer has room for with what is between them. */
static int gather(struct segue_array_files *from, const struct segue_array_place *place,
	const struct segue_field *field, uint64_t position, uint64_t count, uint8_t *buffer,
	uint8_t *out)
{
	uint64_t size = field->elements * segue_dtype_size(place->dtype);
	uint64_t most = size < CHUNK ? 1 + (CHUNK - size) / place->stride : 1;
	int rc = 0;

	for (uint64_t done = 0, part; !rc && done < count; done += part) {
		uint64_t at = position + done * place->stride;

		part = count - done < most ? count - done : most;
		if (part == 1) {
			rc = read_wider(from, place, field, at, field->elements, buffer,
				out + done * field->size);
			continue;
		}
		rc = read_bytes(from, place, at, buffer, (part - 1) * place->stride + size);
		for (uint64_t i = 0; !rc && i < part; i++)
			rc = convert(from, place, field, buffer + i * place->stride,
				field->elements, out + (done + i) * field->size);
	}
	return rc;
}

int segue_array_read(struct segue_array_files *from, const struct segue_array_place *place,
	const struct segue_field *field, uint64_t first, uint64_t count, void *out)
{
	uint64_t size = field->elements * segue_dtype_size(place->dtype);
	uint64_t position = place->offset + first * place->stride;
	bool dense = place->stride == size || count == 1;
	size_t capacity;
	uint8_t *buffer;

	if (dense && place->dtype == field->dtype)
		return read_straight(from, place, field, position, count * field->elements, out);
	buffer = segue_buffers_take(&from->buffers, CHUNK, &capacity);
	if (!buffer)
		return segue_fail(SEGUE_ENOMEM, "no memory for values of an array");
	int rc = dense ? read_wider(
				 from, place, field, position, count * field->elements, buffer, out)
		       : gather(from, place, field, position, count, buffer, out);
	segue_buffers_give(&from->buffers, buffer, capacity);
	return rc;
}
