/* C25: side segments asked for: of other leases, of any step, of none, too often, kept, written. */
#include "hostile.h"

#include <stdio.h>
#include <sys/mman.h>

#include "core/barrier.h"
#include "core/wait.h"
#include "spans.h"

enum {
	SEQUENCES = 24,
	STEPS = 40,
	UNROLL = 4,
	ROWS = 3,
	MOST = 4000, /* values of a step */
	OFTEN = 3000,
	KEPT = 300,
};

/* How many values a step has, of which each says where it is. */
static int64_t count_of(int64_t sequence, int64_t step)
{
	return step % 7 == 3 ? MOST : (sequence + step) % 5;
}

static void write_data(const char *path, const struct segue_feature *feature)
{
	const struct segue_draft draft = {.sequences = feature, .sequence_count = 1};
	int64_t *values = malloc(sizeof(*values) * STEPS * MOST), offsets[STEPS + 1];
	const void *arrays[] = {values};
	const int64_t *bounds[] = {offsets};
	const struct segue_sequence sequence = {
		.size = sizeof(sequence), .steps = STEPS, .arrays = arrays, .offsets = bounds};
	struct segue_file_writer *writer;
	struct segue_spec *spec;

	EXPECT(values && segue_draft_tell(&draft, &spec) == 0 &&
			segue_file_writer_create(path, spec, &writer) == 0,
		"%s", segue_error_detail());
	segue_spec_destroy(spec);
	for (int64_t i = 0; i < SEQUENCES; i++) {
		offsets[0] = 0;
		for (int64_t step = 0; step < STEPS; step++) {
			int64_t count = count_of(i, step);

			for (int64_t k = 0; k < count; k++)
				values[offsets[step] + k] = i * 1000 + step;
			offsets[step + 1] = offsets[step] + count;
		}
		EXPECT(segue_file_writer_add(writer, &sequence) == 0, "%s", segue_error_detail());
	}
	EXPECT(segue_file_writer_close(writer) == 0, "%s", segue_error_detail());
	segue_file_writer_destroy(writer);
	free(values);
}

/* ---- Who is not to notice ---- */

struct victim {
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_lane *lane;
};

static void victim_begin(const char *dir, const struct segue_draft *spec, struct victim *victim)
{
	EXPECT(segue_open(dir, NULL, &victim->client) == 0 &&
			segue_draft_open(victim->client, spec, &victim->stream) == 0 &&
			segue_lane_attach(victim->stream, 0, NULL, &victim->lane) == 0,
		"victim: %s", segue_error_detail());
}

static void victim_step(struct victim *victim)
{
	struct segue_batch *batch = hostile_next(victim->lane);
	struct segue_ragged x;
	struct segue_span spans[ROWS];
	uint32_t count = segue_test_spans(batch, spans, ROWS);

	EXPECT(segue_batch_sequence_ragged(batch, 0, &x, sizeof(x)) == 0, "%s",
		segue_error_detail());
	for (uint32_t row = 0; row < count; row++)
		for (int64_t i = 0; i < spans[row].length; i++) {
			int64_t sequence = (int64_t)(spans[row].number % SEQUENCES);
			int64_t step = (int64_t)spans[row].first_step + i;
			const int64_t *at = x.offsets + row * (UNROLL + 1) + i;

			EXPECT(at[1] - at[0] == count_of(sequence, step), "values of a step");
			for (int64_t k = at[0]; k < at[1]; k++)
				EXPECT(((const int64_t *)x.values)[k] == sequence * 1000 + step,
					"a value that is not in the data");
		}
	EXPECT(segue_batch_commit(batch) == 0, "%s", segue_error_detail());
	segue_batch_release(batch);
}

static void victim_end(struct victim *victim)
{
	segue_lane_close(victim->lane);
	segue_stream_close(victim->stream);
	segue_client_close(victim->client);
}

/* ---- The attack ---- */

static enum segue_message_type ask(struct raw *raw, uint64_t lease, uint64_t step)
{
	struct segue_message request = {
		.type = SEGUE_MESSAGE_LANE_SIDE, .lane_side = {.lease = lease, .step = step}};

	return raw_call(raw, &request);
}

static uint64_t take_lane(struct raw *raw, const struct segue_draft *spec)
{
	struct segue_message attach = {
		.type = SEGUE_MESSAGE_LANE_ATTACH, .lane_attach = {.lane = 1}};

	attach.lane_attach.stream = raw_stream(raw, spec);
	EXPECT(attach.lane_attach.stream, "stream: %s", raw->reply.failure.detail);
	EXPECT(raw_call(raw, &attach) == SEGUE_MESSAGE_ATTACHED, "attach: %s",
		raw->reply.failure.detail);
	for (unsigned i = 0; i < raw->fd_count; i++)
		close(raw->fds[i]);
	return raw->reply.attached.lease;
}

/* Its own, once there is one: nothing in it can be changed. */
static void try_own(struct raw *raw, uint64_t lease)
{
	int64_t until = segue_now_ns() + INT64_C(10000000000);

	while (ask(raw, lease, 0) != SEGUE_MESSAGE_BULK) {
		raw_expect_failure(raw, SEGUE_ENOTFOUND, "a slot that is not filled yet");
		EXPECT(segue_now_ns() < until, "slot 0 gets no side segment");
		hostile_sleep_ms(1);
	}
	EXPECT(raw->fd_count == 1 && raw->reply.bulk.size > 0, "one segment");
	size_t size = raw->reply.bulk.size;
	void *at = mmap(NULL, size, PROT_READ, MAP_SHARED, raw->fds[0], 0);
	EXPECT(at != MAP_FAILED, "mmap");
	hostile_try_segment(raw->fds[0], at, "side segment");
	munmap(at, size);
	close(raw->fds[0]);
}

/* Whatever step is named, it is one of the lane's own slots; they are kept as long as may be. */
static void try_steps(struct hostile *hostile, struct raw *raw, uint64_t lease)
{
	int kept[KEPT];
	unsigned count = 0;

	for (unsigned i = 0; i < KEPT; i++) {
		uint64_t step = i % 3 ? hostile_random(hostile) : UINT64_MAX - i;

		if (ask(raw, lease, step) == SEGUE_MESSAGE_BULK)
			kept[count++] = raw->fds[0];
		else
			raw_expect_failure(raw, 0, "a step");
	}
	for (unsigned i = 0; i < count; i++)
		close(kept[i]);
}

/* Leases of others are as good as none. */
static void try_leases(struct hostile *hostile, struct raw *raw, uint64_t lease)
{
	for (uint64_t i = 1; i < 64; i++) {
		ask(raw, lease - i, 0);
		raw_expect_failure(raw, SEGUE_EGONE, "another's lease");
		ask(raw, i % 2 ? lease + i : hostile_random(hostile) | 1ull << 63, 0);
		raw_expect_failure(raw, SEGUE_EGONE, "a lease that there is not");
	}
}

/* Asked again and again, and nothing is read: the server hangs up, or waits for room to answer. */
static void try_often(struct raw *raw, uint64_t lease)
{
	struct segue_message request = {
		.type = SEGUE_MESSAGE_LANE_SIDE, .lane_side = {.lease = lease}};
	uint8_t payload[64];
	size_t size;

	for (int i = 0; i < OFTEN; i++) {
		request.serial = ++raw->serial;
		EXPECT(segue_message_pack(&request, payload, &size) == 0, "pack");
		if (!raw_send_frame(raw, SEGUE_MESSAGE_LANE_SIDE, 0, (uint32_t)size, payload, size))
			return;
	}
}

/* A lane whose features are all dense has none. */
static void try_dense(const struct hostile *hostile, struct raw *raw)
{
	struct hostile_spec spec;

	hostile_private_spec(hostile, "dense", &spec);
	uint64_t lease = take_lane(raw, &spec.spec);
	ask(raw, lease, 0);
	raw_expect_failure(raw, SEGUE_ENOTFOUND, "a lane without side segments");
}

void attack_sides(struct hostile *hostile)
{
	static const struct segue_feature x = {
		.name = "x", .dtype = SEGUE_INT64, .form = SEGUE_FORM_RAGGED};
	char path[512];
	const char *paths[] = {path};
	const struct segue_draft spec = {
		.name = "sides",
		.source = {.kind = SEGUE_SOURCE_FILES, .files = {.paths = paths, .path_count = 1}},
		.sequences = &x,
		.sequence_count = 1,
		.num_unroll = UNROLL,
		.batch_size = ROWS,
		.lanes = 2,
		.no_persist = true,
	};
	struct victim victim;
	struct raw raw;

	snprintf(path, sizeof(path), "%s/sides.segue", hostile->scratch);
	write_data(path, &x);
	victim_begin(hostile->dir, &spec, &victim);
	do {
		raw_open(hostile->dir, &raw);
		uint64_t lease = take_lane(&raw, &spec);

		try_own(&raw, lease);
		victim_step(&victim);
		try_leases(hostile, &raw, lease);
		try_steps(hostile, &raw, lease);
		victim_step(&victim);
		try_dense(hostile, &raw);
		try_often(&raw, lease);
		for (int i = 0; i < 8; i++)
			victim_step(&victim);
		raw_close(&raw);
	} while (hostile_time_left(hostile));
	victim_end(&victim);
}
