/* A connection: who it is, its frames, and what it asks for. */
#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/error.h"
#include "core/layout.h"
#include "core/wait.h"
#include "os/process.h"
#include "report/request.h"
#include "session/server.h"

enum {
	HELLO_WITHIN_S = 5,
	FRAME_WITHIN_S = 10,
	PATHS_BYTES_MAX = 1 << 28,
	FRAMES_AT_ONCE = 64,             /* then others have their turn */
	FDS_MAX = 64,                    /* on their way to a peer that does not read */
	PLACE_FDS = 2 + SEGUE_FRAME_FDS, /* of a connection */
	REQUESTS_MAX = 256,              /* in flight, of those that take long */
	SLOW_TO_FREE = 1 << 20,          /* bytes from which on freeing is a task */
};
#define SECOND   INT64_C(1000000000)
#define RETRY_NS INT64_C(20000000) /* the kernel tells nobody when it would take fds again */

/* What a message costs, in frames of the rate: about what it makes the loop do. */
static unsigned cost_of(enum segue_message_type type)
{
	switch (type) {
	case SEGUE_MESSAGE_REPORT:
	case SEGUE_MESSAGE_STREAM_OPEN:
		return 10;
	case SEGUE_MESSAGE_UPLOAD:
	case SEGUE_MESSAGE_LANE_ATTACH:
	case SEGUE_MESSAGE_CHECKPOINT:
		return 4;
	default:
		return 1;
	}
}

/* ---- Out ---- */

static void watch_socket(struct segue_session *session)
{
	uint32_t events =
		(session->paused ? 0u : EPOLLIN) | (session->waiting ? (uint32_t)EPOLLOUT : 0u);

	if (events != session->events)
		segue_loop_change(session->server->loop, &session->socket, events);
	session->events = events;
}

static void flush(struct segue_session *session)
{
	int rc = segue_frame_queue_flush(session->queue, session->socket.fd);

	if (rc < 0) {
		session->closing = true;
		return;
	}
	session->waiting = rc == 1;
	session->retry_at = rc == 2 ? segue_now_ns() + RETRY_NS : 0;
	if (session->retry_at)
		segue_loop_tick_within(session->server->loop, session->retry_at);
	watch_socket(session);
}

/* What its peer has read is not on its way any more. */
static void settle(struct segue_session *session)
{
	int unread = 0;

	if (session->fds_sent == 0 || session->retry_at ||
		ioctl(session->socket.fd, SIOCOUTQ, &unread) < 0 || unread > 0)
		return;
	if (session->fds_paid)
		segue_user_give(session->user, SEGUE_LIMIT_DESCRIPTORS, session->fds_paid);
	session->fds_sent = session->fds_paid = 0;
}

void segue_session_settle(struct segue_server *server)
{
	for (struct segue_session *session = server->sessions; session; session = session->next)
		settle(session);
	for (struct segue_session *session = server->leaving; session; session = session->next)
		settle(session);
}

/*
 * fds that a peer has not taken count against this process, for all its peers together: they are
 * their user's. Those of one answer, which an honest peer has on their way, are paid for with the
 * connection.
 */
static bool may_send_fds(struct segue_session *session, unsigned count)
{
	settle(session);
	unsigned sent = session->fds_sent + count;
	unsigned due = sent > SEGUE_FRAME_FDS ? sent - SEGUE_FRAME_FDS : 0;
	if (sent > FDS_MAX)
		return false;
	if (due > session->fds_paid) {
		unsigned more = due - session->fds_paid;
		if (segue_user_take(session->user, SEGUE_LIMIT_DESCRIPTORS, more))
			return false;
		if (session->fds_paid) /* all are given back as one */
			segue_user_release(session->user);
		session->fds_paid += more;
	}
	session->fds_sent += count;
	return true;
}

void segue_session_send(struct segue_session *session, const struct segue_message *message,
	const int *fds, size_t fd_count)
{
	uint8_t bytes[SEGUE_FRAME_MAX];
	size_t size;

	if (session->closing)
		return;
	if ((fd_count && !may_send_fds(session, (unsigned)fd_count)) ||
		segue_message_pack(message, bytes, &size) ||
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

struct segue_session *segue_session_find(struct segue_server *server, uint64_t id)
{
	struct segue_session *session = server->sessions;

	while (session && session->id != id)
		session = session->next;
	return session;
}

/* ---- Long requests ---- */

int segue_session_take_request(struct segue_session *session)
{
	if (session->server->stopping) /* the client asks the next one */
		return segue_fail(SEGUE_EGONE, "the server is being stopped");
	if (session->requests >= REQUESTS_MAX)
		return segue_fail(SEGUE_ELIMIT,
			"%u reports and checkpoints that this connection has asked for are under "
			"way: the limit is %d",
			session->requests, REQUESTS_MAX);
	session->requests++;
	return 0;
}

static void run_errand(struct segue_task *task)
{
	struct segue_errand *errand = (struct segue_errand *)task;

	errand->rc = segue_errand_given_up(errand)
			     ? segue_fail(SEGUE_EGONE, "the server is being stopped")
			     : errand->work(errand);
	if (errand->rc)
		snprintf(errand->detail, sizeof(errand->detail), "%.*s", SEGUE_ERROR_TEXT - 1,
			segue_error_detail());
}

int segue_errand_run(struct segue_session *session, uint64_t serial, struct segue_errand *errand,
	int (*work)(struct segue_errand *errand), void (*done)(struct segue_task *task))
{
	int rc = segue_session_take_request(session);

	if (rc)
		return rc;
	errand->session = session;
	errand->serial = serial;
	errand->work = work;
	rc = segue_user_run(session->user, &errand->task, run_errand, done);
	if (rc) {
		session->requests--;
		return rc;
	}
	errand->next = session->errands;
	session->errands = errand;
	return 0;
}

struct segue_session *segue_errand_end(struct segue_errand *errand)
{
	struct segue_session *session = errand->session;
	struct segue_errand **link;

	if (!session)
		return NULL;
	for (link = &session->errands; *link != errand;)
		link = &(*link)->next;
	*link = errand->next;
	session->requests--;
	return session;
}

int segue_errand_given_up(void *arg)
{
	struct segue_errand *errand = arg;

	/* relaxed: a hint */
	return atomic_load_explicit(&errand->given_up, memory_order_relaxed);
}

static void give_up_errands(struct segue_session *session)
{
	struct segue_errand *errand = session->errands;

	for (; errand; errand = errand->next)
		atomic_store_explicit(&errand->given_up, true, memory_order_relaxed);
}

void segue_errands_give_up(struct segue_server *server)
{
	for (struct segue_session *session = server->sessions; session; session = session->next)
		give_up_errands(session);
}

static void forget_errands(struct segue_session *session)
{
	give_up_errands(session);
	for (; session->errands; session->errands = session->errands->next)
		session->errands->session = NULL;
}

/* ---- Uploads ---- */

/* A segment that is made, or freed, on a thread of the user's: zeroing takes its time. */
struct upload_task {
	struct segue_task task;
	struct segue_upload *upload;
	uint64_t session, serial;
	int rc;
	char detail[SEGUE_ERROR_TEXT];
};

static void free_upload(struct segue_upload *upload)
{
	struct segue_user *user = upload->user;
	size_t size = upload->size;

	segue_shm_destroy(&upload->shm);
	free(upload);
	segue_user_give(user, SEGUE_LIMIT_DESCRIPTORS, 1);
	segue_user_give(user, SEGUE_LIMIT_UPLOADS, size);
}

static void unmap_upload(struct segue_task *task)
{
	segue_shm_destroy(&((struct upload_task *)task)->upload->shm);
}

static void unmapped(struct segue_task *task)
{
	free_upload(((struct upload_task *)task)->upload);
	free(task);
}

void segue_upload_destroy(struct segue_upload *upload)
{
	struct upload_task *task;

	if (!upload)
		return;
	task = upload->shm.size >= SLOW_TO_FREE ? calloc(1, sizeof(*task)) : NULL;
	if (task) {
		task->upload = upload;
		if (segue_user_run(upload->user, &task->task, unmap_upload, unmapped) == 0)
			return;
	}
	free(task);
	free_upload(upload);
}

int segue_upload_read(struct segue_upload *upload, uint8_t **out, size_t *size)
{
	uint8_t *bytes = malloc(upload->size);
	int rc = bytes ? segue_shm_read(&upload->shm, 0, bytes, upload->size)
		       : segue_fail(SEGUE_ENOMEM, "no memory for an upload of %zu bytes",
				 upload->size);

	segue_shm_destroy(&upload->shm);
	if (rc) {
		free(bytes);
		return rc;
	}
	*out = bytes;
	*size = upload->size;
	return 0;
}

static void make_segment(struct segue_task *base)
{
	struct upload_task *task = (struct upload_task *)base;
	struct segue_upload *upload = task->upload;

	task->rc = segue_shm_create("segue-upload", upload->size, SEGUE_SHM_WRITE, &upload->shm);
	if (task->rc)
		snprintf(task->detail, sizeof(task->detail), "%.*s", SEGUE_ERROR_TEXT - 1,
			segue_error_detail());
}

static void segment_made(struct segue_task *base)
{
	struct upload_task *task = (struct upload_task *)base;
	struct segue_upload *upload = task->upload;
	struct segue_session *session = segue_session_find(base->user->server, task->session);

	if (!session || task->rc) {
		if (session)
			segue_session_fail_text(session, task->serial, task->rc, task->detail);
		segue_upload_destroy(upload);
		free(task);
		return;
	}
	upload->next = session->uploads;
	session->uploads = upload;
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_BULK,
		.serial = task->serial,
		.bulk = {.id = upload->id, .size = upload->size},
	};
	segue_session_send(session, &message, &upload->shm.fd, 1);
	free(task);
}

static int take_for_upload(struct segue_user *user, uint64_t size)
{
	int rc = size ? segue_user_take(user, SEGUE_LIMIT_UPLOADS, size)
		      : segue_fail(SEGUE_EPROTOCOL, "an upload of 0 bytes");
	if (rc)
		return rc;
	rc = segue_user_take(user, SEGUE_LIMIT_DESCRIPTORS, 1);
	if (rc)
		segue_user_give(user, SEGUE_LIMIT_UPLOADS, size);
	return rc;
}

static void make_upload(struct segue_session *session, uint64_t serial, uint64_t size)
{
	struct segue_upload *upload = calloc(1, sizeof(*upload));
	struct upload_task *task = calloc(1, sizeof(*task));
	int rc;

	if (!upload || !task)
		rc = segue_fail(SEGUE_ENOMEM, "no memory for an upload");
	else
		rc = take_for_upload(session->user, size);
	if (rc) {
		free(upload);
		free(task);
		segue_session_fail(session, serial, rc);
		return;
	}
	*upload = (struct segue_upload){.user = session->user,
		.id = ++session->server->next_id,
		.size = size,
		.shm = SEGUE_SHM_NONE};
	*task = (struct upload_task){.upload = upload, .session = session->id, .serial = serial};
	rc = segue_user_run(session->user, &task->task, make_segment, segment_made);
	if (rc) {
		free_upload(upload);
		free(task);
		segue_session_fail(session, serial, rc);
	}
}

/* Takes an upload out of the session. Id 0: none. */
static int take_upload(struct segue_session *session, uint64_t id, struct segue_upload **out)
{
	struct segue_upload **link = &session->uploads;

	*out = NULL;
	if (id == 0)
		return 0;
	while (*link && (*link)->id != id)
		link = &(*link)->next;
	if (!*link)
		return segue_fail(
			SEGUE_EPROTOCOL, "upload %llu does not exist", (unsigned long long)id);
	*out = *link;
	*link = (*out)->next;
	return 0;
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
				.dir = session->server->dir,
				.device = session->server->dir_device,
				.inode = session->server->dir_inode,
			},
	};
	segue_session_send(session, &welcome, NULL, 0);
	return 0;
}

/* Puts paths that came in an upload, each ended by a NUL, into the spec. */
static int add_paths(struct segue_spec *spec, const char *bytes, size_t size)
{
	struct segue_paths *paths = segue_source_paths(&spec->source);
	size_t count = 0;

	if (size == 0 || bytes[size - 1] != '\0' || !paths || paths->count)
		return segue_fail(
			SEGUE_EPROTOCOL, "paths in an upload that are not ended by a NUL");
	for (size_t i = 0; i < size; i++)
		count += bytes[i] == '\0';
	if (count > SEGUE_PATHS_MAX)
		return segue_fail(
			SEGUE_ELIMIT, "%zu paths: the limit is %u", count, SEGUE_PATHS_MAX);
	paths->path = calloc(count, sizeof(*paths->path));
	if (!paths->path)
		return segue_fail(SEGUE_ENOMEM, "no memory for %zu paths", count);
	for (; paths->count < count; paths->count++) {
		paths->path[paths->count] = strdup(bytes);
		if (!paths->path[paths->count])
			return segue_fail(SEGUE_ENOMEM, "no memory for %zu paths", count);
		bytes += strlen(bytes) + 1;
	}
	return 0;
}

static void open_checked(struct segue_session *session, uint64_t serial, struct segue_spec *spec)
{
	int rc = segue_spec_check(spec);

	if (rc) {
		segue_spec_destroy(spec);
		segue_session_fail(session, serial, rc);
		return;
	}
	segue_stream_open_request(session, serial, spec);
}

/* Paths that came in an upload: a list of them may be long. */
struct paths_task {
	struct segue_task task;
	struct segue_upload *upload;
	struct segue_spec *spec;
	uint64_t session, serial;
	int rc;
	char detail[SEGUE_ERROR_TEXT];
};

static void read_paths(struct segue_task *base)
{
	struct paths_task *task = (struct paths_task *)base;
	uint8_t *bytes = NULL;
	size_t size = 0;

	task->rc = segue_upload_read(task->upload, &bytes, &size);
	if (!task->rc)
		task->rc = add_paths(task->spec, (const char *)bytes, size);
	if (task->rc)
		snprintf(task->detail, sizeof(task->detail), "%.*s", SEGUE_ERROR_TEXT - 1,
			segue_error_detail());
	free(bytes);
}

static void paths_read(struct segue_task *base)
{
	struct paths_task *task = (struct paths_task *)base;
	struct segue_session *session = segue_session_find(base->user->server, task->session);

	segue_upload_destroy(task->upload);
	if (!session || task->rc) {
		if (session)
			segue_session_fail_text(session, task->serial, task->rc, task->detail);
		segue_spec_destroy(task->spec);
	} else {
		open_checked(session, task->serial, task->spec);
	}
	free(task);
}

static int start_reading_paths(struct segue_session *session, struct segue_upload *upload,
	const struct segue_message *message)
{
	struct paths_task *task;

	if (upload->size > PATHS_BYTES_MAX)
		return segue_fail(SEGUE_ELIMIT, "%zu bytes of paths: the limit is %d", upload->size,
			PATHS_BYTES_MAX);
	task = calloc(1, sizeof(*task));
	if (!task)
		return segue_fail(SEGUE_ENOMEM, "no memory for a list of paths");
	*task = (struct paths_task){.upload = upload,
		.spec = message->stream_open.spec,
		.session = session->id,
		.serial = message->serial};
	int rc = segue_user_run(session->user, &task->task, read_paths, paths_read);
	if (rc)
		free(task);
	return rc;
}

static void open_stream(struct segue_session *session, const struct segue_message *message)
{
	struct segue_upload *upload;

	int rc = take_upload(session, message->stream_open.paths_upload, &upload);
	if (!rc && !upload) {
		open_checked(session, message->serial, message->stream_open.spec);
		return;
	}
	if (!rc)
		rc = start_reading_paths(session, upload, message);
	if (rc) {
		segue_upload_destroy(upload);
		segue_spec_destroy(message->stream_open.spec);
		segue_session_fail(session, message->serial, rc);
	}
}

static void attach(struct segue_session *session, const struct segue_message *message)
{
	struct segue_upload *upload;

	int rc = take_upload(session, message->lane_attach.upload, &upload);
	if (rc)
		segue_session_fail(session, message->serial, rc);
	else
		segue_attach_request(session, message, upload);
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
	case SEGUE_MESSAGE_STORED:
		segue_stored_request(session, message);
		return true;
	case SEGUE_MESSAGE_REPORT:
		segue_report_request(session, message);
		return true;
	case SEGUE_MESSAGE_STREAM_CLOSE:
		segue_stream_close_request(session, message->serial, message->stream_close.stream);
		return true;
	default:
		segue_session_fail_text(session, message->serial, SEGUE_EPROTOCOL,
			"a message that only servers send");
		return false;
	}
}

/* ---- In ---- */

/* Too many frames: what it sends waits in the socket, and then in the peer. */
static void pause_reading(struct segue_session *session)
{
	session->paused = true;
	session->frame_by = 0;
	watch_socket(session);
	segue_loop_tick_within(session->server->loop, segue_rate_open_at(&session->rate));
}

/* A frame that was begun must be whole in time, or it would hold its memory for ever. */
static void watch_frame(struct segue_session *session, int64_t now)
{
	if (!segue_frame_reader_midway(session->reader))
		session->frame_by = 0;
	else if (session->frame_by == 0)
		session->frame_by = now + FRAME_WITHIN_S * SECOND;
	if (session->frame_by)
		segue_loop_tick_within(session->server->loop, session->frame_by);
}

/* One frame: 1, 0 if none is whole, or a negative code. */
static int read_frame(struct segue_session *session, int64_t now)
{
	const struct segue_limits *limits = &session->server->options.limits;
	struct segue_message message;
	struct segue_frame frame;

	int rc = segue_frame_read(session->reader, session->socket.fd, &frame);
	if (rc == 0)
		return 0;
	if (rc > 0)
		rc = segue_message_unpack(&frame, &session->arena, &message);
	if (rc < 0) {
		if (rc != SEGUE_EGONE)
			segue_session_fail(session, 0, rc);
		return rc;
	}
	session->frame_by = 0;
	segue_rate_take(
		&session->rate, limits->value[SEGUE_LIMIT_FRAMES], cost_of(message.type), now);
	return dispatch(session, &message) ? 1 : SEGUE_EPROTOCOL;
}

static int read_frames(struct segue_session *session)
{
	int64_t now = segue_now_ns();
	int rc = 1;

	/* The reader keeps no bytes of a next frame: epoll tells of those that are left. */
	for (int i = 0; i < FRAMES_AT_ONCE && rc > 0 && !session->closing; i++) {
		if (segue_rate_open_at(&session->rate) > now) {
			pause_reading(session);
			return 0;
		}
		rc = read_frame(session, now);
	}
	if (rc >= 0)
		watch_frame(session, now);
	return rc < 0 ? rc : 0;
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
	if (session->paused)
		closing = (events & (EPOLLHUP | EPOLLERR)) != 0;
	else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
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

static bool admitted(const struct segue_server *server, const struct segue_reader *peer)
{
	const struct segue_options *options = &server->options;

	if (segue_reader_trusted(peer))
		return true;
	for (size_t i = 0; i < options->user_count; i++) {
		if (options->users[i] == peer->uid)
			return true;
	}
	for (size_t i = 0; i < options->group_count; i++) {
		if (segue_reader_in_group(peer, options->groups[i]))
			return true;
	}
	return false;
}

static int identify(struct segue_session *session)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	int rc = segue_reader_of_socket(session->socket.fd, &session->peer);
	if (rc)
		return rc;
	if (!admitted(session->server, &session->peer))
		return segue_fail(SEGUE_EINVAL,
			"uid %u may not use the server of %s, which runs as uid %u (segue serve "
			"--allow-user, --allow-group)",
			(unsigned)session->peer.uid, session->server->dir, (unsigned)geteuid());
	if (getsockopt(session->socket.fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "SO_PEERCRED");
	segue_process_identify(peer.pid, &session->holder);
	int fd = segue_process_watch(session->socket.fd, peer.pid);
	session->process.fd = fd < 0 ? -1 : fd;
	return 0;
}

/* The connection's place among those of its user: the socket, the process's fd, those of an answer. */
static int take_place(struct segue_session *session)
{
	struct segue_user *user = segue_user_join(session->server, session->peer.uid);

	if (!user)
		return segue_fail(SEGUE_ENOMEM, "no memory for a user");
	int rc = segue_user_take(user, SEGUE_LIMIT_CONNECTIONS, 1);
	if (!rc && (rc = segue_user_take(user, SEGUE_LIMIT_DESCRIPTORS, PLACE_FDS)) != 0)
		segue_user_give(user, SEGUE_LIMIT_CONNECTIONS, 1);
	if (rc)
		segue_user_release(user);
	else
		session->user = user;
	return rc;
}

static void destroy(struct segue_session *session)
{
	if (session->process.fd >= 0)
		close(session->process.fd);
	if (session->socket.fd >= 0)
		close(session->socket.fd);
	while (session->uploads) {
		struct segue_upload *next = session->uploads->next;
		segue_upload_destroy(session->uploads);
		session->uploads = next;
	}
	if (session->fds_paid)
		segue_user_give(session->user, SEGUE_LIMIT_DESCRIPTORS, session->fds_paid);
	if (session->user) {
		segue_user_give(session->user, SEGUE_LIMIT_DESCRIPTORS, PLACE_FDS);
		segue_user_give(session->user, SEGUE_LIMIT_CONNECTIONS, 1);
		segue_user_release(session->user);
	}
	segue_reader_finish(&session->peer);
	if (session->reader)
		segue_frame_reader_finish(session->reader);
	free(session->reader);
	segue_frame_queue_destroy(session->queue);
	segue_arena_finish(&session->arena);
	free(session);
}

void segue_session_refuse(int socket, int code)
{
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_FAILURE,
		.failure = {.code = code, .detail = segue_error_detail()},
	};
	uint8_t bytes[SEGUE_FRAME_MAX];
	size_t size;

	/* Deadline 0: a socket without room is not waited for. */
	if (segue_message_pack(&message, bytes, &size) == 0)
		segue_frame_send(socket, (uint16_t)message.type, bytes, size, NULL, 0, 0);
	close(socket);
}

static int set_up(struct segue_session *session)
{
	const struct segue_limits *limits = &session->server->options.limits;

	int rc = identify(session);
	if (!rc)
		rc = take_place(session);
	if (rc)
		return rc;
	session->reader = malloc(sizeof(*session->reader));
	session->queue = segue_frame_queue_create(limits->value[SEGUE_LIMIT_QUEUE]);
	if (!session->reader || !session->queue)
		return segue_fail(SEGUE_ENOMEM, "no memory for a connection");
	segue_frame_reader_init(session->reader, false);
	rc = segue_arena_init(&session->arena, SEGUE_ARENA_SIZE);
	if (rc)
		return rc;
	session->events = EPOLLIN;
	return segue_loop_add(session->server->loop, &session->socket, session->events);
}

void segue_session_create(struct segue_server *server, int socket)
{
	struct segue_session *session = calloc(1, sizeof(*session));

	if (!session) {
		segue_session_refuse(
			socket, segue_fail(SEGUE_ENOMEM, "no memory for a connection"));
		return;
	}
	session->server = server;
	session->id = ++server->next_id;
	session->socket = (struct segue_watch){.fd = socket, .ready = socket_ready};
	session->process = (struct segue_watch){.fd = -1, .ready = process_ended};
	session->hello_by = segue_now_ns() + HELLO_WITHIN_S * SECOND;
	int rc = set_up(session);
	if (rc) {
		segue_session_refuse(socket, rc);
		session->socket.fd = -1;
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

/* fds that the peer has not read stay on their way, and its user's, until it reads or goes, too. */
static void destroy_later(void *arg)
{
	struct segue_session *session = arg;
	struct segue_server *server = session->server;

	shutdown(session->socket.fd, SHUT_RDWR);
	segue_frame_queue_destroy(session->queue);
	session->queue = NULL;
	session->retry_at = 0;
	session->next = server->leaving;
	server->leaving = session;
	segue_loop_tick_within(server->loop, segue_now_ns());
}

static void see_off(struct segue_server *server, int64_t now)
{
	struct segue_session **link = &server->leaving;

	while (*link) {
		struct segue_session *session = *link;
		settle(session);
		if (session->fds_sent) {
			link = &session->next;
			segue_loop_tick_within(server->loop, now + RETRY_NS);
			continue;
		}
		*link = session->next;
		destroy(session);
	}
}

void segue_session_destroy_all(struct segue_server *server)
{
	while (server->leaving) {
		struct segue_session *next = server->leaving->next;
		destroy(server->leaving);
		server->leaving = next;
	}
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
	forget_errands(session);
	segue_stream_session_gone(session);
	/* Callers up the stack may still look at it. */
	segue_loop_post(server->loop, destroy_later, session);
}

/* Says why, and closes. */
static void drop(struct segue_session *session, const char *why)
{
	segue_session_fail_text(session, 0, SEGUE_ETIMEOUT, why);
	segue_session_close(session);
}

static void look(struct segue_session *session, int64_t now)
{
	struct segue_loop *loop = session->server->loop;

	settle(session);
	if (session->retry_at && now >= session->retry_at)
		flush(session);
	else if (session->retry_at)
		segue_loop_tick_within(loop, session->retry_at);
	if (session->closing) {
		segue_session_close(session);
	} else if (!session->greeted && now >= session->hello_by) {
		drop(session, "no HELLO came within 5 s of connecting");
	} else if (session->frame_by && now >= session->frame_by) {
		drop(session, "a frame was begun and was not whole within 10 s");
	} else {
		if (session->paused && segue_rate_open_at(&session->rate) <= now) {
			session->paused = false;
			watch_frame(session, now);
			watch_socket(session);
		}
		if (session->paused)
			segue_loop_tick_within(loop, segue_rate_open_at(&session->rate));
		if (!session->greeted)
			segue_loop_tick_within(loop, session->hello_by);
		if (session->frame_by)
			segue_loop_tick_within(loop, session->frame_by);
	}
}

void segue_session_tick(struct segue_server *server, int64_t now)
{
	for (struct segue_session *session = server->sessions, *next; session; session = next) {
		next = session->next;
		look(session, now);
	}
	see_off(server, now);
}
