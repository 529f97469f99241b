/* Asking for a lane: waiting for it, the grant, and what goes on while it is held. */
#ifndef SEGUE_STREAM_ATTACH_H
#define SEGUE_STREAM_ATTACH_H

#include "session/upload.h"
#include "stream/stream.h"

/* Answers, now or later. `upload` is taken over; NULL: none. */
void segue_attach_request(struct segue_session *session, const struct segue_message *message,
	struct segue_upload *upload);

/* ---- All ledgers of a stream that are in use, once it is open ---- */

/*
 * Lets those ask who wait for what is free; looks for reservations that run out, requests whose
 * time is up, workers that wrote nonsense or are still. When to come again.
 */
int64_t segue_ledgers_tick(struct segue_stream *stream, int64_t now);
/* The session is gone: its leases end, its requests are forgotten. */
void segue_ledgers_session_gone(struct segue_stream *stream, struct segue_session *session);
/* A client has closed the stream: its leases through this opening end, its requests fail. */
void segue_ledgers_opening_closed(struct segue_opening *opening);
/* Storage failed, or works again: the holders are told. */
void segue_ledgers_storage(struct segue_stream *stream, const struct segue_outcome *storage);
/* Ends all leases; their records stay "held". True if nothing is in force any more. */
bool segue_ledgers_stop(struct segue_stream *stream);

#endif
