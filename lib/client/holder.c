/* Who holds a store directory, where nobody answers at its socket. */
#include "client/holder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LISTENS 0x10000 /* __SO_ACCEPTCON, of a line's flags */

long segue_holder_pid(const char *dir)
{
	char path[PATH_MAX], text[32] = "";

	if ((size_t)snprintf(path, sizeof(path), "%s/server.pid", dir) >= sizeof(path))
		return 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	long pid = strtol(text, NULL, 10);
	return pid > 0 ? pid : 0;
}

bool segue_holder_there(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool there = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;

	if (fd >= 0)
		close(fd);
	return there;
}

/* Whether both are the same name in the same directory, by whatever way. */
static bool is_same_place(const char *path, const char *other)
{
	const char *name = strrchr(path, '/'), *other_name = strrchr(other, '/');
	char directory[PATH_MAX];
	struct stat one, two;

	if (strcmp(path, other) == 0)
		return true;
	if (!name || !other_name || strcmp(name, other_name) != 0)
		return false;
	snprintf(directory, sizeof(directory), "%.*s", (int)(name - path), path);
	if (stat(directory, &one) < 0)
		return false;
	snprintf(directory, sizeof(directory), "%.*s", (int)(other_name - other), other);
	return stat(directory, &two) == 0 && one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

/* A long path was bound by way of a descriptor of the server's (core/socket_path.h). */
static bool is_bound(const char *name, long pid, const char *socket_path)
{
	static const char self[] = "/proc/self/";
	char path[PATH_MAX];

	if (strncmp(name, self, sizeof(self) - 1) != 0)
		return is_same_place(name, socket_path);
	snprintf(path, sizeof(path), "/proc/%ld/%s", pid, name + sizeof(self) - 1);
	return is_same_place(path, socket_path);
}

/* The kernel keeps the name that a socket was bound to, also when the file has gone. */
bool segue_holder_lost_socket(long pid, const char *socket_path)
{
	FILE *table = access(socket_path, F_OK) < 0 && errno == ENOENT
			      ? fopen("/proc/net/unix", "re")
			      : NULL;
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	while (!found && table && getline(&line, &room, table) > 0) {
		unsigned flags;
		int path = 0;
		line[strcspn(line, "\n")] = '\0';
		/* Num: RefCount Protocol Flags Type St Inode Path */
		if (sscanf(line, "%*s %*x %*x %x %*x %*x %*u %n", &flags, &path) == 1 && path > 0)
			found = flags & LISTENS && is_bound(line + path, pid, socket_path);
	}
	free(line);
	if (table)
		fclose(table);
	return found;
}
