/* Sequences for a log: logwork.h has the contract. */
#include "logwork.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct segue_seqfile_field segue_logwork_fields[SEGUE_LOGWORK_FIELDS] = {
	{.name = "x", .dtype = SEGUE_FLOAT32, .rank = 1, .dims = {3}, .size = 12},
	{.name = "who", .place = SEGUE_SEQFILE_CONTEXT, .dtype = SEGUE_UINT64, .size = 8},
	{.name = "h",
		.place = SEGUE_SEQFILE_STATE,
		.dtype = SEGUE_FLOAT32,
		.rank = 1,
		.dims = {20},
		.size = 80},
};

static uint64_t mix(uint64_t seed, uint64_t n)
{
	uint64_t z = seed + (n + 1) * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint64_t steps_of(uint64_t what)
{
	return mix(what, 1) % 8 == 0 ? 1 + mix(what, 2) % 600 : 1 + mix(what, 2) % 9;
}

/* Value i of column `column`. */
static uint8_t byte_of(uint64_t what, uint32_t column, uint64_t i)
{
	return (uint8_t)(mix(what * SEGUE_LOGWORK_FIELDS + column, i / 8) >> (i % 8 * 8));
}

struct segue_log_entry *segue_logwork_make(
	const struct segue_log *log, const struct segue_logwork *work)
{
	char key[40], cursor[40];
	struct segue_log_entry *entry;
	struct segue_log_sequence sequence = {.key = key,
		.steps = work->steps ? work->steps : steps_of(work->what),
		.total_length = SEGUE_SEQFILE_NO_TOTAL,
		.producer = work->producer,
		.producer_size = strlen(work->producer),
		.serial = work->serial,
		.cursor = cursor};

	sequence.key_size = (uint32_t)snprintf(key, sizeof(key), "sequence-%" PRIu64, work->what);
	sequence.cursor_size = (size_t)snprintf(cursor, sizeof(cursor), "%" PRIu64, work->what);
	if (segue_log_entry_make(log, &sequence, &entry)) {
		fprintf(stderr, "logwork: %s\n", segue_error_detail());
		abort();
	}
	for (uint32_t i = 0; i < SEGUE_LOGWORK_FIELDS; i++) {
		uint64_t size = segue_seqfile_column_size(&segue_logwork_fields[i], &entry->entry);

		for (uint64_t k = 0; k < size; k++)
			entry->bytes[entry->column[i] + k] = byte_of(work->what, i, k);
	}
	segue_log_entry_seal(log, entry);
	return entry;
}

int segue_logwork_append(struct segue_log *log, const struct segue_logwork *work, uint64_t *number)
{
	struct segue_log_entry *entry = segue_logwork_make(log, work);
	int rc = segue_log_append(log, entry, number);

	segue_log_entry_free(entry);
	return rc;
}

bool segue_logwork_tell(const struct segue_log_entry *entry, uint64_t *what)
{
	const struct segue_seqlog_stamp *stamp = &entry->entry.stamp;
	char text[40] = "";

	if (stamp->cursor_size == 0 || stamp->cursor_size >= sizeof(text))
		return false;
	memcpy(text, stamp->cursor, stamp->cursor_size);
	*what = strtoull(text, NULL, 10);
	snprintf(text, sizeof(text), "sequence-%" PRIu64, *what);
	if (entry->entry.key_size != strlen(text) ||
		memcmp(entry->entry.key, text, strlen(text)) != 0)
		return false;
	for (uint32_t i = 0; i < SEGUE_LOGWORK_FIELDS; i++) {
		uint64_t size = segue_seqfile_column_size(&segue_logwork_fields[i], &entry->entry);

		for (uint64_t k = 0; k < size; k++)
			if (entry->bytes[entry->column[i] + k] != byte_of(*what, i, k))
				return false;
	}
	return true;
}
