/* Sequence files without their index: what lies in them, from the head on. */
#include "source/seqfile/scan.h"

#include <endian.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/digest.h"
#include "core/error.h"
#include "source/inflate.h"

#define BLOCKS     256 /* of a column that are read at once */
#define PART       ((size_t)BLOCKS * SEGUE_SEQFILE_BLOCK)
#define HEAD_FIRST 4096 /* bytes of a head that are read at once; few have more */

/* Exactly `size` bytes, which lie within scan->size. */
static int read_at(
	const struct segue_seqfile_scan *scan, uint64_t position, void *bytes, size_t size)
{
	ssize_t got = segue_read_at(scan->fd, position, bytes, size);

	if (got < 0)
		return segue_fail_errno(SEGUE_ESOURCE, "cannot be read at byte %" PRIu64, position);
	if ((size_t)got < size)
		return segue_fail(SEGUE_ESOURCE, "has become shorter while it was read");
	return 0;
}

/* ---- Head, foot, index ---- */

static int read_head(struct segue_seqfile_scan *scan)
{
	size_t wanted = scan->size < HEAD_FIRST ? (size_t)scan->size : HEAD_FIRST;
	int rc = 1;

	while (rc == 1) {
		uint8_t *bytes = realloc(scan->head_bytes, wanted + 1);

		if (!bytes)
			return segue_fail(SEGUE_ENOMEM, "no memory for the head of a file");
		scan->head_bytes = bytes;
		rc = read_at(scan, 0, bytes, wanted);
		if (!rc)
			rc = segue_seqfile_read_head(bytes, wanted, &scan->head);
		if (rc == 1 && (scan->head.size > scan->size || scan->head.size <= wanted))
			rc = segue_fail(SEGUE_EINVAL, "its head is not whole");
		if (rc == 1)
			wanted = scan->head.size;
	}
	return rc;
}

int segue_seqfile_scan_begin(struct segue_seqfile_scan *scan, int fd, uint64_t size)
{
	int rc;

	*scan = (struct segue_seqfile_scan){.fd = fd, .size = size};
	rc = read_head(scan);
	if (rc)
		return rc;
	scan->at = scan->head.size;
	scan->columns = calloc(scan->head.count, sizeof(*scan->columns));
	scan->buffer = malloc(PART);
	scan->table = malloc(BLOCKS * sizeof(uint32_t));
	if (!scan->columns || !scan->buffer || !scan->table)
		return segue_fail(SEGUE_ENOMEM, "no memory to read a sequence file");
	return 0;
}

void segue_seqfile_scan_finish(struct segue_seqfile_scan *scan)
{
	segue_seqfile_free_head(&scan->head);
	free(scan->head_bytes);
	free(scan->columns);
	free(scan->buffer);
	free(scan->table);
}

/* The last bytes of what `bytes` is: `count` entries and their checksum. */
static int read_index(const struct segue_seqfile_scan *scan, const struct segue_seqfile_foot *foot,
	struct segue_seqfile_indexed *index)
{
	size_t size = foot->entries * sizeof(*index);
	uint32_t crc;
	int rc = size ? read_at(scan, foot->index, index, size) : 0;

	if (!rc)
		rc = read_at(scan, foot->index + size, &crc, sizeof(crc));
	if (!rc && segue_seqfile_crc(index, size) != le32toh(crc))
		rc = segue_fail(SEGUE_EDATA, "damaged: the checksum of its index is wrong");
	for (uint64_t i = 0; !rc && i < foot->entries; i++)
		index[i] = (struct segue_seqfile_indexed){.offset = le64toh(index[i].offset),
			.steps = le32toh(index[i].steps),
			.crc = le32toh(index[i].crc)};
	return rc;
}

int segue_seqfile_scan_index(const struct segue_seqfile_scan *scan, struct segue_seqfile_foot *foot,
	struct segue_seqfile_indexed **out)
{
	uint8_t bytes[SEGUE_SEQFILE_FOOT] = {0};
	struct segue_seqfile_indexed *index;
	int rc = 0;

	if (scan->size >= sizeof(bytes))
		rc = read_at(scan, scan->size - sizeof(bytes), bytes, sizeof(bytes));
	if (!rc)
		rc = segue_seqfile_read_foot(bytes, scan->size, foot);
	if (!rc && foot->head_size != scan->head.size)
		rc = segue_fail(SEGUE_EDATA, "damaged: head and foot are of two files");
	if (rc)
		return rc;
	index = malloc(foot->entries * sizeof(*index) + 1);
	if (!index)
		return segue_fail(SEGUE_ENOMEM, "no memory for the index of a file");
	rc = read_index(scan, foot, index);
	if (rc)
		free(index);
	else
		*out = index;
	return rc;
}

/* ---- Entries ---- */

/* The header at `at`, of an entry that ends within the file. */
static int read_entry(
	struct segue_seqfile_scan *scan, uint64_t at, struct segue_seqfile_entry *entry)
{
	uint64_t left = scan->size - at;
	size_t size = left < sizeof(scan->header) ? (size_t)left : sizeof(scan->header);
	int rc = read_at(scan, at, scan->header, size);

	if (!rc)
		rc = segue_seqfile_read_entry(&scan->head, scan->header, size, entry);
	if (rc == 1 || (!rc && entry->size > left))
		rc = segue_fail(SEGUE_EDATA, "it is not whole: the file ends before it does");
	return rc;
}

/* The blocks of a column of `size` bytes at `at`, against the table behind it. */
static int check_column(const struct segue_seqfile_scan *scan,
	const struct segue_seqfile_field *field, uint64_t at, uint64_t size,
	struct segue_digest *tables)
{
	uint64_t table = at + size;

	for (uint64_t done = 0; done < size; done += PART) {
		size_t part = size - done < PART ? (size_t)(size - done) : PART;
		size_t entries = segue_seqfile_blocks(part) * sizeof(uint32_t);
		uint8_t sums[BLOCKS * sizeof(uint32_t)];
		int rc = read_at(scan, at + done, scan->buffer, part);

		if (!rc)
			rc = read_at(scan, table, scan->table, entries);
		if (rc)
			return rc;
		segue_seqfile_put_table(scan->buffer, part, sums);
		if (memcmp(sums, scan->table, entries) != 0)
			return segue_fail(SEGUE_EDATA,
				"damaged: a checksum of bytes %" PRIu64 " to %" PRIu64
				" of '%s' is wrong",
				done, done + part - 1, field->name);
		segue_digest_bytes(tables, scan->table, entries);
		table += entries;
	}
	return 0;
}

int segue_seqfile_scan_next(struct segue_seqfile_scan *scan, struct segue_seqfile_entry *entry)
{
	struct segue_seqfile_entry found;
	struct segue_digest tables;
	uint64_t hash[2];
	int rc = read_entry(scan, scan->at, &found);

	if (!rc)
		rc = segue_seqfile_lay_out(&scan->head, &found, scan->columns);
	segue_digest_init(&tables);
	for (uint32_t i = 0; !rc && i < scan->head.count; i++) {
		const struct segue_seqfile_field *field = &scan->head.fields[i];

		rc = check_column(scan, field, scan->at + scan->columns[i],
			segue_seqfile_column_size(field, &found), &tables);
	}
	if (rc)
		return rc;
	segue_digest_finish(&tables, hash);
	if (hash[0] != found.hash[0] || hash[1] != found.hash[1])
		return segue_fail(SEGUE_EDATA, "damaged: the hash of its checksums is wrong");
	scan->at += found.size;
	*entry = found;
	return 0;
}

int segue_seqfile_scan_find(struct segue_seqfile_scan *scan, struct segue_seqfile_entry *entry)
{
	const size_t magic = sizeof(SEGUE_SEQFILE_ENTRY_MAGIC) - 1;
	uint64_t at = scan->at;

	while (at < scan->size) {
		uint64_t left = scan->size - at;
		size_t part = left < PART ? (size_t)left : PART;
		int rc = read_at(scan, at, scan->buffer, part);

		for (size_t i = 0; !rc && i < part; i += SEGUE_SEQFILE_ALIGN) {
			/* Few places begin so; the others cost no reading of their own. */
			if (part - i < magic ||
				memcmp(scan->buffer + i, SEGUE_SEQFILE_ENTRY_MAGIC, magic) != 0)
				continue;
			rc = read_entry(scan, at + i, entry);
			if (!rc) {
				scan->at = at + i + entry->size;
				return 0;
			}
			rc = rc == SEGUE_ESOURCE ? rc : 0;
		}
		if (rc)
			return rc;
		at += part;
	}
	return segue_fail(SEGUE_ENOTFOUND, "no sequence lies there");
}
