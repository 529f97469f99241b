/*
 * Fuzzes messages and records: what unpacks, packs, and unpacks again to the same bytes.
 *
 * The first byte is the type of the message; 250 to 255 are the records of a log, its end, the
 * checkpoints of a lane, a stream, a lane, a token. For libFuzzer, or with replay_main.c as a program that runs files.
 */
#include "core/wire.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/position.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

/* ---- Messages ------------------------------------------------------------------------------ */

/* Unpacks and packs again: false if the bytes are no message or do not fit a frame any more. */
static bool again(uint16_t type, struct segue_arena *arena, const uint8_t *bytes, size_t size,
	uint8_t *out, size_t *out_size)
{
	struct segue_frame frame = {.type = type, .size = (uint32_t)size, .payload = bytes};
	struct segue_message message;
	int rc = segue_message_unpack(&frame, arena, &message);

	expect(rc == 0 || rc == SEGUE_EPROTOCOL);
	expect(arena->used <= arena->size);
	if (rc < 0)
		return false;
	expect((uint16_t)message.type == type);
	rc = segue_message_pack(&message, out, out_size);
	/* One dimension a field is a byte longer in the packed form: a full frame may overflow. */
	expect(rc == 0 || (rc == SEGUE_ELIMIT && size > SEGUE_FRAME_MAX / 2));
	segue_message_finish(&message);
	return rc == 0;
}

static void fuzz_message(uint16_t type, const uint8_t *data, size_t size)
{
	static uint8_t first[SEGUE_FRAME_MAX], second[SEGUE_FRAME_MAX];
	static struct segue_arena arena;
	size_t first_size, second_size;

	if (!arena.base)
		expect(segue_arena_init(&arena, SEGUE_ARENA_SIZE) == 0);
	if (size > SEGUE_FRAME_MAX || !again(type, &arena, data, size, first, &first_size))
		return;
	expect(again(type, &arena, first, first_size, second, &second_size));
	expect(first_size == second_size && memcmp(first, second, first_size) == 0);
}

/* ---- Records ------------------------------------------------------------------------------- */

static bool stream_again(const void *bytes, size_t size, void **out, size_t *out_size)
{
	struct segue_stream_record record;

	if (segue_stream_record_unpack(bytes, size, &record) < 0)
		return false;
	expect(segue_stream_record_pack(&record, out, out_size) == 0);
	segue_spec_destroy(record.spec);
	return true;
}

static bool lane_again(const void *bytes, size_t size, void **out, size_t *out_size)
{
	struct segue_lane_record record;

	if (segue_lane_record_unpack(bytes, size, &record) < 0)
		return false;
	expect(segue_lane_record_pack(&record, out, out_size) == 0);
	free(record.position);
	return true;
}

static bool catalogue_again(const void *bytes, size_t size, void **out, size_t *out_size)
{
	struct segue_catalogue catalogue;

	if (segue_catalogue_unpack(bytes, size, &catalogue) < 0)
		return false;
	expect(segue_catalogue_pack(&catalogue, out, out_size) == 0);
	return true;
}

static bool token_again(const void *bytes, size_t size, void **out, size_t *out_size)
{
	struct segue_token_record record;

	if (segue_token_record_unpack(bytes, size, &record) < 0)
		return false;
	expect(segue_token_record_pack(&record, out, out_size) == 0);
	free(record.position);
	return true;
}

static bool log_again(const void *bytes, size_t size, void **out, size_t *out_size)
{
	struct segue_log_known known;

	if (segue_log_known_unpack(bytes, size, &known) < 0)
		return false;
	expect(segue_log_known_pack(&known, out, out_size) == 0);
	return true;
}

static bool log_end_again(const void *bytes, size_t size, void **out, size_t *out_size)
{
	struct segue_log_end end;

	if (segue_log_end_unpack(bytes, size, &end) < 0)
		return false;
	expect(segue_log_end_pack(&end, out, out_size) == 0);
	segue_log_end_finish(&end);
	return true;
}

static void fuzz_record(bool (*record_again)(const void *, size_t, void **, size_t *),
	const uint8_t *data, size_t size)
{
	size_t first_size, second_size;
	void *first, *second;

	if (!record_again(data, size, &first, &first_size))
		return;
	expect(record_again(first, first_size, &second, &second_size));
	expect(first_size == second_size && memcmp(first, second, first_size) == 0);
	free(first);
	free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] == 250)
		fuzz_record(log_again, data + 1, size - 1);
	else if (data[0] == 251)
		fuzz_record(log_end_again, data + 1, size - 1);
	else if (data[0] == 252)
		fuzz_record(catalogue_again, data + 1, size - 1);
	else if (data[0] == 253)
		fuzz_record(stream_again, data + 1, size - 1);
	else if (data[0] == 254)
		fuzz_record(lane_again, data + 1, size - 1);
	else if (data[0] == 255)
		fuzz_record(token_again, data + 1, size - 1);
	else
		fuzz_message(data[0], data + 1, size - 1);
	return 0;
}
