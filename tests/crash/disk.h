/*
 * A model of a disk: what is on it for certain, and what is pending, as a trace is replayed; and
 * the images that a power cut may leave.
 *
 * A write is pending until a sync of its file; one through O_DSYNC makes itself certain, nothing
 * else; a failed sync drops what is pending. A name (made, renamed, removed) is pending until a
 * sync of its directory. Of what is pending, any part may be there after a cut, in units of 4 KiB
 * or 512 bytes, or as garbage.
 */
#ifndef SEGUE_CRASH_DISK_H
#define SEGUE_CRASH_DISK_H

#include <stdbool.h>

#include "trace.h"

struct disk;

/* The disk with what lies in the directory `root` now, all of it certain. */
struct disk *disk_create(const char *root);
/* A copy of one to which nothing has been applied. */
struct disk *disk_copy(const struct disk *disk);
void disk_destroy(struct disk *disk);

/*
 * An event takes place. An O_DSYNC write is pending until disk_settle(): a cut may come before it
 * has returned. What cannot be replayed (a file mapped to be written that is not a lock file, or one of
 * more than 1 GiB) sets *blind.
 */
void disk_apply(struct disk *disk, const struct trace_event *event, bool *blind);
void disk_settle(struct disk *disk);

/* Which part of what is pending an image has. */
enum pick_kind {
	PICK_NONE,
	PICK_PREFIX,    /* the first n units of 4 KiB */
	PICK_ALL_BUT,   /* all but unit n */
	PICK_ONLY,      /* unit n alone */
	PICK_PAGES,     /* units of 4 KiB at random */
	PICK_SECTORS,   /* units of 512 bytes at random */
	PICK_GARBAGE,   /* the same, some filled with garbage; an O_DSYNC write is whole or not */
	PICK_TORN_SYNC, /* an O_DSYNC write torn inside its sector, or its sector is garbage */
	PICK_LIE,       /* units of the last sync are missing, or garbage: the disk lied */
};

struct pick {
	enum pick_kind kind;
	uint64_t n; /* the unit, or the seed of what is random */
};

/* Units of 4 KiB that are pending; names are one each. */
uint64_t disk_units(const struct disk *disk);
/* True if an O_DSYNC write is in flight; if the last sync can be lied about. */
bool disk_in_flight(const struct disk *disk);
bool disk_can_lie(const struct disk *disk);

/* Makes the image; returns its hash. It stays in `disk` until the next. */
uint64_t disk_image(struct disk *disk, struct pick pick);
/* Writes the image that was made last into the directory `root`, in place of all that is there. */
void disk_write(const struct disk *disk, const char *root);
/* Bytes of all its files. */
uint64_t disk_image_bytes(const struct disk *disk);

uint64_t disk_mix(uint64_t seed, uint64_t n);

#endif
