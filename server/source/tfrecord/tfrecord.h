/* What tests and benchmarks may set on a source of TFRecord files. */
#ifndef SEGUE_SOURCE_TFRECORD_TFRECORD_H
#define SEGUE_SOURCE_TFRECORD_TFRECORD_H

#include "source/source.h"

/* Records up to so many bytes stay in memory from admission to release. */
#define SEGUE_RECORD_WHOLE_MAX (1024 * 1024)
/* Bytes that are read, and checked, at once. */
#define SEGUE_RECORD_BLOCK (64 * 1024)

/*
 * Sets both limits for records admitted from now on (`block` >= 64, a window holds two). While no
 * other thread uses the source.
 */
void segue_source_tfrecord_limits(struct segue_source *source, size_t whole_max, uint32_t block);

#endif
