/*
 * Preloaded into a program: records what it does to the files below one directory (trace.h), and
 * fails what it is told to fail.
 *
 * Calls go straight to the kernel, so that nothing has to be looked up and the library's own calls
 * are caught as well. Only what can be seen in calls is recorded; a file mapped to be written is
 * told as TRACE_BLIND.
 */
/* The plain names and the ones with 64 are defined here: no header may turn one into the other. */
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE

#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define SHIM    __attribute__((visibility("default")))
#define FDS     1024
#define INODES  512
#define SHORT   0 /* the error number that means a short write */
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

enum lie {
	LIE_NONE,
#define X(name, what) LIE_##name,
	TRACE_LIES(X)
#undef X
};

static struct {
	int trace; /* -1: nothing is recorded */
	dev_t device;
	enum lie lie;
	const char *boot;
	uint64_t fail_at; /* 0: never */
	int fail_with;
	_Atomic uint64_t calls, syncs;
	_Atomic uint64_t late; /* LIE_late_fdatasync: the file whose sync is owed */
	_Atomic uint64_t inodes[INODES];
	struct {
		_Atomic uint64_t inode; /* 0: not ours */
		_Atomic bool dsync;
	} fds[FDS];
} shim = {.trace = -1};

/* ---- Events ---- */

static void record(enum trace_kind kind, uint64_t file, uint64_t other, uint64_t offset,
	const void *bytes, size_t size, const char *second)
{
	size_t extra = second ? strlen(second) + 1 : 0;
	const struct trace_event event = {.size = (uint32_t)(sizeof(event) + size + extra),
		.kind = kind,
		.file = file,
		.other = other,
		.offset = offset};
	struct iovec parts[3] = {{(void *)(uintptr_t)&event, sizeof(event)},
		{(void *)(uintptr_t)bytes, size}, {(void *)(uintptr_t)second, extra}};

	if (syscall(SYS_writev, shim.trace, parts, 3) != (ssize_t)event.size)
		abort();
}

static void track_inode(uint64_t inode)
{
	for (int i = 0; i < INODES; i++) {
		uint64_t free_place = 0;
		if (shim.inodes[i] == inode ||
			atomic_compare_exchange_strong(&shim.inodes[i], &free_place, inode))
			return;
	}
	abort();
}

static bool is_tracked(const struct stat *status)
{
	if (status->st_dev != shim.device)
		return false;
	for (int i = 0; i < INODES && shim.inodes[i]; i++)
		if (shim.inodes[i] == status->st_ino)
			return true;
	return false;
}

/* The file behind fd, or 0. A number that was closed where we do not see it is looked at again. */
static uint64_t file_of(int fd)
{
	struct stat status;

	if (shim.trace < 0 || fd < 0 || fd >= FDS || !shim.fds[fd].inode)
		return 0;
	if (fstat(fd, &status) < 0 || status.st_ino != shim.fds[fd].inode || !is_tracked(&status))
		return 0;
	return status.st_ino;
}

/* The directory that `path` lies in, if it is one of ours, else 0; *name is the last part. */
static uint64_t parent_of(int at, const char *path, const char **name)
{
	char parent[PATH_MAX];
	struct stat status;
	const char *slash = strrchr(path, '/');
	size_t size = slash ? (size_t)(slash - path) : 0;

	if (shim.trace < 0 || size >= sizeof(parent))
		return 0;
	memcpy(parent, path, size);
	parent[size] = '\0';
	*name = slash ? slash + 1 : path;
	if (fstatat(at, size ? parent : slash ? "/" : ".", &status, 0) < 0)
		return 0;
	return is_tracked(&status) ? status.st_ino : 0;
}

/* True if this call is the one to fail: errno is set. */
static bool fails(int *with)
{
	if (!shim.fail_at || ++shim.calls != shim.fail_at)
		return false;
	*with = shim.fail_with;
	record(TRACE_INJECTED, 0, (uint64_t)shim.fail_with, shim.fail_at, NULL, 0, NULL);
	errno = shim.fail_with;
	return true;
}

/* ---- Opening and closing ---- */

static int open_boot_id(void)
{
	int fd = (int)syscall(SYS_memfd_create, "boot_id", 1 /* CLOEXEC */);

	if (fd >= 0 && (write(fd, shim.boot, strlen(shim.boot)) < 0 || lseek(fd, 0, SEEK_SET) < 0))
		abort();
	return fd;
}

static int open_file(int at, const char *path, int flags, mode_t mode)
{
	const char *name;
	struct stat status, before;

	if (shim.boot && strcmp(path, BOOT_ID) == 0)
		return open_boot_id();
	if (shim.trace < 0)
		return (int)syscall(SYS_openat, at, path, flags, mode);
	uint64_t parent = flags & O_CREAT ? parent_of(at, path, &name) : 0;
	bool was_there = fstatat(at, path, &before, AT_SYMLINK_NOFOLLOW) == 0;
	int fd = (int)syscall(SYS_openat, at, path, flags, mode);
	if (fd < 0 || fd >= FDS)
		return fd;
	int error = errno;
	shim.fds[fd].inode = 0;
	if (fstat(fd, &status) == 0 && parent && !was_there) {
		track_inode(status.st_ino);
		record(TRACE_CREATE, status.st_ino, parent, 0, name, strlen(name) + 1, NULL);
	}
	if (fstat(fd, &status) == 0 && is_tracked(&status)) {
		shim.fds[fd].inode = status.st_ino;
		shim.fds[fd].dsync = (flags & O_DSYNC) != 0;
		if (was_there && flags & O_TRUNC && before.st_size)
			record(TRACE_TRUNCATE, status.st_ino, 0, 0, NULL, 0, NULL);
	}
	errno = error;
	return fd;
}

#define WITH_MODE(last, flags, mode)                                                               \
	mode_t mode = 0;                                                                           \
	if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                   \
		va_list list;                                                                      \
		va_start(list, last);                                                              \
		mode = va_arg(list, mode_t);                                                       \
		va_end(list);                                                                      \
	}

SHIM int open(const char *path, int flags, ...)
{
	WITH_MODE(flags, flags, mode)
	return open_file(AT_FDCWD, path, flags, mode);
}

SHIM int openat(int at, const char *path, int flags, ...)
{
	WITH_MODE(flags, flags, mode)
	return open_file(at, path, flags, mode);
}

SHIM int open64(const char *path, int flags, ...) __attribute__((alias("open")));
SHIM int openat64(int at, const char *path, int flags, ...) __attribute__((alias("openat")));

/* What calls with flags known to the compiler become under _FORTIFY_SOURCE. */
SHIM int __open_2(const char *path, int flags);
SHIM int __open_2(const char *path, int flags)
{
	return open_file(AT_FDCWD, path, flags, 0);
}

SHIM int __openat_2(int at, const char *path, int flags);
SHIM int __openat_2(int at, const char *path, int flags)
{
	return open_file(at, path, flags, 0);
}

SHIM int __open64_2(const char *path, int flags) __attribute__((alias("__open_2")));
SHIM int __openat64_2(int at, const char *path, int flags) __attribute__((alias("__openat_2")));

SHIM int close(int fd)
{
	if (fd >= 0 && fd < FDS)
		shim.fds[fd].inode = 0;
	return (int)syscall(SYS_close, fd);
}

/* ---- Writing ---- */

static void record_write(int fd, uint64_t file, uint64_t offset, const struct iovec *parts,
	int count, size_t size, bool dsync)
{
	unsigned char *bytes = malloc(size ? size : 1);
	size_t at = 0;

	if (!bytes)
		abort();
	for (int i = 0; i < count && at < size; i++) {
		size_t part = parts[i].iov_len < size - at ? parts[i].iov_len : size - at;
		memcpy(bytes + at, parts[i].iov_base, part);
		at += part;
	}
	dsync = dsync && shim.fds[fd].dsync && shim.lie != LIE_no_dsync;
	record(dsync ? TRACE_DSYNC_WRITE : TRACE_WRITE, file, 0, offset, bytes, size, NULL);
	free(bytes);
	if (dsync && shim.late) {
		record(TRACE_SYNC, shim.late, 0, 0, NULL, 0, NULL);
		shim.late = 0;
	}
}

static size_t total_of(const struct iovec *parts, int count)
{
	size_t size = 0;

	for (int i = 0; i < count; i++)
		size += parts[i].iov_len;
	return size;
}

/* All forms of write; offset -1: at the file's own place. */
static ssize_t write_file(int fd, const struct iovec *parts, int count, off_t offset)
{
	struct iovec half[1] = {{parts[0].iov_base, total_of(parts, count) / 2}};
	uint64_t file = file_of(fd);
	int with = -1;
	bool failing = file && fails(&with);

	/* Half of it at most is in the first part: enough for a write that is short. */
	if (failing && with == SHORT && half[0].iov_len > parts[0].iov_len)
		half[0].iov_len = parts[0].iov_len;
	if (failing && with == SHORT)
		parts = half, count = 1;
	else if (failing && !shim.fds[fd].dsync)
		return -1;
	off_t at = offset >= 0 || !file ? offset : lseek(fd, 0, SEEK_CUR);
	if (file && fcntl(fd, F_GETFL) & O_APPEND)
		at = lseek(fd, 0, SEEK_END);
	ssize_t done = offset >= 0 ? syscall(SYS_pwritev, fd, parts, count, offset, 0)
				   : syscall(SYS_writev, fd, parts, count);
	if (!file || done < 0)
		return done;
	/* Of an O_DSYNC write that failed nobody knows whether it is on disk. */
	record_write(fd, file, (uint64_t)at, parts, count, (size_t)done, !failing);
	if (failing && with != SHORT) {
		errno = with;
		return -1;
	}
	return done;
}

SHIM ssize_t write(int fd, const void *bytes, size_t size)
{
	const struct iovec part = {(void *)(uintptr_t)bytes, size};
	return write_file(fd, &part, 1, -1);
}

SHIM ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
	const struct iovec part = {(void *)(uintptr_t)bytes, size};
	return write_file(fd, &part, 1, offset);
}

SHIM ssize_t writev(int fd, const struct iovec *parts, int count)
{
	return write_file(fd, parts, count, -1);
}

SHIM ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
	return write_file(fd, parts, count, offset);
}

SHIM ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t offset)
	__attribute__((alias("pwrite")));
SHIM ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset)
	__attribute__((alias("pwritev")));

SHIM int ftruncate(int fd, off_t size)
{
	uint64_t file = file_of(fd);
	int with;

	if (file && fails(&with))
		return errno = with == SHORT ? EIO : with, -1;
	int rc = (int)syscall(SYS_ftruncate, fd, size);
	if (rc == 0 && file)
		record(TRACE_TRUNCATE, file, 0, (uint64_t)size, NULL, 0, NULL);
	return rc;
}

SHIM int ftruncate64(int fd, off_t size) __attribute__((alias("ftruncate")));

SHIM int fallocate(int fd, int mode, off_t offset, off_t size)
{
	uint64_t file = file_of(fd);
	int with;

	if (file && fails(&with))
		return errno = with == SHORT ? EIO : with, -1;
	int rc = (int)syscall(SYS_fallocate, fd, mode, offset, size);
	struct stat status;
	if (rc == 0 && file && fstat(fd, &status) == 0)
		record(TRACE_TRUNCATE, file, 0, (uint64_t)status.st_size, NULL, 0, NULL);
	return rc;
}

SHIM int fallocate64(int fd, int mode, off_t offset, off_t size)
	__attribute__((alias("fallocate")));

SHIM void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
	uint64_t file = flags & MAP_SHARED && protection & PROT_WRITE ? file_of(fd) : 0;

	if (file)
		record(TRACE_BLIND, file, 0, 0, NULL, 0, NULL);
	return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
}

SHIM void *mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset)
	__attribute__((alias("mmap")));

/* ---- Syncing ---- */

static int sync_file(int fd, long call)
{
	uint64_t file = file_of(fd);
	struct stat status;
	int with;

	if (!file)
		return (int)syscall(call, fd);
	bool directory = fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
	if (fails(&with)) {
		record(TRACE_FAILED_SYNC, file, 0, 0, NULL, 0, NULL);
		return errno = with == SHORT ? EIO : with, -1;
	}
	if (shim.lie == (directory ? LIE_no_dir_sync : LIE_no_fdatasync))
		return 0;
	if (shim.lie == LIE_late_fdatasync && !directory) {
		shim.late = file;
		return 0;
	}
	bool dropped = shim.lie == LIE_retried_sync && !directory && ++shim.syncs % 3 == 0;
	int rc = (int)syscall(call, fd);
	if (rc == 0)
		record(dropped ? TRACE_FAILED_SYNC : TRACE_SYNC, file, 0, 0, NULL, 0, NULL);
	return rc;
}

SHIM int fsync(int fd)
{
	return sync_file(fd, SYS_fsync);
}

SHIM int fdatasync(int fd)
{
	return sync_file(fd, SYS_fdatasync);
}

/* ---- Names ---- */

static int make_directory(int at, const char *path, mode_t mode)
{
	const char *name;
	struct stat status;
	uint64_t parent = parent_of(at, path, &name);
	int rc = (int)syscall(SYS_mkdirat, at, path, mode);

	if (rc == 0 && parent && fstatat(at, path, &status, AT_SYMLINK_NOFOLLOW) == 0) {
		track_inode(status.st_ino);
		record(TRACE_CREATE, status.st_ino, parent, 1, name, strlen(name) + 1, NULL);
	}
	return rc;
}

SHIM int mkdir(const char *path, mode_t mode)
{
	return make_directory(AT_FDCWD, path, mode);
}

SHIM int mkdirat(int at, const char *path, mode_t mode)
{
	return make_directory(at, path, mode);
}

static int move(int from_at, const char *from, int to_at, const char *to, unsigned int flags)
{
	const char *from_name = NULL, *to_name = NULL;
	uint64_t from_parent = parent_of(from_at, from, &from_name);
	uint64_t to_parent = parent_of(to_at, to, &to_name);
	int rc = (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);

	if (rc == 0 && from_parent && to_parent)
		record(TRACE_RENAME, from_parent, to_parent, 0, from_name, strlen(from_name) + 1,
			to_name);
	return rc;
}

SHIM int rename(const char *from, const char *to)
{
	return move(AT_FDCWD, from, AT_FDCWD, to, 0);
}

SHIM int renameat(int from_at, const char *from, int to_at, const char *to)
{
	return move(from_at, from, to_at, to, 0);
}

SHIM int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned int flags)
{
	return move(from_at, from, to_at, to, flags);
}

static int remove_name(int at, const char *path, int flags)
{
	const char *name;
	uint64_t parent = parent_of(at, path, &name);
	int rc = (int)syscall(SYS_unlinkat, at, path, flags);

	if (rc == 0 && parent)
		record(TRACE_UNLINK, 0, parent, 0, name, strlen(name) + 1, NULL);
	return rc;
}

SHIM int unlink(const char *path)
{
	return remove_name(AT_FDCWD, path, 0);
}

SHIM int unlinkat(int at, const char *path, int flags)
{
	return remove_name(at, path, flags);
}

SHIM int rmdir(const char *path)
{
	return remove_name(AT_FDCWD, path, AT_REMOVEDIR);
}

/* ---- Beginning ---- */

/* Not readdir: its own opening of the directory would come back here. */
static void track_below(int at, const char *name)
{
	struct {
		uint64_t inode;
		int64_t offset;
		unsigned short size;
		unsigned char type;
		char name[];
	} * entry;
	_Alignas(uint64_t) char buffer[4096];
	int fd = (int)syscall(SYS_openat, at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat status;
	long size;

	if (fd < 0 || fstat(fd, &status) < 0)
		abort();
	track_inode(status.st_ino);
	while ((size = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0)
		for (long place = 0; place < size; place += entry->size) {
			entry = (void *)(buffer + place);
			if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
				continue;
			if (fstatat(fd, entry->name, &status, AT_SYMLINK_NOFOLLOW) < 0)
				continue;
			track_inode(status.st_ino);
			if (S_ISDIR(status.st_mode))
				track_below(fd, entry->name);
		}
	syscall(SYS_close, fd);
}

static enum lie find_lie(const char *name)
{
#define X(lie, what)                                                                               \
	if (strcmp(name, #lie) == 0)                                                               \
		return LIE_##lie;
	TRACE_LIES(X)
#undef X
	abort();
}

__attribute__((constructor)) static void begin(void)
{
	const char *trace = getenv(SHIM_TRACE), *root = getenv(SHIM_ROOT), *lie = getenv(SHIM_LIE),
		   *fail = getenv(SHIM_FAIL);
	struct stat status;

	shim.boot = getenv(SHIM_BOOT);
	if (!trace || !root)
		return;
	if (stat(root, &status) < 0)
		abort();
	shim.device = status.st_dev;
	track_below(AT_FDCWD, root);
	if (lie)
		shim.lie = find_lie(lie);
	if (fail) {
		char *end;
		shim.fail_at = strtoull(fail, &end, 10);
		shim.fail_with = *end == ':' ? atoi(end + 1) : EIO;
	}
	shim.trace = (int)syscall(
		SYS_openat, AT_FDCWD, trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (shim.trace < 0)
		abort();
}
