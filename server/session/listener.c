/* The listening socket: made under the store's lock, so that a stale one can be told from a live
 * one. */
#include "session/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/socket_path.h"
#include "core/wait.h"
#include "session/session.h"

enum {
	ACCEPT_AT_ONCE = 64, /* then others have their turn */
	TRY_AGAIN_MS = 100,
	LOOK_MS = 1000, /* between two looks whether the socket is still there */
};

struct segue_listener {
	struct segue_server *server;
	struct segue_watch watch;
	const char *path;
	int place;   /* the directory that it is in, wherever it is by now; -1: the manager's */
	ino_t inode; /* of the socket that we made; 0: it is the service manager's */
	int reserve; /* given up for a moment where there is no fd to accept with; -1: gone */
	int64_t again_at; /* not listened to until then; 0: it is */
	int64_t look_at;  /* whether the socket is still there */
	bool lost;        /* it is not, and that has been said */
};

/* ---- Accepting ---- */

/* An fd that is kept for the moment in which there is none. */
static int open_reserve(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Without the reserve the socket would be ready for ever, and nothing could be done about it. */
static void stop_listening(struct segue_listener *listener)
{
	listener->again_at = segue_now_ns() + TRY_AGAIN_MS * INT64_C(1000000);
	segue_loop_change(listener->server->loop, &listener->watch, 0);
	segue_loop_tick_within(listener->server->loop, listener->again_at);
}

/* There is no fd for a connection: it is told so, by means of the one in reserve. */
static void turn_away(struct segue_listener *listener)
{
	if (listener->reserve >= 0)
		close(listener->reserve);
	int socket = accept4(listener->watch.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (socket >= 0)
		segue_session_refuse(socket,
			segue_fail(SEGUE_ELIMIT,
				"the server has no file descriptors left: raise its limit "
				"(LimitNOFILE=, ulimit -n), or have fewer lanes and connections"));
	listener->reserve = open_reserve();
	if (listener->reserve < 0)
		stop_listening(listener);
}

static void accept_some(struct segue_watch *watch, uint32_t events)
{
	struct segue_listener *listener = SEGUE_CONTAINER(watch, struct segue_listener, watch);

	(void)events;
	for (int i = 0; i < ACCEPT_AT_ONCE && !listener->again_at; i++) {
		int socket = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (socket >= 0)
			segue_session_create(listener->server, socket);
		else if (errno == EMFILE || errno == ENFILE)
			turn_away(listener);
		else if (errno == ENOMEM || errno == ENOBUFS)
			stop_listening(listener);
		else if (errno != EINTR && errno != ECONNABORTED)
			return; /* EAGAIN: that was all */
	}
}

/* ---- The socket ---- */

/*
 * Whether somebody has the socket: also one who lets nobody in just now, or for whom it is of
 * another type.
 */
static bool is_taken(int probe, const struct sockaddr_un *address)
{
	return connect(probe, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
	       errno == EAGAIN || errno == EPROTOTYPE;
}

/* Removes a socket that nobody has any more. */
static int remove_stale(const struct segue_listener *listener, const struct sockaddr_un *address)
{
	const char *name = segue_socket_name(listener->path);
	struct stat info;

	if (fstatat(listener->place, name, &info, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0
				       : segue_fail_errno(SEGUE_ESYSTEM,
						 "cannot look at the socket %s", listener->path);
	if (!S_ISSOCK(info.st_mode))
		return segue_fail(SEGUE_EINVAL,
			"%s exists and is not a socket: move it away, or give another path with "
			"--socket",
			listener->path);
	int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make a socket");
	bool taken = is_taken(probe, address);
	close(probe);
	if (taken)
		return segue_fail(SEGUE_EBUSY,
			"the socket %s is taken: another server listens on it; give another path "
			"with --socket",
			listener->path);
	if (unlinkat(listener->place, name, 0) < 0 && errno != ENOENT)
		return segue_fail_errno(
			SEGUE_ESYSTEM, "the stale socket %s cannot be removed", listener->path);
	return 0;
}

static int bind_socket(
	const struct segue_listener *listener, int fd, const struct sockaddr_un *address)
{
	/* The mode that it is made with; umask() would be that of other threads, too. */
	if (fchmod(fd, 0600) < 0 ||
		bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot bind the socket %s", listener->path);
	int rc = segue_guard_open_socket(listener->server->guard, address->sun_path);
	if (!rc && listen(fd, 128) < 0)
		rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot listen on %s", listener->path);
	if (rc)
		unlinkat(listener->place, segue_socket_name(listener->path), 0);
	return rc;
}

/* A socket of our own: its descriptor. */
static int make_socket(struct segue_listener *listener)
{
	struct sockaddr_un address;
	struct stat info;
	int fd, rc;

	if (listener->place < 0) {
		listener->path = listener->server->socket_path;
		listener->place = segue_socket_open_place(listener->path);
	}
	if (listener->place < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot bind the socket %s", listener->path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make a socket");
	if ((rc = segue_socket_address(listener->path, listener->place, &address)) ||
		(rc = remove_stale(listener, &address)) ||
		(rc = bind_socket(listener, fd, &address))) {
		close(fd);
		return rc;
	}
	if (fstatat(listener->place, segue_socket_name(listener->path), &info,
		    AT_SYMLINK_NOFOLLOW) == 0)
		listener->inode = info.st_ino;
	return fd;
}

/* Only what is our own. */
static void remove_socket(const struct segue_listener *listener)
{
	const char *name = segue_socket_name(listener->path);
	struct stat info;

	if (fstatat(listener->place, name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
		info.st_ino == listener->inode)
		unlinkat(listener->place, name, 0);
}

/* ---- Time ---- */

static bool is_there(const struct segue_listener *listener)
{
	struct stat info;

	return fstatat(listener->place, segue_socket_name(listener->path), &info,
		       AT_SYMLINK_NOFOLLOW) == 0 ||
	       errno != ENOENT;
}

/* In the place of a directory that was moved there may be another, with a server of its own. */
static int check_place(const struct segue_listener *listener)
{
	int now = segue_socket_open_place(listener->path);
	struct stat ours, there;
	bool same = now >= 0 && fstat(now, &there) == 0 && fstat(listener->place, &ours) == 0 &&
		    there.st_dev == ours.st_dev && there.st_ino == ours.st_ino;

	if (now >= 0)
		close(now);
	return same ? 0 : segue_fail(SEGUE_EGONE, "its directory has been moved, or removed");
}

/* Whoever has connected already is not concerned; who was about to be accepted is, first. */
static int listen_anew(struct segue_listener *listener)
{
	int old = listener->watch.fd, rc = check_place(listener);

	int fd = rc ? rc : make_socket(listener);
	if (fd < 0)
		return fd;
	accept_some(&listener->watch, 0);
	listener->watch.fd = fd;
	rc = segue_loop_add(listener->server->loop, &listener->watch, EPOLLIN);
	if (rc) {
		listener->watch.fd = old;
		remove_socket(listener);
	}
	close(rc ? fd : old);
	return rc;
}

/* A socket file that somebody has removed is made anew: without it nobody finds the server. */
static void look(struct segue_listener *listener)
{
	if (is_there(listener))
		return;
	int rc = listen_anew(listener);
	if (!rc)
		fprintf(stderr, "segue: the socket %s had been removed: it is there again\n",
			listener->path);
	else if (!listener->lost)
		fprintf(stderr,
			"segue: the socket %s has been removed, and cannot be made anew: %s\n",
			listener->path, segue_error_detail());
	listener->lost = rc != 0;
}

static void listen_again(struct segue_listener *listener)
{
	if (listener->reserve < 0)
		listener->reserve = open_reserve();
	listener->again_at = 0;
	segue_loop_change(listener->server->loop, &listener->watch, EPOLLIN);
}

void segue_listener_tick(struct segue_listener *listener, int64_t now)
{
	if (!listener)
		return;
	if (listener->again_at && now >= listener->again_at)
		listen_again(listener);
	if (listener->again_at)
		segue_loop_tick_within(listener->server->loop, listener->again_at);
	if (!listener->inode || listener->again_at)
		return;
	if (now >= listener->look_at) {
		listener->look_at = now + LOOK_MS * INT64_C(1000000);
		look(listener);
	}
	segue_loop_tick_within(listener->server->loop, listener->look_at);
}

/* ---- Life ---- */

static void free_listener(struct segue_listener *listener)
{
	if (listener->place >= 0)
		close(listener->place);
	if (listener->reserve >= 0)
		close(listener->reserve);
	free(listener);
}

int segue_listener_create(struct segue_server *server, int given, struct segue_listener **out)
{
	struct segue_listener *listener = calloc(1, sizeof(*listener));

	if (!listener)
		return segue_fail(SEGUE_ENOMEM, "no memory for the listener");
	listener->server = server;
	listener->place = -1;
	listener->reserve = open_reserve();
	listener->watch.ready = accept_some;
	listener->watch.fd = given >= 0 ? given : make_socket(listener);
	int rc = listener->watch.fd < 0 ? listener->watch.fd
					: segue_loop_add(server->loop, &listener->watch, EPOLLIN);
	if (rc) {
		if (listener->watch.fd >= 0)
			close(listener->watch.fd);
		free_listener(listener);
		return rc;
	}
	*out = listener;
	return 0;
}

void segue_listener_destroy(struct segue_listener *listener)
{
	if (!listener)
		return;
	segue_loop_remove(listener->server->loop, &listener->watch);
	if (listener->inode)
		remove_socket(listener);
	close(listener->watch.fd);
	free_listener(listener);
}
