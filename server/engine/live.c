/* The log of a live stream, among those who use it. */
#include "engine/live.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/list.h"
#include "engine/filler.h"
#include "engine/give_up.h"
#include "engine/readers.h"
#include "source/log/reading.h"
#include "store/lanes.h"
#include "store/logs.h"

struct segue_live {
	LIST_ENTRY(segue_live) link; /* of those that are open */
	struct segue_live_order order;
	struct segue_log *log;
	struct segue_source *source;
	struct segue_inserter *inserter;
	struct segue_give_up give_up;
	/* So much of the log until it is looked whether inserting has to wait; its thread's. */
	uint64_t look_at, look_at_bytes;
	_Atomic bool look_again; /* before that: somebody else reads it now */
	pthread_mutex_t lock;    /* of all below; held while fillers are kicked */
	pthread_cond_t synced;
	uint64_t syncs; /* tries to sync */
	bool left_out;  /* a transaction has left a lane out since the last of them */
	bool ended;     /* the input has, */
	uint64_t count; /* after so many of the stream's */
	uint64_t grown; /* lanes were told of so many of them */
	struct segue_readers readers;
	_Atomic bool full;
};

/* ---- Numbers of the log, and of the stream ---- */

static uint64_t there(const struct segue_live *live, uint64_t inserted)
{
	return segue_mix_there(&live->order.numbers, inserted);
}

uint64_t segue_live_inserted(const struct segue_live *live, uint64_t count)
{
	return segue_mix_inserted(&live->order.numbers, count);
}

uint64_t segue_live_capacity(const struct segue_live *live)
{
	return live->order.limits.capacity;
}

/* ---- What is known of it ---- */

static struct segue_log_known known_of(const struct segue_live *live)
{
	struct segue_log_known known = {.first = live->give_up.first};
	struct segue_log_stand stand;

	segue_log_look(live->log, &stand);
	memcpy(known.id, live->order.id, sizeof(known.id));
	known.synced = stand.synced;
	return known;
}

int segue_live_put(struct segue_live *live, struct segue_ops *ops)
{
	const struct segue_log_known known = known_of(live);

	return segue_logs_put_known(ops, live->order.stream, &known);
}

struct ending {
	struct segue_live *live;
	const struct segue_log_end *end;
};

static int add_end(void *arg, struct segue_ops *ops)
{
	const struct ending *ending = arg;
	int rc = segue_live_put(ending->live, ops);

	return rc ? rc : segue_logs_put_end(ops, ending->live->order.stream, ending->end);
}

/* ---- What the inserter calls ---- */

static void grown(void *arg, uint64_t sequences)
{
	struct segue_live *live = arg;
	uint32_t lanes = live->order.spec->lanes;
	uint64_t count = there(live, sequences);

	pthread_mutex_lock(&live->lock);
	uint64_t from = live->grown;
	/* Of more than one turn all lanes have their share. */
	for (uint64_t n = from; n < count && n - from < lanes; n++)
		segue_readers_kick(&live->readers, (uint32_t)(n % lanes));
	live->grown = count;
	pthread_mutex_unlock(&live->lock);
}

static void synced(void *arg)
{
	struct segue_live *live = arg;

	pthread_mutex_lock(&live->lock);
	bool left_out = live->left_out;
	live->left_out = false;
	live->syncs++;
	pthread_cond_broadcast(&live->synced);
	pthread_mutex_unlock(&live->lock);
	if (left_out)
		live->order.covered(live->order.arg);
}

static int store(void *arg, const struct segue_log_end *end)
{
	struct segue_live *live = arg;
	struct ending ending = {live, end};
	struct segue_change change = {
		.place = {.stream = live->order.stream}, .build = add_end, .arg = &ending};

	return segue_changes_make(live->order.changes, &change);
}

static void ended(void *arg, uint64_t sequences)
{
	struct segue_live *live = arg;

	segue_log_source_end(live->source, sequences);
	pthread_mutex_lock(&live->lock);
	live->ended = true;
	live->count = there(live, sequences);
	segue_readers_end(&live->readers, live->count);
	pthread_mutex_unlock(&live->lock);
}

/* ---- How far the lanes are ---- */

/*
 * Of the first `count` numbers those that the lane has not finished. What it is going to pass over
 * takes no place, or whoever inserts could wait for a batch that waits for what is inserted: nor do
 * those bytes, if nothing before them is needed (*floor).
 */
static uint64_t unfinished(const struct segue_live *live, struct segue_lane_reader *lane,
	uint32_t i, uint64_t count, uint64_t *floor)
{
	const struct segue_spec *spec = live->order.spec;
	uint64_t share = count > i ? (count - i - 1) / spec->lanes + 1 : 0;

	segue_lane_reader_look(lane);
	uint64_t before = share > lane->next ? share - lane->next : 0;

	*floor = lane->floor;
	if (spec->maximum_length && spec->on_too_long == SEGUE_ON_TOO_LONG_SKIP && before) {
		uint64_t within, next = lane->next * spec->lanes + i;

		before -= segue_log_longer(
			live->log, next, spec->lanes, count, spec->maximum_length, &within);
		*floor = lane->floor < next ? lane->floor : within;
	}
	return before + lane->rows;
}

/* The same of the group that has most, and the floor of the one that needs most. */
static uint64_t most_unfinished(
	const struct segue_live *live, uint32_t i, uint64_t count, uint64_t *floor)
{
	struct segue_readers_group *group;
	uint64_t most = 0, needs;

	*floor = UINT64_MAX;
	LIST_FOREACH(group, &live->readers.groups, link) {
		if (!segue_readers_count(&live->readers, group))
			continue;
		uint64_t has = unfinished(live, &group->lane[i], i, count, &needs);
		most = has > most ? has : most;
		*floor = needs < *floor ? needs : *floor;
	}
	return most;
}

/*
 * Looks at all lanes. If more can be inserted: how much, until it has to be looked again: what a
 * lane has room for goes to it by turns with the others.
 */
static bool look_at_lanes(struct segue_live *live, uint64_t count, uint64_t bytes)
{
	const struct segue_backlog_limits *limits = &live->order.limits;
	uint32_t lanes = live->order.spec->lanes;
	uint64_t least = UINT64_MAX, floor = count;

	for (uint32_t i = 0; i < lanes; i++) {
		uint64_t needs, has = most_unfinished(live, i, count, &needs);
		least = has < least ? has : least;
		floor = needs < floor ? needs : floor;
	}
	uint64_t spooled = segue_log_bytes_from(live->log, segue_live_inserted(live, floor));
	if (least >= limits->capacity || spooled >= limits->spool)
		return true;
	uint64_t turns = limits->capacity - least - 1;
	bool never = turns > (UINT64_MAX - count - 1) / lanes;
	/* The first of the log by which so many numbers are there. */
	live->look_at = never ? UINT64_MAX : segue_live_inserted(live, count + turns * lanes + 1);
	live->look_at_bytes = limits->spool - spooled > UINT64_MAX - bytes
				      ? UINT64_MAX
				      : bytes + limits->spool - spooled;
	return false;
}

static bool is_full(void *arg, uint64_t count)
{
	struct segue_live *live = arg;
	struct segue_log_stand stand;

	segue_log_look(live->log, &stand);
	if (!atomic_exchange(&live->look_again, false) && count < live->look_at &&
		stand.bytes < live->look_at_bytes)
		return false;
	live->full = true; /* before the look: whoever has moved since kicks */
	pthread_mutex_lock(&live->lock);
	bool full = look_at_lanes(live, there(live, count), stand.bytes);
	pthread_mutex_unlock(&live->lock);
	live->full = full;
	return full;
}

void segue_live_moved(struct segue_live *live)
{
	if (live->full)
		segue_inserter_kick(live->inserter);
}

struct segue_live_look *segue_live_look(struct segue_live *live)
{
	uint32_t lanes = live->order.spec->lanes;
	struct segue_live_look *look =
		calloc(1, sizeof(*look) + lanes * sizeof(look->unfinished[0]));

	if (!look)
		return NULL;
	segue_log_look(live->log, &look->log);
	look->limits = live->order.limits;
	pthread_mutex_lock(&live->lock);
	look->ended = live->ended;
	uint64_t count = there(live, look->log.written.number);
	for (uint32_t i = 0; i < lanes; i++) {
		uint64_t floor;

		look->unfinished[i] = most_unfinished(live, i, count, &floor);
	}
	pthread_mutex_unlock(&live->lock);
	return look;
}

uint64_t segue_live_behind(struct segue_live *live, uint32_t group, uint32_t lane)
{
	struct segue_log_stand stand;
	uint64_t behind = 0, floor;

	segue_log_look(live->log, &stand);
	pthread_mutex_lock(&live->lock);
	struct segue_readers_group *found = segue_readers_find(&live->readers, group);
	if (found && segue_readers_count(&live->readers, found))
		behind = unfinished(
			live, &found->lane[lane], lane, there(live, stand.written.number), &floor);
	pthread_mutex_unlock(&live->lock);
	return behind;
}

/* ---- Who reads it ---- */

int segue_live_add_group(struct segue_live *live, uint32_t group)
{
	pthread_mutex_lock(&live->lock);
	int rc = segue_readers_add(&live->readers, group);
	pthread_mutex_unlock(&live->lock);
	live->look_again = true;
	segue_live_moved(live);
	return rc;
}

void segue_live_drop_group(struct segue_live *live, uint32_t group)
{
	pthread_mutex_lock(&live->lock);
	segue_readers_remove(&live->readers, group);
	pthread_mutex_unlock(&live->lock);
	live->look_again = true;
	segue_live_moved(live);
	segue_live_stored(live);
}

void segue_live_join(struct segue_live *live, uint32_t group, struct segue_filler *filler,
	struct segue_carry *carry)
{
	uint32_t lane = segue_filler_plan(filler).lane;

	pthread_mutex_lock(&live->lock);
	struct segue_readers_group *found = segue_readers_find(&live->readers, group);
	if (!found->begun)
		live->look_again = true;
	found->begun = true;
	found->lane[lane].filler = filler;
	found->lane[lane].carry = carry;
	if (live->ended)
		segue_filler_end(filler, live->count);
	pthread_mutex_unlock(&live->lock);
	segue_filler_kick(filler); /* what came before was for nobody */
	segue_live_moved(live);
}

void segue_live_leave(struct segue_live *live, const struct segue_carry *carry)
{
	pthread_mutex_lock(&live->lock);
	segue_readers_leave(&live->readers, carry);
	pthread_mutex_unlock(&live->lock);
	/* Its last batches can become checkpoints no longer. */
	segue_live_stored(live);
}

/* ---- What is given up ---- */

static uint64_t needs_unstored(void *arg, struct segue_place place)
{
	struct segue_live *live = arg;
	uint64_t pinned =
		live->order.pinned ? live->order.pinned(live->order.arg, place) : SEGUE_NEVER;

	pthread_mutex_lock(&live->lock);
	struct segue_readers_group *group = segue_readers_find(&live->readers, place.group);
	uint64_t needs =
		group ? segue_lane_reader_needs(&group->lane[place.lane], pinned) : UINT64_MAX;
	pthread_mutex_unlock(&live->lock);
	return needs;
}

static int put_known(void *arg, struct segue_ops *ops)
{
	return segue_live_put(arg, ops);
}

static void give_up(void *arg)
{
	struct segue_live *live = arg;

	segue_give_up(&live->give_up);
}

static void prepare_giving_up(struct segue_live *live)
{
	struct segue_give_up *give_up = &live->give_up;

	give_up->log = live->log;
	give_up->retain = live->order.retain;
	give_up->store = live->order.store;
	give_up->changes = live->order.changes;
	give_up->spec = live->order.spec;
	give_up->numbers = &live->order.numbers;
	give_up->stream = live->order.stream;
	give_up->needs_unstored = needs_unstored;
	give_up->put = put_known;
	give_up->arg = live;
}

void segue_live_stored(struct segue_live *live)
{
	if (live->give_up.held_back)
		segue_inserter_spare(live->inserter);
}

/* ---- Life ---- */

/*
 * A log is open once. A stream that nobody waits for any more, and that another of its name has
 * taken the place of, may not be through with its own.
 */
static pthread_mutex_t claims_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t claims_left = PTHREAD_COND_INITIALIZER;
static LIST_HEAD(, segue_live) claims = LIST_HEAD_INITIALIZER(claims);

static bool is_claimed(const struct segue_live *live)
{
	const struct segue_live *other;

	LIST_FOREACH(other, &claims, link) {
		if (other->order.store == live->order.store &&
			other->order.stream == live->order.stream)
			return true;
	}
	return false;
}

static void claim(struct segue_live *live)
{
	pthread_mutex_lock(&claims_lock);
	while (is_claimed(live))
		pthread_cond_wait(&claims_left, &claims_lock);
	LIST_INSERT_HEAD(&claims, live, link);
	pthread_mutex_unlock(&claims_lock);
}

static void let_go(struct segue_live *live)
{
	pthread_mutex_lock(&claims_lock);
	LIST_REMOVE(live, link);
	pthread_cond_broadcast(&claims_left);
	pthread_mutex_unlock(&claims_lock);
}

static int make(struct segue_live *live, const struct segue_log_means *means)
{
	struct segue_ops ops = {0};

	int rc = segue_log_create(means, live->order.id, &live->log);
	if (!rc)
		rc = segue_live_put(live, &ops);
	if (!rc)
		rc = segue_changes_apply(live->order.changes, &ops);
	segue_ops_finish(&ops);
	return rc;
}

static int open_known(struct segue_live *live, const struct segue_log_means *means,
	const struct segue_stored_log *stored)
{
	if (memcmp(stored->known.id, live->order.id, sizeof(stored->known.id)) != 0)
		return segue_fail(SEGUE_ESTORE,
			"the store has another log under stream %" PRIu32
			" than the stream was made with: restore a backup",
			live->order.stream);
	live->give_up.first = stored->known.first;
	return segue_log_open(means, &stored->known, &live->log);
}

static int open_log(struct segue_live *live, struct segue_stored_log *stored)
{
	struct segue_seqfile_head head;

	int rc = segue_insert_fields(live->order.spec, &head);
	if (rc)
		return rc;
	const struct segue_log_means means = {.dir = live->order.dir,
		.fields = head.fields,
		.count = head.count,
		.file_bytes = live->order.file_bytes};
	rc = segue_logs_load(live->order.store, live->order.stream, stored);
	if (rc == SEGUE_ENOTFOUND)
		rc = make(live, &means);
	else if (!rc)
		rc = open_known(live, &means, stored);
	segue_seqfile_free_head(&head);
	return rc;
}

static int start(struct segue_live *live, const struct segue_log_end *end)
{
	const struct segue_spec *spec = live->order.spec;
	const struct segue_inserter_order order = {
		.log = live->log,
		.stored = end,
		.expected = live->order.producers,
		.most = live->order.numbers.end == UINT64_MAX
				? UINT64_MAX
				: segue_live_inserted(live, live->order.numbers.end),
		.commit = spec->durability == SEGUE_DURABLE_COMMIT,
		.interval_ns = spec->interval_ms * INT64_C(1000000),
		.is_full = is_full,
		.grown = grown,
		.synced = synced,
		.store = store,
		.give_up = give_up,
		.ended = ended,
		.arg = live,
	};
	struct segue_log_stand stand;

	prepare_giving_up(live);
	segue_log_look(live->log, &stand);
	live->grown = there(live, stand.written.number);
	live->ended = end && end->ended;
	live->count = live->ended ? there(live, end->count) : 0;
	if (live->ended)
		segue_log_source_end(live->source, end->count);
	return segue_inserter_create(&order, &live->inserter);
}

int segue_live_open(const struct segue_live_order *order, struct segue_live **out)
{
	struct segue_live *live = calloc(1, sizeof(*live));
	struct segue_stored_log stored = {.some = false};

	if (!live)
		return segue_fail(SEGUE_ENOMEM, "no memory for a log");
	live->order = *order;
	pthread_mutex_init(&live->lock, NULL);
	pthread_cond_init(&live->synced, NULL);
	claim(live);
	int rc = segue_readers_load(
		&live->readers, live->order.store, live->order.stream, live->order.spec);
	if (!rc)
		rc = open_log(live, &stored);
	if (!rc)
		rc = segue_log_source_create(order->spec, live->log, &live->source);
	if (!rc)
		rc = start(live, stored.some ? &stored.end : NULL);
	if (!rc)
		segue_inserter_spare(live->inserter);
	segue_stored_log_finish(&stored);
	if (rc) {
		if (live->source)
			live->source->ops->destroy(live->source);
		segue_live_close(live);
		return rc;
	}
	*out = live;
	return 0;
}

void segue_live_stop(struct segue_live *live)
{
	segue_inserter_stop(live->inserter);
}

void segue_live_close(struct segue_live *live)
{
	if (!live)
		return;
	segue_inserter_destroy(live->inserter);
	segue_log_close(live->log);
	let_go(live);
	segue_readers_finish(&live->readers);
	pthread_cond_destroy(&live->synced);
	pthread_mutex_destroy(&live->lock);
	free(live);
}

struct segue_log *segue_live_log(const struct segue_live *live)
{
	return live->log;
}

struct segue_inserter *segue_live_inserter(const struct segue_live *live)
{
	return live->inserter;
}

struct segue_source *segue_live_source(const struct segue_live *live)
{
	return live->source;
}

/* ---- Positions ---- */

static int fail_never(const struct segue_plan_spec *plan)
{
	return segue_fail(SEGUE_ESTORE,
		"the log of the stream could not be synced, and lane %" PRIu32
		" has read of it what may be lost: the server has to be started again",
		plan->lane);
}

int segue_live_covers(struct segue_live *live, const struct segue_plan_spec *plan,
	const struct segue_position *position)
{
	struct segue_log_stand stand;

	segue_log_look(live->log, &stand);
	if (segue_backlog_is_covered(plan, position, there(live, stand.synced.number)))
		return 0;
	if (stand.failed)
		return fail_never(plan);
	/* Said before it is asked for, so that no sync that comes can be missed. */
	pthread_mutex_lock(&live->lock);
	live->left_out = true;
	pthread_mutex_unlock(&live->lock);
	segue_inserter_urge(live->inserter);
	return SEGUE_LIVE_LATER;
}

/* One that ends after this was called. */
static void await_sync(struct segue_live *live, uint64_t syncs)
{
	segue_inserter_urge(live->inserter);
	pthread_mutex_lock(&live->lock);
	while (live->syncs == syncs)
		pthread_cond_wait(&live->synced, &live->lock);
	pthread_mutex_unlock(&live->lock);
}

int segue_live_await(struct segue_live *live, const struct segue_plan_spec *plan,
	const struct segue_position *position)
{
	uint64_t seen = segue_backlog_seen(plan, position);

	for (;;) {
		struct segue_log_stand stand;

		pthread_mutex_lock(&live->lock);
		uint64_t syncs = live->syncs;
		pthread_mutex_unlock(&live->lock);
		segue_log_look(live->log, &stand);
		if (segue_backlog_is_covered(plan, position, there(live, stand.synced.number)))
			return 0;
		if (stand.failed)
			return fail_never(plan);
		uint64_t count = there(live, stand.written.number);
		if (seen > count)
			return segue_fail(SEGUE_ENOTFOUND,
				"lane %" PRIu32 " stands behind sequence %" PRIu64
				" of a log of %" PRIu64,
				plan->lane, seen - 1, count);
		await_sync(live, syncs);
	}
}

uint64_t segue_live_first(const struct segue_live *live)
{
	return live->give_up.first;
}

int segue_live_holds(struct segue_live *live, const struct segue_plan_spec *plan,
	const struct segue_position *position)
{
	uint64_t needs = segue_live_inserted(live, segue_backlog_needs(plan, position));
	uint64_t first = live->give_up.first;

	if (needs >= first)
		return 0;
	return segue_fail(SEGUE_ENOTFOUND,
		"sequence %" PRIu64 " of the log was given up: the first that is left is %" PRIu64,
		needs, first);
}

int segue_live_hash(struct segue_live *live, const struct segue_plan_spec *plan,
	const struct segue_position *position, uint64_t hash[2])
{
	uint64_t seen = segue_backlog_seen(plan, position);

	return segue_log_hash(live->log, segue_live_inserted(live, seen), hash);
}
