/*
 * Sequence files: what lies in which byte. docs/format.md draws the structs below.
 */
#include "core/sequence_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/options.h"
#include "core/sequence_bytes.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers in the file are little-endian");

#define FIELDS_MAX     (SEGUE_FEATURES_MAX + SEGUE_STATES_MAX)
#define VALUE_SIZE_MAX ((uint64_t)1 << 32) /* bytes of a value of a field */
#define ENTRY_SIZE_MAX ((uint64_t)1 << 62) /* sums of two stay below 2^64 */
#define VARIABLE       UINT64_C(1)         /* required: fields may be ragged, or bytes */

/* All versions begin so, and have the CRC32C of all before it in the last 4 of `size` bytes. */
struct head_bytes {
	char magic[8];
	uint32_t version, size;
	uint64_t required;
	uint32_t fields, reserved;
};

/* Then its dims, 8 bytes each, and its name, with zeros up to a multiple of 8. */
struct field_bytes {
	uint8_t place, form, dtype, rank;
	uint16_t name_size, reserved;
};

/* Then the counts, 8 bytes each, the key, in a log's file the stamp, the CRC32C of all before. */
struct entry_bytes {
	char magic[4];
	uint32_t header_size;
	uint64_t size, steps, total_length, hash[2];
	uint32_t key_size, reserved;
};

_Static_assert(sizeof(struct head_bytes) == 32, "docs/format.md");
_Static_assert(sizeof(struct field_bytes) == 8, "docs/format.md");
_Static_assert(sizeof(struct entry_bytes) == 56, "docs/format.md");
_Static_assert(sizeof(struct segue_seqfile_indexed) == 16, "docs/format.md");
_Static_assert(SEGUE_SEQFILE_ENTRY_MAX ==
		       sizeof(struct entry_bytes) + sizeof(uint64_t) * SEGUE_FEATURES_MAX +
			       SEGUE_KEY_MAX + SEGUE_SEQLOG_STAMP_MAX + sizeof(uint32_t),
	"the longest header");

static const char head_magic[8] = SEGUE_SEQFILE_MAGIC;
static const char entry_magic[4] = SEGUE_SEQFILE_ENTRY_MAGIC;

/* ---- Sizes ---- */

uint64_t segue_seqfile_count(
	const struct segue_seqfile_field *field, const struct segue_seqfile_entry *entry)
{
	uint64_t count = 0;

	if (field->form != SEGUE_FORM_DENSE)
		memcpy(&count, entry->counts + sizeof(count) * field->variable, sizeof(count));
	return count;
}

uint64_t segue_seqfile_offsets_size(
	const struct segue_seqfile_field *field, const struct segue_seqfile_entry *entry)
{
	if (field->form == SEGUE_FORM_DENSE)
		return 0;
	return sizeof(int64_t) *
	       (field->place == SEGUE_SEQFILE_SEQUENCE ? entry->steps + 1 : UINT64_C(2));
}

uint64_t segue_seqfile_column_size(
	const struct segue_seqfile_field *field, const struct segue_seqfile_entry *entry)
{
	uint64_t size;

	if (field->form == SEGUE_FORM_DENSE)
		return field->place == SEGUE_SEQFILE_SEQUENCE ? field->size * entry->steps
							      : field->size;
	if (__builtin_mul_overflow(segue_seqfile_count(field, entry), field->size, &size) ||
		__builtin_add_overflow(size, segue_seqfile_offsets_size(field, entry), &size))
		return UINT64_MAX;
	return size;
}

bool segue_seqfile_offsets_rise(const void *bytes, uint64_t at, uint64_t part, uint64_t size,
	uint64_t count, uint64_t *before)
{
	uint64_t left = at < size ? size - at : 0, offset;

	for (uint64_t i = 0; i < part && i < left; i += sizeof(offset)) {
		memcpy(&offset, (const uint8_t *)bytes + i, sizeof(offset));
		if (offset < *before || offset > count || (at + i == 0 && offset != 0))
			return false;
		*before = offset;
	}
	return part < left || at >= size || *before == count;
}

bool segue_seqfile_offsets_fit(const void *offsets, uint64_t size, uint64_t count)
{
	uint64_t before = 0;

	return size > 0 && segue_seqfile_offsets_rise(offsets, 0, size, size, count, &before);
}

uint64_t segue_seqfile_blocks(uint64_t column_size)
{
	return column_size / SEGUE_SEQFILE_BLOCK + (column_size % SEGUE_SEQFILE_BLOCK != 0);
}

uint64_t segue_seqfile_index_size(uint64_t entries)
{
	return align_up(entries * sizeof(struct segue_seqfile_indexed) + sizeof(uint32_t),
		SEGUE_SEQFILE_ALIGN);
}

int segue_seqfile_lay_out(
	const struct segue_seqfile_head *head, struct segue_seqfile_entry *entry, uint64_t *columns)
{
	uint64_t at;

	if (entry->key_size == 0 || entry->key_size > SEGUE_KEY_MAX)
		return segue_fail(SEGUE_EINVAL,
			"the key has %" PRIu32 " bytes, 1 to %d are allowed", entry->key_size,
			SEGUE_KEY_MAX);
	if (entry->steps == 0 || entry->steps > UINT32_MAX)
		return segue_fail(SEGUE_EINVAL,
			"the sequence has %" PRIu64 " steps, 1 to %" PRIu32 " are allowed",
			entry->steps, UINT32_MAX);
	at = sizeof(struct entry_bytes) + sizeof(uint64_t) * head->variable + entry->key_size +
	     segue_seqlog_stamp_size(&entry->stamp) + sizeof(uint32_t);
	entry->header_size = (uint32_t)at;
	for (uint32_t i = 0; i < head->count; i++) {
		uint64_t size = segue_seqfile_column_size(&head->fields[i], entry);

		at = align_up(at, SEGUE_SEQFILE_ALIGN);
		columns[i] = at;
		if (size <= ENTRY_SIZE_MAX)
			at += size + segue_seqfile_blocks(size) * sizeof(uint32_t);
		if (size > ENTRY_SIZE_MAX || at > ENTRY_SIZE_MAX)
			return segue_fail(SEGUE_EINVAL,
				"%" PRIu64 " steps of \"%s\" are more than fits into a file",
				entry->steps, head->fields[i].name);
	}
	entry->size = align_up(at, SEGUE_SEQFILE_ALIGN);
	return 0;
}

/* ---- Checksums ---- */

uint32_t segue_seqfile_crc(const void *bytes, size_t size)
{
	return segue_crc32c(0, bytes, size);
}

void segue_seqfile_put_table_of(const void *const part[2], const uint64_t size[2], void *table)
{
	uint8_t *to = table;
	size_t room = SEGUE_SEQFILE_BLOCK; /* in the block at hand */
	uint32_t crc = 0;

	for (size_t i = 0; i < 2; i++) {
		const uint8_t *bytes = part[i];

		for (uint64_t left = size[i]; left > 0;) {
			size_t more = left < room ? (size_t)left : room;

			crc = segue_crc32c(crc, bytes, more);
			bytes += more;
			left -= more;
			room -= more;
			if (room > 0)
				continue;
			memcpy(to, &crc, sizeof(crc));
			to += sizeof(crc);
			room = SEGUE_SEQFILE_BLOCK;
			crc = 0;
		}
	}
	if (room < SEGUE_SEQFILE_BLOCK)
		memcpy(to, &crc, sizeof(crc));
}

void segue_seqfile_put_table(const void *column, uint64_t size, void *table)
{
	const void *const part[2] = {column, NULL};
	const uint64_t sizes[2] = {size, 0};

	segue_seqfile_put_table_of(part, sizes, table);
}

/* ---- Head ---- */

const char *segue_seqfile_place_name(enum segue_seqfile_place place)
{
	static const char *const names[] = {"sequences", "context", "states"};

	return (unsigned)place < sizeof(names) / sizeof(names[0]) ? names[place] : "?";
}

/* `of` is what the field is called: sequences["x"]. Sets its size. */
static int check_shape(const char *of, struct segue_seqfile_field *field)
{
	uint64_t size = segue_dtype_size(field->dtype);

	if (size == 0)
		return segue_fail(SEGUE_EINVAL,
			"%s: dtype is %u, which is no dtype; 1 (%s) to %u (%s) are", of,
			(unsigned)field->dtype, segue_dtype_name(1), (unsigned)segue_dtype_last(),
			segue_dtype_name(segue_dtype_last()));
	if (field->rank > SEGUE_RANK_MAX)
		return segue_fail(SEGUE_EINVAL,
			"%s: the shape has %" PRIu32
			" dimensions (in C: rank), at most %d are allowed",
			of, field->rank, SEGUE_RANK_MAX);
	for (uint32_t d = 0; d < field->rank; d++) {
		if (field->dims[d] == 0)
			return segue_fail(SEGUE_EINVAL,
				"%s: shape[%" PRIu32 "] (in C: dims) is 0, at least 1 is needed",
				of, d);
		if (__builtin_mul_overflow(size, field->dims[d], &size) || size > VALUE_SIZE_MAX)
			return segue_fail(SEGUE_EINVAL,
				"%s: the shape has more than %" PRIu64 " bytes at shape[%" PRIu32
				"] (in C: dims) = %" PRIu64,
				of, VALUE_SIZE_MAX, d, field->dims[d]);
	}
	field->size = size;
	return 0;
}

static int check_field(const struct segue_seqfile_head *head, uint32_t i)
{
	struct segue_seqfile_field *field = &head->fields[i];
	char what[SEGUE_NAME_MAX + 64];
	int rc;

	if ((unsigned)field->place > SEGUE_SEQFILE_STATE)
		return segue_fail(SEGUE_EINVAL, "field %" PRIu32 " is in place %u, which is none",
			i, (unsigned)field->place);
	snprintf(what, sizeof(what), "the name of field %" PRIu32 " (%s)", i,
		segue_seqfile_place_name(field->place));
	field->name[SEGUE_NAME_MAX] = '\0';
	rc = segue_name_check(what, field->name, false);
	if (rc)
		return rc;
	snprintf(what, sizeof(what), "%s[\"%s\"]", segue_seqfile_place_name(field->place),
		field->name);
	for (uint32_t k = 0; k < i; k++)
		if (head->fields[k].place == field->place &&
			strcmp(head->fields[k].name, field->name) == 0)
			return segue_fail(SEGUE_EINVAL, "%s is there twice", what);
	rc = check_shape(what, field);
	if (!rc)
		rc = segue_form_check(what, field->form, field->rank, field->dtype);
	if (!rc && field->place == SEGUE_SEQFILE_STATE && field->form != SEGUE_FORM_DENSE)
		rc = segue_fail(SEGUE_EINVAL, "%s: a state is dense, not ragged or bytes", what);
	return rc;
}

/* Bytes of a field in the head. */
static size_t field_size(const struct segue_seqfile_field *field)
{
	return sizeof(struct field_bytes) + sizeof(uint64_t) * field->rank +
	       align_up(strlen(field->name), 8);
}

int segue_seqfile_check_fields(struct segue_seqfile_head *head)
{
	uint32_t counts[SEGUE_SEQFILE_STATE + 1] = {0};
	uint64_t size = sizeof(struct head_bytes) + sizeof(uint32_t);

	if (head->count > FIELDS_MAX)
		return segue_fail(SEGUE_EINVAL, "there are %" PRIu32 " fields, at most %d fit",
			head->count, FIELDS_MAX);
	head->variable = 0;
	for (uint32_t i = 0; i < head->count; i++) {
		int rc = check_field(head, i);

		if (rc)
			return rc;
		if (head->fields[i].form != SEGUE_FORM_DENSE)
			head->fields[i].variable = head->variable++;
		counts[head->fields[i].place]++;
		size += field_size(&head->fields[i]);
	}
	if (counts[SEGUE_SEQFILE_SEQUENCE] == 0)
		return segue_fail(SEGUE_EINVAL, "at least one sequence feature is needed");
	if (counts[SEGUE_SEQFILE_SEQUENCE] + counts[SEGUE_SEQFILE_CONTEXT] > SEGUE_FEATURES_MAX)
		return segue_fail(SEGUE_EINVAL,
			"there are %" PRIu32 " sequences and %" PRIu32
			" context, together at most %d are allowed",
			counts[SEGUE_SEQFILE_SEQUENCE], counts[SEGUE_SEQFILE_CONTEXT],
			SEGUE_FEATURES_MAX);
	if (counts[SEGUE_SEQFILE_STATE] > SEGUE_STATES_MAX)
		return segue_fail(SEGUE_EINVAL,
			"there are %" PRIu32 " states, at most %d are allowed",
			counts[SEGUE_SEQFILE_STATE], SEGUE_STATES_MAX);
	if (head->log)
		size += segue_seqlog_head_size(head->log);
	head->size = (uint32_t)align_up(size, SEGUE_SEQFILE_ALIGN);
	return 0;
}

void segue_seqfile_pack_head(const struct segue_seqfile_head *head, void *out)
{
	struct head_bytes bytes = {.version = SEGUE_SEQFILE_VERSION,
		.size = head->size,
		.required =
			(head->variable ? VARIABLE : 0) | (head->log ? SEGUE_SEQLOG_REQUIRES : 0),
		.fields = head->count};
	uint8_t *to = out;

	memset(out, 0, head->size);
	memcpy(bytes.magic, head_magic, sizeof(bytes.magic));
	memcpy(to, &bytes, sizeof(bytes));
	to += sizeof(bytes);
	for (uint32_t i = 0; i < head->count; i++) {
		const struct segue_seqfile_field *field = &head->fields[i];
		struct field_bytes first = {.place = (uint8_t)field->place,
			.form = (uint8_t)field->form,
			.dtype = (uint8_t)field->dtype,
			.rank = (uint8_t)field->rank,
			.name_size = (uint16_t)strlen(field->name)};
		size_t dims = sizeof(field->dims[0]) * field->rank;

		memcpy(to, &first, sizeof(first));
		memcpy(to + sizeof(first), field->dims, dims);
		memcpy(to + sizeof(first) + dims, field->name, first.name_size);
		to += field_size(field);
	}
	if (head->log)
		segue_seqlog_pack_head(head->log, to);
	put_crc(out, head->size);
}

int segue_seqfile_fail_later(const char *what, unsigned value)
{
	return segue_fail(SEGUE_EFORMAT,
		"the sequence file needs a later version of segue: %s is %u, which this one does "
		"not know",
		what, value);
}

static int fail_head(const char *what)
{
	return segue_fail(SEGUE_EDATA, "the head of the sequence file is damaged: %s", what);
}

/* Reads field `i`, at *at of `end` bytes, and moves that behind it. Checks its form alone. */
static int read_field(
	const uint8_t *bytes, size_t end, size_t *at, struct segue_seqfile_field *field)
{
	struct field_bytes first;
	size_t dims, name;

	if (end - *at < sizeof(first))
		return fail_head("a field lies beyond its end");
	memcpy(&first, bytes + *at, sizeof(first));
	if (first.place > SEGUE_SEQFILE_STATE)
		return segue_seqfile_fail_later("the place of a field", first.place);
	if (first.form > SEGUE_FORM_BYTES)
		return segue_seqfile_fail_later("the form of a field", first.form);
	if (segue_dtype_size((enum segue_dtype)first.dtype) == 0)
		return segue_seqfile_fail_later("the dtype of a field", first.dtype);
	if (first.rank > SEGUE_RANK_MAX)
		return segue_seqfile_fail_later("the rank of a field", first.rank);
	if (first.reserved)
		return segue_seqfile_fail_later("a reserved number", first.reserved);
	if (first.name_size > SEGUE_NAME_MAX)
		return fail_head("a name is too long");
	dims = sizeof(uint64_t) * first.rank;
	name = (size_t)align_up(first.name_size, 8);
	if (end - *at - sizeof(first) < dims + name)
		return fail_head("a field lies beyond its end");
	*at += sizeof(first);
	field->place = (enum segue_seqfile_place)first.place;
	field->form = (enum segue_form)first.form;
	field->dtype = (enum segue_dtype)first.dtype;
	field->rank = first.rank;
	memcpy(field->dims, bytes + *at, dims);
	*at += dims;
	memcpy(field->name, bytes + *at, first.name_size);
	if (memchr(field->name, 0, first.name_size))
		return fail_head("a name holds a NUL");
	if (!are_zeros(bytes + *at + first.name_size, name - first.name_size))
		return fail_head("there is something behind a name");
	*at += name;
	return 0;
}

static int read_log(const uint8_t *bytes, size_t end, size_t *at, struct segue_seqfile_head *head)
{
	size_t used;

	head->log = calloc(1, sizeof(*head->log));
	if (!head->log)
		return segue_fail(SEGUE_ENOMEM, "no memory for the head of a sequence file");
	int rc = segue_seqlog_read_head(bytes + *at, end - *at, head->log, &used);
	if (!rc)
		*at += used;
	return rc;
}

static int read_fields(
	const uint8_t *bytes, const struct head_bytes *first, struct segue_seqfile_head *head)
{
	size_t at = sizeof(*first), end = first->size - sizeof(uint32_t);
	int rc = 0;

	for (uint32_t i = 0; !rc && i < head->count; i++)
		rc = read_field(bytes, end, &at, &head->fields[i]);
	if (!rc && first->required & SEGUE_SEQLOG_REQUIRES)
		rc = read_log(bytes, end, &at, head);
	if (rc)
		return rc;
	if (segue_seqfile_check_fields(head))
		return segue_fail_within(SEGUE_EDATA, "the head of the sequence file is damaged");
	if (head->size != first->size || !are_zeros(bytes + at, end - at))
		return fail_head("it is longer than its fields");
	if ((head->variable > 0) != ((first->required & VARIABLE) != 0))
		return fail_head("it requires another thing than its fields do");
	return 0;
}

/* Of the bytes that all versions have. 1: there are more of it than these. */
static int check_head(const void *bytes, size_t size, struct head_bytes *first)
{
	memset(first, 0, sizeof(*first));
	memcpy(first, bytes, size < sizeof(*first) ? size : sizeof(*first));
	if (memcmp(first->magic, head_magic, size < 8 ? size : 8) != 0)
		return segue_fail(SEGUE_EINVAL, "this is no sequence file of segue: it does not "
						"begin with \"" SEGUE_SEQFILE_MAGIC "\"");
	if (size < sizeof(*first)) {
		first->size = SEGUE_SEQFILE_ALIGN;
		return 1;
	}
	if (first->size < SEGUE_SEQFILE_ALIGN || first->size > SEGUE_SEQFILE_HEAD_MAX ||
		first->size % SEGUE_SEQFILE_ALIGN)
		return fail_head("its size is impossible");
	if (size < first->size)
		return 1;
	if (!is_sound(bytes, first->size))
		return fail_head("its checksum is wrong");
	if (first->version != SEGUE_SEQFILE_VERSION)
		return segue_seqfile_fail_later("the version", first->version);
	if (first->required & ~(VARIABLE | SEGUE_SEQLOG_REQUIRES))
		return segue_required_check(
			"the sequence file", first->required & ~(VARIABLE | SEGUE_SEQLOG_REQUIRES));
	if (first->reserved)
		return segue_seqfile_fail_later("a reserved number", first->reserved);
	if (first->fields == 0 || first->fields > FIELDS_MAX)
		return fail_head("the number of its fields is impossible");
	return 0;
}

int segue_seqfile_read_head(const void *bytes, size_t size, struct segue_seqfile_head *out)
{
	struct segue_seqfile_head head = {0};
	struct head_bytes first;
	int rc = check_head(bytes, size, &first);

	if (rc == 1)
		out->size = first.size;
	if (rc)
		return rc;
	head.count = first.fields;
	head.fields = calloc(head.count, sizeof(*head.fields));
	if (!head.fields)
		return segue_fail(SEGUE_ENOMEM, "no memory for the head of a sequence file");
	rc = read_fields(bytes, &first, &head);
	if (rc) {
		segue_seqfile_free_head(&head);
		return rc;
	}
	*out = head;
	return 0;
}

void segue_seqfile_free_head(struct segue_seqfile_head *head)
{
	if (!head)
		return;
	free(head->fields);
	segue_seqlog_finish(head->log);
	free(head->log);
	*head = (struct segue_seqfile_head){0};
}

/* ---- Entries ---- */

void segue_seqfile_pack_entry(struct segue_seqfile_entry *entry, void *out)
{
	size_t counts = entry->header_size - sizeof(struct entry_bytes) - entry->key_size -
			segue_seqlog_stamp_size(&entry->stamp) - sizeof(uint32_t);
	uint8_t *to = out;
	struct entry_bytes bytes = {
		.header_size = entry->header_size,
		.size = entry->size,
		.steps = entry->steps,
		.total_length = entry->total_length,
		.hash = {entry->hash[0], entry->hash[1]},
		.key_size = entry->key_size,
	};

	memcpy(bytes.magic, entry_magic, sizeof(bytes.magic));
	memcpy(to, &bytes, sizeof(bytes));
	to += sizeof(bytes);
	if (counts > 0)
		memcpy(to, entry->counts, counts);
	to += counts;
	memcpy(to, entry->key, entry->key_size);
	if (entry->stamp.producer_size > 0)
		segue_seqlog_pack_stamp(&entry->stamp, to + entry->key_size);
	entry->crc = put_crc(out, entry->header_size);
}

static int fail_entry(const char *what)
{
	return segue_fail(SEGUE_EDATA, "the header of a sequence is damaged: %s", what);
}

bool segue_seqfile_total_fits(uint64_t total_length, uint64_t steps)
{
	return total_length == SEGUE_SEQFILE_NO_TOTAL || total_length <= steps + UINT32_MAX;
}

/* Sizes that follow from the rest must be those that are there. */
static int check_sizes(const struct segue_seqfile_head *head, struct segue_seqfile_entry *entry)
{
	uint64_t columns[FIELDS_MAX], size = entry->size;

	if (head->count > FIELDS_MAX)
		return fail_entry("there are more fields than can be");
	if (segue_seqfile_lay_out(head, entry, columns))
		return segue_fail_within(SEGUE_EDATA, "the header of a sequence is damaged");
	if (entry->size != size)
		return fail_entry("its size is not that of its steps, or it is of another head");
	if (!segue_seqfile_total_fits(entry->total_length, entry->steps))
		return fail_entry("its total length is impossible");
	return 0;
}

/* Of an entry whose header would have that size without. 1: they lie beyond its `size` bytes. */
static int read_stamp_sizes(
	const void *bytes, size_t size, uint32_t header_size, struct segue_seqlog_stamp *stamp)
{
	if (size < (size_t)header_size + SEGUE_SEQLOG_STAMP_FIRST)
		return 1;
	return segue_seqlog_read_sizes(
		(const uint8_t *)bytes + header_size - sizeof(uint32_t), stamp);
}

int segue_seqfile_read_entry(const struct segue_seqfile_head *head, const void *bytes, size_t size,
	struct segue_seqfile_entry *out)
{
	struct segue_seqlog_stamp stamp = {0};
	struct segue_seqfile_entry entry;
	struct entry_bytes first;
	size_t counts = sizeof(uint64_t) * head->variable;
	uint32_t header_size = (uint32_t)(sizeof(first) + counts + sizeof(uint32_t));
	int rc;

	if (size <= header_size) {
		out->header_size = header_size + 1;
		return 1;
	}
	memcpy(&first, bytes, sizeof(first));
	if (memcmp(first.magic, entry_magic, sizeof(first.magic)) != 0)
		return fail_entry("no sequence begins here");
	if (first.key_size == 0 || first.key_size > SEGUE_KEY_MAX)
		return fail_entry("the size of its key is impossible");
	header_size += first.key_size;
	rc = head->log ? read_stamp_sizes(bytes, size, header_size, &stamp) : 0;
	if (rc == 1)
		out->header_size = header_size + SEGUE_SEQLOG_STAMP_FIRST;
	if (rc)
		return rc;
	header_size += segue_seqlog_stamp_size(&stamp);
	if (first.header_size != header_size)
		return fail_entry("its own size is impossible");
	if (size < header_size) {
		out->header_size = header_size;
		return 1;
	}
	if (!is_sound(bytes, header_size))
		return fail_entry("its checksum is wrong");
	if (first.reserved)
		return segue_seqfile_fail_later("a reserved number", first.reserved);
	entry = (struct segue_seqfile_entry){
		.steps = first.steps,
		.total_length = first.total_length,
		.counts = counts ? (const uint8_t *)bytes + sizeof(first) : NULL,
		.key = (const char *)bytes + sizeof(first) + counts,
		.key_size = first.key_size,
		.size = first.size,
		.hash = {first.hash[0], first.hash[1]},
	};
	if (head->log)
		rc = segue_seqlog_read_stamp(
			(const uint8_t *)bytes + sizeof(first) + counts + first.key_size,
			&entry.stamp);
	if (rc)
		return rc;
	memcpy(&entry.crc, (const uint8_t *)bytes + header_size - sizeof(entry.crc),
		sizeof(entry.crc));
	rc = check_sizes(head, &entry);
	if (!rc)
		*out = entry;
	return rc;
}
