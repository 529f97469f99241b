/*
 * A filler: runs the plan of one lane ahead of its workers and writes the batches into a feed's
 * ring.
 *
 * It owns the feed, the ring's memory and the open records of the rows. One task at a time works
 * for it on the stream's loader threads; the feed's lock is held only to ask the gate and to
 * publish, never while a slot is filled.
 *
 *	       kick()             kick()
 *	IDLE ──────────► RUNNING ────────► AGAIN
 *	│ ▲  nothing left │ │ ▲  it looks    │
 *	│ └───to do───────┘ │ └──once more───┤
 *	│ close()           └──────┬─────────┘
 *	▼         the task ends    ▼ close()
 *	CLOSED ◄──────────────── CLOSING
 *
 * Apart from that, since they may change in each of these states: `stalled` is the storage's word,
 * and how far the next batch is remembers work that was begun (a gate may close over it).
 *
 * Where the input goes on, there is nothing left to do until the lane's next sequence is inserted:
 * whoever has it inserted kicks. The same where rows begin with what was kept, until their keys'
 * last batches are committed.
 */
#ifndef SEGUE_ENGINE_FILLER_H
#define SEGUE_ENGINE_FILLER_H

#include <pthread.h>

#include "core/shm.h"
#include "core/stopwatch.h"
#include "engine/extent.h"
#include "engine/initial.h"
#include "engine/input.h"
#include "engine/looked.h"
#include "engine/side.h"
#include "lane/feed.h"
#include "lane/image.h"
#include "os/pool.h"

enum segue_filler_state {
	SEGUE_FILLER_IDLE,
	SEGUE_FILLER_RUNNING, /* a task is queued or at work */
	SEGUE_FILLER_AGAIN,   /* ... and looks once more before it ends */
	SEGUE_FILLER_CLOSING, /* ... and does nothing more */
	SEGUE_FILLER_CLOSED,
};

/* How far batch `published` is. */
enum segue_filler_batch {
	SEGUE_FILLER_UNMADE,
	SEGUE_FILLER_FORMED, /* its rows are known, their records open */
	SEGUE_FILLER_FILLED, /* its slot is complete */
};

struct segue_filler {
	struct segue_feed feed;
	/* Of the feed, its carries, plan_spec, `state`, `stalled`, `ended`, the sums, `full`. */
	pthread_mutex_t lock;
	enum segue_filler_state state;
	bool stalled; /* storage failed: nothing is published */
	bool ended;   /* the input has, after plan_spec.records: the plan is not told yet */
	uint64_t steps_published, valid_published; /* of all batches published: the sums */
	struct segue_stopwatch full;               /* it waits for a worker to let go of a slot */
	void (*closed)(void *arg); /* called on a loader thread once closing and no task runs */
	void *closed_arg;

	struct segue_shm ring;
	struct segue_geometry geometry; /* owned */
	struct segue_sides sides;       /* whose purse is set by who makes the filler */
	struct segue_plan_spec plan_spec;

	/* The task's alone. */
	struct segue_plan plan;
	const struct segue_spec *spec;
	struct segue_input input;
	struct segue_pool *pool;
	struct segue_task task;
	struct segue_filler_row {
		uint64_t number;
		struct segue_record *record;
	} * row, *next_row; /* geometry.places each: of the last batch, and the one being made */
	/* Admitted for the one being made: also by a try that had to wait for what comes next. */
	struct segue_filler_admitted {
		uint64_t number;
		struct segue_record *record; /* NULL: passed over */
		struct segue_admitted lengths;
	} * admitted;
	uint32_t admitted_count, admitted_capacity;
	uint32_t asked;             /* of them, by this try */
	struct segue_looked looked; /* for the one being made */
	struct segue_initials initial;
	uint64_t counted; /* numbers below it, of those passed over */
	struct segue_slot_span *spans;
	struct segue_log_place seen; /* of a log, as of the last batch */
	struct segue_feed_key *keys;
	char *heap; /* geometry.places * key_max */
	uint32_t key_max;
	size_t heap_used;
	enum segue_filler_batch batch;
	uint32_t rows;              /* FORMED: of the batch */
	struct segue_extent extent; /* FORMED: of the batch */
	unsigned misses;            /* tries in a row that had no memory */
};

/*
 * A filler that goes on from `image` (position and, for its live rows, keys: those are written here
 * from the records). Opens the records of live rows: reads. `spec`, `source` and `pool` must
 * outlive it. The ring is made and sealed. On a loader thread.
 */
int segue_filler_create(const struct segue_spec *spec, const struct segue_plan_spec *plan,
	struct segue_source *source, struct segue_pool *pool, struct segue_image *image,
	struct segue_filler **out);

/*
 * There may be something to do. From any thread. What had no memory is tried again: a few times at
 * once, then, when the workers have been told (SEGUE_ENOMEM), with each kick.
 */
void segue_filler_kick(struct segue_filler *filler);
/* Input that went on has ended after so many records, and those are there: see segue_plan_end(). */
void segue_filler_end(struct segue_filler *filler, uint64_t records);
/* A copy of its plan's spec. */
struct segue_plan_spec segue_filler_plan(struct segue_filler *filler);
/* Storage failed, or works again. */
void segue_filler_stall(struct segue_filler *filler, bool stalled);
/* Stops it; `closed` is called when no task runs (at once, or on a loader thread); then destroy it.
 */
void segue_filler_close(struct segue_filler *filler, void (*closed)(void *arg), void *arg);
void segue_filler_destroy(struct segue_filler *filler);

#endif
