/*
 * Fuzzes the frame reader: whatever the bytes and however they are cut, the frames are those that a
 * second, plain reading of the stream finds.
 *
 * The first byte is how the rest is cut (bits 1 to 7) and whether fds are accepted (bit 0). For
 * libFuzzer, or with replay_main.c as a program that runs files.
 */
#include "core/frame.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

static uint32_t little(const uint8_t *bytes, size_t count)
{
	uint32_t value = 0;

	while (count-- > 0)
		value = value << 8 | bytes[count];
	return value;
}

/* What the reader must say when it has seen `size` bytes of what is left of the stream. */
static int expected(const uint8_t *bytes, size_t size)
{
	if (size < 12)
		return 0;
	if (memcmp(bytes, "SGF1", 4) != 0 || little(bytes + 6, 2) != 0 ||
		little(bytes + 8, 4) > 65536)
		return SEGUE_EPROTOCOL;
	return size - 12 >= little(bytes + 8, 4);
}

/* Reads until nothing whole is left; false once the connection is broken. */
static bool drain(struct segue_frame_reader *reader, int socket, const uint8_t *bytes, size_t sent,
	size_t *done)
{
	struct segue_frame frame;

	for (;;) {
		const uint8_t *head = bytes + *done;
		int rc = segue_frame_read(reader, socket, &frame);

		expect(rc == expected(head, sent - *done));
		if (rc != 1)
			return rc == 0;
		expect(frame.type == little(head + 4, 2) && frame.fd_count == 0);
		expect(frame.size == little(head + 8, 4));
		expect(memcmp(frame.payload, head + 12, frame.size) == 0);
		*done += 12 + frame.size;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct segue_frame_reader reader;
	size_t cut, sent = 0, done = 0;
	int ends[2];

	if (size == 0)
		return 0;
	expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
	segue_frame_reader_init(&reader, data[0] & 1);
	cut = (size_t)(data[0] >> 1) * 97 + 1;
	data++;
	size--;
	while (sent < size) {
		size_t part = size - sent < cut ? size - sent : cut;

		expect(send(ends[0], data + sent, part, 0) == (ssize_t)part);
		sent += part;
		if (!drain(&reader, ends[1], data, sent, &done))
			break;
	}
	segue_frame_reader_finish(&reader);
	close(ends[0]);
	close(ends[1]);
	return 0;
}
