/* All streams of a server. On the loop's thread. */
#ifndef SEGUE_STREAM_STREAMS_H
#define SEGUE_STREAM_STREAMS_H

#include "stream/opening.h"

/*
 * The stream of that name that is open, or being opened, and that whoever comes now can have; NULL:
 * there is none.
 */
struct segue_stream *segue_streams_find(const struct segue_server *server, const char *name);
/* Answers, now or later. order->spec, which was checked, is taken over. */
void segue_stream_open_request(const struct segue_opening_order *order);
void segue_stream_close_request(struct segue_session *session, const struct segue_message *message);
/* The session is gone: its leases end, its requests are forgotten. */
void segue_streams_session_gone(struct segue_session *session);
/* Time passes: reservations, waiting requests, what nobody uses. */
void segue_streams_tick(struct segue_server *server, int64_t now);
/* Storage failed, or works again: see server->storage. */
void segue_streams_storage(struct segue_server *server);
/* Ends all leases for a stop; their holders may offer them to the next server. True if none is
 * left. */
bool segue_streams_stop(struct segue_server *server);
/* The loop has ended: nothing more is inserted into their logs. While the committer works. */
void segue_streams_quiesce(struct segue_server *server);
/* Frees what is left when the loop has ended. */
void segue_streams_destroy(struct segue_server *server);

#endif
