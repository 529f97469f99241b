/*
 * The log that a live stream reads, as transactions, lanes and tokens see it.
 *
 * A position refers to sequences; it goes to disk, or to anybody, when the log is synced as far as
 * it has seen (lane/backlog.h). The committer does not wait for that: it leaves the lane out of its
 * transaction, and hears when to try again. Whoever has a thread to wait on, waits. And each
 * transaction that refers to a sequence says how far the log is known, so that its loss would be
 * noticed: store/logs.h.
 */
#ifndef SEGUE_ENGINE_LIVE_H
#define SEGUE_ENGINE_LIVE_H

#include "engine/changes.h"
#include "engine/inserter.h"
#include "lane/plan.h"

struct segue_live;

struct segue_live_order {
	struct segue_log_means means;
	uint8_t id[SEGUE_SEQLOG_ID];
	uint32_t stream; /* under which the store has what it knows of it */
	struct segue_store *store;
	struct segue_changes *changes; /* of the store */
	uint32_t expected;             /* the rest is as in struct segue_inserter_order */
	bool commit;
	int64_t interval_ns;
	bool (*is_full)(void *arg, uint64_t count);
	void (*grown)(void *arg, uint64_t count);
	void (*ended)(void *arg, uint64_t count);
	void (*covered)(void *arg); /* a lane that was left out can be in the next transaction */
	void *arg;
};

/*
 * Opens the log that the store knows, or makes it, on disk and in the store; begins to write.
 * Blocks. SEGUE_ESTORE: what store and log say does not go together, says what; and as
 * segue_log_open(), segue_logs_load(), segue_changes_apply().
 */
int segue_live_open(const struct segue_live_order *order, struct segue_live **out);
/* After a last sync. Nobody else has anything of it any more. NULL is fine. */
void segue_live_close(struct segue_live *live);

struct segue_log *segue_live_log(const struct segue_live *live);
struct segue_inserter *segue_live_inserter(const struct segue_live *live);
/* Whether its input has ended for good, and after how many sequences. */
bool segue_live_has_ended(struct segue_live *live, uint64_t *count);

/*
 * Whether the position may be stored, by a transaction that segue_live_put() is in as well. 0, or
 * SEGUE_LIVE_LATER: the log is not synced as far; it will be soon, and `covered` is called then.
 * SEGUE_ESTORE: it never will be, for the log has failed. The committer's thread.
 */
#define SEGUE_LIVE_LATER 1
int segue_live_covers(struct segue_live *live, const struct segue_plan_spec *plan,
	const struct segue_position *position);
/* Adds how far the log is known by now. The same thread. SEGUE_ENOMEM. */
int segue_live_put(struct segue_live *live, struct segue_ops *ops);
/*
 * Waits until the position may be stored, or given to anybody. SEGUE_ENOTFOUND: the log has not so
 * many sequences; SEGUE_ESTORE, as above. Any thread that may wait.
 */
int segue_live_await(struct segue_live *live, const struct segue_plan_spec *plan,
	const struct segue_position *position);

#endif
