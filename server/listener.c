/* The listening socket: made under the store's lock, so that a stale one can be told from a live
 * one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "error.h"
#include "server.h"

struct segue_listener {
	struct segue_server *server;
	struct segue_watch watch;
	struct sockaddr_un address;
	ino_t inode; /* of the socket that we made */
};

static void accept_all(struct segue_watch *watch, uint32_t events)
{
	struct segue_listener *listener =
		(struct segue_listener *)((char *)watch - offsetof(struct segue_listener, watch));

	(void)events;
	for (;;) {
		int socket = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (socket >= 0)
			segue_session_create(listener->server, socket);
		else if (errno != EINTR && errno != ECONNABORTED)
			return; /* EAGAIN; or no fds: level-triggered, tried again */
	}
}

static int fill_address(const char *path, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(address->sun_path))
		return segue_fail(SEGUE_EINVAL,
			"the socket path %s has %zu bytes, the limit is %zu: give a shorter one "
			"with "
			"--socket",
			path, strlen(path), sizeof(address->sun_path) - 1);
	memcpy(address->sun_path, path, strlen(path));
	return 0;
}

/* Removes a socket that nobody listens on any more. */
static int remove_stale(const struct sockaddr_un *address)
{
	struct stat info;

	if (lstat(address->sun_path, &info) < 0)
		return errno == ENOENT ? 0
				       : segue_fail_errno(SEGUE_ESYSTEM, "socket path %s",
						 address->sun_path);
	if (!S_ISSOCK(info.st_mode))
		return segue_fail(SEGUE_EINVAL,
			"%s exists and is not a socket: move it away, or give another path with "
			"--socket",
			address->sun_path);
	int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (probe < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "socket");
	int rc = connect(probe, (const struct sockaddr *)address, sizeof(*address));
	close(probe);
	if (rc == 0)
		return segue_fail(SEGUE_EBUSY,
			"the socket %s is taken: another server listens on it; give another path "
			"with --socket",
			address->sun_path);
	if (unlink(address->sun_path) < 0 && errno != ENOENT)
		return segue_fail_errno(
			SEGUE_ESYSTEM, "the stale socket %s cannot be removed", address->sun_path);
	return 0;
}

static int bind_socket(int fd, const struct sockaddr_un *address)
{
	mode_t before = umask(0177);
	int rc = bind(fd, (const struct sockaddr *)address, sizeof(*address));

	umask(before);
	if (rc < 0)
		return segue_fail_errno(
			SEGUE_ESYSTEM, "cannot bind the socket %s", address->sun_path);
	if (listen(fd, 128) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "listen on %s", address->sun_path);
	return 0;
}

int segue_listener_create(
	struct segue_server *server, const char *path, struct segue_listener **out)
{
	struct segue_listener *listener = calloc(1, sizeof(*listener));
	struct stat info;
	int rc;

	if (!listener)
		return segue_fail(SEGUE_ENOMEM, "no memory for the listener");
	listener->server = server;
	listener->watch = (struct segue_watch){
		.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
		.ready = accept_all};
	if (listener->watch.fd < 0) {
		free(listener);
		return segue_fail_errno(SEGUE_ESYSTEM, "socket");
	}
	if ((rc = fill_address(path, &listener->address)) ||
		(rc = remove_stale(&listener->address)) ||
		(rc = bind_socket(listener->watch.fd, &listener->address)) ||
		(rc = segue_loop_add(server->loop, &listener->watch, EPOLLIN))) {
		close(listener->watch.fd);
		free(listener);
		return rc;
	}
	if (lstat(path, &info) == 0)
		listener->inode = info.st_ino;
	*out = listener;
	return 0;
}

void segue_listener_destroy(struct segue_listener *listener)
{
	struct stat info;

	if (!listener)
		return;
	segue_loop_remove(listener->server->loop, &listener->watch);
	if (lstat(listener->address.sun_path, &info) == 0 && info.st_ino == listener->inode)
		unlink(listener->address.sun_path);
	close(listener->watch.fd);
	free(listener);
}
