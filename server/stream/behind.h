/*
 * What those who insert and those who read wait for: which lane is furthest behind, and who has it;
 * why nobody inserts. On the loop's thread.
 */
#ifndef SEGUE_STREAM_BEHIND_H
#define SEGUE_STREAM_BEHIND_H

#include "stream/stream.h"

/* Of a stream that reads a log. SEGUE_ETIMEOUT, says that. */
int segue_behind_fail(const struct segue_stream *stream);

/* An opening whose stream's sequences are inserted. SEGUE_EINVAL: one of a stream that has none. */
int segue_input_find(struct segue_session *session, uint64_t id, struct segue_opening **opening);
/* Nobody inserts: the reason is in reports until somebody does again. */
void segue_input_failed_request(struct segue_session *session, const struct segue_message *message);
void segue_input_goes_on(struct segue_stream *stream);

#endif
