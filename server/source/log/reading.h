/*
 * A source that reads a log while it grows: its sequences as records, by the code that reads other
 * sequence files (source/seqfile/record.h).
 *
 * A sequence is there as soon as it is written; one that is not is SEGUE_ENOTYET. Files that are
 * given up stay readable to whoever has a record of them open.
 */
#ifndef SEGUE_SOURCE_LOG_READING_H
#define SEGUE_SOURCE_LOG_READING_H

#include "source/log/log.h"
#include "source/source.h"

/*
 * The fields of a log from which streams of this spec are read: sequence features, context
 * features, states whose initial values are from the data. *out is malloc'd.
 * SEGUE_ENOMEM; SEGUE_EINVAL: as segue_seqfile_check_fields().
 */
int segue_log_fields(
	const struct segue_spec *spec, struct segue_seqfile_field **out, uint32_t *count);

/*
 * A source over a log that was made with segue_log_fields() of the spec. Both must outlive it.
 * `records` says SEGUE_PLAN_LIVE until segue_log_source_end(). SEGUE_ENOMEM.
 */
int segue_log_source_create(
	const struct segue_spec *spec, struct segue_log *log, struct segue_source **out);
/* The input has ended after so many sequences, which are there. Any thread. */
void segue_log_source_end(struct segue_source *source, uint64_t records);

#endif
