/* Reads a log that grows: which file has a sequence, files that are open, free records. */
#include "source/log/reading.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32c.h"
#include "core/error.h"
#include "core/list.h"
#include "lane/plan.h"
#include "source/log/inside.h"
#include "source/seqfile/record.h"
#include "source/seqfile/seqfile.h"

/* A file that records have open: once, however many they are. */
struct open_file {
	LIST_ENTRY(open_file) link;
	char name[SEGUE_LOG_NAME];
	struct segue_log_file *file;
	unsigned users;
};

struct source {
	struct segue_source base;
	const struct segue_spec *spec;
	struct segue_log *log;
	struct segue_seqfile_layout
		layout; /* the head is the log's; the list of columns is owned */
	struct segue_buffers buffers;
	size_t whole_max;
	_Atomic uint64_t records;
	pthread_mutex_t mutex; /* of all below */
	struct record *free;
	LIST_HEAD(, open_file) open;
	uint64_t open_count, open_most;
};

struct record {
	struct segue_seqfile_record *sequence; /* owned */
	struct record *next;                   /* in the list of free ones */
	struct source *source;
	struct open_file *file;    /* NULL: all of it is in memory */
	char name[SEGUE_LOG_NAME]; /* of the file */
	struct segue_seqfile_reader reader;
};

/* ---- Columns ---- */

static bool is_in_log(const struct segue_spec *spec, size_t i)
{
	bool state = i >= spec->sequence_count + spec->context_count;

	return !state || segue_seqfile_field_of(spec, i)->from_data;
}

static int lay_out(struct source *source)
{
	size_t columns = segue_seqfile_columns(source->spec);
	uint32_t number = 0;

	source->layout.head = source->log->head;
	source->layout.column = calloc(columns + 1, sizeof(source->layout.column[0]));
	if (!source->layout.column)
		return segue_fail(SEGUE_ENOMEM, "no memory for the features of a file");
	for (size_t i = 0; i < columns; i++)
		source->layout.column[i] =
			is_in_log(source->spec, i) ? number++ : SEGUE_SEQFILE_NO_COLUMN;
	return 0;
}

/* ---- Files ---- */

static struct open_file *find_open(const struct source *source, const char *name)
{
	struct open_file *file;

	LIST_FOREACH(file, &source->open, link) {
		if (strcmp(file->name, name) == 0)
			break;
	}
	return file;
}

/* With the mutex. */
static int open_anew(struct source *source, const char *name, struct open_file **out)
{
	struct open_file *file = calloc(1, sizeof(*file));

	if (!file)
		return segue_fail(SEGUE_ENOMEM, "no memory to read a file");
	int rc = segue_log_file_open(source->log->dir, name, false, &file->file);
	if (rc) {
		free(file);
		return rc;
	}
	strcpy(file->name, name);
	LIST_INSERT_HEAD(&source->open, file, link);
	if (++source->open_count > source->open_most)
		source->open_most = source->open_count;
	*out = file;
	return 0;
}

static int take_file(struct source *source, const char *name, struct open_file **out)
{
	int rc = 0;

	pthread_mutex_lock(&source->mutex);
	struct open_file *file = find_open(source, name);
	if (!file)
		rc = open_anew(source, name, &file);
	if (!rc)
		file->users++;
	pthread_mutex_unlock(&source->mutex);
	*out = file;
	return rc == SEGUE_ESTORE ? SEGUE_ESOURCE : rc;
}

static void give_file(struct source *source, struct open_file *file)
{
	pthread_mutex_lock(&source->mutex);
	bool last = --file->users == 0;
	if (last) {
		LIST_REMOVE(file, link);
		source->open_count--;
	}
	pthread_mutex_unlock(&source->mutex);
	if (last) {
		segue_log_file_close(file->file);
		free(file);
	}
}

static int read_file(void *arg, size_t number, uint64_t position, void *bytes, size_t size)
{
	const struct record *record = arg;

	(void)number;
	int rc = segue_log_file_read(record->file->file, position, bytes, size);
	return rc == SEGUE_ESTORE ? SEGUE_ESOURCE : rc;
}

static int fail_within_file(void *arg, size_t number, int rc)
{
	const struct record *record = arg;

	(void)number;
	return segue_fail_within(
		rc, "%s/%s", segue_log_dir_path(record->source->log->dir), record->file->name);
}

/* ---- Records ---- */

static void free_record(struct record *record)
{
	if (record->sequence)
		segue_seqfile_record_free(record->sequence);
	free(record);
}

static int take_record(struct source *source, struct record **out)
{
	pthread_mutex_lock(&source->mutex);
	struct record *record = source->free;
	if (record)
		source->free = record->next;
	pthread_mutex_unlock(&source->mutex);
	int rc = 0;
	if (!record) {
		record = calloc(1, sizeof(*record));
		rc = record ? segue_seqfile_record_new(source->spec, source->layout.head.count,
				      &source->buffers, &record->sequence)
			    : segue_fail(SEGUE_ENOMEM, "no memory for a sequence");
	}
	if (rc) {
		if (record)
			free_record(record);
		return rc;
	}
	record->source = source;
	record->reader = (struct segue_seqfile_reader){read_file, fail_within_file, record};
	*out = record;
	return 0;
}

static void give_record(struct record *record)
{
	struct source *source = record->source;

	segue_seqfile_record_unload(record->sequence);
	if (record->file)
		give_file(source, record->file);
	record->file = NULL;
	pthread_mutex_lock(&source->mutex);
	record->next = source->free;
	source->free = record;
	pthread_mutex_unlock(&source->mutex);
}

/* Its reader is in the struct that has it. */
static void record_release(struct segue_record *base)
{
	const struct segue_seqfile_record *sequence = (const struct segue_seqfile_record *)base;

	give_record(sequence->found.reader->arg);
}

static const struct segue_record_ops record_ops = SEGUE_SEQFILE_RECORD_OPS(record_release);

static int load(struct record *record, uint64_t number, const struct segue_log_found *found)
{
	struct source *source = record->source;
	bool through = source->base.on_error == SEGUE_ON_ERROR_SKIP;
	const struct segue_seqfile_found what = {.reader = &record->reader,
		.layout = &source->layout,
		.number = number,
		.offset = found->at,
		.size = found->end - found->at,
		.steps = found->steps,
		.crc = found->crc,
		.key_max = SEGUE_KEY_MAX};

	memcpy(record->name, found->name, sizeof(record->name));
	int rc = take_file(source, found->name, &record->file);
	if (!rc)
		rc = segue_seqfile_record_load(record->sequence, &what, source->whole_max, through);
	if (!rc && record->sequence->entry.stamp.number != number)
		rc = segue_fail(SEGUE_EDATA,
			"a sequence of the log is damaged: it is another than number %" PRIu64,
			number);
	return rc;
}

static int fail_absent(struct source *source, uint64_t number)
{
	struct segue_log_stand stand;

	segue_log_look(source->log, &stand);
	if (number < stand.first)
		return segue_fail(SEGUE_ESOURCE,
			"sequence %" PRIu64
			" of the log was given up: the first that is left is %" PRIu64,
			number, stand.first);
	return segue_fail(SEGUE_ENOTYET, "sequence %" PRIu64 " is not inserted yet", number);
}

static int admit(struct source *source, uint64_t number, struct record **out)
{
	struct segue_log_found found;
	struct record *record;

	segue_log_find(source->log, number, &found);
	if (!found.there)
		return fail_absent(source, number);
	int rc = take_record(source, &record);
	if (rc)
		return rc;
	rc = load(record, number, &found);
	if (rc) {
		give_record(record);
		return rc;
	}
	if (record->sequence->whole) {
		give_file(source, record->file);
		record->file = NULL;
	}
	*out = record;
	return 0;
}

static int source_admit(struct segue_source *base, uint64_t number, struct segue_record **out,
	struct segue_admitted *admitted)
{
	struct record *record;
	int rc = admit((struct source *)base, number, &record);

	if (rc)
		return rc;
	record->sequence->base.ops = &record_ops;
	*admitted = segue_seqfile_record_admitted(record->sequence);
	*out = &record->sequence->base;
	return 0;
}

/* ---- Lengths ---- */

/* Where damaged ones are passed over, only reading tells which are. */
static int find_length(struct source *source, uint64_t number, uint32_t *length)
{
	struct segue_log_found found;
	struct record *record;

	segue_log_find(source->log, number, &found);
	*length = found.steps;
	if (!found.there)
		return fail_absent(source, number);
	if (source->base.on_error != SEGUE_ON_ERROR_SKIP)
		return 0;
	int rc = segue_source_judge(&source->base, admit(source, number, &record));
	if (!rc)
		give_record(record);
	if (rc != SEGUE_SOURCE_SKIPPED)
		return rc;
	*length = 0;
	return 0;
}

static int source_find_lengths(
	struct segue_source *base, segue_progress_fn *progress, void *arg, uint32_t *lengths)
{
	struct source *source = (struct source *)base;
	uint64_t records = atomic_load(&source->records);
	int rc = 0;

	for (uint64_t number = 0; !rc && number < records; number++) {
		rc = find_length(source, number, &lengths[number]);
		if (progress && number % 1024 == 0)
			progress(arg, "lengths", number, records);
	}
	return rc;
}

/* ---- The source ---- */

static uint64_t source_records(const struct segue_source *base)
{
	return atomic_load(&((const struct source *)base)->records);
}

static int source_hash(struct segue_source *base, uint64_t count, uint64_t hash[2])
{
	return segue_log_hash(((struct source *)base)->log, count, hash);
}

static uint64_t source_there(const struct segue_source *base)
{
	struct segue_log_stand stand;

	segue_log_look(((const struct source *)base)->log, &stand);
	return stand.written.number;
}

static uint32_t source_key_max(const struct segue_source *base)
{
	(void)base;
	return SEGUE_KEY_MAX; /* of what is going to be inserted nothing is known */
}

static void source_stats(const struct segue_source *base, struct segue_source_stats *stats)
{
	const struct source *source = (const struct source *)base;
	struct segue_log_stand stand;

	segue_log_look(source->log, &stand);
	stats->records = stand.written.number - stand.first;
	stats->files = stand.files;
	stats->bytes = stand.bytes;
	stats->index_memory += stats->records * sizeof(struct segue_seqfile_indexed);
	stats->descriptors = source->open_most;
	memcpy(stats->fingerprint, source->log->producers.id, sizeof(stats->fingerprint));
	stats->crc = segue_crc32c_name();
}

static int source_explain_change(const struct segue_source *base, const uint64_t fingerprint[2])
{
	(void)base, (void)fingerprint;
	return segue_fail(SEGUE_ECHANGED, "its log is another than the one that it was made with");
}

static void source_destroy(struct segue_source *base)
{
	struct source *source = (struct source *)base;

	while (source->free) {
		struct record *record = source->free;

		source->free = record->next;
		free_record(record);
	}
	free(source->layout.column);
	segue_buffers_finish(&source->buffers);
	pthread_mutex_destroy(&source->mutex);
	segue_source_base_finish(&source->base);
	free(source);
}

static const struct segue_source_ops source_ops = {
	.records = source_records,
	.hash = source_hash,
	.there = source_there,
	.key_max = source_key_max,
	.admit = source_admit,
	.find_lengths = source_find_lengths,
	.stats = source_stats,
	.explain_change = source_explain_change,
	.destroy = source_destroy,
};

int segue_log_source_create(
	const struct segue_spec *spec, struct segue_log *log, struct segue_source **out)
{
	struct source *source = calloc(1, sizeof(*source));

	if (!source)
		return segue_fail(SEGUE_ENOMEM, "no memory for a source");
	segue_source_base_init(&source->base, &source_ops, spec);
	source->spec = spec;
	source->log = log;
	source->whole_max = segue_seqfile_whole_max(spec);
	source->records = SEGUE_PLAN_LIVE;
	LIST_INIT(&source->open);
	segue_buffers_init(&source->buffers);
	pthread_mutex_init(&source->mutex, NULL);
	int rc = lay_out(source);
	if (rc)
		source_destroy(&source->base);
	else
		*out = &source->base;
	return rc;
}

void segue_log_source_end(struct segue_source *base, uint64_t records)
{
	atomic_store(&((struct source *)base)->records, records);
}

/* ---- The driver ---- */

static int check(const struct segue_spec *spec, const struct segue_opener *opener)
{
	(void)spec, (void)opener;
	return 0; /* the files are the server's own */
}

/* The log's own, and about a file that the rows of a lane are in. */
static uint64_t descriptors(const struct segue_spec *spec)
{
	return 4 + (uint64_t)spec->lanes;
}

static int visit_kept(const struct segue_spec *spec, const uint64_t fingerprint[2],
	const struct segue_index_keeper *keeper, int (*visit)(void *arg, const char *name),
	void *arg)
{
	(void)spec, (void)fingerprint, (void)keeper, (void)visit, (void)arg;
	return 0;
}

const struct segue_source_driver segue_source_log = {
	.check = check, .descriptors = descriptors, .visit_kept = visit_kept, .live = true};
