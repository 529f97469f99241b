/* A sequence of a log as bytes: made, sealed, and read back with all its checksums. */
#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/digest.h"
#include "core/error.h"
#include "source/log/inside.h"

/* Where the counts of a header lie, then its key. */
#define COUNTS_AT 56

/* ---- Making ---- */

static int fail_memory(void)
{
	return segue_fail(SEGUE_ENOMEM, "no memory for a sequence of a log");
}

static uint8_t *put(uint8_t *to, const void *from, size_t size)
{
	if (size > 0)
		memcpy(to, from, size);
	return to + size;
}

/*
 * The entry's own copy of its texts lies where its header will have them, but for what is not known
 * yet: so packing the header moves nothing.
 */
static void take_texts(const struct segue_seqfile_head *head, struct segue_log_entry *entry,
	const struct segue_log_sequence *sequence)
{
	uint8_t *counts = entry->bytes + COUNTS_AT;
	uint8_t *key = put(counts, sequence->counts, head->variable * sizeof(uint64_t));
	uint8_t *producer = put(key, sequence->key, sequence->key_size) + SEGUE_SEQLOG_STAMP_FIRST;
	uint8_t *cursor = put(producer, sequence->producer, sequence->producer_size);

	put(cursor, sequence->cursor, sequence->cursor_size);
	entry->entry.counts = counts;
	entry->entry.key = (const char *)key;
	entry->entry.stamp.producer = (const char *)producer;
	entry->entry.stamp.cursor = cursor;
}

static int check_sequence(const struct segue_log_sequence *sequence)
{
	const struct segue_seqlog_stamp stamp = {.serial = sequence->serial,
		.producer = sequence->producer,
		.producer_size = (uint16_t)sequence->producer_size,
		.cursor = sequence->cursor,
		.cursor_size = (uint16_t)sequence->cursor_size};

	if (sequence->producer_size > SEGUE_NAME_MAX)
		return segue_fail(SEGUE_EINVAL,
			"the producer's name has %zu bytes, at most %d are allowed",
			sequence->producer_size, SEGUE_NAME_MAX);
	if (sequence->cursor_size > SEGUE_SEQLOG_CURSOR_MAX)
		return segue_fail(SEGUE_EINVAL, "the cursor has %zu bytes, at most %d are allowed",
			sequence->cursor_size, SEGUE_SEQLOG_CURSOR_MAX);
	if (!segue_seqfile_total_fits(sequence->total_length, sequence->steps))
		return segue_fail(SEGUE_EINVAL, "the length of a sequence is more than its steps, "
						"rounded up to num_unroll");
	return segue_seqlog_check_stamp(&stamp);
}

static int make(const struct segue_seqfile_head *head, const struct segue_seqfile_entry *entry,
	struct segue_log_entry **out)
{
	struct segue_log_entry *made =
		calloc(1, sizeof(*made) + head->count * sizeof(made->column[0]));
	int rc = made ? 0 : fail_memory();

	if (!rc) {
		made->entry = *entry;
		rc = segue_seqfile_lay_out(head, &made->entry, made->column);
	}
	if (!rc) {
		made->bytes = calloc(1, made->entry.size);
		rc = made->bytes ? 0 : fail_memory();
	}
	if (rc)
		segue_log_entry_free(made);
	else
		*out = made;
	return rc;
}

int segue_log_entry_make(const struct segue_log *log, const struct segue_log_sequence *sequence,
	struct segue_log_entry **out)
{
	const struct segue_seqfile_entry entry = {.steps = sequence->steps,
		.total_length = sequence->total_length,
		.key_size = sequence->key_size,
		.counts = (const uint8_t *)sequence->counts,
		.stamp = {.serial = sequence->serial,
			.producer_size = (uint16_t)sequence->producer_size,
			.cursor_size = (uint16_t)sequence->cursor_size}};
	int rc = check_sequence(sequence);

	if (!rc)
		rc = make(&log->head, &entry, out);
	if (!rc)
		take_texts(&log->head, *out, sequence);
	return rc;
}

void segue_log_entry_free(struct segue_log_entry *entry)
{
	if (!entry)
		return;
	free(entry->bytes);
	free(entry);
}

/* ---- Checksums ---- */

/* Makes the tables of all columns in their places, or holds those that are there against them. */
static bool tables(const struct segue_seqfile_head *head, struct segue_log_entry *entry, bool check,
	uint64_t hash[2])
{
	struct segue_digest digest;

	segue_digest_init(&digest);
	for (uint32_t i = 0; i < head->count; i++) {
		uint64_t size = segue_seqfile_column_size(&head->fields[i], &entry->entry);
		uint8_t *column = entry->bytes + entry->column[i], *table = column + size;
		uint64_t blocks = segue_seqfile_blocks(size);

		for (uint64_t block = 0; check && block < blocks; block++) {
			uint64_t left = size - block * SEGUE_SEQFILE_BLOCK;
			uint32_t crc = segue_seqfile_crc(column + block * SEGUE_SEQFILE_BLOCK,
				left < SEGUE_SEQFILE_BLOCK ? (size_t)left : SEGUE_SEQFILE_BLOCK);

			if (memcmp(&crc, table + block * sizeof(crc), sizeof(crc)) != 0)
				return false;
		}
		if (!check)
			segue_seqfile_put_table(column, size, table);
		segue_digest_bytes(&digest, table, (size_t)blocks * sizeof(uint32_t));
	}
	segue_digest_finish(&digest, hash);
	return true;
}

void segue_log_entry_seal(const struct segue_log *log, struct segue_log_entry *entry)
{
	tables(&log->head, entry, false, entry->entry.hash);
}

/* ---- Reading ---- */

static int fail_entry(const char *what)
{
	return segue_fail(SEGUE_EDATA, "a sequence of the log is damaged: %s", what);
}

int segue_log_read_header(const struct segue_seqfile_head *head, struct segue_log_file *file,
	uint64_t at, uint64_t end, uint8_t *bytes, struct segue_seqfile_entry *out)
{
	size_t size =
		end - at < SEGUE_SEQFILE_ENTRY_MAX ? (size_t)(end - at) : SEGUE_SEQFILE_ENTRY_MAX;
	int rc = segue_log_file_read(file, at, bytes, size);

	if (!rc)
		rc = segue_seqfile_read_entry(head, bytes, size, out);
	if (rc == 1 || (!rc && out->size > end - at))
		return fail_entry("it is cut short");
	return rc == SEGUE_EFORMAT ? SEGUE_EDATA : rc;
}

int segue_log_read_entry(const struct segue_seqfile_head *head, struct segue_log_file *file,
	uint64_t at, uint64_t end, struct segue_log_entry **out)
{
	uint8_t header[SEGUE_SEQFILE_ENTRY_MAX];
	struct segue_seqfile_entry entry;
	struct segue_log_entry *made;
	uint64_t hash[2];
	int rc = segue_log_read_header(head, file, at, end, header, &entry);

	if (!rc)
		rc = make(head, &entry, &made);
	if (rc)
		return rc;
	rc = segue_log_file_read(file, at, made->bytes, (size_t)entry.size);
	/* What is in the bytes now may be another header. */
	if (!rc)
		rc = memcmp(made->bytes, header, entry.header_size) == 0
			     ? segue_seqfile_read_entry(
				       head, made->bytes, (size_t)entry.size, &made->entry)
			     : fail_entry("it changes while it is read");
	if (!rc && !SEGUE_MUTANT(headers_alone) &&
		(!tables(head, made, true, hash) || hash[0] != entry.hash[0] ||
			hash[1] != entry.hash[1]))
		rc = fail_entry("a checksum of its values is wrong");
	if (rc)
		segue_log_entry_free(made);
	else
		*out = made;
	return rc;
}
