/*
 * What the benchmarks share: a clock, order statistics, the server as a child process, data of the
 * two shapes, and figures as lines of JSON for scripts/bench.
 *
 * A fault here (no memory, no server, a call of the library that fails) prints and exits with 1.
 */
#ifndef SEGUE_BENCH_H
#define SEGUE_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "segue/segue.h"
#include "tmpdir.h"

#define BENCH_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The only option of a program: --quick. Returns whether it was given. */
bool bench_options(int argc, char **argv);
_Noreturn void bench_die(const char *what);
/* Exits, with what the library says, if `rc` is an error. */
void bench_check(int rc, const char *what);
#define BENCH_CHECK(call) bench_check((call), #call)
void *bench_alloc(size_t size);

/* ---- Time, order statistics, random numbers -------------------------------------------------- */

int64_t bench_now(void);
void bench_sleep(int64_t ns);
static inline double bench_seconds_since(int64_t start)
{
	return (double)(bench_now() - start) * 1e-9;
}

struct bench_samples {
	double *value;
	size_t count, capacity;
};

void bench_samples_add(struct bench_samples *samples, double value);
/* The value below which `share` (0 to 1) of the samples lie; sorts them. NaN if there are none. */
double bench_samples_at(struct bench_samples *samples, double share);
void bench_samples_finish(struct bench_samples *samples);

/* A random number of 64 bits (splitmix64); `state` is the seed. */
uint64_t bench_random(uint64_t *state);

/* ---- Plain loops ----------------------------------------------------------------------------- */

/* The sum of all 8-byte words: reads every byte. */
uint64_t bench_sum(const void *bytes, size_t size);
/* Keeps the compiler from leaving out what `value` came from. */
static inline void bench_use(uint64_t value)
{
	__asm__ volatile("" : : "r"(value) : "memory");
}

/* ---- Figures --------------------------------------------------------------------------------- */

enum bench_goal { BENCH_NO_GOAL, BENCH_VALUE_MAX, BENCH_RATIO_MIN, BENCH_RATIO_MAX };

struct bench_figure {
	int part; /* of the list in README.md */
	const char *name, *shape;
	double value;
	const char *unit;
	const char *beside;  /* what was measured beside it in the same run; NULL: nothing */
	double beside_value; /* in the same unit */
	double ratio;        /* 0: value / beside_value */
	enum bench_goal kind;
	double goal;
};

/* Prints it; `note` is for printf. */
void bench_print(const struct bench_figure *figure, const char *note, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- The server ------------------------------------------------------------------------------ */

struct bench_server {
	pid_t pid;
	char dir[SEGUE_TMPDIR_MAX];
};

/* Starts $SEGUE_PROGRAM (or "segue") on the directory; returns when it can be connected to. */
void bench_server_start(struct bench_server *server, const char *dir);
/* SIGTERM, and waits. */
void bench_server_stop(struct bench_server *server);
/* Nanoseconds of processor time that it has used, all threads. */
int64_t bench_server_cpu(const struct bench_server *server);
/* A line of /proc/<pid>/status ("RssAnon") in bytes. */
double bench_server_memory(const struct bench_server *server, const char *line);
/* Bytes that it has made the kernel write to a disk. */
double bench_server_written(const struct bench_server *server);
/* Waits until all its threads sleep, three times in a row: there is nothing to fill. */
void bench_server_wait_idle(const struct bench_server *server);
/* A client of it that would start no other. */
struct segue_client *bench_connect(const struct bench_server *server);

/* ---- Streams and data ------------------------------------------------------------------------ */

/* One sequence feature of floats, two states of floats. */
struct bench_shape {
	const char *name;
	uint32_t rows, unroll, floats, state;
};

extern const struct bench_shape bench_shape_s, bench_shape_l;

static inline size_t bench_row_bytes(const struct bench_shape *shape)
{
	return (size_t)shape->unroll * shape->floats * sizeof(float);
}

/* Of one of the two states, one row. */
static inline size_t bench_state_bytes(const struct bench_shape *shape)
{
	return shape->state * sizeof(float);
}

/* Sequences of random floats whose lengths are multiples of num_unroll: no padding. */
struct bench_data {
	enum segue_source_kind kind; /* 0: TFRecord */
	const struct bench_shape *shape;
	uint32_t segments_min, segments_max;
	uint64_t bytes;   /* stops when so many are written, */
	uint64_t records; /* or, if not 0, so many records */
	bool gzip;        /* at level 1 */
};

struct bench_spec {
	struct segue_stream_spec stream; /* endless, shuffled; the caller may change it */
	struct segue_feature feature;
	struct segue_state state[2];
	const char *path[1];
	/* Of arrays: one table, whose sequences repeat after the 32nd. */
	struct segue_array array;
	struct segue_array_sequence *sequences; /* malloc'd */
	uint64_t steps;
};

/* A stream "bench" of the shape over `path` (a file or a pattern). */
void bench_spec_init(struct bench_spec *spec, const struct bench_shape *shape, const char *path);
/* The same from a sequence file. */
void bench_spec_from_files(struct bench_spec *spec);
/* The same from the arrays of a raw file; free(spec->sequences) when it is open. */
void bench_spec_from_arrays(struct bench_spec *spec, const struct bench_data *data);

/* Writes a file; its records repeat after the 32nd. Returns its segments. */
uint64_t bench_data_write(const char *path, const struct bench_data *data);

/* ---- A worker -------------------------------------------------------------------------------- */

/* A client with one lane of one stream. */
struct bench_worker {
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_lane *lane;
	const struct bench_shape *shape;
	void *states; /* what it saves */
};

/* Opens the stream and takes lane 0 from step 0. */
void bench_worker_open(struct bench_worker *worker, const struct bench_server *server,
	const struct bench_spec *spec, const struct bench_shape *shape);
void bench_worker_close(struct bench_worker *worker);
/* The next batch; NULL: the lane has ended. */
struct segue_batch *bench_worker_next(struct bench_worker *worker);
/* Copies both states out of private memory. */
void bench_worker_save(struct bench_worker *worker, struct segue_batch *batch);
/*
 * One whole batch: takes it, reads every input, asks for its states, saves both, commits. False:
 * the lane has ended.
 */
bool bench_worker_batch(struct bench_worker *worker);

#endif
