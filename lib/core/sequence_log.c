/* What a log's files say beyond others: docs/format.md draws the structs below. */
#include "core/sequence_log.h"

#include <stdlib.h>
#include <string.h>

#include "core/digest.h"
#include "core/error.h"
#include "core/options.h"

struct log_bytes {
	uint8_t id[SEGUE_SEQLOG_ID];
	uint64_t first, before[2];
	uint32_t producers, reserved;
};

/* Then its name and its cursor, with zeros up to a multiple of 8. */
struct producer_bytes {
	uint64_t serial, number;
	uint16_t name_size, cursor_size;
	uint32_t reserved;
};

/* Then the name of its producer, and the cursor. */
struct stamp_bytes {
	uint64_t number, serial, before[2];
	uint16_t producer_size, cursor_size;
	uint32_t reserved;
};

_Static_assert(SEGUE_SEQLOG_PRODUCERS_MAX == SEGUE_PRODUCERS_MAX, "core/options.h");
_Static_assert(sizeof(struct log_bytes) == 48, "docs/format.md");
_Static_assert(sizeof(struct producer_bytes) == 24, "docs/format.md");
_Static_assert(sizeof(struct stamp_bytes) == SEGUE_SEQLOG_STAMP_FIRST, "docs/format.md");

static uint32_t row_size(size_t name_size, size_t cursor_size)
{
	return (uint32_t)(sizeof(struct producer_bytes) + (name_size + cursor_size + 7) / 8 * 8);
}

/* ---- The table of producers ---- */

struct segue_seqlog_producer *segue_seqlog_find(
	const struct segue_seqlog *log, const char *name, size_t size)
{
	for (uint32_t i = 0; i < log->count; i++)
		if (strlen(log->producer[i].name) == size &&
			memcmp(log->producer[i].name, name, size) == 0)
			return &log->producer[i];
	return NULL;
}

int segue_seqlog_fits(const struct segue_seqlog *log, const struct segue_seqlog_stamp *stamp)
{
	const struct segue_seqlog_producer *had =
		segue_seqlog_find(log, stamp->producer, stamp->producer_size);
	uint32_t size = log->size + row_size(stamp->producer_size, stamp->cursor_size);

	if (had)
		size -= row_size(stamp->producer_size, had->cursor_size);
	if (!had && log->count == SEGUE_SEQLOG_PRODUCERS_MAX)
		return segue_fail(SEGUE_ELIMIT,
			"the log has %d producers, which is the limit: use the names that are "
			"there, or "
			"begin a new stream",
			SEGUE_SEQLOG_PRODUCERS_MAX);
	if (size > SEGUE_SEQLOG_TABLE_MAX)
		return segue_fail(SEGUE_ELIMIT,
			"names and cursors of the log's producers have %u bytes, at most %u fit: "
			"use "
			"smaller cursors",
			size, SEGUE_SEQLOG_TABLE_MAX);
	return 0;
}

static int add_row(struct segue_seqlog *log)
{
	uint32_t room = log->room ? 2 * log->room : 16;
	void *rows;

	if (log->count < log->room)
		return 0;
	rows = reallocarray(log->producer, room, sizeof(*log->producer));
	if (!rows)
		return segue_fail(SEGUE_ENOMEM, "no memory for the producers of a log");
	log->producer = rows;
	log->room = room;
	return 0;
}

int segue_seqlog_note(struct segue_seqlog *log, const struct segue_seqlog_stamp *stamp)
{
	struct segue_seqlog_producer *row;
	uint8_t *cursor = NULL;
	int rc = segue_seqlog_fits(log, stamp);

	if (!rc && stamp->cursor_size > 0) {
		cursor = malloc(stamp->cursor_size);
		if (!cursor)
			return segue_fail(SEGUE_ENOMEM, "no memory for the producers of a log");
		memcpy(cursor, stamp->cursor, stamp->cursor_size);
	}
	row = segue_seqlog_find(log, stamp->producer, stamp->producer_size);
	if (!rc && !row)
		rc = add_row(log);
	if (rc) {
		free(cursor);
		return rc;
	}
	if (!row) {
		row = &log->producer[log->count++];
		*row = (struct segue_seqlog_producer){0};
		memcpy(row->name, stamp->producer, stamp->producer_size);
	} else {
		log->size -= row_size(stamp->producer_size, row->cursor_size);
		free(row->cursor);
	}
	row->serial = stamp->serial;
	row->number = stamp->number;
	row->cursor = cursor;
	row->cursor_size = stamp->cursor_size;
	log->size += row_size(stamp->producer_size, stamp->cursor_size);
	return 0;
}

void segue_seqlog_finish(struct segue_seqlog *log)
{
	if (!log)
		return;
	for (uint32_t i = 0; i < log->count; i++)
		free(log->producer[i].cursor);
	free(log->producer);
	*log = (struct segue_seqlog){0};
}

void segue_log_end_finish(struct segue_log_end *end)
{
	free(end->closed);
	*end = (struct segue_log_end){0};
}

/* ---- The running hash ---- */

void segue_seqlog_begin(const uint8_t id[SEGUE_SEQLOG_ID], uint64_t hash[2])
{
	segue_seqlog_go_on(id, SEGUE_SEQLOG_ID, hash);
}

void segue_seqlog_go_on(const void *header, size_t size, uint64_t hash[2])
{
	XXH128_hash_t value = XXH3_128bits(header, size);

	hash[0] = value.low64;
	hash[1] = value.high64;
}

/* ---- The head ---- */

size_t segue_seqlog_head_size(const struct segue_seqlog *log)
{
	return sizeof(struct log_bytes) + log->size;
}

void segue_seqlog_pack_head(const struct segue_seqlog *log, void *out)
{
	struct log_bytes first = {.first = log->first,
		.before = {log->before[0], log->before[1]},
		.producers = log->count};
	uint8_t *to = out;

	memset(out, 0, segue_seqlog_head_size(log));
	memcpy(first.id, log->id, sizeof(first.id));
	memcpy(to, &first, sizeof(first));
	to += sizeof(first);
	for (uint32_t i = 0; i < log->count; i++) {
		const struct segue_seqlog_producer *row = &log->producer[i];
		struct producer_bytes bytes = {.serial = row->serial,
			.number = row->number,
			.name_size = (uint16_t)strlen(row->name),
			.cursor_size = (uint16_t)row->cursor_size};

		memcpy(to, &bytes, sizeof(bytes));
		memcpy(to + sizeof(bytes), row->name, bytes.name_size);
		if (row->cursor_size > 0)
			memcpy(to + sizeof(bytes) + bytes.name_size, row->cursor, row->cursor_size);
		to += row_size(bytes.name_size, bytes.cursor_size);
	}
}

static int fail_head(const char *what)
{
	return segue_fail(SEGUE_EDATA, "the head of the log's file is damaged: %s", what);
}

/* Reads a producer at *at of `size` bytes, and moves that behind it. */
static int read_producer(const uint8_t *bytes, size_t size, size_t *at, struct segue_seqlog *log)
{
	struct producer_bytes first;
	struct segue_seqlog_stamp stamp;
	size_t room;

	if (size - *at < sizeof(first))
		return fail_head("a producer lies beyond its end");
	memcpy(&first, bytes + *at, sizeof(first));
	room = row_size(first.name_size, first.cursor_size);
	if (size - *at < room)
		return fail_head("a producer lies beyond its end");
	bytes += *at + sizeof(first);
	stamp = (struct segue_seqlog_stamp){.number = first.number,
		.serial = first.serial,
		.producer = (const char *)bytes,
		.producer_size = first.name_size,
		.cursor = bytes + first.name_size,
		.cursor_size = first.cursor_size};
	if (segue_seqlog_check_stamp(&stamp) || first.reserved || stamp.number >= log->first)
		return fail_head("a producer is impossible");
	if (segue_seqlog_find(log, stamp.producer, stamp.producer_size))
		return fail_head("a producer is there twice");
	for (size_t i = (size_t)first.name_size + first.cursor_size; i < room - sizeof(first); i++)
		if (bytes[i])
			return fail_head("there is something behind a producer");
	*at += room;
	return segue_seqlog_note(log, &stamp);
}

int segue_seqlog_read_head(const void *bytes, size_t size, struct segue_seqlog *out, size_t *used)
{
	struct segue_seqlog log = {0};
	struct log_bytes first;
	size_t at = sizeof(first);
	int rc = 0;

	if (size < sizeof(first))
		return fail_head("it is cut short");
	memcpy(&first, bytes, sizeof(first));
	if (first.producers > SEGUE_SEQLOG_PRODUCERS_MAX || first.reserved)
		return fail_head("the number of its producers is impossible");
	memcpy(log.id, first.id, sizeof(log.id));
	log.first = first.first;
	memcpy(log.before, first.before, sizeof(log.before));
	for (uint32_t i = 0; !rc && i < first.producers; i++)
		rc = read_producer(bytes, size, &at, &log);
	if (rc == SEGUE_ELIMIT)
		rc = fail_head("its producers have more bytes than fit");
	if (rc) {
		segue_seqlog_finish(&log);
		return rc;
	}
	*out = log;
	*used = at;
	return 0;
}

/* ---- The stamp of an entry ---- */

int segue_seqlog_check_stamp(const struct segue_seqlog_stamp *stamp)
{
	char name[SEGUE_NAME_MAX + 1] = "";

	if (stamp->producer_size == 0 || stamp->producer_size > SEGUE_NAME_MAX)
		return segue_fail(SEGUE_EINVAL,
			"the producer's name has %u bytes, 1 to %d are allowed",
			stamp->producer_size, SEGUE_NAME_MAX);
	if (memchr(stamp->producer, 0, stamp->producer_size))
		return segue_fail(SEGUE_EINVAL, "the producer's name holds a NUL");
	memcpy(name, stamp->producer, stamp->producer_size);
	if (stamp->cursor_size > SEGUE_SEQLOG_CURSOR_MAX)
		return segue_fail(SEGUE_EINVAL, "the cursor has %u bytes, at most %d are allowed",
			stamp->cursor_size, SEGUE_SEQLOG_CURSOR_MAX);
	if (stamp->serial == 0)
		return segue_fail(SEGUE_EINVAL, "serial 0 is none: they begin at 1");
	return segue_name_check("the producer's name", name, true);
}

void segue_seqlog_pack_stamp(const struct segue_seqlog_stamp *stamp, void *out)
{
	struct stamp_bytes first = {.number = stamp->number,
		.serial = stamp->serial,
		.before = {stamp->before[0], stamp->before[1]},
		.producer_size = stamp->producer_size,
		.cursor_size = stamp->cursor_size};
	uint8_t *to = out;

	memcpy(to, &first, sizeof(first));
	memcpy(to + sizeof(first), stamp->producer, stamp->producer_size);
	if (stamp->cursor_size > 0)
		memcpy(to + sizeof(first) + stamp->producer_size, stamp->cursor,
			stamp->cursor_size);
}

static int fail_stamp(void)
{
	return segue_fail(SEGUE_EDATA,
		"the header of a sequence is damaged: what it says of its producer is impossible");
}

int segue_seqlog_read_sizes(const void *bytes, struct segue_seqlog_stamp *out)
{
	struct stamp_bytes first;

	memcpy(&first, bytes, sizeof(first));
	if (first.producer_size == 0 || first.producer_size > SEGUE_NAME_MAX ||
		first.cursor_size > SEGUE_SEQLOG_CURSOR_MAX || first.reserved)
		return fail_stamp();
	*out = (struct segue_seqlog_stamp){
		.producer_size = first.producer_size, .cursor_size = first.cursor_size};
	return 0;
}

int segue_seqlog_read_stamp(const void *bytes, struct segue_seqlog_stamp *out)
{
	struct segue_seqlog_stamp stamp;
	struct stamp_bytes first;

	int rc = segue_seqlog_read_sizes(bytes, &stamp);
	if (rc)
		return rc;
	memcpy(&first, bytes, sizeof(first));
	stamp.number = first.number;
	stamp.serial = first.serial;
	memcpy(stamp.before, first.before, sizeof(stamp.before));
	stamp.producer = (const char *)bytes + sizeof(first);
	stamp.cursor = (const uint8_t *)bytes + sizeof(first) + stamp.producer_size;
	if (segue_seqlog_check_stamp(&stamp))
		return fail_stamp();
	*out = stamp;
	return 0;
}
