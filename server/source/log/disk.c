/* The system calls of a log. */
#include "source/log/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"

#define PART_MAX ((size_t)1 << 30) /* bytes a call; the system takes less than 2 GiB */

struct segue_log_dir {
	int fd;
	char path[];
};

struct segue_log_file {
	struct segue_log_dir *dir;
	int fd;
	char name[];
};

static int fail(const char *path, const char *name, const char *what)
{
	bool full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;

	return segue_fail_errno(full ? SEGUE_ENOSPACE : SEGUE_ESTORE,
		"the log's %s%s%s cannot be %s", path, name[0] ? "/" : "", name, what);
}

static int fail_dir(const struct segue_log_dir *dir, const char *name, const char *what)
{
	return fail(dir->path, name, what);
}

static int fail_file(const struct segue_log_file *file, const char *what)
{
	return fail(file->dir->path, file->name, what);
}

/* Some file systems have directories that cannot be synced. */
static int sync_fd(int fd, bool directory)
{
	int done;

	do
		done = directory ? fsync(fd) : fdatasync(fd);
	while (done < 0 && errno == EINTR);
	return done < 0 && !(directory && errno == EINVAL) ? -1 : 0;
}

/* ---- Directories ---- */

static int sync_above(int fd)
{
	int above = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int done = above < 0 ? -1 : sync_fd(above, true);

	if (above >= 0)
		close(above);
	return done;
}

int segue_log_dir_open(const char *path, struct segue_log_dir **out)
{
	struct segue_log_dir *dir = calloc(1, sizeof(*dir) + strlen(path) + 1);

	if (!dir)
		return segue_fail(SEGUE_ENOMEM, "no memory for a log");
	strcpy(dir->path, path);
	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		int rc = fail(path, "", "made");

		free(dir);
		return rc;
	}
	dir->fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	/* Also if it was there: whoever made it may have been killed before it was on disk. */
	if (dir->fd < 0 || sync_above(dir->fd) < 0) {
		int rc = fail(path, "", dir->fd < 0 ? "opened" : "synced");

		segue_log_dir_close(dir);
		return rc;
	}
	*out = dir;
	return 0;
}

void segue_log_dir_close(struct segue_log_dir *dir)
{
	if (!dir)
		return;
	if (dir->fd >= 0)
		close(dir->fd);
	free(dir);
}

const char *segue_log_dir_path(const struct segue_log_dir *dir)
{
	return dir->path;
}

int segue_log_dir_list(
	struct segue_log_dir *dir, int (*visit)(void *arg, const char *name), void *arg)
{
	int fd = openat(dir->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!stream) {
		rc = fail_dir(dir, "", "listed");
		if (fd >= 0)
			close(fd);
		return rc;
	}
	errno = 0;
	while (!rc && (entry = readdir(stream))) {
		rc = visit(arg, entry->d_name);
		errno = 0;
	}
	if (!rc && errno)
		rc = fail_dir(dir, "", "listed");
	closedir(stream);
	return rc;
}

int segue_log_dir_rename(struct segue_log_dir *dir, const char *from, const char *to)
{
	return renameat(dir->fd, from, dir->fd, to) < 0 ? fail_dir(dir, from, "renamed") : 0;
}

int segue_log_dir_remove(struct segue_log_dir *dir, const char *name)
{
	if (unlinkat(dir->fd, name, 0) < 0 && errno != ENOENT)
		return fail_dir(dir, name, "removed");
	return 0;
}

int segue_log_dir_sync(struct segue_log_dir *dir)
{
	return sync_fd(dir->fd, true) < 0 ? fail_dir(dir, "", "synced") : 0;
}

/* ---- Files ---- */

int segue_log_file_open(
	struct segue_log_dir *dir, const char *name, bool make, struct segue_log_file **out)
{
	struct segue_log_file *file = calloc(1, sizeof(*file) + strlen(name) + 1);
	int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	struct stat status;

	if (!file)
		return segue_fail(SEGUE_ENOMEM, "no memory for a log");
	strcpy(file->name, name);
	file->dir = dir;
	file->fd = openat(dir->fd, name, flags | (make ? O_CREAT | O_TRUNC : 0), 0600);
	if (file->fd >= 0 && fstat(file->fd, &status) == 0 && S_ISREG(status.st_mode)) {
		*out = file;
		return 0;
	}
	if (file->fd >= 0)
		errno = EINVAL; /* a FIFO or the like in its place */
	int rc = fail_file(file, make ? "made" : "opened");
	segue_log_file_close(file);
	return rc;
}

void segue_log_file_close(struct segue_log_file *file)
{
	if (!file)
		return;
	if (file->fd >= 0)
		close(file->fd);
	free(file);
}

int segue_log_file_size(struct segue_log_file *file, uint64_t *size)
{
	struct stat status;

	if (fstat(file->fd, &status) < 0)
		return fail_file(file, "looked at");
	*size = (uint64_t)status.st_size;
	return 0;
}

int segue_log_file_read(struct segue_log_file *file, uint64_t at, void *bytes, size_t size)
{
	uint8_t *to = bytes;

	while (size > 0) {
		ssize_t done = pread(file->fd, to, size < PART_MAX ? size : PART_MAX, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done == 0)
			errno = ENODATA;
		if (done <= 0)
			return fail_file(file, "read");
		to += done;
		at += (uint64_t)done;
		size -= (size_t)done;
	}
	return 0;
}

int segue_log_file_write(struct segue_log_file *file, uint64_t at, const void *bytes, size_t size)
{
	const uint8_t *from = bytes;

	while (size > 0) {
		ssize_t done = pwrite(file->fd, from, size < PART_MAX ? size : PART_MAX, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done == 0) /* of a regular file: never, and never for ever */
			errno = EIO;
		if (done <= 0)
			return fail_file(file, "written");
		from += done;
		at += (uint64_t)done;
		size -= (size_t)done;
	}
	return 0;
}

int segue_log_file_cut(struct segue_log_file *file, uint64_t size)
{
	int done;

	do
		done = ftruncate(file->fd, (off_t)size);
	while (done < 0 && errno == EINTR);
	if (done == 0)
		return 0;
	fail_file(file, "cut back");
	return SEGUE_ESTORE;
}

/* A second sync says nothing of what the first one lost: no room is no better here. */
int segue_log_file_sync(struct segue_log_file *file)
{
	if (sync_fd(file->fd, false) == 0)
		return 0;
	fail_file(file, "synced");
	return SEGUE_ESTORE;
}

/* Only what is not waiting to be written is dropped from the cache: so it is synced first. */
int segue_log_file_refresh(struct segue_log_file *file)
{
	int rc = segue_log_file_sync(file);

	if (!rc)
		posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
	return rc;
}
