/*
 * Streams: a data set with its spec, opened once and used by many. On the loop's thread, but for
 * the opening itself (dataset.c).
 *
 * A stream is there until the tick finds that no session has it open and no lease needs it.
 */
#ifndef SEGUE_STREAM_STREAM_H
#define SEGUE_STREAM_STREAM_H

#include "session/session.h"
#include "stream/ledger.h"

struct segue_checkpoint;
struct segue_stream_drop;
struct segue_opening;

/* All streams of a server. */
struct segue_streams {
	LIST_HEAD(, segue_stream) all;
	LIST_HEAD(, segue_checkpoint) checkpoints; /* under way (checkpoint.c) */
	LIST_HEAD(, segue_stream_drop) drops;      /* the same (drop.c) */
	uint32_t next_id;                          /* of a new stream */
};

enum segue_stream_state { SEGUE_STREAM_OPENING, SEGUE_STREAM_OPEN, SEGUE_STREAM_FAILED };

struct segue_stream {
	struct segue_task task; /* OPENING: the opening, */
	_Atomic bool given_up;  /* which nobody waits for, or the server is being stopped */
	struct segue_server *server;
	LIST_ENTRY(segue_stream) link;
	enum segue_stream_state state;
	bool dropped;            /* or about to be: who has it open finds nothing any more */
	struct segue_spec *spec; /* the store's, or the first client's; epochs: as it was made */
	uint32_t id;
	uint64_t fingerprint[2];
	struct segue_plan_spec plan; /* lane is set by its users; OPEN: the ends are the loop's */
	struct segue_index_keeper keeper;
	bool moved;        /* its data lie elsewhere than its record says */
	bool forget_index; /* the kept one is of files that have changed */
	struct segue_source *source;
	struct segue_live *live; /* the log that it reads; NULL: none */
	char *input_failure;     /* why nobody inserts; owned; NULL: that is not known, or not so */
	struct segue_account
		*account; /* of who opened it: pays for threads, tables and files; held */
	uint64_t taken[SEGUE_LIMIT_COUNT]; /* of that */
	struct segue_pool *pool;
	struct segue_ledgers ledgers;        /* OPEN: the loop's */
	struct segue_stream_feeds feeds;     /* the same */
	unsigned makings;                    /* of groups, under way (group.c) */
	LIST_HEAD(, segue_opening) openings; /* of all sessions */
};

/*
 * A stream that is OPENING, among all of the server; its task is still to be given. On the
 * session's account: takes at most what it may need, but for the index, of which nothing is known.
 * SEGUE_ELIMIT, SEGUE_ENOMEM, SEGUE_ESYSTEM.
 */
int segue_stream_create(
	struct segue_session *session, const struct segue_spec *spec, struct segue_stream **out);
/* Its source is open: takes what that really has, and its groups have. SEGUE_ELIMIT. */
int segue_stream_pay_for_source(struct segue_stream *stream);
/* What a lane's plan is made of: of input that goes on as of now. */
struct segue_plan_spec segue_stream_plan(const struct segue_stream *stream, uint32_t lane);
/* Ends its threads, and frees it; it is not among all any more. */
void segue_stream_destroy(struct segue_stream *stream);

#endif
