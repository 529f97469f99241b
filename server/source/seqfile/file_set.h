/*
 * A data set of sequence files as it is opened: heads, indexes and feet.
 */
#ifndef SEGUE_SOURCE_SEQFILE_FILE_SET_H
#define SEGUE_SOURCE_SEQFILE_FILE_SET_H

#include "core/sequence_file.h"
#include "source/index.h"

/* How a file's columns are those of the spec: its head, and a column for each feature. */
struct segue_seqfile_layout {
	struct segue_seqfile_head head;
	uint32_t *sequence, *context; /* numbers of columns, in the order of the spec */
};

struct segue_seqfile_set {
	struct segue_files *files;
	struct segue_index index;
	struct segue_seqfile_layout *layout; /* per file */
	uint64_t *end;                       /* per file: where the last entry ends */
	uint32_t key_max;
};

/*
 * Finds the files, reads their heads against the spec, and their indexes. Reports progress.
 * SEGUE_ESOURCE, SEGUE_EDATA (none, damaged, unfinished; a feature that a file has not, or has
 * otherwise: says what it has), SEGUE_EFORMAT; segue_seqfile_set_close() is due in any case.
 */
int segue_seqfile_set_open(struct segue_seqfile_set *set, const struct segue_spec *spec,
	const struct segue_source_means *means);
/* A zeroed one is fine. */
void segue_seqfile_set_close(struct segue_seqfile_set *set);
/* Bytes of memory. */
size_t segue_seqfile_set_memory(const struct segue_seqfile_set *set);

#endif
