/* Producers: sequences checked, and laid out in a ring (client/underway.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "client/underway.h"
#include "core/error.h"
#include "core/insert.h"
#include "core/sized.h"
#include "core/wait.h"

#define RING_NORMAL ((uint64_t)16 << 20)
#define RING_MIN    ((uint64_t)1 << 16)
#define RING_MAX    ((uint64_t)1 << 40)
#define LOOK_NS     INT64_C(20000000) /* so often it is asked what became of entries */
#define LOOK_COUNT  1024              /* ... or when so many are under way */

static int fail_memory(void)
{
	return segue_fail(SEGUE_ENOMEM, "no memory for a producer");
}

static int attempt_ready(void *arg)
{
	return segue_producer_ready(arg);
}

/* What every call begins with. */
static int begin(const struct segue_producer *producer)
{
	if (!producer)
		return segue_fail(SEGUE_EINVAL, "the producer is missing (NULL)");
	int rc = segue_fork_check(&producer->stream->client->connection.guard);
	if (rc)
		return rc;
	return producer->failure.rc ? segue_outcome_give(&producer->failure) : 0;
}

/* ---- Inserting ---- */

/* How many values each field has that is not dense. */
static int take_counts(struct segue_producer *producer, const struct segue_sequence *sequence,
	struct segue_seqfile_entry *entry)
{
	for (uint32_t i = 0; i < producer->head.count; i++) {
		const struct segue_seqfile_field *field = &producer->head.fields[i];
		const int64_t *offsets = sequence->offsets ? sequence->offsets[i] : NULL;
		const char *in = segue_seqfile_place_name(field->place);

		if (field->form == SEGUE_FORM_DENSE)
			continue;
		if (!offsets)
			return segue_fail(SEGUE_EINVAL,
				"the offsets of %s[\"%s\"] are missing (NULL)", in, field->name);
		uint64_t places = field->place == SEGUE_SEQFILE_SEQUENCE ? entry->steps : 1;
		int64_t count = offsets[places];
		if (count < 0)
			return segue_fail(SEGUE_EINVAL,
				"the offsets of %s[\"%s\"] do not begin at 0, or one is below that "
				"before it",
				in, field->name);
		producer->counts[field->variable] = (uint64_t)count;
	}
	entry->counts = (const uint8_t *)producer->counts;
	return 0;
}

static int take_sequence(struct segue_producer *producer, const struct segue_sequence *sequence,
	char key[SEGUE_NAME_MAX + 32], struct segue_seqfile_entry *entry)
{
	*entry = (struct segue_seqfile_entry){.steps = sequence->steps,
		.total_length = sequence->has_total_length ? sequence->total_length
							   : SEGUE_SEQFILE_NO_TOTAL,
		.key = sequence->key,
		.key_size = (uint32_t)sequence->key_size};
	if (!sequence->key) {
		snprintf(key, SEGUE_NAME_MAX + 32, "%s:%" PRIu64, producer->name,
			producer->last + 1);
		entry->key = key;
		entry->key_size = (uint32_t)strlen(key);
	} else if (sequence->key_size == 0 || sequence->key_size > SEGUE_KEY_MAX) {
		return segue_fail(SEGUE_EINVAL, "the key has %zu bytes, 1 to %d are allowed",
			sequence->key_size, SEGUE_KEY_MAX);
	}
	if (sequence->steps == 0 || sequence->steps > UINT32_MAX)
		return segue_fail(SEGUE_EINVAL,
			"the sequence has %" PRIu64 " steps, 1 to %" PRIu32 " are allowed",
			sequence->steps, UINT32_MAX);
	return take_counts(producer, sequence, entry);
}

/* Writes all of it to `to`, and checks it there. */
static int put_sequence(const struct segue_producer *producer,
	const struct segue_sequence *sequence, const struct segue_seqfile_entry *entry, uint8_t *to)
{
	const struct segue_seqfile_head *head = &producer->head;
	const uint8_t *column[3 * SEGUE_FEATURES_MAX];
	uint8_t *at = to;

	if (head->variable)
		memcpy(at, entry->counts, 8 * (size_t)head->variable);
	at += 8 * (size_t)head->variable;
	memcpy(at, entry->key, entry->key_size);
	if (entry->stamp.cursor_size)
		memcpy(at + entry->key_size, entry->stamp.cursor, entry->stamp.cursor_size);
	for (uint32_t i = 0; i < head->count; i++) {
		const struct segue_seqfile_field *field = &head->fields[i];
		uint64_t offsets = segue_seqfile_offsets_size(field, entry);
		uint64_t values = segue_seqfile_column_size(field, entry) - offsets;

		column[i] = to + producer->columns[i];
		if (offsets)
			memcpy(to + producer->columns[i], sequence->offsets[i], offsets);
		if (values && (!sequence->arrays || !sequence->arrays[i]))
			return segue_fail(SEGUE_EINVAL, "the array of %s[\"%s\"] is missing (NULL)",
				segue_seqfile_place_name(field->place), field->name);
		if (values)
			memcpy(to + producer->columns[i] + offsets, sequence->arrays[i], values);
	}
	return segue_insert_check(producer->stream->shape->spec, head, entry, column);
}

/* Room of the ring for the entry; waits for it. */
static int await_room(struct segue_producer *producer, struct segue_pending *pending,
	int64_t timeout_ns, int64_t deadline_ns)
{
	while (!segue_producer_find_room(producer, pending->room, &pending->offset)) {
		/* The answer has all that are acknowledged by then. */
		int rc = segue_producer_ask(
			producer, timeout_ns ? producer->first->entry : 0, deadline_ns);

		if (!rc && !timeout_ns &&
			!segue_producer_find_room(producer, pending->room, &pending->offset))
			rc = segue_producer_reason(producer, producer->first->entry,
				segue_fail(SEGUE_ETIMEOUT, "there is no room"));
		if (rc == SEGUE_ETIMEOUT)
			return segue_fail_within(rc,
				"producer '%s': its ring is full of entries that are not "
				"acknowledged",
				producer->name);
		if (rc)
			return rc;
	}
	return 0;
}

/* Where its bytes go: into the ring, or memory of its own until it is acknowledged. */
static int make_room(struct segue_producer *producer, struct segue_pending *pending,
	int64_t timeout_ns, int64_t deadline_ns, uint8_t **to)
{
	bool own = pending->bytes > producer->ring_size;

	pending->room = own ? SEGUE_INSERT_LEAST : (pending->bytes + 63) / 64 * 64;
	if (pending->room < SEGUE_INSERT_LEAST)
		pending->room = SEGUE_INSERT_LEAST;
	int rc = await_room(producer, pending, timeout_ns, deadline_ns);
	if (!rc && own)
		rc = segue_shm_create(
			"segue-entry", pending->bytes, SEGUE_SHM_WRITE, &pending->own);
	if (!rc)
		*to = own ? pending->own.map : (uint8_t *)producer->ring.map + pending->offset;
	return rc;
}

static void append(struct segue_producer *producer, struct segue_pending *pending)
{
	pending->entry = ++producer->last;
	producer->end = pending->offset + pending->room;
	*producer->tail = pending;
	producer->tail = &pending->next;
	producer->count++;
}

/* One that was not sent is as if it had never been. */
static int take_back(struct segue_producer *producer, const struct segue_pending *pending, int rc)
{
	struct segue_pending **link = &producer->first;
	struct segue_outcome outcome;

	if (producer->sent >= pending->entry)
		return 0;
	segue_outcome_take(&outcome, rc);
	while (*link != pending)
		link = &(*link)->next;
	producer->end = link == &producer->first ? 0 : pending->offset;
	segue_pending_free(*link);
	*link = NULL;
	producer->tail = link;
	producer->count--;
	producer->last--;
	return segue_outcome_give(&outcome);
}

static int insert(struct segue_producer *producer, const struct segue_sequence *sequence,
	struct segue_seqfile_entry *entry, int64_t timeout_ns)
{
	int64_t deadline_ns = segue_deadline(segue_now_ns(), timeout_ns ? timeout_ns : LOOK_NS);
	struct segue_pending *pending = calloc(1, sizeof(*pending));
	uint8_t *to;

	if (!pending)
		return fail_memory();
	*pending = (struct segue_pending){.own = SEGUE_SHM_NONE,
		.steps = entry->steps,
		.total_length = entry->total_length,
		.key_size = entry->key_size,
		.cursor_size = entry->stamp.cursor_size};
	int rc = segue_insert_lay_out(&producer->head, entry, producer->columns, &pending->bytes);
	if (!rc)
		rc = make_room(producer, pending, timeout_ns, deadline_ns, &to);
	if (!rc)
		rc = put_sequence(producer, sequence, entry, to);
	if (rc) {
		segue_pending_free(pending);
		return rc;
	}
	append(producer, pending);
	rc = segue_client_run(producer->stream->client, deadline_ns, attempt_ready, producer);
	return rc ? take_back(producer, pending, rc) : 0;
}

int segue_producer_insert(struct segue_producer *producer, const struct segue_sequence *given,
	const void *cursor, size_t cursor_size, int64_t timeout_ns)
{
	char key[SEGUE_NAME_MAX + 32];
	struct segue_seqfile_entry entry;
	struct segue_sequence sequence;
	int rc = begin(producer);

	if (rc)
		return rc;
	if (timeout_ns < 0)
		return segue_fail(SEGUE_EINVAL, "segue_producer_insert wants no negative timeout");
	rc = segue_sized_take("segue_sequence", given, sizeof(sequence), &sequence);
	if (rc)
		return rc;
	if (cursor_size > SEGUE_SEQLOG_CURSOR_MAX)
		return segue_fail(SEGUE_EINVAL, "the cursor has %zu bytes, at most %d are allowed",
			cursor_size, SEGUE_SEQLOG_CURSOR_MAX);
	rc = take_sequence(producer, &sequence, key, &entry);
	if (rc)
		return rc;
	entry.stamp.cursor = cursor;
	entry.stamp.cursor_size = (uint16_t)cursor_size;
	bool look =
		producer->count >= LOOK_COUNT || segue_now_ns() - producer->looked_ns >= LOOK_NS;
	if (look && producer->first)
		rc = segue_producer_ask(
			producer, 0, segue_deadline(segue_now_ns(), SEGUE_REQUEST_NS));
	return rc ? rc : insert(producer, &sequence, &entry, timeout_ns);
}

int segue_producer_flush(struct segue_producer *producer, int64_t timeout_ns)
{
	int rc = begin(producer);

	if (rc || producer->acknowledged >= producer->last)
		return rc;
	rc = segue_producer_ask(
		producer, producer->last, segue_deadline(segue_now_ns(), timeout_ns));
	return rc == SEGUE_ETIMEOUT
		       ? segue_fail_within(rc,
				 "producer '%s': %" PRIu64 " of %" PRIu64
				 " entries are acknowledged",
				 producer->name, producer->acknowledged, producer->last)
		       : rc;
}

void segue_producer_serials(
	const struct segue_producer *producer, uint64_t *inserted, uint64_t *acknowledged)
{
	*inserted = producer->last;
	*acknowledged = producer->acknowledged;
}

/* ---- Life ---- */

static int take_options(const struct segue_producer_options *given, struct segue_producer *producer)
{
	struct segue_producer_options options;

	producer->ring_size = RING_NORMAL;
	if (!given)
		return 0;
	int rc = segue_sized_take("segue_producer_options", given, sizeof(options), &options);
	if (rc)
		return rc;
	producer->takeover = options.takeover;
	if (options.ring_bytes)
		producer->ring_size = options.ring_bytes;
	return segue_range_check("ring_bytes", producer->ring_size, RING_MIN, RING_MAX);
}

static int make(struct segue_stream *stream, const char *name,
	const struct segue_producer_options *options, struct segue_producer *producer)
{
	producer->stream = stream;
	stream->users++;
	producer->tail = &producer->first;
	producer->ring = SEGUE_SHM_NONE;
	int rc = segue_name_check("the producer's name", name, true);
	if (!rc)
		rc = take_options(options, producer);
	/* Of one that was opened by its name alone the server knows it. */
	const struct segue_spec_source *source = &stream->shape->spec->source;
	if (!rc && source->kind != SEGUE_SOURCE_STORED && !segue_source_find_log(source))
		rc = segue_fail(SEGUE_EINVAL,
			"stream '%s' reads what is there: sequences are inserted into one whose "
			"source is a log (segue.Push, SEGUE_SOURCE_LOG)",
			stream->shape->spec->name);
	if (!rc && getentropy(producer->token, sizeof(producer->token)) < 0)
		rc = segue_fail_errno(SEGUE_ESYSTEM, "no random bytes for a producer");
	if (!rc)
		rc = segue_insert_fields(stream->shape->spec, &producer->head);
	if (rc)
		return rc;
	strcpy(producer->name, name);
	producer->counts = calloc(producer->head.count + 1u, sizeof(*producer->counts));
	producer->columns = calloc(producer->head.count + 1u, sizeof(*producer->columns));
	return producer->counts && producer->columns ? 0 : fail_memory();
}

int segue_producer_open(struct segue_stream *stream, const char *name,
	const struct segue_producer_options *options, struct segue_producer **out)
{
	if (!stream || !name || !out)
		return segue_fail(SEGUE_EINVAL,
			"segue_producer_open wants a stream, a name and a place for the producer");
	int rc = segue_fork_check(&stream->client->connection.guard);
	if (rc)
		return rc;
	struct segue_producer *producer = calloc(1, sizeof(*producer));
	if (!producer)
		return fail_memory();
	rc = make(stream, name, options, producer);
	if (!rc)
		rc = segue_client_run(stream->client, INT64_MAX, attempt_ready, producer);
	if (rc) {
		segue_producer_destroy(producer);
		return rc;
	}
	*out = producer;
	return 0;
}

void segue_producer_resumed(const struct segue_producer *producer, uint64_t *serial,
	const void **cursor, size_t *cursor_size)
{
	*serial = producer->resumed;
	*cursor = producer->cursor;
	*cursor_size = producer->cursor_size;
}

static int attempt_close(void *arg)
{
	struct segue_producer *producer = arg;
	struct segue_message request = {
		.type = SEGUE_MESSAGE_PRODUCER_LEAVE, .producer_leave = {.close = true}};
	struct segue_reply reply;
	int rc = segue_producer_ready(producer);

	if (rc)
		return rc;
	request.producer_leave.producer = producer->id;
	return segue_client_call(
		producer->stream->client, &request, SEGUE_MESSAGE_DONE, SEGUE_REQUEST_NS, &reply);
}

int segue_producer_close(struct segue_producer *producer, int64_t timeout_ns)
{
	int rc = segue_producer_flush(producer, timeout_ns);

	if (!rc)
		rc = segue_client_run(producer->stream->client, INT64_MAX, attempt_close, producer);
	if (rc)
		return rc;
	producer->epoch = 0; /* the session is over */
	segue_outcome_take(&producer->failure,
		segue_fail(SEGUE_EINVAL, "producer '%s' is closed", producer->name));
	return 0;
}

void segue_producer_destroy(struct segue_producer *producer)
{
	if (!producer)
		return;
	if (producer->stream->epoch == producer->stream->client->epoch)
		segue_producer_tell_left(producer);
	while (producer->first) {
		struct segue_pending *pending = producer->first;

		producer->first = pending->next;
		segue_pending_free(pending);
	}
	segue_shm_destroy(&producer->ring);
	segue_seqfile_free_head(&producer->head);
	segue_stream_drop(producer->stream);
	free(producer->counts);
	free(producer->columns);
	free(producer->cursor);
	free(producer);
}
