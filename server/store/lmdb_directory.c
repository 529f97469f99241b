/* The directory of a store: its lock, its files, their names on disk. */
#include "store/lmdb_inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"
#include "os/tree.h"
#include "store/file_system.h"

#define PID_FILE "server.pid"

/* LMDB must not be opened twice by one process: the second close drops the locks of the first. */
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct segue_store *open_stores;

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

int segue_lmdb_fail_file(const struct segue_store *store, const char *doing, const char *what)
{
	int code = SEGUE_ESYSTEM;
	if (errno == ENOTDIR && !*what)
		return segue_fail_no_directory(store->dir);
	if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
		code = SEGUE_ENOSPACE;
	else if (errno == EROFS || errno == EACCES || errno == EPERM)
		code = SEGUE_EREADONLY;
	return segue_fail_errno(
		code, "cannot %s '%s%s%s'", doing, store->dir, *what ? "/" : "", what);
}

/* ---- Once a process, one server a file ---- */

static bool is_same(const struct segue_lmdb_file *one, const struct segue_lmdb_file *other)
{
	return one->inode == other->inode && one->device == other->device;
}

/* Makes sure that this process has directory and data open but once, by whatever name. */
static int claim(struct segue_store *store, struct segue_lmdb_file *mine, const struct stat *status)
{
	const struct segue_lmdb_file file = {status->st_dev, status->st_ino};
	int rc = 0;
	pthread_mutex_lock(&open_lock);
	for (struct segue_store *other = open_stores; other; other = other->next)
		if (other != store &&
			(is_same(&other->directory, &file) || is_same(&other->data, &file)))
			rc = segue_fail(SEGUE_EBUSY,
				"this process (pid %ld) has the store of %s open already",
				(long)getpid(), store->dir);
	if (!rc && !store->claimed) {
		store->next = open_stores;
		open_stores = store;
		store->claimed = true;
	}
	if (!rc)
		*mine = file;
	pthread_mutex_unlock(&open_lock);
	return rc;
}

static void unclaim(struct segue_store *store)
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
		return segue_fail(SEGUE_EBUSY,
			"another segue server (pid %ld) serves %s: use that one, or end it first",
			pid, store->dir);
	return segue_fail(SEGUE_EBUSY, "another process has %s open: try again when it has ended",
		store->dir);
}

/* Takes the lock of the directory, or of the data: exclusive to serve, shared to read. */
static int lock(const struct segue_store *store, int fd)
{
	bool serve = store->mode == SEGUE_STORE_SERVE;
	if (flock(fd, (serve ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0)
		return 0;
	if (errno != EWOULDBLOCK)
		return segue_lmdb_fail_file(store, "lock", "");
	if (serve && flock(fd, LOCK_SH | LOCK_NB) == 0) {
		flock(fd, LOCK_UN);
		return segue_fail(SEGUE_EBUSY,
			"a segue command reads the store of %s; try again when it has ended",
			store->dir);
	}
	if (fd == store->dir_fd)
		return fail_busy(store);
	return segue_fail(SEGUE_EBUSY,
		"%s is open under another name: another directory has the same file (a hard link, "
		"as 'cp -al' makes), and both are one store; copy it with 'segue backup'",
		store->file);
}

/* ---- The directory ---- */

static int open_directory(struct segue_store *store)
{
	struct stat status;
	if (store->mode == SEGUE_STORE_SERVE && mkdir(store->dir, 0700) < 0 && errno != EEXIST)
		return segue_lmdb_fail_file(store, "make the directory", "");
	store->dir_fd = open(store->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->dir_fd < 0 && errno == ENOENT)
		return segue_fail(SEGUE_ENOTFOUND,
			"there is no store: %s does not exist; is the path right?", store->dir);
	if (store->dir_fd < 0)
		return segue_lmdb_fail_file(store, "open", "");
	if (fstat(store->dir_fd, &status) < 0)
		return segue_lmdb_fail_file(store, "look at", "");
	int rc = segue_file_system_check(store->dir_fd, store->dir);
	return rc ? rc : claim(store, &store->directory, &status);
}

/* For messages alone. A new file: what was there may be a link, or a FIFO. */
static int write_pid(struct segue_store *store)
{
	unlinkat(store->dir_fd, PID_FILE, 0);
	int fd = openat(store->dir_fd, PID_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return segue_lmdb_fail_file(store, "write", PID_FILE);
	int rc = dprintf(fd, "%ld\n", (long)getpid()) < 0
			 ? segue_lmdb_fail_file(store, "write", PID_FILE)
			 : 0;
	close(fd);
	return rc;
}

int segue_lmdb_open_directory(struct segue_store *store, bool locked)
{
	int rc = open_directory(store);
	if (rc || !locked)
		return rc;
	rc = lock(store, store->dir_fd);
	store->locked = !rc;
	return !rc && store->mode == SEGUE_STORE_SERVE ? write_pid(store) : rc;
}

void segue_lmdb_close_directory(struct segue_store *store)
{
	if (store->locked && store->mode == SEGUE_STORE_SERVE)
		unlinkat(store->dir_fd, PID_FILE, 0);
	if (store->claimed)
		unclaim(store);
	close_fd(&store->data_fd);
	close_fd(&store->store_fd);
	close_fd(&store->dir_fd);
}

/* ---- The files ---- */

/*
 * LMDB opens its files by name and follows links: what those lead to would be written over, or
 * made, with our rights. So we look first, and LMDB is given the directory that we hold, by its
 * descriptor.
 *
 * Closed by that: a link, FIFO or foreign file in the place of <dir>/store, data.mdb or lock.mdb;
 * and that one is put there meanwhile by somebody who may write in <dir>, but not in <dir>/store.
 *
 * Not closed: whoever may write in <dir>/store can exchange lock.mdb between the look and LMDB's
 * open. That is its owner: we, or root, or, if we are root, another, whose rights we take for as
 * long (segue_lmdb_act_as_owner; supplementary groups stay). And whomever the owner has let in by
 * its mode.
 */
static int open_store_directory(struct segue_store *store)
{
	struct stat status;
	store->store_fd = openat(store->dir_fd, SEGUE_LMDB_DIR,
		O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (store->store_fd < 0 && errno == ENOENT)
		return segue_fail(SEGUE_ENOTFOUND,
			"there is no store in %s; is it the right directory?", store->dir);
	if (store->store_fd < 0 && errno == ENOTDIR)
		return segue_fail(SEGUE_ESYSTEM,
			"%s/" SEGUE_LMDB_DIR
			" is no directory; if it is a symbolic link, move what it "
			"leads to here, or make %s itself the link",
			store->dir, store->dir);
	if (store->store_fd < 0 || fstat(store->store_fd, &status) < 0)
		return segue_lmdb_fail_file(store, "open", SEGUE_LMDB_DIR);
	if (geteuid() != 0 && status.st_uid != geteuid() && status.st_uid != 0)
		return segue_fail(SEGUE_ESYSTEM,
			"%s/" SEGUE_LMDB_DIR
			" belongs to user %u, who is neither you nor root: it is not opened, since "
			"they may put anything there; ask their server, or have them run this",
			store->dir, status.st_uid);
	store->owner = status.st_uid;
	store->group = status.st_gid;
	store->folder = (struct segue_lmdb_file){status.st_dev, status.st_ino};
	return segue_file_system_check(store->store_fd, store->dir);
}

/* A file of the store, open or not there: a plain one, of the directory's owner. */
static int check_file(const struct segue_store *store, const char *what, const struct stat *status)
{
	if (!S_ISREG(status->st_mode))
		return segue_fail(SEGUE_ESYSTEM, "%s/%s is %s: move it away", store->dir, what,
			S_ISLNK(status->st_mode) ? "a symbolic link, which is not followed"
						 : "no plain file");
	if (status->st_uid != store->owner)
		return segue_fail(SEGUE_ESYSTEM,
			"%s/%s belongs to user %u, the directory that it lies in to user %u: chown "
			"it, if it is yours",
			store->dir, what, status->st_uid, store->owner);
	return 0;
}

int segue_lmdb_open_files(struct segue_store *store)
{
	struct stat data, lock_file;
	int rc = open_store_directory(store);
	if (rc)
		return rc;
	if (fstatat(store->store_fd, "data.mdb", &data, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? segue_lmdb_fail_damaged(store, "data.mdb is missing")
				       : segue_lmdb_fail_file(store, "look at", SEGUE_LMDB_DATA);
	rc = check_file(store, SEGUE_LMDB_DATA, &data);
	if (rc)
		return rc;
	store->data_fd = openat(store->store_fd, "data.mdb",
		(store->mode == SEGUE_STORE_SERVE ? O_RDWR : O_RDONLY) | O_NOFOLLOW | O_NONBLOCK |
			O_CLOEXEC);
	if (store->data_fd < 0 || fstat(store->data_fd, &data) < 0)
		return segue_lmdb_fail_file(store, "open", SEGUE_LMDB_DATA);
	rc = check_file(store, SEGUE_LMDB_DATA, &data);
	if (!rc)
		rc = claim(store, &store->data, &data);
	if (!rc && store->locked)
		rc = lock(store, store->data_fd);
	if (rc || fstatat(store->store_fd, "lock.mdb", &lock_file, AT_SYMLINK_NOFOLLOW) < 0)
		return rc; /* LMDB makes the lock's file if there is none */
	return check_file(store, SEGUE_LMDB_LOCK, &lock_file);
}

void segue_lmdb_act_as_owner(const struct segue_store *store, bool begin)
{
	if (geteuid() != 0 || store->owner == 0)
		return;
	setfsgid(begin ? store->group : getegid());
	setfsuid(begin ? store->owner : 0);
}

/* ---- Creation ---- */

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
			segue_tree_remove(store->dir_fd, entry->d_name);
	}
	closedir(stream);
	return 0;
}

void segue_lmdb_give_up_creation(struct segue_store *store, const char *name)
{
	close_fd(&store->store_fd);
	segue_tree_remove(store->dir_fd, name);
}

int segue_lmdb_begin_creation(struct segue_store *store, char name[32])
{
	struct stat status;
	uint32_t random;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot get a random number");
	snprintf(name, 32, ".store-%08x.new", random);
	if (SEGUE_MUTANT(created_in_place))
		snprintf(name, 32, SEGUE_LMDB_DIR);
	if (mkdirat(store->dir_fd, name, 0700) < 0)
		return segue_lmdb_fail_file(store, "make the directory", name);
	store->store_fd =
		openat(store->dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int rc = store->store_fd < 0 || fstat(store->store_fd, &status) < 0
			 ? segue_lmdb_fail_file(store, "open", name)
			 : 0;
	if (!rc && status.st_uid != geteuid()) /* nobody else can write in our own */
		rc = segue_fail(SEGUE_ESYSTEM,
			"%s/%s was exchanged while the store was made: try again", store->dir,
			name);
	if (rc)
		segue_lmdb_give_up_creation(store, name);
	else
		store->owner = status.st_uid;
	return rc;
}

/*
 * The directories above, as far as they are of the same file system and can be read: server or
 * client may have made some of them just now, and a name that is lost takes the store with it.
 */
static int sync_above(const struct segue_store *store)
{
	int rc = 0, at = store->dir_fd;
	struct stat status, below = {.st_ino = store->directory.inode};
	for (;;) {
		int up = openat(at, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (at != store->dir_fd)
			close(at);
		at = up;
		if (at < 0)
			return rc;
		if (rc || fstat(at, &status) < 0 || status.st_dev != store->directory.device ||
			status.st_ino == below.st_ino)
			break;
		if (fsync(at) < 0)
			rc = segue_lmdb_fail_file(store, "sync a directory above", "");
		below = status;
	}
	close(at);
	return rc;
}

/* LMDB syncs neither the first meta pages nor any directory: done here, before the rename. */
int segue_lmdb_settle_creation(struct segue_store *store, const char *name)
{
	int fd = openat(store->store_fd, "data.mdb", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return segue_lmdb_fail_file(store, "open", name);
	int rc = fsync(fd) < 0 || fsync(store->store_fd) < 0
			 ? segue_lmdb_fail_file(store, "sync", name)
			 : 0;
	close(fd);
	close_fd(&store->store_fd);
	if (!rc && renameat(store->dir_fd, name, store->dir_fd, SEGUE_LMDB_DIR) < 0)
		rc = segue_lmdb_fail_file(store, "rename the new store to", SEGUE_LMDB_DIR);
	if (!rc && fsync(store->dir_fd) < 0)
		rc = segue_lmdb_fail_file(store, "sync", "");
	if (!rc && !SEGUE_MUTANT(above_not_synced))
		rc = sync_above(store);
	return rc;
}
