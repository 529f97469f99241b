/* What a producer has under way: the ring, what is sent again, what became of it. */
#include "client/underway.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/bulk.h"
#include "core/error.h"
#include "core/insert.h"
#include "core/wait.h"

#define REASON_NS INT64_C(1000000000) /* for the server to say what it waits for */

/* ---- What is under way ---- */

void segue_pending_free(struct segue_pending *pending)
{
	segue_shm_destroy(&pending->own);
	free(pending);
}

static void acknowledge(struct segue_producer *producer, uint64_t entry)
{
	while (producer->first && producer->first->entry <= entry) {
		struct segue_pending *pending = producer->first;

		producer->first = pending->next;
		if (!producer->first)
			producer->tail = &producer->first;
		producer->count--;
		segue_pending_free(pending);
	}
	if (entry > producer->acknowledged)
		producer->acknowledged = entry;
	if (!producer->first)
		producer->end = 0;
}

bool segue_producer_find_room(
	const struct segue_producer *producer, uint64_t room, uint64_t *offset)
{
	const struct segue_pending *oldest = producer->first;
	uint64_t end = producer->end;

	*offset = end;
	if (!oldest)
		return room <= producer->ring_size;
	if (end > oldest->offset && producer->ring_size - end >= room)
		return true;
	if (end > oldest->offset)
		*offset = 0;
	return *offset < oldest->offset && oldest->offset - *offset >= room;
}

/* ---- Sending: within an attempt ---- */

static int send_one(struct segue_producer *producer, const struct segue_pending *pending)
{
	struct segue_client *client = producer->stream->client;
	struct segue_message message = {.type = SEGUE_MESSAGE_INSERT,
		.insert = {.producer = producer->id,
			.entry = pending->entry,
			.offset = pending->offset,
			.bytes = pending->bytes,
			.steps = pending->steps,
			.total_length = pending->total_length,
			.key_size = pending->key_size,
			.cursor_size = pending->cursor_size}};

	if (pending->own.fd >= 0) {
		struct segue_shm upload;
		int rc = segue_client_upload(
			client, pending->bytes, &upload, &message.insert.upload);
		if (rc)
			return rc;
		memcpy(upload.map, pending->own.map, pending->bytes);
		segue_shm_destroy(&upload);
	}
	segue_connection_tell(&client->connection, &message);
	return segue_connection_live(&client->connection)
		       ? 0
		       : segue_fail(SEGUE_EGONE, "the connection to the server is lost");
}

static int send_all(struct segue_producer *producer)
{
	for (const struct segue_pending *pending = producer->first; pending;
		pending = pending->next) {
		if (pending->entry <= producer->sent)
			continue;
		int rc = send_one(producer, pending);
		if (rc)
			return rc;
		producer->sent = pending->entry;
	}
	return 0;
}

/* What is under way moves to the new ring, at the same places. */
static void move_ring(struct segue_producer *producer, const struct segue_shm *ring)
{
	for (const struct segue_pending *pending = producer->first; pending;
		pending = pending->next)
		if (pending->own.fd < 0)
			memcpy((uint8_t *)ring->map + pending->offset,
				(const uint8_t *)producer->ring.map + pending->offset,
				pending->bytes);
	segue_shm_destroy(&producer->ring);
	producer->ring = *ring;
}

static int take_opened(
	struct segue_producer *producer, const struct segue_message *reply, const uint8_t *ring)
{
	uint64_t entry = reply->producer_opened.entry;
	size_t size = reply->producer_opened.cursor_size;

	if (producer->begun && entry > producer->last) {
		segue_outcome_take(&producer->failure,
			segue_fail(SEGUE_EFENCED,
				"producer '%s' was taken over by another, which has inserted since",
				producer->name));
		return segue_outcome_give(&producer->failure);
	}
	if (!producer->begun && size) {
		producer->cursor = malloc(size);
		if (!producer->cursor)
			return segue_fail(SEGUE_ENOMEM, "no memory for a producer");
		memcpy(producer->cursor, ring, size);
		producer->cursor_size = size;
	}
	if (!producer->begun)
		producer->last = producer->resumed = entry;
	producer->begun = true;
	producer->takeover = false; /* that was for who had it then */
	acknowledge(producer, entry);
	producer->sent = entry;
	producer->id = reply->producer_opened.producer;
	return 0;
}

int segue_producer_ready(struct segue_producer *producer)
{
	struct segue_client *client = producer->stream->client;
	struct segue_message request = {.type = SEGUE_MESSAGE_PRODUCER_OPEN,
		.producer_open = {.producer = producer->name, .takeover = producer->takeover}};
	struct segue_reply reply;
	struct segue_shm ring;
	int rc = segue_stream_ready(producer->stream);

	if (rc)
		return rc;
	if (producer->epoch == client->epoch)
		return send_all(producer);
	rc = segue_client_upload(client, producer->ring_size, &ring, &request.producer_open.ring);
	if (rc)
		return rc;
	request.producer_open.stream = producer->stream->id;
	memcpy(request.producer_open.token, producer->token, sizeof(producer->token));
	rc = segue_client_call(
		client, &request, SEGUE_MESSAGE_PRODUCER_OPENED, SEGUE_REQUEST_NS, &reply);
	if (!rc)
		rc = take_opened(producer, &reply.message, ring.map);
	if (rc) {
		segue_shm_destroy(&ring);
		return rc;
	}
	move_ring(producer, &ring);
	producer->epoch = client->epoch;
	return send_all(producer);
}

/* ---- Asking what became of it ---- */

/* Whether another try may fare better: then it is opened anew by the next call. */
static bool is_passing(int rc)
{
	return rc == SEGUE_ENOSPACE || rc == SEGUE_ENOMEM || rc == SEGUE_ELIMIT;
}

void segue_producer_tell_left(struct segue_producer *producer)
{
	struct segue_client *client = producer->stream->client;
	struct segue_message request = {
		.type = SEGUE_MESSAGE_PRODUCER_LEAVE, .producer_leave = {.producer = producer->id}};

	if (producer->epoch && producer->epoch == client->epoch && !client->connection.guard.forked)
		segue_connection_tell(&client->connection, &request);
	producer->epoch = 0;
}

/* What the server says of entries that it does not take. */
static int take_failure(struct segue_producer *producer, int rc)
{
	switch (rc) {
	case SEGUE_EGONE:
	case SEGUE_ETIMEOUT:
	case SEGUE_EINTERRUPTED:
		return rc;
	default:
		break;
	}
	struct segue_outcome outcome;
	segue_outcome_take(&outcome, rc);
	if (is_passing(rc))
		segue_producer_tell_left(producer);
	else
		producer->failure = outcome;
	return segue_outcome_give(&outcome);
}

struct asking {
	struct segue_producer *producer;
	uint64_t entry;
	int64_t deadline_ns;
};

static int attempt_ask(void *arg)
{
	const struct asking *asking = arg;
	struct segue_producer *producer = asking->producer;
	struct segue_message request = {.type = SEGUE_MESSAGE_PRODUCER_WAIT};
	struct segue_reply reply;
	int rc = segue_producer_ready(producer);

	if (rc)
		return rc;
	if (asking->entry && producer->acknowledged >= asking->entry)
		return 0;
	int64_t left =
		asking->deadline_ns == INT64_MAX ? INT64_MAX : asking->deadline_ns - segue_now_ns();
	if (!asking->entry)
		left = SEGUE_REQUEST_NS;
	request.producer_wait.producer = producer->id;
	request.producer_wait.entry = asking->entry;
	rc = segue_client_call(producer->stream->client, &request, SEGUE_MESSAGE_ACKNOWLEDGED,
		left > 0 ? left : 0, &reply);
	if (rc)
		return take_failure(producer, rc);
	acknowledge(producer, reply.message.acknowledged.entry);
	if (producer->acknowledged >= asking->entry)
		return 0;
	/* The server has lost what was sent: it is sent again. */
	segue_producer_tell_left(producer);
	return segue_fail(
		SEGUE_EGONE, "the server has lost entries of producer '%s'", producer->name);
}

int segue_producer_reason(struct segue_producer *producer, uint64_t entry, int rc)
{
	struct segue_message request = {.type = SEGUE_MESSAGE_PRODUCER_WAIT,
		.producer_wait = {.producer = producer->id, .entry = entry, .look = true}};
	struct segue_outcome timeout;
	struct segue_reply reply;

	/* By its number of another connection it could be another producer. */
	if (producer->epoch != producer->stream->client->epoch)
		return rc;
	segue_outcome_take(&timeout, rc);
	rc = segue_client_call(
		producer->stream->client, &request, SEGUE_MESSAGE_ACKNOWLEDGED, REASON_NS, &reply);
	if (rc)
		return rc == SEGUE_EGONE ? segue_outcome_give(&timeout)
					 : take_failure(producer, rc);
	acknowledge(producer, reply.message.acknowledged.entry);
	return producer->acknowledged >= entry ? 0 : segue_outcome_give(&timeout);
}

int segue_producer_ask(struct segue_producer *producer, uint64_t entry, int64_t deadline_ns)
{
	struct asking asking = {producer, entry, deadline_ns};

	producer->looked_ns = segue_now_ns();
	int rc = segue_client_run(producer->stream->client, deadline_ns, attempt_ask, &asking);
	return rc == SEGUE_ETIMEOUT && entry ? segue_producer_reason(producer, entry, rc) : rc;
}
