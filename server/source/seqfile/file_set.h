/*
 * A data set of sequence files as it is opened: heads, indexes and feet.
 */
#ifndef SEGUE_SOURCE_SEQFILE_FILE_SET_H
#define SEGUE_SOURCE_SEQFILE_FILE_SET_H

#include "core/sequence_file.h"
#include "source/index.h"

#define SEGUE_SEQFILE_NO_COLUMN UINT32_MAX

/* How a file's columns are those of the spec: its head, and a column for each of the spec's. */
struct segue_seqfile_layout {
	struct segue_seqfile_head head;
	/*
	 * In the order of segue_seqfile_columns(): numbers in the head, or SEGUE_SEQFILE_NO_COLUMN
	 * of a state whose initial value is not from the data.
	 */
	uint32_t *column;
};

struct segue_seqfile_set {
	struct segue_files *files;
	struct segue_index index;
	struct segue_seqfile_layout *layout; /* per file */
	uint64_t *end;                       /* per file: where the last entry ends */
	uint32_t key_max;
};

/* Columns of a spec: sequence features, context features, states. */
static inline size_t segue_seqfile_columns(const struct segue_spec *spec)
{
	return spec->sequence_count + spec->context_count + spec->state_count;
}
/* The feature or state of a column. */
const struct segue_field *segue_seqfile_field_of(const struct segue_spec *spec, size_t i);

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
