/*
 * A window on a record's bytes: reads them block by block, and knows each block's CRC.
 *
 * The first reading of a record goes through all its blocks in order and takes their CRCs; later
 * ones may begin anywhere, and find out when a block is no longer what it was.
 *
 *	whole	the buffer takes the record; what was read stays in it
 *	sliding	the buffer holds a few blocks around the last position asked for
 */
#ifndef SEGUE_SOURCE_TFRECORD_WINDOW_H
#define SEGUE_SOURCE_TFRECORD_WINDOW_H

#include "segue/segue.h"
#include "source/buffers.h"

/* Reads exactly `size` bytes at `position`, or fails. */
typedef int segue_read_fn(void *arg, uint64_t position, void *bytes, size_t size);

/* What is known of a record's bytes. Windows of one record share it; one thread. */
struct segue_blocks {
	uint64_t size;  /* of the record */
	uint32_t block; /* bytes of a block; the last is shorter */
	uint32_t power; /* segue_crc32c_power(block) */
	uint64_t read;  /* bytes, from the first on, that have been read at least once */
	uint32_t total; /* their CRC */
	uint32_t *crc;  /* of each block; NULL if there is but one whole window */
};

struct segue_window {
	struct segue_buffers *buffers;
	struct segue_blocks *blocks;
	segue_read_fn *read;
	void *arg;
	uint8_t *bytes;
	size_t capacity;
	uint64_t start, end; /* bytes[0 .. end - start) are the record's [start, end) */
};

/* Says how long the record is and in which blocks it is read; sliding: its windows will slide. */
int segue_blocks_init(struct segue_blocks *blocks, uint64_t size, uint32_t block, bool sliding);
/* A zeroed struct is fine. */
void segue_blocks_finish(struct segue_blocks *blocks);
size_t segue_blocks_memory(const struct segue_blocks *blocks);

/* An empty window. SEGUE_ENOMEM. */
int segue_window_init(struct segue_window *window, struct segue_buffers *buffers,
	struct segue_blocks *blocks, segue_read_fn *read, void *arg);
/* Gives the buffer back. A zeroed struct is fine. */
void segue_window_finish(struct segue_window *window);

/* As segue_window_at, which see, where the bytes are not there yet. */
int segue_window_fetch(
	struct segue_window *window, uint64_t position, uint64_t size, const uint8_t **bytes);

/*
 * Points *bytes at the record's [position, position + size), which must lie within it, until the
 * next call. A size beyond two blocks makes a sliding window grow: the caller bounds it. What the
 * read function returns, SEGUE_ENOMEM, SEGUE_ECHANGED.
 */
static inline int segue_window_at(
	struct segue_window *window, uint64_t position, uint64_t size, const uint8_t **bytes)
{
	if (position < window->start || position + size > window->end)
		return segue_window_fetch(window, position, size, bytes);
	*bytes = window->bytes + (position - window->start);
	return SEGUE_OK;
}

/* Reads what has never been read, so that blocks->total is the CRC of the record. */
int segue_window_complete(struct segue_window *window);

#endif
