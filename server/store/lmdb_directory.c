/* The directory of a store: its lock, its files, their names on disk. */
#include "store/lmdb_inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"

#define PID_FILE "server.pid"

/* LMDB must not be opened twice by one process: the second close drops the locks of the first. */
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct segue_store *open_stores;

/* A system call on `what` in the directory failed. */
int segue_lmdb_fail_file(const struct segue_store *store, const char *doing, const char *what)
{
	int code = SEGUE_ESYSTEM;
	if (errno == ENOTDIR && !*what)
		return segue_fail_no_directory(store->dir);
	if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
		code = SEGUE_ENOSPACE;
	else if (errno == EROFS || errno == EACCES || errno == EPERM)
		code = SEGUE_EREADONLY;
	return segue_fail_errno(code, "%s %s/%s", doing, store->dir, what);
}

static const char *network_file_system(uint32_t type)
{
	switch (type) {
	case NFS_SUPER_MAGIC:
		return "NFS";
	case SMB_SUPER_MAGIC:
	case CIFS_SUPER_MAGIC:
	case SMB2_SUPER_MAGIC:
		return "SMB";
	case V9FS_MAGIC:
		return "9p";
	case AFS_SUPER_MAGIC:
	case AFS_FS_MAGIC:
		return "AFS";
	default:
		return NULL;
	}
}

static int sync_directory(const struct segue_store *store, int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return segue_lmdb_fail_file(store, "open", name);
	int rc = fsync(fd) < 0 ? segue_lmdb_fail_file(store, "sync", name) : 0;
	close(fd);
	return rc;
}

/*
 * The directories above, as far as they are of the same file system and can be read: server or
 * client may have made some of them just now, and a name that is lost takes the store with it.
 */
static int sync_above(const struct segue_store *store)
{
	int rc = 0, at = store->dir_fd;
	struct stat status, below = {.st_ino = store->inode};
	for (;;) {
		int up = openat(at, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (at != store->dir_fd)
			close(at);
		at = up;
		if (at < 0)
			return rc;
		if (rc || fstat(at, &status) < 0 || status.st_dev != store->device ||
			status.st_ino == below.st_ino)
			break;
		if (fsync(at) < 0)
			rc = segue_lmdb_fail_file(store, "sync a directory above", "");
		below = status;
	}
	close(at);
	return rc;
}

static int open_directory(struct segue_store *store)
{
	if (store->mode == SEGUE_STORE_SERVE && mkdir(store->dir, 0700) < 0 && errno != EEXIST)
		return segue_lmdb_fail_file(store, "make directory", "");
	store->dir_fd = open(store->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->dir_fd < 0 && errno == ENOENT)
		return segue_fail(
			SEGUE_ENOTFOUND, "there is no store: %s does not exist", store->dir);
	if (store->dir_fd < 0)
		return segue_lmdb_fail_file(store, "open", "");
	struct statfs system;
	struct stat status;
	if (fstatfs(store->dir_fd, &system) < 0 || fstat(store->dir_fd, &status) < 0)
		return segue_lmdb_fail_file(store, "look at", "");
	const char *network = network_file_system((uint32_t)system.f_type);
	if (network)
		return segue_fail(SEGUE_ESYSTEM,
			"%s is on a network file system (%s), where a memory-mapped store is not "
			"safe; use a local disk",
			store->dir, network);
	store->device = status.st_dev;
	store->inode = status.st_ino;
	return 0;
}

/* Makes sure that this process has the directory open but once. */
static int claim_directory(struct segue_store *store)
{
	int rc = 0;
	pthread_mutex_lock(&open_lock);
	for (struct segue_store *other = open_stores; other; other = other->next)
		if (other->device == store->device && other->inode == store->inode)
			rc = segue_fail(SEGUE_EBUSY,
				"this process (pid %ld) has the store of %s open already",
				(long)getpid(), store->dir);
	if (!rc) {
		store->next = open_stores;
		open_stores = store;
		store->claimed = true;
	}
	pthread_mutex_unlock(&open_lock);
	return rc;
}

static void unclaim_directory(struct segue_store *store)
{
	pthread_mutex_lock(&open_lock);
	struct segue_store **link = &open_stores;
	while (*link != store)
		link = &(*link)->next;
	*link = store->next;
	pthread_mutex_unlock(&open_lock);
}

/* The pid is for the message alone: the lock is what counts. */
static int fail_busy(const struct segue_store *store)
{
	char text[16] = "";
	int fd = openat(store->dir_fd, PID_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	if (fd >= 0)
		close(fd);
	long pid = strtol(text, NULL, 10);
	if (pid > 0)
		return segue_fail(
			SEGUE_EBUSY, "another segue server (pid %ld) serves %s", pid, store->dir);
	return segue_fail(SEGUE_EBUSY, "another process has %s open", store->dir);
}

static int lock_directory(struct segue_store *store)
{
	bool serve = store->mode == SEGUE_STORE_SERVE;
	store->locked = flock(store->dir_fd, (serve ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0;
	if (store->locked)
		return 0;
	if (errno != EWOULDBLOCK)
		return segue_lmdb_fail_file(store, "lock", "");
	if (serve && flock(store->dir_fd, LOCK_SH | LOCK_NB) == 0) {
		flock(store->dir_fd, LOCK_UN);
		return segue_fail(SEGUE_EBUSY,
			"a segue command reads the store of %s; try again when it has ended",
			store->dir);
	}
	return fail_busy(store);
}

/* For messages alone. */
static int write_pid(struct segue_store *store)
{
	int fd = openat(store->dir_fd, PID_FILE,
		O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return segue_lmdb_fail_file(store, "write", PID_FILE);
	int rc = dprintf(fd, "%ld\n", (long)getpid()) < 0
			 ? segue_lmdb_fail_file(store, "write", PID_FILE)
			 : 0;
	close(fd);
	return rc;
}

int segue_lmdb_open_directory(struct segue_store *store, bool lock)
{
	int rc = open_directory(store);
	if (!rc)
		rc = claim_directory(store);
	if (!rc && lock)
		rc = lock_directory(store);
	return !rc && store->mode == SEGUE_STORE_SERVE ? write_pid(store) : rc;
}

void segue_lmdb_close_directory(struct segue_store *store)
{
	if (store->locked && store->mode == SEGUE_STORE_SERVE)
		unlinkat(store->dir_fd, PID_FILE, 0);
	if (store->claimed)
		unclaim_directory(store);
	if (store->dir_fd >= 0)
		close(store->dir_fd);
}

int segue_lmdb_find(const struct segue_store *store)
{
	if (faccessat(store->dir_fd, SEGUE_LMDB_DIR, F_OK, 0) == 0)
		return 0;
	return errno == ENOENT ? segue_fail(SEGUE_ENOTFOUND, "there is no store in %s", store->dir)
			       : segue_lmdb_fail_file(store, "find", SEGUE_LMDB_DIR);
}

/* ---- Creation ---- */

/* Removes a directory of plain files. */
static void remove_directory(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	if (!stream) {
		if (fd >= 0)
			close(fd);
		return;
	}
	for (struct dirent *entry; (entry = readdir(stream));)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			unlinkat(fd, entry->d_name, 0);
	closedir(stream);
	unlinkat(at, name, AT_REMOVEDIR);
}

int segue_lmdb_sweep(struct segue_store *store)
{
	int fd = openat(store->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	if (!stream) {
		int rc = segue_lmdb_fail_file(store, "list", "");
		if (fd >= 0)
			close(fd);
		return rc;
	}
	for (struct dirent *entry; (entry = readdir(stream));) {
		size_t size = strlen(entry->d_name);
		if (size > 4 && strncmp(entry->d_name, ".store-", 7) == 0 &&
			strcmp(entry->d_name + size - 4, ".new") == 0)
			remove_directory(store->dir_fd, entry->d_name);
	}
	closedir(stream);
	return 0;
}

int segue_lmdb_begin_creation(struct segue_store *store, char name[32])
{
	uint32_t random;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return segue_fail_errno(SEGUE_ESYSTEM, "random number");
	snprintf(name, 32, ".store-%08x.new", random);
	if (SEGUE_MUTANT(created_in_place))
		snprintf(name, 32, SEGUE_LMDB_DIR);
	return mkdirat(store->dir_fd, name, 0700) < 0
		       ? segue_lmdb_fail_file(store, "make directory", name)
		       : 0;
}

void segue_lmdb_give_up_creation(struct segue_store *store, const char *name)
{
	remove_directory(store->dir_fd, name);
}

/* LMDB syncs neither the first meta pages nor any directory: done here, before the rename. */
int segue_lmdb_settle_creation(struct segue_store *store, const char *name)
{
	char data[64];
	snprintf(data, sizeof(data), "%s/data.mdb", name);
	int fd = openat(store->dir_fd, data, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return segue_lmdb_fail_file(store, "open", data);
	int rc = fsync(fd) < 0 ? segue_lmdb_fail_file(store, "sync", data) : 0;
	close(fd);
	if (!rc)
		rc = sync_directory(store, store->dir_fd, name);
	if (!rc && renameat(store->dir_fd, name, store->dir_fd, SEGUE_LMDB_DIR) < 0)
		rc = segue_lmdb_fail_file(store, "rename to", SEGUE_LMDB_DIR);
	if (!rc)
		rc = sync_directory(store, store->dir_fd, ".");
	if (!rc && !SEGUE_MUTANT(above_not_synced))
		rc = sync_above(store);
	return rc;
}
