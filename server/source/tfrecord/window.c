/* A window on a record's bytes. */
#include "source/tfrecord/window.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"
#include "core/error.h"
#include "source/source.h"

int segue_blocks_init(struct segue_blocks *blocks, uint64_t size, uint32_t block, bool sliding)
{
	*blocks = (struct segue_blocks){.size = size, .block = block};
	if (!sliding)
		return 0;
	blocks->power = segue_crc32c_power(block);
	blocks->crc = malloc((size / block + 1) * sizeof(blocks->crc[0]));
	if (!blocks->crc)
		return segue_fail(SEGUE_ENOMEM, "no memory for a record's checksums");
	return 0;
}

void segue_blocks_finish(struct segue_blocks *blocks)
{
	free(blocks->crc);
	blocks->crc = NULL;
}

size_t segue_blocks_memory(const struct segue_blocks *blocks)
{
	return blocks->crc ? (blocks->size / blocks->block + 1) * sizeof(blocks->crc[0]) : 0;
}

static bool is_whole(const struct segue_window *window)
{
	return !window->blocks->crc;
}

int segue_window_init(struct segue_window *window, struct segue_buffers *buffers,
	struct segue_blocks *blocks, segue_read_fn *read, void *arg)
{
	size_t size = blocks->crc ? 2 * (size_t)blocks->block : blocks->size;

	*window = (struct segue_window){
		.buffers = buffers, .blocks = blocks, .read = read, .arg = arg};
	window->bytes = segue_buffers_take(buffers, size, &window->capacity);
	if (!window->bytes)
		return segue_fail(SEGUE_ENOMEM, "no memory to read a record (%zu bytes)", size);
	return 0;
}

void segue_window_finish(struct segue_window *window)
{
	if (window->bytes)
		segue_buffers_give(window->buffers, window->bytes, window->capacity);
	window->bytes = NULL;
}

/* Takes note of a block's CRC at its first reading, compares it later. */
static int note(struct segue_blocks *blocks, uint64_t at, const uint8_t *bytes, size_t size)
{
	uint32_t crc;

	if (!blocks->crc) {
		blocks->total = segue_crc32c(blocks->total, bytes, size);
		blocks->read += size;
		return 0;
	}
	crc = segue_crc32c(0, bytes, size);
	if (at < blocks->read) {
		if (crc == blocks->crc[at / blocks->block])
			return 0;
		return segue_fail(SEGUE_ECHANGED,
			"its bytes from %" PRIu64
			" on have changed since it was checked" SEGUE_CHANGED_ADVICE,
			at);
	}
	blocks->crc[at / blocks->block] = crc;
	blocks->total = segue_crc32c_combine(blocks->total, crc,
		size == blocks->block ? blocks->power : segue_crc32c_power(size));
	blocks->read += size;
	return 0;
}

/* Reads the block at window->end behind what is there; the buffer has room for it. */
static int append(struct segue_window *window)
{
	struct segue_blocks *blocks = window->blocks;
	uint64_t left = blocks->size - window->end;
	size_t size = left < blocks->block ? (size_t)left : blocks->block;
	uint8_t *to = window->bytes + (window->end - window->start);
	int rc;

	rc = window->read(window->arg, window->end, to, size);
	if (rc)
		return rc;
	rc = note(blocks, window->end, to, size);
	if (rc)
		return rc;
	window->end += size;
	return 0;
}

/* Drops what is in the window and puts it, empty, at the block of `position`. */
static int jump(struct segue_window *window, uint64_t position)
{
	struct segue_blocks *blocks = window->blocks;
	uint64_t to = position / blocks->block * blocks->block;

	while (blocks->read < to) {
		int rc;

		window->start = window->end = blocks->read;
		rc = append(window);
		if (rc)
			return rc;
	}
	window->start = window->end = to;
	return 0;
}

/* Makes room for another block, keeping what lies from `position` on. */
static int make_room(struct segue_window *window, uint64_t position, uint64_t size)
{
	size_t kept = (size_t)(window->end - position);
	size_t block = window->blocks->block;
	uint8_t *bytes = window->bytes;
	size_t capacity = window->capacity;

	if (window->end - window->start + block <= capacity)
		return 0;
	if (kept + block > capacity) {
		bytes = segue_buffers_take(window->buffers, size + 2 * block, &capacity);
		if (!bytes)
			return segue_fail(
				SEGUE_ENOMEM, "no memory to read a step (%" PRIu64 " bytes)", size);
	}
	memmove(bytes, window->bytes + (position - window->start), kept);
	if (bytes != window->bytes) {
		segue_buffers_give(window->buffers, window->bytes, window->capacity);
		window->bytes = bytes;
		window->capacity = capacity;
	}
	window->start = position;
	return 0;
}

int segue_window_fetch(
	struct segue_window *window, uint64_t position, uint64_t size, const uint8_t **bytes)
{
	int rc;

	if (!is_whole(window) && (position < window->start || position >= window->end)) {
		rc = jump(window, position);
		if (rc)
			return rc;
	}
	while (window->end < position + size) {
		if (!is_whole(window)) {
			/* The window is empty after a jump: position may lie beyond its end. */
			uint64_t keep = position < window->end ? position : window->end;

			rc = make_room(window, keep, position + size - keep);
			if (rc)
				return rc;
		}
		rc = append(window);
		if (rc)
			return rc;
	}
	*bytes = window->bytes + (position - window->start);
	return 0;
}

int segue_window_complete(struct segue_window *window)
{
	struct segue_blocks *blocks = window->blocks;

	while (blocks->read < blocks->size) {
		int rc;

		if (!is_whole(window))
			window->start = window->end = blocks->read;
		rc = append(window);
		if (rc)
			return rc;
	}
	return 0;
}
