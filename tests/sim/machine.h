/*
 * The machine that the simulator runs on: actors, their store buffers, locks, sleep, faults; one
 * seed decides everything.
 *
 * Actors are coroutines of one thread. Each primitive of barrier.h and wait.h is a scheduling
 * point: there another actor may run, a buffered store may reach memory, a fault may strike.
 *
 * Memory. A store through barrier.h goes into its actor's FIFO and reaches memory at a later
 * scheduling point, at the actor's next fence, lock, unlock or system call, or when the actor dies;
 * an actor sees its own stores: x86-TSO. Bulk memory (slots, state buffers, plain fields) is
 * visible at once. That is exact for "bulk, then word" (release order holds on both), and allows
 * more than TSO for "word, then bulk" (the bulk may be seen first, as C11 and weaker machines
 * allow): code that is right by release and acquire passes, code that counts on more does not. What
 * is not modelled: load-load and store-store reordering of words.
 */
#ifndef SEGUE_SIM_MACHINE_H
#define SEGUE_SIM_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#define SIM_NEVER INT64_MAX

/* ---- A run ---------------------------------------------------------------------------------- */

struct sim_options {
	uint64_t seed;
	const char *mutant; /* NULL: none */
	bool trace;
};

struct sim_failure {
	bool failed;
	char check[32];
	char text[512];
};

/*
 * Runs `begin` (which spawns the first actors), then actors until sim_finish() or sim_fail().
 * `strike` is called at scheduling points that sim_next_fault() chose; `timer` when sim_timer() is
 * due.
 */
struct sim_failure sim_run(const struct sim_options *options, void (*begin)(void),
	void (*strike)(void), void (*timer)(void));
/* Everything is as it should be in the end: the run is over. From an actor it does not return. */
void sim_finish(void);
/* A check does not hold: the run is over. From an actor it does not return. */
void sim_fail(const char *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define sim_check(condition, check, ...)                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			sim_fail(check, __VA_ARGS__);                                              \
	} while (0)
/* What can happen to a run from outside, or come of it: counted over all runs. */
#define SIM_EVENTS(X)                                                                              \
	X(SERVER_KILLED, "server killed")                                                          \
	X(SERVER_STOPPED, "server stopped in order")                                               \
	X(WORKER_KILLED, "worker killed")                                                          \
	X(LONG_STOP, "process stopped for long")                                                   \
	X(CONNECTION_CUT, "connection cut")                                                        \
	X(DISK_FULL, "disk full")                                                                  \
	X(DISK_FULL_AGAIN, "disk full for several transactions")                                   \
	X(DISK_FAILED, "disk failed")                                                              \
	X(LEASE_TIMEOUT, "lease ended by its timeout")                                             \
	X(LATE_COMMIT, "commit by a worker that was fenced meanwhile")                             \
	X(TAKEN, "lane taken over by a newer handle")                                              \
	X(TAKEN_OPEN, "... while the older one had an open batch")                                 \
	X(TAKEN_ASLEEP, "... while the older one slept")                                           \
	X(TAKEN_LOST, "... while the older one's server was gone")                                 \
	X(TAKEN_SEEN, "older handle learns it")                                                    \
	X(TAKEN_OFFER, "older handle's last commit offered by the newer one")                      \
	X(TAKEN_OFFER_REFUSED, "... and refused")                                                  \
	X(TAKE_LOST_SERVER, "server lost during a takeover")                                       \
	X(TAKE_LATE_COMMIT, "commit by an older handle during a takeover")                         \
	X(RESUMED, "lane gone on with, without an offer")                                          \
	X(RESUME_REFUSED, "... and refused")                                                       \
	X(RESUME_WAITED, "... after a wait for the end of a lost connection")                      \
	X(BUSY, "lane asked for in vain: busy")                                                    \
	X(BUSY_UNKNOWN, "lane of a holder that cannot be looked up asked for")                     \
	X(GRACE_OVER, "reservation of such a holder ended")                                        \
	X(OFFER_TAKEN, "offer taken")                                                              \
	X(OFFER_TWICE, "offer made twice")                                                         \
	X(OFFER_OLD_TOKEN, "offer with an old token")                                              \
	X(RESTORE, "restore")                                                                      \
	X(RESTORE_WHILE_STOPPED, "restore while a worker is stopped")                              \
	X(RESTORE_OLDER, "restore of a checkpoint from before another restore")                    \
	X(RESTORE_OTHER, "restore of another group's checkpoint")                                  \
	X(GREW, "stream grown")                                                                    \
	X(GREW_AT_END, "stream grown where lanes had ended")                                       \
	X(OLD_END, "lease that ended where the stream had grown since")                            \
	X(SIZED, "batch size set")                                                                 \
	X(SIZED_LOST, "... and its answer lost")                                                   \
	X(RENEWED, "lease renewed since that was asked for")                                       \
	X(RENEWED_LOST, "... and its answer lost")                                                 \
	X(PARKED, "batch committed with sequences parked")                                         \
	X(NO_ROWS, "batch of no rows committed")                                                   \
	X(JOINED, "feed of another group joined")                                                  \
	X(JOINED_BEHIND, "... at a step still in the ring")                                        \
	X(JOINED_OLDEST, "... at the oldest of them")                                              \
	X(JOIN_MISSED, "... and missed: it had gone on meanwhile")                                 \
	X(OWN_FEED, "feed opened where others have one of the lane")                               \
	X(LEFT, "feed left that others go on with")                                                \
	X(HELD_UP, "group held up by a slower one of its feed")                                    \
	X(DETACHED, "... which is left behind, with the feed alone")                               \
	X(CAUGHT_UP, "feed of its own left for one that others have")                              \
	X(ZEROED, "row that goes on handed an initial value")                                      \
	X(ZEROED_AGAIN, "... in a lease's first batch")                                            \
	X(FOLLOWED, "batch taken by a follower")                                                   \
	X(FOLLOWED_LATE, "... of a lease that was over")                                           \
	X(FOLLOWER_DIED, "follower gone")                                                          \
	X(FOLLOWER_LIED, "follower that writes nonsense")
enum sim_event_kind {
#define SIM_EVENT_KIND(name, text) SIM_##name,
	SIM_EVENTS(SIM_EVENT_KIND)
#undef SIM_EVENT_KIND
		SIM_EVENT_KINDS
};
extern uint64_t sim_happened[SIM_EVENT_KINDS];
/* A line of the trace. */
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- Chance and time ------------------------------------------------------------------------ */

uint64_t sim_random(void);
/* 0 .. bound - 1 */
uint32_t sim_below(uint32_t bound);
/* True once in `n` times. */
bool sim_one_in(uint32_t n);
/* A pure mixing function: the oracle's hash. */
uint64_t sim_mix(uint64_t a, uint64_t b);
/* Scheduling points so far. */
int64_t sim_now(void);
/* The next fault strikes at `when`; SIM_NEVER: none. */
void sim_next_fault(int64_t when);
/* `timer` is called at `when`. */
void sim_timer(int64_t when);

/* ---- Actors --------------------------------------------------------------------------------- */

/* Processes: 0 is the server; workers are 1, 2, ... An actor that returns is gone. */
void sim_spawn(const char *name, int process, void (*body)(void *arg), void *arg);
/* The process that the running actor belongs to; -1: none runs. */
int sim_process(void);
/*
 * Kills all actors of a process; their stores reach memory. The caller, if it is one of them, runs
 * until its next scheduling point.
 */
void sim_kill(int process);
/* True if an actor of another process than the server's stands still. */
bool sim_worker_stopped(void);
/* The running actor stands still until `until`. */
void sim_stop(int64_t until);
/* A scheduling point. */
void sim_point(void);
/* Something happened that is no mere ticking of weak timers. */
void sim_progress(void);

/* ---- Events, sleep (mutexes: host.h) ------------------------------------------------------------------- */

struct sim_event {
	bool set;
};
/* As eventfds: sticky. */
void sim_event_ring(struct sim_event *event);
/* Without a scheduling point: for strike() and timer(). */
void sim_event_set(struct sim_event *event);
/*
 * Until the event is rung, or `deadline`. A deadline is a weak timer: if nothing but weak timers
 * keeps the machine going, it is a deadlock.
 */
void sim_event_wait(struct sim_event *event, int64_t deadline);
/* The running actor's futex sleeps end when *alive is false: what a library notices by itself. */
void sim_sleep_while(const bool *alive);
/* Wakes all futex sleepers of all processes, so that they look at *alive. */
void sim_wake_sleepers(void);

#endif
