/*
 * Frames on the control socket: collected from it, sent to it, queued for it.
 */
#include "core/frame.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/error.h"
#include "core/wait.h"

#define MAGIC 0x31464753u /* "SGF1" */

union control {
	char bytes[CMSG_SPACE(sizeof(int) * SEGUE_FRAME_FDS)];
	struct cmsghdr header; /* for its alignment */
};

static void close_all(int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
}

static void put16(uint8_t *bytes, uint16_t value)
{
	bytes[0] = (uint8_t)value;
	bytes[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *bytes, uint32_t value)
{
	put16(bytes, (uint16_t)value);
	put16(bytes + 2, (uint16_t)(value >> 16));
}

static uint16_t get16(const uint8_t *bytes)
{
	return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static uint32_t get32(const uint8_t *bytes)
{
	return get16(bytes) | (uint32_t)get16(bytes + 2) << 16;
}

static void put_header(uint8_t *bytes, uint16_t type, size_t fd_count, size_t size)
{
	put32(bytes, MAGIC);
	put16(bytes + 4, type);
	put16(bytes + 6, (uint16_t)fd_count);
	put32(bytes + 8, (uint32_t)size);
}

/* ---- Reading ---- */

void segue_frame_reader_init(struct segue_frame_reader *reader, bool accept_fds)
{
	reader->accept_fds = accept_fds;
	reader->have = 0;
	reader->used = 0;
	reader->fd_count = 0;
}

void segue_frame_reader_finish(struct segue_frame_reader *reader)
{
	close_all(reader->fds, reader->fd_count);
	reader->fd_count = 0;
}

/*
 * Takes the fds of one message over. They came with its first byte, so they belong to the frame
 * that begins here: nothing else may bring any.
 */
static int take_fds(struct segue_frame_reader *reader, struct msghdr *message)
{
	bool misplaced = reader->have > 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		assert(reader->fd_count + count <= SEGUE_FRAME_FDS || misplaced);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (misplaced)
				close(fd);
			else
				reader->fds[reader->fd_count++] = fd;
		}
		if (misplaced && count > 0)
			return segue_fail(SEGUE_EPROTOCOL,
				"%zu fds came in the middle of a frame; the connection is of no "
				"further use",
				count);
	}
	if (message->msg_flags & MSG_CTRUNC)
		return segue_fail(SEGUE_EPROTOCOL,
			"more than %d fds came with a frame, or this process is out of fds (ulimit "
			"-n)",
			SEGUE_FRAME_FDS);
	return 0;
}

/* Reads at most `want` bytes: 1 if some came, 0 if none are there. */
static int receive(struct segue_frame_reader *reader, int socket, size_t want)
{
	union control control;
	struct iovec target = {.iov_base = reader->buffer + reader->have, .iov_len = want};
	struct msghdr message = {.msg_iov = &target, .msg_iovlen = 1};
	ssize_t got;
	int rc;

	/* Without a control buffer the kernel drops the fds that a peer sends. */
	if (reader->accept_fds) {
		message.msg_control = control.bytes;
		/* Not all of its room, which is rounded up: another fd would find a place there. */
		message.msg_controllen = CMSG_LEN(sizeof(int) * SEGUE_FRAME_FDS);
	}
	do
		got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (got < 0 && errno == ECONNRESET)
		return segue_fail(SEGUE_EGONE, "the other side has reset the connection");
	if (got < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot read from the control socket");
	if (got == 0)
		return segue_fail(SEGUE_EGONE, "the other side has closed the connection%s",
			reader->have ? " in the middle of a frame" : "");
	rc = reader->accept_fds ? take_fds(reader, &message) : 0;
	if (rc)
		return rc;
	reader->have += (size_t)got;
	return 1;
}

static int check_header(const struct segue_frame_reader *reader)
{
	const uint8_t *header = reader->buffer;
	uint16_t fds = get16(header + 6);
	uint32_t size = get32(header + 8);

	if (get32(header) != MAGIC)
		return segue_fail(SEGUE_EPROTOCOL,
			"a frame begins with 0x%08x, not with \"SGF1\": the peer is no segue",
			get32(header));
	if (size > SEGUE_FRAME_MAX)
		return segue_fail(SEGUE_EPROTOCOL, "a frame of %u bytes, at most %d are allowed",
			size, SEGUE_FRAME_MAX);
	if (fds != reader->fd_count)
		return segue_fail(SEGUE_EPROTOCOL, "a frame announces %u fds, %zu came", fds,
			reader->fd_count);
	return 0;
}

static void hand_out(struct segue_frame_reader *reader, struct segue_frame *out)
{
	out->type = get16(reader->buffer + 4);
	out->fd_count = (uint16_t)reader->fd_count;
	out->size = get32(reader->buffer + 8);
	out->payload = reader->buffer + SEGUE_FRAME_HEADER;
	for (size_t i = 0; i < SEGUE_FRAME_FDS; i++)
		out->fds[i] = i < reader->fd_count ? reader->fds[i] : -1;
	reader->fd_count = 0;
	reader->used = reader->have;
}

/* Never reads beyond the frame that it is in, so that it is clear which frame fds belong to. */
static int collect(struct segue_frame_reader *reader, int socket)
{
	size_t whole = SEGUE_FRAME_HEADER;
	int rc;

	for (;;) {
		if (reader->have >= SEGUE_FRAME_HEADER) {
			rc = check_header(reader);
			if (rc)
				return rc;
			whole = SEGUE_FRAME_HEADER + get32(reader->buffer + 8);
		}
		if (reader->have == whole)
			return 1;
		rc = receive(reader, socket, whole - reader->have);
		if (rc <= 0)
			return rc;
	}
}

int segue_frame_read(struct segue_frame_reader *reader, int socket, struct segue_frame *out)
{
	int rc;

	if (reader->used) {
		reader->have = 0;
		reader->used = 0;
	}
	rc = collect(reader, socket);
	if (rc < 0)
		segue_frame_reader_finish(reader);
	if (rc > 0)
		hand_out(reader, out);
	return rc;
}

bool segue_frame_reader_midway(const struct segue_frame_reader *reader)
{
	return reader->have > 0 && !reader->used;
}

/* ---- Sending ---- */

/* Sends what the socket takes at once; -1 and errno as sendmsg. */
static ssize_t transmit(
	int socket, const struct iovec *parts, size_t count, const int *fds, size_t fd_count)
{
	union control control = {.bytes = {0}};
	struct iovec copy[2];
	struct msghdr message = {.msg_iov = copy, .msg_iovlen = count};
	ssize_t sent;

	memcpy(copy, parts, count * sizeof(copy[0]));
	if (fd_count > 0) {
		struct cmsghdr *header;

		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(header), fds, sizeof(int) * fd_count);
	}
	do
		sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent;
}

static int fail_send(void)
{
	if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
		return segue_fail_errno(SEGUE_EGONE, "the other side has closed the connection");
	return segue_fail_errno(SEGUE_ESYSTEM, "cannot write to the control socket");
}

/* Until the socket has room. */
static int wait_for_room(int socket, int64_t deadline_ns)
{
	struct pollfd entry = {.fd = socket, .events = POLLOUT};

	for (;;) {
		int64_t left = INT_MAX;
		int rc;

		if (deadline_ns != INT64_MAX) {
			int64_t now = segue_now_ns();

			if (deadline_ns <= now)
				return segue_fail(SEGUE_ETIMEOUT,
					"the peer does not read from the control socket");
			left = (deadline_ns - now - 1) / 1000000 + 1;
		}
		rc = poll(&entry, 1, left > INT_MAX ? INT_MAX : (int)left);
		if (rc > 0)
			return 0;
		if (rc < 0 && errno != EINTR)
			return segue_fail_errno(
				SEGUE_ESYSTEM, "cannot wait for the control socket");
	}
}

static int check_outgoing(size_t size, size_t fd_count)
{
	assert(fd_count <= SEGUE_FRAME_FDS);
	if (size > SEGUE_FRAME_MAX)
		return segue_fail(SEGUE_ELIMIT,
			"a message of %zu bytes does not fit a frame of %d; send it in an upload",
			size, SEGUE_FRAME_MAX);
	return 0;
}

int segue_frame_send(int socket, uint16_t type, const void *payload, size_t size, const int *fds,
	size_t fd_count, int64_t deadline_ns)
{
	uint8_t header[SEGUE_FRAME_HEADER];
	size_t done = 0, whole = SEGUE_FRAME_HEADER + size;
	int rc = check_outgoing(size, fd_count);

	if (rc)
		return rc;
	put_header(header, type, fd_count, size);
	while (done < whole) {
		struct iovec parts[2];
		size_t count = 0;
		ssize_t sent;

		if (done < sizeof(header))
			parts[count++] = (struct iovec){
				.iov_base = header + done, .iov_len = sizeof(header) - done};
		if (size > 0) {
			size_t skip = done < sizeof(header) ? 0 : done - sizeof(header);

			parts[count++] =
				(struct iovec){.iov_base = (uint8_t *)(uintptr_t)payload + skip,
					.iov_len = size - skip};
		}
		sent = transmit(socket, parts, count, fds, done == 0 ? fd_count : 0);
		if (sent >= 0) {
			done += (size_t)sent;
			continue;
		}
		if (errno != EAGAIN && errno != EWOULDBLOCK)
			return fail_send();
		rc = wait_for_room(socket, deadline_ns);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- Queue ---- */

struct queued {
	struct queued *next;
	size_t size, sent;
	size_t fd_count;
	int fds[SEGUE_FRAME_FDS];
	uint8_t bytes[];
};

struct segue_frame_queue {
	struct queued *first, **last;
	size_t waiting, limit; /* bytes */
};

struct segue_frame_queue *segue_frame_queue_create(size_t limit)
{
	struct segue_frame_queue *queue = calloc(1, sizeof(*queue));

	if (!queue)
		return NULL;
	queue->last = &queue->first;
	queue->limit = limit;
	return queue;
}

static void destroy_queued(struct queued *entry)
{
	close_all(entry->fds, entry->fd_count);
	free(entry);
}

void segue_frame_queue_destroy(struct segue_frame_queue *queue)
{
	if (!queue)
		return;
	while (queue->first) {
		struct queued *entry = queue->first;

		queue->first = entry->next;
		destroy_queued(entry);
	}
	free(queue);
}

int segue_frame_queue_push(struct segue_frame_queue *queue, uint16_t type, const void *payload,
	size_t size, const int *fds, size_t fd_count)
{
	size_t whole = SEGUE_FRAME_HEADER + size;
	struct queued *entry;
	int rc = check_outgoing(size, fd_count);

	if (rc)
		return rc;
	if (whole > queue->limit - queue->waiting)
		return segue_fail(SEGUE_ELIMIT,
			"%zu bytes wait for a peer that does not read, %zu more are too many",
			queue->waiting, whole);
	entry = calloc(1, sizeof(*entry) + whole);
	if (!entry)
		return segue_fail(SEGUE_ENOMEM, "no memory for a frame of %zu bytes", whole);
	entry->size = whole;
	put_header(entry->bytes, type, fd_count, size);
	if (size > 0)
		memcpy(entry->bytes + SEGUE_FRAME_HEADER, payload, size);
	for (; entry->fd_count < fd_count; entry->fd_count++) {
		int fd = fcntl(fds[entry->fd_count], F_DUPFD_CLOEXEC, 0);

		if (fd < 0) {
			rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot duplicate an fd to be sent");
			destroy_queued(entry);
			return rc;
		}
		entry->fds[entry->fd_count] = fd;
	}
	*queue->last = entry;
	queue->last = &entry->next;
	queue->waiting += whole;
	return 0;
}

int segue_frame_queue_flush(struct segue_frame_queue *queue, int socket)
{
	while (queue->first) {
		struct queued *entry = queue->first;
		struct iovec part = {.iov_base = entry->bytes + entry->sent,
			.iov_len = entry->size - entry->sent};
		ssize_t sent = transmit(
			socket, &part, 1, entry->fds, entry->sent == 0 ? entry->fd_count : 0);

		if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 1;
		if (sent < 0 && errno == ETOOMANYREFS)
			return 2;
		if (sent < 0)
			return fail_send();
		entry->sent += (size_t)sent;
		queue->waiting -= (size_t)sent;
		if (entry->sent < entry->size)
			continue;
		queue->first = entry->next;
		if (!queue->first)
			queue->last = &queue->first;
		destroy_queued(entry);
	}
	return 0;
}
