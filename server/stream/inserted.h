/* What was inserted into a stream, as files that can be read again. On the loop's thread. */
#ifndef SEGUE_STREAM_INSERTED_H
#define SEGUE_STREAM_INSERTED_H

#include "session/session.h"

/* Answers by their paths, each ended by a NUL, in the order of what they hold. */
void segue_inserted_request(struct segue_session *session, const struct segue_message *message);

#endif
