/* Fields of a message in a record. */
#include "source/tfrecord/message.h"

#include <inttypes.h>

#include "core/error.h"

static int take_varint(struct segue_piece *span, uint64_t *value)
{
	uint64_t left = segue_piece_size(span);
	size_t size = left < 10 ? (size_t)left : 10, used;
	const uint8_t *bytes;

	int rc = segue_window_at(span->window, span->at, size, &bytes);
	if (rc)
		return rc;
	used = segue_varint(bytes, size, value);
	if (!used)
		return segue_fail(SEGUE_EDATA,
			"damaged message: a number does not end (byte %" PRIu64 ")", span->at);
	span->at += used;
	return 0;
}

/* Takes a length and makes *inner the bytes that it counts, which come next. */
static int take_length(struct segue_piece *span, struct segue_piece *inner)
{
	uint64_t begin = span->at, length;

	int rc = take_varint(span, &length);
	if (rc)
		return rc;
	if (length > segue_piece_size(span))
		return segue_fail(SEGUE_EDATA,
			"damaged message: a length of %" PRIu64 " bytes goes beyond what it is in "
			"(byte %" PRIu64 ")",
			length, begin);
	*inner = (struct segue_piece){span->window, span->at, span->at + length};
	return 0;
}

static int take_tag(struct segue_piece *span, uint64_t *number, enum segue_wire *wire)
{
	uint64_t begin = span->at, tag;

	int rc = take_varint(span, &tag);
	if (rc)
		return rc;
	if (tag > UINT32_MAX || tag < 8)
		return segue_fail(
			SEGUE_EDATA, "damaged message: no field begins at byte %" PRIu64, begin);
	*number = tag >> 3;
	*wire = (enum segue_wire)(tag & 7);
	return 0;
}

/* Passes over a field's value that is no group; *inner is the bytes that it holds. */
static int take_value(
	struct segue_piece *span, uint64_t number, enum segue_wire wire, struct segue_piece *inner)
{
	uint64_t size;
	int rc;

	switch (wire) {
	case SEGUE_WIRE_VARINT:
		return take_varint(span, &size);
	case SEGUE_WIRE_BYTES:
		rc = take_length(span, inner);
		if (!rc)
			span->at = inner->end;
		return rc;
	case SEGUE_WIRE_32:
	case SEGUE_WIRE_64:
		size = wire == SEGUE_WIRE_32 ? 4 : 8;
		if (size > segue_piece_size(span))
			return segue_fail(SEGUE_EDATA, "damaged message: it ends within a number");
		span->at += size;
		return 0;
	case SEGUE_WIRE_GROUP:
	case SEGUE_WIRE_GROUP_END:
		break;
	}
	return segue_fail(SEGUE_EDATA,
		"damaged message: field %" PRIu64 " before byte %" PRIu64 " has wire type %d",
		number, span->at, (int)wire);
}

/* Passes over a group, behind its first tag. */
static int skip_group(struct segue_piece *span, uint64_t number)
{
	uint64_t open[SEGUE_GROUPS_MAX] = {number};
	size_t depth = 1;

	while (depth) {
		struct segue_piece inner;
		enum segue_wire wire = SEGUE_WIRE_VARINT;

		int rc = take_tag(span, &number, &wire);
		if (!rc && wire == SEGUE_WIRE_GROUP && depth < SEGUE_GROUPS_MAX)
			open[depth++] = number;
		else if (!rc && wire == SEGUE_WIRE_GROUP_END && number == open[depth - 1])
			depth--;
		else if (!rc)
			rc = take_value(span, number, wire, &inner);
		if (rc)
			return rc;
	}
	return 0;
}

static int take(struct segue_piece *span, uint64_t *number, enum segue_wire *wire,
	struct segue_piece *inner)
{
	int rc = take_tag(span, number, wire);

	*inner = (struct segue_piece){span->window, 0, 0};
	if (rc)
		return rc;
	if (*wire == SEGUE_WIRE_GROUP)
		return skip_group(span, *number);
	return take_value(span, *number, *wire, inner);
}

int segue_piece_take(struct segue_piece *span, uint64_t *number, struct segue_piece *inner)
{
	enum segue_wire wire = SEGUE_WIRE_VARINT;

	return take(span, number, &wire, inner);
}

int segue_piece_take_message(
	struct segue_piece *span, uint64_t known, uint64_t *number, struct segue_piece *inner)
{
	uint64_t begin = span->at;
	enum segue_wire wire = SEGUE_WIRE_VARINT;

	int rc = take(span, number, &wire, inner);
	if (rc || *number > known || wire == SEGUE_WIRE_BYTES)
		return rc;
	return segue_fail(SEGUE_EDATA,
		"damaged message: field %" PRIu64 " at byte %" PRIu64
		" should hold bytes and holds a %s",
		*number, begin, wire == SEGUE_WIRE_GROUP ? "group (wire type 3)" : "number");
}
