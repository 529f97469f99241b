/* C10: protobuf messages that unpack to far more than they weigh. */
#include "hostile.h"

#include <stdio.h>

static uint8_t bomb[SEGUE_FRAME_MAX];

/* Fills the payload with copies of a few bytes. */
static void fill(const void *piece, size_t size)
{
	for (size_t i = 0; i < sizeof(bomb); i++)
		bomb[i] = ((const uint8_t *)piece)[i % size];
}

/* Sends a message of type `type` that consists of the pieces; an answer or the end must come. */
static void throw_bomb(const struct hostile *hostile, uint16_t type, size_t size, const char *what)
{
	struct raw raw;

	raw_open(hostile->dir, &raw);
	raw_send_frame(&raw, type, 0, (uint32_t)size, bomb, size);
	EXPECT(raw_receive(&raw, 20000) != 0, "%s: no answer", what);
	EXPECT(raw.reply.type != SEGUE_MESSAGE_OPENED, "%s: accepted", what);
	for (unsigned i = 0; i < raw.fd_count; i++)
		close(raw.fds[i]);
	raw_close(&raw);
}

/* StreamOpen.spec (field 2) of nothing but `piece`. */
static void throw_spec(
	const struct hostile *hostile, const void *piece, size_t piece_size, const char *what)
{
	size_t inner = (sizeof(bomb) - 8) / piece_size * piece_size;

	fill(piece, piece_size);
	memmove(bomb + 4, bomb, inner);
	bomb[0] = 2 << 3 | 2;
	bomb[1] = (uint8_t)(inner & 0x7f) | 0x80;
	bomb[2] = (uint8_t)(inner >> 7 & 0x7f) | 0x80;
	bomb[3] = (uint8_t)(inner >> 14);
	throw_bomb(hostile, SEGUE_MESSAGE_STREAM_OPEN, inner + 4, what);
}

void attack_bombs(struct hostile *hostile)
{
	unsigned rounds = 0;

	for (; rounds < 3 || hostile_time_left(hostile); rounds++) {
		throw_spec(hostile, "\x32\x00", 2, "empty sequence features");
		throw_spec(hostile, "\x42\x00", 2, "empty states");
		throw_spec(hostile, "\x12\x00", 2, "empty paths");
		throw_spec(hostile, "\x42\x04\x1a\x02\x01\x01", 6, "states with dims");
		throw_spec(hostile, "\xf8\x07\x00", 3, "unknown fields in the spec");
		throw_spec(hostile, "\xfa\x07\x00", 3, "unknown bytes in the spec");
		fill("\xf8\x07\x00", 3);
		for (uint16_t type = SEGUE_MESSAGE_STREAM_OPEN; type <= SEGUE_MESSAGE_REPORT;
			type++)
			throw_bomb(hostile, type, sizeof(bomb) / 3 * 3, "unknown fields");
		fill("\xfb\x07", 2); /* groups in groups in groups */
		throw_bomb(hostile, SEGUE_MESSAGE_REPORT, sizeof(bomb), "groups");
		fill("\xff", 1);
		throw_bomb(hostile, SEGUE_MESSAGE_REPORT, sizeof(bomb), "an endless varint");
		fill("\x1a\xff\xff\xff\xff\x0f", 6);
		throw_bomb(hostile, SEGUE_MESSAGE_REPORT, sizeof(bomb), "a string of 4 GiB");
	}
	printf("%u rounds of bombs\n", rounds);
}
