/* Producers of sessions: entries copied, checked, offered; questions about them answered. */
#include "stream/supply.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/insert.h"
#include "engine/live.h"
#include "session/upload.h"
#include "stream/behind.h"
#include "stream/drop.h"
#include "stream/opening.h"

enum {
	RING_MIN = 1 << 16,
	PASSED_MAX = 1 << 16, /* entries behind one that failed */
};

/* An entry, from its message on until it is answered. */
struct piece {
	TAILQ_ENTRY(piece) link;
	struct segue_supply *supply;
	struct segue_upload *upload; /* of its own; NULL: it lies in the ring */
	uint64_t offset, bytes, steps, total_length;
	uint32_t key_size, cursor_size;
	struct segue_ask ask; /* serial; entry: when it is made */
	struct segue_outcome made;
};
TAILQ_HEAD(pieces, piece);

struct segue_supply {
	struct segue_task task; /* copies */
	LIST_ENTRY(segue_supply) link;
	struct segue_session *session; /* NULL: gone */
	struct segue_opening *opening; /* used */
	struct segue_account *account; /* held */
	struct segue_live *live;
	struct segue_upload *ring;
	struct segue_seqfile_head head; /* what its entries have */
	uint64_t id;
	char name[SEGUE_NAME_MAX + 1];
	uint64_t handle;              /* the inserter's session; 0: not open yet, or not any more */
	uint64_t last, acknowledged;  /* entries: that came, that are safe */
	uint64_t bytes;               /* of those that came and are not answered */
	struct pieces queue, copying; /* `copying` is the task's */
	bool running;
	unsigned passed;              /* entries that came after the failure */
	unsigned asked;               /* of the inserter, and not answered */
	struct segue_outcome failure; /* rc 0: none */
	struct segue_ask ask;         /* to open, to close */
	uint64_t serial;              /* of the request that waits for that; 0: none */
	uint64_t wait_serial, wait_for;
};

/*
 * What it takes of the ring. One with an upload of its own is on the account as that, as long as
 * the copy is there.
 */
static uint64_t weight_of(const struct piece *piece)
{
	if (piece->upload)
		return SEGUE_INSERT_LEAST;
	return piece->bytes > SEGUE_INSERT_LEAST ? piece->bytes : SEGUE_INSERT_LEAST;
}

/* ---- Ends ---- */

static void free_piece(struct piece *piece)
{
	segue_upload_destroy(piece->upload);
	segue_log_entry_free(piece->ask.entry);
	free(piece);
}

static void drop_pieces(struct pieces *pieces)
{
	struct piece *piece;

	while ((piece = TAILQ_FIRST(pieces))) {
		TAILQ_REMOVE(pieces, piece, link);
		free_piece(piece);
	}
}

/* Nobody works for it, and nobody is told of it any more. */
static void free_if_idle(struct segue_supply *supply)
{
	if (supply->session || supply->running || supply->asked)
		return;
	drop_pieces(&supply->queue);
	segue_account_give(supply->account, SEGUE_LIMIT_MEMORY, supply->ring->size);
	segue_upload_destroy(supply->ring);
	segue_account_release(supply->account);
	supply->opening->uses--;
	segue_seqfile_free_head(&supply->head);
	free(supply->ask.cursor);
	free(supply);
}

/* Its session has it no more: the name is free. */
static void leave(struct segue_supply *supply)
{
	LIST_REMOVE(supply, link);
	supply->session = NULL;
	if (supply->handle)
		segue_inserter_gone(segue_live_inserter(supply->live), supply->handle);
	supply->handle = 0;
	free_if_idle(supply);
}

void segue_supplies_session_gone(struct segue_session *session)
{
	while (!LIST_EMPTY(&session->supplies))
		leave(LIST_FIRST(&session->supplies));
}

void segue_supplies_opening_closed(
	struct segue_session *session, const struct segue_opening *opening)
{
	struct segue_supply *supply, *next;

	LIST_FOREACH_SAFE(supply, &session->supplies, link, next) {
		if (supply->opening == opening)
			leave(supply);
	}
}

/* ---- What is told ---- */

static void answer_wait(struct segue_supply *supply)
{
	const struct segue_message message = {.type = SEGUE_MESSAGE_ACKNOWLEDGED,
		.serial = supply->wait_serial,
		.acknowledged = {.entry = supply->acknowledged}};

	if (!supply->session || !supply->wait_serial)
		return;
	if (supply->acknowledged >= supply->wait_for)
		segue_session_send(supply->session, &message, NULL, 0);
	else if (supply->failure.rc)
		segue_session_fail(
			supply->session, supply->wait_serial, segue_outcome_give(&supply->failure));
	else
		return;
	supply->wait_serial = 0;
}

/* The first failure stays. */
static void fail_supply(struct segue_supply *supply, int rc)
{
	if (!supply->failure.rc)
		segue_outcome_take(&supply->failure, rc);
	answer_wait(supply);
}

/* ---- Answers of the inserter ---- */

static struct segue_loop *loop_of(const struct segue_supply *supply)
{
	return supply->opening->stream->server->loop;
}

static void answered(void *arg)
{
	struct piece *piece = arg;
	struct segue_supply *supply = piece->supply;

	segue_loop_arrive(loop_of(supply));
	supply->asked--;
	supply->bytes -= weight_of(piece);
	if (piece->ask.outcome.rc) {
		fail_supply(supply, segue_outcome_give(&piece->ask.outcome));
	} else {
		if (piece->ask.serial > supply->acknowledged)
			supply->acknowledged = piece->ask.serial;
		answer_wait(supply);
	}
	free_piece(piece);
	free_if_idle(supply);
}

/* On the inserter's thread. */
static void post_answered(struct segue_ask *ask)
{
	struct piece *piece = ask->arg;

	segue_loop_post(loop_of(piece->supply), answered, piece);
}

static void offer(struct segue_supply *supply, struct piece *piece)
{
	piece->ask.what = SEGUE_ASKED_INSERT;
	piece->ask.session = supply->handle;
	piece->ask.answer = post_answered;
	piece->ask.arg = piece;
	supply->asked++;
	segue_loop_await(loop_of(supply));
	segue_inserter_ask(segue_live_inserter(supply->live), &piece->ask);
}

/* ---- Copying: on a thread of the account's ---- */

static const struct segue_shm *memory_of(const struct piece *piece)
{
	return piece->upload ? &piece->upload->shm : &piece->supply->ring->shm;
}

/* Counts, key and cursor: up to here the columns are not known. */
static int read_texts(const struct piece *piece, uint8_t **out, struct segue_seqfile_entry *entry)
{
	const struct segue_supply *supply = piece->supply;
	uint64_t counts = 8 * (uint64_t)supply->head.variable;
	uint64_t size = counts + piece->key_size + piece->cursor_size;
	uint8_t *bytes = size <= piece->bytes ? malloc(size + 1) : NULL;

	if (size > piece->bytes)
		return segue_fail(SEGUE_EPROTOCOL, "an entry of %" PRIu64 " bytes", piece->bytes);
	if (!bytes)
		return segue_fail(SEGUE_ENOMEM, "no memory for a sequence of a log");
	int rc = segue_shm_read(memory_of(piece), piece->offset, bytes, size);
	if (rc) {
		free(bytes);
		return rc;
	}
	*entry = (struct segue_seqfile_entry){.steps = piece->steps,
		.total_length = piece->total_length,
		.counts = bytes,
		.key = (const char *)bytes + counts,
		.key_size = piece->key_size,
		.stamp = {.cursor = bytes + counts + piece->key_size,
			.cursor_size = (uint16_t)piece->cursor_size}};
	*out = bytes;
	return 0;
}

/* Reads the columns straight to their places, and checks them there. */
static int read_columns(const struct piece *piece, const struct segue_seqfile_entry *told,
	const uint64_t *begins, struct segue_log_entry *made)
{
	const struct segue_seqfile_head *head = &piece->supply->head;
	const uint8_t **column = calloc(head->count, sizeof(*column));
	int rc = column ? 0 : segue_fail(SEGUE_ENOMEM, "no memory for a sequence of a log");

	for (uint32_t i = 0; !rc && i < head->count; i++) {
		uint64_t size = segue_seqfile_column_size(&head->fields[i], told);

		column[i] = made->bytes + made->column[i];
		if (size)
			rc = segue_shm_read(memory_of(piece), piece->offset + begins[i],
				made->bytes + made->column[i], size);
	}
	if (!rc)
		rc = segue_insert_check(piece->supply->opening->spec, head, told, column);
	free(column);
	return rc;
}

static int make_entry(struct piece *piece, const struct segue_seqfile_entry *told)
{
	const struct segue_supply *supply = piece->supply;
	struct segue_log *log = segue_live_log(supply->live);
	uint64_t *begins = calloc(supply->head.count, sizeof(*begins)), size;
	const struct segue_log_sequence sequence = {.key = told->key,
		.key_size = told->key_size,
		.steps = told->steps,
		.total_length = told->total_length,
		.counts =
			supply->head.variable ? (const uint64_t *)(const void *)told->counts : NULL,
		.producer = supply->name,
		.producer_size = strlen(supply->name),
		.serial = piece->ask.serial,
		.cursor = told->stamp.cursor,
		.cursor_size = told->stamp.cursor_size};

	if (!begins)
		return segue_fail(SEGUE_ENOMEM, "no memory for a sequence of a log");
	int rc = segue_insert_lay_out(&supply->head, told, begins, &size);
	if (!rc && size != piece->bytes)
		rc = segue_fail(SEGUE_EPROTOCOL,
			"an entry of %" PRIu64 " bytes, which by its steps has %" PRIu64,
			piece->bytes, size);
	if (!rc)
		rc = segue_log_entry_make(log, &sequence, &piece->ask.entry);
	if (!rc)
		rc = read_columns(piece, told, begins, piece->ask.entry);
	if (!rc)
		segue_log_entry_seal(log, piece->ask.entry);
	free(begins);
	return rc;
}

static int copy(struct segue_task *task)
{
	struct segue_supply *supply = (struct segue_supply *)task;
	struct piece *piece;

	TAILQ_FOREACH(piece, &supply->copying, link) {
		struct segue_seqfile_entry told;
		uint8_t *texts = NULL;
		int rc = read_texts(piece, &texts, &told);

		if (!rc)
			rc = make_entry(piece, &told);
		free(texts);
		segue_outcome_take(&piece->made, rc);
		if (rc)
			break;
	}
	return 0;
}

static void start_copying(struct segue_supply *supply);

static void copied(struct segue_task *task)
{
	struct segue_supply *supply = (struct segue_supply *)task;
	struct piece *piece;

	supply->running = false;
	while ((piece = TAILQ_FIRST(&supply->copying))) {
		TAILQ_REMOVE(&supply->copying, piece, link);
		if (piece->made.rc)
			fail_supply(supply, segue_outcome_give(&piece->made));
		if (supply->failure.rc || !supply->session) {
			supply->bytes -= weight_of(piece);
			free_piece(piece);
		} else {
			offer(supply, piece);
		}
	}
	start_copying(supply);
	free_if_idle(supply);
}

static void start_copying(struct segue_supply *supply)
{
	if (supply->running || TAILQ_EMPTY(&supply->queue) || !supply->session)
		return;
	if (supply->failure.rc) {
		drop_pieces(&supply->queue);
		return;
	}
	TAILQ_CONCAT(&supply->copying, &supply->queue, link);
	supply->task.work = copy;
	supply->task.done = copied;
	supply->running = true;
	int rc = segue_account_run(supply->account, &supply->task, false);
	if (!rc)
		return;
	supply->running = false;
	fail_supply(supply, rc);
	drop_pieces(&supply->copying); /* no entry is taken any more */
}

/* ---- Requests ---- */

static int find(struct segue_session *session, uint64_t id, struct segue_supply **out)
{
	LIST_FOREACH(*out, &session->supplies, link) {
		if ((*out)->id == id)
			return 0;
	}
	return segue_fail(SEGUE_EGONE, "producer %" PRIu64 " is not open in this connection", id);
}

static int check_piece(const struct segue_supply *supply, const struct piece *piece)
{
	uint64_t room = piece->upload ? piece->upload->size : supply->ring->size;

	if (piece->ask.serial != supply->last + 1)
		return segue_fail(SEGUE_EPROTOCOL, "entry %" PRIu64 " comes behind %" PRIu64,
			piece->ask.serial, supply->last);
	if (piece->offset % 8 || piece->bytes > room || piece->offset > room - piece->bytes)
		return segue_fail(SEGUE_EPROTOCOL,
			"an entry of %" PRIu64 " bytes at %" PRIu64 " of an upload of %" PRIu64,
			piece->bytes, piece->offset, room);
	if (weight_of(piece) > supply->ring->size - supply->bytes)
		return segue_fail(SEGUE_EPROTOCOL, "there is more under way than the ring holds");
	return 0;
}

/* Inserts cost nothing of a session's rate, for rings bound them: one that does not goes. */
static void hang_up(struct segue_session *session, int rc)
{
	segue_session_fail(session, 0, rc);
	segue_session_hang_up(session);
}

static struct piece *take_piece(const struct segue_message *message, struct segue_supply *supply)
{
	struct piece *piece = calloc(1, sizeof(*piece));

	if (!piece)
		return NULL;
	piece->supply = supply;
	piece->offset = message->insert.offset;
	piece->bytes = message->insert.bytes;
	piece->steps = message->insert.steps;
	piece->total_length = message->insert.total_length;
	piece->key_size = message->insert.key_size;
	piece->cursor_size = message->insert.cursor_size;
	piece->ask.serial = message->insert.entry;
	return piece;
}

void segue_supply_insert_request(struct segue_session *session, const struct segue_message *message)
{
	struct segue_supply *supply;
	int rc = find(session, message->insert.producer, &supply);

	if (!rc && supply->failure.rc && ++supply->passed <= PASSED_MAX)
		return; /* behind the one that failed: it was on its way */
	if (!rc && (supply->failure.rc || !supply->handle))
		rc = segue_fail(SEGUE_EPROTOCOL, "the producer does not take entries");
	struct piece *piece = rc ? NULL : take_piece(message, supply);
	if (!rc && !piece) {
		fail_supply(supply, segue_fail(SEGUE_ENOMEM, "no memory for a sequence of a log"));
		return;
	}
	if (!rc)
		rc = segue_upload_take(session, message->insert.upload, &piece->upload);
	if (!rc)
		rc = check_piece(supply, piece);
	if (rc) {
		hang_up(session, rc);
		if (piece)
			free_piece(piece);
		return;
	}
	supply->last++;
	supply->bytes += weight_of(piece);
	TAILQ_INSERT_TAIL(&supply->queue, piece, link);
	start_copying(supply);
}

void segue_supply_wait_request(struct segue_session *session, const struct segue_message *message)
{
	struct segue_supply *supply;
	int rc = find(session, message->producer_wait.producer, &supply);

	/* Else it is answered at once. */
	if (!rc && message->producer_wait.look && !supply->failure.rc &&
		supply->acknowledged < message->producer_wait.entry)
		rc = segue_behind_fail(supply->opening->stream);
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		return;
	}
	if (supply->wait_serial)
		segue_session_fail(session, supply->wait_serial,
			segue_fail(SEGUE_EINTERRUPTED, "the producer waits for another entry"));
	supply->wait_serial = message->serial;
	supply->wait_for = message->producer_wait.entry;
	/* One that never came cannot be waited for. */
	if (supply->wait_for > supply->last)
		supply->wait_for = supply->last;
	if (supply->failure.rc) { /* it is told first, whatever is safe */
		segue_session_fail(session, message->serial, segue_outcome_give(&supply->failure));
		supply->wait_serial = 0;
		return;
	}
	answer_wait(supply);
}

/* ---- Opening and leaving ---- */

static void tell_opened(struct segue_supply *supply)
{
	const struct segue_message message = {.type = SEGUE_MESSAGE_PRODUCER_OPENED,
		.serial = supply->serial,
		.producer_opened = {.producer = supply->id,
			.entry = supply->last,
			.cursor_size = (uint32_t)supply->ask.cursor_size}};

	if (supply->ask.cursor_size)
		memcpy(supply->ring->shm.map, supply->ask.cursor, supply->ask.cursor_size);
	segue_session_send(supply->session, &message, NULL, 0);
}

static void opened(void *arg)
{
	struct segue_supply *supply = arg;
	struct segue_session *session = supply->session;
	int rc = supply->ask.outcome.rc;

	segue_loop_arrive(loop_of(supply));
	supply->asked--;
	if (!rc)
		supply->handle = supply->ask.session;
	if (!session && supply->handle) {
		segue_inserter_gone(segue_live_inserter(supply->live), supply->handle);
	} else if (session && rc) {
		segue_session_fail(
			session, supply->serial, segue_outcome_give(&supply->ask.outcome));
		leave(supply);
		return;
	} else if (session) {
		supply->last = supply->acknowledged = supply->ask.serial;
		segue_input_goes_on(supply->opening->stream);
		tell_opened(supply);
	}
	supply->serial = 0;
	free_if_idle(supply);
}

static void closed(void *arg)
{
	struct segue_supply *supply = arg;
	struct segue_session *session = supply->session;

	segue_loop_arrive(loop_of(supply));
	supply->asked--;
	if (!session) {
		free_if_idle(supply);
		return;
	}
	if (supply->ask.outcome.rc)
		segue_session_fail(
			session, supply->serial, segue_outcome_give(&supply->ask.outcome));
	else
		segue_session_send_done(session, supply->serial);
	leave(supply);
}

static void post_opened(struct segue_ask *ask)
{
	struct segue_supply *supply = ask->arg;

	segue_loop_post(loop_of(supply), opened, supply);
}

static void post_closed(struct segue_ask *ask)
{
	struct segue_supply *supply = ask->arg;

	segue_loop_post(loop_of(supply), closed, supply);
}

static int create(struct segue_session *session, const struct segue_message *message,
	struct segue_opening *opening, struct segue_upload *ring)
{
	struct segue_supply *supply = calloc(1, sizeof(*supply));

	if (!supply)
		return segue_fail(SEGUE_ENOMEM, "no memory for a producer");
	int rc = segue_insert_fields(opening->stream->spec, &supply->head);
	if (!rc)
		rc = segue_account_take(session->account, SEGUE_LIMIT_MEMORY, ring->size);
	if (rc) {
		segue_seqfile_free_head(&supply->head);
		free(supply);
		return rc;
	}
	supply->session = session;
	supply->opening = opening;
	opening->uses++;
	supply->account = segue_account_hold(session->account);
	supply->live = opening->stream->live;
	supply->ring = ring;
	supply->id = ++session->server->last_id;
	supply->serial = message->serial;
	strncpy(supply->name, message->producer_open.producer, sizeof(supply->name) - 1);
	TAILQ_INIT(&supply->queue);
	TAILQ_INIT(&supply->copying);
	LIST_INSERT_HEAD(&session->supplies, supply, link);
	supply->ask = (struct segue_ask){.what = SEGUE_ASKED_OPEN,
		.asked = {.name = supply->name,
			.name_size = strlen(supply->name),
			.takeover = message->producer_open.takeover},
		.answer = post_opened,
		.arg = supply};
	memcpy(supply->ask.asked.token, message->producer_open.token, SEGUE_TOKEN_BYTES);
	supply->asked++;
	segue_loop_await(loop_of(supply));
	segue_inserter_ask(segue_live_inserter(supply->live), &supply->ask);
	return 0;
}

void segue_supply_open_request(struct segue_session *session, const struct segue_message *message)
{
	struct segue_opening *opening;
	struct segue_upload *ring;
	int rc = segue_upload_take(session, message->producer_open.ring, &ring);

	if (!rc && (!ring || ring->size < RING_MIN))
		rc = segue_fail(SEGUE_EPROTOCOL, "a producer without a ring");
	if (!rc)
		rc = segue_input_find(session, message->producer_open.stream, &opening);
	if (!rc)
		rc = create(session, message, opening, ring);
	if (!rc)
		return;
	segue_session_fail(session, message->serial, rc);
	segue_upload_destroy(ring);
}

void segue_supply_leave_request(struct segue_session *session, const struct segue_message *message)
{
	struct segue_supply *supply;
	int rc = find(session, message->producer_leave.producer, &supply);

	if (!rc && supply->serial)
		rc = segue_fail(SEGUE_EPROTOCOL, "the producer is being opened, or closed");
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		return;
	}
	if (!message->producer_leave.close) {
		leave(supply);
		segue_session_send_done(session, message->serial);
		return;
	}
	supply->serial = message->serial;
	free(supply->ask.cursor);
	supply->ask = (struct segue_ask){.what = SEGUE_ASKED_CLOSE,
		.session = supply->handle,
		.answer = post_closed,
		.arg = supply};
	supply->asked++;
	segue_loop_await(loop_of(supply));
	segue_inserter_ask(segue_live_inserter(supply->live), &supply->ask);
}

/* ---- The end of the input ---- */

struct ending {
	struct segue_request request;
	struct segue_ask ask;
	struct segue_opening *opening; /* used */
};

static void ended(void *arg)
{
	struct ending *ending = arg;

	segue_loop_arrive(ending->opening->stream->server->loop);
	ending->request.task.outcome = ending->ask.outcome;
	if (!segue_request_is_over(&ending->request))
		segue_session_send_done(ending->request.session, ending->request.serial);
	ending->opening->uses--;
	segue_request_end(&ending->request);
	free(ending);
}

static void post_ended(struct segue_ask *ask)
{
	struct ending *ending = ask->arg;

	segue_loop_post(ending->opening->stream->server->loop, ended, ending);
}

void segue_supply_end_request(struct segue_session *session, const struct segue_message *message)
{
	struct ending *ending = calloc(1, sizeof(*ending));
	struct segue_opening *opening;
	int rc = segue_input_find(session, message->stream_end.stream, &opening);

	if (!rc && !ending)
		rc = segue_fail(SEGUE_ENOMEM, "no memory to end an input");
	if (!rc) {
		ending->request.is_long = true;
		rc = segue_request_begin(&ending->request, session, message->serial);
	}
	if (rc) {
		free(ending);
		segue_session_fail(session, message->serial, rc);
		return;
	}
	ending->opening = opening;
	opening->uses++;
	ending->ask =
		(struct segue_ask){.what = SEGUE_ASKED_END, .answer = post_ended, .arg = ending};
	segue_loop_await(session->server->loop);
	segue_inserter_ask(segue_live_inserter(opening->stream->live), &ending->ask);
}
