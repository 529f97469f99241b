/*
 * For whom the server reads: it decides by owner, group and mode, as the kernel would for that user (of
 * a file with an ACL, whose group bits mean something else, only its owner and what everybody may do
 * count).
 */
#ifndef SEGUE_GUARD_ROOTS_H
#define SEGUE_GUARD_ROOTS_H

#include "guard/guard.h"

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

#endif
