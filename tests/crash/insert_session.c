/* A session that inserts what it reads: session.h has the contract. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/error.h"
#include "draft.h"
#include "session.h"
#include "source/mix/arrange.h"
#include "store/store.h"

enum { ROWS = 2, UNROLL = 3, STEPS_MAX = 9, FIRST_PART = CRASH_INSERTED / 2 };

static const int64_t patience = INT64_C(40000000000);

struct inserter {
	struct crash_world *world;
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_producer *producer;
	struct segue_lane *lane[CRASH_LANES];
	uint64_t serial; /* of what was inserted last */
};

static _Noreturn void wrong(struct crash_world *world, const char *format, ...)
{
	struct crash_ledger *ledger = world->ledger;
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(ledger->message, sizeof(ledger->message), format, arguments);
	va_end(arguments);
	ledger->wrong = true;
	_exit(CRASH_WRONG);
}

#define OK(world, call)                                                                            \
	do {                                                                                       \
		if (call)                                                                          \
			wrong(world, "%s: %s", #call, segue_error_detail());                       \
	} while (0)

/* Of the mix: two parts, of which the second is the log. */
static const struct segue_mix_shape shape = {.count = 2, .quota = {256, 768}};
#define MIX_OF(parts) ((struct segue_draft_source){.kind = SEGUE_SOURCE_MIX, .mix = {(parts), 2}})

static uint64_t steps_of(uint64_t serial)
{
	return 1 + crash_mix(serial) % STEPS_MAX;
}

static void open_all(struct inserter *inserter)
{
	const struct segue_feature feature = {.name = "x", .dtype = SEGUE_INT64};
	const struct crash_world *world = inserter->world;
	const char *data = world->data;
	/* Of the mix more is there before a lane is asked for its first batch. */
	const struct segue_draft_source log = {
		.kind = SEGUE_SOURCE_LOG, .log = {.producers = 1, .capacity = 1000}};
	const struct segue_draft_part parts[] = {
		{.name = "data",
			.source = {.kind = SEGUE_SOURCE_TFRECORD,
				.tfrecord = {.paths = &data, .path_count = 1}},
			.weight = 1},
		{.name = "log", .source = log, .weight = 3, .epochs = 1},
	};
	const struct segue_draft spec = {
		.name = "live",
		.source = world->mixes ? MIX_OF(parts) : log,
		.sequences = &feature,
		.sequence_count = 1,
		.num_unroll = UNROLL,
		.batch_size = ROWS,
		.lanes = CRASH_LANES,
		.epochs = 1,
		.depth = CRASH_DEPTH,
		.durability = world->durability,
		.interval_ms = world->interval_ms,
	};
	const struct segue_producer_options options = {
		.size = sizeof(options), .takeover = true, .ring_bytes = 1 << 16};
	const struct segue_attach_options start = {
		.size = sizeof(start), .start = SEGUE_START_CONTINUE, .timeout_ns = patience};
	const void *cursor;
	size_t cursor_size;

	OK(inserter->world, segue_open(world->dir, NULL, &inserter->client));
	OK(inserter->world, segue_draft_open(inserter->client, &spec, &inserter->stream));
	OK(inserter->world,
		segue_producer_open(inserter->stream, "one", &options, &inserter->producer));
	segue_producer_resumed(inserter->producer, &inserter->serial, &cursor, &cursor_size);
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
		OK(inserter->world,
			segue_lane_attach(inserter->stream, lane, &start, &inserter->lane[lane]));
}

static void close_all(struct inserter *inserter)
{
	segue_producer_destroy(inserter->producer);
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
		segue_lane_close(inserter->lane[lane]);
	segue_stream_close(inserter->stream);
	segue_client_close(inserter->client);
}

static void insert_to(struct inserter *inserter, uint64_t serial)
{
	int64_t x[STEPS_MAX];
	const void *arrays[] = {x};

	while (inserter->serial < serial) {
		uint64_t next = ++inserter->serial;
		const struct segue_sequence sequence = {
			.size = sizeof(sequence), .steps = steps_of(next), .arrays = arrays};

		for (uint64_t i = 0; i < sequence.steps; i++)
			x[i] = (int64_t)(next * 1000 + i);
		OK(inserter->world, segue_producer_insert(inserter->producer, &sequence, &next,
					    sizeof(next), patience));
	}
	OK(inserter->world, segue_producer_flush(inserter->producer, patience));
}

/* What was being committed is committed: of no effect if it was noted before. */
static void note_committed(struct crash_ledger *ledger, struct crash_taken *taken)
{
	for (uint64_t i = 0; taken->committed > taken->due && i < taken->rows; i++)
		ledger->came[taken->number[i]] = taken->came[i];
	taken->due = taken->committed;
}

/* There is one producer, so the place of a sequence in the log is its serial. 0: none of the log. */
static uint64_t serial_of(
	struct crash_world *world, const struct segue_span *span, const int64_t *x)
{
	uint64_t serial = world->mixes ? (uint64_t)x[0] / 1000 : span->number + 1;

	if (span->length == 0 || (world->mixes && span->part == 0))
		return 0;
	if (serial == 0 || serial > CRASH_INSERTED || span->array_steps != steps_of(serial))
		wrong(world, "sequence %" PRIu64 " has %" PRIu64 " steps", span->number,
			span->array_steps);
	if (world->mixes && segue_mix_number(&shape, 1, serial - 1) != span->number)
		wrong(world, "sequence %" PRIu64 " of the log came as number %" PRIu64, serial,
			span->number);
	return serial;
}

static void take_row(struct crash_world *world, struct crash_taken *taken,
	const struct segue_span *span, const int64_t *x)
{
	uint64_t serial = serial_of(world, span, x);

	if (serial == 0)
		return;
	if (world->ledger->came[serial - 1] != span->first_step)
		wrong(world, "sequence %" PRIu64 " came to step %" PRIu64 ", then step %" PRIu64,
			span->number, world->ledger->came[serial - 1], span->first_step);
	for (uint32_t i = 0; i < UNROLL; i++)
		if (x[i] !=
			(i < span->length ? (int64_t)(serial * 1000 + span->first_step + i) : 0))
			wrong(world, "sequence %" PRIu64 " has another value", span->number);
	taken->number[taken->rows] = serial - 1;
	taken->came[taken->rows] = span->first_step + span->length;
	taken->rows++;
}

/* One batch of a lane, checked, to its commit; false: the lane has ended. */
static bool take_batch(struct inserter *inserter, uint32_t lane)
{
	struct crash_world *world = inserter->world;
	struct crash_taken *taken = &world->ledger->taken[lane];
	struct segue_batch *batch;
	struct segue_span span;
	int rc = segue_lane_next(inserter->lane[lane], patience, &batch);

	if (rc && rc != SEGUE_EEND)
		wrong(world, "next: %s", segue_error_detail());
	if (rc || segue_batch_step(batch) == taken->due + 1)
		note_committed(world->ledger, taken);
	if (rc)
		return false;
	if (segue_batch_step(batch) != taken->due)
		wrong(world, "lane %u: step %" PRIu64 " came, %" PRIu64 " was due", lane,
			segue_batch_step(batch), taken->due);
	taken->committed = taken->due;
	taken->rows = 0;
	for (uint32_t row = 0; row < segue_batch_rows(batch); row++) {
		OK(world, segue_batch_span(batch, row, &span, sizeof(span)));
		take_row(world, taken, &span,
			(const int64_t *)segue_batch_sequence(batch, 0) + UNROLL * row);
	}
	taken->committed = taken->due + 1;
	OK(world, segue_batch_commit(batch));
	note_committed(world->ledger, taken);
	segue_batch_release(batch);
	return true;
}

void crash_insert_session(struct crash_world *world)
{
	struct inserter inserter = {.world = world};

	open_all(&inserter);
	insert_to(&inserter, FIRST_PART);
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
		if (world->ledger->taken[lane].due == 0)
			take_batch(&inserter, lane);
	insert_to(&inserter, CRASH_INSERTED);
	OK(world, segue_producer_close(inserter.producer, patience));
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
		while (take_batch(&inserter, lane))
			;
	close_all(&inserter);
}

void crash_check_inserted(const struct crash_world *world, const char *where)
{
	struct segue_store_verified verified;

	if (segue_store_verify(world->dir, NULL, NULL, &verified))
		crash_die("%s: the store: %s", where, segue_error_detail());
	for (uint64_t number = 0; number < CRASH_INSERTED; number++)
		if (world->ledger->came[number] != steps_of(number + 1))
			crash_die("%s: %" PRIu64 " of %" PRIu64 " steps of sequence %" PRIu64
				  " came",
				where, world->ledger->came[number], steps_of(number + 1), number);
}
