/* One Feature: the plain form at full speed, any other field by field. */
#include "source/tfrecord/feature.h"

#include <inttypes.h>
#include <string.h>

#include "core/dtype.h"
#include "core/error.h"
#include "source/source.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "floats on the wire are little-endian");

/* Values on their way to a field. */
struct sink {
	const struct segue_field *field;
	uint8_t *out;   /* NULL: only checked and counted */
	uint64_t count; /* may exceed field->elements; nothing is written beyond */
	/* Of a key, which has no field: */
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
		return size % 4 == 0 && size / 4 == field->elements &&
		       segue_dtype_floats_fit(segue_dtype_row(field->dtype), bytes, size / 4);
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

int segue_feature_fail_integer(const struct segue_field *field, uint64_t value)
{
	return segue_fail(SEGUE_EMISFIT, "value %" PRId64 " does not fit %s", (int64_t)value,
		segue_dtype_name(field->dtype));
}

int segue_feature_fail_float(const struct segue_field *field, const uint8_t *bytes)
{
	float value;

	memcpy(&value, bytes, sizeof(value));
	return segue_fail(SEGUE_EMISFIT, "value %.9g does not fit %s exactly: declare float32",
		(double)value, segue_dtype_name(field->dtype));
}

static int take_integer(struct sink *sink, uint64_t value)
{
	const struct segue_dtype_row *dtype = segue_dtype_row(sink->field->dtype);

	if (!segue_dtype_fits(dtype, value))
		return segue_feature_fail_integer(sink->field, value);
	if (sink->out && sink->count < sink->field->elements)
		segue_dtype_put_integer(dtype, sink->out, sink->count, value);
	sink->count++;
	return 0;
}

static int take_floats(struct sink *sink, const uint8_t *bytes, size_t count)
{
	const struct segue_dtype_row *dtype = segue_dtype_row(sink->field->dtype);
	size_t misfit = segue_dtype_find_misfit(dtype, bytes, count);

	if (misfit < count)
		return segue_feature_fail_float(sink->field, bytes + misfit * sizeof(float));
	if (sink->out && sink->count < sink->field->elements) {
		uint64_t room = sink->field->elements - sink->count;

		segue_dtype_put_floats(
			dtype, sink->out, sink->count, bytes, count < room ? count : (size_t)room);
	}
	sink->count += count;
	return 0;
}

int segue_feature_fail_wire(const struct segue_part *part, enum segue_kind kind)
{
	return segue_fail(SEGUE_EDATA, "damaged message: %s values have wire type %d",
		segue_kind_name(kind), (int)part->wire);
}

static int take_float_part(struct sink *sink, const struct segue_part *part)
{
	uint64_t size = segue_piece_size(&part->inner);

	if (part->wire != SEGUE_WIRE_32 && part->wire != SEGUE_WIRE_BYTES)
		return segue_feature_fail_wire(part, SEGUE_KIND_FLOAT);
	if (size % 4)
		return segue_fail(
			SEGUE_EDATA, "damaged message: %" PRIu64 " bytes of packed floats", size);
	return take_floats(sink, segue_piece_bytes(&part->inner), (size_t)size / 4);
}

static int take_integer_part(struct sink *sink, const struct segue_part *part)
{
	size_t size = (size_t)segue_piece_size(&part->inner);

	if (part->wire == SEGUE_WIRE_VARINT)
		return take_integer(sink, part->value);
	if (part->wire != SEGUE_WIRE_BYTES)
		return segue_feature_fail_wire(part, SEGUE_KIND_INT64);
	const uint8_t *bytes = segue_piece_bytes(&part->inner);
	for (size_t at = 0; at < size;) {
		uint64_t value;
		size_t used = segue_varint(bytes + at, size - at, &value);

		if (!used)
			return segue_fail(
				SEGUE_EDATA, "damaged message: a packed integer does not end");
		int rc = take_integer(sink, value);
		if (rc)
			return rc;
		at += used;
	}
	return 0;
}

static int take_bytes_part(struct sink *sink, const struct segue_part *part)
{
	const struct segue_field *field = sink->field;
	size_t size = (size_t)segue_piece_size(&part->inner);

	if (part->wire != SEGUE_WIRE_BYTES)
		return segue_feature_fail_wire(part, SEGUE_KIND_BYTES);
	const uint8_t *bytes = segue_piece_bytes(&part->inner);
	if (!field) {
		sink->text = bytes;
		sink->text_size = size;
		sink->count++;
		return 0;
	}
	if (sink->count)
		return segue_fail(SEGUE_EMISFIT,
			"several bytes values; expected one, with all of the %s values",
			segue_dtype_name(field->dtype));
	if (size != field->size)
		return segue_fail(SEGUE_EMISFIT,
			"a bytes value of %zu bytes, expected %" PRIu64 " (%" PRIu64
			" values of %s)",
			size, field->size, field->elements, segue_dtype_name(field->dtype));
	if (!bytes_fit(field, bytes, size))
		return segue_fail(
			SEGUE_EMISFIT, "a byte that is neither 0 nor 1 does not fit bool");
	if (sink->out)
		memcpy(sink->out, bytes, size);
	sink->count = field->elements ? field->elements : 1;
	return 0;
}

static int take_list(struct sink *sink, enum segue_kind kind, struct segue_piece list)
{
	while (list.at < list.end) {
		struct segue_part part;

		int rc = segue_piece_take(&list, &part);
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
	enum segue_kind kind;    /* SEGUE_KIND_NONE: there are none */
	struct segue_piece from; /* from the first of them to the end of the Feature */
	struct segue_piece only; /* the list, if it is but one */
	bool several;
};

static int find_lists(struct segue_piece feature, struct lists *lists)
{
	*lists = (struct lists){.kind = SEGUE_KIND_NONE};
	while (feature.at < feature.end) {
		struct lists here = {.from = feature};
		struct segue_part part;

		int rc = segue_piece_take(&feature, &part);
		if (rc)
			return rc;
		if (part.number > SEGUE_KIND_INT64)
			continue;
		here.kind = (enum segue_kind)part.number;
		here.only = part.inner;
		if (part.wire != SEGUE_WIRE_BYTES)
			return segue_feature_fail_wire(&part, here.kind);
		if (here.kind != lists->kind)
			*lists = here;
		else
			lists->several = true;
	}
	return 0;
}

/* They have been gone through once: their Feature is not damaged. */
static int take_lists(struct sink *sink, const struct lists *lists)
{
	struct segue_piece left = lists->from;
	int rc = 0;

	if (!lists->several)
		return take_list(sink, lists->kind, lists->only);
	while (!rc && left.at < left.end) {
		struct segue_part part;

		rc = segue_piece_take(&left, &part);
		if (!rc && part.number == (uint64_t)lists->kind)
			rc = take_list(sink, lists->kind, part.inner);
	}
	return rc;
}

/* Those that the field may have. */
static int find_own_lists(
	const struct segue_field *field, struct segue_piece feature, struct lists *lists)
{
	bool text = field->form == SEGUE_FORM_BYTES;
	int rc = find_lists(feature, lists);

	if (rc || lists->kind <= SEGUE_KIND_BYTES ||
		(!text && lists->kind == segue_field_kind(field)))
		return rc;
	return segue_fail(SEGUE_EMISFIT, "holds %s values, but %s was declared",
		segue_kind_name(lists->kind),
		text ? segue_form_name(field->form) : segue_dtype_name(field->dtype));
}

int segue_feature_lists(const struct segue_field *field, struct segue_piece feature,
	enum segue_kind *kind, struct segue_piece *from)
{
	struct lists lists;

	int rc = find_own_lists(field, feature, &lists);
	if (rc)
		return rc;
	*kind = lists.kind;
	*from = lists.from;
	return 0;
}

int segue_feature_decode(const struct segue_field *field, struct segue_piece feature, void *out)
{
	struct sink sink = {.field = field, .out = out};
	struct lists lists;

	int rc = find_own_lists(field, feature, &lists);
	if (!rc)
		rc = take_lists(&sink, &lists);
	if (rc)
		return rc;
	if (lists.kind == SEGUE_KIND_BYTES && sink.count)
		return 0;
	if (sink.count != field->elements)
		return segue_fail(SEGUE_EMISFIT,
			"%" PRIu64 " value%s, expected %" PRIu64 " (its declared shape)",
			sink.count, sink.count == 1 ? "" : "s", field->elements);
	return 0;
}

int segue_feature_text(struct segue_piece feature, const uint8_t **value, size_t *size)
{
	struct sink sink = {.field = NULL};
	struct lists lists;

	int rc = find_lists(feature, &lists);
	if (rc)
		return rc;
	if (lists.kind != SEGUE_KIND_BYTES)
		return segue_fail(SEGUE_EMISFIT, "holds %s values, but a key is one bytes value",
			segue_kind_name(lists.kind));
	rc = take_lists(&sink, &lists);
	if (rc)
		return rc;
	if (sink.count != 1)
		return segue_fail(SEGUE_EMISFIT,
			"%" PRIu64 " bytes values, but a key is one bytes value", sink.count);
	*value = sink.text;
	*size = sink.text_size;
	return 0;
}
