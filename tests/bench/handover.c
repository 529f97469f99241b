/*
 * Part 1: from commit to the next batch being readable with its states, while the ring is ahead.
 *
 * The ring is full when a burst of depth / 2 hand-overs begins, so that the next batch is always
 * there and the last of the burst is the one that wakes the server: it is counted apart. The system
 * calls of the same loop are counted by a tracer, in a child.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define DEPTH 8
#define BURST (DEPTH / 2)
#define TURN  10 /* bursts */

/* ---- Bursts ---------------------------------------------------------------------------------- */

static bool keeps_rows(const struct segue_batch *batch)
{
	for (uint32_t row = 0; row < segue_batch_rows(batch); row++) {
		struct segue_span span;

		BENCH_CHECK(segue_batch_span(batch, row, &span, sizeof(span)));
		if (span.flags & SEGUE_SPAN_FIRST || span.previous_row != row)
			return false;
	}
	return true;
}

static void write_states(struct bench_worker *worker, struct segue_batch *batch)
{
	size_t size = segue_batch_rows(batch) * bench_state_bytes(worker->shape);

	for (size_t i = 0; i < 2; i++) {
		memset(segue_batch_state_out(batch, i), (int)segue_batch_step(batch) & 1, size);
		BENCH_CHECK(segue_batch_mark_saved(batch, i));
	}
}

/* What is timed: the next batch, its inputs and its states are readable when it returns. */
static inline struct segue_batch *hand_over(struct segue_lane *lane, struct segue_batch *batch)
{
	struct segue_batch *next;

	BENCH_CHECK(segue_batch_commit(batch));
	segue_batch_release(batch);
	BENCH_CHECK(segue_lane_next(lane, SEGUE_FOREVER, &next));
	bench_use((uintptr_t)segue_batch_sequence(next, 0));
	for (size_t i = 0; i < 2; i++)
		bench_use(*(const uint8_t *)segue_batch_state(next, i, NULL));
	return next;
}

static uint64_t wakes_of(const struct bench_worker *worker)
{
	uint64_t wakes;

	segue_lane_wakes(worker->lane, NULL, &wakes);
	return wakes;
}

struct handover {
	struct segue_batch *batch; /* open between bursts */
	struct bench_samples kept, changed, woken, copied;
	uint64_t batches, wakes;
};

static void burst(struct bench_worker *worker, struct handover *handover)
{
	for (int i = 0; i < BURST; i++) {
		write_states(worker, handover->batch);
		uint64_t wakes = wakes_of(worker);
		int64_t start = bench_now();
		handover->batch = hand_over(worker->lane, handover->batch);
		double us = (double)(bench_now() - start) * 1e-3;
		wakes = wakes_of(worker) - wakes;
		handover->wakes += wakes;
		handover->batches++;
		if (wakes)
			bench_samples_add(&handover->woken, us);
		else if (keeps_rows(handover->batch))
			bench_samples_add(&handover->kept, us);
		else
			bench_samples_add(&handover->changed, us);
	}
}

/* The same bytes, as often, between as many buffers: what composing the states comes down to. */
struct copies {
	uint8_t *from, *to;
	size_t size;
	uint64_t t;
};

static void copy_burst(struct copies *copies, struct bench_samples *samples)
{
	for (int i = 0; i < BURST; i++, copies->t++) {
		uint8_t *from = copies->from + copies->t % (DEPTH + 1) * copies->size;
		uint8_t *to = copies->to + copies->t % DEPTH * copies->size;

		memset(from, (int)copies->t & 1, copies->size);
		int64_t start = bench_now();
		memcpy(to, from, copies->size);
		bench_use(*to);
		bench_samples_add(samples, (double)(bench_now() - start) * 1e-3);
	}
}

/* The same batches, the same refill, but no state is touched. */
static void skip_burst(struct bench_worker *worker, struct handover *handover)
{
	for (int i = 0; i < BURST; i++) {
		for (size_t k = 0; k < 2; k++)
			BENCH_CHECK(segue_batch_mark_saved(handover->batch, k));
		BENCH_CHECK(segue_batch_commit(handover->batch));
		segue_batch_release(handover->batch);
		handover->batch = bench_worker_next(worker);
	}
}

/*
 * By turns, so that both see the same machine; several bursts a turn, since both together would not
 * fit the L2 cache.
 */
static void measure(const struct bench_server *server, struct bench_worker *worker,
	struct handover *handover, int bursts)
{
	size_t size = 2 * worker->shape->rows * bench_state_bytes(worker->shape);
	struct copies copies = {.from = bench_alloc((DEPTH + 1) * size),
		.to = bench_alloc(DEPTH * size),
		.size = size};

	handover->batch = bench_worker_next(worker);
	for (int i = 0; i < 2 * bursts; i++) {
		bench_server_wait_idle(server);
		if (i / TURN % 2 == 0) {
			burst(worker, handover);
		} else {
			copy_burst(&copies, &handover->copied);
			skip_burst(worker, handover);
		}
	}
	segue_batch_release(handover->batch);
	free(copies.from);
	free(copies.to);
}

/* ---- System calls ---------------------------------------------------------------------------- */

/* A call that neither the library nor the loop makes; the tracer counts between two of them. */
#define MARK  SYS_getpgid
#define CALLS 512

/* In the child: bursts between marks. */
static _Noreturn void be_traced(const struct bench_server *server, const struct bench_spec *spec,
	const struct bench_shape *shape, int bursts)
{
	struct bench_worker worker;
	struct segue_batch *batch;

	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(77);
	raise(SIGSTOP);
	bench_worker_open(&worker, server, spec, shape);
	batch = bench_worker_next(&worker);
	for (int i = 0; i < bursts; i++) {
		bench_server_wait_idle(server);
		syscall(MARK, 0);
		for (int k = 0; k < BURST; k++) {
			write_states(&worker, batch);
			batch = hand_over(worker.lane, batch);
		}
		syscall(MARK, 0);
	}
	segue_batch_release(batch);
	bench_worker_close(&worker);
	_exit(0);
}

/* Lets the child run to its next stop or end. */
static int resume(pid_t child, int signal)
{
	int status;

	if (ptrace(PTRACE_SYSCALL, child, NULL, (void *)(intptr_t)signal) < 0)
		bench_die("ptrace");
	if (waitpid(child, &status, 0) < 0)
		bench_die("waitpid");
	return status;
}

static void note_call(pid_t child, uint64_t *calls, bool *counting)
{
	struct __ptrace_syscall_info info;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, child, (void *)sizeof(info), &info) < 0)
		bench_die("ptrace");
	if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
		return;
	if (info.entry.nr == MARK)
		*counting = !*counting;
	else if (*counting)
		calls[info.entry.nr < CALLS ? info.entry.nr : CALLS - 1]++;
}

/* Counts the child's calls by number. False: tracing is not allowed here. */
static bool trace(pid_t child, uint64_t *calls)
{
	bool counting = false;
	int status, signal = 0;

	if (waitpid(child, &status, 0) < 0)
		bench_die("waitpid");
	if (WIFEXITED(status))
		return false;
	ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
	while (status = resume(child, signal), WIFSTOPPED(status)) {
		signal = 0;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80))
			note_call(child, calls, &counting);
		else
			signal = WSTOPSIG(status);
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		exit(1);
	return true;
}

static void count_calls(const struct bench_server *server, const struct bench_spec *spec,
	const struct bench_shape *shape, int bursts)
{
	static uint64_t calls[CALLS];
	double batches = (double)bursts * BURST;
	uint64_t others = 0;
	pid_t child = fork();

	if (child < 0)
		bench_die("fork");
	if (child == 0)
		be_traced(server, spec, shape, bursts);
	memset(calls, 0, sizeof(calls));
	if (!trace(child, calls)) {
		printf("{\"part\": 1, \"name\": \"system calls\", \"shape\": \"%s\", \"unit\": "
		       "\"a batch\", \"value\": null, \"note\": \"not counted: ptrace is not "
		       "allowed here\"}\n",
			shape->name);
		return;
	}
	for (size_t i = 0; i < CALLS; i++)
		others += i == SYS_write ? 0 : calls[i];
	bench_print(&(struct bench_figure){.part = 1,
			    .name = "refill wakes (write)",
			    .shape = shape->name,
			    .value = (double)calls[SYS_write] / batches,
			    .unit = "a batch",
			    .kind = BENCH_VALUE_MAX,
			    .goal = 1.0 / BURST},
		"%.0f batches, depth %d", batches, DEPTH);
	bench_print(&(struct bench_figure){.part = 1,
			    .name = "other system calls",
			    .shape = shape->name,
			    .value = (double)others / batches,
			    .unit = "a batch",
			    .kind = BENCH_VALUE_MAX,
			    .goal = 0},
		"counted by a tracer");
}

/* ---- A wake by itself ------------------------------------------------------------------------ */

static void *sleeper(void *arg)
{
	uint64_t count;
	int fd = *(const int *)arg;

	while (read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count) && count < 1000)
		;
	return NULL;
}

/* An eventfd write that wakes a thread asleep. */
static double plain_wake(int repetitions)
{
	struct bench_samples samples = {0};
	uint64_t one = 1, last = 1000;
	pthread_t thread;
	int fd = eventfd(0, EFD_CLOEXEC);

	if (fd < 0 || pthread_create(&thread, NULL, sleeper, &fd) != 0)
		bench_die("a thread that sleeps");
	for (int i = 0; i < repetitions; i++) {
		bench_sleep(1000000);
		int64_t start = bench_now();
		if (write(fd, &one, sizeof(one)) < 0)
			bench_die("eventfd");
		bench_samples_add(&samples, (double)(bench_now() - start) * 1e-3);
	}
	if (write(fd, &last, sizeof(last)) < 0)
		bench_die("eventfd");
	pthread_join(thread, NULL);
	close(fd);
	double p50 = bench_samples_at(&samples, 0.5);
	bench_samples_finish(&samples);
	return p50;
}

/* ---- The figures ----------------------------------------------------------------------------- */

static void print_handover(const char *name, const struct bench_shape *shape,
	struct bench_samples *samples, double copy)
{
	bench_print(&(struct bench_figure){.part = 1,
			    .name = name,
			    .shape = shape->name,
			    .value = bench_samples_at(samples, 0.5),
			    .unit = "us",
			    .beside = "memcpy of the states",
			    .beside_value = copy,
			    .kind = BENCH_VALUE_MAX,
			    .goal = 1 + copy},
		"p99 %.2f us, %zu hand-overs", bench_samples_at(samples, 0.99), samples->count);
}

static void print_wake(const struct bench_shape *shape, struct handover *handover)
{
	double wake = plain_wake(200);

	bench_print(&(struct bench_figure){.part = 1,
			    .name = "hand-over that wakes the server",
			    .shape = shape->name,
			    .value = bench_samples_at(&handover->woken, 0.5),
			    .unit = "us",
			    .beside = "eventfd write to a sleeper",
			    .beside_value = wake},
		"p99 %.2f us, one in %.1f batches", bench_samples_at(&handover->woken, 0.99),
		(double)handover->batches / (double)handover->wakes);
}

/* One data set: sequences so long that rows stay, or so short that some change in every batch. */
static void run(const struct bench_shape *shape, bool stay, int bursts)
{
	struct segue_tmpdir dir;
	char path[SEGUE_TMPDIR_MAX], store[SEGUE_TMPDIR_MAX];
	struct handover handover = {0};
	struct bench_server server;
	struct bench_worker worker;
	struct bench_spec spec;
	uint32_t most = 1000000 / (uint32_t)bench_row_bytes(shape);
	const struct bench_data data = {.shape = shape,
		.segments_min = stay ? most : 1,
		.segments_max = stay ? most : 4,
		.bytes = stay ? 64000000 : 16000000};

	segue_tmpdir_make(&dir, "bench");
	bench_data_write(segue_tmpdir_path(&dir, "data", path), &data);
	bench_spec_init(&spec, shape, path);
	spec.stream.depth = DEPTH;
	bench_server_start(&server, segue_tmpdir_path(&dir, "store", store));
	if (stay)
		count_calls(&server, &spec, shape, bursts / 10);
	bench_worker_open(&worker, &server, &spec, shape);
	measure(&server, &worker, &handover, bursts);
	bench_worker_close(&worker);
	bench_server_stop(&server);
	double copy = bench_samples_at(&handover.copied, 0.5);
	if (stay) {
		print_handover("hand-over, same rows (view)", shape, &handover.kept, copy);
		print_wake(shape, &handover);
	} else {
		print_handover("hand-over, rows change (copy)", shape, &handover.changed, copy);
	}
	bench_samples_finish(&handover.kept);
	bench_samples_finish(&handover.changed);
	bench_samples_finish(&handover.woken);
	bench_samples_finish(&handover.copied);
	segue_tmpdir_remove(&dir);
}

int main(int argc, char **argv)
{
	bool quick = bench_options(argc, argv);

	for (int stay = 1; stay >= 0; stay--) {
		run(&bench_shape_s, stay, quick ? 300 : 2000);
		run(&bench_shape_l, stay, quick ? 30 : 150);
	}
	return 0;
}
