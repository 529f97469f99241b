/*
 * Streams: a data set with its spec, opened once and used by many. On the loop's thread, but for the
 * opening itself (dataset.c).
 *
 * A stream is there until the tick finds that no session has it open and no lease needs it.
 */
#ifndef SEGUE_STREAM_STREAM_H
#define SEGUE_STREAM_STREAM_H

#include "session/session.h"
#include "stream/ledger.h"

struct segue_checkpoint;
struct segue_opening;

/* All streams of a server. */
struct segue_streams {
	LIST_HEAD(, segue_stream) all;
	LIST_HEAD(, segue_checkpoint) checkpoints; /* under way (checkpoint.c) */
	uint32_t next_id;                          /* of a new stream */
};

enum segue_stream_state { SEGUE_STREAM_OPENING, SEGUE_STREAM_OPEN, SEGUE_STREAM_FAILED };

struct segue_stream {
	struct segue_task task; /* OPENING: the opening, */
	_Atomic bool given_up;  /* which nobody waits for, or the server is being stopped */
	struct segue_server *server;
	LIST_ENTRY(segue_stream) link;
	enum segue_stream_state state;
	struct segue_spec *spec; /* the store's, or the first client's */
	uint32_t id;
	uint64_t fingerprint[2];
	struct segue_plan_spec plan; /* lane is set by its users */
	struct segue_index_keeper keeper;
	bool forget_index; /* the kept one is of files that have changed */
	struct segue_source *source;
	struct segue_account
		*account; /* of who opened it: pays for threads, tables and files; held */
	uint64_t taken[SEGUE_LIMIT_COUNT]; /* of that */
	struct segue_pool *pool;
	struct segue_ledgers ledgers;        /* OPEN: the loop's */
	LIST_HEAD(, segue_opening) openings; /* of all sessions */
};

/* Answers, now or later. `spec` is taken over. */
void segue_stream_open_request(
	struct segue_session *session, uint64_t serial, struct segue_spec *spec);
void segue_stream_close_request(struct segue_session *session, const struct segue_message *message);
/* The session is gone: its leases end, its requests are forgotten. */
void segue_streams_session_gone(struct segue_session *session);
/* Time passes: reservations, waiting requests, what nobody uses. Returns when to come again. */
int64_t segue_streams_tick(struct segue_server *server, int64_t now);
/* Storage failed, or works again: see server->storage. */
void segue_streams_storage(struct segue_server *server);
/* Ends all leases for a stop; their holders may offer them to the next server. True if none is
 * left. */
bool segue_streams_stop(struct segue_server *server);
/* Frees what is left when the loop has ended. */
void segue_streams_destroy(struct segue_server *server);

#endif
