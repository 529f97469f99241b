/*
 * A protobuf message in a record, field by field, through the record's window.
 *
 * As a protobuf parser reads it: fields in any order, groups and numbers that nobody knows passed
 * over. A known field of another wire type is an error, though: a parser would lose what it holds.
 */
#ifndef SEGUE_SOURCE_TFRECORD_MESSAGE_H
#define SEGUE_SOURCE_TFRECORD_MESSAGE_H

#include "source/tfrecord/window.h"
#include "source/tfrecord/wire.h"

/* A message, or what is left of one, in the record. */
struct segue_piece {
	struct segue_window *window;
	uint64_t at, end;
};

static inline uint64_t segue_piece_size(const struct segue_piece *span)
{
	return span->end - span->at;
}

/* Its bytes, which the window has. */
static inline const uint8_t *segue_piece_bytes(const struct segue_piece *piece)
{
	return piece->window->bytes + (piece->at - piece->window->start);
}

/* A field of a message. */
struct segue_part {
	uint64_t number;
	enum segue_wire wire;
	uint64_t value;           /* of a varint */
	struct segue_piece inner; /* bytes, or those of a number; of a group, its `at` is 0 */
};

/*
 * Takes the next field off a message that is not at its end. SEGUE_EDATA: the message is damaged;
 * else what the window returns.
 */
int segue_piece_take(struct segue_piece *span, struct segue_part *part);
/*
 * The same of a message whose fields hold messages if their number is at most `known`: its number,
 * and *inner.
 */
int segue_piece_take_message(
	struct segue_piece *span, uint64_t known, uint64_t *number, struct segue_piece *inner);

#endif
