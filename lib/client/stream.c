/* A stream: its spec, its shape, opening it on each connection; the token of any of its lanes. */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "core/error.h"
#include "core/wait.h"

#define PATHS_IN_MESSAGE 32768 /* bytes of paths that travel in the message itself */

/* ---- Shape --------------------------------------------------------------------------------- */

void segue_shape_drop(struct segue_shape *shape)
{
	if (!shape || --shape->users > 0)
		return;
	for (size_t i = 0; shape->init && i < shape->spec->state_count; i++)
		free(shape->init[i]);
	free(shape->init);
	segue_geometry_finish(&shape->geometry);
	segue_spec_destroy(shape->spec);
	free(shape);
}

/* The geometry comes with the answer of the server. */
static int make_shape(const struct segue_stream_spec *asked, struct segue_shape **out)
{
	struct segue_shape *shape = calloc(1, sizeof(*shape));

	if (!shape)
		goto no_memory;
	shape->users = 1;
	int rc = segue_spec_create(asked, &shape->spec);
	if (rc) {
		segue_shape_drop(shape);
		return rc;
	}
	size_t states = shape->spec->state_count;
	shape->init = calloc(states ? states : 1, sizeof(*shape->init));
	if (!shape->init)
		goto no_memory;
	for (size_t i = 0; i < states; i++) {
		size_t size = shape->spec->states[i].size;
		shape->row_size += size;
		if (!asked->states[i].init)
			continue;
		shape->init[i] = malloc(size);
		if (!shape->init[i])
			goto no_memory;
		memcpy(shape->init[i], asked->states[i].init, size);
	}
	*out = shape;
	return 0;

no_memory:
	segue_shape_drop(shape);
	return segue_fail(SEGUE_ENOMEM, "no memory for a stream");
}

/* ---- Opening ------------------------------------------------------------------------------- */

/* Long lists of paths go beside the message. */
static int upload_paths(struct segue_client *client, const struct segue_spec *spec, uint64_t *id)
{
	const struct segue_paths *paths = segue_source_paths(&spec->source);
	struct segue_shm upload;
	size_t total = 0;

	*id = 0;
	for (size_t i = 0; paths && i < paths->count; i++)
		total += strlen(paths->path[i]) + 1;
	if (total <= PATHS_IN_MESSAGE)
		return 0;
	int rc = segue_client_upload(client, total, &upload, id);
	if (rc)
		return rc;
	char *to = upload.map;
	for (size_t i = 0; i < paths->count; i++)
		to = stpcpy(to, paths->path[i]) + 1;
	segue_shm_destroy(&upload);
	return 0;
}

static int check_layout(struct segue_stream *stream, uint32_t key_max, uint64_t hash)
{
	struct segue_shape *shape = stream->shape;

	if (!stream->opened) {
		int rc = segue_geometry_init(shape->spec, key_max, &shape->geometry);
		if (rc)
			return rc;
		shape->key_max = key_max;
		stream->opened = true;
	}
	if (key_max != shape->key_max)
		return segue_fail(SEGUE_ECHANGED,
			"stream '%s': its longest key had %u bytes and now has %u: the data set "
			"has changed under it",
			shape->spec->name, shape->key_max, key_max);
	if (hash != shape->geometry.hash)
		return segue_fail(SEGUE_EVERSION,
			"stream '%s': the server lays its memory out in another way than this "
			"library, %s (hashes %016llx and %016llx): use the same version, depth and "
			"batch size on both sides",
			shape->spec->name, SEGUE_VERSION_STRING, (unsigned long long)hash,
			(unsigned long long)shape->geometry.hash);
	return 0;
}

int segue_stream_ready(struct segue_stream *stream)
{
	struct segue_client *client = stream->client;
	struct segue_message request = {
		.type = SEGUE_MESSAGE_STREAM_OPEN, .stream_open.spec = stream->shape->spec};
	struct segue_reply reply;

	if (stream->epoch == client->epoch)
		return 0;
	int rc = upload_paths(client, stream->shape->spec, &request.stream_open.paths_upload);
	if (rc)
		return rc;
	/* No limit: the first opening of a data set reads all of it, and shows how far it is. */
	rc = segue_client_call(client, &request, SEGUE_MESSAGE_OPENED, INT64_MAX, &reply);
	if (rc)
		return rc;
	rc = check_layout(stream, reply.message.opened.key_max, reply.message.opened.layout_hash);
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

int segue_stream_open(struct segue_client *client, const struct segue_stream_spec *spec,
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
	rc = make_shape(spec, &stream->shape);
	if (rc == 0)
		rc = segue_client_run(client, INT64_MAX, attempt_open, stream);
	if (rc) {
		segue_stream_close(stream);
		return rc;
	}
	*out = stream;
	return 0;
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

	if (connection->closes_streams && !connection->guard.forked && stream->id &&
		stream->epoch == stream->client->epoch)
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

/* ---- Tokens of any lane -------------------------------------------------------------------- */

struct checkpoint_attempt {
	struct segue_stream *stream;
	struct segue_message request;
	void *token;
	size_t size;
};

/*
 * Lanes of ours whose lease went with an earlier connection first say where they are: the server
 * would wait for them in vain. One with an open batch cannot; it is asked for at its own step only
 * after that batch.
 */
static int ready_lanes(struct segue_stream *stream)
{
	for (struct segue_lane *lane = stream->client->lanes; lane; lane = lane->next) {
		if (lane->stream != stream || segue_track_open(&lane->track) || lane->fenced)
			continue;
		int rc = segue_lane_ready(lane);
		if (rc && rc != SEGUE_EFENCED) /* then its holder has it, not we */
			return rc;
	}
	return 0;
}

static int attempt_checkpoint(void *arg)
{
	struct checkpoint_attempt *call = arg;
	int rc = segue_stream_ready(call->stream);

	if (rc == 0)
		rc = ready_lanes(call->stream);
	if (rc)
		return rc;
	call->request.checkpoint.stream = call->stream->id;
	return segue_client_fetch(call->stream->client, &call->request,
		segue_deadline(call->request.checkpoint.timeout_ns, SEGUE_REQUEST_NS), &call->token,
		&call->size);
}

int segue_stream_checkpoint(struct segue_stream *stream, uint32_t lane, uint64_t step,
	int64_t timeout_ns, void **token, size_t *size)
{
	if (!stream || !token || !size || timeout_ns < 0)
		return segue_fail(SEGUE_EINVAL, "segue_stream_checkpoint wants a stream, a timeout "
						"and places for the token and its size");
	int rc = segue_fork_check(&stream->client->connection.guard);
	if (rc)
		return rc;
	const struct segue_spec *spec = stream->shape->spec;
	if (lane >= spec->lanes)
		return segue_fail(SEGUE_EINVAL, "stream '%s' has no lane %u: it has %u", spec->name,
			lane, spec->lanes);
	struct checkpoint_attempt call = {
		.stream = stream,
		.request = {.type = SEGUE_MESSAGE_CHECKPOINT,
			.checkpoint = {.step = step, .lane = lane, .timeout_ns = timeout_ns}},
	};
	rc = segue_client_run(stream->client, INT64_MAX, attempt_checkpoint, &call);
	if (rc)
		return rc;
	*token = call.token;
	*size = call.size;
	return 0;
}
