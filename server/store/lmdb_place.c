/*
 * Whether the path of a store still leads to it: directory, store and data file may be removed,
 * renamed, or exchanged for others, while we go on writing into what nobody finds.
 */
#include "store/lmdb_inside.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"

/* One of the three, which has a name in the one before it. */
struct part {
	const char *name; /* in messages, after the path of the directory */
	int fd;
	const struct segue_lmdb_file *file;
};

static bool is_file(const struct segue_lmdb_file *file, const struct stat *status)
{
	return status->st_dev == file->device && status->st_ino == file->inode;
}

/* By which path the part is found now. False: by none, or by none that we know. */
static bool find(const struct part *part, char path[PATH_MAX])
{
	struct stat status;
	char link[32];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", part->fd);
	ssize_t size = readlink(link, path, PATH_MAX - 1);
	path[size > 0 ? size : 0] = '\0';
	return size > 0 && lstat(path, &status) == 0 && is_file(part->file, &status);
}

/* Its name leads nowhere, or (`other`) to something else. */
static int fail_place(const struct segue_store *store, const struct part *part, bool other)
{
	const char *there = other ? ", and something else lies in its place" : "";
	bool is_data = part->fd == store->data_fd;
	char path[PATH_MAX], rescue[128] = "";

	if (find(part, path))
		return segue_fail(SEGUE_EMOVED,
			"%s%s was moved to %s%s: nothing is written until it is back where it was; "
			"move it back, or end this server (pid %ld) and open the store where it is "
			"now",
			store->named, part->name, path, there, (long)getpid());
	if (is_data)
		snprintf(rescue, sizeof(rescue),
			"; as long as it runs, 'cp /proc/%ld/fd/%d FILE' saves what was written",
			(long)getpid(), part->fd);
	return segue_fail(SEGUE_EMOVED,
		"%s%s was removed%s: nothing leads to what this server would write. End it (pid "
		"%ld) and go on from a checkpoint's token or a backup%s",
		store->named, part->name, there, (long)getpid(), rescue);
}

/* `found`: what a stat() of the name returned. What cannot be seen is taken to be as it was. */
static int check_part(const struct segue_store *store, const struct part *part, int found,
	const struct stat *status)
{
	if (found == 0)
		return is_file(part->file, status) ? 0 : fail_place(store, part, true);
	if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == ESTALE)
		return fail_place(store, part, errno != ENOENT);
	return 0;
}

int segue_store_look(const struct segue_store *store)
{
	const struct part dir = {"", store->dir_fd, &store->directory},
			  folder = {"/" SEGUE_LMDB_DIR, store->store_fd, &store->folder},
			  data = {"/" SEGUE_LMDB_DATA, store->data_fd, &store->data};
	struct stat status;

	int rc = check_part(store, &dir, stat(store->named, &status), &status);
	if (!rc)
		rc = check_part(store, &folder,
			fstatat(store->dir_fd, SEGUE_LMDB_DIR, &status, AT_SYMLINK_NOFOLLOW),
			&status);
	if (!rc)
		rc = check_part(store, &data,
			fstatat(store->store_fd, "data.mdb", &status, AT_SYMLINK_NOFOLLOW),
			&status);
	return rc;
}
