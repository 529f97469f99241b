/* C15: offers with another's token, a guessed one, one of an earlier lease, and to steps that cannot be. */
#include "hostile.h"

#include <signal.h>
#include <stdio.h>

#include "core/barrier.h"
#include "core/wait.h"

enum { LANE = 1, OTHER = 2, FREE = 3, STEP = 3 };

/* Commits up to STEP, and waits until that is on disk. */
static void be_honest(struct seat *seat)
{
	for (; seat->step < STEP; seat->step++) {
		EXPECT(seat_await(seat, seat->step), "no batch");
		segue_store_release(&seat->carry->committed, seat->step + 1);
		segue_store_release(&seat->carry->released, seat->step + 1);
		segue_event_ring(seat->fds[3]);
	}
	for (int i = 0; i < 10000 && segue_load_acquire(&seat->page->durable) < STEP; i++)
		hostile_sleep_ms(1);
	EXPECT(segue_load_acquire(&seat->page->durable) == STEP, "not on disk");
}

/* Offers LANE; the type of the answer. */
static enum segue_message_type offer(
	struct raw *raw, uint64_t stream, const uint8_t *token, uint64_t step)
{
	struct segue_message request = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.lane_attach = {.stream = stream,
			.lane = LANE,
			.mode = SEGUE_ATTACH_OFFER,
			.step = step,
			.timeout_ns = 200000000}};

	memcpy(request.lane_attach.token, token, SEGUE_TOKEN_BYTES);
	enum segue_message_type type = raw_call(raw, &request);
	for (unsigned i = 0; i < raw->fd_count; i++)
		close(raw->fds[i]);
	return type;
}

static void refuse(struct raw *raw, uint64_t stream, const uint8_t *token, uint64_t step, int code,
	const char *what)
{
	offer(raw, stream, token, step);
	raw_expect_failure(raw, code, what);
}

static void offer_guesses(
	struct hostile *hostile, struct raw *raw, uint64_t stream, const uint8_t *right)
{
	uint8_t token[SEGUE_TOKEN_BYTES];

	for (int i = 0; i < 100; i++) {
		memcpy(token, right, sizeof(token));
		/* From all bytes at random to one bit that is wrong. */
		for (size_t at = 0; i < 50 && at < sizeof(token); at++)
			token[at] = (uint8_t)hostile_random(hostile);
		token[i % SEGUE_TOKEN_BYTES] ^=
			(uint8_t)(right[i % SEGUE_TOKEN_BYTES] == token[i % SEGUE_TOKEN_BYTES]);
		refuse(raw, stream, token, STEP, SEGUE_EFENCED, "a guessed token");
	}
}

/* The right token with a step at the end of time: who offers may wait, the other lanes are served. */
static void offer_for_ever(const struct hostile *hostile, const char *dir,
	struct segue_stream *stream, const uint8_t *token)
{
	struct segue_lane *lane = hostile_take(stream, FREE, SEGUE_START_FRESH);
	struct hostile_spec spec;
	struct raw raw;
	pid_t pid = hostile_fork();

	if (pid == 0) {
		hostile_spec(hostile, "main", &spec);
		raw_open(dir, &raw);
		offer(&raw, raw_stream(&raw, &spec.spec), token, UINT64_C(1) << 62);
		raw_expect_failure(&raw, 0, "a step that cannot be");
		_exit(0);
	}
	hostile_sleep_ms(200);
	int64_t until = segue_now_ns() + INT64_C(2000000000);
	for (int i = 0; i < 100 && segue_now_ns() < until; i++) {
		struct segue_batch *batch = hostile_next(lane);
		hostile_check(batch);
		hostile_commit(batch);
	}
	EXPECT(segue_now_ns() < until, "an absurd offer holds the other lanes of the stream up");
	/* It is refused after a while; or he goes before. */
	if (!hostile->thorough)
		kill(pid, SIGKILL);
	hostile_reap(pid, hostile->thorough ? 0 : SIGKILL);
	segue_lane_close(lane);
}

void attack_tokens(struct hostile *hostile)
{
	uint8_t earlier[SEGUE_TOKEN_BYTES];
	struct segue_client *client;
	struct segue_stream *stream;
	struct hostile_spec spec;
	struct seat seat, other;
	struct raw raw;
	char dir[512];

	snprintf(dir, sizeof(dir), "%s/run", hostile->scratch);
	hostile_open(hostile, dir, &client, &stream); /* starts the server */
	seat_take(hostile, dir, LANE, SEGUE_ATTACH_FRESH, &seat);
	memcpy(earlier, seat.token, sizeof(earlier));
	seat_leave(&seat);
	seat_take(hostile, dir, LANE, SEGUE_ATTACH_FRESH, &seat);
	seat_take(hostile, dir, OTHER, SEGUE_ATTACH_FRESH, &other);
	be_honest(&seat);
	raw_open(dir, &raw);
	hostile_spec(hostile, "main", &spec);
	uint64_t id = raw_stream(&raw, &spec.spec);
	refuse(&raw, id, seat.token, STEP, SEGUE_EBUSY, "the token of a lease in force");
	raw_close(&raw);
	hostile_kill_server(dir);
	segue_stream_close(stream);
	segue_client_close(client);
	hostile_open(hostile, dir, &client, &stream);
	raw_open(dir, &raw);
	id = raw_stream(&raw, &spec.spec);
	refuse(&raw, id, other.token, STEP, SEGUE_EFENCED, "another lane's token");
	refuse(&raw, id, earlier, STEP, SEGUE_EFENCED, "the token of an earlier lease");
	refuse(&raw, id, seat.token, STEP - 1, SEGUE_EFENCED, "a step below what is on disk");
	offer_guesses(hostile, &raw, id, seat.token);
	refuse(&raw, id, seat.token, STEP + 1, SEGUE_EPROTOCOL, "an offer without its states");
	offer_for_ever(hostile, dir, stream, seat.token);
	/* After all that, who has the token has the lane; and then that token is of the past. */
	EXPECT(offer(&raw, id, seat.token, STEP) == SEGUE_MESSAGE_ATTACHED,
		"the rightful offer: %s", raw.reply.failure.detail);
	refuse(&raw, id, seat.token, STEP, 0, "a token used twice");
	raw_close(&raw);
	seat_leave(&seat);
	seat_leave(&other);
	segue_stream_close(stream);
	segue_client_close(client);
	printf("another's, guessed, replayed tokens: refused\n");
}
