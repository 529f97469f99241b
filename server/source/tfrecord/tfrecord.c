/* The source that reads TFRecord files: admission, records in memory, records read by windows. */
#include "source/tfrecord/tfrecord.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/crc32c.h"
#include "core/error.h"
#include "source/tfrecord/example.h"
#include "source/tfrecord/framing.h"
#include "source/tfrecord/indexing.h"
#include "source/tfrecord/kept.h"
#include "source/manifest.h"

/* With more sequence features than this, the windows of a long record become smaller. */
#define FULL_WINDOWS 8
#define BLOCK_MIN    4096

struct source {
	struct segue_source base;
	const struct segue_spec *spec;
	struct segue_files *files;
	struct segue_index index;
	struct segue_buffers buffers;
	size_t whole_max;
	uint32_t block;
	uint32_t key_max;
	/* Free records, to be used again; under `mutex`. */
	pthread_mutex_t mutex;
	struct record *free;
	struct segue_index_keeper keeper;
};

struct record {
	struct segue_record base;
	struct source *source;
	struct record *next; /* in the list of free ones */
	size_t file;
	uint64_t offset; /* of the data, behind the header */
	struct segue_example example;
	struct segue_blocks blocks;
	/* Of a record in memory: the only window. Of a longer one: of its admission, then empty. */
	struct segue_window window;
	/* Of a longer one: a window a feature, context behind sequences, where it is not dense. */
	struct segue_window *feature;
	bool sliding;
	char *key;
	size_t key_size;
};

/* ---- Records --------------------------------------------------------------------------------- */

static size_t features(const struct segue_spec *spec)
{
	return spec->sequence_count + spec->context_count;
}

/* Whether feature `i` is read when it is asked for; dense context is decoded by the scan. */
static bool is_read_later(const struct segue_spec *spec, size_t i)
{
	return i < spec->sequence_count ||
	       spec->contexts[i - spec->sequence_count].form != SEGUE_FORM_DENSE;
}

static void record_free(struct record *record)
{
	segue_example_finish(&record->example);
	free(record->feature);
	free(record->key);
	free(record);
}

static int record_new(struct source *source, struct record **out)
{
	struct record *record = calloc(1, sizeof(*record));
	int rc;

	if (!record)
		return segue_fail(SEGUE_ENOMEM, "no memory for a record");
	rc = segue_example_init(&record->example, source->spec);
	record->source = source;
	record->feature = calloc(features(source->spec) + 1, sizeof(record->feature[0]));
	record->key = malloc(source->key_max + 1);
	if (!rc && (!record->feature || !record->key))
		rc = segue_fail(SEGUE_ENOMEM, "no memory for a record");
	if (rc)
		record_free(record);
	else
		*out = record;
	return rc;
}

static int record_take(struct source *source, struct record **out)
{
	struct record *record;

	pthread_mutex_lock(&source->mutex);
	record = source->free;
	if (record)
		source->free = record->next;
	pthread_mutex_unlock(&source->mutex);
	if (!record)
		return record_new(source, out);
	*out = record;
	return 0;
}

static void record_give(struct record *record)
{
	struct source *source = record->source;

	segue_window_finish(&record->window);
	for (size_t i = 0; i < features(source->spec); i++)
		segue_window_finish(&record->feature[i]);
	segue_blocks_finish(&record->blocks);
	pthread_mutex_lock(&source->mutex);
	record->next = source->free;
	source->free = record;
	pthread_mutex_unlock(&source->mutex);
}

static int read_record(void *arg, uint64_t position, void *bytes, size_t size)
{
	const struct record *record = arg;

	return segue_files_read(
		record->source->files, record->file, record->offset + position, bytes, size);
}

/* ---- Admission ------------------------------------------------------------------------------- */

static int write_key(
	const struct source *source, size_t file, uint64_t offset, char *key, size_t room)
{
	return snprintf(key, room, "%s:%" PRIu64, source->files->file[file].name, offset);
}

static void make_key(struct record *record, const struct segue_index_entry *entry)
{
	const struct source *source = record->source;

	record->key_size = record->example.key_size;
	if (record->key_size)
		memcpy(record->key, record->example.key, record->key_size);
	else
		record->key_size = (size_t)write_key(
			source, record->file, entry->offset, record->key, source->key_max + 1);
}

/* Why the CRC differs: the file is another now, or it was damaged all along. */
static int explain_crc(struct record *record, const struct segue_index_entry *entry)
{
	uint32_t stored;
	int rc = segue_files_read(record->source->files, record->file,
		record->offset + entry->length, &stored, sizeof(stored));

	if (!rc)
		rc = segue_files_check_copy(record->source->files, record->file);
	if (rc)
		return rc;
	if (stored != entry->crc)
		return segue_fail(SEGUE_ECHANGED, "its stored checksum has changed since it was "
						  "indexed" SEGUE_CHANGED_ADVICE);
	return segue_fail(SEGUE_EDATA, "damaged: the checksum of its data is wrong");
}

/* One pass: the scan reads what it needs, the rest is read for its checksum. */
static int check(struct record *record, const struct segue_index_entry *entry)
{
	const struct segue_spec *spec = record->source->spec;
	int scanned = segue_example_scan(spec, &record->window, &record->example), rc;

	if (scanned && scanned != SEGUE_EDATA && scanned != SEGUE_EMISFIT &&
		scanned != SEGUE_ETOOLONG)
		return scanned;
	/* Where the bytes are not what was written, what the scan made of them is no news. */
	rc = segue_window_complete(&record->window);
	if (rc)
		return rc;
	if (segue_crc32c_mask(record->blocks.total) != entry->crc)
		return explain_crc(record, entry);
	return scanned == SEGUE_EMISFIT ? segue_example_explain(spec, &record->window) : scanned;
}

static uint32_t block_size(const struct source *source)
{
	uint32_t block = source->block;
	size_t n = 0;

	for (size_t i = 0; i < features(source->spec); i++)
		n += is_read_later(source->spec, i);
	for (; n > FULL_WINDOWS && block > BLOCK_MIN; n /= 2)
		block /= 2;
	return block;
}

static int open_windows(struct record *record)
{
	struct source *source = record->source;
	int rc = 0;

	segue_window_finish(&record->window);
	for (size_t i = 0; !rc && i < features(source->spec); i++)
		if (is_read_later(source->spec, i))
			rc = segue_window_init(&record->feature[i], &source->buffers,
				&record->blocks, read_record, record);
	return rc;
}

static int load(struct record *record, const struct segue_index_entry *entry)
{
	struct source *source = record->source;
	int rc;

	record->sliding = entry->length > source->whole_max;
	/* One that stays in memory is read in fewer, larger pieces that still fit the cache. */
	uint32_t block = record->sliding ? block_size(source) : 4 * source->block;
	rc = segue_blocks_init(&record->blocks, entry->length, block, record->sliding);
	if (!rc)
		rc = segue_window_init(
			&record->window, &source->buffers, &record->blocks, read_record, record);
	if (!rc)
		rc = check(record, entry);
	if (!rc && record->sliding)
		rc = open_windows(record);
	return rc;
}

/* Says of which record. */
static int within_record(int rc, const struct record *record)
{
	const struct segue_file *file = &record->source->files->file[record->file];

	segue_fail_within(rc, "record at byte %" PRIu64, record->offset - SEGUE_TFRECORD_HEADER);
	return segue_file_fail_within(rc, file);
}

static int admit_entry(struct source *source, size_t file, uint64_t place, struct record **out)
{
	const struct segue_index_entry *entry = &source->index.entry[place];
	struct record *record = NULL;
	int rc = record_take(source, &record);

	if (rc)
		return rc;
	record->file = file;
	record->offset = entry->offset + SEGUE_TFRECORD_HEADER;
	rc = load(record, entry);
	if (rc) {
		within_record(rc, record);
		record_give(record);
		return rc;
	}
	make_key(record, entry);
	*out = record;
	return 0;
}

static const struct segue_record_ops record_ops;

static int source_admit(struct segue_source *base, uint64_t number, struct segue_record **out,
	struct segue_admitted *admitted)
{
	struct source *source = (struct source *)base;
	struct record *record;
	size_t file;
	uint64_t place = segue_index_find(&source->index, source->files, number, &file);
	int rc = admit_entry(source, file, place, &record);

	if (rc)
		return rc;
	record->base.ops = &record_ops;
	admitted->array_steps = record->example.steps;
	admitted->total_length = record->example.steps;
	*out = &record->base;
	return 0;
}

/* ---- Reading a record ------------------------------------------------------------------------ */

static const char *record_key(const struct segue_record *base, size_t *size)
{
	const struct record *record = (const struct record *)base;

	*size = record->key_size;
	return record->key;
}

static struct segue_window *window_of(struct record *record, size_t feature)
{
	return record->sliding ? &record->feature[feature] : &record->window;
}

static int record_seek(struct segue_record *base, uint64_t step)
{
	struct record *record = (struct record *)base;

	for (size_t i = 0; i < record->source->spec->sequence_count; i++) {
		int rc = segue_example_seek(
			record->source->spec, &record->example, i, window_of(record, i), step);

		if (rc)
			return within_record(rc, record);
	}
	return 0;
}

static int record_read(struct segue_record *base, size_t feature, uint64_t steps, void *out)
{
	struct record *record = (struct record *)base;
	int rc = segue_example_read(record->source->spec, &record->example, feature,
		window_of(record, feature), steps, out);

	return rc < 0 ? within_record(rc, record) : 0;
}

static int record_context(struct segue_record *base, size_t feature, void *out)
{
	const struct record *record = (const struct record *)base;

	memcpy(out, record->example.context + record->example.context_offset[feature],
		record->source->spec->contexts[feature].size);
	return 0;
}

static int record_read_variable(struct segue_record *base, size_t feature, uint64_t steps,
	int64_t *offsets, struct segue_sink *sink)
{
	struct record *record = (struct record *)base;
	int rc = segue_example_read_variable(record->source->spec, &record->example, feature,
		window_of(record, feature), steps, offsets, sink);

	return rc ? within_record(rc, record) : 0;
}

static int record_context_variable(
	struct segue_record *base, size_t feature, int64_t *offsets, struct segue_sink *sink)
{
	struct record *record = (struct record *)base;
	const struct segue_spec *spec = record->source->spec;
	int rc = segue_example_context_variable(spec, &record->example, feature,
		window_of(record, spec->sequence_count + feature), offsets, sink);

	return rc ? within_record(rc, record) : 0;
}

static size_t record_memory(const struct segue_record *base)
{
	const struct record *record = (const struct record *)base;
	const struct source *source = record->source;
	size_t size = sizeof(*record) + segue_example_memory(source->spec) + source->key_max +
		      segue_blocks_memory(&record->blocks) +
		      (features(source->spec) + 1) * sizeof(record->feature[0]);

	if (!record->sliding)
		return size + record->window.capacity;
	for (size_t i = 0; i < features(source->spec); i++)
		size += record->feature[i].capacity;
	return size;
}

static void record_release(struct segue_record *base)
{
	record_give((struct record *)base);
}

static const struct segue_record_ops record_ops = {
	.key = record_key,
	.seek = record_seek,
	.read = record_read,
	.context = record_context,
	.read_variable = record_read_variable,
	.context_variable = record_context_variable,
	.memory = record_memory,
	.release = record_release,
};

/* ---- Lengths --------------------------------------------------------------------------------- */

static void hash_fields(XXH3_state_t *state, const struct segue_field *fields, size_t count)
{
	XXH3_128bits_update(state, &count, sizeof(count));
	for (size_t i = 0; i < count; i++) {
		uint32_t dtype = fields[i].dtype | (uint32_t)fields[i].form << 16;

		XXH3_128bits_update(state, fields[i].name, strlen(fields[i].name) + 1);
		XXH3_128bits_update(state, &dtype, sizeof(dtype));
		XXH3_128bits_update(state, &fields[i].elements, sizeof(fields[i].elements));
	}
}

/* Lengths depend on the data and on all that may make a record count as damaged. */
static int lengths_name(const struct segue_spec *spec, const uint64_t fingerprint[2],
	char name[SEGUE_KEPT_NAME_SIZE])
{
	const struct segue_spec_tfrecord *asked = &spec->source.tfrecord;
	const char *key = asked->key_feature;
	uint32_t rules[4] = {spec->pad ? 0 : spec->num_unroll, asked->allow_surplus, spec->on_error,
		key != NULL};
	uint32_t limits[2] = {spec->maximum_length, spec->on_too_long};
	XXH3_state_t *state = XXH3_createState();
	XXH128_hash_t hash;

	if (!state)
		return segue_fail(SEGUE_ENOMEM, "no memory for a name");
	XXH3_128bits_reset(state);
	XXH3_128bits_update(state, fingerprint, 2 * sizeof(fingerprint[0]));
	XXH3_128bits_update(state, rules, sizeof(rules));
	if (spec->maximum_length)
		XXH3_128bits_update(state, limits, sizeof(limits));
	if (key)
		XXH3_128bits_update(state, key, strlen(key));
	if (asked->record)
		XXH3_128bits_update(state, &asked->record, sizeof(asked->record));
	hash_fields(state, spec->sequences, spec->sequence_count);
	hash_fields(state, spec->contexts, spec->context_count);
	hash = XXH3_128bits_digest(state);
	XXH3_freeState(state);
	snprintf(name, SEGUE_KEPT_NAME_SIZE, "lengths-%016" PRIx64 "%016" PRIx64, hash.high64,
		hash.low64);
	return 0;
}

static int scan_length(struct source *source, size_t file, uint64_t place, uint32_t *length)
{
	struct record *record;
	int rc = admit_entry(source, file, place, &record);

	*length = 0;
	rc = segue_source_judge(&source->base, rc);
	if (rc)
		return rc == SEGUE_SOURCE_SKIPPED ? 0 : rc;
	/* A step takes a byte at least, a record has less than 2^32. */
	*length = (uint32_t)record->example.steps;
	record_give(record);
	return 0;
}

/* One length an entry of the index, in its order. */
static int scan_lengths(
	struct source *source, uint32_t *lengths, segue_progress_fn *progress, void *arg)
{
	const struct segue_index *index = &source->index;
	struct segue_progress told = {.fn = progress,
		.arg = arg,
		.what = "lengths",
		.total = index->first[index->files],
		.given_up = source->files->opener.given_up};

	for (size_t file = 0; file < index->files; file++)
		for (uint64_t i = index->first[file]; i < index->first[file + 1]; i++) {
			int rc = scan_length(source, file, i, &lengths[i]);

			if (!rc)
				rc = segue_progress_add(&told, 1);
			if (rc)
				return rc;
		}
	return 0;
}

/* The kept ones, else scanned and kept: malloc'd. */
static int entry_lengths(
	struct source *source, segue_progress_fn *progress, void *arg, uint32_t **out)
{
	size_t size = source->index.first[source->index.files] * sizeof(uint32_t), kept_size;
	uint32_t *lengths;
	void *kept;
	char name[SEGUE_KEPT_NAME_SIZE];
	int rc = lengths_name(source->spec, source->index.fingerprint, name);

	if (rc)
		return rc;
	rc = source->keeper.load(source->keeper.arg, name, &kept, &kept_size);
	if (!rc && kept_size == size) {
		*out = kept;
		return 0;
	}
	if (!rc) {
		free(kept);
		return segue_fail(SEGUE_ESTORE,
			"what the store keeps as '%s' has a wrong size: restore a backup, or drop "
			"the streams over these files",
			name);
	}
	if (rc != SEGUE_ENOTFOUND)
		return rc;
	lengths = malloc(size);
	if (!lengths)
		return segue_fail(SEGUE_ENOMEM, "no memory for the lengths of records");
	rc = scan_lengths(source, lengths, progress, arg);
	if (!rc)
		rc = source->keeper.save(source->keeper.arg, name, lengths, size);
	if (rc)
		free(lengths);
	else
		*out = lengths;
	return rc;
}

/* From an array over the index to one over the listed files. */
static int source_find_lengths(
	struct segue_source *base, segue_progress_fn *progress, void *arg, uint32_t *lengths)
{
	struct source *source = (struct source *)base;
	const struct segue_index *index = &source->index;
	uint32_t *of_entries = NULL;
	int rc = entry_lengths(source, progress, arg, &of_entries);

	for (size_t i = 0; !rc && i < index->listings; i++)
		memcpy(lengths + index->listed[i],
			of_entries + index->first[source->files->listing[i]],
			(index->listed[i + 1] - index->listed[i]) * sizeof(lengths[0]));
	free(of_entries);
	return rc;
}

/* ---- The source ------------------------------------------------------------------------------ */

static uint64_t source_records(const struct segue_source *base)
{
	return segue_index_records(&((const struct source *)base)->index);
}

static uint32_t source_key_max(const struct segue_source *base)
{
	return ((const struct source *)base)->key_max;
}

static void source_destroy(struct segue_source *base)
{
	struct source *source = (struct source *)base;

	while (source->free) {
		struct record *record = source->free;

		source->free = record->next;
		record_free(record);
	}
	segue_index_finish(&source->index);
	segue_files_close(source->files);
	segue_buffers_finish(&source->buffers);
	pthread_mutex_destroy(&source->mutex);
	segue_source_base_finish(&source->base);
	free(source);
}

static void source_stats(const struct segue_source *base, struct segue_source_stats *stats)
{
	const struct source *source = (const struct source *)base;
	size_t files = source->files->count;

	stats->records = segue_index_records(&source->index);
	stats->files = files;
	for (size_t i = 0; i < files; i++)
		stats->bytes += source->files->file[i].size;
	stats->index_memory +=
		segue_index_memory(&source->index) + segue_files_memory(source->files);
	stats->descriptors = source->files->open_most;
	memcpy(stats->fingerprint, source->index.fingerprint, sizeof(stats->fingerprint));
	stats->crc = segue_crc32c_name();
}

static int source_explain_change(const struct segue_source *base, const uint64_t fingerprint[2])
{
	const struct source *source = (const struct source *)base;

	return segue_manifest_explain(&source->index, source->files, &source->keeper, fingerprint);
}

static const struct segue_source_ops source_ops = {
	.records = source_records,
	.key_max = source_key_max,
	.admit = source_admit,
	.find_lengths = source_find_lengths,
	.stats = source_stats,
	.explain_change = source_explain_change,
	.destroy = source_destroy,
};

static int find_key_max(struct source *source)
{
	const struct segue_index *index = &source->index;
	size_t max = 0;

	for (size_t i = 0; i < index->files; i++) {
		if (index->first[i] == index->first[i + 1])
			continue;
		size_t size = (size_t)write_key(
			source, i, index->entry[index->first[i + 1] - 1].offset, NULL, 0);
		max = size > max ? size : max;
	}
	if (source->spec->source.tfrecord.key_feature)
		max = SEGUE_EXAMPLE_KEY_MAX;
	if (max > SEGUE_KEY_MAX)
		return segue_fail(SEGUE_ELIMIT,
			"the key of a record would have %zu bytes, for it is made of its file's "
			"path; at most %d are allowed: give the files shorter paths, or "
			"TFRecord(..., key=...)",
			max, SEGUE_KEY_MAX);
	source->key_max = (uint32_t)max;
	return 0;
}

static int source_open(const struct segue_spec *spec, const struct segue_source_means *means,
	struct segue_source **out)
{
	struct source *source = calloc(1, sizeof(*source));
	int rc;

	if (!source)
		return segue_fail(SEGUE_ENOMEM, "no memory for a data set");
	segue_source_base_init(&source->base, &source_ops, spec);
	source->spec = spec;
	source->keeper = *means->keeper;
	source->whole_max = SEGUE_RECORD_WHOLE_MAX;
	source->block = SEGUE_RECORD_BLOCK;
	segue_buffers_init(&source->buffers);
	pthread_mutex_init(&source->mutex, NULL);
	rc = segue_files_open(spec, &segue_tfrecord_format, spec->source.tfrecord.compression,
		means, &source->files);
	if (!rc)
		rc = segue_index_open(&source->index, spec, source->files, means);
	if (!rc)
		rc = find_key_max(source);
	if (rc)
		source_destroy(&source->base);
	else
		*out = &source->base;
	return rc;
}

static int visit_kept(const struct segue_spec *spec, const uint64_t fingerprint[2],
	const struct segue_index_keeper *keeper, int (*visit)(void *arg, const char *name),
	void *arg)
{
	char name[SEGUE_KEPT_NAME_SIZE];

	(void)keeper;
	segue_index_name(spec, name);
	int rc = visit(arg, name);
	if (rc)
		return rc;
	segue_manifest_name(fingerprint, name);
	rc = visit(arg, name);
	if (!rc)
		rc = lengths_name(spec, fingerprint, name);
	return rc ? rc : visit(arg, name);
}

const struct segue_source_driver segue_source_tfrecord = {
	.open = source_open,
	.check = segue_files_check,
	.descriptors = segue_files_descriptors,
	.visit_kept = visit_kept,
};

void segue_source_tfrecord_limits(struct segue_source *base, size_t whole_max, uint32_t block)
{
	struct source *source = (struct source *)base;

	source->whole_max = whole_max;
	source->block = block;
}
