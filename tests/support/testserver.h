/*
 * A server without a listener, for tests that talk to it over socketpairs, or call its parts. A store,
 * a loop, a committer, a guard; who uses it drives the loop.
 *
 * A fault of the machine (no memory, no file) prints and aborts.
 */
#ifndef SEGUE_TEST_TESTSERVER_H
#define SEGUE_TEST_TESTSERVER_H

#include "guard/guard.h"
#include "session/session.h"
#include "stream/stream.h"
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
 * Runs the loop until `until` says so, which is asked after each tick; false: 20 s have passed. `arg` is
 * its.
 */
bool segue_testserver_run(struct segue_testserver *test, bool (*until)(void *arg), void *arg);
/* Until all that is under way on other threads has come back, and one tick more. */
void segue_testserver_settle(struct segue_testserver *test);

#endif
