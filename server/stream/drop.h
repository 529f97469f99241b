/*
 * Dropping a stream, or a group of it, while the server runs: refused while anybody has a lane of
 * it; who has it open without a lane is told at its next call. On the loop's thread.
 */
#ifndef SEGUE_STREAM_DROP_H
#define SEGUE_STREAM_DROP_H

#include "stream/stream.h"

/* Answers when nothing of it is left. */
void segue_drop_request(struct segue_session *session, const struct segue_message *message);
/*
 * SEGUE_EBUSY while the first transaction is on its way: the name is neither taken nor free. Of the
 * stream, or of `group`; NULL: of any group of it.
 */
int segue_drops_check(const struct segue_server *server, const char *name, const char *group);
/* SEGUE_ENOTFOUND if the stream has been dropped since it was opened. */
int segue_drop_check_stream(const struct segue_stream *stream);
/* SEGUE_ENOTFOUND: the group by whose number a lane of it is asked for is not there any more. */
int segue_drop_fail_group(const struct segue_stream *stream, uint32_t lane);
/* The server is being stopped: the next one goes on. */
void segue_drops_stop(struct segue_server *server);

#endif
