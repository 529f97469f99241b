/* Reads sequences: small ones whole, of longer ones what is asked for, block by block. */
#include "source/seqfile/record.h"

#include <endian.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/error.h"
#include "core/insert.h"

#define BLOCK   SEGUE_SEQFILE_BLOCK
#define THROUGH (64 * 1024) /* bytes that are read at once where nobody wants them */

/* ---- Memory ---------------------------------------------------------------------------------- */

void segue_seqfile_record_free(struct segue_seqfile_record *record)
{
	free(record->column);
	free(record->begins);
	free(record);
}

int segue_seqfile_record_new(const struct segue_spec *spec, uint32_t columns,
	struct segue_buffers *buffers, struct segue_seqfile_record **out)
{
	struct segue_seqfile_record *record = calloc(1, sizeof(*record));

	if (record) {
		record->column = calloc(segue_seqfile_columns(spec) + 1, sizeof(record->column[0]));
		record->begins = calloc(columns + 1, sizeof(record->begins[0]));
	}
	if (!record || !record->column || !record->begins) {
		if (record)
			segue_seqfile_record_free(record);
		return segue_fail(SEGUE_ENOMEM, "no memory for a sequence");
	}
	record->spec = spec;
	record->buffers = buffers;
	*out = record;
	return 0;
}

void segue_seqfile_record_unload(struct segue_seqfile_record *record)
{
	for (size_t i = 0; i < segue_seqfile_columns(record->spec); i++) {
		segue_buffers_give(record->buffers, record->column[i].bytes, BLOCK);
		record->column[i].bytes = NULL;
	}
	segue_buffers_give(record->buffers, record->bytes, record->capacity);
	record->bytes = NULL;
	record->capacity = 0;
}

/* Room for `size` bytes, of which the first `kept` stay as they are. */
static int make_room(struct segue_seqfile_record *record, size_t size, size_t kept)
{
	size_t capacity;
	uint8_t *bytes;

	if (size <= record->capacity)
		return 0;
	bytes = segue_buffers_take(record->buffers, size, &capacity);
	if (!bytes)
		return segue_fail(SEGUE_ENOMEM, "no memory for a sequence of %zu bytes", size);
	if (kept)
		memcpy(bytes, record->bytes, kept);
	segue_buffers_give(record->buffers, record->bytes, record->capacity);
	record->bytes = bytes;
	record->capacity = capacity;
	return 0;
}

/* ---- What is read ---------------------------------------------------------------------------- */

static const struct segue_seqfile_layout *layout_of(const struct segue_seqfile_record *record)
{
	return record->found.layout;
}

static int within(int rc, const struct segue_seqfile_record *record)
{
	const struct segue_seqfile_found *found = &record->found;

	segue_fail_within(
		rc, "sequence %" PRIu64 " (at byte %" PRIu64 ")", found->number, found->offset);
	return found->reader->fail_within(found->reader->arg, found->file, rc);
}

static int read_at(
	const struct segue_seqfile_record *record, uint64_t position, void *bytes, size_t size)
{
	const struct segue_seqfile_found *found = &record->found;

	return found->reader->read(
		found->reader->arg, found->file, found->offset + position, bytes, size);
}

static int check_block(const struct segue_seqfile_record *record, size_t i, const uint8_t *table,
	uint64_t block, const uint8_t *bytes)
{
	uint64_t left = record->column[i].size - block * BLOCK;
	size_t size = left < BLOCK ? (size_t)left : BLOCK;
	uint32_t stored;

	memcpy(&stored, table + block * sizeof(stored), sizeof(stored));
	if (segue_seqfile_crc(bytes, size) == le32toh(stored))
		return 0;
	return segue_fail(SEGUE_EDATA,
		"damaged: the checksum of bytes %" PRIu64 " to %" PRIu64 " of '%s' is wrong",
		block * BLOCK, block * BLOCK + size - 1,
		segue_seqfile_field_of(record->spec, i)->name);
}

/* ---- Admission ------------------------------------------------------------------------------- */

/* What the header says beside what the index has said. */
static int check_entry(const struct segue_seqfile_record *record)
{
	const struct segue_seqfile_found *found = &record->found;
	const struct segue_seqfile_entry *entry = &record->entry;
	const struct segue_spec *spec = record->spec;

	if (entry->crc != found->crc || entry->steps != found->steps || entry->size != found->size)
		return segue_fail(SEGUE_ECHANGED,
			"its header is another than when the file was opened%s",
			SEGUE_CHANGED_ADVICE);
	if (entry->key_size > found->key_max)
		return segue_fail(SEGUE_EDATA,
			"damaged: its key has %" PRIu32
			" bytes, more than any of the file has, by its foot",
			entry->key_size);
	int rc = segue_source_check_steps(spec, entry->steps);
	return rc ? rc : segue_insert_check_total(spec, entry, SEGUE_EMISFIT);
}

/* Where the columns of the spec are. */
static int find_columns(struct segue_seqfile_record *record)
{
	const struct segue_seqfile_layout *layout = layout_of(record);
	int rc = segue_seqfile_lay_out(&layout->head, &record->entry, record->begins);

	for (size_t i = 0; !rc && i < segue_seqfile_columns(record->spec); i++) {
		uint32_t number = layout->column[i];

		record->column[i] = (struct segue_seqfile_column){.size = 0};
		if (number == SEGUE_SEQFILE_NO_COLUMN)
			continue;
		record->column[i] = (struct segue_seqfile_column){
			.begin = record->begins[number],
			.size = segue_seqfile_column_size(
				&layout->head.fields[number], &record->entry),
			.offsets = segue_seqfile_offsets_size(
				&layout->head.fields[number], &record->entry),
			.count = segue_seqfile_count(&layout->head.fields[number], &record->entry),
			.block = UINT64_MAX,
		};
	}
	return rc;
}

/* The header at the beginning of what has been read of it: `size` bytes. */
static int read_entry(struct segue_seqfile_record *record, size_t size)
{
	int rc = segue_seqfile_read_entry(
		&layout_of(record)->head, record->bytes, size, &record->entry);

	return rc == 1 ? segue_fail(SEGUE_EDATA, "damaged: its header is longer than it is") : rc;
}

static int check_hash(const struct segue_seqfile_record *record, XXH128_hash_t hash)
{
	if (hash.low64 == record->entry.hash[0] && hash.high64 == record->entry.hash[1])
		return 0;
	return segue_fail(SEGUE_EDATA, "damaged: the hash of its checksums is wrong");
}

/* Number of blocks, and bytes of the table, of column `number` of the file. */
static size_t table_size(const struct segue_seqfile_record *record, uint32_t number)
{
	const struct segue_seqfile_field *field = &layout_of(record)->head.fields[number];
	uint64_t size = segue_seqfile_column_size(field, &record->entry);

	return (size_t)segue_seqfile_blocks(size) * sizeof(uint32_t);
}

static uint64_t table_begin(const struct segue_seqfile_record *record, uint32_t number)
{
	const struct segue_seqfile_field *field = &layout_of(record)->head.fields[number];

	return record->begins[number] + segue_seqfile_column_size(field, &record->entry);
}

static int fail_offsets(const struct segue_seqfile_record *record, size_t i)
{
	return segue_fail(SEGUE_EDATA,
		"damaged: the offsets of '%s' do not rise from 0 to the number of its values",
		segue_seqfile_field_of(record->spec, i)->name);
}

static int load_whole(struct segue_seqfile_record *record)
{
	const struct segue_seqfile_head *head = &layout_of(record)->head;
	XXH3_state_t *state = XXH3_createState();
	int rc = 0;

	if (!state)
		return segue_fail(SEGUE_ENOMEM, "no memory for a checksum");
	XXH3_128bits_reset(state);
	for (uint32_t i = 0; i < head->count; i++)
		XXH3_128bits_update(
			state, record->bytes + table_begin(record, i), table_size(record, i));
	rc = check_hash(record, XXH3_128bits_digest(state));
	XXH3_freeState(state);
	for (size_t i = 0; !rc && i < segue_seqfile_columns(record->spec); i++) {
		const struct segue_seqfile_column *column = &record->column[i];
		const uint8_t *bytes = record->bytes + column->begin;

		for (uint64_t k = 0; !rc && k < segue_seqfile_blocks(column->size); k++)
			rc = check_block(record, i, bytes + column->size, k, bytes + k * BLOCK);
		if (!rc && column->offsets &&
			!segue_seqfile_offsets_fit(bytes, column->offsets, column->count))
			rc = fail_offsets(record, i);
	}
	return rc;
}

/* The tables of all columns behind the header; those of the spec's columns are pointed to. */
static int load_tables(struct segue_seqfile_record *record)
{
	const struct segue_seqfile_layout *layout = layout_of(record);
	size_t begin = record->entry.header_size, at = begin, size = begin;
	int rc;

	for (uint32_t i = 0; i < layout->head.count; i++)
		size += table_size(record, i);
	rc = make_room(record, size, begin);
	/* Counts and key are in bytes that may have moved. */
	if (!rc)
		rc = read_entry(record, begin);
	for (uint32_t i = 0; !rc && i < layout->head.count; i++) {
		rc = read_at(
			record, table_begin(record, i), record->bytes + at, table_size(record, i));
		for (size_t k = 0; k < segue_seqfile_columns(record->spec); k++)
			if (layout->column[k] == i)
				record->column[k].table = record->bytes + at;
		at += table_size(record, i);
	}
	return rc ? rc : check_hash(record, XXH3_128bits(record->bytes + begin, size - begin));
}

/* Those in the `size` bytes at `at` of a column. */
static int check_offsets(const struct segue_seqfile_record *record, size_t i, uint64_t at,
	const uint8_t *bytes, size_t size, uint64_t *before)
{
	const struct segue_seqfile_column *column = &record->column[i];

	return segue_seqfile_offsets_rise(bytes, at, size, column->offsets, column->count, before)
		       ? 0
		       : fail_offsets(record, i);
}

/* Reads all blocks of the spec's columns, and checks them. */
static int read_through(struct segue_seqfile_record *record)
{
	size_t capacity;
	uint8_t *bytes = segue_buffers_take(record->buffers, THROUGH, &capacity);
	int rc = bytes ? 0 : segue_fail(SEGUE_ENOMEM, "no memory for a sequence");

	for (size_t i = 0; !rc && i < segue_seqfile_columns(record->spec); i++) {
		const struct segue_seqfile_column *column = &record->column[i];
		uint64_t before = 0;

		for (uint64_t at = 0; !rc && at < column->size; at += THROUGH) {
			uint64_t left = column->size - at;
			size_t size = left < THROUGH ? (size_t)left : THROUGH;

			rc = read_at(record, column->begin + at, bytes, size);
			for (size_t k = 0; !rc && k < size; k += BLOCK)
				rc = check_block(
					record, i, column->table, (at + k) / BLOCK, bytes + k);
			if (!rc)
				rc = check_offsets(record, i, at, bytes, size, &before);
		}
	}
	segue_buffers_give(record->buffers, bytes, capacity);
	return rc;
}

static int load(struct segue_seqfile_record *record, size_t whole_max, bool through)
{
	uint64_t size = record->found.size;
	size_t header = segue_seqfile_header_max(&layout_of(record)->head);

	record->whole = size <= whole_max;
	size_t first = record->whole || size < header ? (size_t)size : header;
	int rc = make_room(record, first, 0);
	if (!rc)
		rc = read_at(record, 0, record->bytes, first);
	if (!rc)
		rc = read_entry(record, first);
	if (!rc)
		rc = check_entry(record);
	if (!rc)
		rc = find_columns(record);
	if (rc)
		return rc;
	if (record->whole)
		return load_whole(record);
	rc = load_tables(record);
	return rc || !through ? rc : read_through(record);
}

int segue_seqfile_record_load(struct segue_seqfile_record *record,
	const struct segue_seqfile_found *found, size_t whole_max, bool through)
{
	record->found = *found;
	int rc = load(record, whole_max, through);
	return rc ? within(rc, record) : 0;
}

struct segue_admitted segue_seqfile_record_admitted(const struct segue_seqfile_record *record)
{
	const struct segue_seqfile_entry *entry = &record->entry;
	bool given = entry->total_length != SEGUE_SEQFILE_NO_TOTAL;

	return (struct segue_admitted){.array_steps = entry->steps,
		.total_length = given ? entry->total_length : entry->steps};
}

/* ---- Reading --------------------------------------------------------------------------------- */

static struct segue_seqfile_record *of(struct segue_record *base)
{
	return (struct segue_seqfile_record *)base;
}

const char *segue_seqfile_record_key(const struct segue_record *base, size_t *size)
{
	const struct segue_seqfile_record *record = (const struct segue_seqfile_record *)base;

	*size = record->entry.key_size;
	return record->entry.key;
}

size_t segue_seqfile_record_memory(const struct segue_record *base)
{
	const struct segue_seqfile_record *record = (const struct segue_seqfile_record *)base;
	size_t size = sizeof(*record) +
		      segue_seqfile_columns(record->spec) * sizeof(record->column[0]) +
		      record->capacity;

	for (size_t i = 0; i < segue_seqfile_columns(record->spec); i++)
		size += record->column[i].bytes ? BLOCK : 0;
	return size;
}

int segue_seqfile_record_seek(struct segue_record *base, uint64_t step)
{
	struct segue_seqfile_record *record = of(base);

	for (size_t i = 0; i < record->spec->sequence_count; i++)
		record->column[i].at =
			record->column[i].offsets ? step : step * record->spec->sequences[i].size;
	return 0;
}

/* Bytes `from` to `end` of one block of a longer sequence, by way of the block itself. */
static int read_part(struct segue_seqfile_record *record, size_t i, uint64_t block, size_t from,
	size_t end, uint8_t *out)
{
	struct segue_seqfile_column *column = &record->column[i];
	uint64_t left = column->size - block * BLOCK;
	size_t size = left < BLOCK ? (size_t)left : BLOCK, capacity;

	if (!column->bytes)
		column->bytes = segue_buffers_take(record->buffers, BLOCK, &capacity);
	if (!column->bytes)
		return segue_fail(SEGUE_ENOMEM, "no memory for a block of a sequence");
	if (column->block != block) {
		column->block = UINT64_MAX;
		int rc = read_at(record, column->begin + block * BLOCK, column->bytes, size);
		if (!rc)
			rc = check_block(record, i, column->table, block, column->bytes);
		if (rc)
			return rc;
		column->block = block;
	}
	memcpy(out, column->bytes + from, end - from);
	return 0;
}

/* Blocks that are wanted whole go straight to their place. */
static int read_blocks(
	struct segue_seqfile_record *record, size_t i, uint64_t block, uint64_t end, uint8_t *out)
{
	const struct segue_seqfile_column *column = &record->column[i];
	int rc = read_at(record, column->begin + block * BLOCK, out, (size_t)(end - block) * BLOCK);

	for (; !rc && block < end; block++, out += BLOCK)
		rc = check_block(record, i, column->table, block, out);
	return rc;
}

static int read_window(
	struct segue_seqfile_record *record, size_t i, uint64_t at, uint64_t size, uint8_t *out)
{
	uint64_t end = at + size;
	int rc = 0;

	while (!rc && at < end) {
		uint64_t block = at / BLOCK, whole = end / BLOCK;
		size_t from = (size_t)(at % BLOCK);
		uint64_t to = (block + 1) * BLOCK;

		if (from == 0 && whole > block) {
			rc = read_blocks(record, i, block, whole, out);
			to = whole * BLOCK;
		} else {
			to = to < end ? to : end;
			rc = read_part(record, i, block, from, (size_t)(to - block * BLOCK), out);
		}
		out += to - at;
		at = to;
	}
	return rc;
}

static int read_column(
	struct segue_seqfile_record *record, size_t i, uint64_t at, uint64_t size, void *out)
{
	if (record->whole) {
		memcpy(out, record->bytes + record->column[i].begin + at, size);
		return 0;
	}
	int rc = read_window(record, i, at, size, out);
	return rc ? within(rc, record) : 0;
}

int segue_seqfile_record_read(struct segue_record *base, size_t feature, uint64_t steps, void *out)
{
	struct segue_seqfile_record *record = of(base);
	struct segue_seqfile_column *column = &record->column[feature];
	uint64_t size = steps * record->spec->sequences[feature].size;
	int rc = read_column(record, feature, column->at, size, out);

	column->at += size;
	return rc;
}

int segue_seqfile_record_context(struct segue_record *base, size_t feature, void *out)
{
	struct segue_seqfile_record *record = of(base);
	size_t i = record->spec->sequence_count + feature;

	return read_column(record, i, 0, record->column[i].size, out);
}

/* Of column i, which is not dense, `steps` from `at` on: as the operation. */
static int read_variable(struct segue_seqfile_record *record, size_t i, uint64_t at, uint64_t steps,
	int64_t *offsets, struct segue_sink *sink)
{
	const struct segue_seqfile_column *column = &record->column[i];
	uint64_t size = segue_seqfile_field_of(record->spec, i)->size, before = 0;
	uint64_t first = at * sizeof(*offsets), read = (steps + 1) * sizeof(*offsets);
	int64_t base = offsets[0];
	uint8_t *out;

	int rc = read_column(record, i, first, read, offsets);
	if (rc)
		return rc;
	if (check_offsets(record, i, first, (const uint8_t *)offsets, read, &before))
		return within(SEGUE_EDATA, record);
	uint64_t begin = (uint64_t)offsets[0], bytes = (before - begin) * size;
	rc = segue_sink_add(sink, bytes, &out);
	if (!rc && bytes)
		rc = read_column(record, i, column->offsets + begin * size, bytes, out);
	for (uint64_t k = 0; k <= steps; k++)
		offsets[k] += base - (int64_t)begin;
	return rc;
}

int segue_seqfile_record_read_variable(struct segue_record *base, size_t feature, uint64_t steps,
	int64_t *offsets, struct segue_sink *sink)
{
	struct segue_seqfile_record *record = of(base);
	struct segue_seqfile_column *column = &record->column[feature];
	int rc = read_variable(record, feature, column->at, steps, offsets, sink);

	column->at += steps;
	return rc;
}

int segue_seqfile_record_context_variable(
	struct segue_record *base, size_t feature, int64_t *offsets, struct segue_sink *sink)
{
	struct segue_seqfile_record *record = of(base);

	return read_variable(record, record->spec->sequence_count + feature, 0, 1, offsets, sink);
}

int segue_seqfile_record_initial(struct segue_record *base, size_t state, void *out)
{
	struct segue_seqfile_record *record = of(base);
	size_t i = record->spec->sequence_count + record->spec->context_count + state;

	return read_column(record, i, 0, record->column[i].size, out);
}
