/* Workers that check every batch, a ledger, an oracle: session.h has the contract. */
#include "session.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/magic.h>

#include "core/error.h"
#include "lane/plan.h"
#include "store/lanes.h"
#include "store/row.h"
#include "draft.h"
#include "tfwrite.h"

enum {
	STATE_WORDS = 2,
	STATE_BYTES = STATE_WORDS * 8,
	PLAN_SEED = 7,
	ROWS_MAX = 4096, /* in a table */
};

/* The scripted session: steps of each lane at which something happens. */
enum { CHECKPOINT_AT = 3, RESTORE_AT = 5, CLOSE_AT = 6 };

uint64_t crash_mix(uint64_t z)
{
	z += UINT64_C(0x9E3779B97F4A7C15);
	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return z ^ z >> 31;
}

int64_t crash_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

uint64_t crash_seed(void)
{
	const char *given = getenv("SEGUE_TEST_SEED");

	return given ? strtoull(given, NULL, 0) : crash_mix((uint64_t)crash_now()) % 1000000;
}

void crash_die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("FAIL: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(1);
}

/* ---- Data, and what they give ---- */

static uint64_t steps_of(uint64_t record)
{
	return 1 + crash_mix(record) % 14;
}

static uint64_t state_after(uint64_t number, uint64_t segment, int word)
{
	return crash_mix(number * 1000003 + segment * 17 + (uint64_t)word);
}

static int admit(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	(void)arg;
	(void)number;
	*array_steps = *total_length = steps_of(record);
	return 0;
}

static const struct segue_plan_spec *plan_spec(uint32_t lane)
{
	static struct segue_plan_spec spec;

	spec = (struct segue_plan_spec){.records = CRASH_RECORDS,
		.ends = {1, {0}},
		.seed = PLAN_SEED,
		.lanes = CRASH_LANES,
		.lane = lane,
		.batch_size = CRASH_ROWS,
		.num_unroll = CRASH_UNROLL,
		.shuffle = true};
	return &spec;
}

static struct crash_row *row_at(
	const struct crash_world *world, uint32_t lane, uint64_t step, uint32_t row)
{
	return &world->plan[(lane * world->steps + step) * CRASH_ROWS + row];
}

/* Batch sizes that are set, at steps of each lane; those of a session come first. */
static const struct {
	uint64_t step;
	uint32_t size;
} sizes[] = {{4, 2}, {7, CRASH_ROWS}, {20, 0}, {21, 3}, {25, CRASH_ROWS}};

/* The size that is to be set at a step; -1: none. */
static int size_at(uint64_t step)
{
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (sizes[i].step == step)
			return (int)sizes[i].size;
	return -1;
}

static int resize_plan(struct segue_plan *plan, uint32_t size)
{
	size_t bytes = segue_position_size(segue_position_count(plan->position));
	struct segue_position *position = malloc(bytes);

	if (!position)
		crash_die("no memory for the plan");
	memcpy(position, plan->position, bytes);
	int rc = segue_plan_set_batch_size(&plan->spec, position, size);
	if (!rc)
		rc = segue_plan_seek(plan, position);
	free(position);
	return rc;
}

/* Endless and shuffled: each batch has all its rows. */
static void make_plan(struct crash_world *world, uint32_t lane)
{
	const struct segue_plan_input input = {NULL, admit, NULL};
	struct segue_slot_span spans[CRASH_ROWS];
	uint32_t rows, size = CRASH_ROWS;
	struct segue_plan plan;

	if (segue_plan_init(&plan, plan_spec(lane)))
		crash_die("the plan: %s", segue_error_detail());
	for (uint64_t step = 0; step < world->steps; step++) {
		int rc = 0;
		if (size_at(step) >= 0) {
			size = (uint32_t)size_at(step);
			rc = resize_plan(&plan, size);
		}
		if (rc || segue_plan_step(&plan, &input, spans, &rows) != 1 || rows != size)
			crash_die("the plan: %s", segue_error_detail());
		uint32_t count = segue_position_count(plan.position);
		for (uint32_t row = 0; row < CRASH_ROWS; row++)
			*row_at(world, lane, step, row) =
				row < count
					? (struct crash_row){spans[row].number, spans[row].segment,
						  row < rows && spans[row].flags & SEGUE_SPAN_LAST,
						  row >= rows}
					: (struct crash_row){.number = SEGUE_NO_SEQUENCE};
	}
	segue_plan_finish(&plan);
}

/* Rows of a batch. */
static uint32_t rows_at(const struct crash_world *world, uint32_t lane, uint64_t step)
{
	uint32_t rows = 0;

	while (rows < CRASH_ROWS && !row_at(world, lane, step, rows)->parked &&
		row_at(world, lane, step, rows)->number != SEGUE_NO_SEQUENCE)
		rows++;
	return rows;
}

/* ---- The world ---- */

static void choose_tmpdir(void)
{
	struct statfs info;

	if (statfs("/dev/shm", &info) == 0 && info.f_type == TMPFS_MAGIC &&
		(uint64_t)info.f_bavail * (uint64_t)info.f_bsize > UINT64_C(256) << 20 &&
		access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 1);
}

static void map_ledger(struct crash_world *world)
{
	char path[SEGUE_TMPDIR_MAX];
	int fd = open(
		segue_tmpdir_path(&world->tmp, "ledger", path), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, sizeof(*world->ledger)) < 0)
		crash_die("%s: %s", path, strerror(errno));
	world->ledger =
		mmap(NULL, sizeof(*world->ledger), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (world->ledger == MAP_FAILED)
		crash_die("mmap: %s", strerror(errno));
	close(fd);
}

void crash_world_make(struct crash_world *world, const char *name, uint64_t steps)
{
	*world = (struct crash_world){.interval_ms = 20, .steps = steps};
	choose_tmpdir();
	segue_tmpdir_make(&world->tmp, name);
	segue_tmpdir_path(&world->tmp, "run", world->dir);
	segue_tmpdir_path(&world->tmp, "data.tfrecord", world->data);
	segue_tfwrite_numbers(world->data, CRASH_RECORDS, steps_of);
	map_ledger(world);
	world->plan = calloc(CRASH_LANES * steps * CRASH_ROWS, sizeof(*world->plan));
	if (!world->plan)
		crash_die("no memory for the plan");
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
		make_plan(world, lane);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		crash_die("prctl: %s", strerror(errno));
}

void crash_world_renew(struct crash_world *world)
{
	segue_tmpdir_remove_path(world->dir);
	memset(world->ledger, 0, sizeof(*world->ledger));
}

void crash_world_remove(struct crash_world *world)
{
	munmap(world->ledger, sizeof(*world->ledger));
	free(world->plan);
	segue_tmpdir_remove(&world->tmp);
}

/* ---- A worker ---- */

static _Noreturn void leave(
	const struct crash_worker *worker, int status, int code, const char *format, ...)
{
	struct crash_ledger *ledger = worker->world->ledger;
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(ledger->message, sizeof(ledger->message), format, arguments);
	va_end(arguments);
	ledger->code = code;
	if (status == CRASH_WRONG)
		ledger->wrong = true;
	_exit(status);
}

/* Gives everything back, as one does that was refused. */
static void give_back(struct crash_worker *worker)
{
	segue_batch_release(worker->batch);
	worker->batch = NULL;
	crash_worker_close(worker);
}

/*
 * What the threads of a server that does not answer do, and for how long they have run, and have
 * waited for a CPU (ns, schedstat).
 */
static void describe_server(const struct crash_world *world)
{
	char command[256];

	snprintf(command, sizeof(command),
		"cd /proc/%d/task 2>/dev/null && for t in *; do cat $t/comm $t/wchan; echo; "
		"grep -E 'State|TracerPid' $t/status; cat $t/schedstat; done >&2",
		(int)crash_server_pid(world));
	if (system(command) != 0)
		fprintf(stderr, "there is no server\n");
}

static void check(struct crash_worker *worker, int rc, const char *what, uint32_t lane)
{
	char detail[256];

	if (rc == 0)
		return;
	snprintf(detail, sizeof(detail), "%s", segue_error_detail());
	if (rc == SEGUE_ETIMEOUT)
		describe_server(worker->world);
	if (worker->refusals)
		give_back(worker);
	leave(worker, worker->refusals ? CRASH_REFUSED : CRASH_WRONG, rc, "%s, lane %u: %s: %s",
		what, lane, segue_error_name(rc), detail);
}

/* Whether a call that failed is made again. Each failure must say what it is. */
static bool again(struct crash_worker *worker, int rc, unsigned tries)
{
	if (rc == 0 || !worker->patient || tries == 3)
		return false;
	if (strcmp(segue_error_name(rc), "?") == 0 || !*segue_error_detail())
		leave(worker, CRASH_WRONG, rc, "a call failed without saying why: %d", rc);
	worker->world->ledger->errors++;
	return true;
}

#define TRY(worker, what, lane, call)                                                              \
	do {                                                                                       \
		unsigned tries_ = 0;                                                               \
		int rc_;                                                                           \
		do                                                                                 \
			rc_ = (call);                                                              \
		while (again(worker, rc_, tries_++));                                              \
		check(worker, rc_, what, lane);                                                    \
	} while (0)

/* What a worker that was killed has begun to drop is neither there nor gone for a moment. */
#define while_busy(call)                                                                           \
	({                                                                                         \
		int busy_;                                                                         \
		for (int i_ = 0; (busy_ = (call)) == SEGUE_EBUSY && i_ < 20000; i_++)              \
			usleep(1000);                                                              \
		busy_;                                                                             \
	})

static void open_stream(struct crash_worker *worker, const char *name)
{
	const struct crash_world *world = worker->world;
	const char *data = world->data;
	bool kept = strcmp(name, "another") == 0;
	const struct segue_feature feature = {.name = "x", .dtype = SEGUE_INT64};
	const struct segue_state state = {
		.name = "s", .dtype = SEGUE_INT64, .rank = 1, .dims = {STATE_WORDS}};
	const struct segue_draft spec = {
		.name = name,
		.source = {.kind = SEGUE_SOURCE_TFRECORD,
			.tfrecord = {.paths = &data, .path_count = 1}},
		.sequences = &feature,
		.sequence_count = 1,
		.states = &state,
		.state_count = 1,
		.num_unroll = CRASH_UNROLL,
		.batch_size = CRASH_ROWS,
		.lanes = CRASH_LANES,
		.shuffle = true,
		.seed = PLAN_SEED,
		.keep_final = true,
		.lanes_by = kept ? SEGUE_LANES_BY_RECORD : SEGUE_LANES_BY_SEQUENCE,
		.initial = kept ? SEGUE_INITIAL_KEPT : SEGUE_INITIAL_VALUE,
		.depth = CRASH_DEPTH,
		.durability = world->durability,
		.interval_ms = world->interval_ms,
	};

	const struct segue_open_options options = {
		.size = sizeof(options), .timeout_ns = world->timeout_ns};

	if (!worker->client)
		TRY(worker, "open", 0, segue_open(world->dir, &options, &worker->client));
	TRY(worker, "stream", 0,
		while_busy(segue_draft_open(worker->client, &spec, &worker->stream)));
}

void crash_worker_open(struct crash_worker *worker, uint32_t first, uint32_t count)
{
	open_stream(worker, "train");
	for (uint32_t lane = first; lane < first + count; lane++) {
		const struct crash_lane *state = &worker->world->ledger->lane[lane];
		/* Whether the lane comes is asked here, not how soon, on a machine that is busy. */
		const struct segue_attach_options options = {
			.size = sizeof(options),
			.start = state->committing || state->token_size ? SEGUE_START_CONTINUE
									: SEGUE_START_FRESH,
			.timeout_ns = INT64_C(40000000000),
		};
		TRY(worker, "attach", lane,
			segue_lane_attach(worker->stream, lane, &options, &worker->lane[lane]));
		worker->settled[lane] = false;
	}
}

/* Where the lane was found, against what was acknowledged to its holders before. */
static void settle(struct crash_worker *worker, uint32_t lane, uint64_t step)
{
	struct crash_lane *state = &worker->world->ledger->lane[lane];
	bool back = state->restoring && step == state->token_step;

	if (!back && (step < state->low || step > state->committing))
		leave(worker, CRASH_WRONG, 0,
			"lane %u is at step %llu: acknowledged were %llu, begun %llu, the lowest "
			"that is allowed is %llu",
			lane, (unsigned long long)step, (unsigned long long)state->due,
			(unsigned long long)state->committing, (unsigned long long)state->low);
	state->restoring = false;
	state->committing = state->due = step;
	if (state->durable > step)
		state->durable = step;
	worker->settled[lane] = true;
}

static void check_row(const struct crash_worker *worker, const struct segue_span *span,
	const struct crash_row *due, const int64_t *in, const int64_t *x)
{
	uint64_t record = segue_plan_record(plan_spec(0), span->number);

	if (span->number != due->number || span->segment != due->segment)
		leave(worker, CRASH_WRONG, 0, "sequence %llu segment %u came, %llu %u was due",
			(unsigned long long)span->number, span->segment,
			(unsigned long long)due->number, due->segment);
	for (int word = 0; word < STATE_WORDS; word++) {
		uint64_t wanted =
			span->segment == 0 ? 0 : state_after(span->number, span->segment - 1, word);
		if ((uint64_t)in[word] != wanted)
			leave(worker, CRASH_WRONG, 0, "a state is not the one that was committed");
	}
	for (uint32_t i = 0; i < CRASH_UNROLL; i++) {
		int64_t value = (int64_t)(record * 100 + span->first_step + i);
		if (x[i] != (i < span->length ? value : 0))
			leave(worker, CRASH_WRONG, 0, "an input is not the one in the data");
	}
}

/* A pointer that a batch gives, which may need memory. */
static const void *part_of(struct segue_batch *batch, int part)
{
	return part == 0 ? segue_batch_state(batch, 0, NULL) : segue_batch_sequence(batch, 0);
}

/* Checks the rows of a batch and saves their states. */
static void compute(struct crash_worker *worker, uint32_t lane)
{
	const struct crash_world *world = worker->world;
	struct segue_batch *batch = worker->batch;
	uint64_t step = segue_batch_step(batch), out[CRASH_ROWS][STATE_WORDS];
	uint32_t due = step < world->steps ? rows_at(world, lane, step) : 0;
	uint32_t count = segue_batch_rows(batch);
	struct segue_span spans[CRASH_ROWS];
	const void *parts[2];

	for (int part = 0; part < 2; part++)
		TRY(worker, "a part of a batch", lane,
			(parts[part] = part_of(batch, part)) ? 0 : SEGUE_ENOMEM);
	const int64_t *in = parts[0], *x = parts[1];
	if (step >= world->steps || count != due)
		leave(worker, CRASH_WRONG, 0, "step %llu has %u rows", (unsigned long long)step,
			count);
	for (uint32_t row = 0; row < count; row++)
		TRY(worker, "a span", lane,
			segue_batch_span(batch, row, &spans[row], sizeof(spans[row])));
	for (uint32_t row = 0; row < count; row++) {
		check_row(worker, &spans[row], row_at(world, lane, step, row),
			in + STATE_WORDS * row, x + CRASH_UNROLL * row);
		for (int word = 0; word < STATE_WORDS; word++)
			out[row][word] = state_after(spans[row].number, spans[row].segment, word);
	}
	TRY(worker, "save", lane, segue_batch_save_state(batch, 0, out, count * sizeof(out[0])));
}

/* Commits the open batch; false: it is committed, but that it is on disk was not said. */
static bool commit(struct crash_worker *worker, uint32_t lane)
{
	bool said = true;
	unsigned tries = 0;
	int rc;

	do {
		rc = segue_batch_commit(worker->batch);
		if (rc == SEGUE_ECOMMITTED && tries > 0) {
			said = false;
			rc = 0;
		}
	} while (again(worker, rc, tries++));
	check(worker, rc, "commit", lane);
	return said;
}

/* Whoever has the lane at one of the steps sets the size, also where that was done already. */
static void resize(struct crash_worker *worker, uint32_t lane)
{
	int size = size_at(segue_lane_committed(worker->lane[lane]));

	if (size >= 0)
		TRY(worker, "batch size", lane,
			segue_lane_set_batch_size(worker->lane[lane], (uint32_t)size));
}

void crash_worker_batch(struct crash_worker *worker, uint32_t lane)
{
	struct crash_lane *state = &worker->world->ledger->lane[lane];

	resize(worker, lane);
	TRY(worker, "next", lane,
		segue_lane_next(worker->lane[lane], SEGUE_FOREVER, &worker->batch));
	uint64_t step = segue_batch_step(worker->batch);
	if (!worker->settled[lane])
		settle(worker, lane, step);
	if (step != state->due)
		leave(worker, CRASH_WRONG, 0, "lane %u: step %llu came, %llu was due", lane,
			(unsigned long long)step, (unsigned long long)state->due);
	compute(worker, lane);
	state->committing = step + 1;
	bool said = commit(worker, lane);
	state->acknowledged_at[step % CRASH_TIMES] = crash_now();
	state->due = step + 1;
	state->batches++;
	segue_batch_release(worker->batch);
	worker->batch = NULL;
	uint64_t durable = segue_lane_durable(worker->lane[lane]);
	state->durable = durable > step + 1 ? step + 1 : durable;
	said = said && worker->world->durability == SEGUE_DURABLE_COMMIT;
	state->low = said ? state->due : state->durable;
}

void crash_worker_checkpoint(struct crash_worker *worker, uint32_t lane)
{
	struct crash_lane *state = &worker->world->ledger->lane[lane];
	void *token;
	size_t size;

	TRY(worker, "checkpoint", lane, segue_lane_checkpoint(worker->lane[lane], &token, &size));
	if (size > CRASH_TOKEN)
		leave(worker, CRASH_WRONG, 0, "a token of %zu bytes", size);
	memcpy(state->token, token, size);
	segue_free(token);
	state->token_step = state->due;
	state->token_size = size;
}

void crash_worker_restore(struct crash_worker *worker, uint32_t lane)
{
	struct crash_lane *state = &worker->world->ledger->lane[lane];

	if (state->rewound < state->committing)
		state->rewound = state->committing;
	state->restoring = true;
	TRY(worker, "restore", lane,
		segue_lane_restore(worker->lane[lane], state->token, state->token_size));
	state->low = state->durable = state->token_step;
	state->committing = state->due = state->token_step;
	state->restoring = false;
	worker->settled[lane] = true;
}

void crash_worker_close(struct crash_worker *worker)
{
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++) {
		segue_lane_close(worker->lane[lane]);
		worker->lane[lane] = NULL;
	}
	segue_stream_close(worker->stream);
	segue_client_close(worker->client);
	worker->stream = NULL;
	worker->client = NULL;
}

void crash_worker_wander(struct crash_worker *worker, uint32_t lane, uint64_t seed, uint64_t until)
{
	struct crash_lane *state = &worker->world->ledger->lane[lane];
	uint64_t random = seed;

	while (!until || state->due < until) {
		random = crash_mix(random);
		crash_worker_batch(worker, lane);
		if (random % 64 == 0)
			crash_worker_checkpoint(worker, lane);
		else if (random % 256 == 1 && state->token_size && !until)
			crash_worker_restore(worker, lane);
		if (random % 4 == 2)
			usleep((useconds_t)(random >> 32) % 3000);
	}
}

static void run_to(struct crash_worker *worker, uint64_t step)
{
	for (;;) {
		bool all = true;
		for (uint32_t lane = 0; lane < CRASH_LANES; lane++) {
			if (worker->world->ledger->lane[lane].due >= step)
				continue;
			crash_worker_batch(worker, lane);
			all = false;
		}
		if (all)
			return;
	}
}

/* A new holder learns where a lane is from its first batch: each lane gets one. */
static void resume(struct crash_worker *worker)
{
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
		if (!worker->settled[lane])
			crash_worker_batch(worker, lane);
}

static int see_states(void *arg, const struct segue_states *states)
{
	if (states->key_size == 1 && *states->key == 'k' && states->bytes_size == STATE_BYTES)
		memcpy(arg, states->bytes, STATE_BYTES);
	return 0;
}

/* States of the other stream, under a key that no record has. */
static void change_states(struct crash_worker *worker)
{
	static const int64_t put[STATE_WORDS] = {4711, -4711};
	struct segue_states_cursor cursor = {.done = false};
	int64_t got[STATE_WORDS] = {0}, listed[STATE_WORDS] = {0};
	struct segue_client *client = worker->client;

	TRY(worker, "put", 0,
		while_busy(segue_states_put(client, "another", NULL, "k", put, sizeof(put))));
	TRY(worker, "get", 0,
		segue_states_get(client, "another", NULL, "k", false, see_states, got));
	while (!cursor.done)
		TRY(worker, "list", 0,
			segue_states_list(
				client, "another", NULL, false, &cursor, see_states, listed));
	if (memcmp(got, put, sizeof(put)) != 0 || memcmp(listed, put, sizeof(put)) != 0)
		leave(worker, CRASH_WRONG, 0, "what was put under a key is not there");
	TRY(worker, "delete", 0, while_busy(segue_states_delete(client, "another", NULL, "k")));
	int rc = 0;
	TRY(worker, "get", 0,
		(rc = segue_states_get(client, "another", NULL, "k", false, see_states, got)) ==
				SEGUE_ENOTFOUND
			? 0
			: rc);
	if (rc == 0)
		leave(worker, CRASH_WRONG, 0, "what was deleted under a key is there");
}

/* Another stream, of which something is stored; nothing of it is there at the end. */
static void drop_another(struct crash_worker *worker)
{
	const struct segue_attach_options options = {.size = sizeof(options),
		.start = SEGUE_START_FRESH,
		.timeout_ns = INT64_C(40000000000)};
	static const int64_t states[CRASH_ROWS * STATE_WORDS];

	open_stream(worker, "another");
	TRY(worker, "attach", 0, segue_lane_attach(worker->stream, 0, &options, &worker->lane[0]));
	TRY(worker, "next", 0, segue_lane_next(worker->lane[0], SEGUE_FOREVER, &worker->batch));
	TRY(worker, "save", 0, segue_batch_save_state(worker->batch, 0, states, sizeof(states)));
	commit(worker, 0);
	segue_batch_release(worker->batch);
	worker->batch = NULL;
	segue_lane_close(worker->lane[0]);
	worker->lane[0] = NULL;
	/* Also where that had no memory to say so, no lane is held when the stream is closed. */
	segue_stream_close(worker->stream);
	worker->stream = NULL;
	change_states(worker);
	TRY(worker, "drop", 0, while_busy(segue_client_stream_drop(worker->client, "another")));
	worker->world->ledger->dropped = true;
}

void crash_session(struct crash_world *world)
{
	struct crash_worker worker = {
		.world = world, .refusals = world->refusals, .patient = world->patient};
	struct crash_ledger *ledger = world->ledger;

	if (!ledger->dropped)
		drop_another(&worker);
	crash_worker_open(&worker, 0, CRASH_LANES);
	if (ledger->stage == 0) {
		run_to(&worker, CHECKPOINT_AT);
		ledger->stage = 1;
	}
	if (ledger->stage == 1) {
		resume(&worker);
		for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
			crash_worker_checkpoint(&worker, lane);
		run_to(&worker, RESTORE_AT);
		ledger->stage = 2;
	}
	if (ledger->stage == 2) {
		for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
			crash_worker_restore(&worker, lane);
		ledger->stage = 3;
	}
	if (ledger->stage == 3) {
		run_to(&worker, CLOSE_AT);
		ledger->stage = 4;
		crash_worker_close(&worker);
		crash_worker_open(&worker, 0, CRASH_LANES);
	}
	run_to(&worker, CRASH_SESSION_STEPS);
	crash_worker_close(&worker);
	ledger->stage = 5;
}

/* ---- Processes ---- */

/* The children of a process, by its thread's file in /proc. */
static size_t list_children(pid_t pid, pid_t *out, size_t room)
{
	char path[64];
	size_t count = 0;
	int child;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	while (count < room && fscanf(file, "%d", &child) == 1)
		out[count++] = child;
	fclose(file);
	return count;
}

static void kill_below(pid_t pid)
{
	pid_t children[64];
	size_t count = list_children(pid, children, 64);

	for (size_t i = 0; i < count; i++) {
		kill_below(children[i]);
		kill(children[i], SIGKILL);
	}
}

/* Reaps what has ended; false: there is nobody left. */
static bool reap(bool any_end)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (!any_end && WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
			crash_die("process %d ended by signal %d", (int)pid, WTERMSIG(status));
	return pid == 0;
}

void crash_kill_all(void)
{
	do {
		kill_below(getpid());
		usleep(200);
	} while (reap(true));
}

bool crash_await_all(int64_t ns)
{
	int64_t until = crash_now() + ns;

	while (reap(false)) {
		if (crash_now() > until)
			return false;
		usleep(200);
	}
	return true;
}

pid_t crash_server_pid(const struct crash_world *world)
{
	char path[SEGUE_TMPDIR_MAX + 16];
	int pid = 0;

	snprintf(path, sizeof(path), "%s/server.pid", world->dir);
	FILE *file = fopen(path, "re");
	if (file) {
		if (fscanf(file, "%d", &pid) != 1)
			pid = 0;
		fclose(file);
	}
	return pid;
}

void crash_check_end(const struct crash_world *world, int status, const char *where)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == CRASH_DONE)
		return;
	if (WIFEXITED(status))
		crash_die("%s: a worker: %s (status %d, stage %u)", where, world->ledger->message,
			WEXITSTATUS(status), world->ledger->stage);
	crash_die("%s: a worker ended by signal %d", where, WTERMSIG(status));
}

pid_t crash_start_wanderer(struct crash_world *world, uint32_t lane, uint64_t seed, uint64_t until)
{
	struct crash_worker worker = {.world = world, .refusals = world->refusals};
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		crash_die("fork: %s", strerror(errno));
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(CRASH_REFUSED);
	crash_worker_open(&worker, lane, 1);
	crash_worker_wander(&worker, lane, crash_mix(seed + lane), until);
	crash_worker_close(&worker);
	_exit(CRASH_DONE);
}

void crash_finish_in_order(struct crash_world *world, uint64_t seed, const char *where)
{
	const int64_t patience = INT64_C(60000000000);
	const uint64_t few = 5;

	for (uint32_t lane = 0; lane < CRASH_LANES; lane++) {
		const struct crash_lane *state = &world->ledger->lane[lane];
		uint64_t high = state->rewound > state->due ? state->rewound : state->due;
		pid_t pid = crash_start_wanderer(world, lane, seed, high + few);
		int status;
		if (waitpid(pid, &status, 0) != pid)
			crash_die("waitpid: %s", strerror(errno));
		crash_check_end(world, status, where);
	}
	if (!crash_await_all(patience))
		crash_die("%s: a process was left behind", where);
	crash_check_files(world, false, where);
	crash_check_store(world, where);
}

/* ---- The oracle ---- */

/* States that are stored. */
struct found {
	uint64_t count;
	uint64_t words[ROWS_MAX][STATE_WORDS];
};

static int visit_row(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct found *found = arg;
	struct segue_row row;

	(void)key;
	(void)key_size;
	int rc = segue_row_get(value, value_size, STATE_BYTES, &row);
	if (rc)
		return rc;
	if (found->count == ROWS_MAX)
		return segue_fail(SEGUE_ESTORE, "more rows than there can be");
	memcpy(found->words[found->count++], row.states, STATE_BYTES);
	return 0;
}

static void read_table(
	struct segue_store *store, enum segue_table table, struct found *found, const char *where)
{
	found->count = 0;
	if (segue_store_scan(store, table, NULL, 0, visit_row, NULL, found))
		crash_die("%s: %s: %s", where, segue_table_name(table), segue_error_detail());
}

/* Takes the states after `row` out of those that were found. */
static bool take(struct found *found, const struct crash_row *row)
{
	for (uint64_t i = 0; row && i < found->count; i++) {
		if (found->words[i][0] != state_after(row->number, row->segment, 0) ||
			found->words[i][1] != state_after(row->number, row->segment, 1))
			continue;
		found->count--;
		memcpy(found->words[i], found->words[found->count], STATE_BYTES);
		return true;
	}
	return false;
}

/* Rows of a lane at `step` that go on: in the table, which is then without them. */
static void take_live(const struct crash_world *world, uint32_t lane, uint64_t step,
	struct found *found, const char *where)
{
	for (uint32_t i = 0; step > 0 && i < CRASH_ROWS; i++) {
		const struct crash_row *row = row_at(world, lane, step - 1, i);
		if (!row->last && row->number != SEGUE_NO_SEQUENCE && !take(found, row))
			crash_die("%s: the states of a row of lane %u at step %llu are missing",
				where, lane, (unsigned long long)step);
	}
}

/* Of each record the last end in a lane. */
static void find_ends(const struct crash_world *world, uint32_t lane, uint64_t step,
	const struct crash_row *ends[CRASH_RECORDS])
{
	for (uint64_t at = 0; at < step; at++) {
		for (uint32_t i = 0; i < CRASH_ROWS; i++) {
			const struct crash_row *row = row_at(world, lane, at, i);
			if (row->last)
				ends[segue_plan_record(plan_spec(lane), row->number)] = row;
		}
	}
}

/* Takes out the ends of both lanes, from the last backwards, as long as there are others. */
static void take_ends(const struct crash_world *world, struct found *found)
{
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++) {
		for (uint64_t at = world->ledger->lane[lane].due; at-- > 0 && found->count > 0;) {
			for (uint32_t i = 0; i < CRASH_ROWS; i++) {
				const struct crash_row *row = row_at(world, lane, at, i);
				if (row->last)
					take(found, row);
			}
		}
	}
}

/* The number of the stream; 0 if there is none yet. A failed attempt to make one may take one up. */
static uint32_t stored_stream(struct segue_store *store, const char *where)
{
	struct segue_stream_record record;
	uint8_t hash[SEGUE_STORE_KEY_MAX];
	size_t key_size, size;
	void *value;
	const void *key = segue_key_stream("train", hash, &key_size);
	int rc = segue_store_get(store, SEGUE_TABLE_STREAMS, key, key_size, &value, &size);

	if (rc == SEGUE_ENOTFOUND)
		return 0;
	if (!rc)
		rc = segue_stream_record_unpack(value, size, &record);
	if (rc)
		crash_die("%s: the stream: %s", where, segue_error_detail());
	segue_free(value);
	segue_spec_destroy(record.spec);
	return record.id;
}

/* The step at which a lane is stored; 0 if it is not. */
static uint64_t stored_step(struct segue_store *store, uint32_t lane, const char *where)
{
	const struct segue_place place = {.stream = stored_stream(store, where), .lane = lane};
	struct segue_lane_record record;
	int rc = segue_lanes_load(store, place, &record);

	if (rc == SEGUE_ENOTFOUND)
		return 0;
	if (rc)
		crash_die("%s: lane %u: %s", where, lane, segue_error_detail());
	uint64_t step = record.position->step;
	free(record.position);
	return step;
}

/* For a message: where a record ended, and where the lanes are. */
static const char *describe_end(const struct crash_world *world,
	const struct crash_row *ends[CRASH_LANES][CRASH_RECORDS], uint32_t record)
{
	static char text[256];
	int size = 0;

	for (uint32_t lane = 0; lane < CRASH_LANES; lane++) {
		const struct crash_lane *state = &world->ledger->lane[lane];
		const struct crash_row *row = ends[lane][record];
		uint64_t at = row ? (uint64_t)(row - row_at(world, lane, 0, 0)) / CRASH_ROWS : 0;
		size += snprintf(text + size, sizeof(text) - (size_t)size,
			"lane %u at %llu (token of %llu), ended in batch %lld; ", lane,
			(unsigned long long)state->due, (unsigned long long)state->token_step,
			row ? (long long)at : -1LL);
	}
	return text;
}

/* The rows of both lanes at the steps of the ledger, and no others. */
static void check_rows(
	const struct crash_world *world, struct segue_store *store, const char *where)
{
	const struct crash_row *ends[CRASH_LANES][CRASH_RECORDS] = {0};
	struct found found;
	bool rewound = false;

	read_table(store, SEGUE_TABLE_STATES, &found, where);
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++) {
		const struct crash_lane *state = &world->ledger->lane[lane];
		take_live(world, lane, state->due, &found, where);
		find_ends(world, lane, state->due, ends[lane]);
		rewound = rewound || state->due < state->rewound;
	}
	if (found.count)
		crash_die("%s: %llu rows are stored that no lane has", where,
			(unsigned long long)found.count);
	/* What ended beyond the token that a lane went back to may still be there. */
	if (rewound)
		return;
	read_table(store, SEGUE_TABLE_FINALS, &found, where);
	/* A record's epochs may be of different lanes: one of the last ends is there, and older ones
	 * may be. */
	for (uint32_t record = 0; record < CRASH_RECORDS; record++) {
		if (!ends[0][record] && !ends[1][record])
			continue;
		bool first = take(&found, ends[0][record]), other = take(&found, ends[1][record]);
		if (!first && !other)
			crash_die("%s: the last states of record %u are missing: %s", where, record,
				describe_end(world, ends, record));
	}
	take_ends(world, &found);
	if (found.count)
		crash_die("%s: %llu last states are stored of sequences that have not ended", where,
			(unsigned long long)found.count);
}

/* NULL: no store was made yet. */
static struct segue_store *open_store(const struct crash_world *world, const char *where)
{
	struct segue_store_verified verified;
	struct segue_store *store;
	int rc = segue_store_verify(world->dir, NULL, NULL, &verified);

	if (rc == 0)
		rc = segue_store_open(world->dir, SEGUE_STORE_READ, &store);
	if (rc && rc != SEGUE_ENOTFOUND)
		crash_die("%s: the store: %s", where, segue_error_detail());
	return rc ? NULL : store;
}

void crash_check_store(const struct crash_world *world, const char *where)
{
	struct segue_store *store = open_store(world, where);

	if (!store)
		crash_die("%s: there is no store", where);
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++) {
		uint64_t due = world->ledger->lane[lane].due,
			 step = stored_step(store, lane, where);
		if (step != due)
			crash_die("%s: lane %u is stored at step %llu, acknowledged were %llu",
				where, lane, (unsigned long long)step, (unsigned long long)due);
	}
	check_rows(world, store, where);
	segue_store_close(store);
}

/* Puts the ledger where the store is, if it may be there. */
static void settle_after_crash(struct crash_world *world, uint32_t lane, uint64_t step,
	int64_t crashed_at, const char *where)
{
	const int64_t slack = INT64_C(1000000000); /* a thread may have to wait for its turn */
	struct crash_lane *state = &world->ledger->lane[lane];
	bool back = state->restoring && step == state->token_step;

	if (!back && (step < state->low || step > state->committing))
		crash_die("%s: lane %u is stored at step %llu: acknowledged were %llu, begun %llu, "
			  "the lowest allowed is %llu",
			where, lane, (unsigned long long)step, (unsigned long long)state->due,
			(unsigned long long)state->committing, (unsigned long long)state->low);
	if (!back && step < state->due) {
		int64_t age = crashed_at - state->acknowledged_at[step % CRASH_TIMES];
		if (state->due - step < CRASH_TIMES &&
			age > world->interval_ms * INT64_C(1000000) + slack)
			crash_die("%s: lane %u: a commit %lld ms old is lost", where, lane,
				(long long)age / 1000000);
		if (state->due - step > state->lost)
			state->lost = state->due - step;
		if (age > state->lost_ns)
			state->lost_ns = age;
	}
	state->restoring = false;
	/* A token does not hold the last states of what ended since: not one to jump ahead to. */
	if (state->token_step > step)
		state->token_size = 0;
	state->low = state->durable = state->committing = state->due = step;
}

void crash_check_after_crash(struct crash_world *world, int64_t crashed_at, const char *where)
{
	struct segue_store *store;

	if (world->ledger->wrong)
		crash_die("%s: a worker: %s", where, world->ledger->message);
	store = open_store(world, where);
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
		settle_after_crash(world, lane, store ? stored_step(store, lane, where) : 0,
			crashed_at, where);
	if (!store)
		return;
	check_rows(world, store, where);
	segue_store_close(store);
}

static bool is_one_of(const char *name, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(name, *list) == 0)
			return true;
	return false;
}

/* `allowed` and nothing else; returns whether one of `after_kill` is there. */
static bool check_names(const char *dir, const char *const *allowed, const char *const *after_kill,
	bool killed, const char *where)
{
	DIR *stream = opendir(dir);
	struct dirent *entry;
	bool left = false;

	if (!stream)
		crash_die("%s: %s: %s", where, dir, strerror(errno));
	while ((entry = readdir(stream))) {
		if (is_one_of(entry->d_name, allowed))
			continue;
		if (!killed || !is_one_of(entry->d_name, after_kill))
			crash_die("%s: %s was left in %s", where, entry->d_name, dir);
		left = true;
	}
	closedir(stream);
	return left;
}

bool crash_check_files(const struct crash_world *world, bool killed, const char *where)
{
	static const char *const run[] = {
		".", "..", "store", "start.lock", "server.log", "server.pid", NULL};
	static const char *const run_killed[] = {"segue.sock", NULL};
	static const char *const run_inserted[] = {
		".", "..", "store", "log", "start.lock", "server.log", "server.pid", NULL};
	static const char *const store[] = {".", "..", "data.mdb", "lock.mdb", NULL};
	static const char *const none[] = {NULL};
	char path[SEGUE_TMPDIR_MAX + 8];

	bool left = check_names(
		world->dir, world->inserts ? run_inserted : run, run_killed, killed, where);
	snprintf(path, sizeof(path), "%s/store", world->dir);
	check_names(path, store, none, killed, where);
	return left;
}
