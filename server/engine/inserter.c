/* The thread that writes to a log. */
#include "engine/inserter.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/wait.h"

/* An end that could not be stored for want of room is tried so often. */
#define RETRY_NS INT64_C(1000000000)
/* So many bytes are written before they are synced, however many more are asked for. */
#define GROUP_BYTES ((uint64_t)64 << 20)

struct list {
	struct segue_ask *first, **last;
};

struct segue_inserter {
	struct segue_inserter_order order;
	pthread_t thread;
	pthread_mutex_t lock; /* of all below, but what is the thread's */
	pthread_cond_t wanted;
	struct list inserts, others; /* that are asked for */
	struct segue_producers producers;
	bool urgent, kicked, spare, stopping;
	/* The thread's; `blocked` changes under the lock. */
	struct segue_ask *blocked; /* the first of the inserts, while it has to wait */
	struct list waiting;       /* done, and answered when it is safe; by rising `until` */
	struct list closing;       /* ... when the end that they asked for is stored */
	bool ends;                 /* the input does, though nobody asked: that is to be stored */
	int64_t unsynced_ns;       /* since when something is; 0: nothing is */
	int64_t try_store_ns;      /* not before */
	bool failed;               /* the log has, for good: `failure` says why */
	struct segue_outcome failure;
};

/* ---- Lists, answers ---- */

static void init(struct list *list)
{
	list->first = NULL;
	list->last = &list->first;
}

static void add(struct list *list, struct segue_ask *ask)
{
	ask->next = NULL;
	*list->last = ask;
	list->last = &ask->next;
}

static struct segue_ask *take(struct list *list)
{
	struct segue_ask *ask = list->first;

	if (!ask)
		return NULL;
	list->first = ask->next;
	if (!list->first)
		list->last = &list->first;
	return ask;
}

/* Without the lock. */
static void answer(struct segue_ask *ask, int rc)
{
	segue_outcome_take(&ask->outcome, rc);
	ask->answer(ask);
}

static void answer_all(struct list *list, int rc)
{
	struct segue_ask *ask;

	while ((ask = take(list)))
		answer(ask, rc);
}

/* ---- The log ---- */

/* What fails for good: nothing that waits for it will come about. */
static int note_failure(struct segue_inserter *inserter, int rc)
{
	struct segue_ask *ask;

	if (rc != SEGUE_ESTORE || inserter->failed)
		return rc;
	inserter->failed = true;
	segue_outcome_take(&inserter->failure, rc);
	while ((ask = take(&inserter->waiting)) || (ask = take(&inserter->closing)))
		answer(ask, segue_outcome_give(&inserter->failure));
	inserter->order.synced(inserter->order.arg);
	return segue_outcome_give(&inserter->failure);
}

static void tell_nobody(void *arg, uint64_t session, uint64_t serial)
{
	(void)arg, (void)session, (void)serial;
}

/* Those who wait for that are answered. */
static void make_safe(struct segue_inserter *inserter, uint64_t count)
{
	pthread_mutex_lock(&inserter->lock);
	segue_producers_durable(&inserter->producers, count, tell_nobody, NULL);
	pthread_mutex_unlock(&inserter->lock);
	while (inserter->waiting.first && inserter->waiting.first->until <= count)
		answer(take(&inserter->waiting), 0);
}

static int sync_log(struct segue_inserter *inserter)
{
	struct segue_log_stand stand;
	int rc = note_failure(inserter, segue_log_sync(inserter->order.log));

	if (rc)
		return rc;
	inserter->unsynced_ns = 0;
	segue_log_look(inserter->order.log, &stand);
	make_safe(inserter, stand.synced.number);
	segue_inserter_spare(inserter); /* what is retained is of what is synced */
	inserter->order.synced(inserter->order.arg);
	return 0;
}

/* ---- What is asked ---- */

static void wait_until(struct segue_inserter *inserter, struct segue_ask *ask, uint64_t count)
{
	ask->until = count;
	add(&inserter->waiting, ask);
}

/*
 * Who had the name while it was appended may be gone, or taken over: it is in the log all the same,
 * and whoever has the name next learns it. With the lock.
 */
static void accept(struct segue_inserter *inserter, const struct segue_ask *ask, uint64_t number)
{
	segue_producers_accepted(&inserter->producers, ask->entry->entry.stamp.producer,
		ask->entry->entry.stamp.producer_size, number);
}

/* With the lock. */
static void end_if_full(struct segue_inserter *inserter)
{
	if (inserter->producers.next < inserter->order.most)
		return;
	segue_producers_end(&inserter->producers);
	inserter->ends = true;
}

static void insert(struct segue_inserter *inserter, struct segue_ask *ask)
{
	uint64_t number;

	pthread_mutex_lock(&inserter->lock);
	int rc = segue_producers_offer(&inserter->producers, ask->session, ask->serial);
	if (!rc)
		rc = segue_producers_reserve(&inserter->producers);
	pthread_mutex_unlock(&inserter->lock);
	if (!rc)
		rc = note_failure(
			inserter, segue_log_append(inserter->order.log, ask->entry, &number));
	if (rc < 0) {
		answer(ask, rc);
		return;
	}
	pthread_mutex_lock(&inserter->lock);
	if (!rc)
		accept(inserter, ask, number);
	end_if_full(inserter);
	uint64_t count = inserter->producers.next;
	pthread_mutex_unlock(&inserter->lock);
	/* One that is there already is among those that are there. */
	wait_until(inserter, ask, count);
	if (!rc && !inserter->unsynced_ns)
		inserter->unsynced_ns = segue_now_ns();
	if (!inserter->order.commit)
		make_safe(inserter, count);
}

/* This thread alone changes the log's table. */
static int take_cursor(const struct segue_inserter *inserter, struct segue_ask *ask)
{
	const struct segue_seqlog_producer *producer = segue_seqlog_find(
		segue_log_producers(inserter->order.log), ask->asked.name, ask->asked.name_size);

	if (!producer || producer->cursor_size == 0)
		return 0;
	ask->cursor = malloc(producer->cursor_size);
	if (!ask->cursor)
		return segue_fail(SEGUE_ENOMEM, "no memory for a log");
	memcpy(ask->cursor, producer->cursor, producer->cursor_size);
	ask->cursor_size = producer->cursor_size;
	return 0;
}

/* Whoever goes on behind what a name has inserted counts on it: so that is synced first. */
static void open_session(struct segue_inserter *inserter, struct segue_ask *ask)
{
	pthread_mutex_lock(&inserter->lock);
	int rc = segue_producers_open(
		&inserter->producers, &ask->asked, &ask->session, &ask->serial);
	pthread_mutex_unlock(&inserter->lock);
	if (!rc)
		rc = sync_log(inserter);
	if (!rc)
		rc = take_cursor(inserter, ask);
	if (rc == SEGUE_ESTORE || rc == SEGUE_ENOMEM)
		segue_inserter_gone(inserter, ask->session);
	answer(ask, rc);
}

static void close_it(struct segue_inserter *inserter, struct segue_ask *ask)
{
	int rc = 0;

	pthread_mutex_lock(&inserter->lock);
	if (ask->what == SEGUE_ASKED_END)
		segue_producers_end(&inserter->producers);
	else
		rc = segue_producers_close(&inserter->producers, ask->session);
	pthread_mutex_unlock(&inserter->lock);
	if (rc)
		answer(ask, rc);
	else
		add(&inserter->closing, ask);
}

static void serve(struct segue_inserter *inserter, struct segue_ask *ask)
{
	if (inserter->failed) {
		answer(ask, segue_outcome_give(&inserter->failure));
		return;
	}
	switch (ask->what) {
	case SEGUE_ASKED_INSERT:
		insert(inserter, ask);
		break;
	case SEGUE_ASKED_OPEN:
		open_session(inserter, ask);
		break;
	case SEGUE_ASKED_CLOSE:
	case SEGUE_ASKED_END:
		close_it(inserter, ask);
		break;
	}
}

/* ---- Ends ---- */

static bool is_passing(int rc)
{
	return rc == SEGUE_ENOSPACE || rc == SEGUE_ENOMEM || rc == SEGUE_EMOVED;
}

/* 1: there is something to store; with the lock. */
static int find_end(struct segue_inserter *inserter, struct segue_log_end *end)
{
	pthread_mutex_lock(&inserter->lock);
	int rc = segue_producers_unstored(&inserter->producers, end);
	pthread_mutex_unlock(&inserter->lock);
	return rc;
}

static void tell_end(struct segue_inserter *inserter, const struct segue_log_end *end)
{
	pthread_mutex_lock(&inserter->lock);
	bool before = segue_producers_closing(&inserter->producers, 0) == SEGUE_CLOSING_CLOSED;
	segue_producers_stored(&inserter->producers, end);
	bool now = segue_producers_closing(&inserter->producers, 0) == SEGUE_CLOSING_CLOSED;
	pthread_mutex_unlock(&inserter->lock);
	if (now && !before)
		inserter->order.ended(inserter->order.arg, end->count);
	answer_all(&inserter->closing, 0);
}

/*
 * Nothing is asked for meanwhile: this is the thread that would do it. So all that waits in
 * `closing` is in this end.
 */
static void store_end(struct segue_inserter *inserter)
{
	struct segue_log_end end;

	if (inserter->failed || segue_now_ns() < inserter->try_store_ns)
		return;
	int rc = find_end(inserter, &end);
	if (rc == 0) /* all was closed before */
		answer_all(&inserter->closing, 0);
	if (rc == 1) {
		rc = sync_log(inserter);
		if (!rc && end.ended) /* whoever hears of it finds files that are whole */
			rc = note_failure(inserter, segue_log_finish(inserter->order.log));
		if (!rc)
			rc = inserter->order.store(inserter->order.arg, &end);
		if (!rc)
			tell_end(inserter, &end);
		else if (!is_passing(rc))
			answer_all(&inserter->closing, rc);
		segue_log_end_finish(&end);
	}
	inserter->ends = false;
	inserter->try_store_ns = rc ? segue_now_ns() + RETRY_NS : 0;
}

/* ---- The thread ---- */

/* Whether an insert would be appended, and is not to be yet. With the lock, let go meanwhile. */
static bool has_to_wait(struct segue_inserter *inserter, const struct segue_ask *ask)
{
	uint64_t count = inserter->producers.next;
	bool full;

	if (inserter->failed ||
		segue_producers_offer(&inserter->producers, ask->session, ask->serial) != 0)
		return false;
	inserter->kicked = false;
	pthread_mutex_unlock(&inserter->lock);
	full = inserter->order.is_full(inserter->order.arg, count);
	pthread_mutex_lock(&inserter->lock);
	return full;
}

/* The next that can be done now. With the lock, which may be let go meanwhile. */
static struct segue_ask *next(struct segue_inserter *inserter)
{
	struct segue_ask *ask = take(&inserter->others);

	if (ask)
		return ask;
	/* One that waits does so while it is looked again: whoever asks then is told so. */
	if (inserter->inserts.first && has_to_wait(inserter, inserter->inserts.first)) {
		inserter->blocked = inserter->inserts.first;
		return NULL;
	}
	inserter->blocked = NULL;
	return take(&inserter->inserts);
}

static uint64_t size_of(const struct segue_ask *ask)
{
	return ask->what == SEGUE_ASKED_INSERT ? ask->entry->entry.size : 0;
}

/* All that can be done, as far as one group goes. True: there may be more. */
static bool serve_group(struct segue_inserter *inserter)
{
	uint64_t bytes = 0, before = inserter->producers.next;
	struct segue_ask *ask;

	do {
		pthread_mutex_lock(&inserter->lock);
		ask = inserter->stopping ? NULL : next(inserter);
		pthread_mutex_unlock(&inserter->lock);
		if (!ask)
			break;
		bytes += size_of(ask);
		serve(inserter, ask);
	} while (bytes < GROUP_BYTES);
	/* This thread alone changes it. */
	if (inserter->producers.next > before) {
		inserter->order.grown(inserter->order.arg, inserter->producers.next);
		segue_inserter_spare(inserter); /* files that are finished are synced */
	}
	return ask;
}

static void give_up(struct segue_inserter *inserter)
{
	pthread_mutex_lock(&inserter->lock);
	bool spare = inserter->spare;
	inserter->spare = false;
	pthread_mutex_unlock(&inserter->lock);
	if (spare && !inserter->failed && inserter->order.give_up)
		inserter->order.give_up(inserter->order.arg);
}

static bool sync_is_due(struct segue_inserter *inserter)
{
	pthread_mutex_lock(&inserter->lock);
	bool urgent = inserter->urgent;
	inserter->urgent = false;
	pthread_mutex_unlock(&inserter->lock);
	return !inserter->failed &&
	       (urgent || (inserter->waiting.first && inserter->order.commit) ||
		       (inserter->unsynced_ns && segue_now_ns() - inserter->unsynced_ns >=
							 inserter->order.interval_ns));
}

/* When there is something to do though nobody asks. */
static int64_t next_ns(const struct segue_inserter *inserter)
{
	int64_t due = INT64_MAX;

	if (inserter->unsynced_ns && !inserter->failed)
		due = inserter->unsynced_ns + inserter->order.interval_ns;
	if (inserter->try_store_ns && inserter->try_store_ns < due)
		due = inserter->try_store_ns;
	return due;
}

/* Something that can be done may have come since it was looked. With the lock. */
static bool is_awake(const struct segue_inserter *inserter)
{
	return inserter->stopping || inserter->urgent || inserter->spare ||
	       inserter->others.first || inserter->inserts.first != inserter->blocked ||
	       (inserter->blocked && inserter->kicked);
}

static void sleep_until(struct segue_inserter *inserter, int64_t due)
{
	const struct timespec until = {due / 1000000000, due % 1000000000};

	pthread_mutex_lock(&inserter->lock);
	while (!is_awake(inserter) && segue_now_ns() < due) {
		if (due == INT64_MAX)
			pthread_cond_wait(&inserter->wanted, &inserter->lock);
		else
			pthread_cond_timedwait(&inserter->wanted, &inserter->lock, &until);
	}
	pthread_mutex_unlock(&inserter->lock);
}

static bool is_stopping(struct segue_inserter *inserter)
{
	pthread_mutex_lock(&inserter->lock);
	bool stopping = inserter->stopping;
	pthread_mutex_unlock(&inserter->lock);
	return stopping;
}

static void *work(void *arg)
{
	struct segue_inserter *inserter = arg;

	pthread_mutex_lock(&inserter->lock);
	end_if_full(inserter);
	pthread_mutex_unlock(&inserter->lock);
	while (!is_stopping(inserter)) {
		bool more = serve_group(inserter);

		if (sync_is_due(inserter))
			sync_log(inserter);
		if (inserter->closing.first || inserter->ends || inserter->try_store_ns)
			store_end(inserter);
		give_up(inserter);
		if (!more)
			sleep_until(inserter, next_ns(inserter));
	}
	if (!inserter->failed)
		sync_log(inserter); /* answers those that wait for it, in either case */
	return NULL;
}

/* ---- Life ---- */

static int start(struct segue_inserter *inserter)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&inserter->wanted, &attributes);
	pthread_condattr_destroy(&attributes);
	pthread_mutex_init(&inserter->lock, NULL);
	int error = pthread_create(&inserter->thread, NULL, work, inserter);
	if (!error)
		return 0;
	errno = error;
	pthread_cond_destroy(&inserter->wanted);
	pthread_mutex_destroy(&inserter->lock);
	return segue_fail_errno(SEGUE_ESYSTEM, "the thread that writes a log cannot be started");
}

int segue_inserter_create(const struct segue_inserter_order *order, struct segue_inserter **out)
{
	struct segue_inserter *inserter = calloc(1, sizeof(*inserter));
	struct segue_log_stand stand;

	if (!inserter)
		return segue_fail(SEGUE_ENOMEM, "no memory for a log");
	inserter->order = *order;
	init(&inserter->inserts);
	init(&inserter->others);
	init(&inserter->waiting);
	init(&inserter->closing);
	segue_log_look(order->log, &stand);
	int rc = segue_producers_init(&inserter->producers, segue_log_producers(order->log),
		stand.written.number, order->stored, order->expected);
	if (!rc)
		rc = start(inserter);
	if (rc) {
		segue_producers_finish(&inserter->producers);
		free(inserter);
		return rc;
	}
	*out = inserter;
	return 0;
}

static int fail_stopped(void)
{
	return segue_fail(SEGUE_EGONE, "the server stops: what was asked for was not begun");
}

void segue_inserter_stop(struct segue_inserter *inserter)
{
	pthread_mutex_lock(&inserter->lock);
	bool before = inserter->stopping;
	inserter->stopping = true;
	pthread_cond_signal(&inserter->wanted);
	pthread_mutex_unlock(&inserter->lock);
	if (before)
		return;
	pthread_join(inserter->thread, NULL);
	int rc = fail_stopped();
	answer_all(&inserter->others, rc);
	answer_all(&inserter->closing, rc);
	answer_all(&inserter->inserts, rc);
}

void segue_inserter_destroy(struct segue_inserter *inserter)
{
	if (!inserter)
		return;
	segue_inserter_stop(inserter);
	segue_producers_finish(&inserter->producers);
	pthread_cond_destroy(&inserter->wanted);
	pthread_mutex_destroy(&inserter->lock);
	free(inserter);
}

/* ---- Asking ---- */

void segue_inserter_ask(struct segue_inserter *inserter, struct segue_ask *ask)
{
	pthread_mutex_lock(&inserter->lock);
	bool stopping = inserter->stopping;
	if (!stopping)
		add(ask->what == SEGUE_ASKED_INSERT ? &inserter->inserts : &inserter->others, ask);
	pthread_cond_signal(&inserter->wanted);
	pthread_mutex_unlock(&inserter->lock);
	if (stopping)
		answer(ask, fail_stopped());
}

/* A blocked insert may be one of this session: it is looked at again. */
void segue_inserter_gone(struct segue_inserter *inserter, uint64_t session)
{
	pthread_mutex_lock(&inserter->lock);
	segue_producers_gone(&inserter->producers, session);
	inserter->kicked = true;
	pthread_cond_signal(&inserter->wanted);
	pthread_mutex_unlock(&inserter->lock);
}

void segue_inserter_kick(struct segue_inserter *inserter)
{
	pthread_mutex_lock(&inserter->lock);
	inserter->kicked = true;
	pthread_cond_signal(&inserter->wanted);
	pthread_mutex_unlock(&inserter->lock);
}

bool segue_inserter_look(struct segue_inserter *inserter,
	void (*visit)(void *arg, const struct segue_producer *producer), void *arg)
{
	pthread_mutex_lock(&inserter->lock);
	for (uint32_t i = 0; i < inserter->producers.count; i++)
		visit(arg, &inserter->producers.producer[i]);
	bool waits = inserter->blocked;
	pthread_mutex_unlock(&inserter->lock);
	return waits;
}

void segue_inserter_spare(struct segue_inserter *inserter)
{
	pthread_mutex_lock(&inserter->lock);
	inserter->spare = true;
	pthread_cond_signal(&inserter->wanted);
	pthread_mutex_unlock(&inserter->lock);
}

void segue_inserter_urge(struct segue_inserter *inserter)
{
	pthread_mutex_lock(&inserter->lock);
	inserter->urgent = true;
	pthread_cond_signal(&inserter->wanted);
	pthread_mutex_unlock(&inserter->lock);
}
