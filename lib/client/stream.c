/* A stream: opened on each connection anew. */
#include "client/stream.h"

#include <stdlib.h>
#include <string.h>

#include "client/bulk.h"
#include "core/error.h"
#include "core/wait.h"

#define PATHS_IN_MESSAGE 32768 /* bytes of paths that travel in the message itself */

/* ---- Opening ---- */

/* Bytes of all paths, with a NUL each, and one between two lists; written to `to`, if not NULL. */
static size_t flatten_paths(const struct segue_spec_source *source, char *to)
{
	const struct segue_paths *paths;
	size_t total = 0;

	for (size_t k = 0; (paths = segue_source_list(source, k)); k++) {
		if (k > 0 && to)
			to[total] = '\0';
		total += k > 0;
		for (size_t i = 0; i < paths->count; i++) {
			size_t size = strlen(paths->path[i]) + 1;

			if (to)
				memcpy(to + total, paths->path[i], size);
			total += size;
		}
	}
	return total;
}

/* Bytes of all indexes of arrays, one behind the other; written to `to`, if not NULL. */
static size_t flatten_indexes(const struct segue_spec_source *source, char *to)
{
	const struct segue_spec_source *plain;
	size_t total = 0;

	for (size_t i = 0; (plain = segue_source_plain(source, i)); i++) {
		struct segue_array_index **index = segue_source_index(plain);

		if (!index)
			continue;
		if (to)
			memcpy(to + total, (*index)->bytes, (*index)->size);
		total += (*index)->size;
	}
	return total;
}

/* What has more than so many bytes goes beside the message; *id: 0, nothing does. */
static int upload(struct segue_client *client, const struct segue_spec *spec,
	size_t (*flatten)(const struct segue_spec_source *source, char *to), size_t most,
	uint64_t *id)
{
	size_t total = flatten(&spec->source, NULL);
	struct segue_shm segment;

	*id = 0;
	if (total <= most)
		return 0;
	int rc = segue_client_upload(client, total, &segment, id);
	if (rc)
		return rc;
	flatten(&spec->source, segment.map);
	segue_shm_destroy(&segment);
	return 0;
}

/* What an answer means to who does not give the source. */
static int by_name(const struct segue_stream *stream, int rc)
{
	if (rc != SEGUE_ESOURCE)
		return segue_client_missing(stream->client, rc);
	return segue_fail_within(rc,
		"stream '%s' was opened by its name alone: if its data have been moved, open it "
		"once with its source, where it is now",
		stream->shape->spec->name);
}

int segue_stream_ready(struct segue_stream *stream)
{
	const struct segue_spec *spec = stream->shape->spec;
	struct segue_client *client = stream->client;
	struct segue_message request = {.type = SEGUE_MESSAGE_STREAM_OPEN,
		.stream_open = {.spec = stream->shape->spec,
			.again = stream->id != 0 || stream->as_it_is,
			.stored = stream->shape->spec->source.kind == SEGUE_SOURCE_STORED}};
	struct segue_reply reply;

	if (stream->epoch == client->epoch)
		return 0;
	int rc = upload(
		client, spec, flatten_paths, PATHS_IN_MESSAGE, &request.stream_open.paths_upload);
	if (!rc)
		rc = upload(client, spec, flatten_indexes, 0, &request.stream_open.index_upload);
	if (rc)
		return rc;
	/* No limit: the first opening of a data set reads all of it, and shows how far it is. */
	rc = segue_client_call(client, &request, SEGUE_MESSAGE_OPENED, INT64_MAX, &reply);
	if (request.stream_open.stored)
		rc = by_name(stream, rc);
	if (rc)
		return rc;
	rc = segue_shape_settle(
		stream->shape, reply.message.opened.key_max, reply.message.opened.layout_hash);
	if (rc)
		return rc;
	stream->id = reply.message.opened.stream;
	stream->records = reply.message.opened.records;
	stream->epoch = client->epoch;
	return 0;
}

static int attempt_open(void *arg)
{
	return segue_stream_ready(arg);
}

static int open_stream(struct segue_client *client, const struct segue_spec *spec, bool as_it_is,
	struct segue_stream **out)
{
	if (!client || !spec || !out)
		return segue_fail(SEGUE_EINVAL,
			"segue_stream_open wants a client, a spec and a place for the stream");
	int rc = segue_fork_check(&client->connection.guard);
	if (rc)
		return rc;
	struct segue_stream *stream = calloc(1, sizeof(*stream));
	if (!stream)
		return segue_fail(SEGUE_ENOMEM, "no memory for a stream");
	stream->client = client;
	stream->users = 1;
	stream->as_it_is = as_it_is;
	rc = segue_shape_create(spec, &stream->shape);
	if (!rc)
		rc = segue_client_run(client, INT64_MAX, attempt_open, stream);
	if (rc) {
		segue_stream_close(stream);
		return rc;
	}
	*out = stream;
	return 0;
}

int segue_stream_open(
	struct segue_client *client, const struct segue_spec *spec, struct segue_stream **out)
{
	return open_stream(client, spec, false, out);
}

int segue_stream_open_as_it_is(
	struct segue_client *client, const struct segue_spec *spec, struct segue_stream **out)
{
	return open_stream(client, spec, true, out);
}

void segue_stream_drop(struct segue_stream *stream)
{
	if (--stream->users > 0)
		return;
	segue_shape_drop(stream->shape);
	free(stream);
}

/* The server keeps threads and an index for a stream, which need not wait for the client's end. */
static void tell_closed(struct segue_stream *stream)
{
	struct segue_connection *connection = &stream->client->connection;
	struct segue_message request = {
		.type = SEGUE_MESSAGE_STREAM_CLOSE, .stream_close = {.stream = stream->id}};

	if (!connection->guard.forked && stream->id && stream->epoch == stream->client->epoch)
		segue_connection_tell(connection, &request);
}

void segue_stream_close(struct segue_stream *stream)
{
	if (!stream)
		return;
	tell_closed(stream);
	segue_stream_drop(stream);
}

uint64_t segue_stream_records(const struct segue_stream *stream)
{
	return stream ? stream->records : 0;
}

struct input_failed {
	struct segue_stream *stream;
	const char *reason;
};

static int attempt_fail_input(void *arg)
{
	const struct input_failed *failed = arg;
	struct segue_stream *stream = failed->stream;
	struct segue_message request = {.type = SEGUE_MESSAGE_INPUT_FAILED};
	struct segue_reply reply;
	int rc = segue_stream_ready(stream);

	if (rc)
		return rc;
	request.input_failed.stream = stream->id;
	request.input_failed.reason = failed->reason;
	return segue_client_call(
		stream->client, &request, SEGUE_MESSAGE_DONE, SEGUE_REQUEST_NS, &reply);
}

int segue_stream_fail_input(struct segue_stream *stream, const char *reason)
{
	struct input_failed failed = {stream, reason};

	if (!stream || !reason)
		return segue_fail(
			SEGUE_EINVAL, "segue_stream_fail_input wants a stream and a reason");
	int rc = segue_fork_check(&stream->client->connection.guard);
	return rc ? rc : segue_client_run(stream->client, INT64_MAX, attempt_fail_input, &failed);
}

static int attempt_end(void *arg)
{
	struct segue_stream *stream = arg;
	struct segue_message request = {.type = SEGUE_MESSAGE_STREAM_END};
	struct segue_reply reply;
	int rc = segue_stream_ready(stream);

	if (rc)
		return rc;
	request.stream_end.stream = stream->id;
	return segue_client_call(
		stream->client, &request, SEGUE_MESSAGE_DONE, SEGUE_REQUEST_NS, &reply);
}

int segue_stream_end_input(struct segue_stream *stream)
{
	if (!stream)
		return segue_fail(SEGUE_EINVAL, "the stream is missing (NULL)");
	int rc = segue_fork_check(&stream->client->connection.guard);
	return rc ? rc : segue_client_run(stream->client, INT64_MAX, attempt_end, stream);
}
