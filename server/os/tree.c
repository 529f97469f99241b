/* Removing directories, by descriptors: a path would lead elsewhere once a part of it is a link. */
#include "os/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { DEPTH_MAX = 8 };

static void remove_tree(int at, const char *name, int depth)
{
	if (unlinkat(at, name, 0) == 0 || depth == 0)
		return;
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	if (!stream) {
		if (fd >= 0)
			close(fd);
		return;
	}
	for (struct dirent *entry; (entry = readdir(stream));)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			remove_tree(fd, entry->d_name, depth - 1);
	closedir(stream);
	unlinkat(at, name, AT_REMOVEDIR);
}

void segue_tree_remove(int at, const char *name)
{
	remove_tree(at, name, DEPTH_MAX);
}
