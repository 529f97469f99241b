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

/*
 * Takes the next field off a message that is not at its end: its number, and if it holds bytes,
 * *inner is them, else inner->at is 0. SEGUE_EDATA: the message is damaged; else what the window
 * returns.
 */
int segue_piece_take(struct segue_piece *span, uint64_t *number, struct segue_piece *inner);
/* The same, for fields that hold messages if their number is at most `known`. */
int segue_piece_take_message(
	struct segue_piece *span, uint64_t known, uint64_t *number, struct segue_piece *inner);

#endif
