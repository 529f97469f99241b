/*
 * Writes sequence files (docs/format.md): one pass, and nothing is gone back to. A header has a
 * hash of the tables of its columns, so those are made before it is put.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/file_out.h"
#include "core/digest.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/sequence_file.h"

struct segue_file_writer {
	struct segue_file_out *out;
	struct segue_seqfile_head head;
	uint64_t *columns; /* of the entry at hand: where each begins in it */
	uint8_t *tables;   /* of its columns, one behind the other */
	size_t tables_room;
	struct segue_seqfile_indexed *index;
	size_t count, room; /* in the index */
	uint64_t steps;
	uint32_t key_max;
	bool closed;
	uint64_t counts[SEGUE_FEATURES_MAX]; /* of the entry at hand */
	uint8_t header[SEGUE_SEQFILE_ENTRY_MAX];
	char key[SEGUE_NAME_MAX + 32]; /* "<file name>:<number>" */
	struct segue_digest fingerprint;
};

/* ---- Structs of the caller ---- */

/* More than any of them will have: what is larger was not set. */
#define STRUCT_MAX 4096

/*
 * Copies one that begins with its size, of which this version knows `known` bytes, all of them in
 * the first version. What it does not know must be 0: not asked for.
 */
static int take_struct(const char *name, const void *from, size_t known, void *to)
{
	size_t size;

	memcpy(&size, from, sizeof(size));
	if (size < known || size > STRUCT_MAX)
		return segue_fail(SEGUE_EINVAL,
			"size of struct %s is %zu: set it to sizeof(struct %s), here %zu", name,
			size, name, known);
	for (size_t i = known; i < size; i++)
		if (((const uint8_t *)from)[i])
			return segue_fail(SEGUE_EINVAL,
				"struct %s has something at byte %zu that this version of segue "
				"(%s) does not know",
				name, i, segue_version());
	memcpy(to, from, known);
	return 0;
}

/* ---- Making ---- */

static int fail_memory(void)
{
	return segue_fail(SEGUE_ENOMEM, "no memory for the writer of a sequence file");
}

static int take_field(const struct segue_feature *from, enum segue_seqfile_place place, size_t i,
	struct segue_seqfile_field *to)
{
	const char *in = segue_seqfile_place_name(place);
	size_t length;

	if (!from->name)
		return segue_fail(SEGUE_EINVAL, "%s[%zu].name is missing (NULL)", in, i);
	length = strlen(from->name);
	if (length > SEGUE_NAME_MAX)
		return segue_fail(SEGUE_EINVAL,
			"%s[%zu].name has %zu bytes, at most %d are allowed", in, i, length,
			SEGUE_NAME_MAX);
	memcpy(to->name, from->name, length);
	to->place = place;
	to->dtype = from->dtype;
	to->rank = from->rank;
	memcpy(to->dims, from->dims, sizeof(to->dims));
	to->form = from->form;
	return 0;
}

static int take_spec(const struct segue_file_spec *spec, struct segue_seqfile_head *head)
{
	const struct {
		const struct segue_feature *list;
		size_t count;
	} places[] = {{spec->sequences, spec->sequence_count},
		{spec->contexts, spec->context_count}, {spec->states, spec->state_count}};
	const size_t most = SEGUE_FEATURES_MAX + SEGUE_STATES_MAX;
	size_t count = 0;

	for (size_t p = 0; p < 3; p++) {
		const char *in = segue_seqfile_place_name((enum segue_seqfile_place)p);

		if (places[p].count > 0 && !places[p].list)
			return segue_fail(SEGUE_EINVAL, "%s is NULL and should have %zu entries",
				in, places[p].count);
		if (places[p].count > most)
			return segue_fail(SEGUE_EINVAL, "there are %zu %s, at most %zu fit",
				places[p].count, in, most);
		count += places[p].count;
	}
	head->fields = calloc(count + 1, sizeof(*head->fields));
	if (!head->fields)
		return fail_memory();
	for (size_t p = 0; p < 3; p++)
		for (size_t i = 0; i < places[p].count; i++) {
			int rc = take_field(&places[p].list[i], (enum segue_seqfile_place)p, i,
				&head->fields[head->count++]);
			if (rc)
				return rc;
		}
	return segue_seqfile_check_fields(head);
}

static int put_head(struct segue_file_writer *writer)
{
	uint8_t *bytes = malloc(writer->head.size);
	int rc;

	if (!bytes)
		return fail_memory();
	segue_seqfile_pack_head(&writer->head, bytes);
	segue_digest_bytes(&writer->fingerprint, bytes, writer->head.size);
	rc = segue_file_out_reserve(
		writer->out, writer->head.size + segue_seqfile_index_size(0) + SEGUE_SEQFILE_FOOT);
	if (!rc)
		rc = segue_file_out_put(writer->out, bytes, writer->head.size);
	/* At once: who finds the file sees what it is going to be. */
	if (!rc)
		rc = segue_file_out_flush(writer->out);
	free(bytes);
	return rc;
}

static void free_writer(struct segue_file_writer *writer)
{
	segue_file_out_destroy(writer->out);
	segue_seqfile_free_head(&writer->head);
	free(writer->columns);
	free(writer->tables);
	free(writer->index);
	free(writer);
}

static int begin(struct segue_file_writer *writer, const char *path)
{
	int rc;

	writer->columns = calloc(writer->head.count, sizeof(*writer->columns));
	if (!writer->columns)
		return fail_memory();
	rc = segue_file_out_create(path, &writer->out);
	if (rc)
		return rc;
	rc = put_head(writer);
	if (rc) {
		struct segue_outcome outcome;

		segue_outcome_take(&outcome, rc);
		segue_file_out_remove(writer->out);
		segue_outcome_give(&outcome);
	}
	return rc;
}

int segue_file_writer_create(
	const char *path, const struct segue_file_spec *given, struct segue_file_writer **out)
{
	struct segue_file_writer *writer;
	struct segue_file_spec spec;
	int rc;

	if (!path || !given)
		return segue_fail(SEGUE_EINVAL, "%s is missing (NULL)", path ? "spec" : "path");
	rc = take_struct("segue_file_spec", given, sizeof(spec), &spec);
	if (rc)
		return rc;
	/* The state of a digest is aligned by more than malloc() does. */
	writer = aligned_alloc(_Alignof(struct segue_file_writer), sizeof(*writer));
	if (!writer)
		return fail_memory();
	memset(writer, 0, sizeof(*writer));
	segue_digest_init(&writer->fingerprint);
	rc = take_spec(&spec, &writer->head);
	if (!rc)
		rc = begin(writer, path);
	if (rc)
		free_writer(writer);
	else
		*out = writer;
	return rc;
}

void segue_file_writer_destroy(struct segue_file_writer *writer)
{
	if (!writer)
		return;
	/* Nobody hears whether it can: the file is not finished in either case. */
	if (!writer->closed)
		segue_file_out_flush(writer->out);
	free_writer(writer);
}

/* ---- A sequence ---- */

static int take_key(struct segue_file_writer *writer, const struct segue_sequence *sequence,
	struct segue_seqfile_entry *entry)
{
	entry->key = sequence->key;
	if (!sequence->key) {
		/* A name that is longer is cut. */
		snprintf(writer->key, sizeof(writer->key), "%.*s:%zu", SEGUE_NAME_MAX,
			writer->out->name, writer->count);
		entry->key = writer->key;
		entry->key_size = (uint32_t)strlen(writer->key);
		return 0;
	}
	if (sequence->key_size == 0 || sequence->key_size > SEGUE_KEY_MAX)
		return segue_fail(SEGUE_EINVAL, "the key has %zu bytes, 1 to %d are allowed",
			sequence->key_size, SEGUE_KEY_MAX);
	entry->key_size = (uint32_t)sequence->key_size;
	return 0;
}

/* How many values each field has that is not dense: where its offsets end. */
static int take_counts(struct segue_file_writer *writer, const struct segue_sequence *sequence,
	struct segue_seqfile_entry *entry)
{
	entry->counts = (const uint8_t *)writer->counts;
	for (uint32_t i = 0; i < writer->head.count; i++) {
		const struct segue_seqfile_field *field = &writer->head.fields[i];
		const int64_t *offsets = sequence->offsets ? sequence->offsets[i] : NULL;
		const char *in = segue_seqfile_place_name(field->place);
		uint64_t size = segue_seqfile_offsets_size(field, entry);

		if (field->form == SEGUE_FORM_DENSE)
			continue;
		if (!offsets)
			return segue_fail(SEGUE_EINVAL,
				"the offsets of %s[\"%s\"] are missing (NULL)", in, field->name);
		uint64_t count = (uint64_t)offsets[size / sizeof(*offsets) - 1];
		if (!segue_seqfile_offsets_fit(offsets, size, count) || count > INT64_MAX)
			return segue_fail(SEGUE_EINVAL,
				"the offsets of %s[\"%s\"] do not begin at 0, or one is below that "
				"before it",
				in, field->name);
		writer->counts[field->variable] = count;
	}
	return 0;
}

static int take_sequence(struct segue_file_writer *writer, const struct segue_sequence *sequence,
	struct segue_seqfile_entry *entry)
{
	int rc;

	*entry = (struct segue_seqfile_entry){
		.steps = sequence->steps, .total_length = SEGUE_SEQFILE_NO_TOTAL};
	rc = take_key(writer, sequence, entry);
	/* Which says so, before offsets are looked at. */
	if (!rc && (entry->steps == 0 || entry->steps > UINT32_MAX))
		rc = segue_seqfile_lay_out(&writer->head, entry, writer->columns);
	if (!rc)
		rc = take_counts(writer, sequence, entry);
	if (!rc)
		rc = segue_seqfile_lay_out(&writer->head, entry, writer->columns);
	if (rc || !sequence->has_total_length)
		return rc;
	entry->total_length = sequence->total_length;
	if (entry->total_length == SEGUE_SEQFILE_NO_TOTAL ||
		!segue_seqfile_total_fits(entry->total_length, entry->steps))
		return segue_fail(SEGUE_EINVAL,
			"the total length is %" PRIu64 ", of a sequence of %" PRIu64
			" steps: it is at most these, rounded up to num_unroll",
			entry->total_length, entry->steps);
	return 0;
}

static bool are_bools(const uint8_t *bytes, uint64_t size)
{
	uint8_t all = 0;

	for (uint64_t i = 0; i < size; i++)
		all |= bytes[i];
	return all <= 1;
}

/* A column is offsets, of a field that is not dense, and values. */
static void find_parts(const struct segue_file_writer *writer,
	const struct segue_sequence *sequence, const struct segue_seqfile_entry *entry, uint32_t i,
	const void *part[2], uint64_t size[2])
{
	const struct segue_seqfile_field *field = &writer->head.fields[i];

	size[0] = segue_seqfile_offsets_size(field, entry);
	part[0] = size[0] ? sequence->offsets[i] : NULL;
	size[1] = segue_seqfile_column_size(field, entry) - size[0];
	part[1] = sequence->arrays[i];
}

static int check_arrays(const struct segue_file_writer *writer,
	const struct segue_sequence *sequence, const struct segue_seqfile_entry *entry)
{
	for (uint32_t i = 0; i < writer->head.count; i++) {
		const struct segue_seqfile_field *field = &writer->head.fields[i];
		const char *in = segue_seqfile_place_name(field->place);
		const void *part[2];
		uint64_t size[2];

		find_parts(writer, sequence, entry, i, part, size);
		if (!part[1] && size[1])
			return segue_fail(SEGUE_EINVAL, "the array of %s[\"%s\"] is missing (NULL)",
				in, field->name);
		if (segue_dtype_row(field->dtype)->number == SEGUE_NUMBER_BOOL &&
			!are_bools(part[1], size[1]))
			return segue_fail(SEGUE_EINVAL,
				"%s[\"%s\"] has a bool that is neither 0 nor 1", in, field->name);
	}
	return 0;
}

/* For one more entry of the index, and so many bytes of tables. */
static int make_room(struct segue_file_writer *writer, uint64_t tables)
{
	if (writer->count == writer->room) {
		size_t room = writer->room ? 2 * writer->room : 1024;
		void *index = reallocarray(writer->index, room, sizeof(*writer->index));

		if (!index)
			return fail_memory();
		writer->index = index;
		writer->room = room;
	}
	if (tables > writer->tables_room) {
		uint8_t *more = tables <= SIZE_MAX / 2 ? malloc(2 * (size_t)tables) : NULL;

		if (!more)
			return fail_memory();
		free(writer->tables);
		writer->tables = more;
		writer->tables_room = 2 * (size_t)tables;
	}
	return 0;
}

static uint64_t table_size(
	const struct segue_seqfile_field *field, const struct segue_seqfile_entry *entry)
{
	return segue_seqfile_blocks(segue_seqfile_column_size(field, entry)) * sizeof(uint32_t);
}

static int make_tables(struct segue_file_writer *writer, const struct segue_sequence *sequence,
	struct segue_seqfile_entry *entry)
{
	uint64_t size = 0;
	XXH128_hash_t hash;
	int rc;

	for (uint32_t i = 0; i < writer->head.count; i++)
		size += table_size(&writer->head.fields[i], entry);
	rc = make_room(writer, size);
	if (rc)
		return rc;
	size = 0;
	for (uint32_t i = 0; i < writer->head.count; i++) {
		const void *part[2];
		uint64_t sizes[2];

		find_parts(writer, sequence, entry, i, part, sizes);
		segue_seqfile_put_table_of(part, sizes, writer->tables + size);
		size += table_size(&writer->head.fields[i], entry);
	}
	hash = XXH3_128bits(writer->tables, (size_t)size);
	entry->hash[0] = hash.low64;
	entry->hash[1] = hash.high64;
	return 0;
}

static int put_entry(struct segue_file_writer *writer, const struct segue_sequence *sequence,
	const struct segue_seqfile_entry *entry)
{
	const uint8_t *table = writer->tables;
	int rc = segue_file_out_put(writer->out, writer->header, entry->header_size);

	for (uint32_t i = 0; !rc && i < writer->head.count; i++) {
		uint64_t size = table_size(&writer->head.fields[i], entry), sizes[2];
		const void *part[2];

		find_parts(writer, sequence, entry, i, part, sizes);
		rc = segue_file_out_align(writer->out, SEGUE_SEQFILE_ALIGN);
		for (size_t k = 0; !rc && k < 2; k++)
			if (sizes[k])
				rc = segue_file_out_put(writer->out, part[k], sizes[k]);
		if (!rc)
			rc = segue_file_out_put(writer->out, table, size);
		table += size;
	}
	return rc ? rc : segue_file_out_align(writer->out, SEGUE_SEQFILE_ALIGN);
}

/* Takes back what was put from `end` on, after `rc`; returns that, or what is worse. */
static int take_back(struct segue_file_writer *writer, uint64_t end, int rc)
{
	int cut = segue_file_out_cut(writer->out, end);

	return cut ? cut : rc;
}

static int check_open(const struct segue_file_writer *writer)
{
	if (!writer->closed)
		return 0;
	return segue_fail(SEGUE_EINVAL, "the writer of %s is closed", writer->out->path);
}

int segue_file_writer_add(struct segue_file_writer *writer, const struct segue_sequence *given)
{
	struct segue_seqfile_entry entry;
	struct segue_sequence sequence;
	uint64_t start = segue_file_out_end(writer->out);
	int rc = check_open(writer);

	if (!rc)
		rc = take_struct("segue_sequence", given, sizeof(sequence), &sequence);
	if (!rc && !sequence.arrays)
		rc = segue_fail(SEGUE_EINVAL, "arrays is missing (NULL)");
	if (!rc)
		rc = take_sequence(writer, &sequence, &entry);
	if (!rc)
		rc = check_arrays(writer, &sequence, &entry);
	if (!rc)
		rc = make_tables(writer, &sequence, &entry);
	if (rc)
		return rc;
	/* Index and foot, too: a file can be finished though the disk is full. */
	rc = segue_file_out_reserve(writer->out,
		entry.size + segue_seqfile_index_size(writer->count + 1) + SEGUE_SEQFILE_FOOT);
	if (rc)
		return rc;
	segue_seqfile_pack_entry(&entry, writer->header);
	rc = put_entry(writer, &sequence, &entry);
	if (rc)
		return take_back(writer, start, rc);
	writer->index[writer->count++] = (struct segue_seqfile_indexed){
		.offset = start, .steps = (uint32_t)entry.steps, .crc = entry.crc};
	writer->steps += entry.steps;
	if (entry.key_size > writer->key_max)
		writer->key_max = entry.key_size;
	segue_digest_bytes(&writer->fingerprint, writer->header, entry.header_size);
	return 0;
}

void segue_file_writer_written(const struct segue_file_writer *writer, uint64_t *sequences,
	uint64_t *steps, uint64_t *bytes)
{
	if (sequences)
		*sequences = writer->count;
	if (steps)
		*steps = writer->steps;
	if (bytes)
		*bytes = segue_file_out_end(writer->out);
}

/* ---- The end ---- */

static int put_end(struct segue_file_writer *writer, uint64_t index)
{
	struct segue_seqfile_foot foot = {.entries = writer->count,
		.index = index,
		.steps = writer->steps,
		.key_max = writer->key_max,
		.head_size = writer->head.size};
	size_t size = writer->count * sizeof(*writer->index);
	uint32_t crc = size ? segue_seqfile_crc(writer->index, size) : 0;
	uint8_t bytes[SEGUE_SEQFILE_FOOT];
	int rc = 0;

	segue_digest_finish(&writer->fingerprint, foot.fingerprint);
	segue_seqfile_pack_foot(&foot, bytes);
	if (size > 0)
		rc = segue_file_out_put(writer->out, writer->index, size);
	if (!rc)
		rc = segue_file_out_put(writer->out, &crc, sizeof(crc));
	if (!rc)
		rc = segue_file_out_align(writer->out, SEGUE_SEQFILE_ALIGN);
	return rc ? rc : segue_file_out_put(writer->out, bytes, sizeof(bytes));
}

int segue_file_writer_close(struct segue_file_writer *writer)
{
	uint64_t index = segue_file_out_end(writer->out);
	int rc = check_open(writer);

	/* The foot comes when what it speaks of is on disk: after a power cut, too. */
	if (!rc)
		rc = segue_file_out_sync(writer->out);
	if (rc)
		return rc;
	rc = put_end(writer, index);
	if (!rc)
		rc = segue_file_out_flush(writer->out);
	if (!rc) {
		segue_file_out_trim(writer->out);
		rc = segue_file_out_sync(writer->out);
	}
	if (!rc)
		rc = segue_file_out_sync_name(writer->out);
	if (rc)
		return take_back(writer, index, rc);
	writer->closed = true;
	return 0;
}

int segue_file_writer_abort(struct segue_file_writer *writer)
{
	int rc = check_open(writer);

	if (!rc)
		rc = segue_file_out_remove(writer->out);
	if (!rc)
		writer->closed = true;
	return rc;
}
