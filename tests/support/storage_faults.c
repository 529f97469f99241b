/*
 * A library that the program is started with (LD_PRELOAD): it puts itself between LMDB and the disk,
 * for data.mdb alone, and between the program and its syncs of directories and logs.
 *
 * What it does stands in the file that $SEGUE_FAULTS names, read at each call: "<once|always> <what>
 * <number>". `sync`, `write`, `meta` (the page that makes a transaction true) fail with that errno;
 * `short` writes half; `put` refuses values of more bytes as LMDB does when a transaction is too
 * large; `slow` makes each step of a cursor last so many microseconds, and `cursor` refuses one over a
 * table with that errno; `directory`, `log`: the sync of a directory, or of a log's file, fails with
 * that errno. `once` removes the file first.
 */
/* LMDB calls pwrite, not pwrite64. */
#undef _FILE_OFFSET_BITS

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <lmdb.h>

#define EXPORT __attribute__((visibility("default")))

/* Whether this fault is wanted now; its number. */
static bool wanted(const char *what, long *number)
{
	const char *path = getenv("SEGUE_FAULTS");
	FILE *file = path ? fopen(path, "re") : NULL;
	char often[16], name[16];

	if (!file)
		return false;
	bool hit =
		fscanf(file, "%15s %15s %ld", often, name, number) == 3 && strcmp(name, what) == 0;
	fclose(file);
	return hit && (strcmp(often, "always") == 0 || unlink(path) == 0);
}

static bool ends_with(int fd, const char *end)
{
	char link[64], path[4096];
	ssize_t length = (ssize_t)strlen(end);

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t size = readlink(link, path, sizeof(path));
	return size > length && memcmp(path + size - length, end, (size_t)length) == 0;
}

static bool is_data(int fd)
{
	return ends_with(fd, "data.mdb");
}

static bool fails(const char *what)
{
	long number;

	if (!wanted(what, &number))
		return false;
	errno = (int)number;
	return true;
}

EXPORT int fdatasync(int fd)
{
	int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");

	if ((is_data(fd) && fails("sync")) || (ends_with(fd, ".segue") && fails("log")))
		return -1;
	return real(fd);
}

EXPORT int fsync(int fd)
{
	int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
	struct stat info;

	return fstat(fd, &info) == 0 && S_ISDIR(info.st_mode) && fails("directory") ? -1 : real(fd);
}

EXPORT ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
	ssize_t (*real)(int, const void *, size_t, off_t) =
		(ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
	long number;

	if (is_data(fd)) {
		/* LMDB writes its meta page, and nothing else, through O_DSYNC */
		if (fails(fcntl(fd, F_GETFL) & O_DSYNC ? "meta" : "write"))
			return -1;
		if (wanted("short", &number))
			return real(fd, bytes, size / 2, offset);
	}
	return real(fd, bytes, size, offset);
}

EXPORT ssize_t writev(int fd, const struct iovec *pieces, int count)
{
	ssize_t (*real)(int, const struct iovec *, int) =
		(ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
	long number;

	if (is_data(fd)) {
		if (fails("write"))
			return -1;
		if (wanted("short", &number))
			return real(fd, pieces, 1);
	}
	return real(fd, pieces, count);
}

EXPORT int mdb_put(MDB_txn *txn, MDB_dbi table, MDB_val *key, MDB_val *value, unsigned int flags)
{
	int (*real)(MDB_txn *, MDB_dbi, MDB_val *, MDB_val *, unsigned int) = (int (*)(
		MDB_txn *, MDB_dbi, MDB_val *, MDB_val *, unsigned int))dlsym(RTLD_NEXT, "mdb_put");
	long limit;

	if (wanted("put", &limit) && value->mv_size > (size_t)limit)
		return MDB_TXN_FULL;
	return real(txn, table, key, value, flags);
}

EXPORT int mdb_cursor_open(MDB_txn *txn, MDB_dbi table, MDB_cursor **cursor)
{
	int (*real)(MDB_txn *, MDB_dbi, MDB_cursor **) =
		(int (*)(MDB_txn *, MDB_dbi, MDB_cursor **))dlsym(RTLD_NEXT, "mdb_cursor_open");
	long number;

	/* the first two are LMDB's own */
	return table > 1 && wanted("cursor", &number) ? (int)number : real(txn, table, cursor);
}

EXPORT int mdb_cursor_get(MDB_cursor *cursor, MDB_val *key, MDB_val *value, MDB_cursor_op op)
{
	int (*real)(MDB_cursor *, MDB_val *, MDB_val *, MDB_cursor_op) = (int (*)(MDB_cursor *,
		MDB_val *, MDB_val *, MDB_cursor_op))dlsym(RTLD_NEXT, "mdb_cursor_get");
	long us;

	if (wanted("slow", &us))
		nanosleep(
			&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000},
			NULL);
	return real(cursor, key, value, op);
}
