/* C8: frames that are none: wrong, too large, cut short, and mutated at random. */
#include "hostile.h"

#include <stdio.h>
#include <sys/socket.h>

enum { SMALL = 64 };

struct bad {
	const char *what;
	uint16_t type, fds;
	uint32_t size;
	size_t sent; /* bytes of payload that come */
};

static const struct bad bads[] = {
	{"size of 64 KiB + 1", SEGUE_MESSAGE_REPORT, 0, SEGUE_FRAME_MAX + 1, 8},
	{"size of 2^32 - 1", SEGUE_MESSAGE_REPORT, 0, UINT32_MAX, 8},
	{"size of 2^31", SEGUE_MESSAGE_REPORT, 0, UINT32_C(1) << 31, 8},
	{"fds announced", SEGUE_MESSAGE_REPORT, 1, 0, 0},
	{"65535 fds announced", SEGUE_MESSAGE_REPORT, UINT16_MAX, 0, 0},
	{"type 0", 0, 0, 0, 0},
	{"type 65535", UINT16_MAX, 0, 0, 0},
	{"payload of 0xff", SEGUE_MESSAGE_REPORT, 0, SMALL, SMALL},
};

static void send_bad(const struct hostile *hostile, const struct bad *bad)
{
	uint8_t payload[SMALL];
	struct raw raw;

	memset(payload, 0xff, sizeof(payload));
	raw_open(hostile->dir, &raw);
	raw_send_frame(&raw, bad->type, bad->fds, bad->size, payload, bad->sent);
	raw_expect_end(&raw, 5000, bad->what);
	raw_close(&raw);
}

/* Ends in the middle of a header or of a payload, by a shutdown or a close. */
static void send_half(struct hostile *hostile, bool polite)
{
	uint8_t bytes[SEGUE_FRAME_HEADER + 100] = {
		'S', 'G', 'F', '1', SEGUE_MESSAGE_REPORT, 0, 0, 0, 100};
	struct raw raw;

	raw_open(hostile->dir, &raw);
	raw_send(&raw, bytes, 1 + hostile_random(hostile) % (sizeof(bytes) - 1));
	if (polite) {
		shutdown(raw.fd, SHUT_WR);
		raw_expect_end(&raw, 5000, "half a frame");
	}
	raw_close(&raw);
}

/* A good request with some bytes changed: an answer or the end, within seconds. */
static void send_mutated(struct hostile *hostile)
{
	struct hostile_spec spec;
	struct segue_message request = {.type = SEGUE_MESSAGE_STREAM_OPEN, .serial = 9};
	uint8_t *payload = malloc(SEGUE_FRAME_MAX);
	struct raw raw;
	size_t size;

	hostile_spec(hostile, "main", &spec);
	EXPECT(payload && segue_draft_make(&spec.spec, &request.stream_open.spec) == 0, "spec");
	EXPECT(segue_message_pack(&request, payload, &size) == 0, "pack");
	segue_spec_destroy(request.stream_open.spec);
	for (uint64_t n = 1 + hostile_random(hostile) % 4; n > 0; n--)
		payload[hostile_random(hostile) % size] = (uint8_t)hostile_random(hostile);
	if (hostile_random(hostile) % 4 == 0)
		size = hostile_random(hostile) % size;
	raw_open(hostile->dir, &raw);
	raw_send_frame(&raw, SEGUE_MESSAGE_STREAM_OPEN, 0, (uint32_t)size, payload, size);
	EXPECT(raw_receive(&raw, 20000) != 0, "a mutated request is not answered");
	raw_close(&raw);
	free(payload);
}

void attack_frames(struct hostile *hostile)
{
	struct raw raw;
	unsigned sent = 0;

	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++)
		send_bad(hostile, &bads[i]);
	EXPECT(raw_connect(hostile->dir, &raw), "connect");
	raw_send(&raw, "GET / HTTP/1.1\r\n\r\n", 18);
	raw_expect_end(&raw, 5000, "a web browser");
	raw_close(&raw);
	for (; sent < 50 || hostile_time_left(hostile); sent++) {
		send_half(hostile, sent % 2);
		send_mutated(hostile);
	}
	printf("%zu bad frames, %u cut short, %u mutated\n", sizeof(bads) / sizeof(bads[0]), sent,
		sent);
}
