/* Names, serials and ends of those who insert. */
#include "source/log/producers.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/error.h"

static int fail_memory(void)
{
	return segue_fail(SEGUE_ENOMEM, "no memory for the producers of a log");
}

/* ---- Names ---- */

static struct segue_producer *find_name(
	const struct segue_producers *producers, const char *name, size_t size)
{
	for (uint32_t i = 0; i < producers->count; i++)
		if (strlen(producers->producer[i].name) == size &&
			memcmp(producers->producer[i].name, name, size) == 0)
			return &producers->producer[i];
	return NULL;
}

static struct segue_producer *find_session(
	const struct segue_producers *producers, uint64_t session)
{
	for (uint32_t i = 0; session && i < producers->count; i++)
		if (producers->producer[i].session == session)
			return &producers->producer[i];
	return NULL;
}

/* SEGUE_ENOMEM. The names before it may move. */
static int add_name(struct segue_producers *producers, const char *name, size_t size,
	struct segue_producer **out)
{
	if (producers->count == producers->room) {
		uint32_t room = producers->room ? 2 * producers->room : 16;
		void *more = reallocarray(producers->producer, room, sizeof(struct segue_producer));

		if (!more)
			return fail_memory();
		producers->producer = more;
		producers->room = room;
	}
	*out = &producers->producer[producers->count++];
	**out = (struct segue_producer){0};
	memcpy((*out)->name, name, size);
	return 0;
}

static int take_stored(struct segue_producers *producers, const struct segue_log_end *stored)
{
	int rc = 0;

	if (stored->ended && stored->count != producers->next)
		return segue_fail(SEGUE_ESTORE,
			"the input was ended after %" PRIu64 " sequences, and the log has %" PRIu64
			": store and log are not of one time; restore a backup of both",
			stored->count, producers->next);
	if (stored->ended)
		producers->input = SEGUE_CLOSING_CLOSED;
	for (uint32_t i = 0; !rc && i < stored->closed_count; i++) {
		const char *name = stored->closed[i];
		struct segue_producer *producer = find_name(producers, name, strlen(name));

		if (!producer)
			rc = add_name(producers, name, strlen(name), &producer);
		if (!rc)
			producer->closing = SEGUE_CLOSING_CLOSED;
	}
	return rc;
}

int segue_producers_init(struct segue_producers *producers, const struct segue_seqlog *log,
	uint64_t count, const struct segue_log_end *stored, uint32_t expected)
{
	int rc = 0;

	*producers =
		(struct segue_producers){.expected = expected, .next = count, .durable = count};
	for (uint32_t i = 0; !rc && i < log->count; i++) {
		const struct segue_seqlog_producer *had = &log->producer[i];
		struct segue_producer *producer;

		rc = add_name(producers, had->name, strlen(had->name), &producer);
		if (!rc)
			producer->accepted = producer->durable = had->serial;
	}
	if (!rc && stored)
		rc = take_stored(producers, stored);
	if (rc)
		segue_producers_finish(producers);
	return rc;
}

void segue_producers_finish(struct segue_producers *producers)
{
	free(producers->producer);
	free(producers->waiting);
	*producers = (struct segue_producers){0};
}

/* ---- Sessions ---- */

static int check_asked(const struct segue_producer_asked *asked)
{
	const struct segue_seqlog_stamp stamp = {
		.serial = 1, .producer = asked->name, .producer_size = (uint16_t)asked->name_size};

	if (asked->name_size > SEGUE_NAME_MAX)
		return segue_fail(SEGUE_EINVAL,
			"the producer's name has %zu bytes, at most %d are allowed",
			asked->name_size, SEGUE_NAME_MAX);
	return segue_seqlog_check_stamp(&stamp);
}

static int find_or_add(struct segue_producers *producers, const struct segue_producer_asked *asked,
	struct segue_producer **out)
{
	*out = find_name(producers, asked->name, asked->name_size);
	if (*out)
		return 0;
	if (producers->input != SEGUE_CLOSING_OPEN)
		return segue_fail(SEGUE_EEND, "the input has ended: nothing more can be inserted");
	if (producers->count >= SEGUE_SEQLOG_PRODUCERS_MAX)
		return segue_fail(SEGUE_ELIMIT,
			"the log has %d producers, which is the limit: use the names that are "
			"there, or "
			"begin a new stream",
			SEGUE_SEQLOG_PRODUCERS_MAX);
	return add_name(producers, asked->name, asked->name_size, out);
}

int segue_producers_open(struct segue_producers *producers,
	const struct segue_producer_asked *asked, uint64_t *session, uint64_t *serial)
{
	struct segue_producer *producer;
	int rc = check_asked(asked);

	if (!rc)
		rc = find_or_add(producers, asked, &producer);
	if (rc)
		return rc;
	if (producer->session && !asked->takeover &&
		memcmp(producer->token, asked->token, sizeof(asked->token)) != 0)
		return segue_fail(SEGUE_EBUSY,
			"producer '%s' is another's, which has it open: end that one, give this "
			"one another name, or take it over (in Python: takeover=True)",
			producer->name);
	producer->session = ++producers->sessions;
	memcpy(producer->token, asked->token, sizeof(asked->token));
	producer->acknowledged = producer->durable;
	*session = producer->session;
	*serial = producer->accepted;
	return 0;
}

void segue_producers_gone(struct segue_producers *producers, uint64_t session)
{
	struct segue_producer *producer = find_session(producers, session);

	if (producer)
		producer->session = 0;
}

/* ---- Sequences ---- */

static int fail_fenced(void)
{
	return segue_fail(SEGUE_EFENCED, "another has taken this producer over, under its name: "
					 "what was not acknowledged may "
					 "not be in the log");
}

int segue_producers_offer(
	const struct segue_producers *producers, uint64_t session, uint64_t serial)
{
	const struct segue_producer *producer = find_session(producers, session);

	if (!producer)
		return fail_fenced();
	if (serial > 0 && serial <= producer->accepted)
		return SEGUE_PRODUCERS_AGAIN;
	if (producers->input != SEGUE_CLOSING_OPEN)
		return segue_fail(SEGUE_EEND, "the input has ended: nothing more can be inserted");
	if (producer->closing != SEGUE_CLOSING_OPEN)
		return segue_fail(SEGUE_EEND, "producer '%s' was closed: it inserts nothing more",
			producer->name);
	if (serial != producer->accepted + 1)
		return segue_fail(SEGUE_EINVAL,
			"serial %" PRIu64 " does not follow %" PRIu64
			", the last of its producer in the log",
			serial, producer->accepted);
	return 0;
}

int segue_producers_reserve(struct segue_producers *producers)
{
	uint64_t room = producers->waiting_room ? 2 * producers->waiting_room : 64;
	struct segue_producers_waiting *more;

	if (producers->next - producers->durable < producers->waiting_room)
		return 0;
	more = calloc(room, sizeof(*more));
	if (!more)
		return fail_memory();
	for (uint64_t n = producers->durable; n < producers->next; n++)
		more[n % room] = producers->waiting[n % producers->waiting_room];
	free(producers->waiting);
	producers->waiting = more;
	producers->waiting_room = room;
	return 0;
}

void segue_producers_accepted(
	struct segue_producers *producers, const char *name, size_t size, uint64_t number)
{
	struct segue_producer *producer = find_name(producers, name, size);

	assert(producer && number == producers->next);
	assert(producers->next - producers->durable < producers->waiting_room);
	producer->accepted++;
	producers->waiting[number % producers->waiting_room] = (struct segue_producers_waiting){
		(uint32_t)(producer - producers->producer), producer->accepted};
	producers->next++;
}

void segue_producers_durable(struct segue_producers *producers, uint64_t count,
	void (*acknowledge)(void *arg, uint64_t session, uint64_t serial), void *arg)
{
	assert(count <= producers->next);
	for (; producers->durable < count; producers->durable++) {
		const struct segue_producers_waiting *one =
			&producers->waiting[producers->durable % producers->waiting_room];

		producers->producer[one->producer].durable = one->serial;
	}
	for (uint32_t i = 0; i < producers->count; i++) {
		struct segue_producer *producer = &producers->producer[i];

		if (!producer->session || producer->acknowledged >= producer->durable)
			continue;
		producer->acknowledged = producer->durable;
		acknowledge(arg, producer->session, producer->durable);
	}
}

uint64_t segue_producers_acknowledged(const struct segue_producers *producers, uint64_t session)
{
	const struct segue_producer *producer = find_session(producers, session);

	return producer ? producer->durable : 0;
}

/* ---- Ends ---- */

void segue_producers_end(struct segue_producers *producers)
{
	if (producers->input == SEGUE_CLOSING_OPEN)
		producers->input = SEGUE_CLOSING_CLOSING;
}

int segue_producers_close(struct segue_producers *producers, uint64_t session)
{
	struct segue_producer *producer = find_session(producers, session);
	uint32_t closed = 0;

	if (!producer)
		return fail_fenced();
	if (producer->closing == SEGUE_CLOSING_OPEN)
		producer->closing = SEGUE_CLOSING_CLOSING;
	for (uint32_t i = 0; i < producers->count; i++)
		closed += producers->producer[i].closing != SEGUE_CLOSING_OPEN;
	if (producers->expected > 0 && closed >= producers->expected)
		segue_producers_end(producers);
	return 0;
}

/* How it stands for those who ask. */
static enum segue_closing told(enum segue_closing closing)
{
	bool early = SEGUE_MUTANT(closing_not_durable) && closing == SEGUE_CLOSING_CLOSING;

	return early ? SEGUE_CLOSING_CLOSED : closing;
}

enum segue_closing segue_producers_closing(
	const struct segue_producers *producers, uint64_t session)
{
	const struct segue_producer *producer = find_session(producers, session);

	if (session == 0)
		return told(producers->input);
	return producer ? told(producer->closing) : SEGUE_CLOSING_OPEN;
}

int segue_producers_unstored(const struct segue_producers *producers, struct segue_log_end *out)
{
	struct segue_log_end end = {
		.count = producers->next, .ended = producers->input != SEGUE_CLOSING_OPEN};
	bool any = producers->input == SEGUE_CLOSING_CLOSING;

	for (uint32_t i = 0; i < producers->count; i++)
		any = any || producers->producer[i].closing == SEGUE_CLOSING_CLOSING;
	if (!any)
		return 0;
	end.closed = calloc(producers->count + 1u, sizeof(*end.closed));
	if (!end.closed)
		return fail_memory();
	for (uint32_t i = 0; i < producers->count; i++)
		if (producers->producer[i].closing != SEGUE_CLOSING_OPEN)
			memcpy(end.closed[end.closed_count++], producers->producer[i].name,
				sizeof(*end.closed));
	*out = end;
	return 1;
}

void segue_producers_stored(struct segue_producers *producers, const struct segue_log_end *stored)
{
	if (stored->ended)
		producers->input = SEGUE_CLOSING_CLOSED;
	for (uint32_t i = 0; i < stored->closed_count; i++) {
		const char *name = stored->closed[i];
		struct segue_producer *producer = find_name(producers, name, strlen(name));

		if (producer)
			producer->closing = SEGUE_CLOSING_CLOSED;
	}
}
