/* C18: other versions of the protocol, messages of no known type, fields of no known number. */
#include "hostile.h"

#include <stdio.h>

static void greet(const struct hostile *hostile, uint32_t protocol, uint32_t layout)
{
	struct segue_message hello = {.type = SEGUE_MESSAGE_HELLO,
		.hello = {.protocol = protocol,
			.layout_version = layout,
			.version = "9.9.9",
			.program = "old"}};
	struct raw raw;

	EXPECT(raw_connect(hostile->dir, &raw), "connect");
	raw_call(&raw, &hello);
	raw_expect_failure(&raw, SEGUE_EVERSION, "another version");
	EXPECT(strstr(raw.reply.failure.detail, "9.9.9") &&
			strstr(raw.reply.failure.detail, SEGUE_VERSION_STRING),
		"the versions are not named: %s", raw.reply.failure.detail);
	raw_expect_end(&raw, 5000, "another version");
	raw_close(&raw);
}

/* A message that may not come (now): refused, and the connection ends. */
static void send_type(const struct hostile *hostile, uint16_t type, bool greeted)
{
	struct raw raw;

	if (greeted)
		raw_open(hostile->dir, &raw);
	else
		EXPECT(raw_connect(hostile->dir, &raw), "connect");
	raw_send_frame(&raw, type, 0, 2, "\x08\x05", 2);
	EXPECT(raw_receive(&raw, 10000) == 1, "type %u: no answer", type);
	raw_expect_failure(&raw, SEGUE_EPROTOCOL, "a message that may not come");
	raw_expect_end(&raw, 5000, "a message that may not come");
	raw_close(&raw);
}

/* A client of the future: the same HELLO with fields that this server does not know. */
static void greet_with_more(const struct hostile *hostile)
{
	struct segue_message hello = {.type = SEGUE_MESSAGE_HELLO,
		.serial = 1,
		.hello = {.protocol = SEGUE_PROTOCOL,
			.layout_version = SEGUE_LAYOUT_VERSION,
			.version = "9.9.9",
			.program = "new"}};
	uint8_t *payload = malloc(SEGUE_FRAME_MAX);
	struct raw raw;
	size_t size;

	EXPECT(payload && segue_message_pack(&hello, payload, &size) == 0, "pack");
	memcpy(payload + size,
		"\xf8\x07\x2a\xfa\x07\x03"
		"abc",
		9);
	size += 9;
	EXPECT(raw_connect(hostile->dir, &raw), "connect");
	raw_send_frame(&raw, SEGUE_MESSAGE_HELLO, 0, (uint32_t)size, payload, size);
	EXPECT(raw_receive(&raw, 10000) == 1, "unknown fields in HELLO: no answer");
	EXPECT(raw.reply.type == SEGUE_MESSAGE_WELCOME, "unknown fields in HELLO: %s",
		raw.reply.failure.detail);
	raw_close(&raw);
	free(payload);
}

void attack_versions(struct hostile *hostile)
{
	static const uint16_t unknown[] = {0, 8, 64, 72, 255, 256, 65535};
	unsigned rounds = 0;

	for (; rounds < 1 || hostile_time_left(hostile); rounds++) {
		greet(hostile, SEGUE_PROTOCOL - 1, SEGUE_LAYOUT_VERSION);
		greet(hostile, SEGUE_PROTOCOL + 1, SEGUE_LAYOUT_VERSION);
		greet(hostile, SEGUE_PROTOCOL, SEGUE_LAYOUT_VERSION - 1);
		greet(hostile, SEGUE_PROTOCOL, SEGUE_LAYOUT_VERSION + 1);
		greet(hostile, UINT32_MAX, UINT32_MAX);
		greet_with_more(hostile);
		for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
			send_type(hostile, unknown[i], true);
		for (uint16_t type = SEGUE_MESSAGE_WELCOME; type <= SEGUE_MESSAGE_FAILURE; type++)
			send_type(hostile, type, true);
		send_type(hostile, SEGUE_MESSAGE_HELLO, true);
		for (uint16_t type = SEGUE_MESSAGE_STREAM_OPEN; type <= SEGUE_MESSAGE_REPORT;
			type++)
			send_type(hostile, type, false);
	}
	printf("%u rounds of other versions and unknown messages\n", rounds);
}
