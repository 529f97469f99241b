/*
 * What a data set was: its files, and what each held, kept under its fingerprint, so that of data
 * with another one can be said what is different.
 */
#ifndef SEGUE_SOURCE_MANIFEST_H
#define SEGUE_SOURCE_MANIFEST_H

#include "source/index.h"

/* What it is kept under. */
void segue_manifest_name(const uint64_t fingerprint[2], char name[SEGUE_KEPT_NAME_SIZE]);
int segue_manifest_save(const struct segue_index *index, const struct segue_files *files,
	const struct segue_index_keeper *keeper);
/* The same where it is not kept yet. */
int segue_manifest_keep(const struct segue_index *index, const struct segue_files *files,
	const struct segue_index_keeper *keeper);

/*
 * SEGUE_ECHANGED says how the data differ from those of the other fingerprint: in which files there
 * are, in their sizes, records or order. What the keeper returns, but for SEGUE_ENOTFOUND.
 */
int segue_manifest_explain(const struct segue_index *index, const struct segue_files *files,
	const struct segue_index_keeper *keeper, const uint64_t fingerprint[2]);

#endif
