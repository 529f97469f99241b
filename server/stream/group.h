/*
 * Groups: consumers that go through a stream together, with their own positions and states.
 */
#ifndef SEGUE_STREAM_GROUP_H
#define SEGUE_STREAM_GROUP_H

#include "session/session.h"

/* Which number a group has; one that is not there is made, and is on disk before it is answered. */
void segue_group_request(struct segue_session *session, const struct segue_message *message);

#endif
