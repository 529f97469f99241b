/*
 * Checkpoints: the token of a lane at one step, now or as soon as it is committed. It is in the
 * store before it is sent, with the final states of all that ended before that step. A lane that
 * has ended is at every later step: its token is then of the step at which it ended.
 */
#ifndef SEGUE_STREAM_CHECKPOINT_H
#define SEGUE_STREAM_CHECKPOINT_H

#include "session/session.h"

void segue_checkpoint_request(struct segue_session *session, const struct segue_message *message);

/* Tries those again that wait for their step. */
void segue_checkpoints_tick(struct segue_server *server, int64_t now);

#endif
