/*
 * Fuzzes sequence files: a head, the header of an entry, a foot, or a whole file, gone through as
 * who reads it does. What is read is packed again, and must be the same bytes.
 *
 * The low bits of the first byte say which; KIND_SEALED: their checksums are made right first (else
 * nothing would get past them); KIND_VARIABLE: an entry of a head with fields that are ragged, and of
 * bytes; KIND_LOG: an entry of a log's file. For libFuzzer, or with replay_main.c as a program that
 * runs files.
 */
#include "core/sequence_file.h"

#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"

enum {
	KIND_HEAD,
	KIND_ENTRY,
	KIND_FOOT,
	KIND_FILE,
	KIND_SEALED,
	KIND_VARIABLE = 8,
	KIND_LOG = 16,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

static bool is_refusal(int rc)
{
	return rc == SEGUE_EINVAL || rc == SEGUE_EDATA || rc == SEGUE_EFORMAT || rc == SEGUE_ENOMEM;
}

/* Makes the CRC32C in the last 4 of `size` bytes right, if there are so many. */
static void seal(uint8_t *bytes, size_t have, uint64_t size)
{
	uint32_t crc;

	if (size < 4 || size > have)
		return;
	crc = segue_crc32c(0, bytes, (size_t)size - 4);
	memcpy(bytes + size - 4, &crc, 4);
}

static void seal_by(uint8_t *bytes, size_t have, size_t at)
{
	uint32_t size;

	if (have < at + sizeof(size))
		return;
	memcpy(&size, bytes + at, sizeof(size));
	seal(bytes, have, size);
}

/* 0, or what was refused; 1: more bytes are wanted than there are. */
static int read_head(const uint8_t *bytes, size_t size, struct segue_seqfile_head *head)
{
	int rc;

	head->size = 0;
	rc = segue_seqfile_read_head(bytes, size, head);
	expect(rc == 0 || is_refusal(rc) || (rc == 1 && head->size > size));
	expect(rc < 0 || head->size <= SEGUE_SEQFILE_HEAD_MAX);
	if (rc)
		return rc;
	expect(head->size <= size && head->count > 0);
	uint8_t *again = malloc(head->size);
	expect(again != NULL);
	segue_seqfile_pack_head(head, again);
	expect(memcmp(again, bytes, head->size) == 0);
	free(again);
	return 0;
}

static int read_entry(const struct segue_seqfile_head *head, const uint8_t *bytes, size_t size,
	struct segue_seqfile_entry *entry)
{
	uint8_t again[SEGUE_SEQFILE_ENTRY_MAX];
	int rc = segue_seqfile_read_entry(head, bytes, size, entry);

	expect(rc == 0 || is_refusal(rc) || (rc == 1 && entry->header_size > size));
	expect(rc < 0 || entry->header_size <= SEGUE_SEQFILE_ENTRY_MAX);
	if (rc)
		return rc;
	expect(entry->header_size <= size && entry->size >= entry->header_size);
	segue_seqfile_pack_entry(entry, again);
	expect(memcmp(again, bytes, entry->header_size) == 0);
	return 0;
}

static int read_foot(const uint8_t *bytes, uint64_t size, struct segue_seqfile_foot *foot)
{
	uint8_t again[SEGUE_SEQFILE_FOOT];
	int rc = segue_seqfile_read_foot(bytes, size, foot);

	expect(rc == 0 || is_refusal(rc));
	if (rc)
		return rc;
	/* What a reader relies on: index and foot lie within the file. */
	expect(foot->index <= size && foot->entries <= (size - foot->index) / 16);
	segue_seqfile_pack_foot(foot, again);
	expect(memcmp(again, bytes, sizeof(again)) == 0);
	return 0;
}

/* Its columns lie within it, in order, and do not touch. */
static void check_layout(
	const struct segue_seqfile_head *head, const struct segue_seqfile_entry *entry)
{
	uint64_t *columns = calloc(head->count, sizeof(*columns)), end = entry->header_size;
	struct segue_seqfile_entry again = *entry;

	expect(columns && segue_seqfile_lay_out(head, &again, columns) == 0);
	for (uint32_t i = 0; i < head->count; i++) {
		uint64_t size = segue_seqfile_column_size(&head->fields[i], entry);

		expect(columns[i] >= end && columns[i] - end < SEGUE_SEQFILE_ALIGN);
		expect(size <= entry->size - columns[i]);
		end = columns[i] + size + 4 * segue_seqfile_blocks(size);
		expect(end <= entry->size);
	}
	free(columns);
}

/* The entry at `at`, up to the index, and its tables. */
static void look_at(
	const struct segue_seqfile_head *head, const uint8_t *bytes, uint64_t at, uint64_t index)
{
	struct segue_seqfile_entry entry;
	uint64_t *columns;

	if (at >= index || at % SEGUE_SEQFILE_ALIGN ||
		read_entry(head, bytes + at, (size_t)(index - at), &entry))
		return;
	check_layout(head, &entry);
	if (entry.size > index - at)
		return;
	columns = calloc(head->count, sizeof(*columns));
	expect(columns && segue_seqfile_lay_out(head, &entry, columns) == 0);
	for (uint32_t i = 0; i < head->count; i++) {
		uint64_t size = segue_seqfile_column_size(&head->fields[i], &entry);
		uint8_t *table = malloc((size_t)segue_seqfile_blocks(size) * 4);

		expect(table != NULL);
		segue_seqfile_put_table(bytes + at + columns[i], size, table);
		free(table);
		size = segue_seqfile_offsets_size(&head->fields[i], &entry);
		segue_seqfile_offsets_fit(bytes + at + columns[i], size,
			segue_seqfile_count(&head->fields[i], &entry));
	}
	free(columns);
}

static void run_file(uint8_t *bytes, size_t size, bool sealed)
{
	struct segue_seqfile_head head;
	struct segue_seqfile_foot foot;

	if (size < SEGUE_SEQFILE_FOOT)
		return;
	if (sealed) {
		seal_by(bytes, size, 12);
		seal(bytes + size - SEGUE_SEQFILE_FOOT, SEGUE_SEQFILE_FOOT, SEGUE_SEQFILE_FOOT);
	}
	if (read_foot(bytes + size - SEGUE_SEQFILE_FOOT, size, &foot))
		return;
	if (read_head(bytes, size, &head))
		return;
	for (uint64_t i = 0; i < foot.entries; i++) {
		struct segue_seqfile_indexed entry;

		memcpy(&entry, bytes + foot.index + i * sizeof(entry), sizeof(entry));
		if (sealed && entry.offset < foot.index)
			seal_by(bytes + entry.offset, (size_t)(foot.index - entry.offset), 4);
		look_at(&head, bytes, entry.offset, foot.index);
	}
	segue_seqfile_free_head(&head);
}

static struct segue_seqfile_head *entry_head(bool variable, bool of_log)
{
	static struct segue_seqfile_field fields[] = {
		{.name = "x",
			.place = SEGUE_SEQFILE_SEQUENCE,
			.dtype = SEGUE_FLOAT32,
			.rank = 1,
			.dims = {3}},
		{.name = "c", .place = SEGUE_SEQFILE_CONTEXT, .dtype = SEGUE_UINT8},
		{.name = "large",
			.place = SEGUE_SEQFILE_SEQUENCE,
			.dtype = SEGUE_UINT8,
			.rank = 1,
			.dims = {UINT64_C(1) << 32}},
		{.name = "w",
			.place = SEGUE_SEQFILE_SEQUENCE,
			.dtype = SEGUE_INT64,
			.form = SEGUE_FORM_RAGGED},
		{.name = "t",
			.place = SEGUE_SEQFILE_CONTEXT,
			.dtype = SEGUE_UINT8,
			.form = SEGUE_FORM_BYTES},
	};
	static struct segue_seqfile_head head = {.fields = fields};
	static struct segue_seqlog log;

	head.count = variable ? 5 : 3;
	head.log = of_log ? &log : NULL;
	expect(segue_seqfile_check_fields(&head) == 0);
	return &head;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	uint8_t kind = data[0] % KIND_SEALED;
	bool sealed = data[0] & KIND_SEALED, variable = data[0] & KIND_VARIABLE;
	bool of_log = data[0] & KIND_LOG;
	size_t length = size - 1;
	uint8_t *bytes = malloc(length ? length : 1);
	struct segue_seqfile_head head;
	struct segue_seqfile_entry entry;
	struct segue_seqfile_foot foot;

	expect(bytes != NULL);
	memcpy(bytes, data + 1, length);
	switch (kind) {
	case KIND_HEAD:
		if (sealed)
			seal_by(bytes, length, 12);
		if (read_head(bytes, length, &head) == 0)
			segue_seqfile_free_head(&head);
		break;
	case KIND_ENTRY:
		if (sealed)
			seal_by(bytes, length, 4);
		if (read_entry(entry_head(variable, of_log), bytes, length, &entry) == 0)
			check_layout(entry_head(variable, of_log), &entry);
		break;
	case KIND_FOOT:
		if (length < 8 + SEGUE_SEQFILE_FOOT)
			break;
		/* First the size of the file that it is said to be of. */
		uint64_t file_size;
		memcpy(&file_size, bytes, 8);
		if (sealed)
			seal(bytes + 8, SEGUE_SEQFILE_FOOT, SEGUE_SEQFILE_FOOT);
		read_foot(bytes + 8, file_size, &foot);
		break;
	default:
		run_file(bytes, length, sealed);
	}
	free(bytes);
	return 0;
}
