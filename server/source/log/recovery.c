/*
 * A log is opened: its files are put in order and held against each other, and the last one is gone
 * through from its first entry to the first that is not sound.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/error.h"
#include "source/log/inside.h"

#define HEAD_FIRST 4096 /* bytes of a head that are read at once; few have more */

/* What is being opened. */
struct opening {
	struct segue_log *log;
	const struct segue_log_known *known;
	uint64_t *first; /* numbers in the files' names, in order */
	size_t count, room;
	/* The file at hand. */
	struct segue_log_file *file;
	char name[SEGUE_LOG_NAME];
	struct segue_seqfile_head head;
	uint64_t size;
};

/* ---- Which files there are ---- */

static int add_name(void *arg, const char *name)
{
	struct opening *opening = arg;
	uint64_t first;

	if (!segue_log_is_name(name, &first))
		return 0;
	if (opening->count == opening->room) {
		size_t room = opening->room ? 2 * opening->room : 64;
		void *list = reallocarray(opening->first, room, sizeof(*opening->first));

		if (!list)
			return segue_fail(SEGUE_ENOMEM, "no memory for a log");
		opening->first = list;
		opening->room = room;
	}
	opening->first[opening->count++] = first;
	return 0;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int list_files(struct opening *opening)
{
	int rc = segue_log_dir_list(opening->log->dir, add_name, opening);

	if (!rc && opening->count > 0)
		qsort(opening->first, opening->count, sizeof(*opening->first), by_number);
	return rc;
}

/* ---- Damage ---- */

static int fail_within(const struct opening *opening, int rc)
{
	return segue_fail_within(rc, "%s/%s", segue_log_dir_path(opening->log->dir), opening->name);
}

static int fail_damaged(const struct opening *opening, const char *what)
{
	segue_fail(SEGUE_ESTORE,
		"the log is damaged: %s; nothing was changed: restore a backup, or move it away",
		what);
	return fail_within(opening, SEGUE_ESTORE);
}

/* Of what must be sound. */
static int must_be(const struct opening *opening, int rc)
{
	if (rc != SEGUE_EDATA)
		return rc;
	segue_fail_within(SEGUE_ESTORE,
		"the log is damaged (nothing was changed: restore a backup, or move it away)");
	return fail_within(opening, SEGUE_ESTORE);
}

/* ---- A file's head ---- */

static int read_head(struct opening *opening)
{
	size_t wanted = opening->size < HEAD_FIRST ? (size_t)opening->size : HEAD_FIRST;
	uint8_t *bytes = NULL;
	int rc = 1;

	while (rc == 1) {
		void *more = realloc(bytes, wanted + 1);

		if (!more) {
			rc = segue_fail(SEGUE_ENOMEM, "no memory for a log");
			break;
		}
		bytes = more;
		rc = segue_log_file_read(opening->file, 0, bytes, wanted);
		if (!rc)
			rc = segue_seqfile_read_head(bytes, wanted, &opening->head);
		if (rc == 1 && (opening->head.size > opening->size || opening->head.size <= wanted))
			rc = segue_fail(SEGUE_EDATA, "its head is cut short");
		if (rc == 1)
			wanted = opening->head.size;
	}
	if (!rc) {
		segue_digest_init(&opening->log->fingerprint);
		segue_digest_bytes(&opening->log->fingerprint, bytes, opening->head.size);
	}
	free(bytes);
	return must_be(opening, rc == SEGUE_EINVAL ? SEGUE_EDATA : rc);
}

static bool same_fields(const struct segue_seqfile_head *a, const struct segue_seqfile_head *b)
{
	bool same = a->count == b->count;

	for (uint32_t i = 0; same && i < a->count; i++) {
		const struct segue_seqfile_field *x = &a->fields[i], *y = &b->fields[i];

		same = x->place == y->place && x->form == y->form && x->dtype == y->dtype &&
		       x->rank == y->rank &&
		       memcmp(x->dims, y->dims, x->rank * sizeof(x->dims[0])) == 0 &&
		       strcmp(x->name, y->name) == 0;
	}
	return same;
}

/* It is of this log, and follows what came before. */
static int check_head(struct opening *opening)
{
	const struct segue_seqlog *has = opening->head.log;
	struct segue_log *log = opening->log;

	if (!has)
		return fail_damaged(opening, "a sequence file that is of no log lies in its place");
	if (memcmp(has->id, log->producers.id, sizeof(has->id)) != 0)
		return fail_damaged(opening, "it is another one than the store has");
	if (!same_fields(&opening->head, &log->head))
		return fail_damaged(opening, "its features are others than the stream's");
	if (log->parts == 0) {
		log->written.number = has->first;
		memcpy(log->written.hash, has->before, sizeof(has->before));
	}
	if (has->first != log->written.number ||
		memcmp(has->before, log->written.hash, sizeof(has->before)) != 0)
		return fail_damaged(opening, "it does not follow the file before it");
	return 0;
}

static int open_file(struct opening *opening, uint64_t first, bool last)
{
	struct segue_log_part part = {.first = first};

	segue_log_name(first, opening->name);
	int rc = segue_log_file_open(opening->log->dir, opening->name, false, &opening->file);
	/* After a sync that failed the system's cache can have what the disk has not. */
	if (!rc && last && !SEGUE_MUTANT(cache_believed))
		rc = segue_log_file_refresh(opening->file);
	if (!rc)
		rc = segue_log_file_size(opening->file, &opening->size);
	if (!rc)
		rc = read_head(opening);
	if (!rc)
		rc = check_head(opening);
	if (!rc && opening->head.log->first != first)
		rc = fail_damaged(opening, "its name is that of another file");
	part.head = part.end = opening->head.size;
	return rc ? rc : segue_log_add_part(opening->log, &part);
}

static void close_file(struct opening *opening)
{
	segue_log_file_close(opening->file);
	segue_seqfile_free_head(&opening->head);
	opening->file = NULL;
}

/* ---- Finished files ---- */

/* What a foot and its index say, if both are sound: 0; 1: there are none. */
static int read_end(struct opening *opening, struct segue_log_part *part)
{
	uint8_t bytes[SEGUE_SEQFILE_FOOT];
	struct segue_seqfile_foot foot;
	uint32_t crc;

	if (opening->size < opening->head.size + sizeof(bytes))
		return 1;
	int rc = segue_log_file_read(
		opening->file, opening->size - sizeof(bytes), bytes, sizeof(bytes));
	if (rc)
		return rc;
	if (segue_seqfile_read_foot(bytes, opening->size, &foot) ||
		foot.head_size != opening->head.size)
		return 1;
	size_t size = (size_t)foot.entries * sizeof(*part->index);
	part->index = malloc(size + 1);
	if (!part->index)
		return segue_fail(SEGUE_ENOMEM, "no memory for a log");
	rc = segue_log_file_read(opening->file, foot.index, part->index, size);
	if (!rc)
		rc = segue_log_file_read(opening->file, foot.index + size, &crc, sizeof(crc));
	if (!rc && crc != segue_seqfile_crc(part->index, size))
		rc = 1;
	if (rc)
		return rc;
	part->count = part->room = (size_t)foot.entries;
	part->end = foot.index;
	part->steps = foot.steps;
	part->key_max = foot.key_max;
	part->finished = true;
	return 0;
}

/* Goes on behind one entry, whose header is in `bytes`. */
static void pass(struct segue_log *log, const void *bytes, const struct segue_seqfile_entry *entry)
{
	segue_seqlog_go_on(bytes, entry->header_size, log->written.hash);
	log->written.number = entry->stamp.number + 1;
}

/* Not the last: its last entry says what the next file follows. */
static int pass_over(struct opening *opening)
{
	struct segue_log_part *part = segue_log_last(opening->log);
	uint8_t bytes[SEGUE_SEQFILE_ENTRY_MAX];
	struct segue_seqfile_entry entry;
	int rc = read_end(opening, part);

	if (rc == 1 || (!rc && part->count == 0))
		return fail_damaged(opening, "it is not the last file, and was not finished");
	if (rc)
		return rc;
	const struct segue_seqfile_indexed *last = &part->index[part->count - 1];
	if (last->offset < part->head || last->offset >= part->end)
		return fail_damaged(opening, "its index is not that of its entries");
	rc = segue_log_read_header(
		&opening->head, opening->file, last->offset, part->end, bytes, &entry);
	if (!rc && entry.stamp.number != part->first + part->count - 1)
		rc = segue_fail(SEGUE_EDATA, "its last sequence has another number");
	if (!rc)
		pass(opening->log, bytes, &entry);
	return must_be(opening, rc);
}

/* ---- The last file ---- */

/* Whether it is the one that comes next in the log. */
static bool is_next(const struct segue_log *log, const struct segue_seqlog_stamp *stamp)
{
	const struct segue_seqlog_producer *producer =
		segue_seqlog_find(&log->producers, stamp->producer, stamp->producer_size);

	return stamp->number == log->written.number &&
	       memcmp(stamp->before, log->written.hash, sizeof(stamp->before)) == 0 &&
	       stamp->serial == (producer ? producer->serial : 0) + 1;
}

/*
 * Reads the entry at the end of the part, of which the header alone is checked if it is known to be
 * on disk; else all of it, which is then in *whole. SEGUE_EDATA: no sound one is there.
 */
static int read_next(struct opening *opening, uint64_t end, bool on_disk, uint8_t *bytes,
	struct segue_seqfile_entry *entry, struct segue_log_entry **whole)
{
	uint64_t at = segue_log_last(opening->log)->end;
	int rc;

	*whole = NULL;
	if (on_disk) {
		rc = segue_log_read_header(&opening->head, opening->file, at, end, bytes, entry);
	} else {
		rc = segue_log_read_entry(&opening->head, opening->file, at, end, whole);
		if (!rc) {
			*entry = (*whole)->entry;
			memcpy(bytes, (*whole)->bytes, entry->header_size);
		}
	}
	if (!rc && !is_next(opening->log, &entry->stamp))
		rc = segue_fail(SEGUE_EDATA, "a sequence does not follow the one before it");
	return rc;
}

/* It is the part's next. */
static int take_next(
	struct opening *opening, const uint8_t *bytes, const struct segue_seqfile_entry *entry)
{
	struct segue_log *log = opening->log;
	int rc = segue_seqlog_note(&log->producers, &entry->stamp);

	if (!rc)
		rc = segue_log_index(segue_log_last(log), entry);
	if (rc)
		return rc;
	segue_digest_bytes(&log->fingerprint, bytes, entry->header_size);
	pass(log, bytes, entry);
	return 0;
}

/* From entry to entry, up to `end` of the file, or to the first that is not sound. */
static int walk(struct opening *opening, uint64_t end, bool all_on_disk)
{
	struct segue_log *log = opening->log;
	uint8_t bytes[SEGUE_SEQFILE_ENTRY_MAX];
	struct segue_seqfile_entry entry;
	struct segue_log_entry *whole;
	int rc = 0;

	while (!rc && segue_log_last(log)->end < end) {
		bool on_disk = all_on_disk || log->written.number < opening->known->synced.number;

		rc = read_next(opening, end, on_disk, bytes, &entry, &whole);
		if (rc == SEGUE_EDATA && on_disk)
			return must_be(opening, rc);
		if (!rc)
			rc = take_next(opening, bytes, &entry);
		segue_log_entry_free(whole);
	}
	return rc == SEGUE_EDATA ? 0 : rc;
}

static int read_last(struct opening *opening)
{
	struct segue_log *log = opening->log;
	struct segue_log_part *part = segue_log_last(log), end = *part;

	/* What they had inserted before this file. */
	segue_seqlog_finish(&log->producers);
	log->producers = *opening->head.log;
	*opening->head.log = (struct segue_seqlog){0};
	int rc = read_end(opening, &end);
	if (rc < 0) {
		free(end.index);
		return rc;
	}
	part->finished = rc == 0;
	free(end.index);
	rc = walk(opening, part->finished ? end.end : opening->size, part->finished);
	if (!rc && part->finished && part->count != end.count)
		rc = fail_damaged(opening, "its index is not that of its entries");
	return rc;
}

/* ---- What the store knows ---- */

static int check_known(struct opening *opening)
{
	const struct segue_log_place *synced = &opening->known->synced;
	struct segue_log *log = opening->log;
	uint64_t hash[2];

	if (log->written.number < synced->number)
		return segue_fail(SEGUE_ESTORE,
			"the log in %s ends before sequence %" PRIu64
			", and the store refers to %" PRIu64
			" of them: it is damaged, or older than the store; nothing was changed: "
			"restore "
			"a backup of both",
			segue_log_dir_path(log->dir), log->written.number, synced->number);
	int rc = segue_log_hash(log, synced->number, hash);
	if (rc || memcmp(hash, synced->hash, sizeof(hash)) == 0)
		return must_be(opening, rc);
	return segue_fail(SEGUE_ESTORE,
		"the log in %s is not the one that the store refers to: before sequence %" PRIu64
		" it has others; restore a backup of both",
		segue_log_dir_path(log->dir), synced->number);
}

/* All is sound: from now on all that is there is on disk, and nothing else is there. */
static int settle(struct opening *opening)
{
	struct segue_log *log = opening->log;
	const struct segue_log_part *part = segue_log_last(log);
	int rc = 0;

	if (!part->finished && opening->size > part->end)
		rc = segue_log_file_cut(opening->file, part->end);
	if (!rc)
		rc = segue_log_file_sync(opening->file);
	if (!rc)
		rc = segue_log_dir_remove(log->dir, SEGUE_LOG_NEW);
	if (!rc)
		rc = segue_log_dir_sync(log->dir);
	if (rc)
		return rc;
	log->synced = log->written;
	if (part->finished)
		return 0;
	log->file = opening->file;
	opening->file = NULL;
	return 0;
}

/* ---- Opening ---- */

/* Files below what was given up may be there or not, in any order. */
static size_t first_needed(const struct opening *opening)
{
	size_t first = 0;

	while (first + 1 < opening->count && opening->first[first + 1] <= opening->known->first)
		first++;
	return first;
}

static int remove_given_up(const struct opening *opening, size_t needed)
{
	char name[SEGUE_LOG_NAME];
	int rc = 0;

	for (size_t i = 0; !rc && i < needed; i++) {
		segue_log_name(opening->first[i], name);
		rc = segue_log_dir_remove(opening->log->dir, name);
	}
	return rc;
}

static int open_files(struct opening *opening)
{
	int rc = list_files(opening);
	size_t needed = first_needed(opening);

	if (!rc && (opening->count == 0 || opening->first[needed] > opening->known->first))
		return segue_fail(SEGUE_ESTORE,
			"the log in %s has no sequence %" PRIu64
			", which the store refers to: files are "
			"missing; restore a backup of both",
			segue_log_dir_path(opening->log->dir), opening->known->first);
	for (size_t i = needed; !rc && i < opening->count; i++) {
		close_file(opening);
		rc = open_file(opening, opening->first[i], i + 1 == opening->count);
		if (!rc)
			rc = i + 1 < opening->count ? pass_over(opening) : read_last(opening);
	}
	if (!rc)
		rc = check_known(opening);
	if (!rc)
		rc = settle(opening);
	return rc ? rc : remove_given_up(opening, needed);
}

int segue_log_open(const struct segue_log_means *means, const struct segue_log_known *known,
	struct segue_log **out)
{
	struct opening opening = {.known = known};
	int rc = segue_log_new(means, known->id, &opening.log);

	if (rc)
		return rc;
	rc = open_files(&opening);
	close_file(&opening);
	free(opening.first);
	if (rc)
		segue_log_close(opening.log);
	else
		*out = opening.log;
	return rc;
}

/* ---- Making ---- */

/* What lies in the way: a making that was cut short leaves one file with no more than a head. */
static int clear_away(struct opening *opening)
{
	int rc = list_files(opening);

	for (size_t i = 0; !rc && i < opening->count; i++) {
		segue_log_name(opening->first[i], opening->name);
		rc = segue_log_file_open(opening->log->dir, opening->name, false, &opening->file);
		if (!rc)
			rc = segue_log_file_size(opening->file, &opening->size);
		if (!rc)
			rc = read_head(opening);
		if (!rc && (opening->first[i] > 0 || opening->size > opening->head.size))
			rc = segue_fail(SEGUE_ESTORE,
				"%s/%s: a log lies there that the store does not know: move it "
				"away",
				segue_log_dir_path(opening->log->dir), opening->name);
		close_file(opening);
		if (!rc)
			rc = segue_log_dir_remove(opening->log->dir, opening->name);
	}
	return rc;
}

int segue_log_create(const struct segue_log_means *means, const uint8_t id[SEGUE_SEQLOG_ID],
	struct segue_log **out)
{
	struct opening opening = {0};
	int rc = segue_log_new(means, id, &opening.log);

	if (rc)
		return rc;
	rc = clear_away(&opening);
	free(opening.first);
	segue_seqlog_begin(id, opening.log->written.hash);
	opening.log->synced = opening.log->written;
	if (!rc)
		rc = segue_log_make_file(opening.log);
	if (rc)
		segue_log_close(opening.log);
	else
		*out = opening.log;
	return rc;
}
