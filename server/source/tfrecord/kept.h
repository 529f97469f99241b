/*
 * The index of a data set as it is kept between runs.
 *
 * A kept index of other files, or of files whose sizes, first or last records differ, is not
 * replaced but refused: positions and states belong to the data that were there.
 */
#ifndef SEGUE_SOURCE_TFRECORD_KEPT_H
#define SEGUE_SOURCE_TFRECORD_KEPT_H

#include "source/tfrecord/index.h"

#define SEGUE_KEPT_NAME_SIZE 48 /* of the names that things are kept under */

/*
 * Loads the entries of the index kept under `name` into `index`, for which the caller has allocated
 * its tables, and checks them against the files, which are inflated on the way, but not before they
 * are known to be the ones that the index is of. SEGUE_ENOTFOUND: none is kept; SEGUE_ECHANGED:
 * which file differs, and how; SEGUE_ESTORE: what is kept is none.
 */
int segue_kept_load(const char *name, struct segue_index *index, struct segue_files *files,
	const struct segue_source_means *means);
int segue_kept_save(const char *name, const struct segue_index *index,
	const struct segue_files *files, const struct segue_index_keeper *keeper);

#endif
