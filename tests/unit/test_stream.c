/* Streams: opened by many, closed, failed, swept. */
#include <criterion/criterion.h>
#include <string.h>

#include "core/error.h"
#include "core/wait.h"
#include "engine/committer.h"
#include "session/request.h"
#include "stream/opening.h"
#include "stream/streams.h"
#include "testserver.h"

static struct segue_testserver test;
static struct segue_testpeer one, two;

static void start(void)
{
	segue_testserver_init(&test, "stream");
	segue_testserver_start(&test);
	segue_testpeer_greet(&one, &test);
	segue_testpeer_greet(&two, &test);
}

static void stop(void)
{
	segue_testpeer_close(&one);
	segue_testpeer_close(&two);
	segue_testserver_stop(&test);
	segue_testserver_finish(&test);
}

TestSuite(stream, .init = start, .fini = stop, .timeout = 60);

static size_t count_streams(void)
{
	const struct segue_stream *stream;
	size_t count = 0;

	LIST_FOREACH(stream, &test.streams.all, link)
		count++;
	return count;
}

static bool none_is_left(void *arg)
{
	(void)arg;
	return LIST_EMPTY(&test.streams.all);
}

static struct segue_message closing(uint64_t stream)
{
	return (struct segue_message){.type = SEGUE_MESSAGE_STREAM_CLOSE,
		.serial = 5,
		.stream_close = {.stream = stream}};
}

Test(stream, two_sessions_share_one)
{
	uint64_t first = segue_testpeer_open(&one), second = segue_testpeer_open(&two);

	cr_assert_neq(first, second, "each has an opening of its own");
	cr_assert_eq(count_streams(), 1);
	cr_assert_eq(one.reply.opened.records, 8);
	struct segue_opening *opening;
	cr_assert_eq(segue_opening_find(one.session, first, &opening), 0);
	cr_assert_eq(opening->stream, LIST_FIRST(&test.streams.all));
	cr_assert_eq(segue_opening_find(one.session, second, &opening), SEGUE_EPROTOCOL,
		"the other's is not its");
}

Test(stream, it_is_there_as_long_as_somebody_has_it)
{
	struct segue_message first = closing(segue_testpeer_open(&one));
	struct segue_message second = closing(segue_testpeer_open(&two));

	cr_assert_neq(segue_testserver_taken(&test, SEGUE_LIMIT_THREADS), 0);
	cr_assert_eq(segue_testpeer_ask(&one, &first), SEGUE_MESSAGE_DONE);
	cr_assert_eq(count_streams(), 1);
	cr_assert_eq(segue_testpeer_ask(&two, &second), SEGUE_MESSAGE_DONE);
	cr_assert_eq(count_streams(), 0);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_THREADS), 0);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_MEMORY), 0);
	cr_assert_eq(segue_testpeer_ask(&two, &second), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&two, SEGUE_EPROTOCOL), "is not open"));
}

Test(stream, it_goes_with_its_last_session)
{
	segue_testpeer_open(&one);
	segue_session_close(one.session);
	cr_assert_eq(count_streams(), 0);
}

Test(stream, it_stays_for_a_lease_that_ends)
{
	segue_testpeer_take(&one, segue_testpeer_open(&one), 0);
	segue_testpeer_commit(&one, 1);
	segue_session_close(one.session);
	cr_assert_eq(count_streams(), 1, "its last commit is being written");
	cr_assert(segue_testserver_run(&test, none_is_left, NULL));
	cr_assert_eq(segue_loop_awaited(test.server.loop), 0);
}

static void over_other_files(struct segue_draft *spec)
{
	static char path[SEGUE_TMPDIR_MAX];
	static const char *paths[] = {path};

	segue_tmpdir_path(&test.dir, "other", path);
	spec->source.tfrecord.paths = paths;
}

Test(stream, all_who_have_it_open_give_the_same_paths)
{
	uint64_t stream = segue_testpeer_open(&one);

	cr_assert_eq(segue_testpeer_open_as(&two, over_other_files), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&two, SEGUE_ESPEC), "source.paths[0]"));
	cr_assert(LIST_EMPTY(&two.session->openings));
	/* Closed and opened anew in one breath: nobody has it open any more. */
	struct segue_message close = closing(stream);
	segue_testpeer_send(&one, &close);
	cr_assert_eq(segue_testpeer_open_as(&one, over_other_files), SEGUE_MESSAGE_DONE);
	cr_assert_eq(segue_testpeer_receive(&one), SEGUE_MESSAGE_FAILURE);
	cr_assert_neq(*segue_testpeer_failure(&one, SEGUE_ESOURCE), '\0', "looked for: %s",
		one.reply.failure.detail);
}

static void of_other_depth(struct segue_draft *spec)
{
	spec->depth = 8;
}

static void of_other_seed(struct segue_draft *spec)
{
	spec->seed = 8;
}

static int find(struct segue_testpeer *peer)
{
	const struct segue_message find = {
		.type = SEGUE_MESSAGE_STREAM_FIND, .serial = 9, .stream_find = {.stream = "s"}};

	return segue_testpeer_ask(peer, &find);
}

static void open_stored(struct segue_testpeer *peer, struct segue_spec *spec)
{
	const struct segue_message open = {.type = SEGUE_MESSAGE_STREAM_OPEN,
		.serial = 10,
		.stream_open = {.spec = spec, .stored = true}};

	segue_testpeer_ask(peer, &open);
}

Test(stream, it_is_opened_by_its_name_while_it_is_open_or_stored)
{
	cr_assert_eq(find(&two), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&two, SEGUE_ENOTFOUND), "Give its source"));
	struct segue_message close = closing(segue_testpeer_open(&one));

	cr_assert_eq(find(&two), SEGUE_MESSAGE_FOUND);
	struct segue_spec *spec = two.reply.found.spec;
	cr_assert_eq(spec->source.kind, SEGUE_SOURCE_STORED, "nobody is told where data lie");
	open_stored(&two, spec);
	cr_assert_eq(two.reply.type, SEGUE_MESSAGE_OPENED);
	cr_assert_eq(two.reply.opened.records, 8);
	cr_assert_eq(count_streams(), 1, "it is the same");
	const struct segue_opening *opening = LIST_FIRST(&two.session->openings);
	cr_assert_eq(opening->spec->source.kind, SEGUE_SOURCE_TFRECORD);

	struct segue_message second = closing(two.reply.opened.stream);
	segue_testpeer_ask(&one, &close);
	segue_testpeer_ask(&two, &second);
	cr_assert_eq(count_streams(), 0);
	open_stored(&two, spec);
	cr_assert_eq(two.reply.type, SEGUE_MESSAGE_OPENED, "from the store");
	spec->seed = 8;
	open_stored(&one, spec);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_ESPEC), "seed: 0 in the store"));
	free(spec->name);
	spec->name = strdup("t");
	open_stored(&one, spec);
	cr_assert_neq(*segue_testpeer_failure(&one, SEGUE_ENOTFOUND), '\0');
	segue_spec_destroy(spec);
}

Test(stream, runtime_options_are_each_session_s_own)
{
	segue_testpeer_open(&one);
	uint64_t hash = one.reply.opened.layout_hash;
	cr_assert_eq(segue_testpeer_open_as(&two, of_other_depth), SEGUE_MESSAGE_OPENED);
	cr_assert_neq(two.reply.opened.layout_hash, hash);
	cr_assert_eq(segue_testpeer_open_as(&two, of_other_seed), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&two, SEGUE_ESPEC), "seed"));
}

Test(stream, one_that_cannot_be_opened_is_told_to_all_and_gone)
{
	cr_assert_eq(segue_testpeer_open_as(&one, over_other_files), SEGUE_MESSAGE_FAILURE);
	cr_assert_neq(*segue_testpeer_failure(&one, SEGUE_ESOURCE), '\0');
	segue_testserver_settle(&test);
	cr_assert_eq(count_streams(), 0);
	cr_assert_eq(segue_testserver_taken(&test, SEGUE_LIMIT_THREADS), 0);
	segue_testpeer_open(&one);
}

Test(stream, the_next_opening_of_its_name_is_another_id)
{
	segue_testpeer_open(&one);
	uint32_t id = LIST_FIRST(&test.streams.all)->id;
	cr_assert_eq(test.streams.next_id, id + 1);
	segue_session_close(one.session);
	segue_testpeer_open(&two);
	cr_assert_eq(LIST_FIRST(&test.streams.all)->id, id, "its record has it");
}

Test(stream, limits)
{
	uint64_t *limit = test.rules.limits.value;

	limit[SEGUE_LIMIT_THREADS] = 0;
	cr_assert_eq(segue_testpeer_open_as(&one, of_other_depth), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_ELIMIT), "--max-threads"));
	cr_assert_eq(count_streams(), 0);
	limit[SEGUE_LIMIT_THREADS] = 1;
	limit[SEGUE_LIMIT_STREAMS] = 1;
	segue_testpeer_open(&one);
	cr_assert_eq(segue_testpeer_open_as(&one, of_other_depth), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&one, SEGUE_ELIMIT), "--max-streams"));
}

Test(stream, a_server_that_stops_opens_none)
{
	test.server.stopping = true;
	cr_assert_eq(segue_testpeer_open_as(&one, of_other_depth), SEGUE_MESSAGE_FAILURE);
	cr_assert_neq(*segue_testpeer_failure(&one, SEGUE_EGONE), '\0');
	cr_assert(segue_streams_stop(&test.server));
}

Test(stream, a_stop_waits_for_leases)
{
	segue_testpeer_take(&one, segue_testpeer_open(&one), 0);
	test.server.stopping = true;
	cr_assert_not(segue_streams_stop(&test.server));
	segue_testserver_settle(&test);
	cr_assert(segue_streams_stop(&test.server));
}

/* ---- Stop ---- */

static uint64_t seed;

static uint64_t any(uint64_t below)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (seed >> 33) % below;
}

/* Asks for something, and does not wait for it. */
static void ask_for_anything(struct segue_testpeer *peer, uint64_t stream)
{
	struct segue_message message = {.serial = 9};

	switch (any(6)) {
	case 0:
		segue_testpeer_want(
			peer, stream, (uint32_t)any(4), SEGUE_ATTACH_CONTINUE, INT64_MAX);
		return;
	case 1:
		message.type = SEGUE_MESSAGE_UPLOAD;
		message.upload.size = 1 + any(4 << 20);
		break;
	case 2:
		message.type = SEGUE_MESSAGE_CHECKPOINT;
		message.checkpoint.stream = stream;
		message.checkpoint.lane = (uint32_t)any(4);
		message.checkpoint.step = any(3);
		break;
	case 3:
		message = closing(stream);
		break;
	case 4:
		message.type = SEGUE_MESSAGE_STREAM_DROP;
		message.stream_drop.stream = "s";
		message.stream_drop.group = any(2) ? "b" : "";
		break;
	default:
		message.type = SEGUE_MESSAGE_STORED;
		message.stored.stream = "s";
		message.stored.group = "";
		message.stored.remove = any(2);
	}
	segue_testpeer_send(peer, &message);
}

static bool some_rounds(void *arg)
{
	return --*(int *)arg <= 0;
}

static bool has_stopped(void *arg)
{
	(void)arg;
	return segue_streams_stop(&test.server);
}

Test(stream, a_stop_with_everything_in_flight)
{
	for (uint64_t round = 0; round < 60; round++) {
		seed = round;
		uint64_t of_one = segue_testpeer_open(&one), of_two = segue_testpeer_open(&two);
		for (uint64_t i = any(8); i > 0; i--) {
			ask_for_anything(&one, of_one);
			ask_for_anything(&two, of_two);
		}
		int rounds = (int)any(4);
		segue_testserver_run(&test, some_rounds, &rounds);
		if (any(2))
			segue_session_close(one.session);
		test.server.stopping = true;
		segue_guard_close(test.server.guard);
		segue_requests_give_up(&test.server);
		segue_committer_try_once(test.server.committer);
		cr_assert(segue_testserver_run(&test, has_stopped, NULL), "round %d", (int)round);
		cr_assert(LIST_EMPTY(&test.streams.checkpoints));
		segue_testpeer_close(&one);
		segue_testpeer_close(&two);
		segue_testserver_stop(&test);
		segue_testserver_start(&test);
		segue_testpeer_greet(&one, &test);
		segue_testpeer_greet(&two, &test);
	}
}
