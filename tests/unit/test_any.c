/*
 * segue_lanes_wait: the first of several lanes, against a scripted server; and lanes that move
 * between processes, against a real one.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/client.h"
#include "client/lane.h"
#include "core/wait.h"
#include "draft.h"
#include "fakeserver.h"
#include "tfwrite.h"
#include "tmpdir.h"

#define SECOND INT64_C(1000000000)
#define MS     INT64_C(1000000)
#define DEPTH  3

/* ---- A stream of two lanes ------------------------------------------------------------------ */

static const struct segue_feature sequence = {.name = "x", .dtype = SEGUE_FLOAT32};
static const struct segue_feature context = {.name = "n", .dtype = SEGUE_INT64};
static const struct segue_state state = {.name = "c", .dtype = SEGUE_INT64};
static const char *paths[] = {"data/*.tfrecord"};

static struct segue_tmpdir dir;
static char socket_path[SEGUE_TMPDIR_MAX], store[SEGUE_TMPDIR_MAX];
static struct fakeserver *server;
static struct segue_open_options options;
static struct segue_draft spec;
static struct segue_client *client;
static struct segue_stream *stream;
static struct segue_lane *lanes[2];

#define assert_fails(call, code, text)                                                             \
	do {                                                                                       \
		int rc_ = (call);                                                                  \
		cr_assert_eq(                                                                      \
			rc_, (code), "got %s: %s", segue_error_name(rc_), segue_error_detail());   \
		cr_assert_not_null(                                                                \
			strstr(segue_error_detail(), text), "%s", segue_error_detail());           \
	} while (0)

static void set_up(void)
{
	segue_tmpdir_make(&dir, "any");
	segue_tmpdir_path(&dir, "store", store);
	mkdir(store, 0700);
	segue_tmpdir_path(&dir, "store/segue.sock", socket_path);
	server = fakeserver_create(socket_path);
	fakeserver_start(server);
	options = (struct segue_open_options){
		.size = sizeof(options), .no_start = true, .timeout_ns = 20 * SECOND};
	spec = (struct segue_draft){
		.name = "train",
		.source = {.kind = SEGUE_SOURCE_TFRECORD,
			.tfrecord = {.paths = paths, .path_count = 1}},
		.sequences = &sequence,
		.sequence_count = 1,
		.contexts = &context,
		.context_count = 1,
		.states = &state,
		.state_count = 1,
		.num_unroll = 2,
		.batch_size = 2,
		.lanes = 2,
		.epochs = 1,
		.depth = DEPTH,
	};
}

static void tear_down(void)
{
	fakeserver_destroy(server);
	segue_tmpdir_remove(&dir);
}

TestSuite(any, .init = set_up, .fini = tear_down, .timeout = 60);

/* In these lanes, bits, nothing comes. */
static void hold(unsigned which)
{
	fakeserver_lock(server);
	server->script.hold_lanes = which;
	fakeserver_unlock(server);
}

static void begin(void)
{
	int rc = segue_open(store, &options, &client);

	cr_assert_eq(rc, 0, "%s", segue_error_detail());
	rc = segue_draft_open(client, &spec, &stream);
	cr_assert_eq(rc, 0, "%s", segue_error_detail());
	for (uint32_t i = 0; i < 2; i++) {
		rc = segue_lane_attach(stream, i, NULL, &lanes[i]);
		cr_assert_eq(rc, 0, "%s", segue_error_detail());
	}
}

static void finish(void)
{
	for (int i = 0; i < 2; i++)
		segue_lane_close(lanes[i]);
	segue_stream_close(stream);
	segue_client_close(client);
}

static struct segue_batch *take(struct segue_lane *lane)
{
	struct segue_batch *batch;
	int rc = segue_lane_next(lane, 20 * SECOND, &batch);

	cr_assert_eq(rc, 0, "%s: %s", segue_error_name(rc), segue_error_detail());
	return batch;
}

/* Commits what was taken; it is held on. */
static struct segue_batch *work(struct segue_lane *lane)
{
	struct segue_batch *batch = take(lane);

	cr_assert_eq(segue_batch_mark_saved(batch, 0), 0);
	cr_assert_eq(segue_batch_commit(batch), 0, "%s", segue_error_detail());
	return batch;
}

static void await_ready(size_t which)
{
	size_t found = 99;
	int rc = segue_lanes_wait(lanes, 2, 20 * SECOND, &found);

	cr_assert_eq(rc, 0, "%s: %s", segue_error_name(rc), segue_error_detail());
	cr_assert_eq(found, which, "%zu", found);
}

/* Something that happens while the test waits. */
static void *act_later(void *act)
{
	nanosleep(&(struct timespec){.tv_nsec = 100 * MS}, NULL);
	((void (*)(void))(uintptr_t)act)();
	return NULL;
}

static pthread_t soon(void (*act)(void))
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, act_later, (void *)(uintptr_t)act), 0);
	return thread;
}

/* ---- Arguments ------------------------------------------------------------------------------ */

Test(any, wants_valid_arguments)
{
	struct segue_lane *many[SEGUE_WAIT_WORDS + 1], *none[] = {NULL}, *two[2];
	struct segue_attach_options replicas = {
		.size = sizeof(replicas), .replicas = 2, .take = true};
	struct segue_client *another;
	struct segue_stream *opened;
	size_t which = 99;

	begin();
	for (size_t i = 0; i <= SEGUE_WAIT_WORDS; i++)
		many[i] = lanes[0];
	assert_fails(segue_lanes_wait(NULL, 1, 0, &which), SEGUE_EINVAL, "1 to 128 lanes");
	assert_fails(segue_lanes_wait(lanes, 0, 0, &which), SEGUE_EINVAL, "1 to 128 lanes");
	assert_fails(segue_lanes_wait(many, SEGUE_WAIT_WORDS + 1, 0, &which), SEGUE_EINVAL,
		"1 to 128 lanes");
	assert_fails(segue_lanes_wait(lanes, 2, -1, &which), SEGUE_EINVAL, "a time of 0 or more");
	assert_fails(segue_lanes_wait(lanes, 2, 0, NULL), SEGUE_EINVAL, "a place");
	assert_fails(segue_lanes_wait(none, 1, 0, &which), SEGUE_EINVAL, "not NULL");
	cr_assert_eq(segue_open(store, &options, &another), 0);
	cr_assert_eq(segue_draft_open(another, &spec, &opened), 0);
	cr_assert_eq(
		segue_lane_attach(opened, 1, &replicas, &two[1]), 0, "%s", segue_error_detail());
	two[0] = lanes[0];
	assert_fails(segue_lanes_wait(two, 2, 0, &which), SEGUE_EINVAL, "of one client");
	assert_fails(segue_lanes_wait(&two[1], 1, 0, &which), SEGUE_EINVAL, "without replicas");
	cr_assert_eq(which, 99);
	segue_lane_close(two[1]);
	segue_stream_close(opened);
	segue_client_close(another);
	finish();
}

Test(any, wants_no_open_batch)
{
	size_t which;

	begin();
	struct segue_batch *batch = take(lanes[1]);
	assert_fails(segue_lanes_wait(lanes, 2, 0, &which), SEGUE_EUNSAVED, "batch 0 of lane 1");
	segue_batch_put_back(batch);
	segue_batch_release(batch);
	await_ready(0);
	finish();
}

/* ---- Which it is ---------------------------------------------------------------------------- */

Test(any, says_which_lane_has_a_batch)
{
	hold(1);
	begin();
	await_ready(1);
	await_ready(1); /* that is not to take it */
	for (uint64_t step = 0; step < 5; step++) {
		await_ready(1);
		struct segue_batch *batch = work(lanes[1]);
		cr_assert_eq(segue_batch_step(batch), step);
		segue_batch_release(batch);
	}
	hold(0);
	fakeserver_await(server, 0, 1);
	await_ready(0);
	struct segue_lane *turned[] = {lanes[1], lanes[0]};
	size_t which = 99;
	fakeserver_await(server, 1, 6);
	cr_assert_eq(segue_lanes_wait(turned, 2, 0, &which), 0);
	cr_assert_eq(which, 0, "the first of those that are ready");
	finish();
}

Test(any, says_which_lane_has_ended)
{
	size_t which = 99;
	struct segue_batch *batch;

	begin();
	for (int rc = 0; !rc;) {
		rc = segue_lane_next(lanes[1], 20 * SECOND, &batch);
		if (rc)
			cr_assert_eq(rc, SEGUE_EEND, "%s", segue_error_detail());
		else
			cr_assert_eq(
				segue_batch_mark_saved(batch, 0) | segue_batch_commit(batch), 0);
		if (!rc)
			segue_batch_release(batch);
	}
	cr_assert_eq(segue_lanes_wait(&lanes[1], 1, 0, &which), 0, "%s", segue_error_detail());
	cr_assert_eq(which, 0);
	finish();
}

Test(any, passes_by_a_lane_whose_places_are_held)
{
	struct segue_batch *held[2][DEPTH], *batch;
	uint64_t waits, before, after;
	size_t which = 99;

	begin();
	for (int i = 0; i < DEPTH; i++)
		held[0][i] = work(lanes[0]);
	await_ready(1);
	hold(2);
	fakeserver_await(server, 1, DEPTH);
	for (int i = 0; i < DEPTH; i++) {
		await_ready(1);
		held[1][i] = work(lanes[1]);
		if (i < DEPTH - 1)
			continue;
		/* All are: who asks for the next is told so. */
		await_ready(0);
		assert_fails(segue_lane_next(lanes[0], 0, &batch), SEGUE_EHELD, "no place");
		segue_batch_release(held[1][0]);
	}
	segue_lane_wakes(lanes[1], &waits, &before);
	assert_fails(segue_lanes_wait(lanes, 2, 20 * MS, &which), SEGUE_ETIMEOUT, "of the 2 lanes");
	segue_lane_wakes(lanes[1], &waits, &after);
	cr_assert_eq(after, before + 1, "it sleeps where something may come");
	hold(0);
	await_ready(1);
	for (int i = 0; i < DEPTH; i++)
		segue_batch_release(held[0][i]);
	for (int i = 1; i < DEPTH; i++)
		segue_batch_release(held[1][i]);
	finish();
}

/* ---- Waiting -------------------------------------------------------------------------------- */

static void let_one_come(void)
{
	hold(1);
}

Test(any, waits_as_long_as_it_may)
{
	size_t which = 99;
	uint64_t waits, wakes;

	hold(3);
	begin();
	assert_fails(segue_lanes_wait(lanes, 2, 0, &which), SEGUE_ETIMEOUT, "in time");
	segue_lane_wakes(lanes[0], &waits, &wakes);
	cr_assert_eq(waits, 1);
	cr_assert_eq(wakes, 0, "it slept");
	int64_t began = segue_now_ns();
	assert_fails(segue_lanes_wait(lanes, 2, 60 * MS, &which), SEGUE_ETIMEOUT, "in time");
	cr_assert_geq(segue_now_ns() - began, 60 * MS);
	cr_assert_geq(segue_lane_waited(lanes[0]), (uint64_t)(60 * MS));
	for (int i = 0; i < 2; i++) {
		segue_lane_wakes(lanes[i], &waits, &wakes);
		cr_assert_eq(wakes, 1, "the server of each is told before the first sleep");
	}
	cr_assert_eq(which, 99);
	pthread_t thread = soon(let_one_come);
	await_ready(1);
	pthread_join(thread, NULL);
	segue_batch_release(work(lanes[1]));
	finish();
}

static int interrupts;

static int interrupt_soon(void *arg)
{
	(void)arg;
	return ++interrupts >= 2;
}

Test(any, can_be_interrupted_while_it_waits)
{
	size_t which;

	hold(3);
	options.interrupt = interrupt_soon;
	begin();
	interrupts = 0;
	assert_fails(segue_lanes_wait(lanes, 2, SEGUE_FOREVER, &which), SEGUE_EINTERRUPTED,
		"interrupted");
	interrupts = -1000000;
	hold(2);
	await_ready(0);
	finish();
}

/* ---- What the server asks ------------------------------------------------------------------- */

static void ask_one_back(void)
{
	fakeserver_ask(server, 1, SEGUE_ASKS_BACK);
}

Test(any, says_what_is_asked_when_nothing_is_ready)
{
	hold(3);
	begin();
	pthread_t thread = soon(ask_one_back);
	await_ready(2);
	pthread_join(thread, NULL);
	cr_assert_eq(segue_lane_asks(lanes[0]), 0);
	cr_assert_eq(segue_lane_asks(lanes[1]), SEGUE_LANE_ASKED_BACK);
	await_ready(2);
	fakeserver_ask(server, 1, 0);
	fakeserver_ask(server, 0, SEGUE_ASKS_MORE | SEGUE_ASKS_RENEW);
	await_ready(2);
	cr_assert_eq(segue_lane_asks(lanes[0]), SEGUE_LANE_ASKED_MORE);
	/* A batch that is there goes first: what is asked is looked at between two batches. */
	hold(1);
	fakeserver_await(server, 1, 1);
	await_ready(1);
	finish();
}

/* ---- Losses --------------------------------------------------------------------------------- */

static void lose_a_lane(void)
{
	fakeserver_usurp(server, 1);
}

Test(any, says_which_lane_was_lost)
{
	struct segue_batch *batch;

	hold(3);
	begin();
	pthread_t thread = soon(lose_a_lane);
	await_ready(1);
	pthread_join(thread, NULL);
	assert_fails(segue_lane_next(lanes[1], 0, &batch), SEGUE_EFENCED, "make a new loader");
	await_ready(1); /* and again, as long as it is asked for */
	hold(2);
	size_t which = 99;
	cr_assert_eq(segue_lanes_wait(lanes, 1, 20 * SECOND, &which), 0);
	cr_assert_eq(which, 0);
	finish();
}

static void restart(void)
{
	fakeserver_kill(server);
	hold(1);
	fakeserver_start(server);
}

Test(any, goes_on_with_another_server)
{
	begin();
	segue_batch_release(work(lanes[0]));
	hold(3);
	while (segue_lanes_wait(lanes, 2, 0, &(size_t){0}) == 0)
		for (int i = 0; i < 2; i++)
			if (segue_lanes_wait(&lanes[i], 1, 0, &(size_t){0}) == 0)
				segue_batch_release(work(lanes[i]));
	pthread_t thread = soon(restart);
	await_ready(1);
	pthread_join(thread, NULL);
	segue_batch_release(work(lanes[1]));
	cr_assert_eq(server->starts, 2);
	finish();
}

Test(any, gives_up_on_a_server_that_does_not_come_back)
{
	size_t which = 99;

	hold(3);
	begin();
	client->timeout_ns = 200 * MS;
	fakeserver_kill(server);
	assert_fails(segue_lanes_wait(lanes, 2, SEGUE_FOREVER, &which), SEGUE_EGONE,
		"did not come back");
	cr_assert_eq(which, 99);
	finish();
}

/* ---- A real server -------------------------------------------------------------------------- */

enum { RECORDS = 6, STEPS = 400 };

static void write_data(char path[SEGUE_TMPDIR_MAX])
{
	struct segue_tfbytes file = {0}, example = {0};
	float steps[STEPS] = {0};
	const struct segue_tffeature features[] = {
		{.name = "x", .kind = SEGUE_TF_FLOAT, .steps = STEPS, .each = 1, .values = steps}};

	for (int64_t record = 0; record < RECORDS; record++) {
		const struct segue_tffeature contexts[] = {{.name = "n",
			.kind = SEGUE_TF_INT64,
			.steps = 1,
			.each = 1,
			.values = &record}};
		example.size = 0;
		segue_tfwrite_example(&example, contexts, 1, features, 1);
		segue_tfwrite_record(&file, example.bytes, example.size);
	}
	segue_tmpdir_path(&dir, "a.tfrecord", path);
	segue_tfwrite_file(path, file.bytes, file.size);
	segue_tfbytes_free(&file);
	segue_tfbytes_free(&example);
}

static struct segue_lane *take_any(struct segue_stream *from)
{
	const struct segue_attach_options how = {
		.size = sizeof(how), .start = SEGUE_START_CONTINUE, .timeout_ns = 20 * SECOND};
	struct segue_lane *lane = NULL;
	int rc = segue_lane_attach(from, SEGUE_LANE_ANY, &how, &lane);

	cr_assert_eq(rc, 0, "%s: %s", segue_error_name(rc), segue_error_detail());
	return lane;
}

/* A worker that commits a batch of the lane that it is given, says which that is, and hangs. */
static pid_t hanging_worker(const char *at, int *from)
{
	int ends[2];

	cr_assert_eq(pipe(ends), 0);
	pid_t pid = fork();
	if (pid == 0) {
		struct segue_client *own;
		struct segue_stream *opened;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (segue_open(at, NULL, &own) || segue_draft_open(own, &spec, &opened))
			_exit(1);
		struct segue_lane *lane = take_any(opened);
		uint8_t index = (uint8_t)segue_lane_index(lane);
		segue_batch_release(work(lane));
		take(lane);
		_exit(write(ends[1], &index, 1) == 1 ? pause() : 1);
	}
	close(ends[1]);
	*from = ends[0];
	return pid;
}

Test(any, takes_the_lane_of_a_worker_that_was_killed)
{
	char data[SEGUE_TMPDIR_MAX], at[SEGUE_TMPDIR_MAX];
	struct segue_batch *batch;
	uint8_t theirs;
	int from;
	size_t which;

	write_data(data);
	segue_tmpdir_path(&dir, "real", at);
	paths[0] = data;
	spec.epochs = 0;
	cr_assert_eq(segue_open(at, NULL, &client), 0, "%s", segue_error_detail());
	pid_t other = hanging_worker(at, &from);
	cr_assert_eq(read(from, &theirs, 1), 1);
	cr_assert_eq(segue_draft_open(client, &spec, &stream), 0, "%s", segue_error_detail());
	lanes[0] = take_any(stream);
	cr_assert_eq(segue_lane_index(lanes[0]), 1u - theirs);
	cr_assert_eq(segue_lane_asks(lanes[0]), 0);
	kill(other, SIGKILL);
	/* Between two batches it is asked to take more. */
	while (!(segue_lane_asks(lanes[0]) & SEGUE_LANE_ASKED_MORE)) {
		int rc = segue_lanes_wait(lanes, 1, 20 * SECOND, &which);
		cr_assert_eq(rc, 0, "%s: %s", segue_error_name(rc), segue_error_detail());
		if (which == 0)
			segue_batch_release(work(lanes[0]));
	}
	lanes[1] = take_any(stream);
	cr_assert_eq(segue_lane_index(lanes[1]), theirs);
	cr_assert_eq(segue_lane_asks(lanes[0]), 0);
	struct segue_lane *turned[] = {lanes[1], lanes[0]};
	cr_assert_eq(segue_lanes_wait(turned, 2, 20 * SECOND, &which), 0);
	batch = take(lanes[1]);
	cr_assert_eq(segue_batch_step(batch), 1, "what was open when it died comes again");
	segue_batch_put_back(batch);
	segue_batch_release(batch);
	cr_assert_eq(waitpid(other, NULL, 0), other);
	close(from);
	finish();
}
