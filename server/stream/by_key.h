/* States by record key: what a client asks for, puts and deletes (store/by_key.h). */
#ifndef SEGUE_STREAM_BY_KEY_H
#define SEGUE_STREAM_BY_KEY_H

#include "session/session.h"

/* Answers what is asked for; a change when it is on disk. */
void segue_by_key_request(struct segue_session *session, const struct segue_message *message);

#endif
