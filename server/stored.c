/* Checkpoints that the store holds: sent to a client, or removed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "server.h"

/* A request on its way through the report thread. */
struct stored_request {
	struct segue_job job;
	struct segue_server *server;
	const struct segue_session *session; /* who asked, to be looked up again */
	int64_t session_mark;
	uint64_t serial, id;
	bool remove;
	struct segue_place place;
	char stream[SEGUE_NAME_MAX + 1];
	int rc;
	void *token;
	size_t size;
	char detail[SEGUE_DETAIL_MAX];
};

static int remove_checkpoint(void *arg, struct segue_ops *ops)
{
	struct stored_request *request = arg;

	return segue_records_remove_checkpoint(
		ops, request->server->store, request->place, request->id);
}

static int do_request(struct stored_request *request)
{
	struct segue_store *store = request->server->store;
	struct segue_change change = {.build = remove_checkpoint, .arg = request};

	int rc = segue_records_find_stream(store, request->stream, &request->place.stream);
	if (rc)
		return rc;
	if (!request->remove)
		return segue_records_load_checkpoint(
			store, request->place, request->id, &request->token, &request->size);
	change.place = request->place;
	return segue_writer_change(request->server->writer, &change);
}

static void answer(void *arg)
{
	struct stored_request *request = arg;
	struct segue_session *session =
		segue_session_find(request->server, request->session, request->session_mark);
	const struct segue_message removed = {
		.type = SEGUE_MESSAGE_DONE, .serial = request->serial};

	request->server->jobs--;
	if (session && request->rc)
		segue_session_fail_text(session, request->serial, request->rc, request->detail);
	else if (session && request->remove)
		segue_session_send(session, &removed, NULL, 0);
	else if (session)
		segue_session_send_bulk(session, request->serial, 0, request->token, request->size);
	free(request->token);
	free(request);
}

static void run_request(void *arg)
{
	struct stored_request *request = arg;

	request->rc = do_request(request);
	if (request->rc)
		snprintf(request->detail, sizeof(request->detail), "%s", segue_error_detail());
	segue_loop_post(request->server->loop, answer, request);
}

void segue_stored_request(struct segue_session *session, const struct segue_message *message)
{
	struct stored_request *request = calloc(1, sizeof(*request));

	if (!request) {
		segue_session_fail(session, message->serial,
			segue_fail(SEGUE_ENOMEM, "no memory for a stored checkpoint"));
		return;
	}
	request->server = session->server;
	request->session = session;
	request->session_mark = session->hello_by;
	request->serial = message->serial;
	request->id = message->stored.id;
	request->remove = message->stored.remove;
	request->place.lane = message->stored.lane;
	snprintf(request->stream, sizeof(request->stream), "%s", message->stored.stream);
	request->job = (struct segue_job){.fn = run_request, .arg = request};
	session->server->jobs++;
	segue_pool_run(session->server->reports, &request->job);
}
