/* All streams of a server: opened and closed for sessions, swept when nobody uses them. */
#include "stream/streams.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "session/request.h"
#include "source/kinds.h"
#include "stream/any.h"
#include "stream/attach.h"
#include "stream/dataset.h"
#include "stream/drop.h"
#include "stream/opening.h"
#include "stream/supply.h"
#include "stream/taker.h"

/* ---- Life ---- */

/*
 * Frees what nobody uses any more. Where no caller still looks at a stream, an opening or a
 * ledger.
 */
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
		segue_takers_finish(stream);
		segue_stream_destroy(stream);
	}
}

/* The data set is open, or why not is known. */
static void opened(struct segue_task *task)
{
	struct segue_stream *stream = (struct segue_stream *)task;
	struct segue_opening *opening, *next;

	if (!task->outcome.rc)
		segue_outcome_take(&task->outcome, segue_stream_pay_for_source(stream));
	stream->state = task->outcome.rc ? SEGUE_STREAM_FAILED : SEGUE_STREAM_OPEN;
	LIST_FOREACH_SAFE(opening, &stream->openings, of_stream, next) {
		if (opening->session && !opening->answered)
			segue_opening_answer(opening, segue_outcome_give(&task->outcome));
	}
}

static void start(struct segue_stream *stream)
{
	stream->task.work = segue_dataset_open;
	stream->task.done = opened;
	segue_pool_run(stream->pool, &stream->task);
}

struct segue_stream *segue_streams_find(const struct segue_server *server, const char *name)
{
	struct segue_stream *stream;

	LIST_FOREACH(stream, &server->streams->all, link) {
		bool lost = stream->state == SEGUE_STREAM_FAILED || stream->dropped ||
			    (stream->state == SEGUE_STREAM_OPENING &&
				    atomic_load_explicit(&stream->given_up, memory_order_relaxed));
		if (!lost && strcmp(stream->spec->name, name) == 0)
			break;
	}
	return stream;
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

static void open_for(const struct segue_opening_order *order)
{
	struct segue_session *session = order->session;
	struct segue_server *server = session->server;
	struct segue_stream *stream = segue_streams_find(server, order->spec->name);
	struct segue_opening *opening;

	int rc = check_count(session);
	if (!rc && server->stopping)
		rc = segue_fail(SEGUE_EGONE, "the server is being stopped");
	if (!rc && order->spec->persist)
		rc = segue_drops_check(server, order->spec->name, stream ? "" : NULL);
	if (!rc && !stream && !(rc = segue_stream_create(session, order->spec, &stream)))
		start(stream);
	if (!rc)
		rc = segue_opening_create(stream, order, &opening);
	if (rc) {
		segue_spec_destroy(order->spec);
		segue_session_fail(session, order->serial, rc);
	} else if (stream->state == SEGUE_STREAM_OPEN) {
		segue_opening_answer(opening, 0);
	}
}

/* The files of a stream that another user has opened are looked at again, for this one. */
struct look {
	struct segue_request request;
	struct segue_opening_order order;
};

static int look_at_files(struct segue_request *request)
{
	const struct segue_opener opener =
		segue_account_opener(request->account, &request->given_up);
	const struct segue_spec *spec = ((struct look *)request)->order.spec;

	return segue_source_driver(spec)->check(spec, &opener);
}

static void looked_at_files(struct segue_task *task)
{
	struct look *look = (struct look *)task;

	if (segue_request_is_over(&look->request))
		segue_spec_destroy(look->order.spec);
	else
		open_for(&look->order);
	segue_request_end(&look->request);
	free(look);
}

static int start_looking(const struct segue_opening_order *order)
{
	struct look *look = calloc(1, sizeof(*look));

	if (!look)
		return segue_fail(SEGUE_ENOMEM, "no memory for a stream");
	look->request.is_long = true;
	look->order = *order;
	int rc = segue_request_run(
		&look->request, order->session, order->serial, look_at_files, looked_at_files);
	if (rc)
		free(look);
	return rc;
}

void segue_stream_open_request(const struct segue_opening_order *order)
{
	const struct segue_session *session = order->session;
	const struct segue_stream *stream = segue_streams_find(session->server, order->spec->name);

	if (!stream || segue_account_reads_as(session->account, stream->account)) {
		open_for(order);
		return;
	}
	int rc = start_looking(order);
	if (rc) {
		segue_spec_destroy(order->spec);
		segue_session_fail(order->session, order->serial, rc);
	}
}

void segue_stream_close_request(struct segue_session *session, const struct segue_message *message)
{
	struct segue_opening *opening;
	struct segue_ledger *ledger;

	int rc = segue_opening_find(session, message->stream_close.stream, &opening);
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		return;
	}
	LIST_FOREACH(ledger, &opening->stream->ledgers.in_use, link)
		segue_ledger_opening_closed(ledger, opening);
	segue_any_opening_closed(opening->stream, opening);
	segue_supplies_opening_closed(session, opening);
	segue_opening_leave(opening);
	sweep(session->server);
	segue_session_send_done(session, message->serial);
}

/* ---- All of them ---- */

/* Each ledger that is in use; those of a stream that is being opened belong to another thread. */
static void each(
	struct segue_server *server, void (*fn)(struct segue_ledger *ledger, void *arg), void *arg)
{
	struct segue_stream *stream;
	struct segue_ledger *ledger;

	LIST_FOREACH(stream, &server->streams->all, link) {
		if (stream->state != SEGUE_STREAM_OPEN)
			continue;
		LIST_FOREACH(ledger, &stream->ledgers.in_use, link)
			fn(ledger, arg);
	}
}

void segue_streams_session_gone(struct segue_session *session)
{
	struct segue_stream *stream;

	LIST_FOREACH(stream, &session->server->streams->all, link)
		if (stream->state == SEGUE_STREAM_OPEN)
			segue_any_session_gone(stream, session);
	each(session->server, segue_ledger_session_gone, session);
	while (!LIST_EMPTY(&session->openings))
		segue_opening_leave(LIST_FIRST(&session->openings));
	sweep(session->server);
}

void segue_streams_tick(struct segue_server *server, int64_t now)
{
	struct segue_stream *stream;

	each(server, segue_ledger_look, &now);
	LIST_FOREACH(stream, &server->streams->all, link)
		if (stream->state == SEGUE_STREAM_OPEN)
			segue_any_tick(stream, now);
	sweep(server);
}

static void tell_storage(struct segue_ledger *ledger, void *arg)
{
	const struct segue_outcome *storage = arg;

	if (ledger->grant && ledger->stream->spec->persist)
		segue_grant_storage(ledger->grant, storage->rc, storage->detail);
}

void segue_streams_storage(struct segue_server *server)
{
	each(server, tell_storage, &server->storage);
}

void segue_streams_quiesce(struct segue_server *server)
{
	struct segue_stream *stream;

	LIST_FOREACH(stream, &server->streams->all, link)
		if (stream->state == SEGUE_STREAM_OPEN && stream->live)
			segue_live_stop(stream->live);
}

bool segue_streams_stop(struct segue_server *server)
{
	struct segue_stream *stream;
	bool idle = segue_loop_awaited(server->loop) == 0;

	segue_drops_stop(server);
	segue_streams_quiesce(server);
	LIST_FOREACH(stream, &server->streams->all, link)
		segue_openings_judge(stream);
	each(server, segue_ledger_stop, &idle);
	return idle;
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
		segue_takers_finish(stream);
		segue_stream_destroy(stream);
	}
}
