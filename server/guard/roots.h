/*
 * Which files a client may have the server read.
 *
 * A server with roots opens what clients name beneath them only: component by component with
 * openat2, following no symbolic link, never a FIFO or a device. A client of another user must be
 * able to read the file itself, and to search the directories from the root on: the server decides
 * by owner, group and mode, as the kernel would for that user (of a file with an ACL, whose group
 * bits mean something else, only its owner and what everybody may do count).
 */
#ifndef SEGUE_GUARD_ROOTS_H
#define SEGUE_GUARD_ROOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

/* For whom a file is read. */
struct segue_reader {
	uid_t uid;
	gid_t gid;
	gid_t *groups; /* supplementary; malloc'd */
	size_t group_count;
};

/* The peer of a connected socket, as it was when it connected. SEGUE_ESYSTEM, SEGUE_ENOMEM. */
int segue_reader_of_socket(int socket, struct segue_reader *out);
void segue_reader_finish(struct segue_reader *reader);
bool segue_reader_in_group(const struct segue_reader *reader, gid_t group);
/* Whether the server reads with its own rights for this one: its own user, and root. */
bool segue_reader_trusted(const struct segue_reader *reader);

struct segue_roots;

/*
 * Opens the directories. SEGUE_EINVAL: not absolute, or not a directory; SEGUE_ESYSTEM: this kernel
 * (or its filter of system calls) has no openat2, without which there can be no roots.
 */
int segue_roots_create(char *const *dirs, size_t count, struct segue_roots **out);
/*
 * One more, of the server's own, which messages do not list. Before anything is opened. Fails
 * likewise.
 */
int segue_roots_add(struct segue_roots *roots, const char *dir);
void segue_roots_destroy(struct segue_roots *roots);

/* Through what files are opened. No roots: with the server's own rights, anywhere. */
struct segue_opener {
	const struct segue_roots *roots;
	const struct segue_reader *reader;
	const _Atomic bool *given_up; /* nobody waits for what is read any more; may be NULL */
};

/*
 * A plain file, for reading: its fd and what it is. NULL: an opener without roots. SEGUE_ESOURCE:
 * not there, not beneath a root, a symbolic link on the way, no right to read it, not a plain file.
 */
int segue_opener_open(const struct segue_opener *opener, const char *path, struct stat *info);
/* Whether there is something of that name: 1, 0, or SEGUE_ESOURCE if it may not be looked at. */
int segue_opener_exists(const struct segue_opener *opener, const char *path);
/* A directory to be listed, or NULL and errno. */
void *segue_opener_list(const struct segue_opener *opener, const char *path);
/* lstat(), as the reader: 0, or -1 and errno. */
int segue_opener_look(const struct segue_opener *opener, const char *path, struct stat *info);

#endif
