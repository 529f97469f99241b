/*
 * A client: one connection to the server of a store directory, made again when it is lost.
 *
 * Work that needs the server is an "attempt": a function that may be run again, from its start, on
 * the next connection. Whoever has something of a connection (a stream's id, a lane's lease) keeps
 * the `epoch` of that connection beside it, and asks anew where the client has another one.
 *
 * All of a client is used by one thread at a time, so counts of users are plain.
 */
#ifndef SEGUE_CLIENT_CLIENT_H
#define SEGUE_CLIENT_CLIENT_H

#include "client/connection.h"

#define SEGUE_REQUEST_NS INT64_C(30000000000) /* patience with simple requests */
#define SEGUE_ANSWER_NS  INT64_C(5000000000)  /* on top of a time that the server was told */

struct segue_lane;

struct segue_client {
	struct segue_connection connection;
	struct segue_hooks hooks;
	char *dir, *socket_path; /* absolute */
	char *program;           /* NULL: to be found */
	bool own_socket;         /* socket_path was given */
	bool no_start;
	int64_t timeout_ns;
	uint64_t epoch;       /* of the live connection; 0: none yet */
	int64_t connected_ns; /* when that was made */
	/* The directory that was opened: a handle is never of another of the same name. */
	uint64_t device, inode; /* inode 0: not known */
	int dir_fd;             /* of it, O_PATH, where `dir` led to it; or -1 */
	/*
	 * All that are open, and whether a server may be started again for them: 0, or why that
	 * would be in vain. Both are attach.c's.
	 */
	struct segue_lane *lanes;
	int (*may_start)(const struct segue_lane *lanes);
};

/* Losses of the server while one thing is being tried. */
struct segue_losses {
	int64_t first, last, delay;
};

/*
 * The server was lost: 0 if it should be tried again, at once the first time and after growing
 * pauses then. SEGUE_EGONE when that has been going on for the client's timeout, SEGUE_ETIMEOUT at
 * `deadline_ns`, SEGUE_EINTERRUPTED.
 */
int segue_client_lost(
	struct segue_client *client, struct segue_losses *losses, int64_t deadline_ns);

/*
 * The server says `rc` of somebody else's stream. SEGUE_ENOTFOUND becomes SEGUE_EGONE, to be tried
 * again, for some seconds on a connection that came after another: the process that gives the
 * source may come to the next server later than this one. Whoever asks may have seen the stream on
 * the server before, and need not know that this is another.
 */
int segue_client_missing(const struct segue_client *client, int rc);

/* SEGUE_EMOVED: `dir` was opened and does not lead there any more. */
int segue_client_check_dir(const struct segue_client *client);

/*
 * Runs `attempt` on a live connection, and again on a new one whenever it comes back with
 * SEGUE_EGONE, as segue_client_lost() allows. A server that must be waited for is waited for until
 * `deadline_ns` at most: SEGUE_ETIMEOUT.
 */
int segue_client_run(
	struct segue_client *client, int64_t deadline_ns, int (*attempt)(void *arg), void *arg);

/* segue_connection_call() with the client's hooks. */
int segue_client_call(struct segue_client *client, struct segue_message *request,
	enum segue_message_type want, int64_t timeout_ns, struct segue_reply *reply);

#endif
