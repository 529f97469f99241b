/*
 * Inflates a file of gzip or zlib into another, once, so that records can be read from any place in
 * it.
 *
 * The copy proves what it is: behind the data comes a seal, which says how much they are and what
 * their hash is, and where in the compressed file each member ends, with which last bytes (of gzip
 * the CRC and length of what it holds, of zlib its Adler-32 behind a few of its data). A copy is
 * used if it ends in a sound seal that fits the compressed file as it is now; what a crash, a full
 * disk or somebody's hand has left of it does not.
 */
#ifndef SEGUE_SOURCE_INFLATE_H
#define SEGUE_SOURCE_INFLATE_H

#include <sys/types.h>

#include "core/progress.h"
#include "segue/segue.h"
#include "source/format.h"

/* A way to compress files. */
struct segue_packing {
	const char *name, *unpack; /* the command that undoes it */
	/* What files begin with: these bytes, or where there are none, what this says. */
	uint8_t magic[6], size;
	bool (*begins)(const uint8_t *bytes, size_t size);
	/* Of one that is read: as a source calls it, as zlib does, bytes of a shortest header. */
	enum segue_compression compression;
	int window_bits;
	unsigned header;
};

/*
 * How a file is compressed whose first bytes these are, as far as is known; NULL: not. Files of the
 * source's own format are for the caller to tell first: some begin as those of zlib do.
 */
const struct segue_packing *segue_packing_of(const uint8_t *bytes, size_t size);

/* Reads up to `size` bytes at `position`, fewer only at the end: how many, or -1 and errno. */
ssize_t segue_read_at(int fd, uint64_t position, void *bytes, size_t size);

/* A copy that may be used. */
struct segue_copy {
	uint64_t size;   /* of the data in it */
	uint64_t stored; /* of the file */
	uint64_t seal;   /* tells it from copies of other data */
};

/*
 * Writes what the file `in`, of that path, inflates to (all its members, one after the other) and
 * its seal to a temporary file beside `target`, and renames that when it is on disk: `target` is
 * whole or not there. Stops as soon as the first bytes prove not to be of the format, and when less
 * than `keep_free` bytes are free on the target's file system, so that a small file that inflates
 * without end does no harm. `packing` is one that is read. `progress` counts bytes of the
 * compressed file, and may end it.
 *
 * SEGUE_EDATA: damaged, cut off, bytes after the end, another format within; SEGUE_ESOURCE: it
 * cannot be read; SEGUE_ENOSPACE; SEGUE_ESYSTEM: `target` cannot be written.
 */
int segue_inflate_file(int in, const char *path, const struct segue_packing *packing,
	const char *target, const struct segue_file_format *format, uint64_t keep_free,
	struct segue_progress *progress);

/* Its fd, no link being followed; negative: there is none. */
int segue_copy_open(const char *target);
/*
 * Whether `target` is a copy of the compressed file `in`, by its seal; the data of either are not
 * read. True: *copy.
 */
bool segue_copy_look(const char *target, int in, struct segue_copy *copy);
/* The same for a copy that is open, against what is known of it. */
bool segue_copy_is(int fd, const struct segue_copy *copy);
/*
 * Whether `fd` is that copy, and its data have the hash of its seal: 1, 0 (also of no fd), or
 * SEGUE_EGONE, SEGUE_ENOMEM.
 */
int segue_copy_check(int fd, const struct segue_copy *copy, struct segue_progress *progress);

#endif
