/*
 * A source that reads a log while it grows: its sequences as records, by the code that reads other
 * sequence files (source/seqfile/record.h).
 *
 * A sequence is there as soon as it is written; one that is not is SEGUE_ENOTYET. Files that are
 * given up stay readable to whoever has a record of them open.
 */
#ifndef SEGUE_SOURCE_LOG_READING_H
#define SEGUE_SOURCE_LOG_READING_H

#include "core/insert.h"
#include "source/log/log.h"
#include "source/source.h"

/*
 * A source over a log that was made with segue_insert_fields() of the spec. Both must outlive it.
 * `records` says SEGUE_PLAN_LIVE until segue_log_source_end(). SEGUE_ENOMEM.
 */
int segue_log_source_create(
	const struct segue_spec *spec, struct segue_log *log, struct segue_source **out);
extern const struct segue_source_driver segue_source_log;

/* The input has ended after so many sequences, which are there. Any thread. */
void segue_log_source_end(struct segue_source *source, uint64_t records);

#endif
