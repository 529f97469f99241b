/* Talking to the service manager: its datagram socket, its environment. */
#include "os/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/error.h"

enum { FIRST_FD = 3, TEXT_MAX = 2048 };

static struct {
	int fd; /* connected to the manager; 0: none */
	int64_t watchdog_ns;
	int listen_fds;
	char names[256];
} manager;

/* ---- Environment ---- */

static int number_in(const char *variable)
{
	const char *text = getenv(variable);

	return text ? atoi(text) : 0;
}

static void forget_variables(void)
{
	static const char *const variables[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
		"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"};

	for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
		unsetenv(variables[i]);
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t size = strlen(path);

	if (size < 2 || size >= sizeof(address.sun_path) || (*path != '/' && *path != '@'))
		return segue_fail(SEGUE_EINVAL,
			"NOTIFY_SOCKET is '%s': neither an absolute path nor an abstract name",
			path);
	memcpy(address.sun_path, path, size);
	if (*path == '@')
		address.sun_path[0] = '\0';
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make a socket");
	if (connect(fd, (const struct sockaddr *)&address,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)) < 0) {
		int rc = segue_fail_errno(
			SEGUE_EINVAL, "the service manager does not answer at %s", path);
		close(fd);
		return rc;
	}
	manager.fd = fd;
	return 0;
}

void segue_notify_init(void)
{
	const char *path = getenv("NOTIFY_SOCKET"), *usec = getenv("WATCHDOG_USEC");
	const char *names = getenv("LISTEN_FDNAMES");
	int watched = number_in("WATCHDOG_PID");

	/* To be told is the manager's wish, not its order. */
	if (path && *path && connect_to(path))
		fprintf(stderr, "segue: %s: no service manager is told of anything\n",
			segue_error_detail());
	if (usec && (!watched || watched == getpid()))
		manager.watchdog_ns = strtoll(usec, NULL, 10) * 1000;
	if (number_in("LISTEN_PID") == getpid())
		manager.listen_fds = number_in("LISTEN_FDS");
	snprintf(manager.names, sizeof(manager.names), "%s", names ? names : "");
	forget_variables();
}

void segue_notify_ignore(void)
{
	forget_variables();
}

/* ---- Telling ---- */

void segue_notify(const char *format, ...)
{
	char text[TEXT_MAX];
	va_list list;

	if (!manager.fd)
		return;
	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	ssize_t sent;
	do
		sent = send(manager.fd, text, strlen(text), MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	/* A manager that does not read is not waited for; it will judge by what it has heard. */
}

int64_t segue_notify_watchdog_ns(void)
{
	return manager.fd ? manager.watchdog_ns : 0;
}

/* ---- Sockets ---- */

static bool has_path(int fd)
{
	struct sockaddr_un address = {0};
	socklen_t size = sizeof(address);

	return getsockname(fd, (struct sockaddr *)&address, &size) == 0 &&
	       address.sun_path[0] == '/';
}

/* Which of the fds is named "segue"; -1: none is. */
static int find_named(void)
{
	const char *at = manager.names;

	for (int i = 0; i < manager.listen_fds; i++) {
		size_t size = strcspn(at, ":");
		if (size == strlen("segue") && strncmp(at, "segue", size) == 0)
			return FIRST_FD + i;
		at += size + (at[size] == ':');
	}
	return -1;
}

static int option_of(int fd, int option)
{
	int value = -1;
	socklen_t size = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &size) < 0 ? -1 : value;
}

int segue_notify_socket(int *out)
{
	*out = -1;
	if (manager.listen_fds <= 0)
		return 0;
	int fd = manager.listen_fds == 1 ? FIRST_FD : find_named();
	if (fd < 0)
		return segue_fail(SEGUE_EINVAL,
			"the service manager passes %d sockets, and none is named 'segue': pass "
			"one, or name it with FileDescriptorName=segue",
			manager.listen_fds);
	if (option_of(fd, SO_DOMAIN) != AF_UNIX || option_of(fd, SO_TYPE) != SOCK_STREAM ||
		option_of(fd, SO_ACCEPTCONN) != 1 || !has_path(fd))
		return segue_fail(SEGUE_EINVAL,
			"the socket that the service manager passes (fd %d) is not a listening "
			"stream socket with a path: use ListenStream=/path",
			fd);
	for (int i = 0; i < manager.listen_fds; i++) {
		if (FIRST_FD + i != fd)
			close(FIRST_FD + i);
	}
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot use the service manager's socket");
	*out = fd;
	return 0;
}
