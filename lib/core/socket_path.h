/*
 * Sockets in the file system, by paths of any length. An address has room for 107 bytes; where a
 * path is longer its directory is opened, and named by /proc/self/fd.
 */
#ifndef SEGUE_CORE_SOCKET_PATH_H
#define SEGUE_CORE_SOCKET_PATH_H

#include <stdbool.h>
#include <sys/un.h>

/* The name of the socket in its directory. `path` is absolute, like all paths here. */
const char *segue_socket_name(const char *path);
/* Its directory, opened with O_PATH; or -1, and errno. */
int segue_socket_open_place(const char *path);
/*
 * The address by which it is bound or connected. `place`: its directory, open for as long as the
 * address is used. SEGUE_EINVAL: too long for this system.
 */
int segue_socket_address(const char *path, int place, struct sockaddr_un *address);
/* Whether an address has room for the path itself: then no `place` is needed. */
bool segue_socket_is_short(const char *path);

#endif
