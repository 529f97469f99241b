/*
 * C26: producers that lie about places and sizes, change what they hand over, die, take names, and
 * leave any words; into a log alone, and into one that is a part of a mix.
 */
#include "hostile.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>

#include "core/error.h"
#include "core/shm.h"
#include "core/utf8.h"
#include "core/wait.h"

enum {
	ROWS = 2,
	UNROLL = 4,
	STEPS_MAX = 7, /* of a sequence of the victim's */
	RING = 1 << 16,
	CHANGING = 30, /* entries that are changed while they are copied */
	OFTEN = 1500,
	OF_FILES = 5, /* sequences of the other part */
	REASON_MAX = 5000,
};

static const struct segue_feature features[] = {{.name = "x", .dtype = SEGUE_INT64},
	{.name = "w", .dtype = SEGUE_INT32, .form = SEGUE_FORM_RAGGED},
	{.name = "b", .dtype = SEGUE_BOOL}};

static const char *path; /* of the other part */

static const struct segue_draft_part parts[] = {
	{.name = "files",
		.source = {.kind = SEGUE_SOURCE_FILES, .files = {.paths = &path, .path_count = 1}},
		.weight = 1},
	{.name = "inserted", .source = {.kind = SEGUE_SOURCE_LOG}, .weight = 1, .epochs = 1},
};

#define INSERTED                                                                                   \
	.name = "inserted", .sequences = features, .sequence_count = 3, .num_unroll = UNROLL,      \
	.batch_size = ROWS, .lanes = 1, .epochs = 1

static const struct segue_draft of_log = {INSERTED, .source = {.kind = SEGUE_SOURCE_LOG}};
static const struct segue_draft of_mix = {
	INSERTED, .source = {.kind = SEGUE_SOURCE_MIX, .mix = {.parts = parts, .part_count = 2}}};
static const struct segue_draft *spec; /* one of these */

/* ---- Who is not to notice: inserts, and reads what all insert ---- */

struct victim {
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_producer *producer;
	struct segue_lane *lane;
	uint64_t inserted, seen;      /* sequences */
	uint64_t segments, delivered; /* of these: that were inserted, that came */
};

static uint64_t steps_of(uint64_t serial)
{
	return 1 + serial % STEPS_MAX;
}

static int64_t count_of(uint64_t serial, uint64_t step)
{
	return (int64_t)((serial + step) % 5);
}

/* A sequence by its serial. */
struct sequence {
	int64_t x[STEPS_MAX], offsets[STEPS_MAX + 1];
	int32_t w[STEPS_MAX * 5];
	uint8_t b[STEPS_MAX];
	const void *arrays[3];
	const int64_t *bounds[3];
	struct segue_sequence given;
};

static void make_sequence(struct sequence *sequence, uint64_t serial)
{
	*sequence = (struct sequence){.arrays = {sequence->x, sequence->w, sequence->b},
		.bounds = {NULL, sequence->offsets, NULL},
		.given = {.size = sizeof(sequence->given),
			.steps = steps_of(serial),
			.arrays = sequence->arrays,
			.offsets = sequence->bounds}};
	for (uint64_t step = 0; step < sequence->given.steps; step++) {
		int64_t *offsets = sequence->offsets;

		sequence->x[step] = (int64_t)(serial * 1000 + step);
		sequence->b[step] = serial & 1;
		offsets[step + 1] = offsets[step] + count_of(serial, step);
		for (int64_t i = offsets[step]; i < offsets[step + 1]; i++)
			sequence->w[i] = (int32_t)serial;
	}
}

static void write_files(const char *to)
{
	const struct segue_draft draft = {.sequences = features, .sequence_count = 3};
	struct segue_file_writer *writer;
	struct segue_spec *fields;
	struct sequence sequence;

	EXPECT(segue_draft_tell(&draft, &fields) == 0 &&
			segue_file_writer_create(to, fields, &writer) == 0,
		"%s", segue_error_detail());
	segue_spec_destroy(fields);
	for (uint64_t serial = 1; serial <= OF_FILES; serial++) {
		make_sequence(&sequence, serial);
		EXPECT(segue_file_writer_add(writer, &sequence.given) == 0, "%s",
			segue_error_detail());
	}
	EXPECT(segue_file_writer_close(writer) == 0, "%s", segue_error_detail());
	segue_file_writer_destroy(writer);
}

static void victim_insert(struct victim *victim)
{
	struct sequence sequence;

	make_sequence(&sequence, ++victim->inserted);
	EXPECT(segue_producer_insert(victim->producer, &sequence.given, NULL, 0, SEGUE_FOREVER) ==
			0,
		"victim inserts: %s", segue_error_detail());
	victim->segments += (sequence.given.steps + UNROLL - 1) / UNROLL;
}

/* Its own sequences come in their order, whole; of others nothing that no sequence can be. */
static void check_row(struct victim *victim, const struct segue_batch *batch, uint32_t row)
{
	const int64_t *x = segue_batch_sequence(batch, 0);
	const uint8_t *b = segue_batch_sequence(batch, 2);
	struct segue_ragged w;
	struct segue_span span;
	const char *key;
	char own[64] = "";
	size_t size;

	EXPECT(segue_batch_span(batch, row, &span, sizeof(span)) == 0 &&
			segue_batch_sequence_ragged(batch, 1, &w, sizeof(w)) == 0,
		"%s", segue_error_detail());
	const int64_t *offsets = w.offsets + row * (UNROLL + 1);
	for (uint32_t i = 0; i < UNROLL; i++)
		EXPECT(offsets[i] >= 0 && offsets[i] <= offsets[i + 1] &&
				offsets[i + 1] <= (int64_t)w.count && b[row * UNROLL + i] <= 1,
			"what is no value of its type");
	key = segue_batch_record_key(batch, row, &size);
	EXPECT(span.part == 0 || spec == &of_mix, "a part of no mix");
	if (spec == &of_mix && span.part == 0) {
		EXPECT(x[row * UNROLL] / 1000 <= OF_FILES, "a value of the files is another");
		return;
	}
	if (size < 8 || size >= sizeof(own) || memcmp(key, "victim:", 7) != 0)
		return;
	memcpy(own, key + 7, size - 7);
	uint64_t serial = strtoull(own, NULL, 10);
	victim->delivered++;
	EXPECT(span.array_steps == steps_of(serial), "a sequence of the victim's of other steps");
	for (uint32_t i = 0; i < span.length; i++) {
		EXPECT(x[row * UNROLL + i] == (int64_t)(serial * 1000 + span.first_step + i) &&
				b[row * UNROLL + i] == (serial & 1) &&
				offsets[i + 1] - offsets[i] ==
					count_of(serial, span.first_step + i),
			"a value of the victim's is another");
		for (int64_t k = offsets[i]; k < offsets[i + 1]; k++)
			EXPECT(((const int32_t *)w.values)[k] == (int32_t)serial,
				"a value of the victim's is another");
	}
	if (span.segment == 0) {
		EXPECT(serial == victim->seen + 1, "sequence %llu of the victim's came behind %llu",
			(unsigned long long)serial, (unsigned long long)victim->seen);
		victim->seen = serial;
	}
}

static void take(struct victim *victim, struct segue_batch *batch)
{
	for (uint32_t row = 0; row < segue_batch_rows(batch); row++)
		check_row(victim, batch, row);
	EXPECT(segue_batch_commit(batch) == 0, "%s", segue_error_detail());
	segue_batch_release(batch);
}

/* Whatever others insert: of more than ROWS segments not all are of one sequence, so they make a batch. */
static void victim_step(struct victim *victim)
{
	for (int i = 0; i < 2 * ROWS; i++)
		victim_insert(victim);
	while (victim->segments - victim->delivered > ROWS)
		take(victim, hostile_next(victim->lane));
}

static void victim_begin(const char *dir, struct victim *victim)
{
	*victim = (struct victim){0};
	EXPECT(segue_open(dir, NULL, &victim->client) == 0, "victim: %s", segue_error_detail());
	int rc = segue_client_stream_drop(victim->client, spec->name);
	EXPECT(rc == 0 || rc == SEGUE_ENOTFOUND, "drop: %s", segue_error_detail());
	EXPECT(segue_draft_open(victim->client, spec, &victim->stream) == 0 &&
			segue_producer_open(victim->stream, "victim", NULL, &victim->producer) ==
				0 &&
			segue_lane_attach(victim->stream, 0, NULL, &victim->lane) == 0,
		"victim: %s", segue_error_detail());
}

static void victim_end(struct victim *victim)
{
	struct segue_batch *batch;
	int rc;

	EXPECT(segue_producer_close(victim->producer, SEGUE_FOREVER) == 0 &&
			segue_stream_end_input(victim->stream) == 0,
		"victim: %s", segue_error_detail());
	while ((rc = segue_lane_next(victim->lane, 20 * INT64_C(1000000000), &batch)) == 0)
		take(victim, batch);
	EXPECT(rc == SEGUE_EEND, "victim: %s", segue_error_detail());
	EXPECT(victim->seen == victim->inserted, "%llu of %llu sequences of the victim's came",
		(unsigned long long)victim->seen, (unsigned long long)victim->inserted);
	segue_producer_destroy(victim->producer);
	segue_lane_close(victim->lane);
	segue_stream_close(victim->stream);
	EXPECT(segue_client_stream_drop(victim->client, spec->name) == 0, "drop: %s",
		segue_error_detail());
	segue_client_close(victim->client);
}

/* ---- Producers without the library ---- */

struct attacker {
	const char *dir;
	int token; /* each byte of it */
	struct raw raw;
	uint64_t stream, producer, entry; /* the last that is in the log, or was sent */
	struct segue_shm ring;
	uint64_t ring_id;
};

static uint64_t upload(struct raw *raw, uint64_t size, struct segue_shm *out)
{
	struct segue_message request = {.type = SEGUE_MESSAGE_UPLOAD, .upload = {.size = size}};

	EXPECT(raw_call(raw, &request) == SEGUE_MESSAGE_BULK && raw->fd_count == 1, "upload: %s",
		raw->reply.failure.detail);
	EXPECT(segue_shm_map(raw->fds[0], size, SEGUE_SHM_WRITE, out) == 0, "map");
	return raw->reply.bulk.id;
}

static enum segue_message_type open_name(struct attacker *attacker, const char *name)
{
	struct segue_message open = {.type = SEGUE_MESSAGE_PRODUCER_OPEN,
		.producer_open = {.stream = attacker->stream, .producer = name}};

	segue_shm_destroy(&attacker->ring);
	attacker->ring_id = upload(&attacker->raw, RING, &attacker->ring);
	open.producer_open.ring = attacker->ring_id;
	memset(open.producer_open.token, attacker->token, SEGUE_TOKEN_BYTES);
	enum segue_message_type type = raw_call(&attacker->raw, &open);
	if (type == SEGUE_MESSAGE_PRODUCER_OPENED) {
		attacker->producer = attacker->raw.reply.producer_opened.producer;
		attacker->entry = attacker->raw.reply.producer_opened.entry;
	}
	return type;
}

static void begin(struct attacker *attacker)
{
	raw_open(attacker->dir, &attacker->raw);
	attacker->stream = raw_stream(&attacker->raw, spec);
	EXPECT(attacker->stream, "stream: %s", attacker->raw.reply.failure.detail);
	EXPECT(open_name(attacker, "attacker") == SEGUE_MESSAGE_PRODUCER_OPENED, "producer: %s",
		attacker->raw.reply.failure.detail);
}

static void end(struct attacker *attacker)
{
	segue_shm_destroy(&attacker->ring);
	raw_close(&attacker->raw);
}

/* The connection ends by what was sent; a new one goes on. */
static void renew(struct attacker *attacker, const char *what)
{
	raw_expect_end(&attacker->raw, 20000, what);
	end(attacker);
	begin(attacker);
}

/* An entry of one step with `values` ragged ones, at the ring's beginning. */
static struct segue_message one_step(struct attacker *attacker, uint64_t values)
{
	/* counts, key of one byte, x, w: offsets and values, b */
	uint64_t bytes = 8 + 8 + 8 + 16 + (4 * values + 7) / 8 * 8 + 8;
	uint64_t words[6] = {values, 'h', 5, 0, values};

	memset(attacker->ring.map, 0, bytes);
	memcpy(attacker->ring.map, words, 40);
	return (struct segue_message){.type = SEGUE_MESSAGE_INSERT,
		.insert = {.producer = attacker->producer,
			.entry = attacker->entry + 1,
			.bytes = bytes,
			.steps = 1,
			.total_length = UINT64_MAX,
			.key_size = 1}};
}

static bool send_message(struct raw *raw, struct segue_message *message)
{
	uint8_t payload[256];
	size_t size;

	message->serial = ++raw->serial;
	EXPECT(segue_message_pack(message, payload, &size) == 0 && size <= sizeof(payload), "pack");
	return raw_send_frame(raw, (uint16_t)message->type, 0, (uint32_t)size, payload, size);
}

static enum segue_message_type wait_for(struct attacker *attacker, uint64_t entry)
{
	struct segue_message ask = {.type = SEGUE_MESSAGE_PRODUCER_WAIT,
		.producer_wait = {.producer = attacker->producer, .entry = entry}};

	return raw_call(&attacker->raw, &ask);
}

static void reopen(struct attacker *attacker)
{
	struct segue_message leave = {.type = SEGUE_MESSAGE_PRODUCER_LEAVE,
		.producer_leave = {.producer = attacker->producer}};

	EXPECT(raw_call(&attacker->raw, &leave) == SEGUE_MESSAGE_DONE, "leave");
	EXPECT(open_name(attacker, "attacker") == SEGUE_MESSAGE_PRODUCER_OPENED, "%s",
		attacker->raw.reply.failure.detail);
}

/* ---- The attacks ---- */

/* What can be no place, number or size, or is not the entry that comes next, ends the connection. */
static void try_places(struct hostile *hostile, struct attacker *attacker)
{
	const struct {
		uint64_t offset, bytes, entry, producer, upload, steps;
		uint32_t key_size, cursor_size;
	} wrong[] = {
		{.offset = RING - 40}, /* an entry without values has 48 bytes */ {.offset = RING},
		{.offset = UINT64_MAX - 47}, {.offset = 4}, {.bytes = INT64_MAX}, {.bytes = RING},
		{.entry = 1}, {.entry = hostile_random(hostile)}, {.producer = 1},
		{.producer = hostile_random(hostile)}, {.upload = hostile_random(hostile) | 1},
		{.steps = UINT64_MAX}, /* of 1 step: 0 */
		{.steps = hostile_random(hostile) | UINT64_C(1) << 32},
		{.key_size = UINT32_MAX}, /* of 1 byte: 0 */
		{.key_size = 1 << 30}, {.cursor_size = UINT32_MAX},
		{.upload = attacker->ring_id}, /* taken: it is no upload any more */
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct segue_message insert = one_step(attacker, 0);

		insert.insert.offset = wrong[i].offset;
		insert.insert.bytes += wrong[i].bytes;
		insert.insert.entry += wrong[i].entry;
		insert.insert.producer += wrong[i].producer;
		insert.insert.upload = wrong[i].upload;
		insert.insert.steps += wrong[i].steps;
		insert.insert.key_size += wrong[i].key_size;
		insert.insert.cursor_size += wrong[i].cursor_size;
		send_message(&attacker->raw, &insert);
		renew(attacker, "a place that cannot be");
	}
}

/* What is no sequence of the spec is refused, and with it all that comes behind it. */
static void try_lies(struct hostile *hostile, struct attacker *attacker)
{
	for (unsigned i = 0; i < 12; i++) {
		struct segue_message insert = one_step(attacker, i % 3);
		uint64_t any = hostile_random(hostile), *counts = attacker->ring.map;
		uint64_t last = attacker->entry;

		switch (i % 6) {
		case 0:
			insert.insert.steps = 2 + any % (UINT32_MAX - 1);
			break;
		case 1:
			insert.insert.key_size = 9 + (uint32_t)(any % 1000);
			break;
		case 2:
			insert.insert.cursor_size = 8 + (uint32_t)(any % 4000);
			break;
		case 3:
			insert.insert.total_length = any | UINT64_C(1) << 40;
			break;
		case 4:
			counts[0] = any | 1 << 8;
			break;
		case 5:
			counts[4] = any | 1 << 8; /* where the ragged values end */
			break;
		}
		send_message(&attacker->raw, &insert);
		insert.insert.entry++;
		send_message(&attacker->raw, &insert);
		wait_for(attacker, last + 1);
		raw_expect_failure(&attacker->raw, 0, "a lie");
		EXPECT(attacker->raw.reply.serial, "lie %u ends the connection: %s", i,
			attacker->raw.reply.failure.detail);
		reopen(attacker);
		EXPECT(attacker->entry == last, "an entry that was refused is in the log");
	}
}

/* A name that another connection has is not to be had without taking it over. */
static void try_names(struct attacker *attacker)
{
	static const char *const names[] = {"victim", "attacker"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct attacker other = {.dir = attacker->dir, .token = 2, .ring = SEGUE_SHM_NONE};

		raw_open(other.dir, &other.raw);
		other.stream = raw_stream(&other.raw, spec);
		open_name(&other, names[i]);
		raw_expect_failure(&other.raw, SEGUE_EBUSY, "another's name");
		end(&other);
	}
}

/* A process that writes the beginning of the ring all the time, in a mapping of its own. */
static pid_t write_always(struct hostile *hostile, const struct segue_shm *ring)
{
	pid_t pid = hostile_fork();

	if (pid > 0)
		return pid;
	volatile uint64_t *words =
		mmap(NULL, ring->size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);
	EXPECT(words != MAP_FAILED, "mmap");
	for (;;) {
		uint64_t any = hostile_random(hostile);

		words[any % 12] = any >> 40 & 1 ? any : any >> 62;
	}
}

/* What changes while it is copied becomes a sequence of the spec, or is refused. */
static void try_changing(struct hostile *hostile, struct attacker *attacker, struct victim *victim)
{
	pid_t pid = 0;

	for (int i = 0; i < CHANGING; i++) {
		struct segue_message insert = one_step(attacker, 2);

		if (!pid)
			pid = write_always(hostile, &attacker->ring);
		EXPECT(send_message(&attacker->raw, &insert), "the connection has ended");
		attacker->entry++;
		victim_step(victim);
		if (wait_for(attacker, attacker->entry) == SEGUE_MESSAGE_ACKNOWLEDGED)
			continue;
		raw_expect_failure(&attacker->raw, 0, "a ring that changes");
		kill(pid, SIGKILL);
		hostile_reap(pid, SIGKILL);
		pid = 0;
		reopen(attacker);
	}
	if (pid) {
		kill(pid, SIGKILL);
		hostile_reap(pid, SIGKILL);
	}
}

/* The ring keeps its size, whoever has it. */
static void try_ring(struct attacker *attacker)
{
	EXPECT(ftruncate(attacker->ring.fd, 0) != 0 && ftruncate(attacker->ring.fd, 1 << 20) != 0 &&
			fallocate(attacker->ring.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				1 << 12) == 0,
		"the ring can be cut, or not be given back");
}

/* Asked again and again, and nothing is read: the server hangs up, or waits for room to answer. */
static void try_often(struct attacker *attacker)
{
	struct segue_message ask = {.type = SEGUE_MESSAGE_PRODUCER_WAIT,
		.producer_wait = {.producer = attacker->producer, .entry = attacker->entry}};

	for (int i = 0; i < OFTEN; i++)
		if (!send_message(&attacker->raw, &ask))
			break;
	end(attacker);
	begin(attacker);
}

/* Dies with entries under way: who comes next under the name is told how many of them are in. */
static void try_dying(struct attacker *attacker)
{
	uint64_t before = attacker->entry;

	for (int i = 0; i < ROWS; i++) {
		struct segue_message insert = one_step(attacker, 1);

		send_message(&attacker->raw, &insert);
		attacker->entry++;
	}
	end(attacker);
	begin(attacker);
	EXPECT(attacker->entry >= before && attacker->entry <= before + ROWS,
		"%llu entries, %llu before", (unsigned long long)attacker->entry,
		(unsigned long long)before);
}

/* ---- Words ---- */

/* By the wire's own rules, for the library makes them fit. */
static void send_reason(struct attacker *attacker, uint64_t stream, const void *reason, size_t size)
{
	uint8_t payload[REASON_MAX + 64];
	size_t used = 0;
	const uint64_t number[] = {++attacker->raw.serial, stream, size};

	EXPECT(size <= REASON_MAX, "a reason of %zu bytes", size);
	for (unsigned field = 0; field < 3; field++) {
		uint64_t value = number[field];

		payload[used++] = (uint8_t)((field + 1) << 3 | (field == 2 ? 2 : 0));
		for (; value > 127; value >>= 7)
			payload[used++] = (uint8_t)(value | 128);
		payload[used++] = (uint8_t)value;
	}
	memcpy(payload + used, reason, size);
	used += size;
	raw_send_frame(
		&attacker->raw, SEGUE_MESSAGE_INPUT_FAILED, 0, (uint32_t)used, payload, used);
}

/* It can be shown: nothing of it is no text, or would be obeyed by a terminal. */
static void check_status(struct victim *victim, bool failed)
{
	char *json;

	EXPECT(segue_client_report(victim->client, SEGUE_REPORT_STATUS, spec->name, NULL, &json) ==
			0,
		"status: %s", segue_error_detail());
	size_t size = strlen(json);
	for (size_t at = 0, length; at < size; at += length) {
		length = segue_utf8_next(json + at, size - at);
		EXPECT(length && (uint8_t)json[at] >= 0x20 && json[at] != 0x7f,
			"a status with byte %u at %zu", (uint8_t)json[at], at);
	}
	EXPECT(!strstr(json, "\"input_failure\":null") == failed, "%s", json);
	segue_free(json);
}

static void try_words(struct hostile *hostile, struct attacker *attacker, struct victim *victim)
{
	char reason[REASON_MAX];
	struct hostile_spec other;

	for (unsigned i = 0; i < 8; i++) {
		size_t size = i == 7 ? 0 : hostile_random(hostile) % (SEGUE_DETAIL_MAX + 1);

		for (size_t k = 0; k < size; k++)
			reason[k] = (char)(1 + hostile_random(hostile) % 127);
		send_reason(attacker, attacker->stream, reason, size);
		EXPECT(raw_receive(&attacker->raw, 20000) == 1 &&
				attacker->raw.reply.type == SEGUE_MESSAGE_DONE,
			"a reason of %zu bytes", size);
		check_status(victim, true);
	}
	reopen(attacker);
	check_status(victim, false);
	hostile_spec(hostile, "main", &other);
	const uint64_t wrong[] = {raw_stream(&attacker->raw, &other.spec), 0,
		hostile_random(hostile) | UINT64_C(1) << 40};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		send_reason(attacker, wrong[i], "x", 1);
		EXPECT(raw_receive(&attacker->raw, 20000) == 1, "stream %zu", i);
		raw_expect_failure(&attacker->raw, 0, "a stream without input");
	}
	check_status(victim, false);
	memset(reason, 'x', sizeof(reason));
	send_reason(attacker, attacker->stream, reason, sizeof(reason));
	renew(attacker, "a reason that is too long");
	send_reason(attacker, attacker->stream, "\xc3\x28", 2);
	renew(attacker, "a reason that is no text");
	check_status(victim, false);
}

/* What is asked for at once is answered at once, whatever entry it is of. */
static void try_looks(struct hostile *hostile, struct attacker *attacker)
{
	const uint64_t entries[] = {0, 1, attacker->entry, attacker->entry + 1, INT64_MAX,
		UINT64_MAX, hostile_random(hostile)};

	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
		struct segue_message ask = {.type = SEGUE_MESSAGE_PRODUCER_WAIT,
			.producer_wait = {attacker->producer, entries[i], true}};

		if (raw_call(&attacker->raw, &ask) == SEGUE_MESSAGE_ACKNOWLEDGED)
			continue;
		raw_expect_failure(&attacker->raw, SEGUE_ETIMEOUT, "a look");
	}
}

static void attack_all(struct hostile *hostile, struct attacker *attacker, struct victim *victim)
{
	try_places(hostile, attacker);
	victim_step(victim);
	try_lies(hostile, attacker);
	victim_step(victim);
	try_names(attacker);
	try_ring(attacker);
	try_words(hostile, attacker, victim);
	try_looks(hostile, attacker);
	try_changing(hostile, attacker, victim);
	try_dying(attacker);
	victim_step(victim);
	try_often(attacker);
}

void attack_producers(struct hostile *hostile)
{
	char file[4200];
	unsigned turn = 0;

	snprintf(file, sizeof(file), "%s/part.segue", hostile->scratch);
	path = file;
	write_files(path);
	do {
		struct attacker attacker = {
			.dir = hostile->dir, .token = 1, .ring = SEGUE_SHM_NONE};
		struct victim victim;

		spec = turn % 2 ? &of_mix : &of_log;
		victim_begin(hostile->dir, &victim);
		begin(&attacker);
		attack_all(hostile, &attacker, &victim);
		end(&attacker);
		victim_end(&victim);
	} while (++turn < 2 || hostile_time_left(hostile));
}
