/*
 * TFRecord framing: u64 length, masked CRC32C of it, data, masked CRC32C of the data.
 */
#ifndef SEGUE_SOURCE_TFRECORD_FRAMING_H
#define SEGUE_SOURCE_TFRECORD_FRAMING_H

#include "core/progress.h"
#include "source/format.h"
#include "source/tfrecord/window.h"

extern const struct segue_file_format segue_tfrecord_format;

#define SEGUE_TFRECORD_HEADER 12 /* bytes before the data */
#define SEGUE_TFRECORD_FOOTER 4  /* bytes after it */

/* The length in a header, if its checksum is right: true. */
bool segue_tfrecord_length(const uint8_t header[SEGUE_TFRECORD_HEADER], uint64_t *length);

/* Called for each record: where its header is, bytes of data, the masked CRC stored behind them. */
typedef int segue_tfrecord_visit_fn(void *arg, uint64_t offset, uint64_t length, uint32_t crc);

/*
 * Visits all records of a stream of `size` bytes, hopping over their data. SEGUE_EDATA says at
 * which byte the framing is damaged or cut off; what `read` and `visit` return. `progress` counts
 * bytes, and may end it.
 */
int segue_tfrecord_hop(segue_read_fn *read, void *read_arg, uint64_t size,
	segue_tfrecord_visit_fn *visit, void *visit_arg, struct segue_progress *progress);

#endif
