/* Directories of logs. */
#include "engine/live_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "os/tree.h"
#include "source/log/log.h"

static void put_name(uint32_t stream, char name[16])
{
	snprintf(name, 16, "%08" PRIx32, stream);
}

void segue_live_path(const char *dir, uint32_t stream, char path[PATH_MAX])
{
	char name[16];

	put_name(stream, name);
	snprintf(path, PATH_MAX, "%s/" SEGUE_LIVE_DIR "/%s", dir, name);
}

int segue_live_measure(const char *dir, uint32_t stream, uint64_t *files, uint64_t *bytes)
{
	char path[PATH_MAX];
	struct stat info;
	uint64_t first;

	*files = *bytes = 0;
	segue_live_path(dir, stream, path);
	DIR *names = opendir(path);
	if (!names && errno != ENOENT)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot open %s", path);
	for (struct dirent *entry; names && (entry = readdir(names));) {
		if (!segue_log_is_name(entry->d_name, &first) ||
			fstatat(dirfd(names), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		++*files;
		*bytes += (uint64_t)info.st_size;
	}
	if (names)
		closedir(names);
	return *files ? 0 : segue_fail(SEGUE_ENOTFOUND, "%s is not there, or is empty", path);
}

int segue_live_make_dir(const char *dir, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/" SEGUE_LIVE_DIR, dir);
	return mkdir(path, 0700) < 0 && errno != EEXIST
		       ? segue_fail_errno(SEGUE_ESTORE, "cannot make %s", path)
		       : 0;
}

void segue_live_remove(const char *dir, uint32_t stream)
{
	char path[PATH_MAX], name[16];

	put_name(stream, name);
	snprintf(path, sizeof(path), "%s/" SEGUE_LIVE_DIR, dir);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	segue_tree_remove(fd, name);
	close(fd);
}
