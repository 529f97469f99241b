/*
 * What is kept of arrays between runs: their files, what these held as far as it was looked at, and
 * the index; so that of data with another fingerprint can be said what is different.
 */
#ifndef SEGUE_SOURCE_ARRAYS_KEPT_H
#define SEGUE_SOURCE_ARRAYS_KEPT_H

#include "core/array_index.h"
#include "source/files.h"
#include "source/source.h"

/*
 * Bytes of the paths of all groups' first files, which keys are made of, up to what they are called
 * there: their deepest common directory, with its slash.
 */
size_t segue_arrays_common(const struct segue_files *files, const struct segue_array_index *index);
/*
 * Of the index, and of what all files hold as far as it is looked at; of their names only what is
 * in keys: so that arrays that lie beside a store may lie beside another.
 */
void segue_arrays_fingerprint(const struct segue_files *files,
	const struct segue_array_index *index, uint64_t fingerprint[2]);

/* What it is kept under. */
void segue_arrays_kept_name(const uint64_t fingerprint[2], char name[SEGUE_KEPT_NAME_SIZE]);
/* Keeps it, if it is not kept yet. SEGUE_ENOMEM, what the keeper returns. */
int segue_arrays_keep(const struct segue_files *files, const struct segue_array_index *index,
	const uint64_t fingerprint[2], const struct segue_index_keeper *keeper);
/*
 * SEGUE_ECHANGED says how these differ from what has the other fingerprint: in the files that there
 * are, in what they hold, or in the index. What the keeper returns, but for SEGUE_ENOTFOUND.
 */
int segue_arrays_explain(const struct segue_files *files, const uint64_t fingerprint[2],
	const struct segue_index_keeper *keeper);

#endif
