/*
 * Where the index of a data set comes from: it is built by hopping through the files, and kept
 * between runs.
 */
#ifndef SEGUE_SOURCE_TFRECORD_INDEXING_H
#define SEGUE_SOURCE_TFRECORD_INDEXING_H

#include "source/index.h"
#include "source/tfrecord/kept.h"

/*
 * Loads the index of `files` from the keeper and checks it against them, or builds and keeps it.
 * Inflates compressed files on the way (segue_files_inflate), but not before it knows that they are
 * the ones that the kept index is of.
 * SEGUE_ECHANGED names the file and what differs; SEGUE_EDATA: damaged framing, no records at all,
 * a record of 4 GiB or more; what the keeper returns.
 */
int segue_index_open(struct segue_index *index, const struct segue_spec *spec,
	struct segue_files *files, const struct segue_source_means *means);
/* What it is kept under. */
void segue_index_name(const struct segue_spec *spec, char name[SEGUE_KEPT_NAME_SIZE]);

#endif
