/* Fields of a message in a record. */
#include "source/tfrecord/message.h"

#include <inttypes.h>

#include "core/error.h"

/* Of more than one byte, or at the end of the window. */
static int take_long_varint(struct segue_piece *span, uint64_t *value)
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

static inline int take_varint(struct segue_piece *span, uint64_t *value)
{
	const struct segue_window *window = span->window;

	if (span->at < window->start || span->at >= window->end || span->at >= span->end ||
		*segue_piece_bytes(span) > 127)
		return take_long_varint(span, value);
	*value = *segue_piece_bytes(span);
	span->at++;
	return 0;
}

/* Makes *inner the next `length` bytes. */
static inline int take_bytes(struct segue_piece *span, uint64_t length, struct segue_piece *inner)
{
	if (length > segue_piece_size(span))
		return segue_fail(SEGUE_EDATA,
			"damaged message: a length of %" PRIu64 " bytes goes beyond what it is in "
			"(byte %" PRIu64 ")",
			length, span->at);
	*inner = (struct segue_piece){span->window, span->at, span->at + length};
	span->at += length;
	return 0;
}

static inline int take_tag(struct segue_piece *span, struct segue_part *part)
{
	uint64_t begin = span->at, tag = 0;

	int rc = take_varint(span, &tag);
	if (rc)
		return rc;
	if (tag > UINT32_MAX || tag < 8)
		return segue_fail(
			SEGUE_EDATA, "damaged message: no field begins at byte %" PRIu64, begin);
	*part = (struct segue_part){
		.number = tag >> 3, .wire = (enum segue_wire)(tag & 7), .inner = {span->window}};
	return 0;
}

/* Takes a field's value that is no group. */
static inline int take_value(struct segue_piece *span, struct segue_part *part)
{
	uint64_t length = 0;
	int rc;

	switch (part->wire) {
	case SEGUE_WIRE_VARINT:
		part->inner.at = span->at;
		rc = take_varint(span, &part->value);
		part->inner.end = span->at;
		return rc;
	case SEGUE_WIRE_BYTES:
		rc = take_varint(span, &length);
		return rc ? rc : take_bytes(span, length, &part->inner);
	case SEGUE_WIRE_32:
	case SEGUE_WIRE_64:
		length = part->wire == SEGUE_WIRE_32 ? 4 : 8;
		if (length > segue_piece_size(span))
			return segue_fail(SEGUE_EDATA, "damaged message: it ends within a number");
		return take_bytes(span, length, &part->inner);
	case SEGUE_WIRE_GROUP:
	case SEGUE_WIRE_GROUP_END:
		break;
	}
	return segue_fail(SEGUE_EDATA,
		"damaged message: field %" PRIu64 " before byte %" PRIu64 " has wire type %d",
		part->number, span->at, (int)part->wire);
}

/* Passes over a group, behind its first tag. */
static int skip_group(struct segue_piece *span, uint64_t number)
{
	uint64_t open[SEGUE_GROUPS_MAX] = {number};
	size_t depth = 1;

	while (depth) {
		struct segue_part part = {0};

		int rc = take_tag(span, &part);
		if (!rc && part.wire == SEGUE_WIRE_GROUP && depth < SEGUE_GROUPS_MAX)
			open[depth++] = part.number;
		else if (!rc && part.wire == SEGUE_WIRE_GROUP_END && part.number == open[depth - 1])
			depth--;
		else if (!rc)
			rc = take_value(span, &part);
		if (rc)
			return rc;
	}
	return 0;
}

int segue_piece_take(struct segue_piece *span, struct segue_part *part)
{
	int rc = take_tag(span, part);

	if (rc)
		return rc;
	return part->wire == SEGUE_WIRE_GROUP ? skip_group(span, part->number)
					      : take_value(span, part);
}

int segue_piece_take_message(
	struct segue_piece *span, uint64_t known, uint64_t *number, struct segue_piece *inner)
{
	uint64_t begin = span->at;
	struct segue_part part = {0};

	int rc = segue_piece_take(span, &part);
	if (rc)
		return rc;
	*number = part.number;
	*inner = part.inner;
	if (*number > known || part.wire == SEGUE_WIRE_BYTES)
		return 0;
	return segue_fail(SEGUE_EDATA,
		"damaged message: field %" PRIu64 " at byte %" PRIu64
		" should hold bytes and holds a %s",
		*number, begin, part.wire == SEGUE_WIRE_GROUP ? "group (wire type 3)" : "number");
}
