/* Sockets in the file system, by paths of any length. */
#include "core/socket_path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/error.h"

enum { ROOM = sizeof(((struct sockaddr_un *)NULL)->sun_path) };

const char *segue_socket_name(const char *path)
{
	return strrchr(path, '/') + 1;
}

int segue_socket_open_place(const char *path)
{
	char place[PATH_MAX];
	size_t size = (size_t)(segue_socket_name(path) - path);

	if (size >= sizeof(place)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(place, path, size);
	place[size] = '\0';
	return open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

bool segue_socket_is_short(const char *path)
{
	return strlen(path) < ROOM;
}

int segue_socket_address(const char *path, int place, struct sockaddr_un *address)
{
	char link[64];

	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (segue_socket_is_short(path)) {
		memcpy(address->sun_path, path, strlen(path));
		return 0;
	}
	snprintf(link, sizeof(link), "/proc/self/fd/%d", place);
	if (access(link, F_OK) < 0)
		return segue_fail(SEGUE_EINVAL,
			"the path of the socket has %zu bytes; without /proc, which is not "
			"mounted, the "
			"system allows %d: give a shorter one with --socket / socket= (%s)",
			strlen(path), ROOM - 1, path);
	size_t name = strlen(segue_socket_name(path)),
	       most = ROOM - sizeof("/proc/self/fd/1048576/");
	if (name > most)
		return segue_fail(SEGUE_EINVAL,
			"the name of the socket has %zu bytes, after a long path the system allows "
			"%zu: "
			"give a shorter one with --socket / socket= (%s)",
			name, most, path);
	stpcpy(stpcpy(stpcpy(address->sun_path, link), "/"), segue_socket_name(path));
	return 0;
}
