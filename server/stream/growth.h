/*
 * A stream grows: the input of one that is open, and stored, gets another end (core/ends.h).
 *
 * Leases in force go on to the end that they know; those that are granted from then on know all.
 */
#ifndef SEGUE_STREAM_GROWTH_H
#define SEGUE_STREAM_GROWTH_H

#include "stream/stream.h"

/*
 * Whether the input must get another end for `epochs` in all: 1; 0, it is right as it is.
 * SEGUE_ESPEC: it cannot. `again`: who asks had the stream open before; it may have grown since.
 */
int segue_growth_wanted(const struct segue_stream *stream, uint64_t epochs, bool again);
/*
 * Adds that end to the stream's record, then to the stream, and calls `grown` (0, or a code with
 * this thread's detail). SEGUE_ENOMEM: nothing was begun, and it is not called.
 */
int segue_growth_start(
	struct segue_stream *stream, uint64_t epochs, void (*grown)(void *arg, int rc), void *arg);

#endif
