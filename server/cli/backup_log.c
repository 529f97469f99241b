/* Logs, copied behind their store. */
#include "cli/backup_log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/insert.h"
#include "core/progress.h"
#include "core/wire.h"
#include "engine/live_dir.h"
#include "os/file.h"
#include "report/child.h"
#include "source/log/log.h"
#include "store/logs.h"

enum {
	PIECE = 1 << 20, /* bytes that are read at once */
	FILE_PATH = PATH_MAX + SEGUE_LOG_NAME,
};

/* ---- Which there are ---- */

void segue_backup_logs_finish(struct segue_backup_logs *logs)
{
	for (size_t i = 0; i < logs->count; i++)
		segue_spec_destroy(logs->log[i].spec);
	free(logs->log);
	for (size_t i = 0; i < logs->held_count; i++)
		close(logs->held[i]);
	free(logs->held);
	*logs = (struct segue_backup_logs){0};
}

/* What is not there any more is no log of the store's either. */
static int hold(struct segue_backup_logs *logs, const char *path)
{
	void *grown = reallocarray(logs->held, logs->held_count + 1, sizeof(*logs->held));
	int fd;

	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for a backup");
	logs->held = grown;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR || errno == ELOOP
			       ? 0
			       : segue_fail_errno(SEGUE_ESYSTEM, "cannot open %s", path);
	logs->held[logs->held_count++] = fd;
	if (segue_file_lock(fd, LOCK_SH) < 0) /* a server has it for as long as it removes files */
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot lock %s", path);
	return 0;
}

int segue_backup_logs_hold(struct segue_backup_logs *logs, const char *from)
{
	char path[FILE_PATH];
	int rc = 0;

	snprintf(path, sizeof(path), "%s/" SEGUE_LIVE_DIR, from);
	DIR *names = opendir(path);
	if (!names)
		return errno == ENOENT || errno == ENOTDIR
			       ? 0
			       : segue_fail_errno(SEGUE_ESYSTEM, "cannot open %s", path);
	for (struct dirent *entry; !rc && (entry = readdir(names));) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/" SEGUE_LIVE_DIR "/%s", from, entry->d_name);
		rc = hold(logs, path);
	}
	closedir(names);
	return rc;
}

/* What the store says of a log comes in pieces, and in the order of tables. */
static int find_log(
	struct segue_backup_logs *logs, uint32_t stream, struct segue_backup_log **found)
{
	for (size_t i = 0; i < logs->count; i++) {
		*found = &logs->log[i];
		if ((*found)->stream == stream)
			return 0;
	}
	void *grown = reallocarray(logs->log, logs->count + 1, sizeof(*logs->log));
	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for a backup");
	logs->log = grown;
	*found = &logs->log[logs->count++];
	**found = (struct segue_backup_log){.stream = stream};
	return 0;
}

static int note_stream(struct segue_backup_logs *logs, const void *value, size_t size)
{
	struct segue_stream_record record;
	struct segue_backup_log *log;
	int rc = segue_stream_record_unpack(value, size, &record);

	if (rc)
		return segue_fail_within(
			segue_as_damage(rc, SEGUE_ESTORE), "what the store has of a stream");
	bool has_log = segue_source_find_log(&record.spec->source);
	if (has_log)
		rc = find_log(logs, record.id, &log);
	if (rc || !has_log || log->spec)
		segue_spec_destroy(record.spec);
	else
		log->spec = record.spec;
	return rc;
}

static int note_known(
	struct segue_backup_logs *logs, uint32_t stream, const void *value, size_t size)
{
	struct segue_backup_log *log;
	int rc = find_log(logs, stream, &log);

	if (rc)
		return rc;
	rc = segue_log_known_unpack(value, size, &log->known);
	log->is_known = rc == 0;
	return rc ? segue_fail_within(segue_as_damage(rc, SEGUE_ESTORE),
			    "what the store has of the log of stream %" PRIu32, stream)
		  : 0;
}

int segue_backup_logs_note(struct segue_backup_logs *logs, enum segue_table table, const void *key,
	size_t key_size, const void *value, size_t value_size)
{
	uint32_t stream;

	if (table == SEGUE_TABLE_STREAMS)
		return note_stream(logs, value, value_size);
	if (segue_logs_is_known(table, key, key_size, &stream))
		return note_known(logs, stream, value, value_size);
	return 0;
}

/* One whose making was cut short is made anew where the copy is opened. */
static bool is_wanted(const struct segue_backup_log *log)
{
	return log->spec && log->is_known;
}

/* ---- Files ---- */

static int fail_missing(const struct segue_backup_log *log, const char *path)
{
	return segue_fail(SEGUE_ESTORE,
		"the log of stream '%s' is missing: %s is not there, and the store refers to "
		"%" PRIu64 " sequences in it",
		log->spec->name, path, log->known.synced.number);
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

struct files {
	uint64_t *first; /* numbers in their names, rising */
	size_t count;
};

static int add_file(struct files *files, uint64_t first)
{
	void *grown = reallocarray(files->first, files->count + 1, sizeof(*files->first));

	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for a backup");
	files->first = grown;
	files->first[files->count++] = first;
	return 0;
}

/*
 * Those that begin with what the store knows. All of these were there before it was read, and are
 * found for sure; so none is passed over that comes before one which is taken. files->first is the
 * caller's, also when this fails.
 */
static int list_files(const char *path, uint64_t number, struct files *files)
{
	DIR *stream = opendir(path);
	uint64_t first;
	int rc = 0;

	*files = (struct files){0};
	if (!stream)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot open %s", path);
	for (struct dirent *entry; !rc && (entry = readdir(stream));)
		if (segue_log_is_name(entry->d_name, &first) && first <= number)
			rc = add_file(files, first);
	closedir(stream);
	if (!rc && files->count > 0)
		qsort(files->first, files->count, sizeof(*files->first), by_number);
	return rc;
}

/* Of those the first that has a sequence which was not given up. */
static size_t first_needed(const struct files *files, uint64_t given_up)
{
	size_t first = 0;

	while (first + 1 < files->count && files->first[first + 1] <= given_up)
		first++;
	return first;
}

static int write_all(int fd, const char *path, const uint8_t *bytes, size_t size)
{
	if (segue_file_write(fd, bytes, size) < 0)
		return segue_fail_errno(
			errno == ENOSPC || errno == EDQUOT ? SEGUE_ENOSPACE : SEGUE_ESYSTEM,
			"cannot write %s", path);
	return 0;
}

/* Piece by piece, as far as it has grown by now. */
static int read_file(
	const char *path, int (*take)(void *arg, const uint8_t *bytes, size_t size), void *arg)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
	uint8_t *bytes = malloc(PIECE);
	uint64_t at = 0;
	ssize_t done = 1;

	if (fd < 0)
		rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot open %s", path);
	else if (!bytes)
		rc = segue_fail(SEGUE_ENOMEM, "no memory for a backup");
	while (!rc && done != 0) {
		done = read(fd, bytes, PIECE);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			rc = segue_fail_errno(
				SEGUE_ESYSTEM, "cannot read %s at byte %" PRIu64, path, at);
		else if (done > 0)
			rc = take(arg, bytes, (size_t)done);
		at += done > 0 ? (uint64_t)done : 0;
	}
	free(bytes);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* DIR/log/<id>, and a file in it. */
static void put_path(
	const char *dir, const struct segue_backup_log *log, uint64_t first, char path[FILE_PATH])
{
	segue_live_path(dir, log->stream, path);
	strcat(path, "/");
	segue_log_name(first, path + strlen(path));
}

static int make_directories(const char *dir, uint32_t stream)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/" SEGUE_LIVE_DIR, dir);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make %s", path);
	segue_live_path(dir, stream, path);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make %s", path);
	return 0;
}

/* ---- Copied ---- */

struct out {
	int fd;
	const char *path;
	struct segue_progress *progress;
};

static int write_piece(void *arg, const uint8_t *bytes, size_t size)
{
	const struct out *out = arg;
	int rc = write_all(out->fd, out->path, bytes, size);

	return rc ? rc : segue_progress_add(out->progress, size);
}

static int copy_file(const struct segue_backup_log *log, uint64_t first, const char *from,
	const char *to, struct segue_progress *progress)
{
	char source[FILE_PATH], target[FILE_PATH];

	put_path(from, log, first, source);
	put_path(to, log, first, target);
	struct out out = {
		open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), target, progress};
	if (out.fd < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make %s", target);
	int rc = read_file(source, write_piece, &out);
	close(out.fd);
	return rc;
}

static int copy_log(const struct segue_backup_log *log, const char *from, const char *to)
{
	struct segue_progress progress = {.fn = segue_child_progress};
	char path[FILE_PATH];
	struct files files;
	struct stat info;

	segue_live_path(from, log->stream, path);
	if (access(path, F_OK) < 0)
		return fail_missing(log, path);
	int rc = list_files(path, log->known.synced.number, &files);
	if (!rc)
		rc = make_directories(to, log->stream);
	size_t needed = first_needed(&files, log->known.first);
	for (size_t i = needed; i < files.count; i++) {
		put_path(from, log, files.first[i], path);
		progress.total += stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
	}
	for (size_t i = needed; !rc && i < files.count; i++)
		rc = copy_file(log, files.first[i], from, to, &progress);
	free(files.first);
	return rc;
}

int segue_backup_logs_copy(const struct segue_backup_logs *logs, const char *from, const char *to)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < logs->count; i++)
		if (is_wanted(&logs->log[i]))
			rc = copy_log(&logs->log[i], from, to);
	return rc;
}

/* ---- Checked ---- */

static int read_sequences(struct segue_backup_logs *logs, struct segue_log *log)
{
	struct segue_progress progress = {.fn = segue_child_progress};
	struct segue_log_entry *entry;
	struct segue_log_stand stand;
	int rc = 0;

	segue_log_look(log, &stand);
	progress.total = stand.bytes;
	for (uint64_t n = stand.first; !rc && n < stand.written.number; n++) {
		rc = segue_log_read(log, n, &entry);
		if (rc == SEGUE_EDATA)
			rc = segue_fail_within(SEGUE_ESTORE, "sequence %" PRIu64, n);
		if (rc)
			break;
		rc = segue_progress_add(&progress, entry->entry.size);
		segue_log_entry_free(entry);
	}
	logs->copied++;
	logs->sequences += stand.written.number - stand.first;
	logs->bytes += stand.bytes;
	return rc;
}

/* Opening it has synced its last file, and the names of all. */
static int sync_files(const struct segue_backup_log *row, const char *to)
{
	char path[FILE_PATH];
	struct files files;

	segue_live_path(to, row->stream, path);
	int rc = list_files(path, UINT64_MAX, &files);
	for (size_t i = 0; !rc && i < files.count; i++) {
		put_path(to, row, files.first[i], path);
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || fsync(fd) < 0)
			rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot sync %s", path);
		if (fd >= 0)
			close(fd);
	}
	free(files.first);
	return rc;
}

static int check_log(
	struct segue_backup_logs *logs, const struct segue_backup_log *row, const char *to)
{
	struct segue_seqfile_head head;
	struct segue_log *log = NULL;
	char path[PATH_MAX];

	segue_live_path(to, row->stream, path);
	if (access(path, F_OK) < 0) /* opening it would make it */
		return fail_missing(row, path);
	int rc = segue_insert_fields(row->spec, &head);
	if (rc)
		return rc;
	const struct segue_log_means means = {
		.dir = path, .fields = head.fields, .count = head.count};
	rc = segue_log_open(&means, &row->known, &log);
	segue_seqfile_free_head(&head);
	if (!rc)
		rc = read_sequences(logs, log);
	if (!rc)
		rc = sync_files(row, to);
	segue_log_close(log);
	return rc ? segue_fail_within(
			    rc, "the log of stream '%s', as it was copied", row->spec->name)
		  : 0;
}

int segue_backup_logs_check(struct segue_backup_logs *logs, const char *to)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < logs->count; i++)
		if (is_wanted(&logs->log[i]))
			rc = check_log(logs, &logs->log[i], to);
	return rc;
}

/* ---- In one file with the store ---- */

struct packing {
	struct segue_dump *dump;
	char name[SEGUE_STORE_KEY_MAX];
};

/* "0000002a/00000000000000000042.segue" */
static void put_name(uint32_t stream, uint64_t first, char name[SEGUE_STORE_KEY_MAX])
{
	snprintf(name, SEGUE_STORE_KEY_MAX, "%08" PRIx32 "/", stream);
	segue_log_name(first, name + strlen(name));
}

static int put_piece(void *arg, const uint8_t *bytes, size_t size)
{
	const struct packing *packing = arg;

	return segue_dump_put(
		packing->dump, SEGUE_DUMP_FILE, packing->name, strlen(packing->name), bytes, size);
}

static int pack_log(const struct segue_backup_log *log, const char *at, struct packing *packing)
{
	char path[FILE_PATH];
	struct files files;

	segue_live_path(at, log->stream, path);
	int rc = list_files(path, UINT64_MAX, &files);
	for (size_t i = 0; !rc && i < files.count; i++) {
		put_path(at, log, files.first[i], path);
		put_name(log->stream, files.first[i], packing->name);
		rc = read_file(path, put_piece, packing);
	}
	free(files.first);
	return rc;
}

int segue_backup_logs_pack(
	const struct segue_backup_logs *logs, const char *at, struct segue_dump *dump)
{
	struct packing packing = {.dump = dump};
	int rc = 0;

	for (size_t i = 0; !rc && i < logs->count; i++)
		if (is_wanted(&logs->log[i]))
			rc = pack_log(&logs->log[i], at, &packing);
	return rc;
}

/* There is no other way to write it. */
static bool read_name(const void *name, size_t size, uint32_t *stream, uint64_t *first)
{
	char text[SEGUE_STORE_KEY_MAX + 1], again[SEGUE_STORE_KEY_MAX];
	char *slash;

	snprintf(text, sizeof(text), "%.*s", (int)size, (const char *)name);
	slash = strchr(text, '/');
	if (!slash || !segue_log_is_name(slash + 1, first))
		return false;
	*stream = (uint32_t)strtoul(text, NULL, 16);
	put_name(*stream, *first, again);
	return strlen(again) == size && memcmp(again, name, size) == 0;
}

int segue_backup_logs_unpack(
	const char *to, const void *name, size_t name_size, const void *bytes, size_t size)
{
	struct segue_backup_log log = {0};
	char path[FILE_PATH];
	uint64_t first;

	if (!read_name(name, name_size, &log.stream, &first))
		return segue_fail(SEGUE_ESTORE, "a backup has no file that is called '%.*s'",
			(int)name_size, (const char *)name);
	int rc = make_directories(to, log.stream);
	if (rc)
		return rc;
	put_path(to, &log, first, path);
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make %s", path);
	rc = write_all(fd, path, bytes, size);
	close(fd);
	return rc;
}
