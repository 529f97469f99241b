/* Each message to its handler; greetings; what of a source comes in uploads. */
#include "serve/requests.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/layout.h"
#include "report/request.h"
#include "session/upload.h"
#include "stream/any.h"
#include "stream/behind.h"
#include "stream/by_key.h"
#include "stream/checkpoint.h"
#include "stream/drop.h"
#include "stream/find.h"
#include "stream/group.h"
#include "stream/inserted.h"
#include "stream/release.h"
#include "stream/replica.h"
#include "stream/stored.h"
#include "stream/streams.h"
#include "stream/supply.h"

enum { PATHS_BYTES_MAX = 1 << 28 };

/* ---- Greeting ---- */

static int check_greeting(const struct segue_session *session, const struct segue_message *message)
{
	if (session->state != SEGUE_SESSION_NEW)
		return segue_fail(SEGUE_EPROTOCOL, "a second HELLO");
	if (message->hello.protocol != SEGUE_PROTOCOL ||
		message->hello.layout_version != SEGUE_LAYOUT_VERSION)
		return segue_fail(SEGUE_EVERSION,
			"the client (segue %s) speaks protocol %u, layout %u; the server (segue "
			"%s) protocol %u, layout %u: use the same version on both sides",
			message->hello.version, message->hello.protocol,
			message->hello.layout_version, SEGUE_VERSION_STRING, SEGUE_PROTOCOL,
			SEGUE_LAYOUT_VERSION);
	return 0;
}

static void greet(struct segue_session *session, const struct segue_message *message)
{
	const struct segue_server *server = session->server;
	const struct segue_message welcome = {
		.type = SEGUE_MESSAGE_WELCOME,
		.serial = message->serial,
		.welcome =
			{
				.protocol = SEGUE_PROTOCOL,
				.layout_version = SEGUE_LAYOUT_VERSION,
				.version = SEGUE_VERSION_STRING,
				.pid = getpid(),
				.instance = server->instance,
				.dir = server->dir,
				.device = server->device,
				.inode = server->inode,
			},
	};

	int rc = check_greeting(session, message);
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		segue_session_hang_up(session);
		return;
	}
	segue_session_greet(session, message->hello.program);
	segue_session_send(session, &welcome, NULL, 0);
}

/* ---- Opening a stream ---- */

/* Puts a list of paths, each ended by a NUL, up to `end` or to an empty one, into its place. */
static int add_list(struct segue_paths *paths, const char *bytes, const char *end)
{
	size_t count = 0;

	for (const char *at = bytes; at < end && *at; at += strlen(at) + 1)
		count++;
	if (count > SEGUE_PATHS_MAX)
		return segue_fail(SEGUE_ELIMIT, "%zu paths: the limit is %u; give patterns", count,
			SEGUE_PATHS_MAX);
	paths->path = calloc(count, sizeof(*paths->path));
	if (!paths->path)
		return segue_fail(SEGUE_ENOMEM, "no memory for %zu paths", count);
	for (; paths->count < count; paths->count++) {
		paths->path[paths->count] = strdup(bytes);
		if (!paths->path[paths->count])
			return segue_fail(SEGUE_ENOMEM, "no memory for %zu paths", count);
		bytes += strlen(bytes) + 1;
	}
	return 0;
}

/* Those of all lists of the spec, with an empty path between two. */
static int add_paths(struct segue_spec *spec, const void *from, size_t size)
{
	const char *bytes = from, *end = bytes + size;
	struct segue_paths *paths;
	int rc = 0;

	if (size == 0 || bytes[size - 1] != '\0')
		return segue_fail(
			SEGUE_EPROTOCOL, "paths in an upload that are not ended by a NUL");
	for (size_t i = 0; !rc && (paths = segue_source_list(&spec->source, i)); i++) {
		if (paths->count || bytes >= end)
			return segue_fail(SEGUE_EPROTOCOL,
				"paths in an upload that are not those of the source");
		rc = add_list(paths, bytes, end);
		for (size_t k = 0; !rc && k < paths->count; k++)
			bytes += strlen(bytes) + 1;
		bytes += 1; /* the empty one */
	}
	if (!rc && bytes != end + 1)
		rc = segue_fail(
			SEGUE_EPROTOCOL, "paths in an upload that are not those of the source");
	return rc;
}

static void open_checked(const struct segue_opening_order *order)
{
	int rc = segue_spec_check(order->spec);

	/* Before anything is made beneath a path that leads elsewhere. */
	if (!rc && order->spec->persist)
		rc = segue_store_look(order->session->server->store);
	if (rc) {
		segue_spec_destroy(order->spec);
		segue_session_fail(order->session, order->serial, rc);
		return;
	}
	if (order->spec->source.kind == SEGUE_SOURCE_STORED)
		segue_find_and_open(order);
	else
		segue_stream_open_request(order);
}

/* Gives each source of arrays its index: they came in an upload, one behind the other. */
static int add_indexes(struct segue_spec *spec, const void *bytes, size_t size)
{
	const struct segue_spec_source *source;
	const char *at = bytes;

	for (size_t i = 0; (source = segue_source_plain(&spec->source, i)); i++) {
		struct segue_array_index **index = segue_source_index(source);

		if (!index)
			continue;
		int rc = segue_array_index_read(at, size, index);
		if (rc)
			return segue_source_fail_within(&spec->source, i, rc);
		at += (*index)->size;
		size -= (*index)->size;
	}
	return size ? segue_fail(SEGUE_EPROTOCOL,
			      "%zu bytes of an index of arrays that the source does not have", size)
		    : 0;
}

/* What came in uploads, because it may be long: paths, indexes of arrays. */
struct source_request {
	struct segue_request base;
	struct segue_upload *paths, *index; /* NULL: none */
	struct segue_opening_order order;
};

static int read_upload(struct segue_upload *upload, struct segue_spec *spec,
	int (*add)(struct segue_spec *spec, const void *bytes, size_t size))
{
	uint8_t *bytes;
	size_t size;

	if (!upload)
		return 0;
	int rc = segue_upload_read(upload, &bytes, &size);
	if (rc)
		return rc;
	rc = add(spec, bytes, size);
	free(bytes);
	return rc;
}

static int read_source(struct segue_request *base)
{
	struct source_request *request = (struct source_request *)base;
	struct segue_spec *spec = request->order.spec;

	int rc = read_upload(request->paths, spec, add_paths);
	return rc ? rc : read_upload(request->index, spec, add_indexes);
}

static void source_read(struct segue_task *task)
{
	struct source_request *request = (struct source_request *)task;

	segue_upload_destroy(request->paths);
	segue_upload_destroy(request->index);
	if (segue_request_is_over(&request->base))
		segue_spec_destroy(request->order.spec);
	else
		open_checked(&request->order);
	segue_request_end(&request->base);
	free(request);
}

static int start_reading(struct segue_upload *paths, struct segue_upload *index,
	const struct segue_opening_order *order)
{
	if (paths && paths->size > PATHS_BYTES_MAX)
		return segue_fail(SEGUE_ELIMIT,
			"%zu bytes of paths: the limit is %d; give patterns", paths->size,
			PATHS_BYTES_MAX);
	struct source_request *request = calloc(1, sizeof(*request));
	if (!request)
		return segue_fail(SEGUE_ENOMEM, "no memory for a list of paths");
	request->paths = paths;
	request->index = index;
	request->order = *order;
	int rc = segue_request_run(
		&request->base, order->session, order->serial, read_source, source_read);
	if (rc)
		free(request);
	return rc;
}

static void open_stream(struct segue_session *session, const struct segue_message *message)
{
	const struct segue_opening_order order = {.session = session,
		.serial = message->serial,
		.spec = message->stream_open.spec,
		.again = message->stream_open.again};
	struct segue_upload *paths, *index = NULL;

	int rc = segue_upload_take(session, message->stream_open.paths_upload, &paths);
	if (!rc)
		rc = segue_upload_take(session, message->stream_open.index_upload, &index);
	if (!rc && !paths && !index) {
		open_checked(&order);
		return;
	}
	if (!rc)
		rc = start_reading(paths, index, &order);
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		segue_upload_destroy(paths);
		segue_upload_destroy(index);
		segue_spec_destroy(message->stream_open.spec);
	}
}

/* ---- The table ---- */

/* A message that is not here only servers send. */
static const struct {
	void (*handle)(struct segue_session *session, const struct segue_message *message);
	unsigned cost; /* in frames of the rate: about what it makes the loop do */
	bool first;    /* may come before the greeting */
} handlers[] = {
	[SEGUE_MESSAGE_HELLO] = {greet, 1, true},
	[SEGUE_MESSAGE_STREAM_OPEN] = {open_stream, 10},
	[SEGUE_MESSAGE_STREAM_FIND] = {segue_find_request, 4},
	[SEGUE_MESSAGE_STREAM_CLOSE] = {segue_stream_close_request, 1},
	[SEGUE_MESSAGE_LANE_ATTACH] = {segue_any_request, 4},
	[SEGUE_MESSAGE_LANE_FOLLOW] = {segue_follow_request, 4},
	[SEGUE_MESSAGE_LANE_DETACH] = {segue_detach_request, 1},
	[SEGUE_MESSAGE_LANE_FLUSH] = {segue_flush_request, 1},
	[SEGUE_MESSAGE_LANE_SIDE] = {segue_side_request, 1},
	[SEGUE_MESSAGE_UPLOAD] = {segue_upload_request, 4},
	[SEGUE_MESSAGE_CHECKPOINT] = {segue_checkpoint_request, 4},
	[SEGUE_MESSAGE_STORED] = {segue_stored_request, 1},
	[SEGUE_MESSAGE_STATES] = {segue_by_key_request, 2},
	[SEGUE_MESSAGE_GROUP] = {segue_group_request, 2},
	[SEGUE_MESSAGE_STREAM_DROP] = {segue_drop_request, 4},
	[SEGUE_MESSAGE_PRODUCER_OPEN] = {segue_supply_open_request, 4},
	[SEGUE_MESSAGE_INSERT] = {segue_supply_insert_request, 0},
	[SEGUE_MESSAGE_PRODUCER_WAIT] = {segue_supply_wait_request, 1},
	[SEGUE_MESSAGE_PRODUCER_LEAVE] = {segue_supply_leave_request, 1},
	[SEGUE_MESSAGE_STREAM_END] = {segue_supply_end_request, 1},
	[SEGUE_MESSAGE_STREAM_FILES] = {segue_inserted_request, 4},
	[SEGUE_MESSAGE_INPUT_FAILED] = {segue_input_failed_request, 1},
	[SEGUE_MESSAGE_REPORT] = {segue_report_request, 10},
};

static unsigned hang_up(
	struct segue_session *session, const struct segue_message *message, const char *why)
{
	struct segue_message copy = *message;

	segue_message_finish(&copy);
	segue_session_fail(session, message->serial, segue_fail(SEGUE_EPROTOCOL, "%s", why));
	segue_session_hang_up(session);
	return 1;
}

unsigned segue_requests_received(struct segue_session *session, const struct segue_message *message)
{
	size_t type = message->type;

	bool known = type < sizeof(handlers) / sizeof(handlers[0]) && handlers[type].handle;
	if (session->state == SEGUE_SESSION_NEW && !(known && handlers[type].first))
		return hang_up(session, message, "the first message must be HELLO");
	if (!known)
		return hang_up(session, message, "a message that only servers send");
	handlers[type].handle(session, message);
	return handlers[type].cost;
}

void segue_requests_gone(struct segue_session *session)
{
	segue_supplies_session_gone(session);
	/* First: requests that wait for a lane are found by their session. */
	segue_streams_session_gone(session);
	segue_requests_session_gone(session);
	segue_uploads_session_gone(session);
}
