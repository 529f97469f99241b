/* Streams: opened once, used by many; their data set, threads and spec. */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/progress.h"
#include "core/wait.h"
#include "os/process.h"
#include "session/server.h"
#include "source/kinds.h"
#include "store/index.h"
#include "store/key.h"
#include "store/token.h"
#include "stream/ledger.h"

/* ---- The index's place in the store ---- */

static int load_index(void *arg, const char *name, void **bytes, size_t *size)
{
	const struct segue_stream *stream = arg;

	if (stream->forget_index)
		return segue_fail(SEGUE_ENOTFOUND, "the index '%s' is made anew", name);
	return segue_store_index_load(stream->server->store, name, bytes, size);
}

static int save_index(void *arg, const char *name, const void *bytes, size_t size)
{
	const struct segue_stream *stream = arg;
	struct segue_ops ops = {0};

	int rc = segue_store_index_save(&ops, name, bytes, size);
	if (!rc)
		rc = segue_changes_apply(segue_committer_changes(stream->server->committer), &ops);
	segue_ops_finish(&ops);
	return rc;
}

/* ---- Opening, on the stream's own thread ---- */

/* Progress goes to every session that waits for this stream. */
struct progress {
	struct segue_server *server;
	struct segue_stream *stream;
	char what[32];
	uint64_t done, total;
};

static void send_progress(void *arg)
{
	struct progress *progress = arg;

	for (struct segue_opening *opening = progress->stream->openings; opening;
		opening = opening->next) {
		struct segue_session *session = opening->session;
		if (opening->answered || !session)
			continue;
		const struct segue_message message = {
			.type = SEGUE_MESSAGE_PROGRESS,
			.serial = opening->serial,
			.progress = {.what = progress->what,
				.done = progress->done,
				.total = progress->total},
		};
		segue_session_send(session, &message, NULL, 0);
	}
	free(progress);
}

struct opening_job {
	struct segue_stream *stream;
	int64_t told_at;
};

static void report_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	struct opening_job *job = arg;
	int64_t now = segue_now_ns();

	/* Ten times a second, and the end. */
	if (now - job->told_at < 100000000 && done < total)
		return;
	job->told_at = now;
	struct progress *progress = calloc(1, sizeof(*progress));
	if (!progress)
		return;
	*progress = (struct progress){
		.server = job->stream->server, .stream = job->stream, .done = done, .total = total};
	strncpy(progress->what, what, sizeof(progress->what) - 1);
	segue_loop_post(progress->server->loop, send_progress, progress);
}

/* The stream's record, if the store has one: the spec is compared before anything long is begun. */
static int find_record(struct segue_stream *stream, bool *found)
{
	struct segue_stream_record record;
	uint8_t hash[SEGUE_STORE_KEY_MAX];
	size_t size, key_size;
	void *value;

	*found = false;
	if (!stream->spec->persist)
		return 0;
	const void *key = segue_key_stream(stream->spec->name, hash, &key_size);
	int rc = segue_store_get(
		stream->server->store, SEGUE_TABLE_STREAMS, key, key_size, &value, &size);
	if (rc == SEGUE_ENOTFOUND)
		return 0;
	if (rc)
		return rc;
	rc = segue_stream_record_unpack(value, size, &record);
	free(value);
	if (rc)
		return segue_fail_within(segue_unless_memory(rc, SEGUE_ESTORE),
			"the record of stream '%s'", stream->spec->name);
	*found = true;
	stream->id = record.id;
	memcpy(stream->fingerprint, record.fingerprint, sizeof(stream->fingerprint));
	rc = segue_spec_compare(record.spec, stream->spec);
	segue_spec_destroy(record.spec);
	return rc ? segue_fail_within(rc, "stream '%s'", stream->spec->name) : 0;
}

/* The stream's record, to be written. */
struct making {
	const struct segue_stream *stream;
	bool exists; /* another opening of that name has made one */
};

/* On the committer's thread. */
static int add_record(void *arg, struct segue_ops *ops)
{
	struct making *making = arg;
	const struct segue_stream *stream = making->stream;
	const struct segue_stream_record record = {
		.id = stream->id,
		.spec = stream->spec,
		.fingerprint = {stream->fingerprint[0], stream->fingerprint[1]},
		.created_ms = segue_unix_ms(),
	};
	uint8_t hash[SEGUE_STORE_KEY_MAX];
	size_t size, key_size;
	void *value;
	const void *key = segue_key_stream(stream->spec->name, hash, &key_size);

	int rc = segue_store_get(
		stream->server->store, SEGUE_TABLE_STREAMS, key, key_size, &value, &size);
	if (rc != SEGUE_ENOTFOUND) {
		making->exists = rc == 0;
		if (rc == 0)
			free(value);
		return rc;
	}
	rc = segue_check_given_up(&stream->given_up);
	if (!rc)
		rc = segue_stream_record_pack(&record, &value, &size);
	return rc ? rc : segue_ops_put(ops, SEGUE_TABLE_STREAMS, key, key_size, value, size);
}

static int open_source(struct segue_stream *stream)
{
	struct segue_server *server = stream->server;
	struct opening_job job = {.stream = stream};
	char cache[4200];

	stream->keeper = (struct segue_index_keeper){stream, load_index, save_index};
	snprintf(cache, sizeof(cache), "%s/cache", server->dir);
	const struct segue_opener opener = {
		server->options.roots, &stream->reader, &stream->given_up};
	const struct segue_source_means means = {
		cache, &opener, &stream->keeper, report_progress, &job};
	return segue_source_driver(stream->spec)->open(stream->spec, &means, &stream->source);
}

static int check_fingerprint(const struct segue_stream *stream, const uint64_t fingerprint[2])
{
	if (memcmp(fingerprint, stream->fingerprint, sizeof(stream->fingerprint)) == 0)
		return 0;
	int rc = stream->source->ops->explain_change(stream->source, stream->fingerprint);
	return segue_fail_within(rc, "stream '%s': its data set has changed", stream->spec->name);
}

/*
 * Makes the stream's record, or takes the one that another opening of that name, which nobody waits
 * for any more, has made since this one looked.
 */
static int bind_record(struct segue_stream *stream)
{
	const uint64_t fingerprint[2] = {stream->fingerprint[0], stream->fingerprint[1]};
	struct making making = {.stream = stream};
	/* The same place for all: a transaction takes one of them. */
	struct segue_change change = {.build = add_record, .arg = &making};
	bool found;

	int rc = segue_changes_make(segue_committer_changes(stream->server->committer), &change);
	if (rc || !making.exists)
		return rc;
	rc = find_record(stream, &found);
	return rc ? rc : check_fingerprint(stream, fingerprint);
}

/* Binds the stream to its data set: for good, by the fingerprint in its record. */
static int settle_source(struct segue_stream *stream, bool found)
{
	struct segue_source_stats stats;

	int rc = open_source(stream);
	if (rc == SEGUE_ECHANGED && !found) {
		/* The kept index is of files that were there before; no stream of this name was. */
		stream->forget_index = true;
		rc = open_source(stream);
	}
	if (rc)
		return rc;
	segue_source_stats(stream->source, &stats);
	if (found)
		return check_fingerprint(stream, stats.fingerprint);
	memcpy(stream->fingerprint, stats.fingerprint, sizeof(stream->fingerprint));
	return stream->spec->persist ? bind_record(stream) : 0;
}

static void set_plan(struct segue_stream *stream)
{
	const struct segue_spec *spec = stream->spec;

	stream->plan = (struct segue_plan_spec){
		.records = stream->source->ops->records(stream->source),
		.epochs = spec->epochs,
		.seed = spec->seed,
		.lanes = spec->lanes,
		.batch_size = spec->batch_size,
		.num_unroll = spec->num_unroll,
		.tail = spec->tail,
		.epoch_end = spec->epoch_end,
		.shuffle = spec->shuffle,
	};
}

/* A lane that is too large for a checkpoint is not one to begin a training with. */
static int check_tokens(const struct segue_spec *spec)
{
	uint64_t size = segue_token_max(spec);

	if (!spec->persist || size <= SEGUE_STORE_VALUE_MAX)
		return 0;
	return segue_fail(SEGUE_EINVAL,
		"stream '%s': the states of a row have %" PRIu64 " bytes, which with batch_size "
		"%" PRIu32 " makes checkpoints of a lane of up to %" PRIu64
		" bytes; the store takes "
		"%" PRIu32 ": give a smaller batch_size, and more lanes",
		spec->name, segue_row_size(spec), spec->batch_size, size, SEGUE_STORE_VALUE_MAX);
}

static void opened(void *arg);

static void open_job(void *arg)
{
	struct segue_stream *stream = arg;
	bool found;

	int rc = check_tokens(stream->spec);
	if (!rc)
		rc = find_record(stream, &found);
	if (!rc)
		rc = settle_source(stream, found);
	if (!rc) {
		set_plan(stream);
		rc = segue_ledgers_load(stream);
	}
	malloc_trim(0); /* an index that was just built has left holes */
	stream->rc = rc;
	if (rc)
		strncpy(stream->detail, segue_error_detail(), sizeof(stream->detail) - 1);
	segue_loop_post(stream->server->loop, opened, stream);
}

/* ---- On the loop's thread ---- */

/* What the stream takes of its user from now on. SEGUE_ELIMIT: nothing. */
static int charge(struct segue_stream *stream, enum segue_limit limit, uint64_t amount)
{
	int rc = 0;

	if (stream->taken[limit])
		segue_user_give(stream->user, limit, stream->taken[limit]);
	stream->taken[limit] = 0;
	if (amount)
		rc = segue_user_take(stream->user, limit, amount);
	if (!rc)
		stream->taken[limit] = amount;
	return rc;
}

static void destroy_stream(struct segue_stream *stream)
{
	segue_pool_destroy(stream->pool);
	segue_ledgers_destroy(stream);
	if (stream->source)
		stream->source->ops->destroy(stream->source);
	segue_spec_destroy(stream->spec);
	segue_reader_finish(&stream->reader);
	for (unsigned i = 0; i < SEGUE_LIMIT_COUNT; i++)
		charge(stream, i, 0);
	if (stream->user)
		segue_user_release(stream->user);
	free(stream);
	malloc_trim(0); /* its threads have left holes in their arenas */
}

void segue_stream_release(struct segue_stream *stream)
{
	struct segue_stream **link = &stream->server->streams;

	if (--stream->users > 0)
		return;
	while (*link != stream)
		link = &(*link)->next;
	*link = stream->next;
	destroy_stream(stream);
}

void segue_opening_release(struct segue_opening *opening)
{
	struct segue_stream *stream = opening->stream;
	struct segue_opening **link = &stream->openings;

	if (opening->session || opening->leases > 0)
		return;
	while (*link != opening)
		link = &(*link)->next;
	*link = opening->next;
	segue_spec_destroy(opening->spec);
	free(opening);
	segue_stream_release(stream);
}

/* Whether anybody still wants what the stream's threads read. */
static void judge_interest(struct segue_stream *stream)
{
	const struct segue_opening *opening = stream->openings;

	while (opening && !opening->session)
		opening = opening->next;
	atomic_store_explicit(
		&stream->given_up, !opening || stream->server->stopping, memory_order_relaxed);
}

static void leave(struct segue_opening *opening)
{
	opening->session = NULL;
	judge_interest(opening->stream);
	segue_opening_release(opening);
}

/*
 * The spec's hash leaves the paths out: the data set is known by its fingerprint. But while a stream
 * is open nobody looks at other files that are asked for, so they must not differ.
 */
static int compare_paths(const struct segue_spec *open, const struct segue_spec *asked)
{
	const struct segue_paths *a = segue_source_paths(&open->source);
	const struct segue_paths *b = segue_source_paths(&asked->source);

	for (size_t i = 0; a && (i < a->count || i < b->count); i++) {
		const char *ours = i < a->count ? a->path[i] : "(none)";
		const char *theirs = i < b->count ? b->path[i] : "(none)";
		if (strcmp(ours, theirs) != 0)
			return segue_fail(SEGUE_ESPEC,
				"source.paths[%zu]: %s in use, %s asked for; all who have the "
				"stream open at one time must give the same paths",
				i, ours, theirs);
	}
	return 0;
}

/* Tells a session what its stream is; the runtime options are its own, so the geometry is too. */
static int answer(struct segue_opening *opening)
{
	struct segue_stream *stream = opening->stream;
	uint32_t key_max = stream->source->ops->key_max(stream->source);
	struct segue_geometry geometry;

	int rc = segue_spec_compare(stream->spec, opening->spec);
	if (!rc)
		rc = compare_paths(stream->spec, opening->spec);
	if (rc)
		return segue_fail_within(rc, "stream '%s'", stream->spec->name);
	rc = segue_geometry_init(opening->spec, key_max, &geometry);
	if (rc)
		return rc;
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_OPENED,
		.serial = opening->serial,
		.opened =
			{
				.stream = opening->id,
				.records = stream->plan.records,
				.layout_hash = geometry.hash,
				.key_max = key_max,
			},
	};
	segue_geometry_finish(&geometry);
	segue_session_send(opening->session, &message, NULL, 0);
	return 0;
}

static void remove_from_session(struct segue_opening *opening)
{
	struct segue_opening **link = &opening->session->openings;

	while (*link != opening)
		link = &(*link)->next_of_session;
	*link = opening->next_of_session;
}

static void answer_or_fail(struct segue_opening *opening, int rc, const char *detail)
{
	opening->answered = true;
	if (rc)
		segue_session_fail_text(opening->session, opening->serial, rc, detail);
	else if ((rc = answer(opening)) != 0)
		segue_session_fail(opening->session, opening->serial, rc);
	if (rc) {
		remove_from_session(opening);
		leave(opening);
	}
}

/* Bytes of the tables that have a place for each lane. */
static uint64_t size_of_lanes(const struct segue_spec *spec)
{
	return spec->persist ? spec->lanes * sizeof(struct segue_ledger) : 0;
}

/* Before it is opened: what it may take at most, but for the index, of which nothing is known. */
static int pay_ahead(struct segue_stream *stream)
{
	const struct segue_spec *spec = stream->spec;

	int rc = charge(stream, SEGUE_LIMIT_THREADS, spec->num_threads);
	if (!rc)
		rc = charge(stream, SEGUE_LIMIT_MEMORY, size_of_lanes(spec));
	return rc ? rc
		  : charge(stream, SEGUE_LIMIT_DESCRIPTORS,
			    segue_source_driver(spec)->descriptors(spec));
}

/* What its source really has. */
static void pay_for_source(struct segue_stream *stream)
{
	struct segue_source_stats stats;

	segue_source_stats(stream->source, &stats);
	stream->rc = charge(stream, SEGUE_LIMIT_DESCRIPTORS, stats.descriptors);
	if (!stream->rc)
		stream->rc = charge(stream, SEGUE_LIMIT_MEMORY,
			size_of_lanes(stream->spec) + stats.index_memory);
	if (stream->rc)
		strncpy(stream->detail, segue_error_detail(), sizeof(stream->detail) - 1);
}

/* The opening job has come back. */
static void opened(void *arg)
{
	struct segue_stream *stream = arg;

	stream->server->jobs--;
	if (!stream->rc)
		pay_for_source(stream);
	stream->state = stream->rc ? SEGUE_STREAM_FAILED : SEGUE_STREAM_OPEN;
	for (struct segue_opening *opening = stream->openings, *next; opening; opening = next) {
		next = opening->next;
		if (opening->session && !opening->answered)
			answer_or_fail(opening, stream->rc, stream->detail);
	}
	segue_stream_release(stream); /* the job's use */
}

static struct segue_stream *find_stream(struct segue_server *server, const char *name)
{
	for (struct segue_stream *stream = server->streams; stream; stream = stream->next) {
		bool lost = stream->state == SEGUE_STREAM_FAILED ||
			    (stream->state == SEGUE_STREAM_OPENING &&
				    atomic_load_explicit(&stream->given_up, memory_order_relaxed));
		if (!lost && strcmp(stream->spec->name, name) == 0)
			return stream;
	}
	return NULL;
}

static int start_stream(
	struct segue_session *session, const struct segue_spec *spec, struct segue_stream **out)
{
	struct segue_server *server = session->server;
	struct segue_stream *stream = calloc(1, sizeof(*stream));
	int rc;

	if (!stream)
		return segue_fail(SEGUE_ENOMEM, "no memory for a stream");
	stream->server = server;
	stream->id = server->next_stream;
	stream->user = segue_user_hold(session->user);
	if ((rc = segue_reader_copy(&session->peer, &stream->reader)) ||
		(rc = segue_spec_copy(spec, &stream->spec)) || (rc = pay_ahead(stream)) ||
		(rc = segue_pool_create("loader", spec->num_threads, &stream->pool))) {
		destroy_stream(stream);
		return rc;
	}
	server->next_stream++;
	stream->users = 1; /* the job */
	stream->next = server->streams;
	server->streams = stream;
	server->jobs++;
	stream->job = (struct segue_job){.fn = open_job, .arg = stream};
	segue_pool_run(stream->pool, &stream->job);
	*out = stream;
	return 0;
}

static int check_count(const struct segue_session *session)
{
	uint64_t have = 0;

	for (const struct segue_opening *opening = session->openings; opening;
		opening = opening->next_of_session)
		have++;
	return segue_limits_check(
		&session->server->options.limits, SEGUE_LIMIT_STREAMS, have, 1, "this connection");
}

static void open_for(struct segue_session *session, uint64_t serial, struct segue_spec *spec)
{
	struct segue_server *server = session->server;
	struct segue_stream *stream = find_stream(server, spec->name);
	struct segue_opening *opening = calloc(1, sizeof(*opening));
	int rc =
		opening ? check_count(session) : segue_fail(SEGUE_ENOMEM, "no memory for a stream");

	if (!rc && server->stopping)
		rc = segue_fail(SEGUE_EGONE, "the server is being stopped");
	if (!rc && !stream)
		rc = start_stream(session, spec, &stream);
	if (rc) {
		free(opening);
		segue_spec_destroy(spec);
		segue_session_fail(session, serial, rc);
		return;
	}
	*opening = (struct segue_opening){
		.id = ++server->next_id,
		.stream = stream,
		.session = session,
		.spec = spec,
		.serial = serial,
		.next = stream->openings,
		.next_of_session = session->openings,
	};
	stream->openings = opening;
	session->openings = opening;
	stream->users++;
	judge_interest(stream);
	if (stream->state == SEGUE_STREAM_OPEN)
		answer_or_fail(opening, 0, "");
}

/* The files of a stream that another user has opened are looked at again, for this one. */
struct look {
	struct segue_errand errand;
	const struct segue_roots *roots;
	struct segue_spec *spec;
	struct segue_reader reader;
};

static int look_at_files(struct segue_errand *errand)
{
	struct look *look = (struct look *)errand;
	const struct segue_opener opener = {look->roots, &look->reader, &errand->given_up};

	return segue_source_driver(look->spec)->check(look->spec, &opener);
}

static void looked_at_files(struct segue_task *task)
{
	struct look *look = (struct look *)task;
	const struct segue_errand *errand = &look->errand;
	struct segue_session *session = segue_errand_end(&look->errand);

	if (session && !errand->rc) {
		open_for(session, errand->serial, look->spec);
	} else {
		if (session)
			segue_session_fail_text(
				session, errand->serial, errand->rc, errand->detail);
		segue_spec_destroy(look->spec);
	}
	segue_reader_finish(&look->reader);
	free(look);
}

static int start_looking(struct segue_session *session, uint64_t serial, struct segue_spec *spec)
{
	struct look *look = calloc(1, sizeof(*look));

	if (!look)
		return segue_fail(SEGUE_ENOMEM, "no memory for a stream");
	look->roots = session->server->options.roots;
	look->spec = spec;
	int rc = segue_reader_copy(&session->peer, &look->reader);
	if (!rc)
		rc = segue_errand_run(
			session, serial, &look->errand, look_at_files, looked_at_files);
	if (rc) {
		segue_reader_finish(&look->reader);
		free(look);
	}
	return rc;
}

void segue_stream_open_request(
	struct segue_session *session, uint64_t serial, struct segue_spec *spec)
{
	const struct segue_stream *stream = find_stream(session->server, spec->name);

	if (!session->server->options.roots || segue_reader_trusted(&session->peer) || !stream ||
		stream->reader.uid == session->peer.uid) {
		open_for(session, serial, spec);
		return;
	}
	int rc = start_looking(session, serial, spec);
	if (rc) {
		segue_spec_destroy(spec);
		segue_session_fail(session, serial, rc);
	}
}

void segue_stream_close_request(struct segue_session *session, uint64_t serial, uint64_t stream)
{
	const struct segue_message done = {.type = SEGUE_MESSAGE_DONE, .serial = serial};
	struct segue_opening *opening = segue_opening_find(session, stream);

	if (!opening) {
		segue_session_fail(session, serial,
			segue_fail(SEGUE_EPROTOCOL, "stream %llu is not open",
				(unsigned long long)stream));
		return;
	}
	segue_ledgers_opening_closed(opening);
	remove_from_session(opening);
	leave(opening);
	segue_session_send(session, &done, NULL, 0);
}

struct segue_opening *segue_opening_find(struct segue_session *session, uint64_t id)
{
	struct segue_opening *opening = session->openings;

	while (opening && opening->id != id)
		opening = opening->next_of_session;
	return opening && opening->answered ? opening : NULL;
}

void segue_stream_session_gone(struct segue_session *session)
{
	struct segue_server *server = session->server;

	segue_checkpoints_session_gone(session);
	for (struct segue_stream *stream = server->streams; stream; stream = stream->next)
		segue_ledgers_session_gone(stream, session);
	while (session->openings) {
		struct segue_opening *opening = session->openings;
		session->openings = opening->next_of_session;
		leave(opening);
	}
}

int64_t segue_stream_tick(struct segue_server *server, int64_t now)
{
	int64_t when = segue_checkpoints_tick(server, now);

	for (struct segue_stream *stream = server->streams; stream; stream = stream->next) {
		int64_t at = segue_ledgers_tick(stream, now);
		when = at < when ? at : when;
	}
	return when;
}

void segue_stream_storage(struct segue_server *server, int code, const char *detail)
{
	for (struct segue_stream *stream = server->streams; stream; stream = stream->next)
		segue_ledgers_storage(stream, code, detail);
}

bool segue_stream_stop(struct segue_server *server)
{
	bool idle = true;

	for (struct segue_stream *stream = server->streams; stream; stream = stream->next) {
		judge_interest(stream);
		idle = segue_ledgers_stop(stream) && idle;
	}
	return idle && server->jobs == 0;
}

void segue_stream_destroy_all(struct segue_server *server)
{
	while (server->streams) {
		struct segue_stream *stream = server->streams;
		server->streams = stream->next;
		while (stream->openings) {
			struct segue_opening *next = stream->openings->next;
			segue_spec_destroy(stream->openings->spec);
			free(stream->openings);
			stream->openings = next;
		}
		destroy_stream(stream);
	}
}
