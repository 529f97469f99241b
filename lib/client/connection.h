/*
 * The control socket from the client's side: one request at a time, and its reply.
 *
 * A connection is either live or lost. It is lost as soon as its state is unknown: the server has
 * closed it or broke the protocol, or the caller was interrupted, or did not get its answer in
 * time, and how the request ended matters (a lease is granted or ends, a stream is opened, an
 * upload is made). It can then be opened again.
 */
#ifndef SEGUE_CLIENT_CONNECTION_H
#define SEGUE_CLIENT_CONNECTION_H

#include "client/fork.h"
#include "core/wire.h"

/* What the user wants to be called back for while something takes long. */
struct segue_hooks {
	segue_progress_fn *progress;   /* may be NULL */
	segue_interrupt_fn *interrupt; /* may be NULL */
	void *arg;
};

/* SEGUE_EINTERRUPTED if the user wants the wait to end, else 0. */
int segue_hooks_interrupted(const struct segue_hooks *hooks);
/* Sleeps for `ns`; 0 or SEGUE_EINTERRUPTED. */
int segue_hooks_pause(const struct segue_hooks *hooks, int64_t ns);

/* `now` + `timeout_ns` without overflow; INT64_MAX is never. */
int64_t segue_deadline(int64_t now, int64_t timeout_ns);

struct segue_connection {
	struct segue_fork_guard guard; /* fd: the socket; -1: lost */
	struct segue_frame_reader *reader;
	struct segue_arena arena;
	uint8_t *out; /* SEGUE_FRAME_MAX: the request being sent */
	uint64_t serial;
	/* Of the server: of this start of it, and where its store lies; inode 0: not known. */
	uint64_t instance, device, inode;
	uint64_t number; /* rises with each connection that the process makes */
	bool busy;       /* a request is under way: its callbacks must not begin another */
	bool leavable;   /* ... and it can end without an answer, and be made again */
};

struct segue_reply {
	struct segue_message message; /* strings: valid until the next call */
	int fds[SEGUE_FRAME_FDS];     /* the caller's; as many as the type of the message has */
};

/* Allocates; the connection is lost at first. Must not be moved afterwards. SEGUE_ENOMEM. */
int segue_connection_init(struct segue_connection *connection);
void segue_connection_finish(struct segue_connection *connection);

/*
 * Connects to `path` and greets, until deadline_ns at most. Not lost any more if this returns 0.
 * `dir` is the store directory that is meant: SEGUE_EINVAL if the server there is of another one.
 * SEGUE_EGONE: nobody answers there; SEGUE_EVERSION; SEGUE_ETIMEOUT, SEGUE_EINTERRUPTED,
 * SEGUE_ESYSTEM.
 */
int segue_connection_open(struct segue_connection *connection, const char *path, const char *dir,
	int64_t deadline_ns, const struct segue_hooks *hooks);
/* From now on it is lost. */
void segue_connection_close(struct segue_connection *connection);
bool segue_connection_live(const struct segue_connection *connection);

/*
 * Sends `request` (its serial is filled in) and waits for the reply of type `want`. Progress of
 * this request is passed on. What the server refuses comes back as its code and detail, and the
 * connection stays live. Otherwise the connection is lost: SEGUE_EGONE, SEGUE_EPROTOCOL,
 * SEGUE_ESYSTEM, and SEGUE_ETIMEOUT (timeout_ns; INT64_MAX: none) or SEGUE_EINTERRUPTED of a
 * request that was not sent whole, or whose end matters; after others these leave it live, and the
 * late answer is dropped.
 */
int segue_connection_call(struct segue_connection *connection, struct segue_message *request,
	enum segue_message_type want, int64_t timeout_ns, const struct segue_hooks *hooks,
	struct segue_reply *reply);

/* Sends `request` and waits for no answer: it is dropped when it comes. */
void segue_connection_tell(struct segue_connection *connection, struct segue_message *request);

/* Without blocking: SEGUE_EGONE if the server has gone. Frames nobody waits for are dropped. */
int segue_connection_check(struct segue_connection *connection);

#endif
