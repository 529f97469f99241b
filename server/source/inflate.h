/*
 * Inflates a gzip file into another file, once, so that records can be read from any place in it.
 */
#ifndef SEGUE_SOURCE_INFLATE_H
#define SEGUE_SOURCE_INFLATE_H

#include "core/progress.h"

/* True if the first `size` bytes of a file are those of gzip. */
bool segue_inflate_is_gzip(const uint8_t *bytes, size_t size);

/*
 * Writes what the file `in`, of that path, inflates to (all its members, one after the other) to a temporary file beside
 * `target`, and renames that when it is on disk: `target` is whole or not there. Stops as soon as
 * the first bytes prove not to be TFRecord, and when less than `keep_free` bytes are free on the
 * target's file system, so that a small file that inflates without end does no harm. `progress`
 * counts bytes of the compressed file, and may end it.
 *
 * SEGUE_EDATA: damaged, cut off, bytes after the end, not TFRecord within; SEGUE_ESOURCE: it
 * cannot be read; SEGUE_ENOSPACE; SEGUE_ESYSTEM: `target` cannot be written.
 */
int segue_inflate_file(int in, const char *path, const char *target, uint64_t keep_free,
	struct segue_progress *progress);

#endif
