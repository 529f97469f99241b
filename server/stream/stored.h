/*
 * Checkpoints that the store holds.
 */
#ifndef SEGUE_STREAM_STORED_H
#define SEGUE_STREAM_STORED_H

#include "session/session.h"

/* Sends one, or removes it. */
void segue_stored_request(struct segue_session *session, const struct segue_message *message);

#endif
