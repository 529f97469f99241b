/* A log at work: its files grow, are synced, finished, and given up. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/error.h"
#include "source/log/inside.h"

void segue_log_name(uint64_t first, char name[SEGUE_LOG_NAME])
{
	snprintf(name, SEGUE_LOG_NAME, "%020" PRIu64 ".segue", first);
}

bool segue_log_is_name(const char *name, uint64_t *first)
{
	char again[SEGUE_LOG_NAME];

	*first = isdigit((unsigned char)name[0]) ? strtoull(name, NULL, 10) : 0;
	segue_log_name(*first, again);
	return strcmp(name, again) == 0;
}

/* ---- Life ---- */

static int fail_memory(void)
{
	return segue_fail(SEGUE_ENOMEM, "no memory for a log");
}

static int take_fields(const struct segue_log_means *means, struct segue_seqfile_head *head)
{
	head->count = means->count;
	head->fields = calloc(means->count + 1u, sizeof(*head->fields));
	if (!head->fields)
		return fail_memory();
	memcpy(head->fields, means->fields, means->count * sizeof(*means->fields));
	return segue_seqfile_check_fields(head);
}

int segue_log_new(const struct segue_log_means *means, const uint8_t id[SEGUE_SEQLOG_ID],
	struct segue_log **out)
{
	/* The state of a digest is aligned by more than malloc() does. */
	struct segue_log *log = aligned_alloc(_Alignof(struct segue_log), sizeof(*log));

	if (!log)
		return fail_memory();
	memset(log, 0, sizeof(*log));
	pthread_mutex_init(&log->mutex, NULL);
	log->file_bytes = means->file_bytes ? means->file_bytes : SEGUE_LOG_FILE_BYTES;
	memcpy(log->producers.id, id, SEGUE_SEQLOG_ID);
	log->head.log = log->next.log = &log->producers;
	int rc = take_fields(means, &log->head);
	if (!rc)
		rc = take_fields(means, &log->next);
	if (!rc)
		rc = segue_log_dir_open(means->dir, &log->dir);
	if (rc)
		segue_log_close(log);
	else
		*out = log;
	return rc;
}

void segue_log_close(struct segue_log *log)
{
	if (!log)
		return;
	for (size_t i = 0; i < log->parts; i++)
		free(log->part[i].index);
	free(log->part);
	segue_log_file_close(log->file);
	segue_log_dir_close(log->dir);
	segue_seqlog_finish(&log->producers);
	free(log->head.fields);
	free(log->next.fields);
	pthread_mutex_destroy(&log->mutex);
	free(log);
}

int segue_log_add_part(struct segue_log *log, const struct segue_log_part *part)
{
	int rc = 0;

	pthread_mutex_lock(&log->mutex);
	if (log->parts == log->room) {
		size_t room = log->room ? 2 * log->room : 16;
		void *parts = reallocarray(log->part, room, sizeof(*log->part));

		if (parts) {
			log->part = parts;
			log->room = room;
		} else {
			rc = fail_memory();
		}
	}
	if (!rc)
		log->part[log->parts++] = *part;
	pthread_mutex_unlock(&log->mutex);
	return rc;
}

/* Nothing more is written: what the disk has is not known. */
static int fail_for_good(struct segue_log *log)
{
	pthread_mutex_lock(&log->mutex);
	log->failed = true;
	pthread_mutex_unlock(&log->mutex);
	return SEGUE_ESTORE;
}

static int check(const struct segue_log *log)
{
	if (!log->failed)
		return 0;
	return segue_fail(SEGUE_ESTORE,
		"the log in %s could not be written before: nothing more is accepted until the "
		"server is started again",
		segue_log_dir_path(log->dir));
}

/* ---- Files ---- */

static int write_head(struct segue_log *log, struct segue_log_file *file)
{
	uint8_t *bytes = malloc(log->next.size);
	int rc = bytes ? 0 : fail_memory();

	if (!rc) {
		segue_seqfile_pack_head(&log->next, bytes);
		segue_digest_init(&log->fingerprint);
		segue_digest_bytes(&log->fingerprint, bytes, log->next.size);
		rc = segue_log_file_write(file, 0, bytes, log->next.size);
	}
	if (!rc && !SEGUE_MUTANT(head_not_synced))
		rc = segue_log_file_sync(file);
	free(bytes);
	return rc;
}

/* A file has its name when its head is on disk: so each that has one has a sound head. */
static int name_file(struct segue_log *log)
{
	char name[SEGUE_LOG_NAME];

	segue_log_name(log->producers.first, name);
	int rc = segue_log_dir_rename(log->dir, SEGUE_LOG_NEW, name);
	if (!rc && !SEGUE_MUTANT(name_not_synced) && segue_log_dir_sync(log->dir))
		rc = SEGUE_ESTORE;
	return rc;
}

static int fill_file(struct segue_log *log, struct segue_log_file *file)
{
	struct segue_log_part part = {.first = log->written.number};
	int rc = segue_seqfile_check_fields(&log->next);

	part.head = part.end = log->next.size;
	if (!rc)
		rc = write_head(log, file);
	if (!rc)
		rc = name_file(log);
	return rc ? rc : segue_log_add_part(log, &part);
}

int segue_log_make_file(struct segue_log *log)
{
	struct segue_seqlog none = {0};
	struct segue_log_file *file = NULL;

	log->producers.first = log->written.number;
	memcpy(log->producers.before, log->written.hash, sizeof(log->producers.before));
	memcpy(none.id, log->producers.id, sizeof(none.id));
	none.first = log->producers.first;
	memcpy(none.before, log->producers.before, sizeof(none.before));
	log->next.log = SEGUE_MUTANT(serials_not_kept) ? &none : &log->producers;
	int rc = segue_log_file_open(log->dir, SEGUE_LOG_NEW, true, &file);
	if (!rc)
		rc = fill_file(log, file);
	if (!rc) {
		log->file = file;
		return 0;
	}
	segue_log_file_close(file);
	return rc == SEGUE_ESTORE ? fail_for_good(log) : rc;
}

int segue_log_index(struct segue_log_part *part, const struct segue_seqfile_entry *entry)
{
	if (part->count == part->room) {
		size_t room = part->room ? 2 * part->room : 256;
		void *index = reallocarray(part->index, room, sizeof(*part->index));

		if (!index)
			return fail_memory();
		part->index = index;
		part->room = room;
	}
	part->index[part->count++] = (struct segue_seqfile_indexed){
		.offset = part->end, .steps = (uint32_t)entry->steps, .crc = entry->crc};
	part->end += entry->size;
	part->steps += entry->steps;
	if (entry->key_size > part->key_max)
		part->key_max = entry->key_size;
	return 0;
}

int segue_log_pack_end(const struct segue_log_part *part, const struct segue_digest *fingerprint,
	uint8_t **out, size_t *size)
{
	struct segue_seqfile_foot foot = {.entries = part->count,
		.index = part->end,
		.steps = part->steps,
		.key_max = part->key_max,
		.head_size = (uint32_t)part->head};
	size_t index = part->count * sizeof(*part->index);
	size_t all = (size_t)segue_seqfile_index_size(part->count);
	uint8_t *bytes = calloc(1, all + SEGUE_SEQFILE_FOOT);
	uint32_t crc = segue_seqfile_crc(part->index, index);

	if (!bytes)
		return fail_memory();
	segue_digest_finish(fingerprint, foot.fingerprint);
	if (index > 0)
		memcpy(bytes, part->index, index);
	memcpy(bytes + index, &crc, sizeof(crc));
	segue_seqfile_pack_foot(&foot, bytes + all);
	*out = bytes;
	*size = all + SEGUE_SEQFILE_FOOT;
	return 0;
}

/* What was written behind the last whole entry goes, after `rc`. */
static int take_back(struct segue_log *log, int rc)
{
	struct segue_outcome outcome;

	if (rc == SEGUE_ESTORE)
		return fail_for_good(log);
	segue_outcome_take(&outcome, rc);
	if (segue_log_file_cut(log->file, segue_log_last(log)->end))
		return fail_for_good(log);
	return segue_outcome_give(&outcome);
}

/* ---- Writing ---- */

int segue_log_sync(struct segue_log *log)
{
	int rc = check(log);

	if (rc || !log->file || log->synced.number == log->written.number)
		return rc;
	if (segue_log_file_sync(log->file))
		return fail_for_good(log);
	pthread_mutex_lock(&log->mutex);
	log->synced = log->written;
	pthread_mutex_unlock(&log->mutex);
	return 0;
}

/* The foot comes when what it speaks of is on disk: a file that has one is whole. */
int segue_log_finish(struct segue_log *log)
{
	uint8_t *bytes;
	size_t size;
	int rc = segue_log_sync(log);

	if (rc || !log->file || segue_log_last(log)->count == 0)
		return rc;
	rc = segue_log_pack_end(segue_log_last(log), &log->fingerprint, &bytes, &size);
	if (rc)
		return rc;
	rc = segue_log_file_write(log->file, segue_log_last(log)->end, bytes, size);
	free(bytes);
	if (rc)
		return take_back(log, rc);
	if (!SEGUE_MUTANT(foot_not_synced) && segue_log_file_sync(log->file))
		return fail_for_good(log);
	pthread_mutex_lock(&log->mutex);
	segue_log_last(log)->finished = true;
	pthread_mutex_unlock(&log->mutex);
	segue_log_file_close(log->file);
	log->file = NULL;
	return 0;
}

/* A file that the entry goes into. */
static int find_file(struct segue_log *log, const struct segue_seqfile_entry *entry)
{
	const struct segue_log_part *last = segue_log_last(log);
	int rc = 0;

	if (log->file && last->count > 0 && last->end + entry->size > log->file_bytes)
		rc = segue_log_finish(log);
	return rc || log->file ? rc : segue_log_make_file(log);
}

/* The entry takes its place: its header says which. */
static void take_place(struct segue_log *log, struct segue_log_entry *entry)
{
	uint8_t header[SEGUE_SEQFILE_ENTRY_MAX];

	entry->entry.stamp.number = log->written.number;
	memcpy(entry->entry.stamp.before, log->written.hash, sizeof(log->written.hash));
	segue_seqfile_pack_entry(&entry->entry, header);
	memcpy(entry->bytes, header, entry->entry.header_size);
}

static int check_serial(const struct segue_log *log, const struct segue_seqlog_stamp *stamp)
{
	const struct segue_seqlog_producer *producer =
		segue_seqlog_find(&log->producers, stamp->producer, stamp->producer_size);
	uint64_t last = producer ? producer->serial : 0;

	if (stamp->serial == last + 1)
		return segue_seqlog_fits(&log->producers, stamp);
	return segue_fail(SEGUE_EINVAL,
		"serial %" PRIu64 " does not follow %" PRIu64
		", the last of its producer in the log",
		stamp->serial, last);
}

/* It is written: the log has it. If there is no memory to know of it, it goes again. */
static int take_in(struct segue_log *log, const struct segue_log_entry *entry)
{
	uint64_t hash[2];
	int rc;

	pthread_mutex_lock(&log->mutex);
	uint64_t end = segue_log_last(log)->end;
	rc = segue_log_index(segue_log_last(log), &entry->entry);
	if (!rc) {
		rc = segue_seqlog_note(&log->producers, &entry->entry.stamp);
		if (rc) { /* steps and key_max may be too great: the last is taken back */
			segue_log_last(log)->count--;
			segue_log_last(log)->end = end;
			segue_log_last(log)->steps -= entry->entry.steps;
		}
	}
	if (!rc) {
		segue_seqlog_go_on(entry->bytes, entry->entry.header_size, hash);
		log->written.number++;
		memcpy(log->written.hash, hash, sizeof(hash));
	}
	pthread_mutex_unlock(&log->mutex);
	if (!rc)
		segue_digest_bytes(&log->fingerprint, entry->bytes, entry->entry.header_size);
	return rc;
}

int segue_log_append(struct segue_log *log, struct segue_log_entry *entry, uint64_t *number)
{
	int rc = check(log);

	if (!rc)
		rc = check_serial(log, &entry->entry.stamp);
	if (!rc)
		rc = find_file(log, &entry->entry);
	if (rc)
		return rc;
	take_place(log, entry);
	rc = segue_log_file_write(
		log->file, segue_log_last(log)->end, entry->bytes, (size_t)entry->entry.size);
	if (!rc)
		rc = take_in(log, entry);
	if (rc)
		return take_back(log, rc);
	*number = entry->entry.stamp.number;
	return 0;
}

/* ---- Giving up ---- */

int segue_log_give_up(struct segue_log *log, uint64_t number)
{
	char name[SEGUE_LOG_NAME];
	size_t gone = 0;
	int rc = 0;

	while (!rc && gone + 1 < log->parts && log->part[gone + 1].first <= number) {
		segue_log_name(log->part[gone].first, name);
		rc = segue_log_dir_remove(log->dir, name);
		gone += !rc;
	}
	pthread_mutex_lock(&log->mutex);
	for (size_t i = 0; i < gone; i++)
		free(log->part[i].index);
	log->parts -= gone;
	memmove(log->part, log->part + gone, log->parts * sizeof(*log->part));
	pthread_mutex_unlock(&log->mutex);
	return rc;
}
