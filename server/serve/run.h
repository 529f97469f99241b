/*
 * A server's life: it starts, serves, and ends when it is told to or, embedded, when all have
 * left.
 */
#ifndef SEGUE_SERVE_RUN_H
#define SEGUE_SERVE_RUN_H

#include "guard/guard.h"

struct segue_options {
	const char *dir;
	const char *socket_path; /* NULL: <dir>/segue.sock */
	bool embedded;           /* started by a client: end when the last one has left */
	int ready_fd;            /* told when the socket listens; -1: nobody waits */
	int listen_fd;           /* a socket that listens already; -1: to be made */
	const struct segue_rules *rules;
	uint64_t map_bytes; /* the store cannot grow beyond; 0: no limit of ours */
};

/*
 * Exit status of a server, not embedded, that gets SIGBUS; an embedded one ends with that of
 * ESTORE.
 */
#define SEGUE_SERVER_UNREADABLE 3

/* Runs until SIGTERM, or, embedded, until nobody uses it. 0 or a negative code. */
int segue_server_run(const struct segue_options *options);

#endif
