/*
 * The server: one store directory, and where to find what it has.
 *
 * All of this belongs to the loop's thread. Loader threads and the committer hand their results
 * over with segue_loop_post().
 */
#ifndef SEGUE_SESSION_SERVER_H
#define SEGUE_SESSION_SERVER_H

#include "core/error.h"

struct segue_committer;
struct segue_guard;
struct segue_loop;
struct segue_sessions;
struct segue_store;
struct segue_streams;

struct segue_server {
	/* What it is, for good. */
	const char *dir, *socket_path; /* absolute */
	uint64_t device, inode;        /* of the directory */
	uint64_t instance;             /* differs for each start */
	bool embedded;                 /* started by a client */
	int64_t started_ms;            /* Unix time */
	int64_t started_ns;

	/* What it has. */
	struct segue_loop *loop;
	struct segue_store *store;
	struct segue_committer *committer;
	struct segue_guard *guard;
	struct segue_sessions *sessions;
	struct segue_streams *streams;

	/* How it is. */
	uint64_t last_id;             /* of leases, openings, uploads, private groups */
	struct segue_outcome storage; /* of the last transaction */
	int64_t unwritten_ns;         /* since when last commits cannot be written; 0: they can */
	bool stopping;                /* leases are being written */
};

#endif
