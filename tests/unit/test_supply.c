/* What sessions insert: messages and rings of clients that are right, wrong, and hostile. */
#include "stream/supply.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/insert.h"
#include "core/shm.h"
#include "engine/live.h"
#include "stream/streams.h"
#include "testserver.h"

enum { RING = 1 << 16, STEPS = 6 };

static struct segue_testserver test;
static struct segue_testpeer peer, other;
static uint64_t stream;
static struct segue_shm ring; /* of the producer that was opened last */
static uint64_t seed;

static const struct segue_feature ragged[] = {{.name = "x", .dtype = SEGUE_INT64},
	{.name = "w", .dtype = SEGUE_INT32, .form = SEGUE_FORM_RAGGED},
	{.name = "b", .dtype = SEGUE_BOOL}};

static void push(struct segue_draft *spec)
{
	spec->name = "live";
	spec->source = (struct segue_draft_source){.kind = SEGUE_SOURCE_LOG};
}

static void push_ragged(struct segue_draft *spec)
{
	push(spec);
	spec->name = "ragged";
	spec->sequences = ragged;
	spec->sequence_count = 3;
}

static uint64_t open_as(struct segue_testpeer *who, void (*change)(struct segue_draft *spec))
{
	cr_assert_eq(segue_testpeer_open_as(who, change), SEGUE_MESSAGE_OPENED, "%s",
		who->reply.failure.detail);
	return who->reply.opened.stream;
}

static void start(void)
{
	segue_testserver_init(&test, "supply");
	segue_testserver_start(&test);
	segue_testpeer_greet(&peer, &test);
	segue_testpeer_greet(&other, &test);
	stream = open_as(&peer, push);
	ring = SEGUE_SHM_NONE;
}

static void stop(void)
{
	segue_shm_destroy(&ring);
	segue_testpeer_close(&peer);
	segue_testpeer_close(&other);
	segue_testserver_stop(&test);
	segue_testserver_finish(&test);
}

TestSuite(supply, .init = start, .fini = stop, .timeout = 60);

static uint64_t upload(struct segue_testpeer *who, uint64_t size, struct segue_shm *out)
{
	const struct segue_message ask = {
		.type = SEGUE_MESSAGE_UPLOAD, .serial = 20, .upload = {.size = size}};

	cr_assert_eq(
		segue_testpeer_ask(who, &ask), SEGUE_MESSAGE_BULK, "%s", who->reply.failure.detail);
	int fd = dup(who->fds[0]);
	cr_assert_eq(segue_shm_map(fd, size, SEGUE_SHM_WRITE, out), 0);
	return who->reply.bulk.id;
}

static int ask_open(struct segue_testpeer *who, uint64_t of, const char *name, bool takeover)
{
	segue_shm_destroy(&ring);
	struct segue_message open = {.type = SEGUE_MESSAGE_PRODUCER_OPEN,
		.serial = 21,
		.producer_open = {.stream = of, .producer = name, .takeover = takeover}};

	open.producer_open.ring = upload(who, RING, &ring);
	memset(open.producer_open.token, who == &peer ? 1 : 2, SEGUE_TOKEN_BYTES);
	return segue_testpeer_ask(who, &open);
}

static uint64_t open_producer(struct segue_testpeer *who, uint64_t of, const char *name)
{
	cr_assert_eq(ask_open(who, of, name, false), SEGUE_MESSAGE_PRODUCER_OPENED, "%s",
		who->reply.failure.detail);
	return who->reply.producer_opened.producer;
}

/* An entry of the plain stream in the ring at `offset`: a key of 5 bytes, then its column. */
static struct segue_message entry_at(uint64_t producer, uint64_t entry, uint64_t offset)
{
	uint8_t *at = (uint8_t *)ring.map + offset;
	int64_t values[STEPS];

	for (int i = 0; i < STEPS; i++)
		values[i] = (int64_t)(1000 * entry) + i;
	memcpy(at, "key-1", 5);
	memcpy(at + 8, values, sizeof(values));
	return (struct segue_message){.type = SEGUE_MESSAGE_INSERT,
		.serial = 22,
		.insert = {.producer = producer,
			.entry = entry,
			.offset = offset,
			.bytes = 8 + sizeof(values),
			.steps = STEPS,
			.total_length = UINT64_MAX,
			.key_size = 5}};
}

static int wait_for(struct segue_testpeer *who, uint64_t producer, uint64_t entry)
{
	const struct segue_message ask = {.type = SEGUE_MESSAGE_PRODUCER_WAIT,
		.serial = 23,
		.producer_wait = {.producer = producer, .entry = entry}};

	return segue_testpeer_ask(who, &ask);
}

static uint64_t in_log(void)
{
	struct segue_log_stand stand;

	segue_log_look(segue_live_log(LIST_FIRST(&test.streams.all)->live), &stand);
	return stand.written.number;
}

Test(supply, entries_are_accepted_in_their_order)
{
	uint64_t producer = open_producer(&peer, stream, "a");

	cr_assert_eq(peer.reply.producer_opened.entry, 0);
	for (uint64_t i = 0; i < 8; i++) {
		const struct segue_message insert = entry_at(producer, i + 1, 1024 * i);
		segue_testpeer_send(&peer, &insert);
	}
	cr_assert_eq(wait_for(&peer, producer, 8), SEGUE_MESSAGE_ACKNOWLEDGED);
	cr_assert_eq(peer.reply.acknowledged.entry, 8);
	cr_assert_eq(in_log(), 8);
	/* Who opens the name goes on behind them; meanwhile nobody else does. */
	uint64_t theirs = open_as(&other, push);
	cr_assert_eq(ask_open(&other, theirs, "a", false), SEGUE_MESSAGE_FAILURE);
	cr_assert(*segue_testpeer_failure(&other, SEGUE_EBUSY));
	cr_assert_eq(ask_open(&other, theirs, "a", true), SEGUE_MESSAGE_PRODUCER_OPENED);
	cr_assert_eq(other.reply.producer_opened.entry, 8);
	const struct segue_message insert = entry_at(producer, 9, 0);
	segue_testpeer_send(&peer, &insert);
	cr_assert_eq(wait_for(&peer, producer, 9), SEGUE_MESSAGE_FAILURE);
	cr_assert(*segue_testpeer_failure(&peer, SEGUE_EFENCED), "%s", peer.reply.failure.detail);
	cr_assert_eq(in_log(), 8);
}

static int look_at(struct segue_testpeer *who, uint64_t producer, uint64_t entry)
{
	const struct segue_message ask = {.type = SEGUE_MESSAGE_PRODUCER_WAIT,
		.serial = 23,
		.producer_wait = {.producer = producer, .entry = entry, .look = true}};

	return segue_testpeer_ask(who, &ask);
}

Test(supply, who_looks_is_told_what_is_waited_for)
{
	uint64_t producer = open_producer(&peer, stream, "a"), last = 0;
	const char *says = "";

	while (!strstr(says, "every lane has")) {
		if (!*says) {
			const struct segue_message insert =
				entry_at(producer, last + 1, 1024 * (last % 32));
			segue_testpeer_send(&peer, &insert);
			cr_assert(++last < 10000);
		}
		says = look_at(&peer, producer, last) == SEGUE_MESSAGE_ACKNOWLEDGED
			       ? ""
			       : segue_testpeer_failure(&peer, SEGUE_ETIMEOUT);
	}
	cr_assert(strstr(says, "nobody holds it"), "%s", says);
	cr_assert_eq(in_log(), last - 1);
	cr_assert_eq(look_at(&peer, producer, last - 1), SEGUE_MESSAGE_ACKNOWLEDGED);
	cr_assert_eq(peer.reply.acknowledged.entry, last - 1);
	/* What is wrong comes before what is waited for. */
	const struct segue_message end = {
		.type = SEGUE_MESSAGE_STREAM_END, .serial = 24, .stream_end = {.stream = stream}};
	cr_assert_eq(segue_testpeer_ask(&peer, &end), SEGUE_MESSAGE_DONE);
	int type;
	do
		type = look_at(&peer, producer, last);
	while (type == SEGUE_MESSAGE_FAILURE && peer.reply.failure.code == SEGUE_ETIMEOUT);
	cr_assert_eq(type, SEGUE_MESSAGE_FAILURE);
	cr_assert(*segue_testpeer_failure(&peer, SEGUE_EEND));
}

static int fail_input(uint64_t of, const char *reason)
{
	const struct segue_message failed = {.type = SEGUE_MESSAGE_INPUT_FAILED,
		.serial = 25,
		.input_failed = {.stream = of, .reason = reason}};

	return segue_testpeer_ask(&peer, &failed);
}

Test(supply, word_is_left_of_input_that_there_is)
{
	const struct segue_stream *live = LIST_FIRST(&test.streams.all);

	cr_assert_eq(fail_input(stream, "item 7"), SEGUE_MESSAGE_DONE);
	cr_assert_str_eq(live->input_failure, "item 7");
	open_producer(&peer, stream, "a");
	cr_assert_null(live->input_failure);
	cr_assert_eq(fail_input(stream + 1000, "item 7"), SEGUE_MESSAGE_FAILURE);
	cr_assert(*segue_testpeer_failure(&peer, SEGUE_EPROTOCOL));
	cr_assert_eq(fail_input(segue_testpeer_open(&peer), "item 7"), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&peer, SEGUE_EINVAL), "reads what is there"));
}

Test(supply, a_name_is_free_when_its_session_is_gone)
{
	uint64_t producer = open_producer(&peer, stream, "a");
	const struct segue_message insert = entry_at(producer, 1, 0);

	segue_testpeer_send(&peer, &insert);
	cr_assert_eq(wait_for(&peer, producer, 1), SEGUE_MESSAGE_ACKNOWLEDGED);
	uint64_t theirs = open_as(&other, push);
	segue_testpeer_close(&peer);
	segue_testserver_settle(&test);
	open_producer(&other, theirs, "a");
	cr_assert_eq(other.reply.producer_opened.entry, 1);
	segue_testpeer_greet(&peer, &test);
}

Test(supply, an_end_is_stored_and_ends_what_comes)
{
	uint64_t producer = open_producer(&peer, stream, "a");
	const struct segue_message end = {
		.type = SEGUE_MESSAGE_STREAM_END, .serial = 24, .stream_end = {.stream = stream}};
	struct segue_message insert = entry_at(producer, 1, 0);

	segue_testpeer_send(&peer, &insert);
	cr_assert_eq(wait_for(&peer, producer, 1), SEGUE_MESSAGE_ACKNOWLEDGED);
	cr_assert_eq(segue_testpeer_ask(&peer, &end), SEGUE_MESSAGE_DONE);
	insert = entry_at(producer, 2, 0);
	segue_testpeer_send(&peer, &insert);
	cr_assert_eq(wait_for(&peer, producer, 2), SEGUE_MESSAGE_FAILURE);
	cr_assert(*segue_testpeer_failure(&peer, SEGUE_EEND), "%s", peer.reply.failure.detail);
	cr_assert_eq(in_log(), 1);
	cr_assert_eq(segue_testpeer_ask(&peer, &end), SEGUE_MESSAGE_DONE, "again");
	/* Those who have inserted learn what became of it; others have nothing to do here. */
	open_producer(&peer, stream, "a");
	cr_assert_eq(ask_open(&peer, stream, "b", false), SEGUE_MESSAGE_FAILURE);
	cr_assert(*segue_testpeer_failure(&peer, SEGUE_EEND));
}

Test(supply, only_streams_of_logs_have_producers)
{
	uint64_t files = segue_testpeer_open(&other);

	cr_assert_eq(ask_open(&other, files, "a", false), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&other, SEGUE_EINVAL), "reads what is there"));
	const struct segue_message end = {
		.type = SEGUE_MESSAGE_STREAM_END, .serial = 24, .stream_end = {.stream = files}};
	cr_assert_eq(segue_testpeer_ask(&other, &end), SEGUE_MESSAGE_FAILURE);
}

/* ---- Wrong, and hostile --------------------------------------------------------------------- */

/* The connection of who breaks the protocol ends; the server serves the others. */
static void expect_hung_up(const struct segue_message *insert, const char *says)
{
	segue_testpeer_send(&peer, insert);
	cr_assert_eq(segue_testpeer_receive(&peer), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&peer, SEGUE_EPROTOCOL), says) ||
			  strstr(segue_testpeer_failure(&peer, SEGUE_EGONE), says),
		"%s: %s", says, peer.reply.failure.detail);
	cr_assert_eq(segue_testpeer_receive(&peer), 0);
	segue_testpeer_close(&peer);
	segue_testpeer_greet(&peer, &test);
	stream = open_as(&peer, push);
}

Test(supply, places_beyond_the_ring_end_the_connection)
{
	static const struct {
		uint64_t offset, bytes, entry;
		const char *says;
	} wrong[] = {
		{RING, 56, 1, "of an upload of"},
		{RING - 48, 56, 1, "of an upload of"},
		{UINT64_MAX - 55, 56, 1, "of an upload of"},
		{0, UINT64_MAX, 1, "of an upload of"},
		{4, 56, 1, "of an upload of"},
		{0, 56, 2, "comes behind"},
		{0, 56, 0, "comes behind"},
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		uint64_t producer = open_producer(&peer, stream, "a");
		struct segue_message insert = entry_at(producer, wrong[i].entry, 0);

		insert.insert.offset = wrong[i].offset;
		insert.insert.bytes = wrong[i].bytes;
		expect_hung_up(&insert, wrong[i].says);
	}
	uint64_t producer = open_producer(&peer, stream, "a");
	struct segue_message insert = entry_at(producer + 1, 1, 0);
	expect_hung_up(&insert, "is not open in this connection");
	cr_assert_eq(in_log(), 0);
}

Test(supply, more_than_the_ring_holds_ends_the_connection)
{
	uint64_t producer = open_producer(&peer, stream, "a");
	struct segue_message insert;

	/* Lanes have enough after 4 * (4 + 2) * 2: what comes then waits, and is held. */
	for (uint64_t i = 1; i <= 48; i++) {
		insert = entry_at(producer, i, 1024 * (i % 48));
		segue_testpeer_send(&peer, &insert);
	}
	cr_assert_eq(wait_for(&peer, producer, 48), SEGUE_MESSAGE_ACKNOWLEDGED);
	for (uint64_t i = 49; i <= 48 + RING / 1024; i++) {
		insert = entry_at(producer, i, 0);
		segue_testpeer_send(&peer, &insert);
	}
	insert = entry_at(producer, 49 + RING / 1024, 0);
	expect_hung_up(&insert, "more under way than the ring holds");
	segue_testserver_settle(&test);
	cr_assert_eq(in_log(), 48);
}

Test(supply, what_is_no_sequence_of_the_spec_fails_its_producer_alone)
{
	uint64_t producer = open_producer(&peer, stream, "a");
	struct segue_message insert = entry_at(producer, 1, 0);

	insert.insert.steps = STEPS + 1;
	segue_testpeer_send(&peer, &insert);
	insert = entry_at(producer, 2, 1024);
	segue_testpeer_send(&peer, &insert); /* on its way: passed over */
	cr_assert_eq(wait_for(&peer, producer, 2), SEGUE_MESSAGE_FAILURE);
	cr_assert(strstr(segue_testpeer_failure(&peer, SEGUE_EPROTOCOL), "by its steps has"), "%s",
		peer.reply.failure.detail);
	cr_assert_eq(in_log(), 0);
	producer = open_producer(&peer, stream, "b");
	insert = entry_at(producer, 1, 0);
	segue_testpeer_send(&peer, &insert);
	cr_assert_eq(wait_for(&peer, producer, 1), SEGUE_MESSAGE_ACKNOWLEDGED);
}

/* Any bytes in the ring, any sizes: an entry is accepted or not, and the server lives. */
Test(supply, any_bytes)
{
	const char *text = getenv("SEGUE_TEST_SEED");
	unsigned accepted = 0, refused = 0;

	seed = (uint64_t)getpid();
	if (text)
		seed = strtoull(text, NULL, 10);
	fprintf(stderr, "any_bytes: SEGUE_TEST_SEED=%llu\n", (unsigned long long)seed);
	stream = open_as(&peer, push_ragged);
	for (int turn = 0; turn < 150; turn++) {
		char name[32];
		snprintf(name, sizeof(name), "p%d", turn);
		uint64_t producer = open_producer(&peer, stream, name);
		uint8_t *at = ring.map;

		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
		uint64_t draw = seed >> 33, steps = 1 + draw % 5, values = draw >> 8 & 7;
		uint64_t claimed = draw % 3 == 0 ? seed * draw : values;
		/* counts, key; x, w: offsets and values, b */
		uint64_t x = 8 + 8, w = x + 8 * steps,
			 b = w + 8 * (steps + 1) + (4 * values + 7) / 8 * 8;
		uint64_t bytes = b + (steps + 7) / 8 * 8;

		memcpy(at, &claimed, 8);
		memcpy(at + 8, "k", 1);
		for (uint64_t i = 0; i <= steps; i++) {
			uint64_t offset = i == steps ? values : values * i / steps;
			if (draw % 5 == 1 && i == 1)
				offset = seed;
			memcpy(at + w + 8 * i, &offset, 8);
		}
		memset(at + b, draw % 7 == 2 ? 2 : 1, steps);
		struct segue_message insert = {.type = SEGUE_MESSAGE_INSERT,
			.serial = 22,
			.insert = {.producer = producer,
				.entry = 1,
				.bytes = draw % 11 == 3 ? bytes + 8 : bytes,
				.steps = draw % 13 == 4 ? UINT32_MAX : steps,
				.total_length = draw % 17 == 5 ? seed : UINT64_MAX,
				.key_size = 1}};
		segue_testpeer_send(&peer, &insert);
		bool sound = claimed == values && !(draw % 5 == 1 && steps > 0) && draw % 7 != 2 &&
			     draw % 11 != 3 && draw % 13 != 4 && draw % 17 != 5;
		int type = wait_for(&peer, producer, 1);
		cr_assert_eq(type, sound ? SEGUE_MESSAGE_ACKNOWLEDGED : SEGUE_MESSAGE_FAILURE,
			"turn %d: %d: %s", turn, type,
			type == SEGUE_MESSAGE_FAILURE ? peer.reply.failure.detail : "");
		accepted += sound;
		refused += !sound;
		if (accepted == 40) /* lanes have enough then */
			break;
	}
	cr_assert(accepted > 0 && refused > 0);
}
