/*
 * The opening of a stream's data set: everything about it that reads, on the stream's own thread.
 */
#ifndef SEGUE_STREAM_DATASET_H
#define SEGUE_STREAM_DATASET_H

#include "stream/stream.h"

/*
 * Finds the stream's record, opens its files, makes or compares its fingerprint, and loads its
 * ledgers: a task of the stream's, which is OPENING. Tells those who wait how far it is.
 * SEGUE_ESPEC, SEGUE_ECHANGED: it is not the stream of that name; SEGUE_EINVAL; what source and
 * store say; SEGUE_EGONE: given up.
 */
int segue_dataset_open(struct segue_task *task);

#endif
