/* The files of a data set: patterns, names, inflated copies, open file descriptors. */
#include "source/files.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "source/cache.h"
#include "source/foreign.h"
#include "source/pattern.h"

/*
 * The files of one data set may take a sixteenth of the process's descriptors as long as that is
 * not many, then a smaller part: there may be many data sets.
 */
enum { OPEN_MIN = 4, OPEN_FEW = 64, OPEN_MAX = 1024, SHARE_OF_FEW = 16, SHARE = 64 };

#define SETTLED_MS 3000

/* When a file was last changed. */
static int64_t changed_ns(const struct stat *info)
{
	return info->st_ctim.tv_sec * INT64_C(1000000000) + info->st_ctim.tv_nsec;
}

/*
 * Whether a file that is changed once more will have another time of change: file systems count it
 * in steps, of some milliseconds, or of one second or two.
 */
static bool is_settled(const struct stat *info)
{
	return changed_ns(info) / 1000000 + SETTLED_MS < segue_unix_ms();
}

/* ---- The table ------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorts the paths, drops doubles, and says where each listed one went. */
static int make_table(struct segue_files *files, const struct segue_matches *paths)
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
	return 0;
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

static const char *compression_name(enum segue_compression compression)
{
	switch (compression) {
	case SEGUE_COMPRESSION_NONE:
		return "none";
	case SEGUE_COMPRESSION_GZIP:
		return "gzip";
	case SEGUE_COMPRESSION_ZLIB:
		return "zlib";
	case SEGUE_COMPRESSION_AUTO:
		break;
	}
	return "auto";
}

static int fail_packing(const struct segue_files *files, const struct segue_file *file,
	const struct segue_packing *packing)
{
	if (files->format->plain)
		return segue_fail(SEGUE_EDATA,
			"%s: is compressed with %s; %s files are read where they lie: unpack it "
			"(%s)",
			file->path, packing->name, files->format->name, packing->unpack);
	if (packing->compression)
		return segue_fail(SEGUE_EDATA,
			"%s: is compressed with %s, and the source's compression is \"%s\": give "
			"\"%s\", or leave it at \"auto\"",
			file->path, packing->name, compression_name(files->compression),
			packing->name);
	return segue_fail(SEGUE_EDATA,
		"%s: is compressed with %s, which is not read: unpack it (%s), or compress it with "
		"gzip or zlib",
		file->path, packing->name, packing->unpack);
}

/* By its first bytes; those of the format itself win over what looks like something else. */
static int find_packing(
	const struct segue_files *files, struct segue_file *file, const uint8_t *first, size_t size)
{
	bool own = files->format->begins(first, size);
	const struct segue_foreign *foreign = own ? NULL : segue_foreign_of(first, size);
	const struct segue_packing *packing = own ? NULL : segue_packing_of(first, size);

	bool asked = packing && packing->compression &&
		     (files->compression == SEGUE_COMPRESSION_AUTO ||
			     files->compression == packing->compression);

	if (foreign)
		return segue_fail(SEGUE_EDATA, "%s: is %s, no %s file: %s", file->path,
			foreign->name, files->format->name, foreign->advice);
	file->packed = asked ? packing : NULL;
	if (packing && !asked)
		return fail_packing(files, file, packing);
	if (!packing && files->compression > SEGUE_COMPRESSION_NONE)
		return segue_fail(SEGUE_EDATA,
			"%s: is not %s, and the source's compression is \"%s\": leave it at "
			"\"auto\"",
			file->path, compression_name(files->compression),
			compression_name(files->compression));
	return 0;
}

/* Notes what it holds; before that, when it was changed: later is not missed. */
static int sample(const struct segue_files *files, struct segue_file *file, int fd, struct stat *st)
{
	if (!files->format->sample)
		return 0;
	file->sampled_inode = st->st_ino;
	file->sampled_ns = is_settled(st) ? changed_ns(st) : 0;
	int rc = files->format->sample(fd, (uint64_t)st->st_size, file->sample);
	return rc ? segue_fail_within(rc, "%s", file->path) : 0;
}

static int describe(const struct segue_files *files, struct segue_file *file, int fd, uint64_t size,
	const char *cache_dir)
{
	uint8_t first[SEGUE_FOREIGN_BEGIN] = {0};
	size_t begin = size < sizeof(first) ? (size_t)size : sizeof(first);
	size_t trail = size < SEGUE_FILES_TRAIL_MAX ? (size_t)size : SEGUE_FILES_TRAIL_MAX;

	if (segue_read_at(fd, 0, first, begin) < 0)
		return segue_fail_errno(SEGUE_ESOURCE, "%s: cannot be read", file->path);
	int rc = find_packing(files, file, first, begin);
	if (rc)
		return rc;
	if (!file->packed) {
		file->size = size;
		file->data_path = strdup(file->path);
	} else {
		file->packed_size = size;
		if (segue_read_at(fd, size - trail, file->packed_trail, trail) < 0)
			return segue_fail_errno(SEGUE_ESOURCE, "%s: cannot be read", file->path);
		file->data_path = segue_cache_place(cache_dir, file->path);
	}
	return file->data_path ? 0 : segue_fail(SEGUE_ENOMEM, "no memory for a path");
}

static int look_at(const struct segue_files *files, struct segue_file *file, const char *cache_dir)
{
	struct stat st;
	int fd = segue_opener_open(&files->opener, file->path, &st), rc;

	if (fd < 0)
		return fd;
	rc = describe(files, file, fd, (uint64_t)st.st_size, cache_dir);
	if (!rc)
		rc = sample(files, file, fd, &st);
	close(fd);
	return rc;
}

static int expand(const struct segue_opener *opener, const struct segue_spec *spec,
	struct segue_matches *paths)
{
	const struct segue_paths *asked = segue_source_paths(&spec->source);
	bool literal = segue_source_row(spec->source.kind)->literal;
	int rc = 0;

	for (size_t i = 0; !rc && i < asked->count; i++) {
		rc = segue_check_given_up(opener ? opener->given_up : NULL);
		if (!rc)
			rc = literal ? segue_matches_add_name(paths, asked->path[i])
				     : segue_matches_add(paths, opener, asked->path[i]);
	}
	return rc;
}

static int fill(struct segue_files *files, const struct segue_spec *spec,
	const struct segue_source_means *means)
{
	struct segue_progress told = {.fn = files->format->sample ? means->progress : NULL,
		.arg = means->arg,
		.what = "samples",
		.given_up = files->opener.given_up};
	struct segue_matches paths = {0};

	int rc = expand(&files->opener, spec, &paths);
	if (!rc)
		rc = make_table(files, &paths);
	segue_matches_finish(&paths);
	if (rc)
		return rc;
	make_names(files);
	told.total = files->count;
	for (size_t i = 0; !rc && i < files->count; i++) {
		rc = segue_progress_add(&told, 1);
		if (!rc)
			rc = look_at(files, &files->file[i], means->cache_dir);
	}
	return rc;
}

size_t segue_files_open_most(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return OPEN_FEW;
	if (limit.rlim_cur / SHARE_OF_FEW < OPEN_MIN)
		return OPEN_MIN;
	if (limit.rlim_cur / SHARE_OF_FEW < OPEN_FEW)
		return limit.rlim_cur / SHARE_OF_FEW;
	if (limit.rlim_cur / SHARE < OPEN_FEW)
		return OPEN_FEW;
	return limit.rlim_cur / SHARE < OPEN_MAX ? limit.rlim_cur / SHARE : OPEN_MAX;
}

static int make_slots(struct segue_files *files)
{
	size_t most = segue_files_open_most();

	most = most < files->count ? most : files->count;
	files->open = malloc(most * sizeof(files->open[0]));
	if (!files->open)
		return segue_fail(SEGUE_ENOMEM, "no memory for the table of files");
	files->open_most = most;
	for (size_t i = 0; i < most; i++)
		files->open[i] = (struct segue_open_file){.fd = -1};
	return 0;
}

uint64_t segue_files_descriptors(const struct segue_spec *spec)
{
	const struct segue_paths *paths = segue_source_paths(&spec->source);
	uint64_t files = 0, most = segue_files_open_most();

	bool literal = segue_source_row(spec->source.kind)->literal;

	for (size_t i = 0; i < paths->count && files < most; i++)
		files += !literal && strpbrk(paths->path[i], "*?[") ? most : 1;
	return files < most ? files : most;
}

int segue_files_open(const struct segue_spec *spec, const struct segue_file_format *format,
	enum segue_compression compression, const struct segue_source_means *means,
	struct segue_files **out)
{
	struct segue_files *files = calloc(1, sizeof(*files));
	int rc;

	if (!files)
		return segue_fail(SEGUE_ENOMEM, "no memory for the table of files");
	files->format = format;
	files->compression = compression;
	if (means->opener)
		files->opener = *means->opener;
	pthread_mutex_init(&files->mutex, NULL);
	pthread_cond_init(&files->let_go, NULL);
	rc = fill(files, spec, means);
	if (!rc)
		rc = make_slots(files);
	if (rc)
		segue_files_close(files);
	else
		*out = files;
	return rc;
}

int segue_files_check(const struct segue_spec *spec, const struct segue_opener *opener)
{
	struct segue_matches paths = {0};
	struct stat st;
	int rc = expand(opener, spec, &paths);

	for (size_t i = 0; !rc && i < paths.count; i++) {
		int fd = segue_opener_open(opener, paths.path[i], &st);

		if (fd >= 0)
			close(fd);
		rc = fd < 0 ? fd : segue_check_given_up(opener->given_up);
	}
	segue_matches_finish(&paths);
	return rc;
}

void segue_files_close(struct segue_files *files)
{
	if (!files)
		return;
	for (size_t i = 0; i < files->open_most; i++)
		if (files->open[i].fd >= 0)
			close(files->open[i].fd);
	free(files->open);
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

int segue_file_fail_within(int rc, const struct segue_file *file)
{
	if (file->packed)
		return segue_fail_within(rc, "%s (inflated to '%s')", file->path, file->data_path);
	return segue_fail_within(rc, "%s", file->path);
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

/* Whether the file's copy is there and is of the file as it is now: 1, 0, or a code. */
static int find_copy(const struct segue_files *files, struct segue_file *file)
{
	struct stat st;
	int fd = segue_opener_open(&files->opener, file->path, &st);

	if (fd < 0)
		return fd;
	bool found = segue_copy_look(file->data_path, fd, &file->copy);
	close(fd);
	if (found)
		file->size = file->copy.size;
	return found;
}

/* Which copies are missing, and the bytes that they are to be made of. */
static int find_copies(struct segue_files *files, uint64_t *missing)
{
	int rc = 0;

	*missing = 0;
	for (size_t i = 0; rc >= 0 && i < files->count; i++) {
		struct segue_file *file = &files->file[i];

		if (!file->packed)
			continue;
		rc = segue_check_given_up(files->opener.given_up);
		if (!rc)
			rc = find_copy(files, file);
		file->copied = rc > 0;
		if (!rc)
			*missing += file->packed_size;
	}
	return rc < 0 ? rc : 0;
}

void segue_files_discard(struct segue_files *files, size_t number)
{
	if (files->file[number].packed)
		unlink(files->file[number].data_path);
}

/* What was there before may be open. While nobody reads. */
static void close_old(struct segue_files *files, struct segue_file *file)
{
	if (file->slot < 0)
		return;
	close(files->open[file->slot].fd);
	files->open[file->slot].fd = -1;
	file->slot = -1;
}

static int inflate_one(
	struct segue_files *files, size_t number, uint64_t keep_free, struct segue_progress *told)
{
	struct segue_file *file = &files->file[number];
	struct stat st;
	int fd = segue_opener_open(&files->opener, file->path, &st), rc;

	if (fd < 0)
		return fd;
	close_old(files, file);
	rc = segue_inflate_file(
		fd, file->path, file->packed, file->data_path, files->format, keep_free, told);
	if (!rc && !segue_copy_look(file->data_path, fd, &file->copy))
		rc = segue_fail(SEGUE_ECHANGED,
			"%s: changed while it was inflated: open the stream again when it is whole",
			file->path);
	close(fd);
	if (rc == SEGUE_EDATA) /* a copy of what it was before */
		segue_files_discard(files, number);
	file->size = file->copy.size;
	file->copied = file->fresh = !rc;
	return rc;
}

static int inflate_missing(struct segue_files *files, const struct segue_source_means *means)
{
	struct segue_progress told = {.fn = means->progress,
		.arg = means->arg,
		.what = "inflate",
		.given_up = files->opener.given_up};
	uint64_t keep_free;
	int fd = segue_cache_lock(means->cache_dir, &keep_free);

	if (fd < 0)
		return fd;
	int rc = find_copies(files, &told.total); /* somebody may have made them meanwhile */
	for (size_t i = 0; !rc && i < files->count; i++)
		if (files->file[i].packed && !files->file[i].copied)
			rc = inflate_one(files, i, keep_free, &told);
	close(fd);
	return rc;
}

int segue_files_inflate(struct segue_files *files, const struct segue_source_means *means)
{
	uint64_t missing;

	int rc = find_copies(files, &missing);
	return rc || !missing ? rc : inflate_missing(files, means);
}

/* Whether what is open is the copy as it was made: 1, 0, or a code. If not, it is removed. */
static int check_open(struct segue_file *file, int fd, struct segue_progress *told)
{
	struct stat open, named;

	int rc = segue_copy_check(fd, &file->copy, told);
	/* Another stream may have made it anew: that one stays. */
	if (rc == 0 && fstat(fd, &open) == 0 && stat(file->data_path, &named) == 0 &&
		open.st_ino == named.st_ino)
		unlink(file->data_path);
	return rc;
}

static int check_named(struct segue_file *file, struct segue_progress *told)
{
	int fd = segue_copy_open(file->data_path);

	if (fd < 0)
		return 0;
	int rc = check_open(file, fd, told);
	close(fd);
	return rc;
}

int segue_files_check_copies(struct segue_files *files, const struct segue_source_means *means)
{
	struct segue_progress told = {.fn = means->progress,
		.arg = means->arg,
		.what = "check",
		.given_up = files->opener.given_up};

	int rc = segue_files_inflate(files, means);
	for (size_t i = 0; !rc && i < files->count; i++)
		if (files->file[i].packed && !files->file[i].fresh)
			told.total += files->file[i].size;
	for (size_t i = 0; rc >= 0 && i < files->count; i++)
		if (files->file[i].packed && !files->file[i].fresh)
			rc = check_named(&files->file[i], &told);
	return rc < 0 ? rc : segue_files_inflate(files, means);
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* The slot to open the next file in: a free one, else the one that has rested longest; or NULL. */
static struct segue_open_file *find_slot(struct segue_files *files)
{
	struct segue_open_file *best = NULL;

	for (size_t i = 0; i < files->open_most; i++) {
		struct segue_open_file *slot = &files->open[i];

		if (slot->users == 0 && (!best || slot->used < best->used))
			best = slot;
	}
	return best;
}

/* What lies there under its name may be another file, or have been written anew. */
static int check_sample(
	const struct segue_files *files, struct segue_file *file, int fd, struct stat *st)
{
	const uint64_t had[2] = {file->sample[0], file->sample[1]};

	if (!files->format->sample ||
		(st->st_ino == file->sampled_inode && changed_ns(st) == file->sampled_ns))
		return 0;
	int rc = sample(files, file, fd, st);
	if (rc || memcmp(had, file->sample, sizeof(had)) == 0)
		return rc;
	memcpy(file->sample, had, sizeof(had));
	file->sampled_ns = 0;
	return segue_fail(SEGUE_ECHANGED,
		"%s: holds something else than when the stream was opened" SEGUE_CHANGED_ADVICE,
		file->path);
}

static int open_again(const struct segue_files *files, struct segue_file *file)
{
	struct stat st;
	/* The copy of a compressed file is our own. */
	int fd = segue_opener_open(file->packed ? NULL : &files->opener, file->data_path, &st);

	if (fd < 0)
		return fd;
	if (file->packed ? segue_copy_is(fd, &file->copy) : (uint64_t)st.st_size == file->size) {
		int rc = check_sample(files, file, fd, &st);
		if (rc)
			close(fd);
		return rc ? rc : fd;
	}
	close(fd);
	if (file->packed)
		return segue_fail(SEGUE_ECHANGED,
			"%s: it has changed since the stream was opened, and its copy '%s' is of "
			"the new version" SEGUE_CHANGED_ADVICE,
			file->path, file->data_path);
	return segue_fail(SEGUE_ECHANGED,
		"%s: has %" PRIu64 " bytes, had %" PRIu64 SEGUE_CHANGED_ADVICE, file->path,
		(uint64_t)st.st_size, file->size);
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
		return 0;
	fd = open_again(files, file);
	if (fd < 0)
		return fd;
	if (slot->fd >= 0) {
		close(slot->fd);
		files->file[slot->file].slot = -1;
	}
	*slot = (struct segue_open_file){.fd = fd, .file = number};
	file->slot = (int)(slot - files->open);
	return 0;
}

static int hold(struct segue_files *files, size_t number, struct segue_open_file **out)
{
	struct segue_file *file = &files->file[number];
	int rc = 0;

	pthread_mutex_lock(&files->mutex);
	if (file->slot < 0)
		rc = open_slot(files, number);
	if (!rc) {
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

	if (rc)
		return rc;
	n = segue_read_at(slot->fd, position, bytes, size);
	if (n < 0)
		rc = segue_fail_errno(SEGUE_ESOURCE, "%s: cannot be read at byte %" PRIu64,
			file->data_path, position);
	else if ((size_t)n < size)
		rc = segue_fail(SEGUE_ECHANGED,
			"%s: ends at byte %" PRIu64 ", had %" PRIu64 " bytes; was it cut off?",
			file->data_path, position + (uint64_t)n, file->size);
	let_go(files, slot);
	return rc;
}

/* ---- Damage ---------------------------------------------------------------------------------- */

int segue_files_check_copy(struct segue_files *files, size_t number)
{
	struct segue_file *file = &files->file[number];
	struct segue_progress nobody = {.total = file->size, .given_up = files->opener.given_up};
	struct segue_open_file *slot;
	struct stat info;
	int64_t changed;

	if (!file->packed)
		return 0;
	int rc = hold(files, number, &slot);
	if (rc)
		return rc;
	changed = fstat(slot->fd, &info) == 0 ? changed_ns(&info) : 0;
	rc = changed && changed == file->proven ? 1 : check_open(file, slot->fd, &nobody);
	if (rc > 0)
		file->proven = changed;
	let_go(files, slot);
	if (rc)
		return rc < 0 ? rc : 0;
	return segue_fail(SEGUE_ESOURCE,
		"the inflated copy of the file is damaged, not the file: it is made anew when the "
		"data set is opened next");
}
