/* C14: opens every lane and stream that it can get, takes batches and keeps them. */
#include "hostile.h"

#include <stdio.h>

enum { MOST = 1200 };

/* Leases of a stream that shares nothing, until the server refuses: how many. */
static unsigned take_private(struct raw *raw, const struct hostile *hostile, unsigned *streams)
{
	struct hostile_spec spec;
	unsigned leases = 0;
	char name[32];

	for (*streams = 0; *streams < MOST; ++*streams) {
		snprintf(name, sizeof(name), "kept-%u", *streams);
		hostile_private_spec(hostile, name, &spec);
		spec.spec.lanes = 4;
		struct segue_message attach = {.type = SEGUE_MESSAGE_LANE_ATTACH,
			.lane_attach = {.stream = raw_stream(raw, &spec.spec)}};
		if (attach.lane_attach.stream == 0)
			return leases;
		for (uint32_t lane = 0; lane < 4; lane++, leases++) {
			attach.lane_attach.lane = lane;
			if (raw_call(raw, &attach) != SEGUE_MESSAGE_ATTACHED)
				return leases;
			for (int i = 0; i < SEGUE_FRAME_FDS; i++)
				close(raw->fds[i]);
		}
	}
	return leases;
}

/* All lanes of a stream that others want too: they learn who has them. */
static void take_shared(struct hostile *hostile, struct raw *raw)
{
	struct hostile_spec spec;
	struct raw other;

	hostile_spec(hostile, "crowd", &spec);
	spec.spec.lanes = 4;
	struct segue_message attach = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.lane_attach = {.mode = SEGUE_ATTACH_FRESH, .timeout_ns = 100000000}};
	attach.lane_attach.stream = raw_stream(raw, &spec.spec);
	EXPECT(attach.lane_attach.stream, "stream: %s", raw->reply.failure.detail);
	for (attach.lane_attach.lane = 0; attach.lane_attach.lane < 4; attach.lane_attach.lane++) {
		EXPECT(raw_call(raw, &attach) == SEGUE_MESSAGE_ATTACHED, "attach: %s",
			raw->reply.failure.detail);
		for (int i = 0; i < SEGUE_FRAME_FDS; i++)
			close(raw->fds[i]);
	}
	pid_t pid = hostile_fork();
	if (pid == 0) {
		raw_open(hostile->dir, &other);
		attach.lane_attach.stream = raw_stream(&other, &spec.spec);
		attach.lane_attach.lane = 2;
		raw_call(&other, &attach);
		raw_expect_failure(&other, SEGUE_EBUSY, "a lane that another process keeps");
		_exit(0);
	}
	hostile_reap(pid, 0);
}

void attack_keeper(struct hostile *hostile)
{
	unsigned streams = 0, leases = 0, rounds = 0;
	struct raw raw;

	for (; rounds < 1 || hostile_time_left(hostile); rounds++) {
		raw_open(hostile->dir, &raw);
		take_shared(hostile, &raw);
		leases = take_private(&raw, hostile, &streams);
		printf("refused after %u streams and %u leases: %s\n", streams, leases,
			raw.reply.type == SEGUE_MESSAGE_FAILURE ? raw.reply.failure.detail : "-");
		EXPECT(streams < MOST, "%u streams of one connection, and no limit", streams);
		raw_expect_failure(&raw, SEGUE_ELIMIT, "one connection takes all it can get");
		raw_close(&raw);
	}
}
