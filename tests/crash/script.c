/* Transactions that are functions of their number, and what they leave: script.h. */
#include "script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "disk.h"
#include "mutants.h"
#include "trace.h"
#include "core/error.h"
#include "store/finals.h"
#include "store/lanes.h"
#include "store/row.h"
#include "tmpdir.h"

#define LANES   3
#define ROWS    4
#define RECORDS 11
#define FINALS  160 /* that a lane can have */
#define SEQ_KEY "script.seq"
#define INDEX   "script.index"
#define PIECES  3

#define ROW_MAX 2600

static const uint64_t row_sizes[LANES] = {248, 72, ROW_MAX};

struct final {
	char key[32];
	uint8_t *states; /* shared with the image that it came from, never freed */
};

struct lane {
	struct segue_image *image; /* NULL: the lane has no record yet */
	uint64_t generation;
	uint64_t written;        /* the transaction that wrote it last */
	bool replaced;           /* by that one, which put an earlier image in its place */
	struct segue_kept *kept; /* rows that ended on the way there */
	struct final finals[FINALS];
	int final_count;
};

/* What the store holds after a transaction. */
static struct state {
	struct lane lane[LANES];
} * states;
static uint64_t last_state;

/* What a clean run leaves: per transaction the sum over all values, and each value ever written. */
static uint64_t *digests, *ever;
static size_t ever_count, ever_room;

static struct segue_plan_spec plan_specs[LANES];

static void fail(const char *what, uint64_t n)
{
	fprintf(stderr, "script: %s (transaction %llu): %s\n", what, (unsigned long long)n,
		segue_error_detail());
	abort();
}

static struct segue_place place_of(int lane)
{
	return (struct segue_place){.stream = 1 + (uint32_t)lane, .lane = (uint32_t)lane};
}

/* ---- The model ---- */

static int admit(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	(void)arg, (void)number;
	*array_steps = *total_length = 1 + disk_mix(77, record) % 9;
	return 0;
}

static uint32_t name_of(uint64_t number, char name[32])
{
	return (uint32_t)snprintf(name, 32, "sequence-%03llu", (unsigned long long)number);
}

/* The states after a segment, from those before it (NULL: it is the first). */
static void compute(uint8_t *out, const uint8_t *in, uint64_t size, uint64_t seed)
{
	uint64_t sum = in ? XXH3_64bits(in, size) : 0;

	for (uint64_t i = 0; i < size; i += 8) {
		uint64_t word = disk_mix(seed ^ sum, i);
		memcpy(out + i, &word, sizeof(word));
	}
}

static const uint8_t *states_before(const struct segue_image *image, uint64_t number)
{
	for (uint32_t row = 0; image && row < image->position->rows; row++)
		if (image->position->row[row].number == number)
			return image->states + row * image->row_size;
	return NULL;
}

static void keep_row(struct lane *lane, const struct segue_image *image, uint32_t row)
{
	const struct segue_image_key *key = &image->key[row];
	struct segue_kept **last = &lane->kept, *kept = calloc(1, sizeof(*kept) + image->row_size);

	if (!kept)
		fail("no memory", 0);
	*kept = (struct segue_kept){.step = image->position->step - 1,
		.number = image->position->row[row].number,
		.key_size = key->size,
		.key = key->bytes,
		.states = kept->bytes};
	memcpy(kept->bytes, image->states + row * image->row_size, image->row_size);
	while (*last)
		last = &(*last)->next;
	*last = kept;
	struct final *final = lane->finals;
	while (final < lane->finals + lane->final_count &&
		(strlen(final->key) != key->size || memcmp(final->key, key->bytes, key->size) != 0))
		final++;
	if (final == lane->finals + lane->final_count && lane->final_count++ == FINALS)
		fail("too many sequences", 0);
	snprintf(final->key, sizeof(final->key), "%.*s", (int)key->size, key->bytes);
	final->states = kept->states;
}

/* One batch. Images are shared between states, and never freed. */
static void step_lane(struct lane *lane, int index, struct segue_plan *plan)
{
	const struct segue_plan_input input = {.admit = admit};
	struct segue_slot_span spans[ROWS];
	uint32_t rows;
	char name[32];

	if (segue_plan_step(plan, &input, spans, &rows) != 1)
		fail("the plan", 0);
	struct segue_image *image =
		segue_image_create(&plan_specs[index], plan->position, row_sizes[index]);
	if (!image)
		fail("no memory", 0);
	for (uint32_t row = 0; row < rows; row++) {
		const struct segue_plan_row *at = &image->position->row[row];
		compute(image->states + row * image->row_size,
			at->segment ? states_before(lane->image, at->number) : NULL,
			image->row_size,
			disk_mix(lane->generation * 1000003 + at->number, at->segment));
		if (segue_image_set_key(image, row, name, name_of(at->number, name)))
			fail("no memory", 0);
		if (!segue_plan_row_lives(&plan_specs[index], at))
			keep_row(lane, image, row);
	}
	lane->image = image;
}

static void advance(struct lane *lane, int index, uint64_t steps)
{
	struct segue_plan plan = {0};

	if (segue_plan_init(&plan, &plan_specs[index]) ||
		(lane->image && segue_plan_seek(&plan, lane->image->position)))
		fail("the plan", 0);
	for (uint64_t i = 0; i < steps; i++)
		step_lane(lane, index, &plan);
	segue_plan_finish(&plan);
}

/* What transaction n makes of the lane. */
static void change_lane(struct lane *lane, int index, uint64_t n)
{
	uint64_t random = disk_mix(n * LANES + (uint64_t)index, 5);
	uint64_t back = n > 1 ? 1 + (random >> 8) % (n - 1 < 6 ? n - 1 : 6) : 0;

	lane->replaced = n > 4 && random % 7 == 0 && states[n - 1 - back].lane[index].image;
	if (random % 7 == 1 && n > 1)
		return; /* not this time */
	lane->kept = NULL;
	lane->written = n;
	if (lane->replaced) {
		lane->image = states[n - 1 - back].lane[index].image;
		lane->generation++;
		return;
	}
	advance(lane, index, 1 + random % 7 / 5);
}

static void init(uint64_t last)
{
	states = calloc(last + 1, sizeof(*states));
	digests = calloc(last + 1, sizeof(*digests));
	if (!states || !digests)
		fail("no memory", 0);
	last_state = last;
	for (int lane = 0; lane < LANES; lane++)
		plan_specs[lane] = (struct segue_plan_spec){.records = RECORDS,
			.ends = {1, {0}},
			.seed = 3,
			.lanes = LANES,
			.lane = (uint32_t)lane,
			.batch_size = ROWS - (uint32_t)lane % 2,
			.num_unroll = 2,
			.shuffle = true};
	for (uint64_t n = 1; n <= last; n++) {
		states[n] = states[n - 1];
		for (int lane = 0; lane < LANES; lane++)
			change_lane(&states[n].lane[lane], lane, n);
	}
}

/* ---- Its operations ---- */

static struct segue_lane_record record_of(const struct lane *lane)
{
	struct segue_lane_record record = {.generation = 1 + lane->generation,
		.held = true,
		.holder = {.pid = 4711, .start_time = 12345},
		.committed_ms = (int64_t)lane->written};

	memset(record.token, (int)lane->generation, sizeof(record.token));
	return record;
}

static int lane_ops(struct segue_ops *ops, int index, uint64_t n)
{
	const struct lane *lane = &states[n].lane[index], *before = &states[n - 1].lane[index];
	const struct segue_lane_record record = record_of(lane);
	struct segue_account account = {0};
	int rc = 0;

	if (lane->written != n)
		return 0;
	if (before->image)
		rc = segue_account_init(&account, ROWS);
	if (before->image && !rc)
		segue_account_settle(&account, before->image);
	if (!rc && lane->replaced)
		rc = segue_lanes_clear(ops, place_of(index));
	else if (!rc)
		rc = segue_finals_put(ops, place_of(index), row_sizes[index], lane->kept,
			account.durable, lane->image->position->step);
	if (!rc)
		rc = segue_lanes_put_image(ops, place_of(index), &record, lane->image, &account);
	segue_account_finish(&account);
	return rc;
}

/* The number itself, and at times pieces of an index in place of those before. */
static int other_ops(struct segue_ops *ops, uint64_t n)
{
	uint64_t *seq = malloc(sizeof(*seq));
	char key[32];

	if (!seq)
		return segue_fail(SEGUE_ENOMEM, "a number");
	*seq = n;
	int rc = segue_ops_put(ops, SEGUE_TABLE_META, SEQ_KEY, strlen(SEQ_KEY), seq, sizeof(*seq));
	if (rc || n % 5 != 2)
		return rc;
	rc = segue_ops_remove_prefix(ops, SEGUE_TABLE_INDEX, INDEX, strlen(INDEX));
	for (int i = 0; !rc && i < PIECES; i++) {
		size_t size = 1000 + disk_mix(n, (uint64_t)i) % 9000 / 8 * 8;
		uint8_t *piece = malloc(size);
		if (!piece)
			return segue_fail(SEGUE_ENOMEM, "a piece");
		compute(piece, NULL, size, n * PIECES + (uint64_t)i);
		snprintf(key, sizeof(key), INDEX "-%d", i);
		rc = segue_ops_put(ops, SEGUE_TABLE_INDEX, key, strlen(key), piece, size);
	}
	return rc;
}

/* At times states are put under a key, or deleted: learn() sees to it that they are there. */
static int put_ops(struct segue_ops *ops, uint64_t n)
{
	const int index = (int)(n / 4 % LANES);
	const struct lane *lane = &states[n].lane[index];
	uint8_t bytes[ROW_MAX];

	if (n % 4 != 1 || !lane->image)
		return 0;
	compute(bytes, NULL, row_sizes[index], n);
	const struct segue_row row = {
		.key = "put", .key_size = 3, .states = n % 16 == 9 ? NULL : bytes};
	return segue_finals_set(ops, place_of(index), 0, row_sizes[index], &row, n / 24,
		lane->image->position->step);
}

/* The operations of one of the tables, or of all but it, or (0) of all. */
static int apply_part(struct segue_store *store, const struct segue_ops *ops, bool lanes)
{
	struct segue_store_op *part = calloc(ops->count, sizeof(*part));
	size_t count = 0;

	if (!part)
		return segue_fail(SEGUE_ENOMEM, "operations");
	for (size_t i = 0; i < ops->count; i++)
		if ((ops->op[i].table == SEGUE_TABLE_LANES) == lanes)
			part[count++] = ops->op[i];
	int rc = segue_store_apply(store, part, count);
	free(part);
	return rc;
}

static bool restores(uint64_t n)
{
	for (int lane = 0; lane < LANES; lane++)
		if (states[n].lane[lane].written == n && states[n].lane[lane].replaced)
			return true;
	return false;
}

static int apply(struct segue_store *store, uint64_t n, const char *mistake)
{
	struct segue_ops ops = {0};
	int rc = 0;

	if (strcmp(mistake, "restore_apart") == 0 && restores(n)) {
		for (int lane = 0; !rc && lane < LANES; lane++)
			if (states[n].lane[lane].written == n && states[n].lane[lane].replaced)
				rc = segue_lanes_clear(&ops, place_of(lane));
		if (!rc)
			rc = segue_store_apply(store, ops.op, ops.count);
		segue_ops_truncate(&ops, 0);
	}
	for (int lane = 0; !rc && lane < LANES; lane++)
		rc = lane_ops(&ops, lane, n);
	if (!rc)
		rc = put_ops(&ops, n);
	if (!rc)
		rc = other_ops(&ops, n);
	if (!rc && strcmp(mistake, "position_apart") == 0)
		rc = apply_part(store, &ops, true);
	if (!rc && strcmp(mistake, "position_apart") == 0)
		rc = apply_part(store, &ops, false);
	else if (!rc)
		rc = segue_store_apply(store, ops.op, ops.count);
	segue_ops_finish(&ops);
	return rc;
}

/* ---- What must be there ---- */

#define WRONG(...) (snprintf(why, ORACLE_WHY, __VA_ARGS__), false)

static bool right_rows(struct segue_store *store, int index, const struct lane *lane, char *why)
{
	struct segue_image *image;
	bool right = true;

	if (segue_lanes_load_image(store, place_of(index), &plan_specs[index],
		    lane->image->position, row_sizes[index], &image))
		return WRONG("lane %d: %.140s", index, segue_error_detail());
	for (uint32_t row = 0; right && row < image->position->rows; row++) {
		size_t at = row * image->row_size;
		if (!segue_plan_row_lives(&plan_specs[index], &image->position->row[row]))
			continue;
		right = image->key[row].size == lane->image->key[row].size &&
			memcmp(image->key[row].bytes, lane->image->key[row].bytes,
				image->key[row].size) == 0 &&
			memcmp(image->states + at, lane->image->states + at, image->row_size) == 0;
		if (!right)
			snprintf(why, ORACLE_WHY, "lane %d: row %u has other states", index, row);
	}
	segue_image_destroy(image);
	return right;
}

static bool right_record(const struct segue_lane_record *record, const struct lane *lane, char *why)
{
	const struct segue_lane_record wanted = record_of(lane);
	const struct segue_position *position = lane->image->position;

	if (record->generation != wanted.generation)
		return WRONG("generation %llu where %llu was granted",
			(unsigned long long)record->generation,
			(unsigned long long)wanted.generation);
	if (record->committed_ms != wanted.committed_ms || record->held != wanted.held ||
		memcmp(record->token, wanted.token, sizeof(wanted.token)) != 0 ||
		record->holder.pid != wanted.holder.pid)
		return WRONG("another lane record");
	if (record->position->rows != position->rows ||
		memcmp(record->position, position, segue_position_size(position->rows)) != 0)
		return WRONG("a position at step %llu where step %llu is",
			(unsigned long long)record->position->step,
			(unsigned long long)position->step);
	return true;
}

struct finals {
	const struct state *state;
	uint64_t seen;
};

/* A value of FINALS; which key it has is not looked at: its row says whose it is. */
static int visit_final(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct finals *finals = arg;
	struct segue_row row;

	(void)key, (void)key_size;
	for (int lane = 0; lane < LANES; lane++) {
		if (segue_row_get(value, value_size, row_sizes[lane], &row))
			continue;
		for (int i = 0; i < finals->state->lane[lane].final_count; i++) {
			const struct final *final = &finals->state->lane[lane].finals[i];
			if (strlen(final->key) == row.key_size &&
				memcmp(final->key, row.key, row.key_size) == 0 &&
				memcmp(final->states, row.states, row_sizes[lane]) == 0)
				finals->seen++;
		}
	}
	return 0;
}

static bool right_finals(struct segue_store *store, const struct state *state, char *why)
{
	struct finals finals = {state, 0};
	uint64_t wanted = 0;

	for (int lane = 0; lane < LANES; lane++)
		wanted += (uint64_t)state->lane[lane].final_count;
	if (segue_store_scan(store, SEGUE_TABLE_FINALS, NULL, 0, visit_final, NULL, &finals))
		return WRONG("%.150s", segue_error_detail());
	if (finals.seen != wanted)
		return WRONG("final states of %llu sequences where %llu have ended",
			(unsigned long long)finals.seen, (unsigned long long)wanted);
	return true;
}

static bool right_lane(struct segue_store *store, int index, const struct lane *lane, char *why)
{
	struct segue_lane_record record;
	int rc = segue_lanes_load(store, place_of(index), &record);

	if (!lane->image)
		return rc == SEGUE_ENOTFOUND || WRONG("lane %d should not be there", index);
	if (rc)
		return WRONG("lane %d: %.140s", index, segue_error_detail());
	bool right = right_record(&record, lane, why);
	free(record.position);
	return right && right_rows(store, index, lane, why);
}

struct tour {
	uint64_t table, sum;
	bool learn; /* else look up */
	bool foreign;
};

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int visit(void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct tour *tour = arg;
	uint64_t mark = disk_mix(
		XXH3_64bits_withSeed(key, key_size, tour->table), XXH3_64bits(value, value_size));

	tour->sum += mark;
	if (tour->learn) {
		if (ever_count == ever_room) {
			ever_room = ever_room ? 2 * ever_room : 1024;
			ever = realloc(ever, ever_room * sizeof(*ever));
			if (!ever)
				fail("no memory", 0);
		}
		ever[ever_count++] = mark;
	} else if (!bsearch(&mark, ever, ever_count, sizeof(*ever), by_value)) {
		tour->foreign = true;
	}
	return 0;
}

static void pass_over(
	void *arg, enum segue_table table, const void *key, size_t key_size, const char *why)
{
	(void)arg, (void)table, (void)key, (void)key_size, (void)why;
}

/* Visits all values of all tables. */
static int tour_store(struct segue_store *store, struct tour *tour, bool damaged)
{
	for (int table = 1; table < SEGUE_TABLE_COUNT; table++) {
		tour->table = (uint64_t)table;
		int rc = segue_store_scan(store, (enum segue_table)table, NULL, 0, visit,
			damaged ? pass_over : NULL, tour);
		if (rc && !damaged)
			return rc;
	}
	return 0;
}

static int find_seq(struct segue_store *store, uint64_t *seq)
{
	void *value;
	size_t size;
	int rc = segue_store_get(store, SEGUE_TABLE_META, SEQ_KEY, strlen(SEQ_KEY), &value, &size);

	*seq = 0;
	if (rc)
		return rc == SEGUE_ENOTFOUND ? 0 : rc;
	memcpy(seq, value, sizeof(*seq));
	free(value);
	return 0;
}

/* All that the store holds is what the transaction that it names has left. */
static bool right_store(struct segue_store *store, uint64_t *seq, char *why)
{
	struct tour tour = {0};

	if (find_seq(store, seq))
		return WRONG("the number: %s", segue_error_detail());
	if (*seq > last_state)
		return WRONG("transaction %llu was never there", (unsigned long long)*seq);
	for (int lane = 0; lane < LANES; lane++)
		if (!right_lane(store, lane, &states[*seq].lane[lane], why))
			return false;
	if (!right_finals(store, &states[*seq], why))
		return false;
	if (ever && tour_store(store, &tour, false))
		return WRONG("%s", segue_error_detail());
	if (ever && tour.sum != digests[*seq])
		return WRONG("values that transaction %llu did not leave, or too few",
			(unsigned long long)*seq);
	return true;
}

/* ---- Running ---- */

/* In a process of its own, as a server does: a damaged file may end it. */
static void verify_apart(const char *dir)
{
	struct segue_store_verified verified;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int rc = segue_store_verify(dir, NULL, NULL, &verified);
		_exit(rc && rc != SEGUE_ENOTFOUND);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		fail("the store is not whole", 0);
}

/* After a failure nothing more is written, and what was there can be read. */
static void check_stopped(struct segue_store *store, uint64_t n)
{
	char why[ORACLE_WHY];
	uint64_t seq;

	for (int i = 0; i < 2; i++)
		if (apply(store, n, "") != SEGUE_ESTORE)
			fail("a store that failed has taken a write", n);
	if (!right_store(store, &seq, why)) {
		fprintf(stderr, "script: after a failure: %s\n", why);
		abort();
	}
	if (seq != n - 1 && seq != n)
		fail("after a failure the store is at another transaction", seq);
}

static int apply_marked(struct segue_store *store, uint64_t n, int fd, const char *mistake)
{
	int rc = SEGUE_ENOSPACE;

	trace_mark(fd, MARK_BEGIN, n, 0);
	if (strcmp(mistake, "ack_before_commit") == 0)
		trace_mark(fd, MARK_ACK, n, 0);
	for (int tries = 0; rc == SEGUE_ENOSPACE && tries < 3; tries++) {
		rc = apply(store, n, mistake);
		if (rc)
			trace_mark(fd, MARK_FAILED, n, (uint64_t)-rc);
	}
	if (!rc)
		trace_mark(fd, MARK_ACK, n, 0);
	return rc;
}

static int run(const char *dir, uint64_t last, uint64_t more, int fd, const char *mistake)
{
	struct segue_store *store;
	struct segue_store_stats stats;
	char why[ORACLE_WHY];
	uint64_t seq;

	verify_apart(dir);
	int rc = segue_store_open(dir, SEGUE_STORE_SERVE, &store);
	if (rc)
		return rc;
	segue_store_stats(store, &stats);
	if (!stats.was_clean && !stats.same_boot)
		rc = segue_store_trust(store);
	if (!rc && !right_store(store, &seq, why)) {
		fprintf(stderr, "script: at the start: %s\n", why);
		abort();
	}
	if (!rc)
		trace_mark(fd, MARK_START, seq, 0);
	while (!rc && seq < last && more-- > 0) {
		rc = apply_marked(store, ++seq, fd, mistake);
		if (rc && rc != SEGUE_ENOSPACE)
			check_stopped(store, seq);
	}
	segue_store_close(store);
	return rc;
}

static void learn(void)
{
	struct segue_tmpdir tmp;
	struct segue_store *store;
	char path[SEGUE_TMPDIR_MAX];

	segue_tmpdir_make(&tmp, "script");
	if (segue_store_open(segue_tmpdir_path(&tmp, "run", path), SEGUE_STORE_SERVE, &store))
		fail("a store to learn from", 0);
	for (uint64_t n = 0; n <= last_state; n++) {
		struct tour tour = {.learn = true};
		if ((n && apply(store, n, "")) || tour_store(store, &tour, false))
			fail("a store to learn from", n);
		digests[n] = tour.sum;
	}
	segue_store_close(store);
	segue_tmpdir_remove(&tmp);
	qsort(ever, ever_count, sizeof(*ever), by_value);
}

/* ---- The oracle ---- */

/* What a damaged store serves all the same was once written under that key. */
static enum verdict check_damaged(const char *dir, char why[ORACLE_WHY])
{
	struct tour tour = {0};
	struct segue_store *store;

	snprintf(why, ORACLE_WHY, "%.150s", segue_error_detail());
	if (segue_store_open(dir, SEGUE_STORE_READ, &store))
		return VERDICT_REFUSED;
	tour_store(store, &tour, true);
	segue_store_close(store);
	if (!tour.foreign)
		return VERDICT_REFUSED;
	snprintf(why, ORACLE_WHY, "a value is served that was never written under its key");
	return VERDICT_WRONG;
}

static enum verdict check(const char *dir, uint64_t seq[ORACLE_LINES], char why[ORACLE_WHY])
{
	struct segue_store_verified verified;
	struct segue_store_stats stats;
	struct segue_store *store;

	int rc = segue_store_verify(dir, NULL, NULL, &verified);
	if (rc && rc != SEGUE_ENOTFOUND)
		return check_damaged(dir, why);
	if (segue_store_open(dir, SEGUE_STORE_SERVE, &store)) {
		snprintf(why, ORACLE_WHY, "%.150s", segue_error_detail());
		return VERDICT_REFUSED;
	}
	segue_store_stats(store, &stats);
	enum verdict verdict = right_store(store, &seq[0], why) ? VERDICT_GOOD : VERDICT_WRONG;
	if (verdict == VERDICT_GOOD && !stats.was_clean && !stats.same_boot &&
		segue_store_trust(store)) { /* all is there, but nothing more is taken */
		snprintf(why, ORACLE_WHY, "%.150s", segue_error_detail());
		verdict = VERDICT_REFUSED;
	}
	segue_store_close(store);
	return verdict;
}

static const struct oracle oracle = {.name = "images", .lines = 1, .check = check};

static const struct script_mutant mutants[] = {
#define X(name, what) {MUTANT_LIE, #name, what},
	TRACE_LIES(X)
#undef X
		{MUTANT_MISTAKE, "ack_before_commit",
			"a transaction is acknowledged before it is applied"},
	{MUTANT_MISTAKE, "position_apart", "positions have a transaction of their own"},
	{MUTANT_MISTAKE, "restore_apart",
		"a restore removes the old rows in a transaction of its own"},
#define X(name, what) {MUTANT_CODE, #name, what},
	CODE_MUTANTS(X)
#undef X
		{0},
};

const struct script script = {
	.oracle = &oracle,
	.mutants = mutants,
	.short_write_ends = true,
	.init = init,
	.learn = learn,
	.run = run,
};
