/*
 * Lanes shared out among the takers of a group (taker.h): they wait here, and ask for the lane that
 * they are given as if they had named it. On the loop's thread.
 */
#ifndef SEGUE_STREAM_ANY_H
#define SEGUE_STREAM_ANY_H

#include "stream/stream.h"

/* LANE_ATTACH: of a lane that is named (attach.h), or of any: then answered when there is one. */
void segue_any_request(struct segue_session *session, const struct segue_message *message);

/* ---- What befalls a stream ---- */

void segue_any_session_gone(struct segue_stream *stream, struct segue_session *session);
void segue_any_opening_closed(struct segue_stream *stream, const struct segue_opening *opening);
void segue_any_tick(struct segue_stream *stream, int64_t now);

#endif
