/* What the benchmarks share: clock, statistics, figures, the server as a child, a worker. */
#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECOND     INT64_C(1000000000)
#define START_WAIT (30 * SECOND)

bool bench_options(int argc, char **argv)
{
	if (argc == 1)
		return false;
	if (argc == 2 && strcmp(argv[1], "--quick") == 0)
		return true;
	fprintf(stderr, "usage: %s [--quick]\n", argv[0]);
	exit(2);
}

void bench_die(const char *what)
{
	perror(what);
	exit(1);
}

void bench_check(int rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "%s: %s: %s\n", what, segue_strerror(rc), segue_error_detail());
	exit(1);
}

void *bench_alloc(size_t size)
{
	void *bytes = aligned_alloc(64, (size + 63) / 64 * 64);

	if (!bytes)
		bench_die("memory");
	memset(bytes, 0, size);
	return bytes;
}

/* ---- Time, order statistics, random numbers -------------------------------------------------- */

static int64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	if (clock_gettime(clock, &now) < 0)
		bench_die("clock_gettime");
	return now.tv_sec * SECOND + now.tv_nsec;
}

int64_t bench_now(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

void bench_sleep(int64_t ns)
{
	struct timespec left = {.tv_sec = ns / SECOND, .tv_nsec = ns % SECOND};

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

void bench_samples_add(struct bench_samples *samples, double value)
{
	if (samples->count == samples->capacity) {
		samples->capacity = 2 * samples->capacity + 1024;
		samples->value =
			realloc(samples->value, samples->capacity * sizeof(samples->value[0]));
		if (!samples->value)
			bench_die("memory");
	}
	samples->value[samples->count++] = value;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_samples_at(struct bench_samples *samples, double share)
{
	if (samples->count == 0)
		return NAN;
	qsort(samples->value, samples->count, sizeof(samples->value[0]), compare);
	size_t at = (size_t)(share * (double)samples->count);
	return samples->value[at < samples->count ? at : samples->count - 1];
}

void bench_samples_finish(struct bench_samples *samples)
{
	free(samples->value);
	*samples = (struct bench_samples){0};
}

uint64_t bench_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint64_t bench_sum(const void *bytes, size_t size)
{
	const uint64_t *word = bytes;
	uint64_t sum[8] = {0};

	/* Eight sums, so that it is memory that is waited for. */
	for (size_t i = 0; i < size / sizeof(*word); i += 8)
		for (size_t k = 0; k < 8; k++)
			sum[k] += word[i + k];
	for (size_t k = 1; k < 8; k++)
		sum[0] += sum[k];
	return sum[0];
}

/* ---- Figures --------------------------------------------------------------------------------- */

/* JSON has no NaN. */
static void print_number(const char *name, double value)
{
	if (isfinite(value))
		printf(", \"%s\": %.6g", name, value);
	else
		printf(", \"%s\": null", name);
}

/* Texts are ours: no quotes and no control characters in them. */
void bench_print(const struct bench_figure *figure, const char *note, ...)
{
	static const char *const kinds[] = {"", "value <=", "ratio >=", "ratio <="};
	va_list arguments;

	printf("{\"part\": %d, \"name\": \"%s\", \"shape\": \"%s\", \"unit\": \"%s\"", figure->part,
		figure->name, figure->shape, figure->unit);
	print_number("value", figure->value);
	if (figure->beside) {
		printf(", \"beside\": \"%s\"", figure->beside);
		print_number("beside_value", figure->beside_value);
		print_number("ratio",
			figure->ratio != 0 ? figure->ratio : figure->value / figure->beside_value);
	}
	if (figure->kind != BENCH_NO_GOAL) {
		printf(", \"goal_kind\": \"%s\"", kinds[figure->kind]);
		print_number("goal", figure->goal);
	}
	printf(", \"note\": \"");
	va_start(arguments, note);
	vprintf(note, arguments);
	va_end(arguments);
	printf("\"}\n");
	fflush(stdout);
}

/* ---- The server ------------------------------------------------------------------------------ */

static _Noreturn void run_server(const char *dir)
{
	const char *program = getenv("SEGUE_PROGRAM");

	if (!program)
		program = "segue";
	/* It goes with the benchmark, however that ends. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	/* Our own output is for figures; where it serves is no news. */
	int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (nowhere < 0 || dup2(nowhere, STDOUT_FILENO) < 0)
		_exit(127);
	execlp(program, program, "serve", dir, (char *)NULL);
	perror(program);
	_exit(127);
}

struct segue_client *bench_connect(const struct bench_server *server)
{
	const struct segue_open_options options = {.size = sizeof(options), .no_start = true};
	struct segue_client *client;

	BENCH_CHECK(segue_open(server->dir, &options, &client));
	return client;
}

static bool answers(const struct bench_server *server)
{
	const struct segue_open_options options = {.size = sizeof(options), .no_start = true};
	struct segue_client *client;

	if (segue_open(server->dir, &options, &client) < 0)
		return false;
	segue_client_close(client);
	return true;
}

void bench_server_start(struct bench_server *server, const char *dir)
{
	int64_t until = bench_now() + START_WAIT;

	snprintf(server->dir, sizeof(server->dir), "%s", dir);
	server->pid = fork();
	if (server->pid < 0)
		bench_die("fork");
	if (server->pid == 0)
		run_server(dir);
	while (!answers(server)) {
		if (waitpid(server->pid, NULL, WNOHANG) != 0 || bench_now() > until) {
			fprintf(stderr, "the server did not start: %s\n", segue_error_detail());
			exit(1);
		}
		bench_sleep(5000000);
	}
}

void bench_server_stop(struct bench_server *server)
{
	int status;

	kill(server->pid, SIGTERM);
	while (waitpid(server->pid, &status, 0) < 0)
		if (errno != EINTR)
			bench_die("waitpid");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "the server ended with status %#x\n", (unsigned)status);
		exit(1);
	}
}

int64_t bench_server_cpu(const struct bench_server *server)
{
	clockid_t clock;

	if (clock_getcpuclockid(server->pid, &clock) != 0)
		bench_die("clock_getcpuclockid");
	return clock_ns(clock);
}

/* The number behind "<line>:" in a file of /proc/<pid>. */
static double read_proc(const struct bench_server *server, const char *file, const char *line)
{
	char path[64], text[256];
	size_t size = strlen(line);
	double value = NAN;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)server->pid, file);
	FILE *stream = fopen(path, "re");
	if (!stream)
		bench_die(path);
	while (isnan(value) && fgets(text, sizeof(text), stream))
		if (strncmp(text, line, size) == 0 && text[size] == ':')
			value = strtod(text + size + 1, NULL);
	fclose(stream);
	return value;
}

double bench_server_memory(const struct bench_server *server, const char *line)
{
	return 1024 * read_proc(server, "status", line);
}

double bench_server_written(const struct bench_server *server)
{
	return read_proc(server, "io", "write_bytes");
}

/* Whether all its threads sleep. A processor clock would tell only after some milliseconds. */
static bool all_sleep(const struct bench_server *server)
{
	char path[300], text[256];
	struct dirent *entry;
	bool sleeps = true;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)server->pid);
	DIR *tasks = opendir(path);
	if (!tasks)
		bench_die(path);
	while (sleeps && (entry = readdir(tasks))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/stat", (int)server->pid,
			entry->d_name);
		FILE *stat = fopen(path, "re");
		/* "<id> (<name>) <state> ..." */
		const char *name_end =
			stat && fgets(text, sizeof(text), stat) ? strrchr(text, ')') : NULL;
		sleeps = name_end && name_end[2] == 'S';
		if (stat)
			fclose(stat);
	}
	closedir(tasks);
	return sleeps;
}

void bench_server_wait_idle(const struct bench_server *server)
{
	for (int seen = 0; seen < 3; seen = all_sleep(server) ? seen + 1 : 0)
		bench_sleep(200000);
}

/* ---- A worker -------------------------------------------------------------------------------- */

void bench_worker_open(struct bench_worker *worker, const struct bench_server *server,
	const struct bench_spec *spec, const struct bench_shape *shape)
{
	const struct segue_attach_options fresh = {
		.size = sizeof(fresh), .start = SEGUE_START_FRESH};

	worker->shape = shape;
	worker->client = bench_connect(server);
	BENCH_CHECK(segue_draft_open(worker->client, &spec->stream, &worker->stream));
	BENCH_CHECK(segue_lane_attach(worker->stream, 0, &fresh, &worker->lane));
	worker->states = bench_alloc(shape->rows * bench_state_bytes(shape));
}

void bench_worker_close(struct bench_worker *worker)
{
	segue_lane_close(worker->lane);
	segue_stream_close(worker->stream);
	segue_client_close(worker->client);
	free(worker->states);
}

struct segue_batch *bench_worker_next(struct bench_worker *worker)
{
	struct segue_batch *batch;
	int rc = segue_lane_next(worker->lane, SEGUE_FOREVER, &batch);

	if (rc == SEGUE_EEND)
		return NULL;
	bench_check(rc, "segue_lane_next");
	return batch;
}

void bench_worker_save(struct bench_worker *worker, struct segue_batch *batch)
{
	size_t size = segue_batch_rows(batch) * bench_state_bytes(worker->shape);

	for (size_t i = 0; i < 2; i++)
		BENCH_CHECK(segue_batch_save_state(batch, i, worker->states, size));
}

bool bench_worker_batch(struct bench_worker *worker)
{
	struct segue_batch *batch = bench_worker_next(worker);

	if (!batch)
		return false;
	size_t size = segue_batch_rows(batch) * bench_row_bytes(worker->shape);
	bench_use(bench_sum(segue_batch_sequence(batch, 0), size));
	for (size_t i = 0; i < 2; i++)
		bench_use((uintptr_t)segue_batch_state(batch, i, NULL));
	bench_worker_save(worker, batch);
	BENCH_CHECK(segue_batch_commit(batch));
	segue_batch_release(batch);
	return true;
}
