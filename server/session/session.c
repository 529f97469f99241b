/* A connection: its frames in and out, its place among those of its account, its end. */
#include "session/session.h"

#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/error.h"
#include "core/shm.h"
#include "core/wait.h"
#include "os/process.h"

enum {
	HELLO_WITHIN_S = 5,
	FRAME_WITHIN_S = 10,
	FRAMES_AT_ONCE = 64,             /* then others have their turn */
	FDS_MAX = 64,                    /* on their way to a peer that does not read */
	PLACE_FDS = 2 + SEGUE_FRAME_FDS, /* of a connection */
};
#define SECOND   INT64_C(1000000000)
#define RETRY_NS INT64_C(20000000) /* the kernel tells nobody when it would take fds again */

/* ---- States ---- */

/* They follow one another, and some may be left out. False: it cannot be that any more. */
static bool become(struct segue_session *session, enum segue_session_state state)
{
	if (state <= session->state)
		return false;
	session->state = state;
	return true;
}

void segue_session_greet(struct segue_session *session, const char *program)
{
	if (become(session, SEGUE_SESSION_SERVED))
		strncpy(session->program, program, sizeof(session->program) - 1);
}

void segue_session_hang_up(struct segue_session *session)
{
	become(session, SEGUE_SESSION_FAILED);
}

bool segue_session_peer_left(const struct segue_session *session)
{
	struct pollfd socket = {.fd = session->socket.fd, .events = POLLRDHUP};

	return poll(&socket, 1, 0) == 1;
}

bool segue_session_is_paused(const struct segue_session *session)
{
	return !(session->events & EPOLLIN);
}

/* ---- Out ---- */

static void watch(struct segue_session *session, uint32_t event, bool on)
{
	uint32_t events = on ? session->events | event : session->events & ~event;

	if (events != session->events)
		segue_loop_change(session->server->loop, &session->socket, events);
	session->events = events;
}

static void flush(struct segue_session *session)
{
	int rc = segue_frame_queue_flush(session->queue, session->socket.fd);

	if (rc < 0) {
		segue_session_hang_up(session);
		return;
	}
	session->retry_at = rc == 2 ? segue_now_ns() + RETRY_NS : 0;
	if (session->retry_at)
		segue_loop_tick_within(session->server->loop, session->retry_at);
	watch(session, EPOLLOUT, rc == 1);
}

/* What its peer has read is not on its way any more. */
static void settle(struct segue_session *session)
{
	int unread = 0;

	if (session->fds_sent == 0 || session->retry_at ||
		ioctl(session->socket.fd, SIOCOUTQ, &unread) < 0 || unread > 0)
		return;
	segue_account_give(session->account, SEGUE_LIMIT_DESCRIPTORS, session->fds_paid);
	session->fds_sent = session->fds_paid = 0;
}

int segue_sessions_take(struct segue_server *server, struct segue_account *account,
	enum segue_limit limit, uint64_t more)
{
	struct segue_session *session;
	int rc = segue_account_take(account, limit, more);

	if (!rc || limit != SEGUE_LIMIT_DESCRIPTORS)
		return rc;
	LIST_FOREACH(session, &server->sessions->all, link)
		settle(session);
	LIST_FOREACH(session, &server->sessions->leaving, link)
		settle(session);
	return segue_account_take(account, limit, more);
}

/*
 * fds that a peer has not taken count against this process, for all its peers together: they are
 * their account's. Those of one answer, which an honest peer has on their way, are paid for with
 * the connection.
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
		if (segue_sessions_take(
			    session->server, session->account, SEGUE_LIMIT_DESCRIPTORS, more))
			return false;
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

	if (session->state >= SEGUE_SESSION_FAILED)
		return;
	if ((fd_count && !may_send_fds(session, (unsigned)fd_count)) ||
		segue_message_pack(message, bytes, &size) ||
		segue_frame_queue_push(
			session->queue, (uint16_t)message->type, bytes, size, fds, fd_count))
		segue_session_hang_up(session);
	else
		flush(session);
}

void segue_session_fail(struct segue_session *session, uint64_t serial, int code)
{
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_FAILURE,
		.serial = serial,
		.failure = {.code = code, .detail = segue_error_detail()},
	};

	segue_session_send(session, &message, NULL, 0);
}

void segue_session_send_done(struct segue_session *session, uint64_t serial)
{
	const struct segue_message message = {.type = SEGUE_MESSAGE_DONE, .serial = serial};

	segue_session_send(session, &message, NULL, 0);
}

void segue_session_send_bulk_with(struct segue_session *session, struct segue_message *message,
	const void *bytes, size_t size)
{
	struct segue_shm shm;

	int rc = segue_shm_create("segue-bulk", size ? size : 1, SEGUE_SHM_READ, &shm);
	if (rc) {
		segue_session_fail(session, message->serial, rc);
		return;
	}
	memcpy(shm.map, bytes, size);
	message->type = SEGUE_MESSAGE_BULK;
	message->bulk.size = size;
	segue_session_send(session, message, &shm.fd, 1);
	segue_shm_destroy(&shm);
}

void segue_session_send_bulk(
	struct segue_session *session, uint64_t serial, const void *bytes, size_t size)
{
	struct segue_message message = {.serial = serial};

	segue_session_send_bulk_with(session, &message, bytes, size);
}

/* ---- In ---- */

/* Too many frames: what it sends waits in the socket, and then in the peer. */
static void pause_reading(struct segue_session *session)
{
	session->frame_by = 0;
	watch(session, EPOLLIN, false);
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
	struct segue_server *server = session->server;
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
	unsigned cost = server->sessions->received(session, &message);
	segue_rate_take(
		&session->rate, segue_guard_limit(server->guard, SEGUE_LIMIT_FRAMES), cost, now);
	return 1;
}

static int read_frames(struct segue_session *session)
{
	int64_t now = segue_now_ns();
	int rc = 1;

	/* The reader keeps no bytes of a next frame: epoll tells of those that are left. */
	for (int i = 0; i < FRAMES_AT_ONCE && rc > 0 && session->state < SEGUE_SESSION_FAILED;
		i++) {
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

static void socket_ready(struct segue_watch *watch, uint32_t events)
{
	struct segue_session *session = SEGUE_CONTAINER(watch, struct segue_session, socket);
	bool closing = false;

	if (events & EPOLLOUT)
		flush(session);
	if (segue_session_is_paused(session))
		closing = (events & (EPOLLHUP | EPOLLERR)) != 0;
	else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		closing = read_frames(session) < 0;
	if (closing || session->state == SEGUE_SESSION_FAILED)
		segue_session_close(session);
}

/* The process has ended, even if a child of it still has the socket. */
static void process_ended(struct segue_watch *watch, uint32_t events)
{
	(void)events;
	segue_session_close(SEGUE_CONTAINER(watch, struct segue_session, process));
}

/* ---- Life ---- */

static int identify(struct segue_session *session)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	int rc = segue_guard_admit(session->server->guard, session->socket.fd, &session->account);
	if (rc)
		return rc;
	if (getsockopt(session->socket.fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot learn who has connected");
	segue_process_identify(peer.pid, &session->holder);
	int fd = segue_process_watch(session->socket.fd, peer.pid);
	session->process.fd = fd < 0 ? -1 : fd;
	return 0;
}

/*
 * The connection's place among those of its user: the socket, the process's fd, those of an
 * answer.
 */
static int take_place(struct segue_session *session)
{
	struct segue_account *account = session->account;

	int rc = segue_account_take(account, SEGUE_LIMIT_CONNECTIONS, 1);
	if (rc)
		return rc;
	rc = segue_sessions_take(session->server, account, SEGUE_LIMIT_DESCRIPTORS, PLACE_FDS);
	if (rc)
		segue_account_give(account, SEGUE_LIMIT_CONNECTIONS, 1);
	return rc;
}

static void give_place_back(struct segue_session *session)
{
	segue_account_give(
		session->account, SEGUE_LIMIT_DESCRIPTORS, PLACE_FDS + session->fds_paid);
	segue_account_give(session->account, SEGUE_LIMIT_CONNECTIONS, 1);
}

static void destroy(struct segue_session *session)
{
	if (session->process.fd >= 0)
		close(session->process.fd);
	if (session->socket.fd >= 0)
		close(session->socket.fd);
	segue_account_release(session->account);
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

static int make_buffers(struct segue_session *session)
{
	session->reader = malloc(sizeof(*session->reader));
	if (session->reader)
		segue_frame_reader_init(session->reader, false);
	session->queue = segue_frame_queue_create(
		segue_guard_limit(session->server->guard, SEGUE_LIMIT_QUEUE));
	if (!session->reader || !session->queue)
		return segue_fail(SEGUE_ENOMEM, "no memory for a connection");
	return segue_arena_init(&session->arena, SEGUE_ARENA_SIZE);
}

static int set_up(struct segue_session *session)
{
	int rc = identify(session);

	if (!rc)
		rc = make_buffers(session);
	if (!rc)
		rc = take_place(session);
	if (rc)
		return rc;
	session->events = EPOLLIN;
	rc = segue_loop_add(session->server->loop, &session->socket, session->events);
	if (rc)
		give_place_back(session);
	return rc;
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
	LIST_INSERT_HEAD(&server->sessions->all, session, link);
	server->sessions->any = true;
	segue_loop_tick_within(server->loop, session->hello_by);
}

static void take_leave(struct segue_session *session)
{
	LIST_REMOVE(session, link);
	give_place_back(session);
	destroy(session);
}

/*
 * fds that the peer has not read stay on their way, and its account's, until it reads or goes,
 * too.
 */
static void destroy_later(void *arg)
{
	struct segue_session *session = arg;
	struct segue_server *server = session->server;

	shutdown(session->socket.fd, SHUT_RDWR);
	segue_frame_queue_destroy(session->queue);
	session->queue = NULL;
	session->retry_at = 0;
	LIST_INSERT_HEAD(&server->sessions->leaving, session, link);
	segue_loop_tick_within(server->loop, segue_now_ns());
}

static void see_off(struct segue_server *server, int64_t now)
{
	struct segue_session *session, *next;

	LIST_FOREACH_SAFE(session, &server->sessions->leaving, link, next) {
		settle(session);
		if (session->fds_sent)
			segue_loop_tick_within(server->loop, now + RETRY_NS);
		else
			take_leave(session);
	}
}

void segue_session_close(struct segue_session *session)
{
	struct segue_server *server = session->server;

	if (!become(session, SEGUE_SESSION_LEAVING))
		return;
	LIST_REMOVE(session, link);
	segue_loop_remove(server->loop, &session->socket);
	if (session->process.fd >= 0)
		segue_loop_remove(server->loop, &session->process);
	server->sessions->gone(session);
	/* Callers up the stack may still look at it. */
	segue_loop_post(server->loop, destroy_later, session);
}

/* ---- All of them ---- */

void segue_sessions_close(struct segue_server *server)
{
	while (!LIST_EMPTY(&server->sessions->all))
		segue_session_close(LIST_FIRST(&server->sessions->all));
}

void segue_sessions_destroy(struct segue_server *server)
{
	while (!LIST_EMPTY(&server->sessions->leaving))
		take_leave(LIST_FIRST(&server->sessions->leaving));
}

/* Says why, and closes. */
static void drop(struct segue_session *session, const char *why)
{
	segue_session_fail(session, 0, segue_fail(SEGUE_ETIMEOUT, "%s", why));
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
	bool is_new = session->state == SEGUE_SESSION_NEW;
	if (session->state == SEGUE_SESSION_FAILED) {
		segue_session_close(session);
	} else if (is_new && now >= session->hello_by) {
		drop(session, "no HELLO came within 5 s of connecting");
	} else if (session->frame_by && now >= session->frame_by) {
		drop(session, "a frame was begun and was not whole within 10 s");
	} else {
		if (segue_session_is_paused(session) && segue_rate_open_at(&session->rate) <= now) {
			watch_frame(session, now);
			watch(session, EPOLLIN, true);
		}
		if (segue_session_is_paused(session))
			segue_loop_tick_within(loop, segue_rate_open_at(&session->rate));
		if (is_new)
			segue_loop_tick_within(loop, session->hello_by);
		if (session->frame_by)
			segue_loop_tick_within(loop, session->frame_by);
	}
}

void segue_sessions_tick(struct segue_server *server, int64_t now)
{
	struct segue_session *session, *next;

	LIST_FOREACH_SAFE(session, &server->sessions->all, link, next)
		look(session, now);
	see_off(server, now);
}
