/*
 * The client library against a scripted server: every call of segue.h, and every way it can fail.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/client.h"
#include "draft.h"
#include "fakeserver.h"
#include "spans.h"
#include "tmpdir.h"

#define SECOND INT64_C(1000000000)
#define MS     INT64_C(1000000)
/* What a loaded machine needs at most for what waits for nothing; less than any wait in error. */
#define SOON (15 * SECOND)

/* ---- A stream, and what its batches must hold ---------------------------------------------- */

static const struct segue_feature sequences[] = {{.name = "x", .dtype = SEGUE_FLOAT32}};
static const struct segue_feature contexts[] = {{.name = "n", .dtype = SEGUE_INT64}};
static const float init_h[3] = {7, 8, 9};
static const struct segue_state states[] = {
	{.name = "h", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {3}, .init = init_h},
	{.name = "c", .dtype = SEGUE_INT64},
};
static const char *const paths[] = {"data/*.tfrecord"};

static struct segue_draft make_spec(void)
{
	return (struct segue_draft){
		.name = "train",
		.source = {.kind = SEGUE_SOURCE_TFRECORD,
			.tfrecord = {.paths = paths, .path_count = 1}},
		.sequences = sequences,
		.sequence_count = 1,
		.contexts = contexts,
		.context_count = 1,
		.states = states,
		.state_count = 2,
		.num_unroll = 2,
		.batch_size = 3,
		.lanes = 1,
		.epochs = 1,
		.depth = 3,
	};
}

/* The states that the test saves after segment k of a sequence. */
static void expected_h(uint64_t number, int64_t k, float h[3])
{
	memcpy(h, init_h, sizeof(init_h));
	if (k >= 0) {
		h[0] = (float)number;
		h[1] = (float)k;
		h[2] = (float)(number * 100 + (uint64_t)k);
	}
}

static int64_t expected_c(uint64_t number, int64_t k)
{
	return k < 0 ? 0 : (int64_t)number * 1000 + k;
}

static void check_row(struct segue_batch *batch, uint32_t row)
{
	struct segue_span copy, *span = &copy;
	const float *x = (const float *)segue_batch_sequence(batch, 0) + row * 2;
	const float *h = (const float *)segue_batch_state(batch, 0, NULL) + row * 3;
	const int64_t *n = segue_batch_context(batch, 0), *c = segue_batch_state(batch, 1, NULL);
	char key[64], wanted[64];
	float expected[3];
	size_t size;

	cr_assert_eq(segue_batch_span(batch, row, span, sizeof(*span)), 0);
	for (uint32_t i = 0; i < 2; i++)
		cr_assert_float_eq(x[i],
			i < span->length ? (float)(span->number * 1000 + span->segment * 2 + i)
					 : 0.0f,
			0);
	cr_assert_eq(n[row], (int64_t)span->number);
	expected_h(span->number, (int64_t)span->segment - 1, expected);
	for (int i = 0; i < 3; i++)
		cr_assert_float_eq(h[i], expected[i], 0, "step %lu row %u h[%d]: %g",
			segue_batch_step(batch), row, i, (double)h[i]);
	cr_assert_eq(c[row], expected_c(span->number, (int64_t)span->segment - 1));
	snprintf(wanted, sizeof(wanted), "rec:%lu", span->number);
	cr_assert_arr_eq(segue_batch_record_key(batch, row, &size), wanted, strlen(wanted));
	cr_assert_eq(size, strlen(wanted));
	snprintf(wanted, sizeof(wanted), "%05d_of_%05d:rec:%lu", (int)span->segment,
		(int)span->segment_count, span->number);
	cr_assert_eq(segue_batch_key(batch, row, false, key, sizeof(key)), strlen(wanted));
	cr_assert_str_eq(key, wanted);
	if (span->flags & SEGUE_SPAN_LAST)
		snprintf(wanted, sizeof(wanted), "STOP:rec:%lu", span->number);
	else
		snprintf(wanted, sizeof(wanted), "%05d_of_%05d:rec:%lu", (int)span->segment + 1,
			(int)span->segment_count, span->number);
	segue_batch_key(batch, row, true, key, sizeof(key));
	cr_assert_str_eq(key, wanted);
}

static void save(struct segue_batch *batch)
{
	struct segue_span spans[16];
	uint32_t rows = segue_test_spans(batch, spans, 16);
	float h[16][3];

	/* One state by copy, the other in place. */
	for (uint32_t row = 0; row < rows; row++)
		expected_h(spans[row].number, spans[row].segment, h[row]);
	cr_assert_eq(segue_batch_save_state(batch, 0, h, rows * sizeof(h[0])), 0);
	int64_t *c = segue_batch_state_out(batch, 1);
	cr_assert_not_null(c);
	for (uint32_t row = 0; row < rows; row++)
		c[row] = expected_c(spans[row].number, spans[row].segment);
	cr_assert_not(segue_batch_all_saved(batch));
	cr_assert_eq(segue_batch_mark_saved(batch, 1), 0);
	cr_assert(segue_batch_all_saved(batch));
}

static struct segue_batch *take(struct segue_lane *lane)
{
	struct segue_batch *batch = NULL;
	int rc = segue_lane_next(lane, 20 * SECOND, &batch);

	cr_assert_eq(rc, 0, "%s: %s", segue_error_name(rc), segue_error_detail());
	for (uint32_t row = 0; row < segue_batch_rows(batch); row++)
		check_row(batch, row);
	return batch;
}

static void commit(struct segue_batch *batch)
{
	save(batch);
	int rc = segue_batch_commit(batch);
	cr_assert_eq(rc, 0, "%s: %s", segue_error_name(rc), segue_error_detail());
	cr_assert(segue_batch_committed(batch));
}

/* Takes, checks, saves, commits and releases `count` batches. */
static void consume(struct segue_lane *lane, unsigned count)
{
	while (count-- > 0) {
		struct segue_batch *batch = take(lane);
		commit(batch);
		segue_batch_release(batch);
	}
}

#define assert_fails(call, code, text)                                                             \
	do {                                                                                       \
		int rc_ = (call);                                                                  \
		cr_assert_eq(                                                                      \
			rc_, (code), "got %s: %s", segue_error_name(rc_), segue_error_detail());   \
		cr_assert_not_null(                                                                \
			strstr(segue_error_detail(), text), "%s", segue_error_detail());           \
	} while (0)

/* ---- Fixture ------------------------------------------------------------------------------- */

static struct segue_tmpdir dir;
static char socket_path[SEGUE_TMPDIR_MAX], store[SEGUE_TMPDIR_MAX];
static struct fakeserver *server;
static struct segue_client *client;
static struct segue_stream *stream;
static struct segue_draft spec;
static struct segue_open_options options;

static void set_up(void)
{
	segue_tmpdir_make(&dir, "client");
	segue_tmpdir_path(&dir, "store", store);
	mkdir(store, 0700);
	segue_tmpdir_path(&dir, "store/segue.sock", socket_path);
	server = fakeserver_create(socket_path);
	fakeserver_start(server);
	spec = make_spec();
	options = (struct segue_open_options){.size = sizeof(struct segue_open_options),
		.no_start = true,
		.timeout_ns = 20 * SECOND};
}

static void tear_down(void)
{
	fakeserver_destroy(server);
	segue_tmpdir_remove(&dir);
}

static void open_stream(void)
{
	int rc = segue_open(store, &options, &client);
	cr_assert_eq(rc, 0, "%s", segue_error_detail());
	rc = segue_draft_open(client, &spec, &stream);
	cr_assert_eq(rc, 0, "%s", segue_error_detail());
}

static struct segue_lane *attach(enum segue_start start)
{
	struct segue_attach_options how = {.size = sizeof(how), .start = start};
	struct segue_lane *lane = NULL;
	int rc = segue_lane_attach(stream, 0, &how, &lane);

	cr_assert_eq(rc, 0, "%s: %s", segue_error_name(rc), segue_error_detail());
	return lane;
}

static void close_all(struct segue_lane *lane)
{
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
}

static void restart(void)
{
	fakeserver_kill(server);
	fakeserver_start(server);
}

/* Something that happens while the test waits. */
struct event {
	pthread_t thread;
	int64_t delay_ns;
	void (*act)(void);
};

static void *run_event(void *arg)
{
	struct event *event = arg;

	nanosleep(&(struct timespec){.tv_sec = event->delay_ns / SECOND,
			  .tv_nsec = event->delay_ns % SECOND},
		NULL);
	event->act();
	return NULL;
}

static void begin_event(struct event *event, int64_t delay_ns, void (*act)(void))
{
	*event = (struct event){.delay_ns = delay_ns, .act = act};
	cr_assert_eq(pthread_create(&event->thread, NULL, run_event, event), 0);
}

static void end_event(struct event *event)
{
	cr_assert_eq(pthread_join(event->thread, NULL), 0);
}

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * SECOND + time.tv_nsec;
}

/* A child that does not outlive a test that failed. It must end with _exit. */
static pid_t spawn_child(void)
{
	pid_t child = fork();

	cr_assert_geq(child, 0);
	if (child == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return child;
}

/* Of the process, when the server has closed its own of the last answer. */
static unsigned count_fds(void)
{
	unsigned count = 0;

	fakeserver_lock(server);
	DIR *fds = opendir("/proc/self/fd");
	while (fds && readdir(fds))
		count++;
	if (fds)
		closedir(fds);
	fakeserver_unlock(server);
	return count;
}

static int interrupts;

static int interrupt_soon(void *arg)
{
	(void)arg;
	return ++interrupts >= 2;
}

#define set(field, value)                                                                          \
	do {                                                                                       \
		fakeserver_lock(server);                                                           \
		server->script.field = (value);                                                    \
		fakeserver_unlock(server);                                                         \
	} while (0)

static void do_let_go(void)
{
	set(hold, false);
}

/* Waits until batches below `step` are on the server's disk. */
static void await_disk(uint64_t step)
{
	for (bool done = false; !done;) {
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
		fakeserver_lock(server);
		done = server->lanes[0].step >= step;
		fakeserver_unlock(server);
	}
}

TestSuite(client, .init = set_up, .fini = tear_down, .timeout = 60);

/* ---- Opening ------------------------------------------------------------------------------- */

Test(client, opens_and_closes)
{
	cr_assert_eq(segue_open(store, &options, &client), 0);
	segue_client_close(client);
	fakeserver_await_idle(server);
	cr_assert_eq(server->seen.hellos, 1);
	segue_client_close(NULL);
	segue_stream_close(NULL);
	segue_lane_close(NULL);
	segue_batch_release(NULL);
	segue_free(NULL);
}

Test(client, takes_a_relative_directory)
{
	cr_assert_eq(chdir(dir.root), 0);
	cr_assert_eq(segue_open("store", &options, &client), 0);
	/* It stays right when the working directory changes. */
	cr_assert_eq(chdir("/"), 0);
	restart();
	char *json;
	cr_assert_eq(segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, &json), 0);
	segue_free(json);
	segue_client_close(client);
}

Test(client, refuses_other_versions)
{
	set(refuse_code, SEGUE_EVERSION);
	assert_fails(segue_open(store, &options, &client), SEGUE_EVERSION, "protocol 9");
	set(refuse_code, 0);
	set(other_layout, true);
	assert_fails(segue_open(store, &options, &client), SEGUE_EVERSION, "0.9-fake");
}

/* Only the name of a socket is limited, where its path is too long for an address. */
Test(client, names_a_socket_whose_name_is_too_long)
{
	char path[200];

	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[150] = '\0';
	options.socket_path = path;
	assert_fails(segue_open(store, &options, &client), SEGUE_EINVAL, "has 149 bytes");
	assert_fails(segue_open(store, &options, &client), SEGUE_EINVAL,
		"give a shorter one with --socket / socket=");
	options.socket_path = NULL;
	assert_fails(segue_open(path, &options, &client), SEGUE_EGONE, "no server answers");
}

Test(client, wants_valid_arguments)
{
	struct segue_lane *lane;
	struct segue_batch *batch;
	void *token;
	size_t size;
	char *json;

	assert_fails(segue_open(NULL, NULL, &client), SEGUE_EINVAL, "directory");
	assert_fails(segue_open("", NULL, &client), SEGUE_EINVAL, "directory");
	assert_fails(segue_open(store, &options, NULL), SEGUE_EINVAL, "directory");
	options.timeout_ns = -1;
	assert_fails(segue_open(store, &options, &client), SEGUE_EINVAL, "timeout_ns");
	options.timeout_ns = 0;
	options.size = 0;
	assert_fails(segue_open(store, &options, &client), SEGUE_EINVAL,
		"set it to sizeof(struct segue_open_options)");
	options.size = sizeof(options);
	open_stream();
	assert_fails(segue_stream_open(client, NULL, &stream), SEGUE_EINVAL, "spec");
	assert_fails(segue_client_report(client, 9, NULL, NULL, &json), SEGUE_EINVAL, "no report");
	assert_fails(segue_client_report(client, SEGUE_REPORT_GET, NULL, NULL, &json), SEGUE_EINVAL,
		"key");
	assert_fails(segue_lane_attach(stream, 1, NULL, &lane), SEGUE_EINVAL,
		"no lane 1: its last is 0");
	assert_fails(segue_lane_attach(NULL, 0, NULL, &lane), SEGUE_EINVAL, "stream");
	struct segue_attach_options how = {.size = sizeof(how), .start = 7};
	assert_fails(segue_lane_attach(stream, 0, &how, &lane), SEGUE_EINVAL, "start");
	how.size = 1;
	assert_fails(segue_lane_attach(stream, 0, &how, &lane), SEGUE_EINVAL,
		"set it to sizeof(struct segue_attach_options)");
	how = (struct segue_attach_options){
		.size = sizeof(struct segue_attach_options), .token = "", .token_size = 0};
	assert_fails(segue_lane_attach(stream, 0, &how, &lane), SEGUE_ETOKEN, "empty");
	lane = attach(SEGUE_START_NONE);
	assert_fails(segue_lane_next(NULL, 0, &batch), SEGUE_EINVAL, "lane");
	assert_fails(segue_lane_next(lane, 0, NULL), SEGUE_EINVAL, "batch");
	assert_fails(segue_lane_next(lane, -1, &batch), SEGUE_EINVAL, "timeout_ns");
	assert_fails(segue_lane_checkpoint(lane, NULL, &size), SEGUE_EINVAL, "token");
	assert_fails(segue_lane_restore(lane, NULL, 5), SEGUE_ETOKEN, "empty");
	assert_fails(
		segue_stream_checkpoint(stream, 3, 0, 0, &token, &size), SEGUE_EINVAL, "no lane 3");
	assert_fails(segue_batch_commit(NULL), SEGUE_EINVAL, "batch");
	batch = take(lane);
	cr_assert_null(segue_batch_sequence(batch, 1));
	cr_assert_null(segue_batch_context(batch, 1));
	cr_assert_null(segue_batch_state(batch, 2, NULL));
	cr_assert_null(segue_batch_state_out(batch, 2));
	cr_assert_null(segue_batch_record_key(batch, 3, &size));
	assert_fails(segue_batch_mark_saved(batch, 2), SEGUE_EINVAL, "no state 2");
	segue_batch_release(batch);
	cr_assert_eq(segue_lane_index(lane), 0);
	close_all(lane);
}

Test(client, does_not_start_what_it_must_not)
{
	fakeserver_kill(server);
	int64_t began = now();
	assert_fails(segue_open(store, &options, &client), SEGUE_EGONE, socket_path);
	cr_assert_lt(now() - began, SOON);
}

/* ---- Starting a server --------------------------------------------------------------------- */

static char program[SEGUE_TMPDIR_MAX];

static void write_program(const char *text)
{
	FILE *file = fopen(segue_tmpdir_path(&dir, "segue-program", program), "w");

	cr_assert_not_null(file);
	fprintf(file, "#!/bin/sh\n%s\n", text);
	fclose(file);
	chmod(program, 0755);
	options.no_start = false;
	options.program = program;
}

/* Plays the daemon: the program asks for it by making a file. */
static void start_when_asked(void)
{
	char asked[SEGUE_TMPDIR_MAX];

	segue_tmpdir_path(&dir, "asked", asked);
	for (int i = 0; i < 10000 && access(asked, F_OK) < 0; i++)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	unlink(asked);
	fakeserver_start(server);
}

static void read_file(const char *name, char *text, size_t size)
{
	char path[SEGUE_TMPDIR_MAX];
	FILE *file = fopen(segue_tmpdir_path(&dir, name, path), "r");

	cr_assert_not_null(file);
	text[fread(text, 1, size - 1, file)] = '\0';
	fclose(file);
}

#define ASK                                                                                        \
	"d=$(dirname \"$0\"); touch \"$d/asked\"; while [ -e \"$d/asked\" ]; do sleep 0.01; "      \
	"done; "                                                                                   \
	"while [ ! -S \"$d/store/segue.sock\" ]; do sleep 0.01; done; "

Test(client, starts_a_server)
{
	struct event event;
	char text[1024], wanted[2 * SEGUE_TMPDIR_MAX];

	fakeserver_kill(server);
	rmdir(store);
	unlink(socket_path);
	write_program("echo \"$@\" >\"$(dirname \"$0\")/arguments\"; "
		      "ls -l /proc/self/fd >\"$(dirname \"$0\")/fds\"; " ASK "exit 0");
	rmdir(store);
	begin_event(&event, 0, start_when_asked);
	int rc = segue_open(store, &options, &client);
	cr_assert_eq(rc, 0, "%s", segue_error_detail());
	end_event(&event);
	segue_client_close(client);
	read_file("arguments", text, sizeof(text));
	snprintf(wanted, sizeof(wanted), "serve %s --embedded\n", store);
	cr_assert_str_eq(text, wanted);
	read_file("fds", text, sizeof(text));
	cr_assert_null(strstr(text, "start.lock"), "%s", text);
	cr_assert_null(strstr(text, "socket:"), "%s", text);
	struct stat status;
	cr_assert_eq(stat(store, &status), 0);
	cr_assert_eq(status.st_mode & 0777, 0700);
}

Test(client, starts_the_program_with_signals_as_they_are_by_default)
{
	char text[4096], path[SEGUE_TMPDIR_MAX];
	sigset_t block;

	fakeserver_kill(server);
	/* Not the shell, which makes some of this good itself. */
	write_program("");
	FILE *file = fopen(program, "w");
	fprintf(file,
		"#!/usr/bin/awk -f\nBEGIN {\n\twhile ((getline l < \"/proc/self/status\") > 0)\n"
		"\t\tprint l > ENVIRON[\"STATUS_FILE\"]\n\texit 23\n}\n");
	fclose(file);
	setenv("STATUS_FILE", segue_tmpdir_path(&dir, "status", path), 1);
	sigemptyset(&block);
	sigaddset(&block, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &block, NULL);
	signal(SIGPIPE, SIG_IGN);
	assert_fails(segue_open(store, &options, &client), SEGUE_EGONE, "status 23");
	read_file("status", text, sizeof(text));
	const char *blocked = strstr(text, "SigBlk:\t"), *ignored = strstr(text, "SigIgn:\t");
	cr_assert(blocked && ignored, "%s", text);
	cr_assert_eq(strtoull(blocked + 8, NULL, 16), 0, "%s", text);
	/* All but the two signals that the C library keeps to itself. */
	cr_assert_eq(strtoull(ignored + 8, NULL, 16) & ~UINT64_C(0x180000000), 0, "%s", text);
}

Test(client, hands_the_socket_to_the_program)
{
	char text[1024], other[SEGUE_TMPDIR_MAX], wanted[3 * SEGUE_TMPDIR_MAX];

	segue_tmpdir_path(&dir, "other.sock", other);
	options.socket_path = other;
	write_program("echo \"$@\" >\"$(dirname \"$0\")/arguments\"; exit 22");
	assert_fails(segue_open(store, &options, &client), SEGUE_EGONE, "status 22");
	read_file("arguments", text, sizeof(text));
	snprintf(wanted, sizeof(wanted), "serve %s --embedded --socket %s\n", store, other);
	cr_assert_str_eq(text, wanted);
}

Test(client, passes_on_why_no_server_came_up)
{
	fakeserver_kill(server);
	write_program("echo 'segue: data.mdb: a page is damaged' >&2; exit 21");
	assert_fails(
		segue_open(store, &options, &client), SEGUE_ESTORE, "data.mdb: a page is damaged");
	cr_assert_null(strstr(segue_error_detail(), "segue:"));
	write_program("echo 'no such command' >&2; exit 127");
	assert_fails(segue_open(store, &options, &client), SEGUE_EGONE, "no such command");
	options.program = "/nonexistent/segue";
	assert_fails(segue_open(store, &options, &client), SEGUE_EGONE, "/nonexistent/segue");
	options.program = NULL;
	setenv("SEGUE_PROGRAM", "/nowhere/segue", 1);
	assert_fails(segue_open(store, &options, &client), SEGUE_EGONE, "/nowhere/segue");
}

Test(client, gives_up_on_a_server_that_is_not_ready_in_time)
{
	fakeserver_kill(server);
	options.timeout_ns = 300 * MS;
	write_program("exec sleep 30");
	int64_t began = now();
	assert_fails(segue_open(store, &options, &client), SEGUE_EGONE, "in time");
	cr_assert_lt(now() - began, SOON);
	options.timeout_ns = 20 * SECOND;
	options.interrupt = interrupt_soon;
	assert_fails(segue_open(store, &options, &client), SEGUE_EINTERRUPTED, "interrupted");
	/*
	 * Another server has the directory, and does not answer: asked again until the time is up.
	 */
	options.interrupt = NULL;
	options.timeout_ns = 3 * SECOND;
	write_program("kill -9 $$");
	assert_fails(segue_open(store, &options, &client), SEGUE_EGONE, "was killed");
	write_program("echo run >>\"$(dirname \"$0\")/runs\"; echo 'pid 5 serves it' >&2; exit 7");
	assert_fails(segue_open(store, &options, &client), SEGUE_EGONE, "pid 5 serves it");
	char text[1024];
	read_file("runs", text, sizeof(text));
	cr_assert_geq(strlen(text), 3 * strlen("run\n"), "%s", text);
}

Test(client, waits_for_another_starter)
{
	char path[SEGUE_TMPDIR_MAX];
	struct event event;

	fakeserver_kill(server);
	write_program("exit 3");
	int fd = open(segue_tmpdir_path(&dir, "store/start.lock", path), O_RDWR | O_CREAT, 0600);
	cr_assert_geq(fd, 0);
	cr_assert_eq(flock(fd, LOCK_EX), 0);
	options.timeout_ns = 200 * MS;
	assert_fails(segue_open(store, &options, &client), SEGUE_EGONE, "start.lock");
	/* The one that holds the lock starts it; then the program is not run. */
	options.timeout_ns = 20 * SECOND;
	fakeserver_start(server);
	fakeserver_kill(server);
	begin_event(&event, 0, start_when_asked);
	FILE *asked = fopen(segue_tmpdir_path(&dir, "asked", path), "w");
	fclose(asked);
	end_event(&event);
	close(fd);
	cr_assert_eq(segue_open(store, &options, &client), 0, "%s", segue_error_detail());
	segue_client_close(client);
}

Test(client, says_that_the_directory_cannot_be_made)
{
	fakeserver_kill(server);
	write_program("exit 0");
	assert_fails(segue_open("/proc/nowhere/store", &options, &client), SEGUE_ESYSTEM,
		"/proc/nowhere");
}

/* ---- Streams ------------------------------------------------------------------------------- */

static int progress_calls;

static void count_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	cr_assert_eq(arg, &progress_calls);
	cr_assert_str_eq(what, "index");
	cr_assert_eq(done, (uint64_t)progress_calls);
	cr_assert_eq(total, 10);
	progress_calls++;
}

Test(client, shows_progress_of_opening)
{
	set(progress, 3);
	options.progress = count_progress;
	options.arg = &progress_calls;
	open_stream();
	cr_assert_eq(progress_calls, 3);
	cr_assert_eq(segue_stream_records(stream), 8);
	close_all(NULL);
}

Test(client, refuses_another_layout)
{
	set(wrong_hash, true);
	cr_assert_eq(segue_open(store, &options, &client), 0);
	assert_fails(segue_draft_open(client, &spec, &stream), SEGUE_EVERSION, "'train'");
	spec.num_unroll = 0;
	assert_fails(segue_draft_open(client, &spec, &stream), SEGUE_EINVAL, "num_unroll");
	segue_client_close(client);
}

Test(client, uploads_long_lists_of_paths)
{
	enum { COUNT = 1000 };
	static char text[COUNT][48];
	const char *list[COUNT];
	size_t at = 0;

	for (int i = 0; i < COUNT; i++) {
		snprintf(
			text[i], sizeof(text[i]), "/data/some/where/part-%04d-of-1000.tfrecord", i);
		list[i] = text[i];
	}
	spec.source.tfrecord = (struct segue_draft_paths){.paths = list, .path_count = COUNT};
	open_stream();
	cr_assert_eq(server->seen.uploads, 1);
	for (int i = 0; i < COUNT; i++) {
		cr_assert_str_eq(server->seen.paths + at, list[i]);
		at += strlen(list[i]) + 1;
	}
	cr_assert_eq(server->seen.paths_size, at);
	close_all(NULL);
}

/* ---- Batches ------------------------------------------------------------------------------- */

/* Every segment of every record once, in order, with the state that its predecessor left. */
static void read_all(unsigned held_at_most)
{
	struct segue_batch *held[8];
	unsigned next_segment[8] = {0}, count = 0;
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	struct segue_batch *batch;
	uint64_t step = 0;
	int rc;

	while ((rc = segue_lane_next(lane, 20 * SECOND, &batch)) == 0) {
		struct segue_span spans[16];
		uint32_t rows = segue_test_spans(batch, spans, 16);
		cr_assert_eq(segue_batch_step(batch), step);
		for (uint32_t row = 0; row < rows; row++) {
			check_row(batch, row);
			cr_assert_eq(spans[row].segment, next_segment[spans[row].number]++);
		}
		commit(batch);
		cr_assert_eq(segue_lane_committed(lane), ++step);
		held[count++] = batch;
		if (count == held_at_most) {
			/* The middle one first: any order will do. */
			unsigned i = count / 2;
			segue_batch_release(held[i]);
			held[i] = held[--count];
			while (count > 0)
				segue_batch_release(held[--count]);
		}
	}
	while (count > 0)
		segue_batch_release(held[--count]);
	assert_fails(rc, SEGUE_EEND, "has ended");
	cr_assert_eq(segue_lane_undelivered(lane), 0);
	for (unsigned i = 0; i < 8; i++)
		cr_assert_eq(next_segment[i], (server->script.lengths[i] + 1) / 2);
	cr_assert_eq(segue_lane_next(lane, 0, &batch), SEGUE_EEND);
	close_all(lane);
	cr_assert_eq(server->lanes[0].step, step);
}

Test(client, reads_everything_once)
{
	open_stream();
	read_all(1);
}

Test(client, reads_everything_with_views_alive)
{
	open_stream();
	read_all(3);
}

Test(client, reads_with_many_rows_and_a_tail_of_empty_ones)
{
	spec.batch_size = 7;
	spec.tail = SEGUE_TAIL_STOP;
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	struct segue_batch *batch;
	int rc;
	while ((rc = segue_lane_next(lane, 20 * SECOND, &batch)) == 0) {
		for (uint32_t row = 0; row < segue_batch_rows(batch); row++)
			check_row(batch, row);
		commit(batch);
		segue_batch_release(batch);
	}
	cr_assert_eq(rc, SEGUE_EEND);
	cr_assert_gt(segue_lane_undelivered(lane), 0);
	close_all(lane);
}

Test(client, follows_rows_that_move_up)
{
	const uint64_t lengths[] = {10, 4, 10, 6};

	memcpy(server->script.lengths, lengths, sizeof(lengths));
	set(records, 4);
	spec.batch_size = 4;
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	struct segue_batch *batch = take(lane); /* rows 0, 2 and 3 of the one before */
	struct segue_span spans[3];
	cr_assert_eq(segue_test_spans(batch, spans, 3), 3);
	cr_assert_eq(spans[1].previous_row, 2);
	cr_assert_eq(spans[2].previous_row, 3);
	commit(batch);
	segue_batch_release(batch);
	consume(lane, 2);
	cr_assert_eq(segue_lane_next(lane, SOON, &batch), SEGUE_EEND);
	close_all(lane);
}

/* As much as the caller has room for, and zeros where it has more than is known here. */
Test(client, a_span_is_copied_as_far_as_the_caller_knows_it)
{
	struct {
		struct segue_span known;
		uint8_t later[40];
	} whole;
	union {
		struct segue_span span;
		uint8_t bytes[sizeof(struct segue_span)];
	} part;
	uint32_t rows;

	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 1);
	struct segue_batch *batch = take(lane);
	for (uint32_t i = 0; i < segue_batch_rows(batch); i++) {
		memset(&whole, 0xee, sizeof(whole));
		cr_assert_eq(segue_batch_span(batch, i, &whole.known, sizeof(whole)), 0);
		cr_expect_eq(whole.known.row, i);
		for (size_t at = 0; at < sizeof(whole.later); at++)
			cr_expect_eq(whole.later[at], 0);
		for (size_t size = 0; size <= sizeof(part); size++) {
			memset(&part, 0xee, sizeof(part));
			cr_assert_eq(segue_batch_span(batch, i, &part.span, size), 0);
			cr_expect_arr_eq(part.bytes, &whole, size);
			for (size_t at = size; at < sizeof(part); at++)
				cr_expect_eq(part.bytes[at], 0xee);
		}
	}
	assert_fails(segue_batch_span(batch, segue_batch_rows(batch), &part.span, sizeof(part)),
		SEGUE_EINVAL, "below 3");
	assert_fails(segue_batch_span(NULL, 0, &part.span, sizeof(part)), SEGUE_EINVAL, "a batch");
	assert_fails(segue_batch_span(batch, 0, NULL, 1), SEGUE_EINVAL, "a place");
	cr_assert_not_null(segue_batch_state(batch, 0, &rows));
	cr_expect_eq(rows, segue_batch_rows(batch));
	cr_assert_null(segue_batch_state(batch, 2, &rows));
	cr_expect_eq(rows, 0);
	segue_batch_release(batch);
	close_all(lane);
}

Test(client, hands_out_the_buffer_itself_where_rows_go_on)
{
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	struct segue_batch *first = take(lane), *second;
	const char *state = segue_batch_state(first, 0, NULL);
	cr_assert_eq((uintptr_t)state % 64, 0);
	cr_assert_eq(segue_batch_state(first, 0, NULL), (const void *)state);
	save(first);
	float *out = segue_batch_state_out(first, 0);
	cr_assert_eq(segue_batch_commit(first), 0);
	segue_batch_release(first);
	second = take(lane); /* lengths 4, 9, 5: nobody has ended */
	/* The other mapping of the same memory: what was written there is seen here at once. */
	const float *in = segue_batch_state(second, 0, NULL);
	out[0] = 4711;
	cr_assert_float_eq(in[0], 4711, 0);
	segue_batch_release(second);
	close_all(lane);
}

/* Runs in a child that has its own connection: writes into the states that came in. */
static void write_into_state(unsigned before)
{
	int report[2], status;

	cr_assert_eq(pipe(report), 0);
	pid_t child = spawn_child();
	if (child == 0) {
		struct segue_batch *batch = NULL;
		signal(SIGSEGV, SIG_DFL);
		open_stream();
		struct segue_lane *lane = attach(SEGUE_START_FRESH);
		consume(lane, before);
		if (segue_lane_next(lane, 20 * SECOND, &batch) != 0)
			_exit(1);
		volatile float *h = (float *)(uintptr_t)segue_batch_state(batch, 0, NULL);
		char read_well = h[0] > 0;
		if (write(report[1], &read_well, 1) != 1)
			_exit(2);
		h[0] = 1;
		_exit(0);
	}
	close(report[1]);
	char read_well = 0;
	cr_assert_eq(read(report[0], &read_well, 1), 1);
	cr_assert_eq(read_well, 1);
	close(report[0]);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %x", status);
	fakeserver_await_idle(server);
}

Test(client, faults_on_writing_into_a_composed_state)
{
	write_into_state(0);
}

Test(client, faults_on_writing_into_the_buffer_itself)
{
	/* h[0] of row 0 is its sequence's number; sequence 0 would be 0, so let it be short. */
	server->script.lengths[0] = 2;
	for (int i = 1; i < 8; i++)
		server->script.lengths[i] = 20;
	write_into_state(2); /* batch 2: row 0 goes on with sequence 3 */
}

Test(client, makes_no_system_call_while_the_ring_is_ahead)
{
	int status, full[2];
	char byte = 0;

	spec.depth = 16;
	server->script.lengths[0] = server->script.lengths[1] = server->script.lengths[2] = 64;
	cr_assert_eq(pipe(full), 0);
	pid_t child = spawn_child();
	if (child == 0) {
		open_stream();
		struct segue_lane *lane = attach(SEGUE_START_NONE);
		struct segue_batch *batch;
		consume(lane, 1);
		if (read(full[0], &byte, 1) != 1)
			_exit(8);
		static float h[16 * 3];
		/* From now on only read, write (the wake of the server) and exit. */
		if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
			_exit(9);
		for (int i = 0; i < 12; i++) {
			if (segue_lane_next(lane, SEGUE_FOREVER, &batch) ||
				segue_batch_save_state(
					batch, 0, h, segue_batch_rows(batch) * 3 * sizeof(float)) ||
				!segue_batch_state(batch, 1, NULL) ||
				segue_batch_mark_saved(batch, 1) || segue_batch_commit(batch))
				syscall(SYS_exit, 1);
			segue_batch_release(batch);
		}
		uint64_t waits, wakes;
		segue_lane_wakes(lane, &waits, &wakes);
		syscall(SYS_exit, wakes <= 3 ? 0 : 2);
	}
	fakeserver_await(server, 0, 1 + 16);
	cr_assert_eq(write(full[1], &byte, 1), 1);
	close(full[0]);
	close(full[1]);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
}

/* ---- Faults of the caller ------------------------------------------------------------------ */

Test(client, wants_every_state_saved)
{
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	struct segue_batch *batch = take(lane), *next;
	float h[9] = {0};
	assert_fails(segue_batch_commit(batch), SEGUE_EUNSAVED, "'h', 'c'");
	for (int i = 0; i < 2; i++) /* twice is once */
		cr_assert_eq(segue_batch_save_state(batch, 0, h, sizeof(h)), 0);
	assert_fails(segue_batch_commit(batch), SEGUE_EUNSAVED, "'c'");
	cr_assert_null(strstr(segue_error_detail(), "'h'"));
	assert_fails(segue_lane_next(lane, 0, &next), SEGUE_EUNSAVED, "'c'");
	void *token;
	size_t size;
	assert_fails(segue_lane_checkpoint(lane, &token, &size), SEGUE_EUNSAVED, "'c'");
	assert_fails(segue_batch_save_state(batch, 1, h, 8), SEGUE_ESTATE,
		"state 'c' of batch 0 has 3 rows of 8 bytes, 24 in all: 8 came");
	assert_fails(segue_batch_save_state(batch, 1, NULL, 24), SEGUE_ESTATE, "'c'");
	int64_t c[3] = {0};
	cr_assert_eq(segue_batch_save_state(batch, 1, c, sizeof(c)), 0);
	assert_fails(segue_lane_next(lane, 0, &next), SEGUE_EUNSAVED, "commit it");
	cr_assert_eq(segue_batch_commit(batch), 0);
	assert_fails(segue_batch_commit(batch), SEGUE_ECOMMITTED, "batch 0");
	assert_fails(segue_batch_save_state(batch, 1, c, sizeof(c)), SEGUE_ECOMMITTED, "batch 0");
	cr_assert_null(segue_batch_state_out(batch, 0));
	segue_batch_release(batch);
	close_all(lane);
}

Test(client, delivers_again_what_was_given_back)
{
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 1);
	struct segue_batch *batch = take(lane);
	save(batch);
	segue_batch_release(batch);
	batch = take(lane);
	cr_assert_eq(segue_batch_step(batch), 1);
	cr_assert_not(segue_batch_all_saved(batch));
	commit(batch);
	segue_batch_release(batch);
	consume(lane, 3);
	close_all(lane);
}

Test(client, refuses_to_hold_more_than_the_ring_has)
{
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	struct segue_batch *held[3], *batch;
	for (int i = 0; i < 3; i++) {
		held[i] = take(lane);
		commit(held[i]);
	}
	assert_fails(segue_lane_next(lane, SEGUE_FOREVER, &batch), SEGUE_EHELD,
		"no place for batch 3: arrays or handles of 3 earlier batches are alive");
	/* Held batches stay as they are. */
	for (int i = 0; i < 3; i++)
		for (uint32_t row = 0; row < segue_batch_rows(held[i]); row++)
			check_row(held[i], row);
	void *token;
	size_t size;
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	for (int i = 0; i < 3; i++)
		segue_batch_release(held[i]);
	consume(lane, 2);
	/* What was taken before stays readable; what was open can no longer be committed. */
	batch = take(lane);
	cr_assert_eq(segue_lane_restore(lane, token, size), 0, "%s", segue_error_detail());
	consume(lane, 1);
	for (uint32_t row = 0; row < segue_batch_rows(batch); row++)
		check_row(batch, row);
	assert_fails(segue_batch_commit(batch), SEGUE_ESTALE, "another position");
	segue_batch_release(batch);
	segue_free(token);
	close_all(lane);
}

Test(client, refuses_a_lane_that_it_holds_itself)
{
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE), *again;
	assert_fails(segue_lane_attach(stream, 0, NULL, &again), SEGUE_EBUSY, "this process");
	close_all(lane);
}

/* ---- Taken over by a newer handle ---- */

/* A handle of its own, on a client of its own, that takes the lane over. */
struct newcomer {
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_lane *lane;
};

static int come(struct newcomer *newcomer, enum segue_start start, bool take_over)
{
	const struct segue_attach_options how = {
		.size = sizeof(how), .start = start, .take = take_over};

	*newcomer = (struct newcomer){0};
	cr_assert_eq(segue_open(store, &options, &newcomer->client), 0);
	cr_assert_eq(segue_draft_open(newcomer->client, &spec, &newcomer->stream), 0);
	return segue_lane_attach(newcomer->stream, 0, &how, &newcomer->lane);
}

static void leave(struct newcomer *newcomer)
{
	segue_lane_close(newcomer->lane);
	segue_stream_close(newcomer->stream);
	segue_client_close(newcomer->client);
}

Test(client, a_newer_handle_takes_the_lane_over)
{
	struct newcomer newcomer;
	struct segue_batch *batch;

	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	struct segue_batch *open = take(lane);
	cr_assert_eq(come(&newcomer, SEGUE_START_CONTINUE, true), 0, "%s", segue_error_detail());
	cr_assert_eq(server->seen.takes, 1);
	cr_assert_eq(server->seen.offers, 0, "the server has its words");
	cr_assert_eq(segue_lane_committed(newcomer.lane), 2, "the last commit stands");
	assert_fails(segue_batch_mark_saved(open, 0), SEGUE_EFENCED, "lease");
	assert_fails(segue_batch_commit(open), SEGUE_EFENCED, "lease");
	unsigned attaches = server->seen.attaches;
	assert_fails(segue_lane_next(lane, 0, &batch), SEGUE_EUNSAVED, "not committed");
	segue_batch_put_back(open);
	assert_fails(segue_lane_next(lane, 0, &batch), SEGUE_EFENCED, "newer handle");
	cr_assert_eq(server->seen.attaches, attaches, "it asks nobody");
	for (uint32_t row = 0; row < segue_batch_rows(open); row++)
		check_row(open, row);
	consume(newcomer.lane, 3);
	segue_batch_release(open);
	leave(&newcomer);
	cr_assert_eq(segue_lane_close(lane), 0, "all is on disk: %s", segue_error_detail());
	close_all(NULL);
}

Test(client, an_older_handle_is_not_taken_over_unasked)
{
	struct newcomer newcomer;

	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 1);
	assert_fails(come(&newcomer, SEGUE_START_CONTINUE, false), SEGUE_EBUSY, "this process");
	leave(&newcomer);
	assert_fails(come(&newcomer, SEGUE_START_NONE, true), SEGUE_ESTART, "at step 1");
	leave(&newcomer);
	cr_assert_eq(server->seen.takes, 0);
	consume(lane, 2);
	close_all(lane);
}

/* The server dies, and the older handle has not been asked for anything since. */
Test(client, what_an_older_handle_has_committed_is_offered_before_it_is_taken)
{
	struct newcomer newcomer;

	set(hold_durable, true);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 3);
	struct segue_batch *open = take(lane);
	restart();
	assert_fails(come(&newcomer, SEGUE_START_NONE, true), SEGUE_ESTART, "at step 3");
	leave(&newcomer);
	cr_assert_eq(server->seen.offers, 0);
	cr_assert_eq(come(&newcomer, SEGUE_START_CONTINUE, true), 0, "%s", segue_error_detail());
	cr_assert_eq(server->seen.offers, 1);
	cr_assert_eq(server->seen.offer_step, 3);
	cr_assert_eq(segue_lane_committed(newcomer.lane), 3);
	set(hold_durable, false);
	consume(newcomer.lane, 2);
	assert_fails(segue_batch_commit(open), SEGUE_EFENCED, "lease");
	segue_batch_release(open);
	cr_assert_eq(segue_lane_close(lane), 0, "all was handed over: %s", segue_error_detail());
	leave(&newcomer);
	close_all(NULL);
}

Test(client, a_batch_that_was_put_back_comes_again_while_it_is_looked_at)
{
	struct segue_batch *again;

	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 1);
	struct segue_batch *first = take(lane);
	save(first);
	segue_batch_put_back(first);
	segue_batch_put_back(first);
	assert_fails(segue_batch_commit(first), SEGUE_ESTALE, "was put back");
	again = take(lane);
	cr_assert_neq(again, first);
	cr_assert_eq(segue_batch_step(again), 1);
	cr_assert_not(segue_batch_all_saved(again));
	cr_assert_eq(segue_batch_state(again, 0, NULL), segue_batch_state(first, 0, NULL),
		"the same memory");
	commit(again);
	segue_batch_put_back(again);
	cr_assert(segue_batch_committed(again));
	segue_batch_release(again);
	consume(lane, 2);
	for (uint32_t row = 0; row < segue_batch_rows(first); row++)
		check_row(first, row);
	assert_fails(segue_lane_next(lane, SEGUE_FOREVER, &again), SEGUE_EHELD, "1 earlier");
	segue_batch_release(first);
	consume(lane, 3);
	close_all(lane);
}

Test(client, passes_on_what_the_server_refuses)
{
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	segue_lane_close(lane);
	assert_fails(
		segue_lane_attach(stream, 0, NULL, &lane), SEGUE_ESTART, "step 7 of yesterday");
	/* The connection is none the worse for it. */
	lane = attach(SEGUE_START_CONTINUE);
	cr_assert_eq(segue_lane_committed(lane), 2);
	consume(lane, 2);
	segue_lane_close(lane);
	lane = attach(SEGUE_START_FRESH);
	cr_assert_eq(segue_lane_committed(lane), 0);
	consume(lane, 1);
	cr_assert_eq(server->seen.connections, 1);
	close_all(lane);
}

/* ---- Tokens and reports -------------------------------------------------------------------- */

Test(client, goes_back_to_a_token)
{
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	void *token, *other;
	size_t size, other_size;
	consume(lane, 3);
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	cr_assert_eq(segue_stream_checkpoint(stream, 0, 3, SOON, &other, &other_size), 0);
	cr_assert_eq(size, other_size);
	cr_assert_arr_eq(token, other, size);
	assert_fails(segue_stream_checkpoint(stream, 0, 9, 0, &other, &other_size), SEGUE_ETIMEOUT,
		"stands at another step");
	consume(lane, 3);
	assert_fails(segue_lane_restore(lane, "rubbish", 7), SEGUE_ETOKEN, "another stream");
	assert_fails(segue_lane_check(lane, "rubbish", 7), SEGUE_ETOKEN, "another stream");
	assert_fails(segue_lane_check(lane, NULL, 0), SEGUE_ETOKEN, "empty");
	cr_assert_eq(segue_lane_check(lane, token, size), 0, "%s", segue_error_detail());
	consume(lane, 1); /* as before */
	cr_assert_eq(segue_lane_restore(lane, token, size), 0, "%s", segue_error_detail());
	cr_assert_eq(segue_lane_committed(lane), 3);
	consume(lane, 4);
	segue_lane_close(lane);
	struct segue_attach_options how = {.size = sizeof(how), .token = token, .token_size = size};
	cr_assert_eq(segue_lane_attach(stream, 0, &how, &lane), 0, "%s", segue_error_detail());
	consume(lane, 1);
	cr_assert_eq(segue_lane_committed(lane), 4);
	segue_free(token);
	segue_free(other);
	close_all(lane);
}

Test(client, checkpoints_in_the_store)
{
	size_t size;
	void *token;

	cr_assert_eq(segue_open(store, &options, &client), 0);
	cr_assert_eq(segue_client_checkpoint(client, "train", NULL, 1, 7, &token, &size), 0, "%s",
		segue_error_detail());
	cr_assert_str_eq(token, "train 1 7");
	cr_assert_eq(size, 9);
	segue_free(token);
	assert_fails(segue_client_checkpoint(client, "train", NULL, 1, 99, &token, &size),
		SEGUE_ENOTFOUND, "no checkpoint of id 99");
	assert_fails(segue_client_checkpoint(client, "train", NULL, 1, 7, NULL, &size),
		SEGUE_EINVAL, "places");
	cr_assert_eq(segue_client_checkpoint_remove(client, "train", NULL, 1, 0), 0, "%s",
		segue_error_detail());
	assert_fails(segue_client_checkpoint_remove(client, "train", NULL, 1, 99), SEGUE_ENOTFOUND,
		"no checkpoint of id 99");
	assert_fails(
		segue_client_checkpoint_remove(client, NULL, NULL, 1, 1), SEGUE_EINVAL, "name");
	segue_client_close(client);
}

Test(client, reports)
{
	char *json;

	cr_assert_eq(segue_open(store, &options, &client), 0);
	cr_assert_eq(segue_client_report(client, SEGUE_REPORT_INSPECT, "train", NULL, &json), 0);
	cr_assert_str_eq(json, "{\"what\":2,\"stream\":\"train\",\"key\":\"\"}");
	segue_free(json);
	assert_fails(segue_client_report(client, SEGUE_REPORT_GET, NULL, "missing", &json),
		SEGUE_ENOTFOUND, "nothing under 'missing'");
	/* An answer to something older is passed over, and what came with it closed. */
	set(stray, true);
	cr_assert_eq(segue_client_report(client, SEGUE_REPORT_VERIFY, NULL, NULL, &json), 0);
	segue_free(json);
	/* Nonsense ends the connection; the next call makes another. */
	set(stray, false);
	set(wrong_reply, true);
	assert_fails(segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, &json),
		SEGUE_EPROTOCOL, "type 68");
	set(wrong_reply, false);
	cr_assert_eq(segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, &json), 0);
	segue_free(json);
	cr_assert_eq(server->seen.connections, 2);
	segue_client_close(client);
}

/* ---- Waiting ------------------------------------------------------------------------------- */

/* What the server could not read ahead for want of memory, each call asks for anew. */
Test(client, has_the_server_try_again_what_had_no_memory)
{
	struct segue_batch *batch;
	uint64_t waits, wakes;

	set(hold, true);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	struct segue_ring_header *ring = server->lanes[0].ring.map;
	strcpy(ring->error_text, "no memory for 3 records");
	atomic_store(&ring->error, (uint32_t)-SEGUE_ENOMEM);
	for (uint64_t calls = 1; calls <= 2; calls++) {
		assert_fails(segue_lane_next(lane, SEGUE_FOREVER, &batch), SEGUE_ENOMEM,
			"no memory for 3 records");
		segue_lane_wakes(lane, &waits, &wakes);
		cr_assert_eq(wakes, calls);
	}
	set(hold, false);
	fakeserver_await(server, 0, 1);
	segue_batch_release(take(lane)); /* the batch is there: that it was not is forgotten */
	close_all(lane);
}

Test(client, waits_as_long_as_it_may)
{
	struct segue_batch *batch;
	uint64_t waits, wakes;
	struct event event;

	set(hold, true);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	assert_fails(segue_lane_next(lane, 0, &batch), SEGUE_ETIMEOUT, "batch 0 of lane 0");
	segue_lane_wakes(lane, &waits, &wakes);
	cr_assert_eq(waits, 1);
	cr_assert_eq(wakes, 0, "it slept");
	int64_t began = now();
	assert_fails(segue_lane_next(lane, 60 * MS, &batch), SEGUE_ETIMEOUT, "in time");
	cr_assert_geq(now() - began, 60 * MS);
	cr_assert_lt(now() - began, SOON);
	cr_assert_geq(segue_lane_waited(lane), (uint64_t)(60 * MS));
	segue_lane_wakes(lane, &waits, &wakes);
	cr_assert_eq(waits, 2);
	cr_assert_eq(wakes, 1); /* only before a sleep, and once a call */
	begin_event(&event, 100 * MS, do_let_go);
	batch = take(lane);
	end_event(&event);
	segue_lane_wakes(lane, &waits, &wakes);
	cr_assert_eq(waits, 3);
	cr_assert_eq(wakes, 2);
	/* Half the ring is free then: the server has asked to be told, once it is done filling. */
	fakeserver_lock(server);
	fakeserver_unlock(server);
	commit(batch);
	segue_batch_release(batch);
	segue_lane_wakes(lane, &waits, &wakes);
	cr_assert_eq(wakes, 3);
	fakeserver_lock(server);
	cr_assert_geq(server->seen.events, 1);
	fakeserver_unlock(server);
	close_all(lane);
}

Test(client, can_be_interrupted_while_it_waits)
{
	struct segue_batch *batch;

	set(hold, true);
	options.interrupt = interrupt_soon;
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	interrupts = 0;
	assert_fails(
		segue_lane_next(lane, SEGUE_FOREVER, &batch), SEGUE_EINTERRUPTED, "interrupted");
	cr_assert_geq(interrupts, 2);
	interrupts = -1000000;
	set(hold, false);
	consume(lane, 2);
	cr_assert_eq(server->seen.connections, 1);
	close_all(lane);
}

/* Nothing hangs on such an answer, and the connection, with its leases, stays. */
Test(client, leaves_a_request_that_changes_nothing)
{
	struct segue_batch *batch;
	void *token;
	size_t size;
	char *json;

	options.interrupt = interrupt_soon;
	interrupts = -1000000;
	set(hold_durable, true);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	const int types[] = {SEGUE_MESSAGE_REPORT, SEGUE_MESSAGE_CHECKPOINT,
		SEGUE_MESSAGE_LANE_FLUSH, SEGUE_MESSAGE_STORED, SEGUE_MESSAGE_LANE_ATTACH};
	unsigned fds = count_fds();
	for (int i = 0; i < 5; i++) {
		batch = i == 1 ? NULL : take(lane);
		set(late, types[i]);
		interrupts = 0;
		int rc = 0;
		switch (i) {
		case 0:
			rc = segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, &json);
			break;
		case 1:
			rc = segue_lane_checkpoint(lane, &token, &size);
			break;
		case 2:
			rc = segue_lane_flush(lane, SEGUE_FOREVER);
			break;
		case 3:
			rc = segue_client_checkpoint(client, "train", NULL, 0, 1, &token, &size);
			break;
		default:
			rc = segue_lane_check(lane, token, size);
		}
		cr_assert_eq(rc, SEGUE_EINTERRUPTED, "%d: %s", i, segue_error_detail());
		interrupts = -1000000;
		set(late, 0);
		if (batch) {
			commit(batch);
			segue_batch_release(batch);
		}
		/* The late answer comes first, and is not taken for this one's. */
		cr_assert_eq(segue_client_report(client, SEGUE_REPORT_INSPECT, NULL, NULL, &json),
			0, "%s", segue_error_detail());
		cr_assert_not_null(strstr(json, "\"what\":2"));
		segue_free(json);
		cr_assert_eq(count_fds(), fds);
	}
	segue_free(token);
	cr_assert_eq(server->seen.connections, 1);
	cr_assert_eq(server->seen.attaches, 1);
	set(hold_durable, false);
	close_all(lane);
}

Test(client, goes_on_after_a_restore_was_interrupted)
{
	void *token;
	size_t size;

	options.interrupt = interrupt_soon;
	interrupts = -1000000;
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	set(mute, SEGUE_MESSAGE_LANE_ATTACH);
	interrupts = 0;
	assert_fails(segue_lane_restore(lane, token, size), SEGUE_EINTERRUPTED, "interrupted");
	segue_free(token);
	/*
	 * With its connection the lane has lost its lease, and the server has taken what was
	 * committed: an offer is refused. It goes on all the same, and where it was.
	 */
	interrupts = -1000000;
	set(mute, 0);
	fakeserver_lock(server);
	while (server->lanes[0].lease) {
		fakeserver_unlock(server);
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
		fakeserver_lock(server);
	}
	cr_assert_eq(server->lanes[0].step, 2);
	fakeserver_unlock(server);
	consume(lane, 2);
	cr_assert_eq(server->seen.offers, 1);
	cr_assert_eq(server->seen.connections, 2);
	cr_assert_eq(server->seen.opens, 2);
	close_all(lane);
}

static struct segue_client *inner_client;
static int inner_rc;

static int call_from_callback(void *arg)
{
	char *json;

	(void)arg;
	inner_rc = segue_client_report(inner_client, SEGUE_REPORT_STATUS, NULL, NULL, &json);
	return 1;
}

Test(client, refuses_calls_from_its_callbacks)
{
	char *json;

	options.interrupt = call_from_callback;
	cr_assert_eq(segue_open(store, &options, &client), 0);
	inner_client = client;
	set(mute, SEGUE_MESSAGE_REPORT);
	cr_assert_eq(segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, &json),
		SEGUE_EINTERRUPTED);
	cr_assert_eq(inner_rc, SEGUE_EINVAL);
	segue_client_close(client);
}

/* ---- The server dies ----------------------------------------------------------------------- */

/* What an offer at step `step` must hold: states of batch step - 1 row by row. */
static size_t check_offered_rows(const uint64_t *numbers, const int64_t *segments, size_t rows)
{
	size_t at = 0;

	for (size_t row = 0; row < rows; row++) {
		float h[3], expected[3];
		int64_t c;
		memcpy(h, server->seen.offer + at, sizeof(h));
		memcpy(&c, server->seen.offer + at + sizeof(h), sizeof(c));
		expected_h(numbers[row], segments[row], expected);
		cr_assert_arr_eq(h, expected, sizeof(h));
		cr_assert_eq(c, expected_c(numbers[row], segments[row]));
		at += sizeof(h) + sizeof(c);
	}
	return at;
}

Test(client, offers_its_last_commit_to_the_next_server)
{
	set(hold_durable, true);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	struct segue_batch *view = take(lane);
	commit(view);
	restart();
	/* The view stays what it is, while the lane goes on in other memory. */
	void *token;
	size_t size;
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	segue_free(token);
	cr_assert_eq(server->seen.offers, 1);
	cr_assert_eq(server->lanes[0].generation, 2);
	cr_assert_eq(server->seen.offer_step, 3);
	consume(lane, 5);
	for (uint32_t row = 0; row < segue_batch_rows(view); row++)
		check_row(view, row);
	segue_batch_release(view);
	consume(lane, 1);
	/* A second time, with nothing new: nothing is uploaded. */
	restart();
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	segue_free(token);
	unsigned uploads = server->seen.uploads;
	restart();
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	segue_free(token);
	cr_assert_eq(server->seen.uploads, uploads);
	cr_assert_eq(server->seen.offers, 3);
	consume(lane, 2);
	close_all(lane);
}

Test(client, offers_states_and_ended_rows)
{
	/* Sequences 0, 1, 2 of 2, 2 and 3 segments, then 3 and 4. */
	const uint64_t lengths[] = {4, 3, 6, 8, 9, 9, 9, 9};

	memcpy(server->script.lengths, lengths, sizeof(lengths));
	set(hold_durable, true);
	spec.keep_final = true;
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 3); /* 0 and 1 end at batch 1, 2 at batch 2 */
	restart();
	void *token;
	size_t size;
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	segue_free(token);
	cr_assert_eq(server->seen.offer_step, 3);
	const uint64_t numbers[] = {3, 4, 2};
	const int64_t segments[] = {0, 0, 2};
	size_t at = check_offered_rows(numbers, segments, 3);
	const struct {
		uint64_t step, number;
		int64_t segment;
	} ended[] = {{1, 0, 1}, {1, 1, 1}, {2, 2, 2}};
	for (size_t i = 0; i < 3; i++) {
		struct {
			uint64_t step, number;
			uint32_t key_size, zero;
		} head;
		char key[16];
		float h[3], expected[3];
		memcpy(&head, server->seen.offer + at, sizeof(head));
		cr_assert_eq(head.step, ended[i].step);
		cr_assert_eq(head.number, ended[i].number);
		cr_assert_eq(head.zero, 0);
		snprintf(key, sizeof(key), "rec:%lu", ended[i].number);
		cr_assert_eq(head.key_size, strlen(key));
		at += sizeof(head);
		cr_assert_arr_eq(server->seen.offer + at, key, head.key_size);
		at += head.key_size;
		memcpy(h, server->seen.offer + at, sizeof(h));
		expected_h(ended[i].number, ended[i].segment, expected);
		cr_assert_arr_eq(h, expected, sizeof(h));
		at += sizeof(h) + sizeof(int64_t);
	}
	cr_assert_eq(server->seen.offer_size, at);
	/* What is on disk is not offered again: by the grant, ... */
	consume(lane, 1);
	restart();
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	segue_free(token);
	cr_assert_eq(server->seen.offer_step, 4);
	cr_assert_eq(server->seen.offer_size, 3 * 20);
	/* ... or later. */
	consume(lane, 2); /* 3 ends at batch 5 */
	set(hold_durable, false);
	await_disk(6);
	restart();
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	segue_free(token);
	cr_assert_eq(server->seen.offer_step, 6);
	cr_assert_eq(server->seen.offer_size, 3 * 20);
	close_all(lane);
}

Test(client, offers_no_more_rows_than_there_are)
{
	const uint64_t lengths[] = {10, 4, 6};

	memcpy(server->script.lengths, lengths, sizeof(lengths));
	set(records, 3);
	set(hold_durable, true);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 4); /* of 3, 3, 2, 1 rows */
	restart();
	consume(lane, 1);
	cr_assert_eq(server->seen.offers, 0); /* the ring had it */
	restart();
	struct segue_batch *batch;
	void *token;
	size_t size;
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	segue_free(token);
	cr_assert_eq(server->seen.offer_step, 5);
	cr_assert_eq(server->seen.offer_size, 20);
	cr_assert_eq(segue_lane_next(lane, 20 * SECOND, &batch), SEGUE_EEND);
	close_all(lane);
}

Test(client, forgets_ended_rows_when_it_goes_back)
{
	const uint64_t lengths[] = {4, 3, 6, 8, 9, 9, 9, 9};
	void *token;
	size_t size;

	memcpy(server->script.lengths, lengths, sizeof(lengths));
	set(hold_durable, true);
	spec.keep_final = true;
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 1);
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	consume(lane, 2); /* three end */
	cr_assert_eq(segue_lane_restore(lane, token, size), 0, "%s", segue_error_detail());
	segue_free(token);
	consume(lane, 1); /* two end */
	restart();
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	segue_free(token);
	cr_assert_eq(server->seen.offer_step, 2);
	cr_assert_eq(server->seen.offer_size, 3 * 20 + 2 * (24 + strlen("rec:0") + 20));
	close_all(lane);
}

Test(client, keeps_many_ended_rows)
{
	spec.keep_final = true;
	spec.epochs = 80;
	for (int i = 0; i < 8; i++)
		server->script.lengths[i] = 2;
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	/* 300 sequences of one segment that reach the disk, and 300 that do not. */
	consume(lane, 100);
	await_disk(100);
	set(hold_durable, true);
	consume(lane, 100);
	restart();
	void *token;
	size_t size;
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	segue_free(token);
	size_t at = 3 * 20;
	for (uint64_t number = 300; number < 600; number++) {
		uint64_t head[3];
		memcpy(head, server->seen.offer + at, sizeof(head));
		cr_assert_eq(head[0], number / 3);
		cr_assert_eq(head[1], number);
		at += sizeof(head) + head[2] + 20;
	}
	cr_assert_eq(at, server->seen.offer_size);
	close_all(lane);
}

Test(client, offers_no_persiststreams_too)
{
	spec.no_persist = true;
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	for (int i = 1; i <= 3; i++) {
		restart();
		void *token;
		size_t size;
		/* Such a server has no disk. */
		server->lanes[0].step = 0;
		server->lanes[0].rows = 0;
		cr_assert_eq(
			segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
		segue_free(token);
		cr_assert_eq(server->seen.offers, (unsigned)i);
		cr_assert_eq(server->seen.offer_size, 60);
	}
	consume(lane, 4);
	close_all(lane);
}

static void do_restart(void)
{
	restart();
}

Test(client, makes_its_lanes_known_before_a_checkpoint_of_any)
{
	void *token;
	size_t size;

	set(hold_durable, true);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	restart();
	cr_assert_eq(segue_stream_checkpoint(stream, 0, 2, SOON, &token, &size), 0, "%s",
		segue_error_detail());
	segue_free(token);
	consume(lane, 2);
	close_all(lane);
}

Test(client, reads_what_a_server_says_before_it_hangs_up)
{
	char *json;

	cr_assert_eq(segue_open(store, &options, &client), 0);
	fakeserver_hang_up(server, SEGUE_ELIMIT, "too many connections");
	assert_fails(segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, &json),
		SEGUE_ELIMIT, "too many connections");
	cr_assert_eq(segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, &json), 0);
	segue_free(json);
	segue_client_close(client);
}

/* The lane waits at the new server, too, before there is anything. */
static void do_restart_and_let_go(void)
{
	unsigned offers = 0;

	restart();
	while (offers == 0) {
		usleep(1000);
		fakeserver_lock(server);
		offers = server->seen.offers;
		fakeserver_unlock(server);
	}
	set(hold, false);
}

Test(client, survives_a_death_while_it_waits)
{
	struct event event;

	set(hold_durable, true);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	set(hold, true);
	/* The ring runs dry; a new server comes with everything. */
	begin_event(&event, 100 * MS, do_restart_and_let_go);
	consume(lane, 6);
	end_event(&event);
	cr_assert_eq(server->seen.offers, 1);
	close_all(lane);
}

Test(client, flushes_no_open_batch_away)
{
	struct segue_batch *batch;
	struct event event;

	set(hold_durable, true);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 1);
	batch = take(lane);
	save(batch);
	restart();
	assert_fails(segue_lane_flush(lane, SEGUE_FOREVER), SEGUE_EUNSAVED, "batch 1 is open");
	cr_assert_eq(segue_batch_commit(batch), 0, "%s", segue_error_detail());
	segue_batch_release(batch);
	cr_assert_eq(segue_lane_flush(lane, SEGUE_FOREVER), 0, "%s", segue_error_detail());
	cr_assert_eq(server->seen.offer_step, 2);
	/* Lost while it waits. */
	consume(lane, 1);
	batch = take(lane);
	save(batch);
	begin_event(&event, 100 * MS, do_restart);
	assert_fails(segue_lane_flush(lane, SEGUE_FOREVER), SEGUE_EUNSAVED, "batch 3 is open");
	end_event(&event);
	cr_assert_eq(segue_batch_commit(batch), 0, "%s", segue_error_detail());
	segue_batch_release(batch);
	cr_assert_eq(segue_lane_flush(lane, SEGUE_FOREVER), 0, "%s", segue_error_detail());
	assert_fails(segue_lane_flush(lane, -1), SEGUE_EINVAL, "timeout_ns is negative");
	cr_assert_eq(server->seen.offer_step, 4);
	consume(lane, 2);
	close_all(lane);
}

static void do_start(void)
{
	fakeserver_start(server);
}

Test(client, waits_for_somebody_elses_server_to_come_back)
{
	struct segue_batch *batch;
	struct event event;

	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 1);
	fakeserver_kill(server);
	int rc;
	while ((rc = segue_lane_next(lane, 0, &batch)) == 0) {
		commit(batch);
		segue_batch_release(batch);
	}
	assert_fails(rc, SEGUE_ETIMEOUT, "did not come back in time");
	assert_fails(segue_lane_next(lane, 100 * MS, &batch), SEGUE_ETIMEOUT, "did not come back");
	begin_event(&event, 300 * MS, do_start);
	consume(lane, 4);
	end_event(&event);
	close_all(lane);
}

Test(client, gives_up_on_a_server_that_does_not_come_back)
{
	char *json;

	options.timeout_ns = 17 * SECOND;
	cr_assert_eq(segue_open(store, &options, &client), 0);
	cr_assert_eq(client->timeout_ns, options.timeout_ns, "it holds for what comes later, too");
	client->timeout_ns = 200 * MS; /* which opening may need */
	fakeserver_kill(server);
	int64_t began = now();
	assert_fails(segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, &json),
		SEGUE_EGONE, "did not come back");
	cr_assert_lt(now() - began, SOON);
	segue_client_close(client);
}

Test(client, gives_up_on_a_server_that_dies_of_the_request)
{
	char *json;

	cr_assert_eq(segue_open(store, &options, &client), 0);
	client->timeout_ns = SECOND;
	set(die_on, SEGUE_MESSAGE_REPORT);
	set(die_times, 1000000);
	assert_fails(segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, &json),
		SEGUE_EGONE, "again and again");
	fakeserver_lock(server);
	unsigned deaths = 1000000 - (unsigned)server->script.die_times;
	server->script.die_times = 2;
	fakeserver_unlock(server);
	cr_assert(deaths > 2 && deaths < 20, "%u", deaths);
	client->timeout_ns = 20 * SECOND;
	cr_assert_eq(segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, &json), 0);
	segue_free(json);
	segue_client_close(client);
}

Test(client, starts_the_next_server_itself)
{
	struct event event;
	char path[SEGUE_TMPDIR_MAX];

	write_program("echo run >>\"$(dirname \"$0\")/runs\"; " ASK "exit 0");
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	fakeserver_kill(server);
	unlink(socket_path);
	cr_assert_lt(access(segue_tmpdir_path(&dir, "runs", path), F_OK), 0);
	begin_event(&event, 0, start_when_asked);
	consume(lane, 5);
	end_event(&event);
	close_all(lane);
	char text[64];
	read_file("runs", text, sizeof(text));
	cr_assert_str_eq(text, "run\n");
}

Test(client, goes_on_when_the_answer_to_its_offer_was_lost)
{
	set(hold_durable, true);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	fakeserver_kill(server);
	set(lose_grants, 1);
	fakeserver_start(server);
	void *token;
	size_t size;
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	segue_free(token);
	cr_assert_eq(segue_lane_committed(lane), 2);
	cr_assert_eq(server->seen.offers, 2);
	consume(lane, 4);
	close_all(lane);
}

/* ---- Batch size ---- */

Test(client, sets_a_batch_size)
{
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	cr_assert_eq(segue_lane_batch_size(lane), spec.batch_size);
	consume(lane, 2);
	struct segue_batch *batch;
	cr_assert_eq(segue_lane_next(lane, SECOND, &batch), 0);
	assert_fails(segue_lane_set_batch_size(lane, 5), SEGUE_EUNSAVED, "batch 2");
	segue_batch_put_back(batch);
	cr_assert_eq(segue_lane_set_batch_size(lane, 5), 0, "%s", segue_error_detail());
	cr_assert_eq(segue_lane_batch_size(lane), 5);
	cr_assert_eq(segue_lane_committed(lane), 2);
	cr_assert_eq(segue_lane_durable(lane), 2);
	check_row(batch, 0); /* what is held stays */
	segue_batch_release(batch);
	cr_assert_eq(segue_lane_set_batch_size(lane, 5), 0);
	cr_assert_eq(server->seen.resizes, 1);
	assert_fails(segue_lane_set_batch_size(lane, (1u << 20) + 1), SEGUE_EINVAL, "at most");
	consume(lane, 4);
	close_all(lane);
	assert_fails(segue_lane_set_batch_size(NULL, 1), SEGUE_EINVAL, "a lane is wanted");
	cr_assert_eq(segue_lane_batch_size(NULL), 0);
}

/* It is durable, and nobody has said so: it is not asked for twice. */
Test(client, sets_a_batch_size_whose_answer_is_lost)
{
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	set(lose_grants, 1);
	cr_assert_eq(segue_lane_set_batch_size(lane, 9), 0, "%s", segue_error_detail());
	cr_assert_eq(segue_lane_batch_size(lane), 9);
	cr_assert_eq(server->seen.resizes, 1);
	set(hold_durable, true);
	consume(lane, 4);
	restart(); /* the commits are offered first */
	cr_assert_eq(segue_lane_set_batch_size(lane, 7), 0, "%s", segue_error_detail());
	cr_assert_eq(server->seen.offer_step, 6);
	cr_assert_eq(segue_lane_committed(lane), 6);
	cr_assert_eq(segue_lane_batch_size(lane), 7);
	cr_assert_eq(server->seen.resizes, 2);
	close_all(lane);
}

Test(client, goes_on_when_a_lease_could_not_be_mapped)
{
	void *token;
	size_t size;

	set(hold_durable, true);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	restart();
	set(bad_grants, 2); /* the answer to its offer, and to the request after that */
	for (int i = 0; i < 2; i++)
		assert_fails(segue_lane_checkpoint(lane, &token, &size), SEGUE_EPROTOCOL, "ring");
	cr_assert_eq(segue_lane_checkpoint(lane, &token, &size), 0, "%s", segue_error_detail());
	segue_free(token);
	cr_assert_eq(server->seen.offer_step, 2);
	consume(lane, 4);
	close_all(lane);
}

/* They would be read out of buffers that have no such rows. */
Test(client, refuses_a_lease_of_more_rows_than_a_batch_has)
{
	struct segue_lane *lane = NULL;

	open_stream();
	set(bad_rows, 4);
	assert_fails(segue_lane_attach(stream, 0, NULL, &lane), SEGUE_EPROTOCOL,
		"lane 0 with 4 rows, a batch has 3");
	set(bad_rows, 0);
	close_all(attach(SEGUE_START_NONE));
}

Test(client, offers_on_closing_what_is_not_on_disk)
{
	set(hold_durable, true);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 3);
	restart();
	cr_assert_eq(server->lanes[0].step, 0);
	segue_lane_close(lane);
	cr_assert_eq(server->seen.offer_step, 3);
	cr_assert_eq(server->lanes[0].step, 3);
	/* With all on disk there is no need of a server. */
	set(hold_durable, false);
	lane = attach(SEGUE_START_CONTINUE);
	fakeserver_kill(server);
	close_all(lane);
	cr_assert_eq(server->seen.offers, 1);
}

Test(client, keeps_batches_readable_when_the_lane_is_closed)
{
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	struct segue_batch *one = take(lane), *two;
	commit(one);
	two = take(lane);
	save(two);
	close_all(lane);
	fakeserver_await_idle(server);
	for (uint32_t row = 0; row < segue_batch_rows(one); row++)
		check_row(one, row);
	for (uint32_t row = 0; row < segue_batch_rows(two); row++)
		check_row(two, row);
	assert_fails(segue_batch_commit(two), SEGUE_EFENCED, "closed");
	cr_assert_null(segue_batch_state_out(two, 0));
	segue_batch_release(one);
	segue_batch_release(two);
	cr_assert_eq(server->lanes[0].step, 3);
}

/* ---- Fences -------------------------------------------------------------------------------- */

Test(client, learns_that_somebody_else_has_the_lane)
{
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	struct segue_batch *batch;
	consume(lane, 1);
	batch = take(lane);
	save(batch);
	fakeserver_usurp(server, 0);
	cr_assert_null(segue_batch_state_out(batch, 0));
	assert_fails(segue_batch_commit(batch), SEGUE_EFENCED, "batch 1");
	cr_assert_not(segue_batch_committed(batch));
	segue_batch_release(batch);
	assert_fails(segue_lane_next(lane, SEGUE_FOREVER, &batch), SEGUE_EFENCED, "another holder");
	/* Once is enough: it does not ask again. */
	unsigned attaches = server->seen.attaches;
	assert_fails(segue_lane_next(lane, SEGUE_FOREVER, &batch), SEGUE_EFENCED, "another holder");
	cr_assert_eq(server->seen.attaches, attaches);
	/* The handle is of no further use, but the lane may be had anew. */
	struct segue_lane *again = attach(SEGUE_START_CONTINUE);
	consume(again, 2);
	segue_lane_close(again);
	close_all(lane);
}

Test(client, hands_out_nothing_of_a_lane_that_is_lost)
{
	struct segue_batch *batch;
	void *token;
	size_t size;

	set(hold_durable, true);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	fakeserver_await(server, 0, 4);
	fakeserver_kill(server);
	fakeserver_usurp(server, 0);
	fakeserver_start(server);
	assert_fails(
		segue_lane_checkpoint(lane, &token, &size), SEGUE_EFENCED, "had another holder");
	assert_fails(segue_lane_next(lane, SEGUE_FOREVER, &batch), SEGUE_EFENCED, "another holder");
	close_all(lane);
}

Test(client, learns_who_holds_the_lane)
{
	struct segue_client *other;
	struct segue_stream *other_stream;
	struct segue_lane *other_lane;
	struct segue_batch *batch;

	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 1);
	fakeserver_end_lease(server, 0);
	cr_assert_eq(segue_open(store, &options, &other), 0);
	cr_assert_eq(segue_draft_open(other, &spec, &other_stream), 0);
	struct segue_attach_options how = {.size = sizeof(how), .start = SEGUE_START_CONTINUE};
	cr_assert_eq(segue_lane_attach(other_stream, 0, &how, &other_lane), 0);
	assert_fails(segue_lane_next(lane, SEGUE_FOREVER, &batch), SEGUE_EFENCED, "newer handle");
	consume(other_lane, 2);
	segue_lane_close(other_lane);
	segue_stream_close(other_stream);
	segue_client_close(other);
	/* A restore takes it back. */
	close_all(lane);
}

Test(client, takes_back_a_lease_that_ended_without_need)
{
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 2);
	struct segue_batch *batch = take(lane);
	save(batch);
	fakeserver_end_lease(server, 0);
	assert_fails(segue_batch_commit(batch), SEGUE_EFENCED, "release the batch");
	segue_batch_release(batch);
	consume(lane, 3);
	cr_assert_eq(segue_lane_committed(lane), 5);
	close_all(lane);
}

/* ---- Durability and storage ---------------------------------------------------------------- */

static void do_make_durable(void)
{
	set(hold_durable, false);
}

static void do_restart_after_the_commit(void)
{
	fakeserver_await_commit(server, 0, 5);
	restart();
}

Test(client, commits_durably)
{
	struct event event;

	spec.durability = SEGUE_DURABLE_COMMIT;
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	for (unsigned i = 1; i <= 3; i++) {
		uint64_t before, after;
		struct segue_batch *batch = take(lane);
		segue_lane_wakes(lane, NULL, &before);
		commit(batch);
		segue_lane_wakes(lane, NULL, &after);
		cr_assert_eq(after, before + 1); /* the server is not left to find out by itself */
		segue_batch_release(batch);
		cr_assert_eq(segue_lane_durable(lane), i);
	}
	set(hold_durable, true);
	int64_t began = now();
	begin_event(&event, 150 * MS, do_make_durable);
	consume(lane, 1);
	cr_assert_geq(now() - began, 150 * MS);
	cr_assert_eq(segue_lane_durable(lane), 4);
	end_event(&event);
	/* The server dies instead: the offer makes it durable. */
	set(hold_durable, true);
	begin_event(&event, 0, do_restart_after_the_commit);
	consume(lane, 1);
	end_event(&event);
	cr_assert_eq(server->seen.offer_step, 5);
	cr_assert_eq(segue_lane_durable(lane), 5);
	set(hold_durable, false);
	consume(lane, 1);
	close_all(lane);
}

Test(client, can_be_interrupted_while_it_commits)
{
	spec.durability = SEGUE_DURABLE_COMMIT;
	options.interrupt = interrupt_soon;
	interrupts = -1000000;
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	set(hold_durable, true);
	struct segue_batch *batch = take(lane);
	save(batch);
	interrupts = 0;
	assert_fails(segue_batch_commit(batch), SEGUE_EINTERRUPTED, "interrupted");
	cr_assert(segue_batch_committed(batch)); /* though not known to be on disk */
	segue_batch_release(batch);
	interrupts = -1000000;
	set(hold_durable, false);
	consume(lane, 1);
	close_all(lane);
}

static void do_fail_storage(void)
{
	set(storage_error, SEGUE_ENOSPACE);
}

Test(client, tells_of_a_storage_error_after_the_last_batch)
{
	struct segue_batch *batch;
	int rc;

	write_program("echo run >>\"$(dirname \"$0\")/runs\"; exit 24");
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	fakeserver_await(server, 0, 3);
	consume(lane, 1);
	set(storage_error, SEGUE_ENOSPACE);
	while ((rc = segue_lane_next(lane, 20 * SECOND, &batch)) == 0) {
		commit(batch);
		segue_batch_release(batch);
	}
	assert_fails(rc, SEGUE_ENOSPACE, "no space left on device");
	cr_assert_geq(segue_lane_committed(lane), 3);
	/* When that server goes, none is started: it could not store either. */
	fakeserver_kill(server);
	assert_fails(
		segue_lane_next(lane, SEGUE_FOREVER, &batch), SEGUE_ENOSPACE, "not started again");
	char path[SEGUE_TMPDIR_MAX];
	cr_assert_lt(access(segue_tmpdir_path(&dir, "runs", path), F_OK), 0);
	/* One that somebody else has started is welcome. */
	set(storage_error, 0);
	fakeserver_start(server);
	consume(lane, 2);
	close_all(lane);
}

Test(client, tells_of_a_storage_error_in_a_durable_commit)
{
	struct event event;

	spec.durability = SEGUE_DURABLE_COMMIT;
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 1);
	set(hold_durable, true);
	struct segue_batch *batch = take(lane);
	save(batch);
	begin_event(&event, 100 * MS, do_fail_storage);
	assert_fails(segue_batch_commit(batch), SEGUE_ENOSPACE, "batches below 1 are on disk");
	end_event(&event);
	segue_batch_release(batch);
	close_all(lane);
}

static atomic_bool flickering;

static void *flicker(void *arg)
{
	struct segue_lease_page *page = arg;

	while (atomic_load(&flickering)) {
		atomic_store(&page->error, (uint32_t)-SEGUE_ENOSPACE);
		atomic_fetch_add(&page->bell, 1);
		atomic_store(&page->error, 0);
	}
	return NULL;
}

/* A disk that is full comes and goes; nothing reaches it. */
Test(client, takes_no_storage_error_that_goes_for_success)
{
	pthread_t thread;

	spec.durability = SEGUE_DURABLE_COMMIT;
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	set(hold_durable, true);
	fakeserver_await(server, 0, 3);
	atomic_store(&flickering, true);
	cr_assert_eq(pthread_create(&thread, NULL, flicker, server->lanes[0].page.map), 0);
	for (int i = 0; i < 3; i++) {
		struct segue_batch *batch = take(lane);
		save(batch);
		cr_expect_eq(segue_batch_commit(batch), SEGUE_ENOSPACE);
		segue_batch_release(batch);
	}
	for (int i = 0; i < 300; i++)
		cr_expect_eq(segue_lane_flush(lane, SEGUE_FOREVER), SEGUE_ENOSPACE);
	atomic_store(&flickering, false);
	pthread_join(thread, NULL);
	set(hold_durable, false);
	close_all(lane);
}

Test(client, tells_of_a_damaged_record_after_the_batches_before_it)
{
	struct segue_batch *batch;

	set(fail_at, 4);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 4);
	assert_fails(segue_lane_next(lane, SEGUE_FOREVER, &batch), SEGUE_EDATA,
		"data/a.tfrecord: record at 1234: damaged");
	assert_fails(segue_lane_next(lane, 0, &batch), SEGUE_EDATA, "damaged");
	close_all(lane);
}

Test(client, refuses_a_damaged_slot)
{
	const char *const told[] = {NULL, "wrote step 3", "a number of rows, 4",
		"a number of spans, 4", "a span of row 2", "a length of 3",
		"a key of size 4294967295", "a previous row, plus one, of 4",
		"a number of steps, 0", "a number of steps, 3", "valid steps, 7"};
	struct segue_batch *batch;
	struct segue_span span, spans[16];
	char key[64];

	open_stream();
	for (int damage = 1; damage <= 10; damage++) {
		struct segue_lane *lane = attach(SEGUE_START_FRESH);
		consume(lane, 2); /* so that the slots with the damage are made anew */
		segue_lane_close(lane);
		set(damage, damage);
		lane = attach(SEGUE_START_CONTINUE);
		int rc = segue_lane_next(lane, 20 * SECOND, &batch);
		if (damage >= 4 && damage <= 6) { /* seen by who asks for the spans */
			cr_assert_eq(rc, 0, "%s", segue_error_detail());
			cr_assert_eq(
				segue_batch_span(batch, 1, &span, sizeof(span)), SEGUE_EPROTOCOL);
			cr_assert_eq(segue_batch_span(batch, 0, &span, sizeof(span)), 0);
			cr_assert_null(segue_batch_record_key(batch, 1, NULL));
			cr_assert_eq(segue_batch_key(batch, 1, false, key, sizeof(key)), 0);
			cr_assert_not_null(segue_batch_record_key(batch, 0, NULL));
			cr_assert_eq(segue_test_spans(batch, spans, 16), 0);
			rc = SEGUE_EPROTOCOL;
			segue_batch_release(batch);
		}
		assert_fails(rc, SEGUE_EPROTOCOL, told[damage]);
		cr_assert_not_null(strstr(segue_error_detail(), "batch 2 of lane 0"));
		segue_lane_close(lane);
		set(damage, 0);
	}
	close_all(NULL);
}

/* ---- Fork ---------------------------------------------------------------------------------- */

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			_exit(__LINE__ % 250 + 1);                                                 \
	} while (0)

static void use_in_child(struct segue_lane *lane, struct segue_batch *batch, void *place)
{
	/* Something else of the child where the parent has its segments. */
	volatile char *own = mmap(place, 4096, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	CHECK((void *)(uintptr_t)own == place);
	*own = 1;
	struct segue_stream *other;
	struct segue_lane *other_lane;
	struct segue_batch *next;
	void *token;
	size_t size;
	char *json;
	struct segue_span span;

	CHECK(segue_lane_next(lane, SEGUE_FOREVER, &next) == SEGUE_EFORKED);
	CHECK(strstr(segue_error_detail(), "fork"));
	CHECK(segue_batch_commit(batch) == SEGUE_EFORKED);
	CHECK(segue_batch_save_state(batch, 0, "", 1) == SEGUE_EFORKED);
	CHECK(segue_batch_mark_saved(batch, 0) == SEGUE_EFORKED);
	CHECK(!segue_batch_state(batch, 0, NULL) && !segue_batch_state_out(batch, 0));
	CHECK(!segue_batch_sequence(batch, 0) && !segue_batch_context(batch, 0));
	CHECK(segue_batch_span(batch, 0, &span, sizeof(span)) == SEGUE_EFORKED);
	CHECK(!segue_batch_record_key(batch, 0, &size) && size == 0);
	CHECK(segue_batch_key(batch, 0, false, NULL, 0) == 0);
	CHECK(segue_lane_checkpoint(lane, &token, &size) == SEGUE_EFORKED);
	CHECK(segue_lane_restore(lane, "x", 1) == SEGUE_EFORKED);
	CHECK(segue_lane_durable(lane) == 0 && segue_lane_undelivered(lane) == 0);
	CHECK(segue_lane_attach(stream, 0, NULL, &other_lane) == SEGUE_EFORKED);
	CHECK(segue_stream_checkpoint(stream, 0, 1, 0, &token, &size) == SEGUE_EFORKED);
	CHECK(segue_draft_open(client, &spec, &other) == SEGUE_EFORKED);
	CHECK(segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, &json) == SEGUE_EFORKED);
	/* Handles are freed without touching what is not there. */
	segue_batch_release(batch);
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
	CHECK(*own == 1);
	/* The child may have a client of its own. */
	CHECK(segue_open(store, &options, &client) == 0);
	CHECK(segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, &json) == 0);
	segue_free(json);
	segue_client_close(client);
	_exit(0);
}

Test(client, refuses_use_after_fork)
{
	int status;

	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 1);
	struct segue_batch *batch = take(lane);
	void *place = (void *)((uintptr_t)segue_batch_state(batch, 0, NULL) & ~(uintptr_t)4095);
	pid_t child = spawn_child();
	if (child == 0)
		use_in_child(lane, batch, place);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "line %d (mod 250)",
		WEXITSTATUS(status) - 1);
	/* The parent is none the worse for it. */
	commit(batch);
	segue_batch_release(batch);
	consume(lane, 3);
	cr_assert_eq(server->seen.detaches, 0);
	cr_assert_eq(server->seen.offers, 0);
	close_all(lane);
}

Test(client, leaves_the_server_no_child_to_mistake_for_it)
{
	int status, go[2];

	cr_assert_eq(pipe(go), 0);
	open_stream();
	struct segue_lane *lane = attach(SEGUE_START_NONE);
	consume(lane, 1);
	pid_t child = spawn_child();
	if (child == 0) {
		char byte;
		close(go[1]);
		_exit(read(go[0], &byte, 1) == 0 ? 0 : 1);
	}
	/* The connection ends with us, though the child lives. */
	close_all(lane);
	fakeserver_await_idle(server);
	close(go[1]);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0);
}
