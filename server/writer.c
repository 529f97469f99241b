/* The committer thread: group commit of leases in force and of what other threads ask for. */
#include "writer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "error.h"
#include "snapshot.h"
#include "wait.h"

/* Operations of another thread that wait for a transaction. */
struct request {
	struct request *next;
	const struct segue_ops *ops;
	int rc;
	char detail[SEGUE_DETAIL_MAX];
	bool done;
};

/* A grant's part in the transaction under way. */
struct entry {
	struct segue_grant *grant;
	struct segue_image *image; /* NULL: nothing new was committed */
	bool finishing;
	bool held; /* what the lane's record is to say */
};

struct segue_writer {
	struct segue_store *store;
	struct segue_loop *loop;
	void (*failed)(void *arg, int code, const char *detail);
	void *arg;
	pthread_t thread;
	pthread_mutex_t lock; /* of all below, but `committer` and `entries` */
	pthread_cond_t wanted, written;
	struct segue_grant *grants;
	struct request *requests, **last_request;
	bool urgent, stopping;
	bool last_try; /* the server stops: what cannot be written now is given up */
	int storage;   /* last code told to `failed` */
	struct segue_committer committer;
	struct entry *entries;
	size_t entry_count, entry_capacity;
};

static int64_t interval_ns(const struct segue_grant *grant)
{
	return grant->spec->interval_ms * INT64_C(1000000);
}

/* ---- One transaction ---- */

/* The grants that are looked at in this transaction. With the lock. */
static int collect(struct segue_writer *writer)
{
	size_t count = 0;

	for (struct segue_grant *grant = writer->grants; grant; grant = grant->next)
		count++;
	if (count > writer->entry_capacity) {
		struct entry *grown = realloc(writer->entries, count * sizeof(*grown));
		if (!grown)
			return segue_fail(SEGUE_ENOMEM, "no memory for a transaction");
		writer->entries = grown;
		writer->entry_capacity = count;
	}
	writer->entry_count = 0;
	for (struct segue_grant *grant = writer->grants; grant; grant = grant->next)
		writer->entries[writer->entry_count++] = (struct entry){.grant = grant,
			.finishing = grant->finishing,
			.held = !grant->finishing || grant->stays_held};
	return 0;
}

static bool owes(struct segue_grant *grant)
{
	pthread_mutex_lock(&grant->filler->lock);
	bool sound = segue_carry_observe(&grant->carry, grant->filler->feed.published);
	uint64_t committed = grant->carry.committed;
	pthread_mutex_unlock(&grant->filler->lock);
	return sound && committed > grant->account.durable;
}

static int add_image(struct segue_ops *ops, struct entry *entry)
{
	struct segue_grant *grant = entry->grant;
	uint64_t committed;

	int rc = segue_snapshot(
		grant->filler, &grant->carry, SEGUE_NEVER, &committed, &entry->image);
	if (rc)
		return rc;
	grant->record.committed_ms = segue_unix_ms();
	grant->record.held = entry->held;
	rc = segue_records_image(ops, grant->place, &grant->filler->plan_spec, &grant->record,
		entry->image, &grant->account);
	if (rc)
		return rc;
	pthread_mutex_lock(&grant->filler->lock);
	rc = segue_records_finals(ops, grant->place, entry->image->row_size, grant->carry.kept,
		grant->account.durable, entry->image->position->step);
	pthread_mutex_unlock(&grant->filler->lock);
	return rc;
}

/* The position stands; that nobody holds the lane any more is news. */
static int add_release(struct segue_writer *writer, struct segue_ops *ops, struct entry *entry)
{
	struct segue_lane_record stored;

	int rc = segue_records_load_lane(writer->store, entry->grant->place, &stored);
	if (rc)
		return rc;
	stored.held = entry->held;
	rc = segue_records_lane(ops, entry->grant->place, &stored);
	free(stored.position);
	return rc;
}

/* Adds what a grant owes. A grant that cannot be copied now is left for the next transaction. */
static void add_grant(struct segue_writer *writer, struct segue_ops *ops, struct entry *entry)
{
	size_t before = ops->count;
	int rc = 0;

	if (owes(entry->grant))
		rc = add_image(ops, entry);
	if (rc) {
		segue_ops_truncate(ops, before);
		segue_image_destroy(entry->image);
		entry->image = NULL;
	}
	if (!entry->image && entry->finishing)
		add_release(writer, ops, entry);
}

static void settle(struct entry *entry)
{
	struct segue_grant *grant = entry->grant;

	if (!entry->image)
		return;
	/* Without memory the account stays behind: the next image is written over it. */
	if (segue_account_settle(&grant->account, &grant->filler->plan_spec, entry->image) == 0) {
		uint64_t step = grant->account.durable;
		pthread_mutex_lock(&grant->filler->lock);
		segue_carry_forget(&grant->carry, step);
		segue_carry_set_durable(&grant->carry, step);
		pthread_mutex_unlock(&grant->filler->lock);
	}
}

/* All operations of the transaction as one list; what they point to stays where it is. */
static int flatten(const struct segue_ops *own, const struct request *requests,
	struct segue_store_op **out, size_t *count)
{
	size_t total = own->count, at = own->count;

	for (const struct request *request = requests; request; request = request->next)
		total += request->ops->count;
	struct segue_store_op *all = malloc((total ? total : 1) * sizeof(*all));
	if (!all)
		return segue_fail(SEGUE_ENOMEM, "no memory for a transaction");
	if (own->count)
		memcpy(all, own->op, own->count * sizeof(*all));
	for (const struct request *request = requests; request; request = request->next) {
		memcpy(all + at, request->ops->op, request->ops->count * sizeof(*all));
		at += request->ops->count;
	}
	*out = all;
	*count = total;
	return 0;
}

static int write_all(
	struct segue_writer *writer, const struct segue_ops *own, const struct request *requests)
{
	struct segue_store_op *all = NULL;
	size_t count = 0;

	if (!segue_committer_begin(&writer->committer))
		return segue_fail(SEGUE_ESTORE, "storage failed before: nothing more is written "
						"until the server is started "
						"again");
	int rc = flatten(own, requests, &all, &count);
	if (rc) {
		segue_committer_ended(&writer->committer, rc);
		return rc;
	}
	rc = count ? segue_store_apply(writer->store, all, count) : 0;
	free(all);
	segue_committer_ended(&writer->committer, rc);
	return rc;
}

/* ---- What follows it ---- */

struct news {
	void (*failed)(void *arg, int code, const char *detail);
	void *arg;
	int code;
	char detail[SEGUE_ERROR_TEXT];
};

static void tell(void *arg)
{
	struct news *news = arg;

	news->failed(news->arg, news->code, news->detail);
	free(news);
}

static void answer(struct segue_writer *writer, struct request *requests, int rc)
{
	char detail[SEGUE_DETAIL_MAX];

	snprintf(detail, sizeof(detail), "%s", segue_error_detail());
	if (rc != writer->storage) {
		struct news *news = malloc(sizeof(*news));
		if (news) {
			*news = (struct news){
				.failed = writer->failed, .arg = writer->arg, .code = rc};
			snprintf(news->detail, sizeof(news->detail), "%.*s",
				(int)sizeof(news->detail) - 1, detail);
			writer->storage = rc;
			segue_loop_post(writer->loop, tell, news);
		}
	}
	pthread_mutex_lock(&writer->lock);
	while (requests) {
		struct request *next = requests->next;
		requests->rc = rc;
		snprintf(requests->detail, sizeof(requests->detail), "%s", detail);
		requests->done = true;
		requests = next;
	}
	pthread_cond_broadcast(&writer->written);
	pthread_mutex_unlock(&writer->lock);
}

static void forget(struct segue_writer *writer, struct segue_grant *grant)
{
	struct segue_grant **link = &writer->grants;

	pthread_mutex_lock(&writer->lock);
	while (*link != grant)
		link = &(*link)->next;
	*link = grant->next;
	pthread_mutex_unlock(&writer->lock);
	segue_loop_post(writer->loop, grant->finished, grant->arg);
}

/* A lease that is over stays until its last commit is on disk, or can never be. */
static void conclude(struct segue_writer *writer, int rc)
{
	pthread_mutex_lock(&writer->lock);
	bool last = writer->last_try;
	pthread_mutex_unlock(&writer->lock);
	for (size_t i = 0; i < writer->entry_count; i++) {
		struct entry *entry = &writer->entries[i];
		if (rc == 0)
			settle(entry);
		segue_image_destroy(entry->image);
		if (entry->finishing &&
			(rc == 0 || last || writer->committer.state == SEGUE_COMMITTER_STOPPED))
			forget(writer, entry->grant);
	}
}

static void transact(struct segue_writer *writer, struct request *requests)
{
	struct segue_ops own = {0};

	for (size_t i = 0; i < writer->entry_count; i++)
		add_grant(writer, &own, &writer->entries[i]);
	bool some = own.count > 0 || requests;
	int rc = some ? write_all(writer, &own, requests) : 0;
	/* After ENOSPACE that lanes owe nothing lets them go on; a storage that stopped stays so. */
	bool well = writer->entry_count > 0 && writer->committer.state != SEGUE_COMMITTER_STOPPED;
	if (some || well)
		answer(writer, requests, rc);
	conclude(writer, rc);
	segue_ops_finish(&own);
}

/* ---- The thread ---- */

/* When the next transaction is due. With the lock. */
static int64_t due(const struct segue_writer *writer, int64_t last)
{
	int64_t when = INT64_MAX;

	if (writer->urgent || writer->requests)
		return 0;
	for (const struct segue_grant *grant = writer->grants; grant; grant = grant->next) {
		int64_t at = last + interval_ns(grant);
		when = at < when ? at : when;
	}
	return when;
}

static void sleep_until(struct segue_writer *writer, int64_t when)
{
	if (when == INT64_MAX) {
		pthread_cond_wait(&writer->wanted, &writer->lock);
		return;
	}
	struct timespec at = {.tv_sec = when / 1000000000, .tv_nsec = when % 1000000000};
	pthread_cond_timedwait(&writer->wanted, &writer->lock, &at);
}

static void *work(void *arg)
{
	struct segue_writer *writer = arg;
	int64_t last = segue_now_ns();

	pthread_mutex_lock(&writer->lock);
	for (;;) {
		int64_t when = due(writer, last);
		if (when > segue_now_ns() && !writer->stopping) {
			sleep_until(writer, when);
			continue;
		}
		bool stopping = writer->stopping;
		struct request *requests = writer->requests;
		writer->requests = NULL;
		writer->last_request = &writer->requests;
		writer->urgent = false;
		if (collect(writer))
			writer->entry_count = 0;
		pthread_mutex_unlock(&writer->lock);
		last = segue_now_ns();
		transact(writer, requests);
		pthread_mutex_lock(&writer->lock);
		if (stopping)
			break;
	}
	pthread_mutex_unlock(&writer->lock);
	return NULL;
}

int segue_writer_create(struct segue_store *store, struct segue_loop *loop,
	void (*failed)(void *arg, int code, const char *detail), void *arg,
	struct segue_writer **out)
{
	struct segue_writer *writer = calloc(1, sizeof(*writer));
	pthread_condattr_t attributes;

	if (!writer)
		return segue_fail(SEGUE_ENOMEM, "no memory for the committer");
	writer->store = store;
	writer->loop = loop;
	writer->failed = failed;
	writer->arg = arg;
	writer->last_request = &writer->requests;
	pthread_mutex_init(&writer->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&writer->wanted, &attributes);
	pthread_cond_init(&writer->written, NULL);
	pthread_condattr_destroy(&attributes);
	int error = pthread_create(&writer->thread, NULL, work, writer);
	if (error) {
		free(writer);
		return segue_fail(
			SEGUE_ESYSTEM, "the committer cannot be started: %s", strerror(error));
	}
	pthread_setname_np(writer->thread, "committer");
	*out = writer;
	return 0;
}

void segue_writer_destroy(struct segue_writer *writer)
{
	if (!writer)
		return;
	pthread_mutex_lock(&writer->lock);
	writer->stopping = true;
	pthread_cond_signal(&writer->wanted);
	pthread_mutex_unlock(&writer->lock);
	pthread_join(writer->thread, NULL);
	pthread_cond_destroy(&writer->wanted);
	pthread_cond_destroy(&writer->written);
	pthread_mutex_destroy(&writer->lock);
	free(writer->entries);
	free(writer);
}

void segue_writer_add(struct segue_writer *writer, struct segue_grant *grant)
{
	pthread_mutex_lock(&writer->lock);
	grant->next = writer->grants;
	writer->grants = grant;
	pthread_cond_signal(&writer->wanted);
	pthread_mutex_unlock(&writer->lock);
}

void segue_writer_finish(struct segue_writer *writer, struct segue_grant *grant, bool held,
	void (*finished)(void *arg), void *arg)
{
	pthread_mutex_lock(&writer->lock);
	grant->finishing = true;
	grant->stays_held = held;
	grant->finished = finished;
	grant->arg = arg;
	writer->urgent = true;
	pthread_cond_signal(&writer->wanted);
	pthread_mutex_unlock(&writer->lock);
}

void segue_writer_urge(struct segue_writer *writer)
{
	pthread_mutex_lock(&writer->lock);
	writer->urgent = true;
	pthread_cond_signal(&writer->wanted);
	pthread_mutex_unlock(&writer->lock);
}

void segue_writer_try_once(struct segue_writer *writer)
{
	pthread_mutex_lock(&writer->lock);
	writer->last_try = true;
	writer->urgent = true;
	pthread_cond_signal(&writer->wanted);
	pthread_mutex_unlock(&writer->lock);
}

int segue_writer_apply(struct segue_writer *writer, const struct segue_ops *ops)
{
	struct request request = {.ops = ops};

	pthread_mutex_lock(&writer->lock);
	*writer->last_request = &request;
	writer->last_request = &request.next;
	pthread_cond_signal(&writer->wanted);
	while (!request.done)
		pthread_cond_wait(&writer->written, &writer->lock);
	pthread_mutex_unlock(&writer->lock);
	return request.rc ? segue_fail(request.rc, "%s", request.detail) : 0;
}
