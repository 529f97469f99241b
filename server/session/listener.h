/*
 * The listening socket.
 */
#ifndef SEGUE_SESSION_LISTENER_H
#define SEGUE_SESSION_LISTENER_H

#include "session/server.h"

struct segue_listener;
/*
 * Binds the server's socket and listens, or takes over `given`, one that listens already; -1:
 * there is none. Under the store's lock: a stale socket is removed, one that somebody has is
 * SEGUE_EBUSY.
 */
int segue_listener_create(struct segue_server *server, int given, struct segue_listener **out);
/*
 * Tries again to accept where there was no descriptor for it; makes the socket anew if somebody has
 * removed its file, but not in another directory than it was in.
 */
void segue_listener_tick(struct segue_listener *listener, int64_t now);
/* Unlinks the socket. NULL is fine. */
void segue_listener_destroy(struct segue_listener *listener);

#endif
