/* One Feature: the plain form at full speed, any other field by field. */
#include "source/tfrecord/feature.h"

#include <inttypes.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"
#include "source/source.h"
#include "source/tfrecord/wire.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "floats on the wire are little-endian");

/* A field of a message: its number, and its value by wire type. */
struct part {
	uint64_t number;
	enum segue_wire wire;
	uint64_t value;       /* SEGUE_WIRE_VARINT */
	const uint8_t *bytes; /* otherwise */
	size_t size;
};

/* Values on their way to a field. */
struct sink {
	const struct segue_field *field;
	uint8_t *out;   /* NULL: only checked and counted */
	uint64_t count; /* may exceed field->elements; nothing is written beyond */
	/* Of a key: */
	const uint8_t *text;
	size_t text_size;
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

static inline int take_varint(const uint8_t **bytes, size_t *size, uint64_t *value)
{
	size_t used = segue_varint(*bytes, *size, value);

	if (!used)
		return segue_fail(SEGUE_EDATA, "damaged message: a number does not end");
	*bytes += used;
	*size -= used;
	return 0;
}

static inline int take_tag(const uint8_t **bytes, size_t *size, struct part *part)
{
	uint64_t tag;
	size_t used = segue_varint(*bytes, *size, &tag);

	if (!used || tag > UINT32_MAX || tag < 8)
		return segue_fail(SEGUE_EDATA, "damaged message: no field begins here");
	*bytes += used;
	*size -= used;
	part->number = tag >> 3;
	part->wire = (enum segue_wire)(tag & 7);
	return 0;
}

/* Takes a field's value that is no group. */
static inline int take_value(const uint8_t **bytes, size_t *size, struct part *part)
{
	uint64_t length = 0;
	int rc = 0;

	switch (part->wire) {
	case SEGUE_WIRE_VARINT:
		rc = take_varint(bytes, size, &part->value);
		break;
	case SEGUE_WIRE_BYTES:
		rc = take_varint(bytes, size, &length);
		break;
	case SEGUE_WIRE_64:
		length = 8;
		break;
	case SEGUE_WIRE_32:
		length = 4;
		break;
	case SEGUE_WIRE_GROUP:
	case SEGUE_WIRE_GROUP_END:
	default: /* what the wire can hold and the type does not name */
		return segue_fail(SEGUE_EDATA,
			"damaged message: field %" PRIu64 " has wire type %d", part->number,
			(int)part->wire);
	}
	if (rc)
		return rc;
	if (length > *size)
		return segue_fail(SEGUE_EDATA,
			"damaged message: field %" PRIu64 " is longer than what it is in",
			part->number);
	part->bytes = *bytes;
	part->size = (size_t)length;
	*bytes += length;
	*size -= length;
	return 0;
}

/* Passes over a group, behind its first tag. */
static int skip_group(const uint8_t **bytes, size_t *size, uint64_t number)
{
	uint64_t open[SEGUE_GROUPS_MAX] = {number};
	size_t depth = 1;

	while (depth) {
		struct part part = {0};

		int rc = take_tag(bytes, size, &part);
		if (!rc && part.wire == SEGUE_WIRE_GROUP && depth < SEGUE_GROUPS_MAX)
			open[depth++] = part.number;
		else if (!rc && part.wire == SEGUE_WIRE_GROUP_END && part.number == open[depth - 1])
			depth--;
		else if (!rc)
			rc = take_value(bytes, size, &part);
		if (rc)
			return rc;
	}
	return 0;
}

/* Takes the next field off a message. */
static inline int next_part(const uint8_t **bytes, size_t *size, struct part *part)
{
	*part = (struct part){0};
	int rc = take_tag(bytes, size, part);
	if (rc)
		return rc;
	if (part->wire == SEGUE_WIRE_GROUP)
		return skip_group(bytes, size, part->number);
	return take_value(bytes, size, part);
}

static int take_integer(struct sink *sink, uint64_t value)
{
	const struct segue_dtype_row *dtype = segue_dtype_row(sink->field->dtype);

	if (!segue_dtype_fits(dtype, value))
		return segue_fail(SEGUE_EMISFIT, "value %" PRId64 " does not fit %s",
			(int64_t)value, dtype->name);
	if (sink->out && sink->count < sink->field->elements)
		segue_dtype_put_integer(dtype, sink->out, sink->count, value);
	sink->count++;
	return 0;
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
	if (part->wire != SEGUE_WIRE_32 && part->wire != SEGUE_WIRE_BYTES)
		return wrong_wire(part, SEGUE_KIND_FLOAT);
	if (part->size % 4)
		return segue_fail(
			SEGUE_EDATA, "damaged message: %zu bytes of packed floats", part->size);
	take_floats(sink, part->bytes, part->size / 4);
	return 0;
}

static int take_integer_part(struct sink *sink, const struct part *part)
{
	if (part->wire == SEGUE_WIRE_VARINT)
		return take_integer(sink, part->value);
	if (part->wire != SEGUE_WIRE_BYTES)
		return wrong_wire(part, SEGUE_KIND_INT64);
	for (size_t at = 0; at < part->size;) {
		uint64_t value;
		size_t used = segue_varint(part->bytes + at, part->size - at, &value);
		int rc;

		if (!used)
			return segue_fail(
				SEGUE_EDATA, "damaged message: a packed integer does not end");
		rc = take_integer(sink, value);
		if (rc)
			return rc;
		at += used;
	}
	return 0;
}

static int take_bytes_part(struct sink *sink, const struct part *part)
{
	const struct segue_field *field = sink->field;

	if (part->wire != SEGUE_WIRE_BYTES)
		return wrong_wire(part, SEGUE_KIND_BYTES);
	if (sink->count)
		return segue_fail(SEGUE_EMISFIT,
			"several bytes values; expected one, with all of the %s values",
			segue_dtype_name(field->dtype));
	if (part->size != field->size)
		return segue_fail(SEGUE_EMISFIT,
			"a bytes value of %zu bytes, expected %" PRIu64 " (%" PRIu64
			" values of %s)",
			part->size, field->size, field->elements, segue_dtype_name(field->dtype));
	if (!bytes_fit(field, part->bytes, part->size))
		return segue_fail(
			SEGUE_EMISFIT, "a byte that is neither 0 nor 1 does not fit bool");
	if (sink->out)
		memcpy(sink->out, part->bytes, part->size);
	sink->count = field->elements ? field->elements : 1;
	return 0;
}

static int take_list(struct sink *sink, enum segue_kind kind, const uint8_t *bytes, size_t size)
{
	while (size) {
		struct part part;
		int rc = next_part(&bytes, &size, &part);

		if (rc)
			return rc;
		if (part.number != 1)
			continue;
		if (kind == SEGUE_KIND_FLOAT)
			rc = take_float_part(sink, &part);
		else if (kind == SEGUE_KIND_INT64)
			rc = take_integer_part(sink, &part);
		else
			rc = take_bytes_part(sink, &part);
		if (rc)
			return rc;
	}
	return 0;
}

/* The lists of a Feature that count: those of the kind that comes last, behind any other. */
struct lists {
	enum segue_kind kind; /* SEGUE_KIND_NONE: there are none */
	const uint8_t *bytes; /* from the first of them to the end of the Feature */
	size_t size;
	struct part only; /* the list, if it is but one */
	bool several;
};

static int find_lists(const uint8_t *bytes, size_t length, struct lists *lists)
{
	*lists = (struct lists){.kind = SEGUE_KIND_NONE, .bytes = bytes};
	while (length) {
		struct lists here = {.bytes = bytes, .size = length};
		struct part part;

		int rc = next_part(&bytes, &length, &part);
		if (rc)
			return rc;
		if (part.number < 1 || part.number > 3)
			continue;
		here.kind = (enum segue_kind)part.number;
		if (part.wire != SEGUE_WIRE_BYTES)
			return wrong_wire(&part, here.kind);
		here.only = part;
		if (here.kind != lists->kind)
			*lists = here;
		else
			lists->several = true;
	}
	return 0;
}

/* Calls `take` for each list. They have been gone through once: their Feature is not damaged. */
static int take_lists(struct sink *sink, const struct lists *lists,
	int (*take)(struct sink *sink, enum segue_kind kind, const uint8_t *bytes, size_t size))
{
	const uint8_t *bytes = lists->bytes;
	size_t size = lists->size;
	int rc = 0;

	if (lists->kind && !lists->several)
		return take(sink, lists->kind, lists->only.bytes, lists->only.size);
	while (!rc && size) {
		struct part part;

		rc = next_part(&bytes, &size, &part);
		if (!rc && part.number == (uint64_t)lists->kind)
			rc = take(sink, lists->kind, part.bytes, part.size);
	}
	return rc;
}

int segue_feature_decode(
	const struct segue_field *field, const uint8_t *bytes, size_t length, void *out)
{
	struct sink sink = {.field = field, .out = out};
	struct lists lists;

	int rc = find_lists(bytes, length, &lists);
	if (rc)
		return rc;
	if (lists.kind > SEGUE_KIND_BYTES && lists.kind != segue_field_kind(field))
		return segue_fail(SEGUE_EMISFIT, "holds %s values, but %s was declared",
			segue_kind_name(lists.kind), segue_dtype_name(field->dtype));
	rc = take_lists(&sink, &lists, take_list);
	if (rc)
		return rc;
	if (lists.kind == SEGUE_KIND_BYTES && sink.count)
		return 0;
	if (sink.count != field->elements)
		return segue_fail(SEGUE_EMISFIT, "%" PRIu64 " values, expected %" PRIu64,
			sink.count, field->elements);
	return 0;
}

/* Counts bytes values, and keeps where the last one is. */
static int take_text(struct sink *sink, enum segue_kind kind, const uint8_t *bytes, size_t size)
{
	while (size) {
		struct part part;

		int rc = next_part(&bytes, &size, &part);
		if (rc)
			return rc;
		if (part.number != 1)
			continue;
		if (part.wire != SEGUE_WIRE_BYTES)
			return wrong_wire(&part, kind);
		sink->text = part.bytes;
		sink->text_size = part.size;
		sink->count++;
	}
	return 0;
}

int segue_feature_text(const uint8_t *bytes, size_t length, const uint8_t **value, size_t *size)
{
	struct sink sink = {.field = NULL};
	struct lists lists;

	int rc = find_lists(bytes, length, &lists);
	if (rc)
		return rc;
	if (lists.kind != SEGUE_KIND_BYTES)
		return segue_fail(SEGUE_EMISFIT, "holds %s values, but a key is one bytes value",
			segue_kind_name(lists.kind));
	rc = take_lists(&sink, &lists, take_text);
	if (rc)
		return rc;
	if (sink.count != 1)
		return segue_fail(SEGUE_EMISFIT,
			"%" PRIu64 " bytes values, but a key is one bytes value", sink.count);
	*value = sink.text;
	*size = sink.text_size;
	return 0;
}
