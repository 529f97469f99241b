/*
 * What the kill tests share: a data set, workers that check every batch, a ledger of what was
 * acknowledged to them, and an oracle of what the store must hold.
 *
 * The ledger lies in a file that is mapped by all: what a worker wrote before it was killed is
 * there, and writing takes no system call. The oracle is the plan, run alone, and closed forms for
 * inputs and states.
 */
#ifndef SEGUE_TEST_SESSION_H
#define SEGUE_TEST_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "segue/segue.h"
#include "tmpdir.h"

enum {
	CRASH_LANES = 2,
	CRASH_ROWS = 4,
	CRASH_UNROLL = 3,
	CRASH_DEPTH = 3,
	CRASH_RECORDS = 40,
	CRASH_TOKEN = 8192,
	CRASH_TIMES = 1024,
	CRASH_INSERTED = 12, /* sequences of a session that inserts them */
};

/* How a worker ends. */
enum { CRASH_DONE = 0, CRASH_WRONG = 3, CRASH_REFUSED = 4 };

/* A lane's part of the ledger: written by the worker that has the lane. */
struct crash_lane {
	volatile uint64_t due;        /* commits of all steps below were acknowledged */
	volatile uint64_t committing; /* due + 1 while a commit is under way, else due */
	volatile uint64_t durable;    /* all steps below were said to be on disk */
	volatile uint64_t low;        /* a new holder may find the lane here at the lowest */
	volatile uint64_t batches;    /* acknowledged, all together */
	volatile uint64_t rewound;    /* the highest step that a restore left */
	uint64_t lost;                /* the most commits that a crash took back */
	int64_t lost_ns;              /* and the age of the oldest of them */
	volatile bool restoring;      /* to token_step */
	volatile uint64_t token_step;
	volatile uint64_t token_size; /* 0: none */
	uint8_t token[CRASH_TOKEN];
	volatile int64_t acknowledged_at[CRASH_TIMES]; /* by step, monotonic */
};

/* Of a session that inserts what it reads: a lane's last batch, and what came of each sequence. */
struct crash_taken {
	volatile uint64_t due;       /* the step that comes next */
	volatile uint64_t committed; /* due + 1 while a commit is under way, else due */
	volatile uint64_t rows;      /* of the batch that is being committed: */
	volatile uint64_t number[CRASH_ROWS], came[CRASH_ROWS];
};

struct crash_ledger {
	struct crash_lane lane[CRASH_LANES];
	struct crash_taken taken[CRASH_LANES];
	volatile uint64_t came[CRASH_INSERTED]; /* steps of each sequence, from the first on */
	volatile bool dropped;                  /* another stream, before the first stage */
	volatile uint32_t stage;                /* of the scripted session */
	volatile int code;        /* of the library: why a worker ended with CRASH_REFUSED */
	volatile uint64_t errors; /* of calls that were then made again */
	volatile bool wrong;      /* one ended with CRASH_WRONG */
	char message[512];        /* what it said */
};

/* What the plan puts into a row; or parks behind the rows. */
struct crash_row {
	uint64_t number; /* SEGUE_NO_SEQUENCE: there is no such row */
	uint32_t segment;
	bool last, parked;
};

/* One store with its ledger. */
struct crash_world {
	struct segue_tmpdir tmp;
	char dir[SEGUE_TMPDIR_MAX];  /* the store */
	char data[SEGUE_TMPDIR_MAX]; /* the data set */
	enum segue_durability durability;
	uint32_t interval_ms;
	bool inserts;       /* the session inserts what it reads (crash_insert_session), */
	bool mixes;         /* and reads it as a part of a mix with the data set */
	bool refusals;      /* workers may be refused, */
	bool patient;       /* and try again before they give up */
	int64_t timeout_ns; /* of a client for its server; 0: the usual one */
	struct crash_ledger *ledger;
	struct crash_row *plan; /* [lane][step][row] */
	uint64_t steps;         /* of each lane, at most */
};

/* The n-th number of a sequence that `seed` begins. */
uint64_t crash_mix(uint64_t seed);
/* $SEGUE_TEST_SEED, or the time. */
uint64_t crash_seed(void);
int64_t crash_now(void);
/* Prints and ends with status 1: a fault of the machine, or a promise that was broken. */
_Noreturn void crash_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * Makes the data set, an empty ledger and a place for the store; on a tmpfs if there is one, for
 * a kill leaves the page cache as it is, and syncs are then free. From now on orphans of this process's
 * children become its own children.
 */
void crash_world_make(struct crash_world *world, const char *name, uint64_t steps);
/* Throws store and ledger away. */
void crash_world_renew(struct crash_world *world);
void crash_world_remove(struct crash_world *world);

/* ---- A worker, in a process of its own; all end the process when something is wrong ---- */

struct crash_worker {
	struct crash_world *world;
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_lane *lane[CRASH_LANES];
	bool settled[CRASH_LANES]; /* the ledger says where it is */
	bool refusals;             /* an error of the library ends the worker with CRASH_REFUSED */
	bool patient;              /* a call that failed is made again before that */
	struct segue_batch *batch; /* taken, not released */
};

/* Connects, opens the stream, takes lanes first..first+count-1: from step 0 if the ledger is empty. */
void crash_worker_open(struct crash_worker *worker, uint32_t first, uint32_t count);
/* One batch, checked, to its commit; at some steps after another batch size was set. */
void crash_worker_batch(struct crash_worker *worker, uint32_t lane);
/* Gives everything back. */
void crash_worker_close(struct crash_worker *worker);
/* A token into the ledger; and back to it. */
void crash_worker_checkpoint(struct crash_worker *worker, uint32_t lane);
void crash_worker_restore(struct crash_worker *worker, uint32_t lane);

/*
 * Batches of one lane until `until` (0: for ever), with pauses, checkpoints and restores at moments
 * that `seed` gives.
 */
void crash_worker_wander(struct crash_worker *worker, uint32_t lane, uint64_t seed, uint64_t until);

/*
 * The whole session, from the stage that the ledger is at: another stream is dropped; batches, a checkpoint, more batches,
 * back to it, batches, an orderly end, another beginning, a few more.
 */
void crash_session(struct crash_world *world);
/* Where it ends. */
enum { CRASH_SESSION_STEPS = 8 };

/*
 * The same of a stream whose sequences are inserted: some of them, a batch of each lane, the rest,
 * the end of the input, all batches. Whoever does it again goes on where the last one was killed.
 */
void crash_insert_session(struct crash_world *world);
/* Each sequence came once, whole, and the store is sound. */
void crash_check_inserted(const struct crash_world *world, const char *where);

/* ---- Processes ---- */

/* All processes that came from this one: SIGKILL, until there are none. */
void crash_kill_all(void);
/*
 * Waits until no child is left; false: not within `ns`. Dies if one was ended by a signal that is
 * not SIGKILL: nothing that is done to them may make them crash.
 */
bool crash_await_all(int64_t ns);
/* The server of the store by its pid file; 0: none. */
pid_t crash_server_pid(const struct crash_world *world);
/* Prints the ledger's message and dies unless `status` is that of an end in order. */
void crash_check_end(const struct crash_world *world, int status, const char *where);
/* A process that wanders over one lane, and gives it back if it ends; it dies with this one. */
pid_t crash_start_wanderer(struct crash_world *world, uint32_t lane, uint64_t seed, uint64_t until);
/*
 * Both lanes a little beyond the highest step that was ever reached, to an end in order; then store
 * and files are checked.
 */
void crash_finish_in_order(struct crash_world *world, uint64_t seed, const char *where);

/* ---- The oracle ---- */

/*
 * The store at rest: every value sound, each lane at the step of the ledger, its live rows and the
 * states of ended ones as the plan says, and nothing else.
 */
void crash_check_store(const struct crash_world *world, const char *where);
/*
 * The same after a crash of everything at `crashed_at`: each lane may be where the ledger allows
 * (at durability = commit: nothing that was acknowledged is lost; else no commit older than the
 * interval), at a whole commit; the ledger then says where.
 */
void crash_check_after_crash(struct crash_world *world, int64_t crashed_at, const char *where);
/*
 * The files of a store that has been closed in order: dies if another one lies there, but for
 * those of a server that was killed if `killed`; returns whether such are there.
 */
bool crash_check_files(const struct crash_world *world, bool killed, const char *where);

#endif
