/*
 * The log that a live stream reads, among the threads of the engine: its inserter, its source, the
 * lanes that read it, and transactions that refer to it.
 *
 * A position refers to sequences; it goes to disk, or to anybody, when the log is synced as far as
 * it has seen (lane/backlog.h). The committer does not wait for that: it leaves the lane out of its
 * transaction, and hears when to try again. Whoever has a thread to wait on, waits. And each
 * transaction that refers to a sequence says how far the log is known, so that its loss would be
 * noticed: store/logs.h.
 *
 * Of a mix with a log, lanes have the numbers of the mix: positions, backlogs, capacities. Log,
 * store and inserter have those of the log. Here the one becomes the other (source/mix/arrange.h).
 */
#ifndef SEGUE_ENGINE_LIVE_H
#define SEGUE_ENGINE_LIVE_H

#include "engine/changes.h"
#include "engine/inserter.h"
#include "lane/backlog.h"
#include "source/mix/arrange.h"
#include "source/source.h"

struct segue_live;
struct segue_filler;
struct segue_carry;

struct segue_live_order {
	const struct segue_spec *spec; /* of the stream; must outlive it */
	const char *dir;               /* of the log's files, its own */
	uint64_t file_bytes;           /* as in struct segue_log_means */
	uint8_t id[SEGUE_SEQLOG_ID];
	struct segue_mix_log numbers; /* of the stream, beside those of the log */
	uint32_t stream;              /* under which the store has what it knows of log and lanes */
	struct segue_store *store;
	struct segue_changes *changes; /* of the store */
	struct segue_backlog_limits limits;
	struct segue_log_retain retain; /* never given up; both 0: nothing ever is */
	uint32_t producers;             /* that will close, and end the input; 0: not said */
	void (*covered)(void *arg); /* a lane that was left out can be in the next transaction */
	/* segue_committer_pinned(); NULL: there are no checkpoints. */
	uint64_t (*pinned)(void *arg, struct segue_place place);
	void *arg;
};

/*
 * Opens the log that the store knows, or makes it, on disk and in the store; begins to write.
 * Blocks. SEGUE_ESTORE: what store and log say does not go together, says what; and as
 * segue_log_open(), segue_logs_load(), segue_changes_apply().
 */
int segue_live_open(const struct segue_live_order *order, struct segue_live **out);
/* Nothing more is inserted: all that was is synced, unless the log has failed. Blocks. */
void segue_live_stop(struct segue_live *live);
/*
 * Stops it, if it was not. Nobody else has anything of it any more, but for the source. NULL is
 * fine.
 */
void segue_live_close(struct segue_live *live);

struct segue_log *segue_live_log(const struct segue_live *live);
struct segue_inserter *segue_live_inserter(const struct segue_live *live);
/* What the log has, as a source. Whoever opened it destroys that, before or after. */
struct segue_source *segue_live_source(const struct segue_live *live);
/* How many unfinished sequences of it a lane may have. Any thread. */
uint64_t segue_live_capacity(const struct segue_live *live);

/* ---- Lanes: any thread ----------------------------------------------------------------------- */

/*
 * The filler of a group's lane that is in force: it is kicked when there is more for it, and told
 * of the end, also of one that has been. How far its worker is says how much more is inserted.
 */
void segue_live_join(struct segue_live *live, uint32_t group, struct segue_filler *filler,
	struct segue_carry *carry);
/*
 * The carry is going to be destroyed: what it needed may be given up. One that has not joined is
 * fine. Its filler may go on for other groups.
 */
void segue_live_leave(struct segue_live *live, const struct segue_carry *carry);
/*
 * A group was made, and is in the store: inserting waits for it, too. One that is known is fine.
 * SEGUE_ENOMEM.
 */
int segue_live_add_group(struct segue_live *live, uint32_t group);
/* It was dropped, in the store, too: nothing waits for it any more, and what it needed may go. */
void segue_live_drop_group(struct segue_live *live, uint32_t group);
/* Workers may be further: who waits to insert looks again. */
void segue_live_moved(struct segue_live *live);

/* How a log stands, and what its lanes have before them. */
struct segue_live_look {
	struct segue_log_stand log;
	struct segue_backlog_limits limits;
	bool ended; /* the input has */
	/* Of each lane: sequences that are there and the group that is furthest behind has not
	 * finished. */
	uint64_t unfinished[];
};
/* malloc'd; NULL: no memory. */
struct segue_live_look *segue_live_look(struct segue_live *live);
/* So many has the lane of that group; 0: inserting does not wait for it (engine/readers.h). */
uint64_t segue_live_behind(struct segue_live *live, uint32_t group, uint32_t lane);

/*
 * Whether the position may be stored, by a transaction that segue_live_put() is in as well. 0, or
 * SEGUE_LIVE_LATER: the log is not synced as far; it will be soon, and `covered` is called then.
 * SEGUE_ESTORE: it never will be, for the log has failed. The committer's thread.
 */
#define SEGUE_LIVE_LATER 1
int segue_live_covers(struct segue_live *live, const struct segue_plan_spec *plan,
	const struct segue_position *position);
/* Adds how far the log is known by now. The same thread. SEGUE_ENOMEM. */
int segue_live_put(struct segue_live *live, struct segue_ops *ops);
/*
 * Waits until the position may be stored, or given to anybody. SEGUE_ENOTFOUND: the log has not so
 * many sequences; SEGUE_ESTORE, as above. Any thread that may wait.
 */
int segue_live_await(struct segue_live *live, const struct segue_plan_spec *plan,
	const struct segue_position *position);
/*
 * Whether all is there that the position needs, which was not stored yet, or is by a token.
 * SEGUE_ENOTFOUND: it was given up; says what, and what is left. Any thread; inside a change's
 * `build` it stays so until that is on disk.
 */
int segue_live_holds(struct segue_live *live, const struct segue_plan_spec *plan,
	const struct segue_position *position);
/* So many sequences of the log are among the first `count` numbers of the stream. Any thread. */
uint64_t segue_live_inserted(const struct segue_live *live, uint64_t count);
/* The first sequence of the log that was not given up. Any thread. */
uint64_t segue_live_first(const struct segue_live *live);
/* Positions or checkpoints of its lanes have changed on disk: some of it may be given up. */
void segue_live_stored(struct segue_live *live);
/*
 * The running hash of all that the position has seen: by which it belongs to the log. As
 * segue_log_hash(). Any thread.
 */
int segue_live_hash(struct segue_live *live, const struct segue_plan_spec *plan,
	const struct segue_position *position, uint64_t hash[2]);

#endif
