/*
 * TFRecord files as a source: patterns expanded (sorted by name; a plain path stands for itself,
 * the same file may be listed several times), compressed files inflated once into the cache, the
 * index loaded or built by hopping from record to record (length and its CRC checked, the stored
 * data CRC taken) and saved. A kept index is used if every file's size and the CRCs at its first
 * and last record still agree; else SEGUE_ECHANGED names the file: the data set belongs to the
 * stream's identity.
 *
 * Progress is in bytes: "index" and "inflate". The fingerprint is made of relative paths, sizes and
 * stored CRCs, never of times.
 */
#ifndef SEGUE_SOURCE_TFRECORD_TFRECORD_H
#define SEGUE_SOURCE_TFRECORD_TFRECORD_H

#include "source/source.h"

extern const struct segue_source_driver segue_source_tfrecord;

/* Records up to so many bytes stay in memory from admission to release. */
#define SEGUE_RECORD_WHOLE_MAX (1024 * 1024)
/* Bytes that are read, and checked, at once. */
#define SEGUE_RECORD_BLOCK (64 * 1024)

/*
 * For tests and benchmarks: sets both limits for records admitted from now on (`block` >= 64, a
 * window holds two). While no other thread uses the source.
 */
void segue_source_tfrecord_limits(struct segue_source *source, size_t whole_max, uint32_t block);

#endif
