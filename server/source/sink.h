/*
 * Where a record writes values whose number nobody knows before: memory that grows under it. Of
 * whoever asks for the values, and used by one thread at a time.
 */
#ifndef SEGUE_SOURCE_SINK_H
#define SEGUE_SOURCE_SINK_H

#include <stdint.h>

struct segue_sink {
	uint8_t *bytes;      /* may move when it grows */
	uint64_t size, room; /* bytes in it, and for which there is room */
	/* Makes room for `room` bytes, more than there is; what is in it stays. 0, or why not. */
	int (*grow)(struct segue_sink *sink, uint64_t room);
};

/* Appends `size` bytes that are to be written at *out, until the next call. */
static inline int segue_sink_add(struct segue_sink *sink, uint64_t size, uint8_t **out)
{
	*out = sink->bytes;
	if (size == 0)
		return 0;
	if (size > sink->room - sink->size) {
		uint64_t room;
		int rc = __builtin_add_overflow(sink->size, size, &room)
				 ? sink->grow(sink, UINT64_MAX)
				 : sink->grow(sink, room);

		if (rc)
			return rc;
	}
	*out = sink->bytes + sink->size;
	sink->size += size;
	return 0;
}

#endif
