/* The directory of inflated copies. */
#include "source/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
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
#include "os/file.h"

#define SUFFIX ".inflated"

char *segue_cache_place(const char *cache_dir, const char *path)
{
	XXH128_hash_t hash = XXH3_128bits(path, strlen(path));
	char *place;

	if (asprintf(&place, "%s/%016" PRIx64 "%016" PRIx64 SUFFIX, cache_dir, hash.high64,
		    hash.low64) < 0)
		return NULL;
	return place;
}

static int make_directory(const char *path)
{
	char part[PATH_MAX];

	if (strlen(path) >= sizeof(part))
		return segue_fail(SEGUE_EINVAL,
			"%s: the path is too long for copies of compressed files: put the store "
			"somewhere else, or unpack the files",
			path);
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
			return 0;
	}
}

/* What an inflation that was killed left behind. With the directory locked there is no other. */
static void remove_leftovers(int directory)
{
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	while (list && (entry = readdir(list))) {
		const char *suffix = strstr(entry->d_name, SUFFIX ".");

		if (suffix && strlen(suffix) == strlen(SUFFIX ".XXXXXX"))
			unlinkat(directory, entry->d_name, 0);
	}
	if (list)
		closedir(list);
}

int segue_cache_lock(const char *cache_dir, uint64_t *keep_free)
{
	struct statvfs fs;
	int fd;

	int rc = make_directory(cache_dir);
	if (rc)
		return rc;
	fd = open(cache_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "%s: cannot be opened", cache_dir);
	if (segue_file_lock(fd, LOCK_EX) < 0 || fstatvfs(fd, &fs) < 0) {
		segue_fail_errno(SEGUE_ESYSTEM, "%s: cannot be locked", cache_dir);
		close(fd);
		return SEGUE_ESYSTEM;
	}
	remove_leftovers(fd);
	*keep_free = (uint64_t)fs.f_blocks * fs.f_frsize / 20;
	return fd;
}

void segue_cache_measure(const char *cache_dir, uint64_t *copies, uint64_t *bytes)
{
	DIR *list = opendir(cache_dir);
	struct dirent *entry;
	struct stat st;

	*copies = *bytes = 0;
	while (list && (entry = readdir(list)))
		if (fstatat(dirfd(list), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			S_ISREG(st.st_mode)) {
			++*copies;
			*bytes += (uint64_t)st.st_blocks * 512;
		}
	if (list)
		closedir(list);
}
