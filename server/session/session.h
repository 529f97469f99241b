/*
 * A session: one connection, the process at its other end, and what that waits for. On the loop's
 * thread.
 *
 *	       HELLO
 *	NEW ──────────► SERVED
 *	 │                │
 *	 ├──► FAILED ◄────┤   of no further use: it is closed as soon as nobody looks at it
 *	 │       │        │
 *	 └───────┴────────┴──► LEAVING   closed; its peer may have file descriptors to read still
 *
 * Whether it is read, and whether it waits for room, are two more things, independent of that and
 * of each other: `events`.
 */
#ifndef SEGUE_SESSION_SESSION_H
#define SEGUE_SESSION_SESSION_H

#include "core/frame.h"
#include "core/list.h"
#include "core/wire.h"
#include "guard/guard.h"
#include "os/loop.h"
#include "session/server.h"

struct segue_opening;
struct segue_request;
struct segue_session;
struct segue_supply;
struct segue_upload;

/* All sessions of a server, and what is done for them elsewhere. */
struct segue_sessions {
	/* A message has come. Returns what it costs, in frames of the rate: about what it makes the
	 * loop do. */
	unsigned (*received)(struct segue_session *session, const struct segue_message *message);
	/* It has been closed: what it had and asked for ends. Nothing can be sent any more. */
	void (*gone)(struct segue_session *session);
	LIST_HEAD(, segue_session) all;
	LIST_HEAD(, segue_session) leaving;
	bool any; /* there was one */
};

enum segue_session_state {
	SEGUE_SESSION_NEW,
	SEGUE_SESSION_SERVED,
	SEGUE_SESSION_FAILED,
	SEGUE_SESSION_LEAVING,
};

struct segue_session {
	struct segue_server *server;
	LIST_ENTRY(segue_session) link;
	enum segue_session_state state;
	struct segue_watch socket, process; /* process.fd -1: no pidfd */
	struct segue_holder holder;
	struct segue_account *account; /* on which it takes and reads; held */
	char program[64];
	/* Of the socket: EPOLLIN unless it has sent too fast, EPOLLOUT while it has no room. */
	uint32_t events;
	int64_t hello_by; /* must have said HELLO */
	int64_t frame_by; /* the frame that was begun must be whole; 0: none was */
	struct segue_rate rate;
	unsigned fds_sent; /* since it last had read everything */
	unsigned fds_paid; /* of those, beyond what a connection has: its account's */
	int64_t retry_at;  /* the kernel took no more fds; 0: it did */
	struct segue_frame_reader *reader;
	struct segue_frame_queue *queue;
	struct segue_arena arena;

	/* What it has asked for. */
	uint64_t lanes;         /* held, or asked for */
	unsigned long_requests; /* under way */
	LIST_HEAD(, segue_request) requests;
	LIST_HEAD(, segue_upload) uploads;
	LIST_HEAD(, segue_opening) openings;
	LIST_HEAD(, segue_supply) supplies; /* its producers */
};

/* Takes over a connected socket. A peer that may not connect, or not once more, is told why. */
void segue_session_create(struct segue_server *server, int socket);
/*
 * Tells whoever is at the other end why it is not served, with this thread's detail; then closes.
 */
void segue_session_refuse(int socket, int code);
/* It has said HELLO, and is served from now on. */
void segue_session_greet(struct segue_session *session, const char *program);
/* The connection is of no further use: what has been sent is the last. */
void segue_session_hang_up(struct segue_session *session);
/* Whether its peer has closed the connection, though the loop has not come to it yet. */
bool segue_session_peer_left(const struct segue_session *session);
/* Whether it has sent too fast, and is not read for the moment. */
bool segue_session_is_paused(const struct segue_session *session);
/* Sends a message with fds (which stay the caller's); a peer that does not read is dropped. */
void segue_session_send(struct segue_session *session, const struct segue_message *message,
	const int *fds, size_t fd_count);
/* FAILURE with this thread's detail. */
void segue_session_fail(struct segue_session *session, uint64_t serial, int code);
/* DONE. */
void segue_session_send_done(struct segue_session *session, uint64_t serial);
/* BULK: the bytes in a segment of their own. */
void segue_session_send_bulk(
	struct segue_session *session, uint64_t serial, const void *bytes, size_t size);
/* The same, with what a BULK says of them: `message` has its serial; type and size are set here. */
void segue_session_send_bulk_with(struct segue_session *session, struct segue_message *message,
	const void *bytes, size_t size);
/* Ends the session; safe inside its own callbacks. */
void segue_session_close(struct segue_session *session);

/* Time passes. */
void segue_sessions_tick(struct segue_server *server, int64_t now);
/*
 * Like segue_account_take(); of descriptors, those that peers have read meanwhile are given back
 * first.
 */
int segue_sessions_take(struct segue_server *server, struct segue_account *account,
	enum segue_limit limit, uint64_t more);
void segue_sessions_close(struct segue_server *server);
/* Frees those that are left when the loop has ended. */
void segue_sessions_destroy(struct segue_server *server);

#endif
