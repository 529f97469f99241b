/*
 * Dropping a stream while the server runs: refused while anybody has a lane of it; who has it open
 * without a lane is told at its next call. On the loop's thread.
 */
#ifndef SEGUE_STREAM_DROP_H
#define SEGUE_STREAM_DROP_H

#include "stream/stream.h"

/* Answers when nothing of the stream is left. */
void segue_drop_request(struct segue_session *session, const struct segue_message *message);
/* SEGUE_EBUSY while the first transaction is on its way: the name is neither taken nor free. */
int segue_drops_check(const struct segue_server *server, const char *name);
/* SEGUE_ENOTFOUND if the stream has been dropped since it was opened. */
int segue_drop_check_stream(const struct segue_stream *stream);
/* The server is being stopped: the next one goes on. */
void segue_drops_stop(struct segue_server *server);

#endif
