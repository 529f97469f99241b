/*
 * Temporary directories for tests: tmpdir.h has the contract.
 */
#include "tmpdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const char *what, const char *path)
{
	fprintf(stderr, "tmpdir: %s %s: %s\n", what, path, strerror(errno));
	abort();
}

void segue_tmpdir_make(struct segue_tmpdir *dir, const char *name)
{
	const char *base = getenv("TMPDIR");
	if (!base || base[0] != '/')
		base = "/tmp";
	int size = snprintf(dir->root, sizeof(dir->root), "%s/segue-%s-XXXXXX", base, name);
	if (size < 0 || (size_t)size >= sizeof(dir->root)) {
		errno = ENAMETOOLONG;
		die("name under", base);
	}
	if (!mkdtemp(dir->root))
		die("make", dir->root);
}

const char *segue_tmpdir_path(const struct segue_tmpdir *dir, const char *below, char *path)
{
	int size = snprintf(path, SEGUE_TMPDIR_MAX, "%s/%s", dir->root, below);
	if (size < 0 || size >= SEGUE_TMPDIR_MAX) {
		errno = ENAMETOOLONG;
		die("path", below);
	}
	return path;
}

#define TRIES    200 /* for a server that is about to end, and still makes files */
#define PAUSE_US 25000

static void remove_at(int parent, const char *name);

static void remove_within(int fd, DIR *stream)
{
	struct dirent *entry;

	rewinddir(stream);
	while ((entry = readdir(stream)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			remove_at(fd, entry->d_name);
}

static void remove_at(int parent, const char *name)
{
	if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
		return;
	if (errno != EISDIR && errno != EPERM)
		die("remove", name);
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	if (!stream)
		die("open", name);
	remove_within(fd, stream);
	for (int i = 0; unlinkat(parent, name, AT_REMOVEDIR) < 0; i++) {
		if (errno != ENOTEMPTY || i == TRIES)
			die("remove", name);
		usleep(PAUSE_US);
		remove_within(fd, stream);
	}
	closedir(stream);
}

void segue_tmpdir_remove_path(const char *path)
{
	remove_at(AT_FDCWD, path);
}

void segue_tmpdir_remove(struct segue_tmpdir *dir)
{
	segue_tmpdir_remove_path(dir->root);
	dir->root[0] = '\0';
}
