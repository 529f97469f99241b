/* The scripted worker, and what its server must have stored: served.h has the contract. */
#include "served.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk.h"
#include "store/lanes.h"
#include "store/row.h"
#include "core/spec.h"
#include "draft.h"
#include "spans.h"
#include "tfwrite.h"
#include "trace.h"

enum { RECORDS = 400, ROWS = 3, UNROLL = 2, LONGEST = 7, BYTES = 700 };

#define STREAM   "train"
#define ROW_SIZE (2 * sizeof(uint64_t) + BYTES)

/* ---- What is a function of what ---- */

static uint64_t steps_of(uint64_t record)
{
	return 1 + disk_mix(11, record) % LONGEST;
}

/* The states after a segment: both, side by side. Their first word says whose they are. */
static void states_after(uint64_t number, uint64_t segment, uint8_t out[ROW_SIZE])
{
	const uint64_t words[2] = {number * 1000 + segment, disk_mix(number, segment)};

	memcpy(out, words, sizeof(words));
	for (size_t i = 0; i < BYTES; i++)
		out[sizeof(words) + i] = (uint8_t)(words[1] >> i % 57);
}

void served_data(const char *path)
{
	struct segue_tfwriter *writer = segue_tfwriter_open(path, false);
	int64_t values[LONGEST];

	for (uint64_t record = 0; record < RECORDS; record++) {
		const struct segue_tffeature sequence = {.name = "x",
			.kind = SEGUE_TF_INT64,
			.steps = steps_of(record),
			.each = 1,
			.values = values};
		for (uint64_t i = 0; i < LONGEST; i++)
			values[i] = (int64_t)(record * 100 + i);
		segue_tfwriter_add(writer, NULL, 0, &sequence, 1);
	}
	segue_tfwriter_close(writer);
}

static void fail(const char *what)
{
	fprintf(stderr, "served: %s: %s\n", what, segue_error_detail());
	abort();
}

/* ---- The worker ---- */

static int open_stream(const struct served_session *session, struct segue_client **client,
	struct segue_stream **out)
{
	const struct segue_open_options options = {
		.size = sizeof(options), .no_start = true, .timeout_ns = 2000000000};
	const struct segue_feature feature = {.name = "x", .dtype = SEGUE_INT64};
	const struct segue_state states[2] = {
		{.name = "s", .dtype = SEGUE_INT64, .rank = 1, .dims = {2}},
		{.name = "t", .dtype = SEGUE_UINT8, .rank = 1, .dims = {BYTES}}};
	const struct segue_draft spec = {.name = STREAM,
		.source = {.kind = SEGUE_SOURCE_TFRECORD,
			.tfrecord = {.paths = &session->data, .path_count = 1}},
		.sequences = &feature,
		.sequence_count = 1,
		.states = states,
		.state_count = 2,
		.num_unroll = UNROLL,
		.batch_size = ROWS,
		.lanes = SERVED_LANES,
		.shuffle = true,
		.seed = 5,
		.keep_final = true,
		.durability = SEGUE_DURABLE_COMMIT,
		.interval_ms = 20};

	int rc = segue_open(session->dir, &options, client);
	if (rc)
		return rc;
	rc = segue_draft_open(*client, &spec, out);
	if (rc)
		segue_client_close(*client);
	return rc;
}

static void mark(const struct served_session *session, enum trace_mark mark, uint32_t lane,
	uint64_t generation, uint64_t step)
{
	trace_mark(session->trace, mark, generation * SERVED_STEPS + step, lane);
}

static int attach(struct served_session *session, struct segue_stream *stream, uint32_t lane,
	struct segue_lane **out)
{
	const struct segue_attach_options options = {
		.size = sizeof(options), .start = SEGUE_START_CONTINUE};
	uint64_t generation = session->generation[lane] + 1;

	mark(session, MARK_BEGIN, lane, generation, session->step[lane]);
	int rc = segue_lane_attach(stream, lane, &options, out);
	if (rc)
		return rc;
	session->generation[lane] = generation;
	mark(session, MARK_ACK, lane, generation, session->step[lane]);
	return 0;
}

static void compute(struct segue_batch *batch)
{
	static uint8_t words[ROWS][2 * sizeof(uint64_t)], bytes[ROWS][BYTES];
	uint8_t row[ROW_SIZE];
	struct segue_span spans[ROWS];
	uint32_t count = segue_test_spans(batch, spans, ROWS);
	const uint8_t *in = segue_batch_state(batch, 0, NULL),
		      *more = segue_batch_state(batch, 1, NULL);

	for (uint32_t i = 0; i < count; i++) {
		memset(row, 0, sizeof(row));
		if (spans[i].segment)
			states_after(spans[i].number, spans[i].segment - 1, row);
		if (memcmp(in + i * sizeof(*words), row, sizeof(*words)) != 0 ||
			memcmp(more + i * BYTES, row + sizeof(*words), BYTES) != 0)
			fail("a state that is not the one that was committed");
		states_after(spans[i].number, spans[i].segment, row);
		memcpy(words[i], row, sizeof(*words));
		memcpy(bytes[i], row + sizeof(*words), BYTES);
	}
	if (segue_batch_save_state(batch, 0, words, count * sizeof(*words)) ||
		segue_batch_save_state(batch, 1, bytes, count * sizeof(*bytes)))
		fail("save");
}

static int step(struct served_session *session, uint32_t index, struct segue_lane *lane)
{
	struct segue_batch *batch;
	uint64_t generation = session->generation[index], next = session->step[index] + 1;

	int rc = segue_lane_next(lane, INT64_C(20000000000), &batch);
	if (rc)
		return rc;
	if (segue_batch_step(batch) != session->step[index])
		fail("a batch of another step");
	compute(batch);
	mark(session, MARK_BEGIN, index, generation, next);
	rc = segue_batch_commit(batch);
	if (!rc) {
		mark(session, MARK_ACK, index, generation, next);
		session->step[index] = next;
	}
	segue_batch_release(batch);
	return rc;
}

static int go_back(struct served_session *session, struct segue_lane *lane, const void *token,
	size_t size, uint64_t to)
{
	uint64_t generation = session->generation[0] + 1;

	mark(session, MARK_BEGIN, 0, generation, to);
	int rc = segue_lane_restore(lane, token, size);
	if (rc)
		return rc;
	mark(session, MARK_ACK, 0, generation, to);
	session->generation[0] = generation;
	session->step[0] = to;
	return 0;
}

static int work_on(struct served_session *session, struct segue_lane *lanes[SERVED_LANES])
{
	void *token = NULL;
	size_t size = 0;
	uint64_t at = 0;
	int rc = 0;

	for (uint64_t round = 0; !rc && round < session->rounds; round++) {
		if (session->restore && round == 1) {
			rc = segue_lane_checkpoint(lanes[0], &token, &size);
			at = session->step[0];
		}
		if (!rc && token && round == session->rounds - 1)
			rc = go_back(session, lanes[0], token, size, at);
		for (uint32_t lane = 0; !rc && lane < SERVED_LANES; lane++)
			rc = step(session, lane, lanes[lane]);
	}
	segue_free(token);
	return rc;
}

int served_work(struct served_session *session)
{
	struct segue_lane *lanes[SERVED_LANES] = {NULL};
	struct segue_client *client;
	struct segue_stream *stream;

	int rc = open_stream(session, &client, &stream);
	if (rc)
		return rc;
	for (uint32_t lane = 0; !rc && lane < SERVED_LANES; lane++)
		rc = attach(session, stream, lane, &lanes[lane]);
	if (!rc)
		rc = work_on(session, lanes);
	if (rc) /* its process ends: closing would wait for a disk that may stay full */
		return rc;
	for (uint32_t lane = 0; lane < SERVED_LANES; lane++)
		segue_lane_close(lanes[lane]);
	segue_stream_close(stream);
	segue_client_close(client);
	return rc;
}

/* ---- The oracle ---- */

#define WRONG(...) (snprintf(why, ORACLE_WHY, __VA_ARGS__), false)

static int admit(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	(void)arg, (void)number;
	*array_steps = *total_length = steps_of(record);
	return 0;
}

static struct segue_plan_spec plan_of(uint32_t lane)
{
	return (struct segue_plan_spec){.records = RECORDS,
		.ends = {1, {0}},
		.seed = 5,
		.lanes = SERVED_LANES,
		.lane = lane,
		.batch_size = ROWS,
		.num_unroll = UNROLL,
		.shuffle = true};
}

/* What a lane at one step must have: its position, and which sequences have ended. */
struct expected {
	struct segue_plan plan;
	bool ended[RECORDS];
	uint64_t last[RECORDS]; /* their last segments */
};

static void run_plan(struct expected *expected, uint32_t lane, uint64_t steps)
{
	const struct segue_plan_spec spec = plan_of(lane);
	const struct segue_plan_input input = {.admit = admit};
	struct segue_slot_span spans[ROWS];
	uint32_t rows;

	if (segue_plan_init(&expected->plan, &spec))
		fail("the plan");
	for (uint64_t i = 0; i < steps; i++) {
		if (segue_plan_step(&expected->plan, &input, spans, &rows) != 1)
			fail("the plan");
		for (uint32_t row = 0; row < rows; row++) {
			if (spans[row].number >= RECORDS)
				fail("the data set is too small");
			expected->last[spans[row].number] = spans[row].segment;
			expected->ended[spans[row].number] = spans[row].flags & SEGUE_SPAN_LAST;
		}
	}
}

static bool right_rows(struct segue_store *store, struct segue_place place,
	const struct expected *expected, char *why)
{
	const struct segue_position *position = expected->plan.position;
	const struct segue_plan_spec spec = plan_of(place.lane);
	struct segue_image *image;
	uint8_t row[ROW_SIZE];
	bool right = true;

	if (segue_lanes_load_image(store, place, &spec, position, ROW_SIZE, &image))
		return WRONG("lane %u: %.140s", place.lane, segue_error_detail());
	for (uint32_t i = 0; right && i < position->rows; i++) {
		if (!segue_plan_row_lives(&spec, &position->row[i]))
			continue;
		states_after(position->row[i].number, position->row[i].segment, row);
		right = memcmp(image->states + i * ROW_SIZE, row, ROW_SIZE) == 0;
		if (!right)
			snprintf(
				why, ORACLE_WHY, "lane %u: row %u has other states", place.lane, i);
	}
	segue_image_destroy(image);
	return right;
}

/* A value of FINALS: its row says whose it is. Whoever ended at the step is ticked off. */
static int visit_final(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct expected *expected = arg;
	uint8_t row[ROW_SIZE];
	struct segue_row stored;
	uint64_t word;

	(void)key, (void)key_size;
	if (segue_row_get(value, value_size, ROW_SIZE, &stored))
		return 1;
	memcpy(&word, stored.states, sizeof(word));
	uint64_t number = word / 1000;
	states_after(number, word % 1000, row);
	if (number >= RECORDS || memcmp(stored.states, row, ROW_SIZE) != 0)
		return 1;
	if (expected->last[number] == word % 1000)
		expected->ended[number] = false;
	return 0;
}

static bool right_finals(struct segue_store *store, struct expected *expected, char *why)
{
	if (segue_store_scan(store, SEGUE_TABLE_FINALS, NULL, 0, visit_final, NULL, expected))
		return WRONG("final states that nobody computed, or damaged ones");
	for (uint64_t number = 0; number < RECORDS; number++)
		if (expected->ended[number])
			return WRONG("the final states of sequence %llu are missing",
				(unsigned long long)number);
	return true;
}

static bool right_lane(
	struct segue_store *store, struct segue_place place, uint64_t *line, char *why)
{
	struct segue_lane_record record;
	static struct expected expected;
	int rc = segue_lanes_load(store, place, &record);

	*line = 0;
	if (rc)
		return rc == SEGUE_ENOTFOUND ||
		       WRONG("lane %u: %.140s", place.lane, segue_error_detail());
	*line = record.generation * SERVED_STEPS + record.position->step;
	expected = (struct expected){0};
	run_plan(&expected, place.lane, record.position->step);
	bool right = record.position->rows == expected.plan.position->rows &&
		     memcmp(record.position, expected.plan.position,
			     segue_position_size(record.position->rows)) == 0;
	if (!right)
		snprintf(why, ORACLE_WHY, "lane %u: a position that the plan does not have",
			place.lane);
	right = right && right_rows(store, place, &expected, why) &&
		right_finals(store, &expected, why);
	free(record.position);
	segue_plan_finish(&expected.plan);
	return right;
}

static bool right_store(struct segue_store *store, uint64_t seq[ORACLE_LINES], char *why)
{
	struct segue_stream_record record;
	uint8_t hash[SEGUE_STORE_KEY_MAX];
	size_t key_size, size;
	void *value;
	const void *key = segue_key_stream(STREAM, hash, &key_size);

	for (int i = 0; i < ORACLE_LINES; i++)
		seq[i] = 0;
	int rc = segue_store_get(store, SEGUE_TABLE_STREAMS, key, key_size, &value, &size);
	if (rc)
		return rc == SEGUE_ENOTFOUND || WRONG("the stream: %.140s", segue_error_detail());
	rc = segue_stream_record_unpack(value, size, &record);
	free(value);
	if (rc)
		return WRONG("the stream: %.140s", segue_error_detail());
	segue_spec_destroy(record.spec);
	for (uint32_t lane = 0; lane < SERVED_LANES; lane++) {
		const struct segue_place place = {.stream = record.id, .lane = lane};
		if (!right_lane(store, place, &seq[lane], why))
			return false;
	}
	return true;
}

static enum verdict check(const char *dir, uint64_t seq[ORACLE_LINES], char why[ORACLE_WHY])
{
	struct segue_store_verified verified;
	struct segue_store *store;

	int rc = segue_store_verify(dir, NULL, NULL, &verified);
	if (rc && rc != SEGUE_ENOTFOUND) {
		snprintf(why, ORACLE_WHY, "%.150s", segue_error_detail());
		return VERDICT_REFUSED;
	}
	if (segue_store_open(dir, SEGUE_STORE_SERVE, &store)) {
		snprintf(why, ORACLE_WHY, "%.150s", segue_error_detail());
		return VERDICT_REFUSED;
	}
	enum verdict verdict = right_store(store, seq, why) ? VERDICT_GOOD : VERDICT_WRONG;
	segue_store_close(store);
	return verdict;
}

const struct oracle served_oracle = {.name = "served", .lines = SERVED_LANES, .check = check};
