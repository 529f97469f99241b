/* One Feature: the plain form at full speed, any other field by field. */
#include "source/tfrecord/feature.h"

#include <inttypes.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "floats on the wire are little-endian");

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

/* A field of a message: its number, and its value by wire type. */
struct part {
	uint64_t number;
	enum wire wire;
	uint64_t value;       /* WIRE_VARINT */
	const uint8_t *bytes; /* otherwise */
	size_t size;
};

/* Values on their way to a field. */
struct sink {
	const struct segue_field *field;
	uint8_t *out;   /* NULL: only checked and counted */
	uint64_t count; /* may exceed field->elements; nothing is written beyond */
};

const char *segue_kind_name(enum segue_kind kind)
{
	static const char *const names[] = {"no", "bytes", "float", "int64"};

	return names[kind];
}

enum segue_kind segue_field_kind(const struct segue_field *field)
{
	bool real = segue_dtype_row(field->dtype)->number == SEGUE_NUMBER_FLOAT;

	return real ? SEGUE_KIND_FLOAT : SEGUE_KIND_INT64;
}

uint64_t segue_feature_limit(const struct segue_field *field)
{
	/* A tag and ten bytes for an unpacked integer; the rest leaves room for a few surplus. */
	return 11 * field->elements + 65536;
}

/* Bytes that are the values themselves; of most types any are. */
static bool bytes_fit(const struct segue_field *field, const uint8_t *bytes, size_t size)
{
	uint8_t all = 0;

	if (segue_dtype_row(field->dtype)->number != SEGUE_NUMBER_BOOL)
		return true;
	for (size_t i = 0; i < size; i++)
		all |= bytes[i];
	return all <= 1;
}

static bool integers_fit(const struct segue_field *field, const uint8_t *bytes, size_t size)
{
	const struct segue_dtype_row *dtype = segue_dtype_row(field->dtype);
	uint64_t count = 0;

	for (size_t at = 0; at < size; count++) {
		uint64_t value = bytes[at];
		size_t used = value < 128 ? 1 : segue_varint(bytes + at, size - at, &value);

		if (!used || !segue_dtype_fits(dtype, value))
			return false;
		at += used;
	}
	return count == field->elements;
}

bool segue_values_fit(
	const struct segue_field *field, enum segue_kind kind, const uint8_t *bytes, size_t size)
{
	if (kind == SEGUE_KIND_BYTES)
		return size == field->size && bytes_fit(field, bytes, size);
	if (kind != segue_field_kind(field))
		return false;
	if (kind == SEGUE_KIND_FLOAT)
		return size % 4 == 0 && size / 4 == field->elements;
	return integers_fit(field, bytes, size);
}

void segue_values_decode(const struct segue_field *field, enum segue_kind kind,
	const uint8_t *bytes, size_t size, void *out)
{
	const struct segue_dtype_row *dtype;
	size_t at = 0;

	if (kind == SEGUE_KIND_BYTES) {
		memcpy(out, bytes, size);
		return;
	}
	dtype = segue_dtype_row(field->dtype);
	if (kind == SEGUE_KIND_FLOAT) {
		segue_dtype_put_floats(dtype, out, 0, bytes, size / 4);
		return;
	}
	for (uint64_t i = 0; i < field->elements && at < size; i++) {
		uint64_t value = bytes[at];

		at += value < 128 ? 1 : segue_varint(bytes + at, size - at, &value);
		segue_dtype_put_integer(dtype, out, i, value);
	}
}

bool segue_feature_plain(const uint8_t *bytes, size_t length, enum segue_kind *kind, size_t *size)
{
	size_t at = 1, used;
	uint64_t left;

	if (length < 4 || (bytes[0] != 0x0a && bytes[0] != 0x12 && bytes[0] != 0x1a))
		return false;
	used = segue_varint(bytes + at, length - at, &left);
	at += used;
	if (!used || left != length - at || left == 0 || bytes[at] != 0x0a)
		return false;
	at++;
	used = segue_varint(bytes + at, length - at, &left);
	at += used;
	if (!used || left != length - at)
		return false;
	*kind = (enum segue_kind)(bytes[0] >> 3);
	*size = (size_t)left;
	return true;
}

/* Takes the next field off a message. */
static int next_part(const uint8_t **bytes, size_t *size, struct part *part)
{
	uint64_t tag, length = 0;
	size_t used = segue_varint(*bytes, *size, &tag);

	if (!used || tag > UINT32_MAX || tag < 8)
		return segue_fail(SEGUE_EDATA, "damaged message: no field begins here");
	*bytes += used;
	*size -= used;
	part->number = tag >> 3;
	part->wire = (enum wire)(tag & 7);
	used = 0;
	if (part->wire == WIRE_VARINT || part->wire == WIRE_BYTES) {
		used = segue_varint(*bytes, *size, &length);
		if (!used)
			return segue_fail(SEGUE_EDATA, "damaged message: a number does not end");
		part->value = length;
		length = part->wire == WIRE_BYTES ? length : 0;
	} else if (part->wire == WIRE_64 || part->wire == WIRE_32) {
		length = part->wire == WIRE_64 ? 8 : 4;
	} else {
		return segue_fail(SEGUE_EDATA, "damaged message: field %ju has wire type %d",
			(uintmax_t)part->number, (int)part->wire);
	}
	if (length > *size - used)
		return segue_fail(SEGUE_EDATA,
			"damaged message: field %ju is longer than what it is in",
			(uintmax_t)part->number);
	part->bytes = *bytes + used;
	part->size = (size_t)length;
	*bytes += used + part->size;
	*size -= used + part->size;
	return SEGUE_OK;
}

static int take_integer(struct sink *sink, uint64_t value)
{
	const struct segue_dtype_row *dtype = segue_dtype_row(sink->field->dtype);

	if (!segue_dtype_fits(dtype, value))
		return segue_fail(SEGUE_EDATA, "value %" PRId64 " does not fit %s", (int64_t)value,
			dtype->name);
	if (sink->out && sink->count < sink->field->elements)
		segue_dtype_put_integer(dtype, sink->out, sink->count, value);
	sink->count++;
	return SEGUE_OK;
}

static void take_floats(struct sink *sink, const uint8_t *bytes, size_t count)
{
	if (sink->out && sink->count < sink->field->elements) {
		uint64_t room = sink->field->elements - sink->count;

		segue_dtype_put_floats(segue_dtype_row(sink->field->dtype), sink->out, sink->count,
			bytes, count < room ? count : (size_t)room);
	}
	sink->count += count;
}

static int wrong_wire(const struct part *part, enum segue_kind kind)
{
	return segue_fail(SEGUE_EDATA, "damaged message: %s values have wire type %d",
		segue_kind_name(kind), (int)part->wire);
}

static int take_float_part(struct sink *sink, const struct part *part)
{
	if (part->wire != WIRE_32 && part->wire != WIRE_BYTES)
		return wrong_wire(part, SEGUE_KIND_FLOAT);
	if (part->size % 4)
		return segue_fail(
			SEGUE_EDATA, "damaged message: %zu bytes of packed floats", part->size);
	take_floats(sink, part->bytes, part->size / 4);
	return SEGUE_OK;
}

static int take_integer_part(struct sink *sink, const struct part *part)
{
	if (part->wire == WIRE_VARINT)
		return take_integer(sink, part->value);
	if (part->wire != WIRE_BYTES)
		return wrong_wire(part, SEGUE_KIND_INT64);
	for (size_t at = 0; at < part->size;) {
		uint64_t value;
		size_t used = segue_varint(part->bytes + at, part->size - at, &value);
		int rc;

		if (!used)
			return segue_fail(
				SEGUE_EDATA, "damaged message: a packed integer does not end");
		rc = take_integer(sink, value);
		if (rc < 0)
			return rc;
		at += used;
	}
	return SEGUE_OK;
}

static int take_bytes_part(struct sink *sink, const struct part *part)
{
	const struct segue_field *field = sink->field;

	if (part->wire != WIRE_BYTES)
		return wrong_wire(part, SEGUE_KIND_BYTES);
	if (sink->count)
		return segue_fail(SEGUE_EDATA,
			"several bytes values; expected one, with all of the %s values",
			segue_dtype_name(field->dtype));
	if (part->size != field->size)
		return segue_fail(SEGUE_EDATA,
			"a bytes value of %zu bytes, expected %ju (%ju values of %s)", part->size,
			(uintmax_t)field->size, (uintmax_t)field->elements,
			segue_dtype_name(field->dtype));
	if (!bytes_fit(field, part->bytes, part->size))
		return segue_fail(SEGUE_EDATA, "a byte that is neither 0 nor 1 does not fit bool");
	if (sink->out)
		memcpy(sink->out, part->bytes, part->size);
	sink->count = field->elements ? field->elements : 1;
	return SEGUE_OK;
}

static int take_list(struct sink *sink, enum segue_kind kind, const uint8_t *bytes, size_t size)
{
	while (size) {
		struct part part;
		int rc = next_part(&bytes, &size, &part);

		if (rc < 0)
			return rc;
		if (part.number != 1)
			continue;
		if (kind == SEGUE_KIND_FLOAT)
			rc = take_float_part(sink, &part);
		else if (kind == SEGUE_KIND_INT64)
			rc = take_integer_part(sink, &part);
		else
			rc = take_bytes_part(sink, &part);
		if (rc < 0)
			return rc;
	}
	return SEGUE_OK;
}

/* Finds the one list of a Feature; SEGUE_KIND_NONE if there is none. */
static int find_list(const uint8_t *bytes, size_t length, enum segue_kind *kind, struct part *list)
{
	*kind = SEGUE_KIND_NONE;
	while (length) {
		struct part part;
		int rc = next_part(&bytes, &length, &part);

		if (rc < 0)
			return rc;
		if (part.number < 1 || part.number > 3)
			continue;
		if (part.wire != WIRE_BYTES)
			return wrong_wire(&part, (enum segue_kind)part.number);
		if (*kind)
			return segue_fail(SEGUE_EDATA, "damaged message: a feature with two lists");
		*kind = (enum segue_kind)part.number;
		*list = part;
	}
	return SEGUE_OK;
}

int segue_feature_decode(
	const struct segue_field *field, const uint8_t *bytes, size_t length, void *out)
{
	struct sink sink = {.field = field, .out = out};
	enum segue_kind kind;
	struct part list;
	int rc = find_list(bytes, length, &kind, &list);

	if (rc < 0)
		return rc;
	if (kind > SEGUE_KIND_BYTES && kind != segue_field_kind(field))
		return segue_fail(SEGUE_EDATA, "holds %s values, but %s was declared",
			segue_kind_name(kind), segue_dtype_name(field->dtype));
	rc = kind ? take_list(&sink, kind, list.bytes, list.size) : SEGUE_OK;
	if (rc < 0)
		return rc;
	if (kind == SEGUE_KIND_BYTES && sink.count)
		return SEGUE_OK;
	if (sink.count != field->elements)
		return segue_fail(SEGUE_EDATA, "%ju values, expected %ju", (uintmax_t)sink.count,
			(uintmax_t)field->elements);
	return SEGUE_OK;
}

int segue_feature_text(const uint8_t *bytes, size_t length, const uint8_t **value, size_t *size)
{
	size_t count = 0, left;
	enum segue_kind kind;
	struct part list;
	int rc = find_list(bytes, length, &kind, &list);

	if (rc < 0)
		return rc;
	if (kind != SEGUE_KIND_BYTES)
		return segue_fail(SEGUE_EDATA, "holds %s values, but a key is one bytes value",
			segue_kind_name(kind));
	for (bytes = list.bytes, left = list.size; left;) {
		struct part part;

		rc = next_part(&bytes, &left, &part);
		if (rc < 0)
			return rc;
		if (part.number != 1)
			continue;
		if (part.wire != WIRE_BYTES)
			return wrong_wire(&part, SEGUE_KIND_BYTES);
		*value = part.bytes;
		*size = part.size;
		count++;
	}
	if (count != 1)
		return segue_fail(
			SEGUE_EDATA, "%zu bytes values, but a key is one bytes value", count);
	return SEGUE_OK;
}
