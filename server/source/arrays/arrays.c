/* The source that reads arrays: which steps of which are a sequence, keys, lengths. */
#include "source/arrays/arrays.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"
#include "core/error.h"
#include "source/arrays/kept.h"
#include "source/arrays/sample.h"
#include "source/arrays/values.h"

/*
 * A system call for each small window costs more than a second copy out of the cache: so small
 * windows (in bytes) of small sequences are read together.
 */
#define SMALL_WINDOW   ((size_t)16 * 1024)
#define SMALL_SEQUENCE ((size_t)256 * 1024)

struct source {
	struct segue_source base;
	const struct segue_spec *spec;
	const struct segue_array_index *index; /* the spec's */
	struct segue_array_files data;
	struct segue_index_keeper keeper;
	uint64_t fingerprint[2];
	uint32_t key_max;
	size_t common; /* segue_arrays_common() */
	/* Free records, to be used again. Under `mutex`. */
	pthread_mutex_t mutex;
	struct record *free;
};

/* A feature's values in a sequence: a cursor, and all of them where windows are small. */
struct column {
	uint64_t at; /* the cursor: steps */
	uint8_t *values;
	size_t capacity;
};

struct record {
	struct segue_record base;
	struct source *source;
	struct record *next; /* in the list of free ones */
	const struct segue_array_sequence *sequence;
	uint64_t row; /* which of its group's sequences it is */
	const char *key;
	size_t key_size;
	char *text;             /* a key that is made of a name */
	struct column column[]; /* of each sequence feature */
};

/* ---- Records --------------------------------------------------------------------------------- */

static void record_free(struct record *record)
{
	free(record->text);
	free(record);
}

static int record_new(struct source *source, struct record **out)
{
	size_t columns = source->spec->sequence_count * sizeof((*out)->column[0]);
	struct record *record = calloc(1, sizeof(*record) + columns);

	if (record)
		record->text = malloc(source->key_max + 1);
	if (!record || !record->text) {
		if (record)
			record_free(record);
		return segue_fail(SEGUE_ENOMEM, "no memory for a sequence");
	}
	record->source = source;
	*out = record;
	return 0;
}

static int record_take(struct source *source, struct record **out)
{
	pthread_mutex_lock(&source->mutex);
	*out = source->free;
	if (*out)
		source->free = (*out)->next;
	pthread_mutex_unlock(&source->mutex);
	return *out ? 0 : record_new(source, out);
}

static void record_release(struct segue_record *base)
{
	struct record *record = (struct record *)base;
	struct source *source = record->source;

	for (size_t i = 0; i < source->spec->sequence_count; i++) {
		segue_buffers_give(&source->data.buffers, record->column[i].values,
			record->column[i].capacity);
		record->column[i] = (struct column){.at = 0};
	}
	pthread_mutex_lock(&source->mutex);
	record->next = source->free;
	source->free = record;
	pthread_mutex_unlock(&source->mutex);
}

/* Of the file that the first feature's array of the group lies in. */
static const char *name_of(const struct source *source, uint32_t group)
{
	const struct segue_array_place *place = segue_array_index_place(source->index, group, 0);

	return source->data.files->file[segue_array_file(&source->data, place)].path +
	       source->common;
}

static void make_key(struct record *record, uint64_t number)
{
	const struct source *source = record->source;
	const uint64_t *end = source->index->key_end;
	const struct segue_array_sequence *sequence = record->sequence;

	if (end) {
		uint64_t begin = number ? end[number - 1] : 0;

		record->key = source->index->keys + begin;
		record->key_size = (size_t)(end[number] - begin);
		return;
	}
	record->key = record->text;
	record->key_size = (size_t)snprintf(record->text, source->key_max + 1, "%s:%" PRIu64,
		name_of(source, sequence->group), sequence->first);
}

static const char *record_key(const struct segue_record *base, size_t *size)
{
	const struct record *record = (const struct record *)base;

	*size = record->key_size;
	return record->key;
}

static int record_seek(struct segue_record *base, uint64_t step)
{
	struct record *record = (struct record *)base;

	for (size_t i = 0; i < record->source->spec->sequence_count; i++)
		record->column[i].at = step;
	return 0;
}

static int read_values(
	struct record *record, size_t feature, uint64_t step, uint64_t steps, void *out)
{
	struct source *source = record->source;
	const struct segue_array_sequence *sequence = record->sequence;

	return segue_array_read(&source->data,
		segue_array_index_place(source->index, sequence->group, (uint32_t)feature),
		&source->spec->sequences[feature], sequence->first + step, steps, out);
}

/* All values of a feature that are due. */
static int load_values(struct record *record, size_t feature)
{
	struct column *column = &record->column[feature];
	size_t size = record->sequence->steps * record->source->spec->sequences[feature].size;
	int rc;

	column->values = segue_buffers_take(&record->source->data.buffers, size, &column->capacity);
	if (!column->values)
		return segue_fail(SEGUE_ENOMEM, "no memory for values of an array");
	rc = read_values(record, feature, 0, record->sequence->steps, column->values);
	if (!rc)
		return 0;
	segue_buffers_give(&record->source->data.buffers, column->values, column->capacity);
	column->values = NULL;
	return rc;
}

static int record_read(struct segue_record *base, size_t feature, uint64_t steps, void *out)
{
	struct record *record = (struct record *)base;
	struct column *column = &record->column[feature];
	uint64_t size = record->source->spec->sequences[feature].size, at = column->at;
	int rc = 0;

	column->at += steps;
	if (!column->values && steps * size < SMALL_WINDOW && steps < record->sequence->steps &&
		record->sequence->steps * size <= SMALL_SEQUENCE)
		rc = load_values(record, feature);
	if (rc || !column->values)
		return rc ? rc : read_values(record, feature, at, steps, out);
	memcpy(out, column->values + at * size, steps * size);
	return 0;
}

static int record_context(struct segue_record *base, size_t feature, void *out)
{
	struct record *record = (struct record *)base;
	struct source *source = record->source;
	uint32_t column = (uint32_t)(source->spec->sequence_count + feature);

	return segue_array_read(&source->data,
		segue_array_index_place(source->index, record->sequence->group, column),
		&source->spec->contexts[feature], record->row, 1, out);
}

static size_t record_memory(const struct segue_record *base)
{
	const struct record *record = (const struct record *)base;
	size_t size = sizeof(*record) + record->source->key_max + 1;

	for (size_t i = 0; i < record->source->spec->sequence_count; i++)
		size += sizeof(record->column[i]) +
			(record->column[i].values ? record->column[i].capacity : 0);
	return size;
}

static const struct segue_record_ops record_ops = {
	.key = record_key,
	.seek = record_seek,
	.read = record_read,
	.context = record_context,
	.memory = record_memory,
	.release = record_release,
};

static int source_admit(struct segue_source *base, uint64_t number, struct segue_record **out,
	struct segue_admitted *admitted)
{
	struct source *source = (struct source *)base;
	const struct segue_array_sequence *sequence = &source->index->sequence[number];
	const struct segue_spec *spec = source->spec;
	struct record *record;
	int rc = segue_source_check_steps(spec, sequence->steps);

	if (rc)
		return segue_fail_within(
			rc, "%s: sequence %" PRIu64, name_of(source, sequence->group), number);
	rc = record_take(source, &record);
	if (rc)
		return rc;
	record->base.ops = &record_ops;
	record->sequence = sequence;
	record->row = number - source->index->group[sequence->group].first;
	make_key(record, number);
	record_seek(&record->base, 0);
	admitted->array_steps = admitted->total_length = sequence->steps;
	*out = &record->base;
	return 0;
}

/* ---- The source ------------------------------------------------------------------------------ */

static uint64_t source_records(const struct segue_source *base)
{
	return ((const struct source *)base)->index->sequences;
}

static uint32_t source_key_max(const struct segue_source *base)
{
	return ((const struct source *)base)->key_max;
}

static int source_find_lengths(
	struct segue_source *base, segue_progress_fn *progress, void *arg, uint32_t *lengths)
{
	const struct segue_array_index *index = ((const struct source *)base)->index;

	(void)progress, (void)arg; /* arithmetic: it does not take long */
	for (uint64_t i = 0; i < index->sequences; i++)
		lengths[i] = index->sequence[i].steps;
	return 0;
}

static bool source_has_lengths(const struct segue_source *base)
{
	(void)base;
	return true;
}

static void source_stats(const struct segue_source *base, struct segue_source_stats *stats)
{
	struct source *source = (struct source *)(uintptr_t)base;
	const struct segue_files *files = source->data.files;

	stats->records = source->index->sequences;
	stats->files = files->count;
	for (size_t i = 0; i < files->count; i++)
		stats->bytes += files->file[i].size;
	stats->index_memory += source->index->size + segue_files_memory(files) +
			       segue_sums_memory(&source->data.sums, files);
	stats->descriptors = files->count < files->open_most ? files->count : files->open_most;
	memcpy(stats->fingerprint, source->fingerprint, sizeof(stats->fingerprint));
	stats->crc = segue_crc32c_name();
}

static int source_explain_change(const struct segue_source *base, const uint64_t fingerprint[2])
{
	const struct source *source = (const struct source *)base;

	return segue_arrays_explain(source->data.files, fingerprint, &source->keeper);
}

static void source_destroy(struct segue_source *base)
{
	struct source *source = (struct source *)base;

	while (source->free) {
		struct record *record = source->free;

		source->free = record->next;
		record_free(record);
	}
	segue_sums_close(&source->data.sums);
	segue_files_close(source->data.files);
	segue_buffers_finish(&source->data.buffers);
	pthread_mutex_destroy(&source->mutex);
	segue_source_base_finish(&source->base);
	free(source);
}

static const struct segue_source_ops source_ops = {
	.records = source_records,
	.key_max = source_key_max,
	.admit = source_admit,
	.find_lengths = source_find_lengths,
	.has_lengths = source_has_lengths,
	.stats = source_stats,
	.explain_change = source_explain_change,
	.destroy = source_destroy,
};

/* ---- Opening --------------------------------------------------------------------------------- */

/* Any bytes may be an array. */
static bool begins(const uint8_t *bytes, size_t size)
{
	(void)bytes, (void)size;
	return true;
}

static const struct segue_file_format format = {
	"array", begins, .plain = true, .sample = segue_sample_file};

static const struct segue_field *field_of(const struct segue_spec *spec, uint32_t column)
{
	return column < spec->sequence_count ? &spec->sequences[column]
					     : &spec->contexts[column - spec->sequence_count];
}

/* Every array lies inside of its file. */
static int check_extents(const struct source *source)
{
	const struct segue_array_index *index = source->index;

	for (uint32_t group = 0; group < index->groups; group++)
		for (uint32_t column = 0; column < index->columns; column++) {
			const struct segue_file *file = &source->data.files->file[segue_array_file(
				&source->data, segue_array_index_place(index, group, column))];
			uint64_t end = segue_array_index_end(index, group, column);

			if (end > file->size)
				return segue_fail(SEGUE_EDATA,
					"%s: has %" PRIu64 " bytes, and the array of feature '%s' "
					"would end at byte %" PRIu64
					": was the file cut off, or is the shape another?",
					file->path, file->size,
					field_of(source->spec, column)->name, end);
		}
	return 0;
}

static int find_key_max(struct source *source)
{
	const struct segue_array_index *index = source->index;
	size_t longest = index->key_max;

	for (uint64_t i = 0; !index->key_end && i < index->sequences; i++) {
		size_t size = strlen(name_of(source, index->sequence[i].group)) + 2;

		for (uint64_t first = index->sequence[i].first; first > 9; first /= 10)
			size++;
		longest = size > longest ? size : longest;
	}
	if (longest > SEGUE_KEY_MAX)
		return segue_fail(SEGUE_EDATA,
			"the key of a sequence would have %zu bytes, for it is made of its file's "
			"path; at most %d are allowed: give the files shorter paths, or keys",
			longest, SEGUE_KEY_MAX);
	source->key_max = (uint32_t)longest;
	return 0;
}

static int open_files(struct source *source, const struct segue_source_means *means)
{
	const struct segue_spec *spec = source->spec;

	int rc =
		segue_files_open(spec, &format, SEGUE_COMPRESSION_NONE, means, &source->data.files);
	if (!rc)
		rc = check_extents(source);
	if (rc)
		return rc;
	source->common = segue_arrays_common(source->data.files, source->index);
	rc = find_key_max(source);
	if (rc)
		return rc;
	segue_arrays_fingerprint(source->data.files, source->index, source->fingerprint);
	if (!segue_source_is_wanted(means, source->fingerprint))
		return 0;
	/* Of what nothing is stored of nobody will ask how it has changed. */
	if (spec->persist)
		rc = segue_arrays_keep(
			source->data.files, source->index, source->fingerprint, means->keeper);
	if (!rc && spec->source.arrays.checksum)
		rc = segue_sums_open(&source->data.sums, source->data.files, source->fingerprint,
			spec->persist, means);
	return rc;
}

static int source_open(const struct segue_spec *spec, const struct segue_source_means *means,
	struct segue_source **out)
{
	struct source *source;

	if (!spec->source.arrays.index)
		return segue_fail(SEGUE_EINVAL, "a source of arrays without their index");
	source = calloc(1, sizeof(*source));
	if (!source)
		return segue_fail(SEGUE_ENOMEM, "no memory for a source");
	segue_source_base_init(&source->base, &source_ops, spec);
	source->spec = spec;
	source->index = spec->source.arrays.index;
	source->keeper = *means->keeper;
	segue_buffers_init(&source->data.buffers);
	pthread_mutex_init(&source->mutex, NULL);
	int rc = open_files(source, means);
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

	(void)spec, (void)keeper; /* whether it wants checksums may have changed */
	segue_arrays_kept_name(fingerprint, name);
	int rc = visit(arg, name);
	segue_sums_name(fingerprint, name);
	return rc ? rc : visit(arg, name);
}

static int recall(struct segue_spec *spec, const uint64_t fingerprint[2],
	const struct segue_index_keeper *keeper)
{
	return segue_arrays_recall(fingerprint, keeper, &spec->source.arrays.index);
}

const struct segue_source_driver segue_source_arrays = {
	.open = source_open,
	.check = segue_files_check,
	.descriptors = segue_files_descriptors,
	.visit_kept = visit_kept,
	.recall = recall,
};
