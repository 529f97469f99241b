/* Checkpoints that the store holds: sent to a client, or removed. */
#include "stream/stored.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "engine/committer.h"
#include "session/request.h"
#include "store/checkpoints.h"
#include "store/groups.h"
#include "store/lanes.h"
#include "stream/opening.h"

struct stored_request {
	struct segue_request base;
	struct segue_server *server;
	uint64_t id;
	bool remove;
	struct segue_place place;
	char stream[SEGUE_NAME_MAX + 1], group[SEGUE_NAME_MAX + 1];
	void *token;
	size_t size;
	int64_t newest_ms; /* of those that are left */
};

static int remove_checkpoint(void *arg, struct segue_ops *ops)
{
	struct stored_request *request = arg;

	return segue_checkpoints_remove(ops, request->server->store, request->place, request->id);
}

static int do_request(struct segue_request *base)
{
	struct stored_request *request = (struct stored_request *)base;
	struct segue_store *store = request->server->store;
	struct segue_change change = {.build = remove_checkpoint, .arg = request};

	int rc = segue_lanes_find_stream(store, request->stream, &request->place.stream);
	if (!rc)
		rc = segue_groups_number(store, request->place.stream, request->stream,
			request->group, &request->place.group);
	if (rc)
		return rc;
	if (!request->remove)
		return segue_checkpoints_load(
			store, request->place, request->id, &request->token, &request->size);
	change.place = request->place;
	rc = segue_changes_make(segue_committer_changes(request->server->committer), &change);
	if (!rc)
		request->newest_ms = segue_checkpoints_newest_ms(store, request->place);
	return rc;
}

/* What it needed of a log may be given up; and another is the newest, perhaps. */
static void tell_stream(const struct stored_request *request)
{
	struct segue_stream *stream;

	LIST_FOREACH(stream, &request->server->streams->all, link) {
		if (stream->state != SEGUE_STREAM_OPEN || stream->id != request->place.stream)
			continue;
		if (stream->live)
			segue_live_stored(stream->live);
		struct segue_ledger *ledger = segue_ledgers_find(
			&stream->ledgers, NULL, request->place.group, request->place.lane);
		if (ledger)
			segue_ledger_note_checkpoint(ledger, request->newest_ms);
	}
}

static void answer(struct segue_task *task)
{
	struct stored_request *request = (struct stored_request *)task;
	struct segue_session *session = request->base.session;
	uint64_t serial = request->base.serial;

	if (request->remove && !task->outcome.rc)
		tell_stream(request);
	if (!segue_request_is_over(&request->base)) {
		if (request->remove)
			segue_session_send_done(session, serial);
		else
			segue_session_send_bulk(session, serial, request->token, request->size);
	}
	segue_request_end(&request->base);
	free(request->token);
	free(request);
}

void segue_stored_request(struct segue_session *session, const struct segue_message *message)
{
	struct stored_request *request = calloc(1, sizeof(*request));

	if (!request) {
		segue_session_fail(session, message->serial,
			segue_fail(SEGUE_ENOMEM, "no memory for a stored checkpoint"));
		return;
	}
	request->base.is_long = true;
	request->server = session->server;
	request->id = message->stored.id;
	request->remove = message->stored.remove;
	request->place.lane = message->stored.lane;
	snprintf(request->stream, sizeof(request->stream), "%s", message->stored.stream);
	snprintf(request->group, sizeof(request->group), "%s", message->stored.group);
	int rc = segue_request_run(&request->base, session, message->serial, do_request, answer);
	if (rc) {
		free(request);
		segue_session_fail(session, message->serial, rc);
	}
}
