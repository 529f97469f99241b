/* The log of a live stream, among those who use it. */
#include "engine/live.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "lane/backlog.h"
#include "store/logs.h"

struct segue_live {
	struct segue_live_order order;
	struct segue_log *log;
	struct segue_inserter *inserter;
	uint64_t first;       /* what was given up, as the store has it. The committer's thread */
	pthread_mutex_t lock; /* of all below */
	pthread_cond_t synced;
	uint64_t syncs;    /* tries to sync */
	bool left_out;     /* a transaction has left a lane out since the last of them */
	bool ended;        /* the input has, */
	uint64_t ended_at; /* after so many */
};

/* ---- What is known of it ---- */

static struct segue_log_known known_of(const struct segue_live *live)
{
	struct segue_log_known known = {.first = live->first};
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

static bool is_full(void *arg, uint64_t count)
{
	const struct segue_live *live = arg;

	return live->order.is_full(live->order.arg, count);
}

static void grown(void *arg, uint64_t count)
{
	const struct segue_live *live = arg;

	live->order.grown(live->order.arg, count);
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

static void ended(void *arg, uint64_t count)
{
	struct segue_live *live = arg;

	pthread_mutex_lock(&live->lock);
	live->ended = true;
	live->ended_at = count;
	pthread_mutex_unlock(&live->lock);
	live->order.ended(live->order.arg, count);
}

/* ---- Life ---- */

static int make(struct segue_live *live)
{
	struct segue_ops ops = {0};

	int rc = segue_log_create(&live->order.means, live->order.id, &live->log);
	if (!rc)
		rc = segue_live_put(live, &ops);
	if (!rc)
		rc = segue_changes_apply(live->order.changes, &ops);
	segue_ops_finish(&ops);
	return rc;
}

static int open_known(struct segue_live *live, const struct segue_stored_log *stored)
{
	if (memcmp(stored->known.id, live->order.id, sizeof(stored->known.id)) != 0)
		return segue_fail(SEGUE_ESTORE,
			"the store has another log under stream %" PRIu32
			" than the stream was made with: restore a backup",
			live->order.stream);
	live->first = stored->known.first;
	return segue_log_open(&live->order.means, &stored->known, &live->log);
}

static int start(struct segue_live *live, const struct segue_log_end *end)
{
	const struct segue_inserter_order order = {
		.log = live->log,
		.stored = end,
		.expected = live->order.expected,
		.commit = live->order.commit,
		.interval_ns = live->order.interval_ns,
		.is_full = is_full,
		.grown = grown,
		.synced = synced,
		.store = store,
		.ended = ended,
		.arg = live,
	};

	live->ended = end && end->ended;
	live->ended_at = live->ended ? end->count : 0;
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
	int rc = segue_logs_load(order->store, order->stream, &stored);
	if (rc == SEGUE_ENOTFOUND)
		rc = make(live);
	else if (!rc)
		rc = open_known(live, &stored);
	if (!rc)
		rc = start(live, stored.some ? &stored.end : NULL);
	segue_stored_log_finish(&stored);
	if (rc) {
		segue_live_close(live);
		return rc;
	}
	*out = live;
	return 0;
}

void segue_live_close(struct segue_live *live)
{
	if (!live)
		return;
	segue_inserter_destroy(live->inserter);
	segue_log_close(live->log);
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

bool segue_live_has_ended(struct segue_live *live, uint64_t *count)
{
	pthread_mutex_lock(&live->lock);
	bool has = live->ended;
	*count = live->ended_at;
	pthread_mutex_unlock(&live->lock);
	return has;
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
	if (segue_backlog_is_covered(plan, position, stand.synced.number))
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
		if (segue_backlog_is_covered(plan, position, stand.synced.number))
			return 0;
		if (stand.failed)
			return fail_never(plan);
		if (seen > stand.written.number)
			return segue_fail(SEGUE_ENOTFOUND,
				"lane %" PRIu32 " stands behind sequence %" PRIu64
				" of a log of %" PRIu64,
				plan->lane, seen - 1, stand.written.number);
		await_sync(live, syncs);
	}
}
