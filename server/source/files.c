/* The files of a data set: patterns, names, inflated copies, open file descriptors. */
#include "source/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/error.h"
#include "source/inflate.h"
#include "source/tfrecord/framing.h"

/* Bytes at either end of a compressed file that tell it from others of its size. */
#define END_SIZE 64

/* ---- Lists of paths -------------------------------------------------------------------------- */

struct paths {
	char **path;
	size_t count, capacity;
};

static int paths_add(struct paths *paths, const char *path)
{
	/* Here, not when all are known: a short list of patterns may stand for any number. */
	if (paths->count == SEGUE_FILES_MAX)
		return segue_fail(SEGUE_ELIMIT, "more than %d files are listed", SEGUE_FILES_MAX);
	if (paths->count == paths->capacity) {
		size_t capacity = paths->capacity ? 2 * paths->capacity : 64;
		char **more = realloc(paths->path, capacity * sizeof(paths->path[0]));

		if (!more)
			return segue_fail(SEGUE_ENOMEM, "no memory for the list of files");
		paths->path = more;
		paths->capacity = capacity;
	}
	paths->path[paths->count] = strdup(path);
	if (!paths->path[paths->count])
		return segue_fail(SEGUE_ENOMEM, "no memory for the list of files");
	paths->count++;
	return SEGUE_OK;
}

static void paths_free(struct paths *paths)
{
	for (size_t i = 0; i < paths->count; i++)
		free(paths->path[i]);
	free(paths->path);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* glob()'s own way to a directory has no argument. */
static _Thread_local const struct segue_opener *glob_opener;

static void *glob_list(const char *path)
{
	return segue_opener_list(glob_opener, path);
}

static struct dirent *glob_next(void *list)
{
	return readdir(list);
}

static void glob_close(void *list)
{
	closedir(list);
}

static int glob_look(const char *restrict path, struct stat *restrict info)
{
	return segue_opener_look(glob_opener, path, info);
}

/* Of the directory that ended the last glob() of this thread. */
static _Thread_local struct {
	char path[PATH_MAX];
	int error;
} glob_fault;

static int glob_failed(const char *path, int error)
{
	snprintf(glob_fault.path, sizeof(glob_fault.path), "%s", path);
	glob_fault.error = error;
	return 1;
}

static int run_glob(const struct segue_opener *opener, const char *pattern, glob_t *found)
{
	if (!opener || !opener->roots)
		return glob(pattern, GLOB_NOSORT | GLOB_ERR, glob_failed, found);
	*found = (glob_t){
		.gl_opendir = glob_list,
		.gl_readdir = glob_next,
		.gl_closedir = glob_close,
		.gl_lstat = glob_look,
		.gl_stat = glob_look,
	};
	glob_opener = opener;
	return glob(pattern, GLOB_NOSORT | GLOB_ERR | GLOB_ALTDIRFUNC, glob_failed, found);
}

static int fail_glob(const char *pattern)
{
	errno = glob_fault.error;
	return segue_fail_errno(
		SEGUE_ESOURCE, "%s: cannot read the directory %s", pattern, glob_fault.path);
}

/* glob() calls itself for each component behind which there is a wildcard. */
static int check_depth(const char *pattern)
{
	size_t deep = 0;

	for (const char *at = strpbrk(pattern, "*?["); at; at = strchr(at + 1, '/'))
		if (++deep > SEGUE_FILES_DEEP_MAX)
			return segue_fail(SEGUE_ELIMIT,
				"%.200s...: a pattern with more than %d components from the first "
				"wildcard on",
				pattern, SEGUE_FILES_DEEP_MAX);
	return SEGUE_OK;
}

static int add_matches(const struct segue_opener *opener, struct paths *paths, const char *pattern)
{
	glob_t found = {0};
	int rc = check_depth(pattern), code;

	if (rc < 0)
		return rc;
	code = run_glob(opener, pattern, &found);
	if (code == GLOB_NOMATCH)
		rc = segue_fail(SEGUE_ESOURCE, "%s: no such file, and nothing matches it", pattern);
	else if (code == GLOB_ABORTED)
		rc = fail_glob(pattern);
	else if (code != 0)
		rc = segue_fail(SEGUE_ENOMEM, "no memory for what '%s' matches", pattern);
	if (rc == SEGUE_OK)
		qsort(found.gl_pathv, found.gl_pathc, sizeof(char *), by_name);
	for (size_t i = 0; rc == SEGUE_OK && i < found.gl_pathc; i++)
		rc = paths_add(paths, found.gl_pathv[i]);
	globfree(&found);
	return rc;
}

static int expand(
	const struct segue_opener *opener, const struct segue_spec *spec, struct paths *paths)
{
	const struct segue_paths *asked = &spec->source.tfrecord.paths;

	for (size_t i = 0; i < asked->count; i++) {
		int rc = segue_check_given_up(opener ? opener->given_up : NULL);

		if (rc == SEGUE_OK)
			rc = segue_opener_exists(opener, asked->path[i]);
		if (rc > 0)
			rc = paths_add(paths, asked->path[i]);
		else if (rc == 0)
			rc = add_matches(opener, paths, asked->path[i]);
		if (rc < 0)
			return rc;
	}
	return SEGUE_OK;
}

/* ---- The table ------------------------------------------------------------------------------- */

/* Sorts the paths, drops doubles, and says where each listed one went. */
static int make_table(struct segue_files *files, const struct paths *paths)
{
	char **sorted = malloc((paths->count + 1) * sizeof(sorted[0]));

	files->file = calloc(paths->count + 1, sizeof(files->file[0]));
	files->listing = calloc(paths->count + 1, sizeof(files->listing[0]));
	if (!sorted || !files->file || !files->listing) {
		free(sorted);
		return segue_fail(SEGUE_ENOMEM, "no memory for the table of files");
	}
	memcpy(sorted, paths->path, paths->count * sizeof(sorted[0]));
	qsort(sorted, paths->count, sizeof(sorted[0]), by_name);
	for (size_t i = 0; i < paths->count; i++) {
		if (i && strcmp(sorted[i], sorted[i - 1]) == 0)
			continue;
		sorted[files->count] = sorted[i];
		files->file[files->count].slot = -1;
		files->file[files->count++].path = strdup(sorted[i]);
	}
	for (size_t i = 0; i < paths->count; i++) {
		char **at =
			bsearch(&paths->path[i], sorted, files->count, sizeof(sorted[0]), by_name);

		files->listing[i] = (uint32_t)(at - sorted);
	}
	files->listing_count = paths->count;
	free(sorted);
	for (size_t i = 0; i < files->count; i++)
		if (!files->file[i].path)
			return segue_fail(SEGUE_ENOMEM, "no memory for the table of files");
	return SEGUE_OK;
}

/* Names are what follows the deepest directory that all files lie below. */
static void make_names(struct segue_files *files)
{
	const char *first = files->file[0].path;
	/* Sorted: what the first and the last have in common, all have. */
	const char *last = files->file[files->count - 1].path;
	size_t common = 0;

	for (size_t i = 0; first[i] && (files->count == 1 || first[i] == last[i]); i++)
		if (first[i] == '/')
			common = i + 1;
	for (size_t i = 0; i < files->count; i++)
		files->file[i].name = files->file[i].path + common;
}

/* Reads up to `size` bytes at `position`: how many. */
static ssize_t read_at(int fd, uint64_t position, void *bytes, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n =
			pread(fd, (uint8_t *)bytes + done, size - done, (off_t)(position + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* The copy's name says which bytes it is of. */
static int name_copy(struct segue_file *file, const char *cache_dir, const uint8_t *first,
	const uint8_t *last, size_t size)
{
	XXH3_state_t *state = XXH3_createState();
	XXH128_hash_t hash;
	char *path = malloc(strlen(cache_dir) + 64);

	if (!state || !path) {
		XXH3_freeState(state);
		free(path);
		return segue_fail(SEGUE_ENOMEM, "no memory for a file's name");
	}
	XXH3_128bits_reset(state);
	XXH3_128bits_update(state, file->path, strlen(file->path) + 1);
	XXH3_128bits_update(state, &file->packed_size, sizeof(file->packed_size));
	XXH3_128bits_update(state, first, size);
	XXH3_128bits_update(state, last, size);
	hash = XXH3_128bits_digest(state);
	XXH3_freeState(state);
	sprintf(path, "%s/%016jx%016jx.tfrecord", cache_dir, (uintmax_t)hash.high64,
		(uintmax_t)hash.low64);
	file->data_path = path;
	return SEGUE_OK;
}

/* By its first bytes; a checksum that is right wins over what looks like gzip. */
static bool looks_packed(enum segue_compression compression, const uint8_t *first, size_t size)
{
	uint64_t length;

	if (compression == SEGUE_COMPRESSION_NONE)
		return false;
	if (size >= SEGUE_TFRECORD_HEADER && segue_tfrecord_length(first, &length))
		return false;
	return segue_inflate_is_gzip(first, size);
}

static int describe(struct segue_file *file, int fd, uint64_t size,
	enum segue_compression compression, const char *cache_dir)
{
	uint8_t first[END_SIZE] = {0}, last[END_SIZE] = {0};
	size_t end = size < END_SIZE ? (size_t)size : END_SIZE;

	if (read_at(fd, 0, first, end) < 0 || read_at(fd, size - end, last, end) < 0)
		return segue_fail_errno(SEGUE_ESOURCE, "%s: cannot be read", file->path);
	file->packed = looks_packed(compression, first, end);
	if (!file->packed && compression == SEGUE_COMPRESSION_GZIP)
		return segue_fail(SEGUE_EDATA, "%s: is not gzip, as the spec says", file->path);
	if (file->packed) {
		size_t trail = end < SEGUE_FILES_TRAIL_MAX ? end : SEGUE_FILES_TRAIL_MAX;

		file->packed_size = size;
		memcpy(file->packed_trail, last + end - trail, trail);
		return name_copy(file, cache_dir, first, last, end);
	}
	file->size = size;
	file->data_path = strdup(file->path);
	return file->data_path ? SEGUE_OK : segue_fail(SEGUE_ENOMEM, "no memory for a path");
}

static int look_at(const struct segue_opener *opener, struct segue_file *file,
	enum segue_compression compression, const char *cache_dir)
{
	struct stat st;
	int fd = segue_opener_open(opener, file->path, &st), rc;

	if (fd < 0)
		return fd;
	rc = describe(file, fd, (uint64_t)st.st_size, compression, cache_dir);
	close(fd);
	return rc;
}

static int fill(struct segue_files *files, const struct segue_spec *spec, const char *cache_dir)
{
	struct paths paths = {0};
	int rc = expand(&files->opener, spec, &paths);

	if (rc == SEGUE_OK)
		rc = make_table(files, &paths);
	paths_free(&paths);
	if (rc < 0)
		return rc;
	make_names(files);
	for (size_t i = 0; rc == SEGUE_OK && i < files->count; i++) {
		rc = segue_check_given_up(files->opener.given_up);
		if (rc == SEGUE_OK)
			rc = look_at(&files->opener, &files->file[i],
				spec->source.tfrecord.compression, cache_dir);
	}
	return rc;
}

int segue_files_open(const struct segue_spec *spec, const char *cache_dir,
	const struct segue_opener *opener, struct segue_files **out)
{
	struct segue_files *files = calloc(1, sizeof(*files));
	int rc;

	if (!files)
		return segue_fail(SEGUE_ENOMEM, "no memory for the table of files");
	if (opener)
		files->opener = *opener;
	pthread_mutex_init(&files->mutex, NULL);
	pthread_cond_init(&files->let_go, NULL);
	for (size_t i = 0; i < SEGUE_FILES_OPEN_MAX; i++)
		files->open[i].fd = -1;
	rc = fill(files, spec, cache_dir);
	if (rc < 0)
		segue_files_close(files);
	else
		*out = files;
	return rc;
}

int segue_files_check(const struct segue_spec *spec, const struct segue_opener *opener)
{
	struct paths paths = {0};
	struct stat st;
	int rc = expand(opener, spec, &paths);

	for (size_t i = 0; rc == SEGUE_OK && i < paths.count; i++) {
		int fd = segue_opener_open(opener, paths.path[i], &st);

		if (fd >= 0)
			close(fd);
		rc = fd < 0 ? fd : segue_check_given_up(opener->given_up);
	}
	paths_free(&paths);
	return rc;
}

void segue_files_close(struct segue_files *files)
{
	if (!files)
		return;
	for (size_t i = 0; i < SEGUE_FILES_OPEN_MAX; i++)
		if (files->open[i].fd >= 0)
			close(files->open[i].fd);
	for (size_t i = 0; i < files->count; i++) {
		free(files->file[i].path);
		free(files->file[i].data_path);
	}
	free(files->file);
	free(files->listing);
	pthread_cond_destroy(&files->let_go);
	pthread_mutex_destroy(&files->mutex);
	free(files);
}

size_t segue_files_memory(const struct segue_files *files)
{
	size_t size = sizeof(*files) + files->listing_count * sizeof(files->listing[0]);

	for (size_t i = 0; i < files->count; i++)
		size += sizeof(files->file[0]) + strlen(files->file[i].path) +
			strlen(files->file[i].data_path) + 2;
	return size;
}

/* ---- Compressed files ------------------------------------------------------------------------ */

static int make_directory(const char *path)
{
	char part[PATH_MAX];

	if (strlen(path) >= sizeof(part))
		return segue_fail(SEGUE_EINVAL, "%s: path too long", path);
	strcpy(part, path);
	for (char *slash = part + 1;; slash++) {
		char was = *slash;

		if (was != '/' && was != '\0')
			continue;
		*slash = '\0';
		if (mkdir(part, 0777) < 0 && errno != EEXIST)
			return segue_fail_errno(
				SEGUE_ESYSTEM, "cannot make the directory '%s'", part);
		*slash = was;
		if (was == '\0')
			return SEGUE_OK;
	}
}

/* A twentieth of the file system stays free. */
static int space_to_keep(const char *cache_dir, uint64_t *bytes)
{
	struct statvfs fs;

	if (statvfs(cache_dir, &fs) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "%s", cache_dir);
	*bytes = (uint64_t)fs.f_blocks * fs.f_frsize / 20;
	return SEGUE_OK;
}

static int measure(struct segue_file *file)
{
	struct stat st;
	int fd = segue_opener_open(NULL, file->data_path, &st); /* our own copy */

	if (fd < 0)
		return fd;
	close(fd);
	file->size = (uint64_t)st.st_size;
	return SEGUE_OK;
}

static bool is_missing(const struct segue_file *file)
{
	return file->packed && access(file->data_path, F_OK) < 0;
}

/* What an inflation that was killed left behind. With the directory locked there is no other. */
static void remove_leftovers(const char *cache_dir)
{
	DIR *list = opendir(cache_dir);
	struct dirent *entry;

	while (list && (entry = readdir(list))) {
		const char *suffix = strstr(entry->d_name, ".tfrecord.");

		if (suffix && strlen(suffix) == strlen(".tfrecord.XXXXXX"))
			unlinkat(dirfd(list), entry->d_name, 0);
	}
	if (list)
		closedir(list);
}

/* Makes the directory and locks it: one inflates at a time, others find the work done. */
static int lock_cache(const char *cache_dir, int *fd)
{
	int rc = make_directory(cache_dir);

	if (rc < 0)
		return rc;
	*fd = open(cache_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*fd < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "%s: cannot be opened", cache_dir);
	do
		rc = flock(*fd, LOCK_EX);
	while (rc < 0 && errno == EINTR);
	if (rc == 0)
		return SEGUE_OK;
	segue_fail_errno(SEGUE_ESYSTEM, "%s: cannot be locked", cache_dir);
	close(*fd);
	return SEGUE_ESYSTEM;
}

static uint64_t missing_bytes(const struct segue_files *files)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < files->count; i++)
		if (is_missing(&files->file[i]))
			bytes += files->file[i].packed_size;
	return bytes;
}

static int inflate_one(const struct segue_files *files, const struct segue_file *file,
	uint64_t keep_free, struct segue_progress *told)
{
	struct stat st;
	int fd = segue_opener_open(&files->opener, file->path, &st), rc;

	if (fd < 0)
		return fd;
	rc = segue_inflate_file(fd, file->path, file->data_path, keep_free, told);
	close(fd);
	return rc;
}

static int inflate_missing(
	struct segue_files *files, const char *cache_dir, segue_progress_fn *progress, void *arg)
{
	struct segue_progress told = {
		.fn = progress, .arg = arg, .what = "inflate", .given_up = files->opener.given_up};
	uint64_t keep_free = 0;
	int fd, rc;

	rc = lock_cache(cache_dir, &fd);
	if (rc < 0)
		return rc;
	remove_leftovers(cache_dir);
	told.total = missing_bytes(files);
	rc = space_to_keep(cache_dir, &keep_free);
	for (size_t i = 0; rc == SEGUE_OK && i < files->count; i++)
		if (is_missing(&files->file[i]))
			rc = inflate_one(files, &files->file[i], keep_free, &told);
	close(fd);
	return rc;
}

int segue_files_inflate(
	struct segue_files *files, const char *cache_dir, segue_progress_fn *progress, void *arg)
{
	int rc = SEGUE_OK;

	if (missing_bytes(files))
		rc = inflate_missing(files, cache_dir, progress, arg);
	for (size_t i = 0; rc == SEGUE_OK && i < files->count; i++)
		if (files->file[i].packed)
			rc = measure(&files->file[i]);
	return rc;
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* The slot to open the next file in: a free one, else the one that has rested longest; or NULL. */
static struct segue_open_file *find_slot(struct segue_files *files)
{
	struct segue_open_file *best = NULL;

	for (size_t i = 0; i < SEGUE_FILES_OPEN_MAX; i++) {
		struct segue_open_file *slot = &files->open[i];

		if (slot->users == 0 && (!best || slot->used < best->used))
			best = slot;
	}
	return best;
}

static int open_again(const struct segue_files *files, struct segue_file *file)
{
	struct stat st;
	/* The copy of a compressed file is our own. */
	int fd = segue_opener_open(file->packed ? NULL : &files->opener, file->data_path, &st);

	if (fd < 0)
		return fd;
	if ((uint64_t)st.st_size == file->size)
		return fd;
	close(fd);
	return segue_fail(SEGUE_ECHANGED, "%s: has %ju bytes, had %ju", file->data_path,
		(uintmax_t)st.st_size, (uintmax_t)file->size);
}

/* Opens the file in some slot. With the mutex held; waits while all are in use. */
static int open_slot(struct segue_files *files, size_t number)
{
	struct segue_file *file = &files->file[number];
	struct segue_open_file *slot;
	int fd;

	while (file->slot < 0 && !(slot = find_slot(files)))
		pthread_cond_wait(&files->let_go, &files->mutex);
	if (file->slot >= 0) /* somebody else did */
		return SEGUE_OK;
	fd = open_again(files, file);
	if (fd < 0)
		return fd;
	if (slot->fd >= 0) {
		close(slot->fd);
		files->file[slot->file].slot = -1;
	}
	*slot = (struct segue_open_file){.fd = fd, .file = number};
	file->slot = (int)(slot - files->open);
	return SEGUE_OK;
}

static int hold(struct segue_files *files, size_t number, struct segue_open_file **out)
{
	struct segue_file *file = &files->file[number];
	int rc = SEGUE_OK;

	pthread_mutex_lock(&files->mutex);
	if (file->slot < 0)
		rc = open_slot(files, number);
	if (rc == SEGUE_OK) {
		*out = &files->open[file->slot];
		(*out)->users++;
		(*out)->used = ++files->reads;
	}
	pthread_mutex_unlock(&files->mutex);
	return rc;
}

static void let_go(struct segue_files *files, struct segue_open_file *slot)
{
	pthread_mutex_lock(&files->mutex);
	if (--slot->users == 0)
		pthread_cond_broadcast(&files->let_go);
	pthread_mutex_unlock(&files->mutex);
}

int segue_files_read(
	struct segue_files *files, size_t number, uint64_t position, void *bytes, size_t size)
{
	struct segue_file *file = &files->file[number];
	struct segue_open_file *slot;
	ssize_t n;
	int rc = hold(files, number, &slot);

	if (rc < 0)
		return rc;
	n = read_at(slot->fd, position, bytes, size);
	if (n < 0)
		rc = segue_fail_errno(SEGUE_ESOURCE, "%s: cannot be read at byte %ju",
			file->data_path, (uintmax_t)position);
	else if ((size_t)n < size)
		rc = segue_fail(SEGUE_ECHANGED,
			"%s: ends at byte %ju, had %ju bytes; was it cut off?", file->data_path,
			(uintmax_t)position + (uintmax_t)n, (uintmax_t)file->size);
	let_go(files, slot);
	return rc;
}
