/* Streams: opened and closed, paid for, swept. */
#include "stream/stream.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "session/request.h"
#include "stream/attach.h"
#include "stream/dataset.h"
#include "stream/opening.h"

/* ---- What a stream takes ---- */

/* What the stream takes of its account from now on. SEGUE_ELIMIT: nothing. */
static int charge(struct segue_stream *stream, enum segue_limit limit, uint64_t amount)
{
	segue_account_give(stream->account, limit, stream->taken[limit]);
	stream->taken[limit] = 0;
	int rc = segue_sessions_take(stream->server, stream->account, limit, amount);
	if (!rc)
		stream->taken[limit] = amount;
	return rc;
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
static int pay_for_source(struct segue_stream *stream)
{
	struct segue_source_stats stats;

	segue_source_stats(stream->source, &stats);
	int rc = charge(stream, SEGUE_LIMIT_DESCRIPTORS, stats.descriptors);
	return rc ? rc
		  : charge(stream, SEGUE_LIMIT_MEMORY,
			    size_of_lanes(stream->spec) + stats.index_memory);
}

/* ---- Life ---- */

static void destroy(struct segue_stream *stream)
{
	segue_pool_destroy(stream->pool);
	segue_ledgers_finish(&stream->ledgers);
	if (stream->source)
		stream->source->ops->destroy(stream->source);
	segue_spec_destroy(stream->spec);
	for (unsigned i = 0; i < SEGUE_LIMIT_COUNT; i++)
		charge(stream, i, 0);
	segue_account_release(stream->account);
	free(stream);
	malloc_trim(0); /* its threads have left holes in their arenas */
}

/* Frees what nobody uses any more. Where no caller still looks at a stream, an opening or a ledger. */
static void sweep(struct segue_server *server)
{
	struct segue_stream *stream, *next;

	LIST_FOREACH_SAFE(stream, &server->streams->all, link, next) {
		if (stream->state == SEGUE_STREAM_OPEN)
			segue_ledgers_sweep(&stream->ledgers);
		segue_openings_sweep(stream);
		if (stream->state == SEGUE_STREAM_OPENING || !LIST_EMPTY(&stream->openings))
			continue;
		LIST_REMOVE(stream, link);
		destroy(stream);
	}
}

/* The data set is open, or why not is known. */
static void opened(struct segue_task *task)
{
	struct segue_stream *stream = (struct segue_stream *)task;
	struct segue_opening *opening, *next;

	if (!task->outcome.rc)
		segue_outcome_take(&task->outcome, pay_for_source(stream));
	stream->state = task->outcome.rc ? SEGUE_STREAM_FAILED : SEGUE_STREAM_OPEN;
	LIST_FOREACH_SAFE(opening, &stream->openings, of_stream, next) {
		if (opening->session && !opening->answered)
			segue_opening_answer(opening, segue_outcome_give(&task->outcome));
	}
}

static struct segue_stream *find(struct segue_server *server, const char *name)
{
	struct segue_stream *stream;

	LIST_FOREACH(stream, &server->streams->all, link) {
		bool lost = stream->state == SEGUE_STREAM_FAILED ||
			    (stream->state == SEGUE_STREAM_OPENING &&
				    atomic_load_explicit(&stream->given_up, memory_order_relaxed));
		if (!lost && strcmp(stream->spec->name, name) == 0)
			break;
	}
	return stream;
}

static int start(
	struct segue_session *session, const struct segue_spec *spec, struct segue_stream **out)
{
	struct segue_server *server = session->server;
	const struct segue_pool_options options = {
		.name = "loader", .threads = spec->num_threads, .loop = server->loop};
	struct segue_stream *stream = calloc(1, sizeof(*stream));
	int rc;

	if (!stream)
		return segue_fail(SEGUE_ENOMEM, "no memory for a stream");
	stream->server = server;
	stream->ledgers.stream = stream;
	stream->id = server->streams->next_id;
	stream->account = segue_account_hold(session->account);
	stream->task.work = segue_dataset_open;
	stream->task.done = opened;
	if ((rc = segue_spec_copy(spec, &stream->spec)) || (rc = pay_ahead(stream)) ||
		(rc = segue_pool_create(&options, &stream->pool))) {
		destroy(stream);
		return rc;
	}
	server->streams->next_id++;
	LIST_INSERT_HEAD(&server->streams->all, stream, link);
	segue_pool_run(stream->pool, &stream->task);
	*out = stream;
	return 0;
}

/* ---- Requests ---- */

static int check_count(const struct segue_session *session)
{
	const struct segue_opening *opening;
	uint64_t have = 0;

	LIST_FOREACH(opening, &session->openings, of_session)
		have++;
	return segue_guard_check(session->server->guard, SEGUE_LIMIT_STREAMS, have, 1);
}

static void open_for(struct segue_session *session, uint64_t serial, struct segue_spec *spec)
{
	struct segue_server *server = session->server;
	struct segue_stream *stream = find(server, spec->name);
	struct segue_opening *opening;

	int rc = check_count(session);
	if (!rc && server->stopping)
		rc = segue_fail(SEGUE_EGONE, "the server is being stopped");
	if (!rc && !stream)
		rc = start(session, spec, &stream);
	if (!rc)
		rc = segue_opening_create(stream, session, serial, spec, &opening);
	if (rc) {
		segue_spec_destroy(spec);
		segue_session_fail(session, serial, rc);
	} else if (stream->state == SEGUE_STREAM_OPEN) {
		segue_opening_answer(opening, 0);
	}
}

/* The files of a stream that another user has opened are looked at again, for this one. */
struct look {
	struct segue_request request;
	struct segue_spec *spec;
};

static int look_at_files(struct segue_request *request)
{
	const struct segue_opener opener =
		segue_account_opener(request->account, &request->given_up);

	const struct segue_spec *spec = ((struct look *)request)->spec;

	return segue_source_driver(spec)->check(spec, &opener);
}

static void looked_at_files(struct segue_task *task)
{
	struct look *look = (struct look *)task;
	struct segue_session *session = look->request.session;

	if (segue_request_is_over(&look->request))
		segue_spec_destroy(look->spec);
	else
		open_for(session, look->request.serial, look->spec);
	segue_request_end(&look->request);
	free(look);
}

static int start_looking(struct segue_session *session, uint64_t serial, struct segue_spec *spec)
{
	struct look *look = calloc(1, sizeof(*look));

	if (!look)
		return segue_fail(SEGUE_ENOMEM, "no memory for a stream");
	look->request.is_long = true;
	look->spec = spec;
	int rc = segue_request_run(&look->request, session, serial, look_at_files, looked_at_files);
	if (rc)
		free(look);
	return rc;
}

void segue_stream_open_request(
	struct segue_session *session, uint64_t serial, struct segue_spec *spec)
{
	const struct segue_stream *stream = find(session->server, spec->name);
	if (!stream || segue_account_reads_as(session->account, stream->account)) {
		open_for(session, serial, spec);
		return;
	}
	int rc = start_looking(session, serial, spec);
	if (rc) {
		segue_spec_destroy(spec);
		segue_session_fail(session, serial, rc);
	}
}

void segue_stream_close_request(struct segue_session *session, const struct segue_message *message)
{
	struct segue_opening *opening;

	int rc = segue_opening_find(session, message->stream_close.stream, &opening);
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		return;
	}
	segue_ledgers_opening_closed(opening);
	segue_opening_leave(opening);
	sweep(session->server);
	segue_session_send_done(session, message->serial);
}

/* ---- All of them ---- */

void segue_streams_session_gone(struct segue_session *session)
{
	struct segue_server *server = session->server;
	struct segue_stream *stream;

	LIST_FOREACH(stream, &server->streams->all, link)
		segue_ledgers_session_gone(stream, session);
	while (!LIST_EMPTY(&session->openings))
		segue_opening_leave(LIST_FIRST(&session->openings));
	sweep(server);
}

int64_t segue_streams_tick(struct segue_server *server, int64_t now)
{
	struct segue_stream *stream;
	int64_t when = INT64_MAX;

	LIST_FOREACH(stream, &server->streams->all, link) {
		int64_t at = segue_ledgers_tick(stream, now);
		when = at < when ? at : when;
	}
	sweep(server);
	return when;
}

void segue_streams_storage(struct segue_server *server)
{
	struct segue_stream *stream;

	LIST_FOREACH(stream, &server->streams->all, link)
		segue_ledgers_storage(stream, &server->storage);
}

bool segue_streams_stop(struct segue_server *server)
{
	struct segue_stream *stream;
	bool idle = true;

	LIST_FOREACH(stream, &server->streams->all, link) {
		segue_openings_judge(stream);
		idle = segue_ledgers_stop(stream) && idle;
	}
	return idle && segue_loop_awaited(server->loop) == 0;
}

void segue_streams_destroy(struct segue_server *server)
{
	struct segue_stream *stream;

	while ((stream = LIST_FIRST(&server->streams->all))) {
		struct segue_opening *opening;
		LIST_REMOVE(stream, link);
		LIST_FOREACH(opening, &stream->openings, of_stream)
			opening->uses = 0; /* by what ended with the loop */
		segue_openings_sweep(stream);
		destroy(stream);
	}
}
