/* Streams by their names: from those that are open, or from the store's records. */
#include "stream/find.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/error.h"
#include "session/request.h"
#include "source/kinds.h"
#include "store/index.h"
#include "store/lanes.h"
#include "stream/streams.h"

static int fail_unknown(const char *name)
{
	return segue_fail(SEGUE_ENOTFOUND,
		"there is no stream '%s' to be opened by its name: nobody has it open, and the "
		"store has none ('segue inspect' shows those that it has). Give its source, once, "
		"which makes it",
		name);
}

/* One that the store does not have may still be open: persist=False, or not bound yet. */
struct lookup {
	struct segue_request base;
	struct segue_store *store;
	char name[SEGUE_NAME_MAX + 1];
	struct segue_stream_record record; /* spec NULL: there is none */
	struct segue_opening_order order;  /* spec NULL: it is only asked what it is */
};

static void free_lookup(struct lookup *lookup)
{
	segue_spec_destroy(lookup->record.spec);
	segue_spec_destroy(lookup->order.spec);
	free(lookup);
}

/* ---- The store's record ---- */

static int load_kept(void *arg, const char *name, void **bytes, size_t *size)
{
	return segue_store_index_load(arg, name, bytes, size);
}

static int recall(struct segue_store *store, const struct segue_stream_record *record)
{
	const struct segue_index_keeper keeper = {.arg = store, .load = load_kept};
	const struct segue_source_driver *driver = segue_source_driver(record->spec);

	return driver->recall ? driver->recall(record->spec, record->fingerprint, &keeper) : 0;
}

static int load_record(struct segue_request *base)
{
	struct lookup *lookup = (struct lookup *)base;

	int rc = segue_lanes_load_stream(lookup->store, lookup->name, &lookup->record);
	if (rc) {
		lookup->record.spec = NULL;
		return rc == SEGUE_ENOTFOUND ? 0 : rc;
	}
	return lookup->order.spec ? recall(lookup->store, &lookup->record) : 0;
}

/* order->spec: taken over, also on failure. */
static int start(struct segue_session *session, uint64_t serial, const char *name,
	const struct segue_opening_order *order, void (*done)(struct segue_task *task))
{
	struct lookup *lookup = calloc(1, sizeof(*lookup));

	if (!lookup) {
		segue_spec_destroy(order->spec);
		return segue_fail(SEGUE_ENOMEM, "no memory for a stream");
	}
	lookup->base.is_long = true;
	lookup->store = session->server->store;
	snprintf(lookup->name, sizeof(lookup->name), "%s", name);
	lookup->order = *order;
	int rc = segue_request_run(&lookup->base, session, serial, load_record, done);
	if (rc)
		free_lookup(lookup);
	return rc;
}

/* ---- What it is ---- */

/* `epochs` in all. */
static void tell(
	struct segue_session *session, uint64_t serial, struct segue_spec *spec, uint64_t epochs)
{
	uint64_t first = spec->epochs;
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_FOUND, .serial = serial, .found = {.spec = spec}};

	spec->epochs = epochs;
	segue_session_send(session, &message, NULL, 0);
	spec->epochs = first;
}

/* As many as the input has by now; 0: endless. */
static uint64_t epochs_in_all(const struct segue_ends *ends)
{
	return ends->epochs[ends->count - 1];
}

/* While its own thread opens a stream, what it is made with is what its openings ask for. */
static void tell_stream(
	struct segue_session *session, uint64_t serial, const struct segue_stream *stream)
{
	const struct segue_opening *opening = LIST_FIRST(&stream->openings);

	if (stream->state == SEGUE_STREAM_OPEN)
		tell(session, serial, stream->spec, epochs_in_all(&stream->plan.ends));
	else
		tell(session, serial, opening->spec, opening->spec->epochs);
}

static void answer(struct segue_task *task)
{
	struct lookup *lookup = (struct lookup *)task;
	struct segue_session *session = lookup->base.session;
	uint64_t serial = lookup->base.serial;
	const struct segue_stream *stream;

	if (!segue_request_is_over(&lookup->base)) {
		stream = segue_streams_find(session->server, lookup->name);
		if (lookup->record.spec)
			tell(session, serial, lookup->record.spec,
				epochs_in_all(&lookup->record.ends));
		else if (stream)
			tell_stream(session, serial, stream);
		else
			segue_session_fail(session, serial, fail_unknown(lookup->name));
	}
	segue_request_end(&lookup->base);
	free_lookup(lookup);
}

void segue_find_request(struct segue_session *session, const struct segue_message *message)
{
	const char *name = message->stream_find.stream;
	const struct segue_stream *stream = segue_streams_find(session->server, name);
	const struct segue_opening_order none = {.spec = NULL};
	int rc = 0;

	if (stream && stream->state == SEGUE_STREAM_OPEN)
		tell_stream(session, message->serial, stream);
	else
		rc = start(session, message->serial, name, &none, answer);
	if (rc)
		segue_session_fail(session, message->serial, rc);
}

/* ---- Opening it ---- */

/* Gives what is asked for the source of the stream; the rest is compared by who opens it. */
static int give_source(const struct segue_spec *has, struct segue_spec *asked)
{
	int rc = segue_source_copy(&has->source, &asked->source);

	return rc ? rc : segue_spec_check(asked);
}

/* order->spec is taken over. `has`: NULL, there is none. */
static void open_with(const struct segue_opening_order *order, const struct segue_spec *has)
{
	int rc = has ? give_source(has, order->spec) : fail_unknown(order->spec->name);

	if (!rc) {
		segue_stream_open_request(order);
		return;
	}
	segue_spec_destroy(order->spec);
	segue_session_fail(order->session, order->serial, rc);
}

static void open_found(struct segue_task *task)
{
	struct lookup *lookup = (struct lookup *)task;

	if (!segue_request_is_over(&lookup->base)) {
		const struct segue_stream *stream =
			segue_streams_find(lookup->base.session->server, lookup->name);

		open_with(&lookup->order, stream ? stream->spec : lookup->record.spec);
		lookup->order.spec = NULL;
	}
	segue_request_end(&lookup->base);
	free_lookup(lookup);
}

void segue_find_and_open(const struct segue_opening_order *order)
{
	struct segue_session *session = order->session;
	const struct segue_stream *stream = segue_streams_find(session->server, order->spec->name);

	if (stream) {
		open_with(order, stream->spec);
		return;
	}
	int rc = start(session, order->serial, order->spec->name, order, open_found);
	if (rc)
		segue_session_fail(session, order->serial, rc);
}
