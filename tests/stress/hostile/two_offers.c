/* C16: the server dies; then one lease is offered from two sockets at the same time: one has it. */
#include "hostile.h"

#include <stdio.h>
#include <sys/mman.h>

#include "core/barrier.h"
#include "core/wait.h"

enum { LANE = 1, STEP = 5 };

/* Offers STEP with states of its own; tells the result, and holds what it got until the pipe closes. */
static _Noreturn void offer(const struct hostile *hostile, const char *dir, const struct seat *seat,
	int go, int result, int hold)
{
	struct segue_message upload = {.type = SEGUE_MESSAGE_UPLOAD,
		.upload = {.size = HOSTILE_ROWS * HOSTILE_WORDS * sizeof(int64_t)}};
	struct segue_message request = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.lane_attach = {.lane = LANE,
			.mode = SEGUE_ATTACH_OFFER,
			.step = STEP,
			.timeout_ns = 100000000}};
	struct hostile_spec spec;
	struct raw raw;
	char byte;

	hostile_spec(hostile, "main", &spec);
	raw_open(dir, &raw);
	request.lane_attach.stream = raw_stream(&raw, &spec.spec);
	EXPECT(request.lane_attach.stream, "stream: %s", raw.reply.failure.detail);
	EXPECT(raw_call(&raw, &upload) == SEGUE_MESSAGE_BULK, "upload: %s",
		raw.reply.failure.detail);
	request.lane_attach.upload = raw.reply.bulk.id;
	memcpy(request.lane_attach.token, seat->token, SEGUE_TOKEN_BYTES);
	EXPECT(read(go, &byte, 1) == 1, "pipe");
	enum segue_message_type type = raw_call(&raw, &request);
	int code = type == SEGUE_MESSAGE_ATTACHED ? 0 : raw.reply.failure.code;
	EXPECT(type == SEGUE_MESSAGE_ATTACHED || type == SEGUE_MESSAGE_FAILURE, "answer %d",
		(int)type);
	EXPECT(write(result, &code, sizeof(code)) == (ssize_t)sizeof(code), "pipe");
	_exit(read(hold, &byte, 1) == 1);
}

static void race(const struct hostile *hostile, const char *dir, const struct seat *seat)
{
	int go[2], result[2], hold[2], codes[2], granted = 0;
	pid_t pids[2];

	EXPECT(pipe(go) == 0 && pipe(result) == 0 && pipe(hold) == 0, "pipe");
	for (int i = 0; i < 2; i++) {
		pids[i] = hostile_fork();
		if (pids[i] == 0) {
			close(hold[1]);
			offer(hostile, dir, seat, go[0], result[1], hold[0]);
		}
	}
	EXPECT(write(go[1], "gg", 2) == 2, "pipe");
	for (int i = 0; i < 2; i++) {
		EXPECT(read(result[0], &codes[i], sizeof(int)) == (ssize_t)sizeof(int), "pipe");
		granted += codes[i] == 0;
		EXPECT(codes[i] == 0 || codes[i] == SEGUE_EFENCED || codes[i] == SEGUE_EBUSY,
			"an offer is refused with %s", segue_error_name(codes[i]));
	}
	EXPECT(granted == 1, "%d of 2 offers of one lease are granted", granted);
	for (int i = 0; i < 2; i++) {
		close(go[i]);
		close(result[i]);
		close(hold[i]);
	}
	for (int i = 0; i < 2; i++)
		hostile_reap(pids[i], 0);
}

void attack_two_offers(struct hostile *hostile)
{
	struct segue_client *client;
	struct segue_stream *stream;
	struct seat seat;
	char dir[512];
	unsigned rounds = 0;

	snprintf(dir, sizeof(dir), "%s/run", hostile->scratch);
	for (; rounds < 3 || hostile_time_left(hostile); rounds++) {
		hostile_open(hostile, dir, &client, &stream); /* starts the server */
		seat_take(hostile, dir, LANE, SEGUE_ATTACH_FRESH, &seat);
		for (; seat.step < STEP; seat.step++) {
			EXPECT(seat_await(&seat, seat.step), "no batch");
			segue_store_release(&seat.carry->committed, seat.step + 1);
			segue_store_release(&seat.carry->released, seat.step + 1);
			segue_event_ring(seat.fds[3]);
		}
		hostile_sleep_ms((int64_t)(hostile_random(hostile) % 40)); /* on disk, or not */
		hostile_kill_server(dir);
		segue_stream_close(stream);
		segue_client_close(client);
		hostile_open(hostile, dir, &client, &stream);
		race(hostile, dir, &seat);
		seat_leave(&seat);
		struct segue_lane *lane = hostile_take(stream, LANE, SEGUE_START_CONTINUE);
		struct segue_batch *batch = hostile_next(lane);
		EXPECT(segue_batch_step(batch) == STEP, "batch %llu after the offer of %d",
			(unsigned long long)segue_batch_step(batch), STEP);
		segue_batch_release(batch);
		segue_lane_close(lane);
		segue_stream_close(stream);
		segue_client_close(client);
	}
	printf("%u times two offers of one lease: one granted, one refused\n", rounds);
}
