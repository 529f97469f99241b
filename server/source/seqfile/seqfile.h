/*
 * The source that reads sequence files (core/sequence_file.h, docs/format.md).
 *
 * Opening reads heads, indexes and feet, not the sequences. A small sequence is read and checked
 * whole when it is admitted, and stays in memory until it has ended. Of a longer one the header and
 * the tables of checksums are: each window is read straight to where it goes, and its blocks are
 * checked there. Where damaged records are to be passed over, a longer one is read through, too,
 * when it is admitted: nothing of it has been delivered then.
 *
 * Small is up to 1 MiB where the windows of the stream's segments are short: reading them one by
 * one would take longer than to read the sequence once. Where they have 32 KiB or more, on average
 * over the features, it is up to 64 KiB: there a second copy takes longer.
 */
#ifndef SEGUE_SOURCE_SEQFILE_SEQFILE_H
#define SEGUE_SOURCE_SEQFILE_SEQFILE_H

#include "source/source.h"

extern const struct segue_source_driver segue_source_files;

/* What is small, to streams of this spec. */
size_t segue_seqfile_whole_max(const struct segue_spec *spec);

/* For tests: another limit for small ones, on a source that is not used yet. */
void segue_source_files_limit(struct segue_source *source, size_t whole_max);

#endif
