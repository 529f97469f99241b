/* The source that reads sequence files: which sequence, free records, lengths. */
#include "source/seqfile/seqfile.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"
#include "core/error.h"
#include "source/manifest.h"
#include "source/seqfile/record.h"

#define WHOLE_MAX      ((size_t)1 << 20)
#define WHOLE_MAX_LONG ((size_t)1 << 16)
#define LONG_WINDOW    ((size_t)1 << 15)

struct source {
	struct segue_source base;
	const struct segue_spec *spec;
	struct segue_seqfile_set set;
	struct segue_seqfile_reader reader;
	struct segue_buffers buffers;
	struct segue_index_keeper keeper;
	size_t whole_max;
	/* Free records, to be used again; under `mutex`. */
	pthread_mutex_t mutex;
	struct segue_seqfile_record *free;
};

/* ---- Records --------------------------------------------------------------------------------- */

/* Of a file. */
static uint32_t most_columns(const struct source *source)
{
	uint32_t most = 0;

	for (size_t i = 0; i < source->set.files->count; i++)
		if (source->set.layout[i].head.count > most)
			most = source->set.layout[i].head.count;
	return most;
}

static int record_take(struct source *source, struct segue_seqfile_record **out)
{
	pthread_mutex_lock(&source->mutex);
	*out = source->free;
	if (*out)
		source->free = (*out)->next;
	pthread_mutex_unlock(&source->mutex);
	if (*out)
		return 0;
	return segue_seqfile_record_new(source->spec, most_columns(source), &source->buffers, out);
}

static void record_give(struct source *source, struct segue_seqfile_record *record)
{
	segue_seqfile_record_unload(record);
	pthread_mutex_lock(&source->mutex);
	record->next = source->free;
	source->free = record;
	pthread_mutex_unlock(&source->mutex);
}

/* Every record is one of a source here; the list of free ones is found by its buffers. */
static struct source *source_of(struct segue_seqfile_record *record)
{
	return (struct source *)((char *)record->buffers - offsetof(struct source, buffers));
}

static int read_file(void *arg, size_t file, uint64_t position, void *bytes, size_t size)
{
	const struct source *source = arg;

	return segue_files_read(source->set.files, file, position, bytes, size);
}

static int fail_within_file(void *arg, size_t file, int rc)
{
	const struct source *source = arg;

	return segue_file_fail_within(rc, &source->set.files->file[file]);
}

/* Where the entry at `place` of the index is. */
static struct segue_seqfile_found find_entry(
	const struct source *source, size_t file, uint64_t place)
{
	const struct segue_index *index = &source->set.index;
	const struct segue_index_entry *indexed = &index->entry[place];
	uint64_t end = place + 1 < index->first[file + 1] ? index->entry[place + 1].offset
							  : source->set.end[file];

	return (struct segue_seqfile_found){.reader = &source->reader,
		.layout = &source->set.layout[file],
		.file = file,
		.number = place - index->first[file],
		.offset = indexed->offset,
		.size = end - indexed->offset,
		.steps = indexed->length,
		.crc = indexed->crc,
		.key_max = source->set.key_max};
}

static int admit_entry(
	struct source *source, size_t file, uint64_t place, struct segue_seqfile_record **out)
{
	const struct segue_seqfile_found found = find_entry(source, file, place);
	bool through = source->base.on_error == SEGUE_ON_ERROR_SKIP;
	int rc = record_take(source, out);

	if (rc)
		return rc;
	rc = segue_seqfile_record_load(*out, &found, source->whole_max, through);
	if (rc)
		record_give(source, *out);
	return rc;
}

static void record_release(struct segue_record *base)
{
	struct segue_seqfile_record *record = (struct segue_seqfile_record *)base;

	record_give(source_of(record), record);
}

static const struct segue_record_ops record_ops = SEGUE_SEQFILE_RECORD_OPS(record_release);

static int source_admit(struct segue_source *base, uint64_t number, struct segue_record **out,
	struct segue_admitted *admitted)
{
	struct source *source = (struct source *)base;
	struct segue_seqfile_record *record;
	size_t file;
	uint64_t place = segue_index_find(&source->set.index, source->set.files, number, &file);
	int rc = admit_entry(source, file, place, &record);

	if (rc)
		return rc;
	record->base.ops = &record_ops;
	*admitted = segue_seqfile_record_admitted(record);
	*out = &record->base;
	return 0;
}

/* ---- Lengths --------------------------------------------------------------------------------- */

/* Where damaged ones are passed over, only reading tells which are. */
static bool source_has_lengths(const struct segue_source *base)
{
	return base->on_error != SEGUE_ON_ERROR_SKIP;
}

static int find_length(struct source *source, size_t file, uint64_t place, uint32_t *length)
{
	struct segue_seqfile_record *record;
	int rc;

	*length = source->set.index.entry[place].length;
	if (source_has_lengths(&source->base))
		return 0;
	rc = segue_source_judge(&source->base, admit_entry(source, file, place, &record));
	if (!rc)
		record_give(source, record);
	if (rc != SEGUE_SOURCE_SKIPPED)
		return rc;
	*length = 0;
	return 0;
}

static int source_find_lengths(
	struct segue_source *base, segue_progress_fn *progress, void *arg, uint32_t *lengths)
{
	struct source *source = (struct source *)base;
	uint64_t records = segue_index_records(&source->set.index);
	struct segue_progress told = {.fn = progress,
		.arg = arg,
		.what = "lengths",
		.total = records,
		.given_up = source->set.files->opener.given_up};
	int rc = 0;

	for (uint64_t number = 0; !rc && number < records; number++) {
		size_t file;
		uint64_t place =
			segue_index_find(&source->set.index, source->set.files, number, &file);

		rc = find_length(source, file, place, &lengths[number]);
		if (!rc)
			rc = segue_progress_add(&told, 1);
	}
	return rc;
}

/* ---- The source ------------------------------------------------------------------------------ */

static uint64_t source_records(const struct segue_source *base)
{
	return segue_index_records(&((const struct source *)base)->set.index);
}

static uint32_t source_key_max(const struct segue_source *base)
{
	return ((const struct source *)base)->set.key_max;
}

static void source_stats(const struct segue_source *base, struct segue_source_stats *stats)
{
	const struct source *source = (const struct source *)base;
	const struct segue_files *files = source->set.files;

	stats->records = segue_index_records(&source->set.index);
	stats->files = files->count;
	for (size_t i = 0; i < files->count; i++)
		stats->bytes += files->file[i].size;
	stats->index_memory += segue_seqfile_set_memory(&source->set);
	stats->descriptors = files->open_most;
	memcpy(stats->fingerprint, source->set.index.fingerprint, sizeof(stats->fingerprint));
	stats->crc = segue_crc32c_name();
}

static int source_explain_change(const struct segue_source *base, const uint64_t fingerprint[2])
{
	const struct source *source = (const struct source *)base;

	return segue_manifest_explain(
		&source->set.index, source->set.files, &source->keeper, fingerprint);
}

static void source_destroy(struct segue_source *base)
{
	struct source *source = (struct source *)base;

	while (source->free) {
		struct segue_seqfile_record *record = source->free;

		source->free = record->next;
		segue_seqfile_record_free(record);
	}
	segue_seqfile_set_close(&source->set);
	segue_buffers_finish(&source->buffers);
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

/* ---- The driver ------------------------------------------------------------------------------ */

size_t segue_seqfile_whole_max(const struct segue_spec *spec)
{
	uint64_t step = 0;

	for (size_t i = 0; i < spec->sequence_count; i++)
		step += spec->sequences[i].size;
	return step >= LONG_WINDOW * spec->sequence_count / segue_spec_unroll(spec) ? WHOLE_MAX_LONG
										    : WHOLE_MAX;
}

static int source_open(const struct segue_spec *spec, const struct segue_source_means *means,
	struct segue_source **out)
{
	struct source *source = calloc(1, sizeof(*source));

	if (!source)
		return segue_fail(SEGUE_ENOMEM, "no memory for a source");
	segue_source_base_init(&source->base, &source_ops, spec);
	source->spec = spec;
	source->reader = (struct segue_seqfile_reader){read_file, fail_within_file, source};
	source->keeper = *means->keeper;
	source->whole_max = segue_seqfile_whole_max(spec);
	segue_buffers_init(&source->buffers);
	pthread_mutex_init(&source->mutex, NULL);
	int rc = segue_seqfile_set_open(&source->set, spec, means);
	/* Of what nothing is stored of nobody will ask how it has changed. */
	if (!rc && spec->persist && segue_source_is_wanted(means, source->set.index.fingerprint))
		rc = segue_manifest_keep(&source->set.index, source->set.files, means->keeper);
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

	(void)spec, (void)keeper;
	segue_manifest_name(fingerprint, name);
	return visit(arg, name);
}

const struct segue_source_driver segue_source_files = {
	.open = source_open,
	.check = segue_files_check,
	.descriptors = segue_files_descriptors,
	.visit_kept = visit_kept,
};

void segue_source_files_limit(struct segue_source *base, size_t whole_max)
{
	((struct source *)base)->whole_max = whole_max;
}
