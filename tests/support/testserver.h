/*
 * A server without a listener, for tests that talk to it over socketpairs, or call its parts. A
 * store, a loop, a committer, a guard; who uses it drives the loop.
 *
 * A fault of the machine (no memory, no file) prints and aborts.
 */
#ifndef SEGUE_TEST_TESTSERVER_H
#define SEGUE_TEST_TESTSERVER_H

#include "guard/guard.h"
#include "session/session.h"
#include "stream/stream.h"
#include "draft.h"
#include "tmpdir.h"

struct segue_testserver {
	struct segue_server server;
	struct segue_sessions sessions;
	struct segue_streams streams;
	struct segue_rules rules;
	struct segue_tmpdir dir;
	char store[SEGUE_TMPDIR_MAX];
};

/* Makes a directory with an empty store, and opens it. */
void segue_testserver_init(struct segue_testserver *test, const char *name);
/* Starts a server over it, with the default limits; requests are answered as by a real one. */
void segue_testserver_start(struct segue_testserver *test);
/* Ends it, as a real one ends when its loop has. The store stays open. */
void segue_testserver_stop(struct segue_testserver *test);
/* Closes the store, and removes the directory. */
void segue_testserver_finish(struct segue_testserver *test);

/* What a server does in each tick, but for its listener and its end. */
void segue_testserver_tick(struct segue_testserver *test, int64_t now);
/*
 * Runs the loop until `until` says so, which is asked after each tick; false: 20 s have passed.
 * `arg` is its.
 */
bool segue_testserver_run(struct segue_testserver *test, bool (*until)(void *arg), void *arg);
/* Until all that is under way on other threads has come back, and one tick more. */
void segue_testserver_settle(struct segue_testserver *test);

/* What all connections together have taken. */
uint64_t segue_testserver_taken(struct segue_testserver *test, enum segue_limit limit);

/* ---- Clients ---- */

/* A client at the other end of a socketpair. About 64 KiB. */
struct segue_testpeer {
	struct segue_testserver *test;
	int socket;
	struct segue_session *session; /* the server's side of it, as long as that is there */
	struct segue_frame_reader reader;
	struct segue_arena arena;
	struct segue_message reply; /* the last; its texts are good until the next one */
	int fds[SEGUE_FRAME_FDS];   /* that came with it: closed when the next one comes */
	size_t fd_count;
};

/* Connects. It has not said HELLO. */
void segue_testpeer_connect(struct segue_testpeer *peer, struct segue_testserver *test);
/* Closes its socket, and frees what it has. */
void segue_testpeer_close(struct segue_testpeer *peer);
void segue_testpeer_send(struct segue_testpeer *peer, const struct segue_message *message);
/* Runs the loop until an answer has come, and returns its type; 0: the server has hung up. */
int segue_testpeer_receive(struct segue_testpeer *peer);
/* Sends, and receives what is not PROGRESS. */
int segue_testpeer_ask(struct segue_testpeer *peer, const struct segue_message *message);
/* The detail of a FAILURE with this code; "": the reply is another one. */
const char *segue_testpeer_failure(const struct segue_testpeer *peer, int code);

/* Connects, and says HELLO. */
void segue_testpeer_greet(struct segue_testpeer *peer, struct segue_testserver *test);
/*
 * Opens the stream "s" over a file of 8 records of 6 steps, with one sequence feature and no
 * states: batch_size 2, num_unroll 2, 4 lanes. Returns its id.
 */
uint64_t segue_testpeer_open(struct segue_testpeer *peer);
/* The same with other wishes: `change` alters the spec. Returns the type of the answer. */
int segue_testpeer_open_as(struct segue_testpeer *peer, void (*change)(struct segue_draft *spec));
/* Asks for a lane; timeout 0: the default. Does not wait for the answer. */
void segue_testpeer_want(struct segue_testpeer *peer, uint64_t stream, uint32_t lane,
	enum segue_attach_mode mode, int64_t timeout_ns);
/* Asks for it, and gets it: aborts if not. Returns the lease. */
uint64_t segue_testpeer_take(struct segue_testpeer *peer, uint64_t stream, uint32_t lane);
/*
 * Commits and releases all batches below `step`, when they are there: of the lane that came last.
 */
void segue_testpeer_commit(struct segue_testpeer *peer, uint64_t step);

#endif
