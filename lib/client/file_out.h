/*
 * A new file that is written from its beginning to its end, through a buffer; what was put last can
 * be taken back. One thread at a time; in a forked child it is the parent's.
 */
#ifndef SEGUE_CLIENT_FILE_OUT_H
#define SEGUE_CLIENT_FILE_OUT_H

#include <stddef.h>
#include <stdint.h>

#include "client/fork.h"

struct segue_file_out {
	struct segue_fork_guard guard; /* fd: the file */
	char *path;
	const char *name; /* in path: behind its last slash */
	int directory;    /* of it */
	uint8_t *buffer;
	size_t used;       /* bytes in it, which belong at `written` */
	uint64_t written;  /* bytes in the file */
	uint64_t reserved; /* the disk has room for it to grow to so many bytes; 0: not known */
	bool no_reserve;   /* the file system cannot say so */
	bool lost;         /* what was put before may not be there: nothing more can be done */
};

/*
 * Makes the file, which must not be there, and locks it (flock) for as long as it is open.
 * SEGUE_ESYSTEM says if it is there; SEGUE_ENOMEM, SEGUE_EINVAL (no name).
 */
int segue_file_out_create(const char *path, struct segue_file_out **out);
/* Closes it, with what is in the file, and no more room than that takes. NULL is fine. */
void segue_file_out_destroy(struct segue_file_out *out);

/*
 * Sees to it that the disk has room for `size` more bytes, where the file system can do that.
 * SEGUE_ENOSPACE: it has not; nothing has changed.
 */
int segue_file_out_reserve(struct segue_file_out *out, uint64_t size);

/* Gives back the room that was reserved and not written. */
void segue_file_out_trim(struct segue_file_out *out);

/* Bytes that were put: where the next one comes. */
static inline uint64_t segue_file_out_end(const struct segue_file_out *out)
{
	return out->written + out->used;
}

/*
 * Puts bytes at the end. SEGUE_ENOSPACE, SEGUE_ESYSTEM, SEGUE_EFORKED: some of them may have been
 * put; segue_file_out_cut() takes them back.
 */
int segue_file_out_put(struct segue_file_out *out, const void *bytes, uint64_t size);
/* Zeros up to the next multiple of `align`, at most 4096. Fails like segue_file_out_put(). */
int segue_file_out_align(struct segue_file_out *out, uint64_t align);
/*
 * After a failure: takes back what was put at `size` and behind it. If that fails, too, the file is
 * lost. Also of a file that is lost, which it stays.
 */
int segue_file_out_cut(struct segue_file_out *out, uint64_t size);
/* All that was put is in the file. */
int segue_file_out_flush(struct segue_file_out *out);
/* It is on disk, too. If that fails, the file is lost: what the disk has is not known. */
int segue_file_out_sync(struct segue_file_out *out);
/* So is the name of the file. */
int segue_file_out_sync_name(struct segue_file_out *out);
/* Removes it, unless another file has its name by now. */
int segue_file_out_remove(struct segue_file_out *out);

#endif
