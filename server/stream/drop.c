/* Streams that are dropped: whether they may go, and the work on a helper. */
#include "stream/drop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/wait.h"
#include "engine/committer.h"
#include "engine/live_dir.h"
#include "session/request.h"
#include "store/copies.h"
#include "store/drop.h"
#include "stream/taker.h"

#define TOLD_NS INT64_C(100000000) /* between two words of progress */

struct segue_stream_drop {
	struct segue_request base;
	LIST_ENTRY(segue_stream_drop) link;
	struct segue_server *server;
	char name[SEGUE_NAME_MAX + 1], group[SEGUE_NAME_MAX + 1]; /* group "": the whole stream */
	uint32_t open_id;      /* of the open stream; 0: the store says who has a lane */
	uint32_t number;       /* of its group; 0: the whole of it, or it is not open */
	bool begun;            /* the first transaction is on disk */
	_Atomic bool stopping; /* by the loop */
	struct segue_holder asking;
	struct segue_drop drop;
	struct segue_copies copies, in_use; /* that go with it; of other streams that are open */
	int64_t told_at;
};

/* ---- Whether it may go ---- */

/* The open stream of that name that is stored; or NULL. */
static struct segue_stream *find_stream(const struct segue_server *server, const char *name)
{
	struct segue_stream *stream;

	LIST_FOREACH(stream, &server->streams->all, link) {
		bool lost = stream->state == SEGUE_STREAM_FAILED || stream->dropped ||
			    !stream->spec->persist;
		if (!lost && strcmp(stream->spec->name, name) == 0)
			break;
	}
	return stream;
}

/* What a process has reserved is its own: it knows that it comes back to nothing. */
static int check_lane(
	struct segue_ledger *ledger, const char *what, const struct segue_holder *asking)
{
	struct segue_lease *lease = &ledger->lease;

	if (lease->state == SEGUE_LEASE_RESERVED)
		segue_lease_expire(lease, segue_process_presence(&lease->holder), segue_now_ns());
	if (lease->state == SEGUE_LEASE_ENDING)
		return segue_fail(SEGUE_EBUSY,
			"%s cannot be dropped: lane %u is being given back, and its last "
			"commits are being written; try again",
			what, ledger->place.lane);
	bool own = segue_holder_same(&lease->holder, asking);
	if (lease->state == SEGUE_LEASE_HELD && own)
		return segue_fail(SEGUE_EBUSY,
			"%s cannot be dropped: lane %u of it is held by process %ld, this one; "
			"close its loader, or the client",
			what, ledger->place.lane, (long)lease->holder.pid);
	if (lease->state != SEGUE_LEASE_FREE && !(lease->state == SEGUE_LEASE_RESERVED && own))
		return segue_drop_fail_held(what, ledger->place.lane,
			lease->state == SEGUE_LEASE_RESERVED, lease->holder.pid);
	if (!TAILQ_EMPTY(&ledger->waiting) || !TAILQ_EMPTY(&ledger->loading) ||
		!LIST_EMPTY(&ledger->replicas.waiting) || ledger->checkpoints)
		return segue_fail(SEGUE_EBUSY,
			"%s cannot be dropped: a worker is asking for lane %u of it, or "
			"for a checkpoint; try again",
			what, ledger->place.lane);
	return 0;
}

/* `group`: of it alone; NULL: of all. */
static int check_stream(struct segue_stream *stream, const char *what,
	const struct segue_ledger_group *group, const struct segue_holder *asking)
{
	const struct segue_ledger_group *other;
	struct segue_ledger *ledger;
	int rc = 0;

	if (stream->state == SEGUE_STREAM_OPENING)
		return segue_fail(SEGUE_EBUSY,
			"%s cannot be dropped: the stream is being opened just now; try again",
			what);
	if (stream->makings > 0)
		return segue_fail(SEGUE_EBUSY,
			"%s cannot be dropped: a group of the stream is being made just now; try "
			"again",
			what);
	LIST_FOREACH(ledger, &stream->ledgers.in_use, link) {
		if (!group || ledger->place.group == group->number)
			rc = check_lane(ledger, what, asking);
		if (rc)
			return rc;
	}
	LIST_FOREACH(other, &stream->ledgers.groups, link)
		if ((!group || other == group) && segue_takers_wait(other))
			return segue_fail(SEGUE_EBUSY,
				"%s cannot be dropped: a worker is asking for any lane of it; try "
				"again",
				what);
	return 0;
}

int segue_drops_check(const struct segue_server *server, const char *name, const char *group)
{
	const struct segue_stream_drop *drop;
	char what[SEGUE_DROP_TEXT];

	LIST_FOREACH(drop, &server->streams->drops, link) {
		bool meant = !*drop->group || !group || strcmp(drop->group, group) == 0;
		if (!drop->begun && strcmp(drop->name, name) == 0 && meant)
			return segue_fail(SEGUE_EBUSY, "%s is being dropped just now: try again",
				segue_drop_what(name, drop->group, what));
	}
	return 0;
}

int segue_drop_check_stream(const struct segue_stream *stream)
{
	if (!stream->dropped)
		return 0;
	return segue_fail(SEGUE_ENOTFOUND,
		"stream '%s' has been dropped since it was opened here: open it again, which makes "
		"a new one",
		stream->spec->name);
}

int segue_drop_fail_group(const struct segue_stream *stream, uint32_t lane)
{
	return segue_fail(SEGUE_ENOTFOUND,
		"the group of stream '%s' that lane %u was taken for has been dropped since: make "
		"a new loader (in C: attach again), which begins a new group of that name",
		stream->spec->name, lane);
}

/*
 * What is being opened for nobody any more makes no record, or one that goes with the others.
 * *group: of an open stream; NULL: it is not open, or goes as a whole.
 */
static int check(const struct segue_session *session, const struct segue_stream_drop *drop,
	struct segue_stream **out, struct segue_ledger_group **group)
{
	const struct segue_server *server = session->server;
	struct segue_stream *stream = find_stream(server, drop->name);
	bool given_up = stream && stream->state == SEGUE_STREAM_OPENING &&
			atomic_load_explicit(&stream->given_up, memory_order_relaxed);
	char what[SEGUE_DROP_TEXT];

	segue_drop_what(drop->name, drop->group, what);
	int rc = segue_drops_check(server, drop->name, *drop->group ? drop->group : NULL);
	if (given_up)
		stream = NULL;
	*out = stream;
	*group = NULL;
	if (rc || !stream)
		return rc;
	if (*drop->group && stream->state == SEGUE_STREAM_OPEN) {
		*group = segue_ledgers_find_group(&stream->ledgers, drop->group);
		if (!*group)
			return segue_fail(SEGUE_ENOTFOUND, "stream '%s' has no group '%s'",
				drop->name, drop->group);
	}
	return check_stream(stream, what, *group, &session->holder);
}

/* ---- On a helper ---- */

static int begin(void *arg, struct segue_ops *ops)
{
	struct segue_stream_drop *drop = arg;
	const struct segue_holder *asking = drop->open_id ? NULL : &drop->asking;

	if (*drop->group)
		return segue_drop_begin_group(
			ops, drop->server->store, drop->name, drop->group, asking, &drop->drop);
	segue_copies_find(&drop->copies, drop->server->store, drop->server->dir, drop->name);
	return segue_drop_begin(ops, drop->server->store, drop->name, asking, &drop->drop);
}

/* Of the stream that was open: NULL, it is not any more. */
static struct segue_stream *find_open(const struct segue_stream_drop *drop)
{
	struct segue_stream *stream = NULL;

	LIST_FOREACH(stream, &drop->server->streams->all, link) {
		if (drop->open_id && stream->id == drop->open_id)
			break;
	}
	return stream;
}

static struct segue_ledger_group *find_number(const struct segue_stream *stream, uint32_t number)
{
	struct segue_ledger_group *group = NULL;

	LIST_FOREACH(group, &stream->ledgers.groups, link) {
		if (group->number == number)
			break;
	}
	return group;
}

/* On the loop: the name is free. A stream that is open has lost the group. */
static void begun(void *arg)
{
	struct segue_stream_drop *drop = arg;
	struct segue_stream *stream = drop->number ? find_open(drop) : NULL;
	struct segue_ledger_group *group = stream ? find_number(stream, drop->number) : NULL;

	drop->begun = true;
	if (group) {
		segue_takers_finish_group(group);
		segue_ledgers_remove_group(&stream->ledgers, group);
	}
	if (stream && stream->live)
		segue_live_drop_group(stream->live, drop->number);
}

static int apply(void *arg, const struct segue_ops *ops)
{
	const struct segue_stream_drop *drop = arg;

	return segue_changes_apply(segue_committer_changes(drop->server->committer), ops);
}

/* Nobody need wait for it: only a stop ends it. */
static int is_stopping(void *arg)
{
	return atomic_load_explicit(
		&((struct segue_stream_drop *)arg)->stopping, memory_order_relaxed); /* a hint */
}

struct news {
	struct segue_stream_drop *drop;
	uint64_t done, total;
};

/* On the loop, before the task is. */
static void send_progress(void *arg)
{
	struct news *news = arg;
	struct segue_request *request = &news->drop->base;
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_PROGRESS,
		.serial = request->serial,
		.progress = {.what = "drop", .done = news->done, .total = news->total},
	};

	if (request->session)
		segue_session_send(request->session, &message, NULL, 0);
	free(news);
}

static void report_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	struct segue_stream_drop *drop = arg;
	int64_t now = segue_now_ns();

	(void)what;
	if (now - drop->told_at < TOLD_NS && done < total)
		return;
	drop->told_at = now;
	struct news *news = malloc(sizeof(*news));
	if (!news)
		return;
	*news = (struct news){drop, done, total};
	segue_loop_post(drop->server->loop, send_progress, news);
}

static void forget_log(void *arg, uint32_t id)
{
	segue_live_remove(((struct segue_stream_drop *)arg)->server->dir, id);
}

static int work(struct segue_request *request)
{
	struct segue_stream_drop *drop = (struct segue_stream_drop *)request;
	/* The place of all who make records of streams: a transaction takes one of them. */
	struct segue_change change = {.build = begin, .arg = drop};
	const struct segue_dropping how = {.apply = apply,
		.forget = forget_log,
		.progress = report_progress,
		.interrupt = is_stopping,
		.arg = drop};

	int rc = segue_changes_make(segue_committer_changes(drop->server->committer), &change);
	if (rc)
		return rc;
	segue_loop_post(drop->server->loop, begun, drop);
	segue_copies_remove(&drop->copies, drop->server->dir, &drop->in_use);
	return segue_drop_rest(drop->server->store, &drop->drop, &how);
}

/* ---- Asked for ---- */

static void destroy(struct segue_stream_drop *drop)
{
	segue_copies_finish(&drop->copies);
	segue_copies_finish(&drop->in_use);
	free(drop);
}

/* What other streams read that are open: the store knows nothing of those that are not kept. */
static int find_in_use(struct segue_stream_drop *drop, const struct segue_stream *dropped)
{
	const struct segue_stream *stream;
	int rc = 0;

	LIST_FOREACH(stream, &drop->server->streams->all, link) {
		if (!rc && stream != dropped)
			rc = segue_copies_add(&drop->in_use, drop->server->dir, stream->spec);
	}
	return rc;
}

/* It could not be begun: an open stream keeps it, for what the store says. */
static void keep(const struct segue_stream_drop *drop)
{
	struct segue_stream *stream = find_open(drop);
	struct segue_ledger_group *group =
		stream && drop->number ? find_number(stream, drop->number) : NULL;

	if (group)
		group->dropped = false;
	else if (stream && !drop->number)
		stream->dropped = false;
}

static void done(struct segue_task *task)
{
	struct segue_stream_drop *drop = (struct segue_stream_drop *)task;

	LIST_REMOVE(drop, link);
	if (!drop->begun)
		keep(drop);
	if (!segue_request_is_over(&drop->base))
		segue_session_send_done(drop->base.session, drop->base.serial);
	segue_request_end(&drop->base);
	destroy(drop);
}

static int start(struct segue_session *session, const struct segue_message *message,
	struct segue_stream_drop *drop)
{
	struct segue_ledger_group *group;
	struct segue_stream *stream;

	int rc = check(session, drop, &stream, &group);
	if (!rc && stream)
		drop->open_id = stream->id;
	if (!rc && group)
		drop->number = group->number;
	if (!rc && !*drop->group)
		rc = find_in_use(drop, stream);
	if (!rc)
		rc = segue_request_run(&drop->base, session, message->serial, work, done);
	if (rc)
		return rc;
	if (group)
		group->dropped = true;
	else if (stream)
		stream->dropped = true;
	if (stream && !group && stream->live) /* its files go */
		segue_live_stop(stream->live);
	LIST_INSERT_HEAD(&session->server->streams->drops, drop, link);
	return 0;
}

void segue_drop_request(struct segue_session *session, const struct segue_message *message)
{
	struct segue_stream_drop *drop = calloc(1, sizeof(*drop));

	if (!drop) {
		segue_session_fail(session, message->serial,
			segue_fail(SEGUE_ENOMEM, "no memory to drop a stream"));
		return;
	}
	drop->base.is_long = true;
	drop->server = session->server;
	drop->asking = session->holder;
	snprintf(drop->name, sizeof(drop->name), "%s", message->stream_drop.stream);
	if (message->stream_drop.group)
		snprintf(drop->group, sizeof(drop->group), "%s", message->stream_drop.group);
	int rc = start(session, message, drop);
	if (rc) {
		destroy(drop);
		segue_session_fail(session, message->serial, rc);
	}
}

void segue_drops_stop(struct segue_server *server)
{
	struct segue_stream_drop *drop;

	LIST_FOREACH(drop, &server->streams->drops, link)
		atomic_store_explicit(&drop->stopping, true, memory_order_relaxed); /* a hint */
}
