/*
 * A temporary directory for a test: made under $TMPDIR (or /tmp), removed with all that is in it.
 *
 * A fault here is a fault of the machine, not of what is tested: it prints and aborts.
 */
#ifndef SEGUE_TEST_TMPDIR_H
#define SEGUE_TEST_TMPDIR_H

#include <stddef.h>

#define SEGUE_TMPDIR_MAX 512

struct segue_tmpdir {
	char root[SEGUE_TMPDIR_MAX]; /* absolute path, without a slash at its end */
};

/* Makes an empty directory, mode 0700. `name` (letters, digits, '-') helps to recognise it. */
void segue_tmpdir_make(struct segue_tmpdir *dir, const char *name);
/* Writes "<root>/<below>" into `path`, a buffer of SEGUE_TMPDIR_MAX bytes, and returns it. */
const char *segue_tmpdir_path(const struct segue_tmpdir *dir, const char *below, char *path);
/* Removes the directory with all that is in it; symbolic links are removed, not followed. */
void segue_tmpdir_remove(struct segue_tmpdir *dir);
/* The same for any path. What is not there is fine. */
void segue_tmpdir_remove_path(const char *path);

#endif
