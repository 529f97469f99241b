/*
 * Why what is inserted into a stream is not accepted yet: which lane is furthest behind, and who
 * has it. On the loop's thread.
 */
#ifndef SEGUE_STREAM_BEHIND_H
#define SEGUE_STREAM_BEHIND_H

#include "stream/stream.h"

/* Of a stream that reads a log. SEGUE_ETIMEOUT, says that. */
int segue_behind_fail(const struct segue_stream *stream);

#endif
