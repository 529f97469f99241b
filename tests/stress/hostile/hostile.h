/*
 * What the attacks share: raw connections, leases without the library, the stream under attack.
 *
 * An attack ends by returning (the outcome was as docs/FAULTS.md states), by hostile_fail() (it was
 * not: exit status 1) or by hostile_skip() (this machine cannot show it: 77). Not for threads.
 */
#ifndef SEGUE_TESTS_HOSTILE_H
#define SEGUE_TESTS_HOSTILE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "core/frame.h"
#include "core/layout.h"
#include "segue/segue.h"
#include "core/wire.h"
#include "draft.h"

enum {
	HOSTILE_RECORDS = 96,
	HOSTILE_LANES = 12, /* lane 0 is the canary's, the others are one an attack */
	HOSTILE_ROWS = 4,
	HOSTILE_UNROLL = 3,
	HOSTILE_WORDS = 64, /* int64 of the state, a row */
};

struct hostile {
	const char *dir;     /* of the server that is attacked */
	const char *data;    /* its data set */
	const char *scratch; /* an empty directory of this attack */
	uint64_t random;
	int64_t until;     /* monotonic: the attack ends here */
	bool thorough;     /* the long form */
	bool crowded;      /* beside all other attacks: how long things take says nothing */
	const char *group; /* whose leases the attacker has; NULL: the one without a name */
};

/* Name, and the row of the table that it covers. */
#define HOSTILE_ATTACKS(X)                                                                         \
	X(killed, "C1")                                                                            \
	X(half_state, "C2")                                                                        \
	X(commit_store, "C3")                                                                      \
	X(stopped, "C4")                                                                           \
	X(overdue, "C4")                                                                           \
	X(scribble, "C5")                                                                          \
	X(readonly, "C6")                                                                          \
	X(words, "C7")                                                                             \
	X(frames, "C8")                                                                            \
	X(absurd, "C8")                                                                            \
	X(slow, "C9")                                                                              \
	X(bombs, "C10")                                                                            \
	X(flood, "C11")                                                                            \
	X(fds, "C12")                                                                              \
	X(deaf, "C13")                                                                             \
	X(keeper, "C14")                                                                           \
	X(tokens, "C15")                                                                           \
	X(two_offers, "C16")                                                                       \
	X(paths, "C17")                                                                            \
	X(rooted, "C17")                                                                           \
	X(versions, "C18")                                                                         \
	X(records, "C19")                                                                          \
	X(arrays, "C19")                                                                           \
	X(gzip, "C20")                                                                             \
	X(memory, "C21")                                                                           \
	X(signals, "C22")                                                                          \
	X(oom, "C22")                                                                              \
	X(forked, "C23")                                                                           \
	X(namespaces, "C24")                                                                       \
	X(sides, "C25")                                                                            \
	X(producers, "C26")                                                                        \
	X(groups, "C28")                                                                           \
	X(replicas, "C29")
#define HOSTILE_DECLARE(name, row) void attack_##name(struct hostile *hostile);
HOSTILE_ATTACKS(HOSTILE_DECLARE)
#undef HOSTILE_DECLARE

/*
 * Those that are made by a worker of group "b", too, while one of the group without a name works on
 * the same lane of stream "main": `list` has them as NAME+b.
 */
#define HOSTILE_BESIDE(X)                                                                          \
	X(killed, 1)                                                                               \
	X(half_state, 2)                                                                           \
	X(commit_store, 3)                                                                         \
	X(stopped, 4)                                                                              \
	X(scribble, 5)                                                                             \
	X(readonly, 6)                                                                             \
	X(words, 7)                                                                                \
	X(signals, 8)

_Noreturn void hostile_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void hostile_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define EXPECT(condition, ...)                                                                     \
	do {                                                                                       \
		if (!(condition))                                                                  \
			hostile_fail(__VA_ARGS__);                                                 \
	} while (0)

uint64_t hostile_random(struct hostile *hostile);
bool hostile_time_left(const struct hostile *hostile);
void hostile_sleep_ms(int64_t ms);
/* fork(), and the child dies with its parent, however that ends. */
pid_t hostile_fork(void);
/* Waits for a child; fails unless it was killed by `signal` (0: it ended with status 0). */
void hostile_reap(pid_t pid, int signal);
/* The pid in the server's file; 0: none. */
pid_t hostile_server_pid(const char *dir);
/* SIGKILLs the server of `dir` and waits until it is gone. */
void hostile_kill_server(const char *dir);
/* Open fds of a process; -1: it cannot be looked at. */
int hostile_count_fds(pid_t pid);

/* ---- The stream under attack, through the library ---- */

void hostile_write_data(const char *path);
/* Stream "main" over hostile->data; `path` and `state` are what the spec points to. */
struct hostile_spec {
	const char *path;
	struct segue_feature feature;
	struct segue_state state;
	struct segue_draft spec;
};
void hostile_spec(const struct hostile *hostile, const char *name, struct hostile_spec *out);
/* The same for a stream that nothing is stored of: each that attaches has it for itself. */
void hostile_private_spec(
	const struct hostile *hostile, const char *name, struct hostile_spec *out);
/* Opens `dir`, and stream "main" of it. */
void hostile_open(const struct hostile *hostile, const char *dir, struct segue_client **client,
	struct segue_stream **stream);
/* Of which group's lanes this process and its children take, and what their states depend on. */
void hostile_be_of_group(const char *group, uint64_t salt);
/* Attaches to a lane, waiting while somebody has it. */
struct segue_lane *hostile_take(struct segue_stream *stream, uint32_t lane, enum segue_start start);
struct segue_batch *hostile_next(struct segue_lane *lane);
/* Compares inputs and states that come in with their closed form; hash of all of it. */
uint64_t hostile_check(struct segue_batch *batch);
/* Saves the states that their closed form demands, commits, releases. */
void hostile_save(struct segue_batch *batch);
void hostile_commit(struct segue_batch *batch);

/* The attack, by a worker of group "b", beside one that must not notice it. */
void hostile_beside(
	struct hostile *hostile, uint32_t lane, void (*attack)(struct hostile *hostile));
/* Where the attacker is, and its ring's fd, or -1: what it has mapped. */
void hostile_beside_note(uint64_t step, int ring);

/* Tries to write and to size a segment by an fd that is read only; `at`: where it is mapped. */
void hostile_try_mapped(int fd, void *at, const char *what);
/* That, and to reopen it. */
void hostile_try_segment(int fd, void *at, const char *what);

/* ---- Without the library ---- */

struct raw {
	int fd;
	uint64_t serial;
	struct segue_frame_reader *reader;
	struct segue_arena arena;
	struct segue_message reply; /* strings in it live until the next call */
	int fds[SEGUE_FRAME_FDS];   /* of the reply: the caller's */
	unsigned fd_count;
};

/* Connects and says nothing. False: refused (errno). */
bool raw_connect(const char *dir, struct raw *raw);
/* Connects, and exchanges HELLO and WELCOME. */
void raw_open(const char *dir, struct raw *raw);
void raw_close(struct raw *raw);
/* Sends bytes as they are; false: the server has hung up. */
bool raw_send(struct raw *raw, const void *bytes, size_t size);
/* Sends a frame with this header and payload. */
bool raw_send_frame(struct raw *raw, uint16_t type, uint16_t fds, uint32_t size,
	const void *payload, size_t payload_size);
/* The next frame's message within `ms` into raw->reply: 1, 0 (no frame in time), -1 (hung up). */
int raw_receive(struct raw *raw, int ms);
/* Sends a request and returns the type of its answer; 0 if the server hung up instead. */
enum segue_message_type raw_call(struct raw *raw, struct segue_message *request);
/* After a failure of the connection as a whole (serial 0): sees it end, and opens another. */
void raw_renew(const char *dir, struct raw *raw);
/* Fails unless the server hangs up within `ms`; what it says before is passed over. */
void raw_expect_end(struct raw *raw, int ms, const char *what);
/* Fails unless the last answer is a failure with this code (0: any). */
void raw_expect_failure(const struct raw *raw, int code, const char *what);
/* Opens the stream of a spec: its id, or 0 and raw->reply is the failure. */
uint64_t raw_stream(struct raw *raw, const struct segue_draft *spec);
/* The number of a group of an open stream, which is made; fails if it cannot be. */
uint32_t raw_group(struct raw *raw, uint64_t stream, const char *name);

/* A lease on a lane of stream "main". */
struct seat {
	struct raw raw;
	struct segue_spec *spec;
	struct segue_geometry geometry;
	uint64_t stream, lease, generation, step;
	uint32_t group;
	uint8_t token[SEGUE_TOKEN_BYTES];
	int fds[SEGUE_FRAME_FDS]; /* ring, carry, lease page, event */
	struct segue_ring_header *ring;
	struct segue_carry_header *carry;
	struct segue_lease_page *page;
};

/* Takes the lane, waiting while somebody has it. */
void seat_take(const struct hostile *hostile, const char *dir, uint32_t lane,
	enum segue_attach_mode mode, struct seat *seat);
/* Waits for batch `step`; false: not within 10 s. */
bool seat_await(struct seat *seat, uint64_t step);
/* True if the lease is ended by the server within `ms`. */
bool seat_fenced(const struct seat *seat, int ms);
void seat_leave(struct seat *seat);

#endif
