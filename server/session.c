/* A connection: who it is, its frames, and what it asks for. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "error.h"
#include "layout.h"
#include "process.h"
#include "report.h"
#include "server.h"
#include "wait.h"

enum {
	QUEUE_LIMIT = 1 << 20, /* bytes that wait for a peer that does not read */
	HELLO_WITHIN_S = 5,
	PATHS_MAX = 1 << 20,
	FRAMES_AT_ONCE = 64, /* then others have their turn */
};
#define UPLOAD_LIMIT (UINT64_C(1) << 32) /* bytes of uploads of one user */

/* ---- Out ---- */

static void flush(struct segue_session *session)
{
	int rc = segue_frame_queue_flush(session->queue, session->socket.fd);

	if (rc < 0)
		session->closing = true;
	else
		segue_loop_change(
			session->server->loop, &session->socket, rc ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void segue_session_send(struct segue_session *session, const struct segue_message *message,
	const int *fds, size_t fd_count)
{
	uint8_t bytes[SEGUE_FRAME_MAX];
	size_t size;

	if (session->closing)
		return;
	if (segue_message_pack(message, bytes, &size) ||
		segue_frame_queue_push(
			session->queue, (uint16_t)message->type, bytes, size, fds, fd_count))
		session->closing = true;
	else
		flush(session);
}

void segue_session_fail_text(
	struct segue_session *session, uint64_t serial, int code, const char *detail)
{
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_FAILURE,
		.serial = serial,
		.failure = {.code = code, .detail = detail},
	};

	segue_session_send(session, &message, NULL, 0);
}

void segue_session_fail(struct segue_session *session, uint64_t serial, int code)
{
	segue_session_fail_text(session, serial, code, segue_error_detail());
}

void segue_session_send_bulk(struct segue_session *session, uint64_t serial, uint64_t step,
	const void *bytes, size_t size)
{
	struct segue_shm shm;

	int rc = segue_shm_create("segue-bulk", size ? size : 1, SEGUE_SHM_READ, &shm);
	if (rc) {
		segue_session_fail(session, serial, rc);
		return;
	}
	memcpy(shm.map, bytes, size);
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_BULK,
		.serial = serial,
		.bulk = {.size = size, .step = step},
	};
	segue_session_send(session, &message, &shm.fd, 1);
	segue_shm_destroy(&shm);
}

/* ---- Uploads ---- */

static uint64_t uploads_of(const struct segue_server *server, uid_t uid)
{
	uint64_t bytes = 0;

	for (const struct segue_session *session = server->sessions; session;
		session = session->next)
		bytes += session->uid == uid ? session->upload_bytes : 0;
	return bytes;
}

static void make_upload(struct segue_session *session, uint64_t serial, uint64_t size)
{
	struct segue_upload *upload = calloc(1, sizeof(*upload));
	int rc;

	if (!upload)
		rc = segue_fail(SEGUE_ENOMEM, "no memory for an upload");
	else if (size == 0 || size > UPLOAD_LIMIT - uploads_of(session->server, session->uid))
		rc = segue_fail(SEGUE_ELIMIT,
			"an upload of %llu bytes: a user may have %llu under way",
			(unsigned long long)size, (unsigned long long)UPLOAD_LIMIT);
	else
		rc = segue_shm_create("segue-upload", size, SEGUE_SHM_WRITE, &upload->shm);
	if (rc) {
		free(upload);
		segue_session_fail(session, serial, rc);
		return;
	}
	upload->id = ++session->server->next_id;
	upload->size = size;
	upload->next = session->uploads;
	session->uploads = upload;
	session->upload_bytes += size;
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_BULK,
		.serial = serial,
		.bulk = {.id = upload->id, .size = size},
	};
	segue_session_send(session, &message, &upload->shm.fd, 1);
}

/* Reads an upload into private memory and drops it. Id 0: none. */
static int take_upload(struct segue_session *session, uint64_t id, uint8_t **out, size_t *size)
{
	struct segue_upload **link = &session->uploads, *upload;

	*out = NULL;
	*size = 0;
	if (id == 0)
		return 0;
	while (*link && (*link)->id != id)
		link = &(*link)->next;
	upload = *link;
	if (!upload)
		return segue_fail(
			SEGUE_EPROTOCOL, "upload %llu does not exist", (unsigned long long)id);
	*link = upload->next;
	session->upload_bytes -= upload->size;
	uint8_t *bytes = malloc(upload->size);
	int rc = bytes ? segue_shm_read(&upload->shm, 0, bytes, upload->size)
		       : segue_fail(SEGUE_ENOMEM, "no memory for an upload");
	if (rc) {
		free(bytes);
	} else {
		*out = bytes;
		*size = upload->size;
	}
	segue_shm_destroy(&upload->shm);
	free(upload);
	return rc;
}

/* ---- Requests ---- */

static int hello(struct segue_session *session, const struct segue_message *message)
{
	if (session->greeted)
		return segue_fail(SEGUE_EPROTOCOL, "a second HELLO");
	if (message->hello.protocol != SEGUE_PROTOCOL ||
		message->hello.layout_version != SEGUE_LAYOUT_VERSION)
		return segue_fail(SEGUE_EVERSION,
			"the client (segue %s) speaks protocol %u, layout %u; the server (segue "
			"%s) "
			"protocol %u, layout %u: use the same version on both sides",
			message->hello.version, message->hello.protocol,
			message->hello.layout_version, SEGUE_VERSION_STRING, SEGUE_PROTOCOL,
			SEGUE_LAYOUT_VERSION);
	session->greeted = true;
	strncpy(session->program, message->hello.program, sizeof(session->program) - 1);
	const struct segue_message welcome = {
		.type = SEGUE_MESSAGE_WELCOME,
		.serial = message->serial,
		.welcome =
			{
				.protocol = SEGUE_PROTOCOL,
				.layout_version = SEGUE_LAYOUT_VERSION,
				.version = SEGUE_VERSION_STRING,
				.pid = getpid(),
				.instance = session->server->instance,
			},
	};
	segue_session_send(session, &welcome, NULL, 0);
	return 0;
}

/* Puts paths that came in an upload, each ended by a NUL, into the spec. */
static int add_paths(struct segue_spec *spec, const char *bytes, size_t size)
{
	size_t count = 0;

	if (size == 0 || bytes[size - 1] != '\0' || spec->path_count)
		return segue_fail(
			SEGUE_EPROTOCOL, "paths in an upload that are not ended by a NUL");
	for (size_t i = 0; i < size; i++)
		count += bytes[i] == '\0';
	if (count > PATHS_MAX)
		return segue_fail(SEGUE_ELIMIT, "%zu paths: the limit is %d", count, PATHS_MAX);
	char **paths = calloc(count, sizeof(*paths));
	if (!paths)
		return segue_fail(SEGUE_ENOMEM, "no memory for %zu paths", count);
	free(spec->paths);
	spec->paths = paths;
	for (; spec->path_count < count; spec->path_count++) {
		paths[spec->path_count] = strdup(bytes);
		if (!paths[spec->path_count])
			return segue_fail(SEGUE_ENOMEM, "no memory for %zu paths", count);
		bytes += strlen(bytes) + 1;
	}
	return 0;
}

static void open_stream(struct segue_session *session, const struct segue_message *message)
{
	struct segue_spec *spec = message->stream_open.spec;
	uint8_t *bytes;
	size_t size;

	int rc = take_upload(session, message->stream_open.paths_upload, &bytes, &size);
	if (!rc && bytes)
		rc = add_paths(spec, (const char *)bytes, size);
	free(bytes);
	if (!rc)
		rc = segue_spec_check(spec);
	if (rc) {
		segue_spec_destroy(spec);
		segue_session_fail(session, message->serial, rc);
		return;
	}
	segue_stream_open_request(session, message->serial, spec);
}

static void attach(struct segue_session *session, const struct segue_message *message)
{
	uint8_t *bulk;
	size_t size;

	int rc = take_upload(session, message->lane_attach.upload, &bulk, &size);
	if (rc)
		segue_session_fail(session, message->serial, rc);
	else
		segue_attach_request(session, message, bulk, size);
}

/* False: the connection is of no further use. */
static bool dispatch(struct segue_session *session, const struct segue_message *message)
{
	if (!session->greeted && message->type != SEGUE_MESSAGE_HELLO) {
		if (message->type == SEGUE_MESSAGE_STREAM_OPEN)
			segue_spec_destroy(message->stream_open.spec);
		segue_session_fail_text(session, message->serial, SEGUE_EPROTOCOL,
			"the first message must be HELLO");
		return false;
	}
	switch (message->type) {
	case SEGUE_MESSAGE_HELLO: {
		int rc = hello(session, message);
		if (rc)
			segue_session_fail(session, message->serial, rc);
		return rc == 0;
	}
	case SEGUE_MESSAGE_STREAM_OPEN:
		open_stream(session, message);
		return true;
	case SEGUE_MESSAGE_LANE_ATTACH:
		attach(session, message);
		return true;
	case SEGUE_MESSAGE_LANE_DETACH:
		segue_detach_request(session, message->serial, message->lane_detach.lease);
		return true;
	case SEGUE_MESSAGE_LANE_FLUSH:
		segue_flush_request(session, message->serial, message->lane_flush.lease);
		return true;
	case SEGUE_MESSAGE_UPLOAD:
		make_upload(session, message->serial, message->upload.size);
		return true;
	case SEGUE_MESSAGE_CHECKPOINT:
		segue_checkpoint_request(session, message);
		return true;
	case SEGUE_MESSAGE_REPORT:
		segue_report_request(session, message);
		return true;
	default:
		segue_session_fail_text(session, message->serial, SEGUE_EPROTOCOL,
			"a message that only servers send");
		return false;
	}
}

/* ---- In ---- */

static int read_frames(struct segue_session *session)
{
	struct segue_message message;
	struct segue_frame frame;
	int rc;

	/* The reader keeps no bytes of a next frame: epoll tells of those that are left. */
	for (int i = 0; i < FRAMES_AT_ONCE && !session->closing &&
			(rc = segue_frame_read(session->reader, session->socket.fd, &frame)) != 0;
		i++) {
		if (rc > 0)
			rc = segue_message_unpack(&frame, &session->arena, &message);
		if (rc < 0) {
			if (rc != SEGUE_EGONE)
				segue_session_fail(session, 0, rc);
			return rc;
		}
		if (!dispatch(session, &message))
			return SEGUE_EPROTOCOL;
	}
	return 0;
}

static struct segue_session *session_of_socket(struct segue_watch *watch)
{
	return (struct segue_session *)((char *)watch - offsetof(struct segue_session, socket));
}

static void socket_ready(struct segue_watch *watch, uint32_t events)
{
	struct segue_session *session = session_of_socket(watch);
	bool closing = false;

	if (events & EPOLLOUT)
		flush(session);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		closing = read_frames(session) < 0;
	if (closing || session->closing)
		segue_session_close(session);
}

/* The process has ended, even if a child of it still has the socket. */
static void process_ended(struct segue_watch *watch, uint32_t events)
{
	(void)events;
	segue_session_close(
		(struct segue_session *)((char *)watch - offsetof(struct segue_session, process)));
}

/* ---- Life ---- */

static int identify(struct segue_session *session)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(session->socket.fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "SO_PEERCRED");
	session->uid = peer.uid;
	segue_process_identify(peer.pid, &session->holder);
	if (peer.uid != geteuid() && peer.uid != 0)
		return segue_fail(
			SEGUE_EINVAL, "uid %u may not use a server of uid %u", peer.uid, geteuid());
	if (peer.pid > 0) {
		int fd = segue_process_watch(peer.pid);
		session->process.fd = fd < 0 ? -1 : fd;
	}
	return 0;
}

static void destroy(struct segue_session *session)
{
	if (session->process.fd >= 0)
		close(session->process.fd);
	close(session->socket.fd);
	while (session->uploads) {
		struct segue_upload *next = session->uploads->next;
		segue_shm_destroy(&session->uploads->shm);
		free(session->uploads);
		session->uploads = next;
	}
	if (session->reader)
		segue_frame_reader_finish(session->reader);
	free(session->reader);
	segue_frame_queue_destroy(session->queue);
	segue_arena_finish(&session->arena);
	free(session);
}

void segue_session_create(struct segue_server *server, int socket)
{
	struct segue_session *session = calloc(1, sizeof(*session));

	if (!session) {
		close(socket);
		return;
	}
	session->server = server;
	session->socket = (struct segue_watch){.fd = socket, .ready = socket_ready};
	session->process = (struct segue_watch){.fd = -1, .ready = process_ended};
	session->hello_by = segue_now_ns() + HELLO_WITHIN_S * INT64_C(1000000000);
	session->reader = malloc(sizeof(*session->reader));
	session->queue = segue_frame_queue_create(QUEUE_LIMIT);
	if (session->reader)
		segue_frame_reader_init(session->reader, false);
	if (!session->reader || !session->queue ||
		segue_arena_init(&session->arena, SEGUE_ARENA_SIZE) || identify(session) ||
		segue_loop_add(server->loop, &session->socket, EPOLLIN)) {
		destroy(session);
		return;
	}
	if (session->process.fd >= 0 && segue_loop_add(server->loop, &session->process, EPOLLIN)) {
		close(session->process.fd);
		session->process.fd = -1;
	}
	session->next = server->sessions;
	server->sessions = session;
	server->had_sessions = true;
	segue_loop_tick_within(server->loop, session->hello_by);
}

static void destroy_later(void *arg)
{
	destroy(arg);
}

void segue_session_close(struct segue_session *session)
{
	struct segue_server *server = session->server;
	struct segue_session **link = &server->sessions;

	while (*link && *link != session)
		link = &(*link)->next;
	if (!*link)
		return;
	*link = session->next;
	session->closing = true;
	segue_loop_remove(server->loop, &session->socket);
	if (session->process.fd >= 0)
		segue_loop_remove(server->loop, &session->process);
	segue_stream_session_gone(session);
	/* Callers up the stack may still look at it. */
	segue_loop_post(server->loop, destroy_later, session);
}

void segue_session_tick(struct segue_server *server, int64_t now)
{
	for (struct segue_session *session = server->sessions, *next; session; session = next) {
		next = session->next;
		if (session->closing || (!session->greeted && now >= session->hello_by))
			segue_session_close(session);
		else if (!session->greeted)
			segue_loop_tick_within(server->loop, session->hello_by);
	}
}
