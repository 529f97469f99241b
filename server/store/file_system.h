/*
 * Which file systems a store may lie on: those that belong to one machine. Servers on two machines
 * know nothing of each other's locks and maps, and would destroy what they share; so a file system
 * is refused unless it is known to be local, or a person says that it is ($SEGUE_ASSUME_LOCAL).
 */
#ifndef SEGUE_STORE_FILE_SYSTEM_H
#define SEGUE_STORE_FILE_SYSTEM_H

#include <stdbool.h>
#include <stdint.h>

/* "1" says of any file system that no other machine writes to it; 'segue serve --assume-local'. */
#define SEGUE_ASSUME_LOCAL "SEGUE_ASSUME_LOCAL"

/* What can be done about a file system that is refused. */
#define SEGUE_FILE_SYSTEM_ADVICE                                                                   \
	"use a directory on a local disk (it may be scratch), or, if no other machine ever "       \
	"writes there, set " SEGUE_ASSUME_LOCAL "=1 (segue serve --assume-local)"

enum segue_medium {
	SEGUE_MEDIUM_DISK,
	SEGUE_MEDIUM_MEMORY,
	SEGUE_MEDIUM_SHARED,  /* with other machines, as far as can be known */
	SEGUE_MEDIUM_UNKNOWN, /* refused like a shared one */
};

struct segue_file_system {
	uint32_t type; /* statfs.f_type */
	enum segue_medium medium;
	char name[48]; /* for messages */
};

/* That of an open file. SEGUE_ESYSTEM. */
int segue_file_system_get(int fd, struct segue_file_system *out);
/* Whether a store may lie on it. */
bool segue_file_system_is_local(const struct segue_file_system *system);
/* 0, or SEGUE_ESYSTEM, which says of `dir`, open as fd, why no store may lie there. */
int segue_file_system_check(int fd, const char *dir);

#endif
