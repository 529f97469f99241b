/*
 * Files beside the store that Python has made of data which lay in none: DIR/examples has what
 * segue.Examples converted, DIR/arrays what segue.Arrays was given in memory. They go with the
 * stream that was opened over them, unless another one reads them, too.
 */
#ifndef SEGUE_STORE_COPIES_H
#define SEGUE_STORE_COPIES_H

#include <stddef.h>

#include "core/spec.h"
#include "store/store.h"

/* Names, or patterns, below the directory of the store. Begins zeroed. */
struct segue_copies {
	char **name;
	size_t count;
};

/*
 * Adds what of a stream's source lies, or may lie, in those directories of `dir`. SEGUE_ENOMEM; no
 * other error: what cannot be looked at is not there. Only looks at directories.
 */
int segue_copies_add(struct segue_copies *copies, const char *dir, const struct segue_spec *spec);
/*
 * Those of the stream of that name that no other stream of the store has. None where that cannot be
 * told: a record is damaged, or there is no memory. Reads the store.
 */
void segue_copies_find(struct segue_copies *copies, struct segue_store *store, const char *dir,
	const char *stream);
/* Removes the files, but for those of `in_use`, as far as that can be done. */
void segue_copies_remove(
	const struct segue_copies *copies, const char *dir, const struct segue_copies *in_use);
/* A zeroed struct is fine. */
void segue_copies_finish(struct segue_copies *copies);

#endif
