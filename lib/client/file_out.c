/*
 * A new file, written once: pwrite() at known places, so that what fails half-way can be cut off.
 */
#include "client/file_out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/access.h"
#include "core/error.h"

#define BUFFER_SIZE ((size_t)1 << 20)
#define WRITE_MAX   ((size_t)1 << 30) /* bytes a call; the system takes less than 2 GiB */
/* Room is reserved in parts of an eighth of what the file has, but for these bounds. */
#define AHEAD_MIN ((uint64_t)1 << 20)
#define AHEAD_MAX ((uint64_t)64 << 20)

/* ---- Making ---- */

static int open_directory(struct segue_file_out *out)
{
	const char *slash = strrchr(out->path, '/');
	char *directory;

	out->name = slash ? slash + 1 : out->path;
	if (!*out->name)
		return segue_fail(SEGUE_EINVAL, "\"%s\" names no file", out->path);
	directory = slash ? strndup(out->path, (size_t)(slash - out->path) + 1) : strdup(".");
	if (!directory)
		return segue_fail(SEGUE_ENOMEM, "no memory for a file to write");
	out->directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(directory);
	if (out->directory >= 0)
		return 0;
	if (errno == ENOTDIR)
		return segue_fail_no_directory(out->path);
	if (errno == EACCES)
		return segue_fail_access(SEGUE_ESYSTEM, out->path);
	return segue_fail_errno(SEGUE_ESYSTEM, "the directory of %s", out->path);
}

static int open_file(struct segue_file_out *out)
{
	int fd = openat(out->directory, out->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

	if (fd >= 0) {
		/* 'segue repair' sees it. Some file systems have no locks. */
		flock(fd, LOCK_EX | LOCK_NB);
		segue_fork_guard_set(&out->guard, fd);
		return 0;
	}
	if (errno == EEXIST)
		return segue_fail(SEGUE_ESYSTEM,
			"%s is there already, and is not written over: remove it, or give another "
			"name",
			out->path);
	if (errno == EACCES)
		return segue_fail_access(SEGUE_ESYSTEM, out->path);
	if (errno == ENOSPC || errno == EDQUOT)
		return segue_fail_errno(SEGUE_ENOSPACE, "%s cannot be made", out->path);
	return segue_fail_errno(SEGUE_ESYSTEM, "%s cannot be made", out->path);
}

int segue_file_out_create(const char *path, struct segue_file_out **result)
{
	struct segue_file_out *out = calloc(1, sizeof(*out));
	int rc;

	if (!out)
		return segue_fail(SEGUE_ENOMEM, "no memory for a file to write");
	out->directory = -1;
	out->path = strdup(path);
	out->buffer = malloc(BUFFER_SIZE);
	rc = out->path && out->buffer ? segue_fork_guard_init(&out->guard)
				      : segue_fail(SEGUE_ENOMEM, "no memory for a file to write");
	if (!rc)
		rc = open_directory(out);
	if (!rc)
		rc = open_file(out);
	if (rc)
		segue_file_out_destroy(out);
	else
		*result = out;
	return rc;
}

void segue_file_out_destroy(struct segue_file_out *out)
{
	if (!out)
		return;
	if (out->guard.fd >= 0)
		segue_file_out_trim(out);
	segue_fork_guard_finish(&out->guard);
	if (out->directory >= 0)
		close(out->directory);
	free(out->buffer);
	free(out->path);
	free(out);
}

/* ---- Writing ---- */

static int check(const struct segue_file_out *out)
{
	int rc = segue_fork_check(&out->guard);

	if (!rc && out->lost)
		rc = segue_fail(SEGUE_EINVAL,
			"%s could not be written before, and what it holds is not known: remove "
			"it, and write it anew",
			out->path);
	return rc;
}

static int fail_write(const struct segue_file_out *out)
{
	if (errno == ENOSPC || errno == EDQUOT)
		return segue_fail_errno(SEGUE_ENOSPACE,
			"%s cannot be written: the disk is full, or a quota is", out->path);
	return segue_fail_errno(SEGUE_ESYSTEM, "%s cannot be written", out->path);
}

static int allocate(const struct segue_file_out *out, uint64_t size)
{
	int done;

	do
		done = fallocate(out->guard.fd, FALLOC_FL_KEEP_SIZE, (off_t)out->written,
			(off_t)(size - out->written));
	while (done < 0 && errno == EINTR);
	return done;
}

/*
 * So that what was put into the buffer can be written, and a full disk is met before anything of a
 * sequence is.
 */
int segue_file_out_reserve(struct segue_file_out *out, uint64_t size)
{
	uint64_t need = segue_file_out_end(out) + size, ahead = need / 8;
	int rc = check(out);

	if (rc || out->no_reserve || need <= out->reserved)
		return rc;
	ahead = ahead < AHEAD_MIN ? AHEAD_MIN : ahead > AHEAD_MAX ? AHEAD_MAX : ahead;
	if (allocate(out, need + ahead) == 0) {
		out->reserved = need + ahead;
		return 0;
	}
	if ((errno == ENOSPC || errno == EDQUOT) && allocate(out, need) == 0) {
		out->reserved = need;
		return 0;
	}
	if (errno == ENOSPC || errno == EDQUOT)
		return fail_write(out);
	out->no_reserve = true;
	return 0;
}

/* At `written`, which moves. What was written before a failure counts. */
static int write_out(struct segue_file_out *out, const uint8_t *bytes, uint64_t size)
{
	while (size > 0) {
		size_t part = size < WRITE_MAX ? (size_t)size : WRITE_MAX;
		ssize_t done = pwrite(out->guard.fd, bytes, part, (off_t)out->written);

		if (done < 0 && errno == EINTR)
			continue;
		if (done == 0) /* of a regular file: never, and never for ever */
			errno = EIO;
		if (done <= 0)
			return fail_write(out);
		bytes += done;
		size -= (uint64_t)done;
		out->written += (uint64_t)done;
	}
	return 0;
}

int segue_file_out_flush(struct segue_file_out *out)
{
	uint64_t before = out->written, done;
	int rc = check(out);

	if (rc)
		return rc;
	rc = write_out(out, out->buffer, out->used);
	done = out->written - before;
	out->used -= (size_t)done;
	if (out->used > 0)
		memmove(out->buffer, out->buffer + done, out->used);
	return rc;
}

void segue_file_out_trim(struct segue_file_out *out)
{
	if (out->reserved > out->written && ftruncate(out->guard.fd, (off_t)out->written) == 0)
		out->reserved = out->written;
}

int segue_file_out_put(struct segue_file_out *out, const void *bytes, uint64_t size)
{
	int rc = check(out);

	if (!rc && size > BUFFER_SIZE - out->used)
		rc = segue_file_out_flush(out);
	if (rc)
		return rc;
	if (size >= BUFFER_SIZE)
		return write_out(out, bytes, size);
	memcpy(out->buffer + out->used, bytes, (size_t)size);
	out->used += (size_t)size;
	return 0;
}

int segue_file_out_align(struct segue_file_out *out, uint64_t align)
{
	static const uint8_t zeros[4096];
	uint64_t over = segue_file_out_end(out) % align;

	return over ? segue_file_out_put(out, zeros, align - over) : 0;
}

int segue_file_out_cut(struct segue_file_out *out, uint64_t size)
{
	uint64_t left = size < out->written ? size : out->written;
	int rc = segue_fork_check(&out->guard), done;

	if (rc)
		return rc;
	/* Also where nothing of it counts as written: what failed may have made the file longer. */
	do
		done = ftruncate(out->guard.fd, (off_t)left);
	while (done < 0 && errno == EINTR);
	if (done < 0) {
		out->lost = true;
		return segue_fail_errno(SEGUE_ESYSTEM, "%s cannot be cut back", out->path);
	}
	out->written = out->reserved = left;
	out->used = (size_t)(size - left);
	return 0;
}

/* ---- To the disk ---- */

/* Some file systems have directories that cannot be synced. */
static int sync_fd(const struct segue_file_out *out, int fd)
{
	int done;

	do
		done = fsync(fd);
	while (done < 0 && errno == EINTR);
	if (done == 0 || (errno == EINVAL && fd == out->directory))
		return 0;
	return segue_fail_errno(errno == ENOSPC || errno == EDQUOT ? SEGUE_ENOSPACE : SEGUE_ESYSTEM,
		"%s is not known to be on disk: remove it, and write it anew", out->path);
}

int segue_file_out_sync(struct segue_file_out *out)
{
	int rc = segue_file_out_flush(out);

	if (rc)
		return rc;
	rc = sync_fd(out, out->guard.fd);
	/* A second sync says nothing of what the first one lost. */
	out->lost = rc != 0;
	return rc;
}

int segue_file_out_sync_name(struct segue_file_out *out)
{
	int rc = check(out);

	if (!rc)
		rc = sync_fd(out, out->directory);
	return rc;
}

int segue_file_out_remove(struct segue_file_out *out)
{
	int rc = segue_fork_check(&out->guard);
	struct stat ours, there;

	if (rc)
		return rc;
	if (fstat(out->guard.fd, &ours) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "%s", out->path);
	if (fstatat(out->directory, out->name, &there, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : segue_fail_errno(SEGUE_ESYSTEM, "%s", out->path);
	if (there.st_dev != ours.st_dev || there.st_ino != ours.st_ino)
		return 0;
	if (unlinkat(out->directory, out->name, 0) < 0 && errno != ENOENT)
		return segue_fail_errno(SEGUE_ESYSTEM, "%s cannot be removed", out->path);
	return 0;
}
