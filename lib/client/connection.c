/* The control socket from the client's side. */
#include "client/connection.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/access.h"
#include "core/error.h"
#include "core/layout.h"
#include "core/socket_path.h"
#include "core/wait.h"

#define MILLISECOND   INT64_C(1000000)
#define SLICE_NS      (100 * MILLISECOND) /* how often a waiting call looks for an interrupt */
#define SEND_NS       (30000 * MILLISECOND)
#define FULL_QUEUE_NS (20 * MILLISECOND)
#define TELL_NS       (1000 * MILLISECOND)

int segue_hooks_interrupted(const struct segue_hooks *hooks)
{
	if (hooks->interrupt && hooks->interrupt(hooks->arg))
		return segue_fail(SEGUE_EINTERRUPTED, "interrupted by the caller");
	return 0;
}

int segue_hooks_pause(const struct segue_hooks *hooks, int64_t ns)
{
	int64_t until = segue_now_ns() + ns, left = ns;

	do {
		int rc = segue_hooks_interrupted(hooks);
		if (rc)
			return rc;
		int64_t slice = left < SLICE_NS ? left : SLICE_NS;
		nanosleep(&(struct timespec){.tv_nsec = slice}, NULL);
		left = until - segue_now_ns();
	} while (left > 0);
	return 0;
}

int64_t segue_deadline(int64_t now, int64_t timeout_ns)
{
	return timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
}

int segue_connection_init(struct segue_connection *connection)
{
	*connection = (struct segue_connection){0};
	int rc = segue_fork_guard_init(&connection->guard);
	if (rc)
		return rc;
	rc = segue_arena_init(&connection->arena, SEGUE_ARENA_SIZE);
	if (rc)
		goto no_arena;
	connection->reader = malloc(sizeof(*connection->reader));
	connection->out = malloc(SEGUE_FRAME_MAX);
	if (!connection->reader || !connection->out) {
		rc = segue_fail(SEGUE_ENOMEM, "no memory for a connection");
		goto no_buffers;
	}
	return 0;

no_buffers:
	free(connection->reader);
	free(connection->out);
	segue_arena_finish(&connection->arena);
no_arena:
	segue_fork_guard_finish(&connection->guard);
	return rc;
}

void segue_connection_finish(struct segue_connection *connection)
{
	segue_connection_close(connection);
	free(connection->reader);
	free(connection->out);
	segue_arena_finish(&connection->arena);
	segue_fork_guard_finish(&connection->guard);
}

bool segue_connection_live(const struct segue_connection *connection)
{
	return connection->guard.fd >= 0;
}

void segue_connection_close(struct segue_connection *connection)
{
	if (!segue_connection_live(connection))
		return;
	segue_frame_reader_finish(connection->reader);
	segue_fork_guard_set(&connection->guard, -1);
}

/* ---- Requests ---- */

static void close_fds(const struct segue_frame *frame)
{
	for (unsigned i = 0; i < frame->fd_count; i++)
		close(frame->fds[i]);
}

static unsigned fds_of(enum segue_message_type type)
{
	switch (type) {
	case SEGUE_MESSAGE_ATTACHED:
		return 4;
	case SEGUE_MESSAGE_FOLLOWING:
		return 5;
	case SEGUE_MESSAGE_BULK:
		return 1;
	default:
		return 0;
	}
}

/*
 * One frame while a request waits: 1 if it is the answer, 0 if it is something else. A failure with
 * serial 0 is about the connection as a whole: it answers whatever is being asked.
 */
static int take_message(struct segue_connection *connection, const struct segue_frame *frame,
	enum segue_message_type want, const struct segue_hooks *hooks, struct segue_reply *reply)
{
	struct segue_message *message = &reply->message;
	bool failure = message->type == SEGUE_MESSAGE_FAILURE;
	if (message->serial < connection->serial && !(failure && message->serial == 0)) {
		close_fds(frame);
		return 0;
	}
	if (message->serial > connection->serial || frame->fd_count != fds_of(message->type))
		return segue_fail(SEGUE_EPROTOCOL,
			"the server answered request %" PRIu64
			" with a frame of type %d, serial %" PRIu64 ", %u "
			"fds",
			connection->serial, (int)message->type, message->serial, frame->fd_count);
	if (message->type == SEGUE_MESSAGE_PROGRESS) {
		if (hooks->progress)
			hooks->progress(hooks->arg, message->progress.what, message->progress.done,
				message->progress.total);
		return 0;
	}
	if (message->type != want && !failure)
		return segue_fail(SEGUE_EPROTOCOL,
			"the server answered with a frame of type %d, expected was %d",
			(int)message->type, (int)want);
	if (failure && message->failure.code >= 0)
		return segue_fail(
			SEGUE_EPROTOCOL, "the server failed with code %d", message->failure.code);
	memcpy(reply->fds, frame->fds, sizeof(reply->fds));
	return 1;
}

static int take_frame(struct segue_connection *connection, const struct segue_frame *frame,
	enum segue_message_type want, const struct segue_hooks *hooks, struct segue_reply *reply)
{
	int rc = segue_message_unpack(frame, &connection->arena, &reply->message);

	if (rc)
		return rc;
	rc = take_message(connection, frame, want, hooks, reply);
	if (rc <= 0)
		segue_message_finish(&reply->message);
	return rc;
}

/* Waits until the socket can be read; looks for an interrupt when that takes a while. */
static int await_input(int socket, int64_t deadline_ns, const struct segue_hooks *hooks)
{
	struct pollfd entry = {.fd = socket, .events = POLLIN};
	int64_t left = deadline_ns == INT64_MAX ? SLICE_NS : deadline_ns - segue_now_ns();

	if (left <= 0)
		return segue_fail(SEGUE_ETIMEOUT, "the server did not answer in time: is it "
						  "stopped, or its disk? (segue status)");
	if (left > SLICE_NS)
		left = SLICE_NS;
	int ready = poll(&entry, 1, (int)((left + MILLISECOND - 1) / MILLISECOND));
	if (ready > 0)
		return 0;
	if (ready < 0 && errno != EINTR)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot wait for the server");
	return segue_hooks_interrupted(hooks);
}

static int await_reply(struct segue_connection *connection, enum segue_message_type want,
	int64_t deadline_ns, const struct segue_hooks *hooks, struct segue_reply *reply)
{
	for (;;) {
		struct segue_frame frame;
		int rc = segue_frame_read(connection->reader, connection->guard.fd, &frame);
		if (!rc) {
			rc = await_input(connection->guard.fd, deadline_ns, hooks);
			if (rc)
				return rc;
			continue;
		}
		if (rc < 0)
			return rc;
		rc = take_frame(connection, &frame, want, hooks, reply);
		if (rc < 0)
			close_fds(&frame);
		if (rc)
			return rc < 0 ? rc : 0;
	}
}

/*
 * Whether nobody need know how the request ended: it changes nothing that the server holds for this
 * client. What answers it later is dropped.
 */
static bool can_be_left(const struct segue_message *request)
{
	switch (request->type) {
	case SEGUE_MESSAGE_REPORT:
	case SEGUE_MESSAGE_STREAM_FIND:
	case SEGUE_MESSAGE_STORED:
	case SEGUE_MESSAGE_CHECKPOINT:
	case SEGUE_MESSAGE_LANE_FLUSH:
	case SEGUE_MESSAGE_PRODUCER_WAIT:
		return true;
	case SEGUE_MESSAGE_LANE_ATTACH:
		return request->lane_attach.mode == SEGUE_ATTACH_CHECK;
	default:
		return false;
	}
}

/* `sent`: the whole request is. */
static int exchange(struct segue_connection *connection, struct segue_message *request, size_t size,
	enum segue_message_type want, int64_t deadline_ns, const struct segue_hooks *hooks,
	struct segue_reply *reply, bool *sent)
{
	int64_t patience = segue_now_ns() + SEND_NS;
	int rc = segue_frame_send(connection->guard.fd, (uint16_t)request->type, connection->out,
		size, NULL, 0, deadline_ns < patience ? deadline_ns : patience);

	*sent = !rc;
	/* A server that hangs up may have said why before. */
	if (!rc || rc == SEGUE_EGONE)
		rc = await_reply(connection, want, deadline_ns, hooks, reply);
	return rc;
}

int segue_connection_call(struct segue_connection *connection, struct segue_message *request,
	enum segue_message_type want, int64_t timeout_ns, const struct segue_hooks *hooks,
	struct segue_reply *reply)
{
	bool sent;
	size_t size;

	if (!segue_connection_live(connection))
		return segue_fail(SEGUE_EGONE, "the connection to the server is lost");
	if (connection->busy)
		return segue_fail(SEGUE_EINVAL, "a call was made from within a callback of another "
						"one of the same client: make it after that");
	request->serial = ++connection->serial;
	int rc = segue_message_pack(request, connection->out, &size);
	if (rc)
		return rc;
	connection->busy = true;
	connection->leavable = can_be_left(request);
	rc = exchange(connection, request, size, want, segue_deadline(segue_now_ns(), timeout_ns),
		hooks, reply, &sent);
	connection->busy = false;
	if (rc) {
		bool left = (rc == SEGUE_EINTERRUPTED || rc == SEGUE_ETIMEOUT) && sent;
		if (!left || !can_be_left(request))
			segue_connection_close(connection);
		return rc;
	}
	if (reply->message.type == SEGUE_MESSAGE_FAILURE)
		return segue_fail(reply->message.failure.code, "%s", reply->message.failure.detail);
	return 0;
}

void segue_connection_tell(struct segue_connection *connection, struct segue_message *request)
{
	size_t size;

	if (!segue_connection_live(connection) || connection->busy)
		return;
	request->serial = ++connection->serial;
	if (segue_message_pack(request, connection->out, &size) ||
		segue_frame_send(connection->guard.fd, (uint16_t)request->type, connection->out,
			size, NULL, 0, segue_now_ns() + TELL_NS))
		segue_connection_close(connection);
}

int segue_connection_check(struct segue_connection *connection)
{
	struct segue_frame frame;
	int rc;

	if (!segue_connection_live(connection))
		return segue_fail(SEGUE_EGONE, "the connection to the server is lost");
	while ((rc = segue_frame_read(connection->reader, connection->guard.fd, &frame)) > 0)
		close_fds(&frame);
	if (!rc)
		return 0;
	segue_connection_close(connection);
	return SEGUE_EGONE;
}

/* ---- Connecting ---- */

static uint64_t connections; /* that were made; under segue_fork_lock() */

static int fail_access(const char *path)
{
	bool found = access(path, F_OK) == 0;
	int rc = segue_fail_access(SEGUE_ESYSTEM, path);

	return found ? segue_fail_within(rc,
			       "a server lets others in by --allow-user and --allow-group alone")
		     : rc;
}

/* By errno. */
static int fail_connect(const char *path)
{
	bool nobody = errno == ENOENT || errno == ECONNREFUSED || errno == EAGAIN;

	if (errno == ENOTDIR)
		return segue_fail_no_directory(path);
	if (errno == EACCES)
		return fail_access(path);
	return segue_fail_errno(
		nobody ? SEGUE_EGONE : SEGUE_ESYSTEM, "no server answers at %s", path);
}

static int connect_socket(int fd, const char *path, const struct sockaddr_un *address,
	int64_t deadline_ns, const struct segue_hooks *hooks)
{
	while (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN || segue_now_ns() >= deadline_ns)
			return fail_connect(path);
		/* Too many wait to be accepted: that passes. */
		int rc = segue_hooks_pause(hooks, FULL_QUEUE_NS);
		if (rc)
			return rc;
	}
	return 0;
}

/* A socket, or a negative code. */
static int connect_to(const char *path, int64_t deadline_ns, const struct segue_hooks *hooks)
{
	struct sockaddr_un address;
	bool is_short = segue_socket_is_short(path);
	int fd, rc, place = is_short ? -1 : segue_socket_open_place(path);

	if (!is_short && place < 0)
		return fail_connect(path);
	rc = segue_socket_address(path, place, &address);
	fd = rc ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (!rc && fd < 0)
		rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot make a socket");
	if (!rc)
		rc = connect_socket(fd, path, &address, deadline_ns, hooks);
	if (rc && fd >= 0)
		close(fd);
	if (place >= 0)
		close(place);
	return rc ? rc : fd;
}

/*
 * A socket that is given by hand may be that of another store. By device and inode, because paths
 * have many forms; a directory that we may not look at is taken at the server's word.
 */
static int check_store(struct segue_connection *connection, const struct segue_message *welcome,
	const char *path, const char *dir)
{
	struct stat info;

	segue_fork_lock();
	connection->number = ++connections;
	segue_fork_unlock();
	connection->instance = welcome->welcome.instance;
	connection->device = welcome->welcome.device;
	connection->inode = welcome->welcome.inode;
	if (connection->inode == 0)
		return 0;
	bool seen = stat(dir, &info) == 0;
	if (seen && info.st_dev == welcome->welcome.device && info.st_ino == welcome->welcome.inode)
		return 0;
	if (!seen && (errno == EACCES || strcmp(dir, welcome->welcome.dir) == 0))
		return 0;
	return segue_fail(SEGUE_EINVAL,
		"the server at %s is that of %s, not of %s: give the socket of the directory's own "
		"server, or none (socket=; of commands --socket, SEGUE_SOCKET)",
		path, welcome->welcome.dir, dir);
}

static int greet(struct segue_connection *connection, const char *path, const char *dir,
	int64_t deadline_ns, const struct segue_hooks *hooks)
{
	struct segue_reply reply;
	struct segue_message hello = {
		.type = SEGUE_MESSAGE_HELLO,
		.hello = {.protocol = SEGUE_PROTOCOL,
			.layout_version = SEGUE_LAYOUT_VERSION,
			.version = SEGUE_VERSION_STRING,
			.program = program_invocation_short_name},
	};
	int rc = segue_connection_call(connection, &hello, SEGUE_MESSAGE_WELCOME,
		deadline_ns - segue_now_ns(), hooks, &reply);

	if (rc)
		return rc;
	if (reply.message.welcome.protocol != SEGUE_PROTOCOL ||
		reply.message.welcome.layout_version != SEGUE_LAYOUT_VERSION)
		return segue_fail(SEGUE_EVERSION,
			"the server is segue %s (protocol %u, layout %u), this library is %s "
			"(protocol %d, layout %d): use the same version on both sides",
			reply.message.welcome.version, reply.message.welcome.protocol,
			reply.message.welcome.layout_version, SEGUE_VERSION_STRING, SEGUE_PROTOCOL,
			SEGUE_LAYOUT_VERSION);
	return check_store(connection, &reply.message, path, dir);
}

int segue_connection_open(struct segue_connection *connection, const char *path, const char *dir,
	int64_t deadline_ns, const struct segue_hooks *hooks)
{
	int fd = connect_to(path, deadline_ns, hooks);

	if (fd < 0)
		return fd;
	segue_frame_reader_init(connection->reader, true);
	segue_fork_guard_set(&connection->guard, fd);
	int rc = greet(connection, path, dir, deadline_ns, hooks);
	if (rc) {
		segue_connection_close(connection);
		return segue_fail_within(rc, "%s", path);
	}
	return 0;
}
