/*
 * C28: what groups open up: numbers and names that cannot be, more groups than there may be, the
 * leases and lease tokens of another group, a sleeper's bell, a ring that is held.
 */
#include "hostile.h"

#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/barrier.h"
#include "core/wait.h"

enum { LANE = 11, NAME_MAX_BYTES = 255, GROUPS_MAX = 64, TIMEOUT_MS = 300, DEPTH = 4 };

/* ---- Numbers and names ---- */

static uint64_t open_named(const struct hostile *hostile, struct raw *raw, const char *name)
{
	struct hostile_spec spec;
	uint64_t id;

	hostile_spec(hostile, name, &spec);
	id = raw_stream(raw, &spec.spec);
	EXPECT(id, "stream: %s", raw->reply.failure.detail);
	return id;
}

/* Of no group, and of one that only another stream has. */
static void ask_for_numbers(struct hostile *hostile)
{
	struct raw raw;

	raw_open(hostile->dir, &raw);
	uint64_t grouped = open_named(hostile, &raw, "grouped");
	uint64_t single = open_named(hostile, &raw, "single");
	const uint32_t numbers[] = {raw_group(&raw, grouped, "x"), raw_group(&raw, grouped, "y"),
		GROUPS_MAX + 1, UINT32_MAX, (uint32_t)hostile_random(hostile) | 1u << 20};
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		struct segue_message attach = {.type = SEGUE_MESSAGE_LANE_ATTACH,
			.lane_attach = {.stream = single,
				.group = numbers[i],
				.lane = LANE,
				.mode = SEGUE_ATTACH_FRESH}};
		struct segue_message checkpoint = {.type = SEGUE_MESSAGE_CHECKPOINT,
			.checkpoint = {
				.stream = single, .group = numbers[i], .lane = LANE, .step = 0}};
		raw_call(&raw, &attach);
		raw_expect_failure(&raw, SEGUE_ENOTFOUND, "attach to a group that is not there");
		raw_call(&raw, &checkpoint);
		raw_expect_failure(&raw, 0, "a checkpoint of a group that is not there");
	}
	raw_close(&raw);
}

/* GROUP as it would be packed, with a name of any bytes. */
static void send_name(struct raw *raw, uint64_t stream, const void *name, size_t size)
{
	uint8_t frame[512] = {1 << 3, (uint8_t)(++raw->serial & 0x7f), 2 << 3};
	size_t at = 3;

	for (; stream >= 0x80; stream >>= 7)
		frame[at++] = (uint8_t)stream | 0x80;
	frame[at++] = (uint8_t)stream;
	frame[at++] = 3 << 3 | 2;
	if (size >= 0x80)
		frame[at++] = (uint8_t)size | 0x80;
	frame[at++] = (uint8_t)(size >= 0x80 ? size >> 7 : size);
	memcpy(frame + at, name, size);
	raw_send_frame(raw, SEGUE_MESSAGE_GROUP, 0, (uint32_t)(at + size), frame, at + size);
	EXPECT(raw_receive(raw, 10000) == 1, "a name of %zu bytes is not answered", size);
}

static void ask_by_names(struct hostile *hostile)
{
	char longest[NAME_MAX_BYTES + 2];
	const struct {
		const char *name;
		size_t size;
	} bad[] = {{"", 0}, {"\0", 1}, {"\xff\xfe", 2}, {"\xc3", 1}, {"a:b", 3}, {"a\nb", 3},
		{"\xed\xa0\x80", 3}, {longest, NAME_MAX_BYTES + 1}};
	struct raw raw;

	memset(longest, 'n', sizeof(longest));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		raw_open(hostile->dir, &raw);
		send_name(&raw, open_named(hostile, &raw, "single"), bad[i].name, bad[i].size);
		EXPECT(raw.reply.type == SEGUE_MESSAGE_FAILURE,
			"name %zu, which no group can have, is taken", i);
		raw_close(&raw);
	}
	raw_open(hostile->dir, &raw);
	send_name(&raw, open_named(hostile, &raw, "grouped"), longest, NAME_MAX_BYTES);
	EXPECT(raw.reply.type == SEGUE_MESSAGE_GROUPED, "a name of 255 bytes: %s",
		raw.reply.failure.detail);
	uint64_t id = open_named(hostile, &raw, "grouped");
	send_name(&raw, id, "x\0y", 3);
	EXPECT(raw.reply.type == SEGUE_MESSAGE_GROUPED &&
			raw.reply.grouped.group == raw_group(&raw, id, "x"),
		"a name ends with its NUL");
	raw_close(&raw);
}

static void ask_for_many(const struct hostile *hostile)
{
	unsigned made = 0;
	struct raw raw;
	char name[16];

	raw_open(hostile->dir, &raw);
	uint64_t id = open_named(hostile, &raw, "grouped");
	struct segue_message request = {.type = SEGUE_MESSAGE_GROUP, .group = {id, name}};
	for (;; made++) {
		snprintf(name, sizeof(name), "g%u", made);
		if (raw_call(&raw, &request) != SEGUE_MESSAGE_GROUPED)
			break;
		EXPECT(made < GROUPS_MAX, "more than %d groups", GROUPS_MAX);
	}
	raw_expect_failure(&raw, SEGUE_ELIMIT, "one group more than there may be");
	snprintf(name, sizeof(name), "g0");
	EXPECT(raw_call(&raw, &request) == SEGUE_MESSAGE_GROUPED, "one that is there: %s",
		raw.reply.failure.detail);
	raw_close(&raw);
}

/* ---- Leases and tokens of another group ---- */

static void offer(struct raw *raw, uint64_t stream, uint32_t group, const uint8_t *token)
{
	struct segue_message request = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.lane_attach = {.stream = stream,
			.group = group,
			.lane = LANE,
			.mode = SEGUE_ATTACH_OFFER,
			.step = 0,
			.timeout_ns = 50000000}};

	memcpy(request.lane_attach.token, token, SEGUE_TOKEN_BYTES);
	raw_call(raw, &request);
	raw_expect_failure(raw, 0, "the lease token of another group");
}

/* What belongs to the lease of one, said on the connection of the other. */
static void use_its_lease(struct hostile *hostile)
{
	struct seat victim, own;

	hostile_be_of_group(NULL, 0);
	seat_take(hostile, hostile->dir, LANE, SEGUE_ATTACH_FRESH, &victim);
	hostile_be_of_group("b", 0);
	seat_take(hostile, hostile->dir, LANE, SEGUE_ATTACH_FRESH, &own);
	uint64_t lease = victim.lease;
	struct segue_message requests[] = {
		{.type = SEGUE_MESSAGE_LANE_DETACH, .lane_detach = {lease}},
		{.type = SEGUE_MESSAGE_LANE_FLUSH, .lane_flush = {lease}},
		{.type = SEGUE_MESSAGE_LANE_SIDE, .lane_side = {lease, 0}},
		{.type = SEGUE_MESSAGE_LANE_ATTACH,
			.lane_attach = {.stream = own.stream,
				.lane = LANE,
				.mode = SEGUE_ATTACH_FRESH,
				.lease = lease,
				.timeout_ns = 50000000}},
	};
	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		enum segue_message_type type = raw_call(&own.raw, &requests[i]);
		EXPECT(type == SEGUE_MESSAGE_DONE || type == SEGUE_MESSAGE_FAILURE,
			"another's lease: answered with type %d", (int)type);
	}
	EXPECT(!seat_fenced(&victim, 20), "the lease of another group was ended");
	offer(&own.raw, own.stream, own.group, victim.token);
	offer(&own.raw, own.stream, 0, own.token);
	EXPECT(!seat_fenced(&victim, 20), "the lease of another group was ended by an offer");
	EXPECT(!seat_fenced(&own, 1), "a refused offer has ended the own lease");
	seat_leave(&own);
	seat_leave(&victim);
}

/* ---- The bell ---- */

/* Moves those who sleep on the ring's bell to a word of its own: they look again by themselves. */
static void steal_sleepers(struct hostile *hostile)
{
	static _Atomic uint32_t trap;
	struct seat seat;

	seat_take(hostile, hostile->dir, LANE, SEGUE_ATTACH_FRESH, &seat);
	EXPECT(seat_await(&seat, 0), "no batch");
	int64_t until = segue_now_ns() + INT64_C(300000000);
	for (uint64_t done = 0; segue_now_ns() < until;) {
		/* Now and then it lets go of a batch, so that the other comes to sleep. */
		if (segue_load_acquire(&seat.ring->published) > done) {
			segue_store_release(&seat.carry->committed, ++done);
			segue_store_release(&seat.carry->released, done);
			segue_event_ring(seat.fds[3]);
		}
		syscall(SYS_futex, &seat.ring->bell, FUTEX_REQUEUE, 0, INT32_MAX, &trap, 0);
	}
	seat_leave(&seat);
}

static void attack_bell(struct hostile *hostile)
{
	for (int i = 0; i < 3; i++)
		steal_sleepers(hostile);
}

/* ---- A ring that is held ---- */

enum way { STOPPED, KEEPS, WAYS };

static void open_timed(
	const struct hostile *hostile, struct segue_client **client, struct segue_stream **stream)
{
	struct hostile_spec spec;

	hostile_spec(hostile, "held", &spec);
	spec.spec.lease_timeout_ms = TIMEOUT_MS;
	spec.spec.depth = DEPTH;
	EXPECT(segue_open(hostile->dir, NULL, client) == 0, "open: %s", segue_error_detail());
	EXPECT(segue_draft_open(*client, &spec.spec, stream) == 0, "stream: %s",
		segue_error_detail());
}

/* Group "b": stops with its first batch in hand, or commits all it gets, and lets go of none. */
static _Noreturn void holder(const struct hostile *hostile, enum way way, const int pipes[2])
{
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_batch *batch;
	char byte = 0;

	open_timed(hostile, &client, &stream);
	hostile_be_of_group("b", 0);
	struct segue_lane *lane = hostile_take(stream, 0, SEGUE_START_FRESH);
	batch = hostile_next(lane);
	EXPECT(write(pipes[1], &byte, 1) == 1 && read(pipes[0], &byte, 1) == 1, "pipe");
	if (way == STOPPED) {
		raise(SIGSTOP);
		segue_batch_release(batch);
		/* Nobody has taken its lane since: it has it back, and begins where it was. */
		hostile_check(batch = hostile_next(lane));
		EXPECT(segue_batch_step(batch) == 0, "batch %llu after a stop in batch 0",
			(unsigned long long)segue_batch_step(batch));
		_exit(0);
	}
	int rc = 0;
	for (; rc == 0; rc = segue_lane_next(lane, INT64_C(1000000000), &batch)) {
		hostile_save(batch);
		EXPECT(segue_batch_commit(batch) == 0, "commit: %s", segue_error_detail());
	}
	EXPECT(rc == SEGUE_EHELD, "next of one that keeps all: %s", segue_error_name(rc));
	for (;;)
		hostile_sleep_ms(1000);
}

/* The ring is held for as many batches as it has places; the lease of who holds it ends in time. */
static int64_t be_held_up(const struct hostile *hostile, enum way way)
{
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_batch *batch;
	int to[2], from[2], status, count = 0;
	char byte = 0;

	EXPECT(pipe(to) == 0 && pipe(from) == 0, "pipe");
	/* The holder's time runs from its first batch on, so at the earliest from now. */
	int64_t begun = segue_now_ns();
	pid_t pid = hostile_fork();
	if (pid == 0)
		holder(hostile, way, (const int[2]){to[0], from[1]});
	EXPECT(read(from[0], &byte, 1) == 1, "the holder has no batch");
	hostile_be_of_group(NULL, 0);
	open_timed(hostile, &client, &stream);
	struct segue_lane *lane = hostile_take(stream, 0, SEGUE_START_FRESH);
	int64_t before = segue_now_ns();
	EXPECT(write(to[1], &byte, 1) == 1, "pipe");
	while (segue_lane_next(lane, TIMEOUT_MS / 3 * INT64_C(1000000), &batch) == 0) {
		hostile_check(batch);
		hostile_commit(batch);
		EXPECT(++count <= DEPTH || segue_now_ns() - begun > TIMEOUT_MS * INT64_C(900000),
			"%d batches of a ring of %d that another group holds", count, DEPTH);
		if (count > DEPTH)
			break;
	}
	for (int i = 0; i < 3 * DEPTH; i++) {
		hostile_check(batch = hostile_next(lane));
		hostile_commit(batch);
	}
	int64_t took = (segue_now_ns() - before) / 1000000;
	kill(pid, way == STOPPED ? SIGCONT : SIGKILL);
	EXPECT(waitpid(pid, &status, 0) == pid && (way == KEEPS || status == 0),
		"the holder ends with status 0x%x", (unsigned)status);
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
	for (int i = 0; i < 2; i++)
		close(to[i]), close(from[i]);
	return took;
}

void attack_groups(struct hostile *hostile)
{
	unsigned rounds = 0;
	int64_t most = 0;

	for (; rounds < 1 || hostile_time_left(hostile); rounds++) {
		ask_for_numbers(hostile);
		ask_by_names(hostile);
		ask_for_many(hostile);
		use_its_lease(hostile);
		for (enum way way = STOPPED; way < WAYS; way++) {
			int64_t took = be_held_up(hostile, way);
			most = took > most ? took : most;
		}
	}
	printf("%u rounds; a ring that another group held went on after %lld ms at most "
	       "(lease_timeout %d)\n",
		rounds, (long long)most, TIMEOUT_MS);
	hostile_beside(hostile, LANE, attack_bell);
}
