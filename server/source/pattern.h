/*
 * Patterns of files: what glob(7) says, and '**', which stands for any number of directories.
 *
 * A component that is '**' finds what is in a directory and, one in the other, in all directories
 * below it, as bash with globstar and Python's glob(recursive=True) have it: not in those whose
 * names begin with a dot, and not twice in one that a link leads back to.
 */
#ifndef SEGUE_SOURCE_PATTERN_H
#define SEGUE_SOURCE_PATTERN_H

#include <stdint.h>

#include "guard/roots.h"

#define SEGUE_FILES_MAX (1 << 20) /* listed, what patterns match included; directories of '**' */
/* Components of a pattern from the first wildcard on; directories that '**' goes down. */
#define SEGUE_DEEP_MAX 64

struct segue_matches {
	char **path;
	size_t count, capacity;
};

/*
 * Adds what `pattern` stands for: itself, if there is something of that name, else what it matches,
 * sorted by name, each once. What is found is looked at through `opener` alone (NULL: with the
 * server's own rights). SEGUE_ESOURCE: nothing is there, or a directory cannot be read;
 * SEGUE_EINVAL: '**' within a component; SEGUE_ELIMIT: more than SEGUE_FILES_MAX files, or a
 * pattern that is too deep; SEGUE_EGONE: nobody waits for it any more.
 */
int segue_matches_add(
	struct segue_matches *paths, const struct segue_opener *opener, const char *pattern);
/* Adds a file by its name, which is no pattern. SEGUE_ELIMIT, SEGUE_ENOMEM. */
int segue_matches_add_name(struct segue_matches *paths, const char *name);
/* A zeroed struct is fine. */
void segue_matches_finish(struct segue_matches *paths);

#endif
