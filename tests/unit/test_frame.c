/*
 * Tests of frames on a socket pair: whole, in pieces, with fds, damaged, and against a full socket.
 */
#include "core/frame.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/wait.h"

#define SECOND INT64_C(1000000000)

struct ends {
	int near, far;
	struct segue_frame_reader *reader; /* of the far end */
};

static struct ends make(bool accept_fds)
{
	struct ends ends;
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	ends.near = pair[0];
	ends.far = pair[1];
	ends.reader = malloc(sizeof(*ends.reader));
	segue_frame_reader_init(ends.reader, accept_fds);
	return ends;
}

static void finish(struct ends *ends)
{
	segue_frame_reader_finish(ends->reader);
	free(ends->reader);
	close(ends->near);
	close(ends->far);
}

/* A header by hand: the oracle of the format. */
static void header(uint8_t bytes[12], uint16_t type, uint16_t fds, uint32_t size)
{
	const uint8_t text[12] = {'S', 'G', 'F', '1', (uint8_t)type, (uint8_t)(type >> 8),
		(uint8_t)fds, (uint8_t)(fds >> 8), (uint8_t)size, (uint8_t)(size >> 8),
		(uint8_t)(size >> 16), (uint8_t)(size >> 24)};

	memcpy(bytes, text, 12);
}

static void put(int socket, const void *bytes, size_t size)
{
	cr_assert_eq(send(socket, bytes, size, 0), (ssize_t)size);
}

static int read_frame(struct ends *ends, struct segue_frame *out)
{
	return segue_frame_read(ends->reader, ends->far, out);
}

static void expect_broken(struct ends *ends, const char *says)
{
	struct segue_frame frame;

	cr_expect_eq(read_frame(ends, &frame), SEGUE_EPROTOCOL, "%s", says);
	cr_expect(strstr(segue_error_detail(), says), "\"%s\" does not say \"%s\"",
		segue_error_detail(), says);
}

static int open_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

/* ---- Bytes --------------------------------------------------------------------------------- */

Test(frame, bytes_on_the_wire)
{
	struct ends ends = make(false);
	uint8_t expected[15], seen[32];

	header(expected, 0x1234, 0, 3);
	memcpy(expected + 12, "abc", 3);
	cr_assert_eq(segue_frame_send(ends.near, 0x1234, "abc", 3, NULL, 0, 0), 0);
	cr_assert_eq(recv(ends.far, seen, sizeof(seen), 0), 15);
	cr_assert_eq(memcmp(seen, expected, 15), 0);
	finish(&ends);
}

Test(frame, whole_frames_one_after_the_other)
{
	struct ends ends = make(false);
	struct segue_frame frame;

	cr_assert_eq(read_frame(&ends, &frame), 0);
	for (uint16_t i = 0; i < 5; i++)
		cr_assert_eq(segue_frame_send(ends.near, i, "payload", i, NULL, 0, 0), 0);
	for (uint16_t i = 0; i < 5; i++) {
		cr_assert_eq(read_frame(&ends, &frame), 1);
		cr_assert_eq(frame.type, i);
		cr_assert_eq(frame.size, i);
		cr_assert_eq(frame.fd_count, 0);
		cr_assert_eq(memcmp(frame.payload, "payload", i), 0);
	}
	cr_assert_eq(read_frame(&ends, &frame), 0);
	finish(&ends);
}

Test(frame, byte_by_byte)
{
	struct ends ends = make(false);
	struct segue_frame frame;
	uint8_t bytes[2 * 12 + 5];

	header(bytes, 7, 0, 5);
	memcpy(bytes + 12, "hello", 5);
	header(bytes + 17, 8, 0, 0);
	for (size_t i = 0; i < sizeof(bytes); i++) {
		bool ends_here = i == 16 || i == 28;

		put(ends.near, bytes + i, 1);
		cr_assert_eq(read_frame(&ends, &frame), ends_here, "byte %zu", i);
		if (i == 16)
			cr_assert_eq(memcmp(frame.payload, "hello", 5), 0);
		if (i == 28)
			cr_assert(frame.type == 8 && frame.size == 0);
		cr_assert_eq(read_frame(&ends, &frame), 0);
	}
	finish(&ends);
}

static uint8_t pattern(size_t frame, size_t i)
{
	return (uint8_t)(frame * 31 + i * 7 + (i >> 8));
}

/* Any cut of the stream gives the same frames. */
Test(frame, random_cuts)
{
	enum { FRAMES = 40 };
	for (unsigned seed = 1; seed <= 20; seed++) {
		struct ends ends = make(false);
		uint8_t *stream = malloc(FRAMES * (size_t)(12 + 3000));
		size_t sizes[FRAMES], whole = 0, sent = 0, seen = 0;
		unsigned draw = seed;

		for (size_t f = 0; f < FRAMES; f++) {
			sizes[f] = (size_t)rand_r(&draw) % 3000;
			header(stream + whole, (uint16_t)f, 0, (uint32_t)sizes[f]);
			for (size_t i = 0; i < sizes[f]; i++)
				stream[whole + 12 + i] = pattern(f, i);
			whole += 12 + sizes[f];
		}
		while (seen < FRAMES) {
			struct segue_frame frame;
			size_t part = (size_t)rand_r(&draw) % 2500 + 1;
			int rc;

			part = part < whole - sent ? part : whole - sent;
			put(ends.near, stream + sent, part);
			sent += part;
			while ((rc = read_frame(&ends, &frame)) == 1) {
				cr_assert_eq(frame.type, seen, "seed %u", seed);
				cr_assert_eq(frame.size, sizes[seen], "seed %u", seed);
				for (size_t i = 0; i < frame.size; i++)
					cr_assert_eq(frame.payload[i], pattern(seen, i));
				seen++;
			}
			cr_assert_eq(rc, 0, "seed %u: %s", seed, segue_error_detail());
		}
		cr_assert_eq(sent, whole);
		free(stream);
		finish(&ends);
	}
}

/* ---- Damage -------------------------------------------------------------------------------- */

Test(frame, wrong_magic)
{
	struct ends ends = make(false);

	put(ends.near, "GET / HTTP/1.1\r\n", 16);
	expect_broken(&ends, "not with \"SGF1\"");
	finish(&ends);
}

Test(frame, too_large)
{
	struct ends ends = make(false);
	uint8_t bytes[12];

	header(bytes, 1, 0, SEGUE_FRAME_MAX + 1);
	put(ends.near, bytes, 12);
	expect_broken(&ends, "a frame of 65537 bytes");
	finish(&ends);
	ends = make(false);
	header(bytes, 1, 0, UINT32_MAX);
	put(ends.near, bytes, 12);
	expect_broken(&ends, "a frame of 4294967295 bytes");
	finish(&ends);
	ends = make(false);
	cr_assert_eq(segue_frame_send(ends.near, 1, bytes, SEGUE_FRAME_MAX + 1, NULL, 0, 0),
		SEGUE_ELIMIT);
	cr_assert(strstr(segue_error_detail(), "65537 bytes"));
	finish(&ends);
}

Test(frame, closed_peer)
{
	struct ends ends = make(false);
	struct segue_frame frame;

	cr_assert_eq(segue_frame_send(ends.near, 1, "last", 4, NULL, 0, 0), 0);
	put(ends.near, "SGF1", 4);
	close(ends.near);
	cr_assert_eq(read_frame(&ends, &frame), 1, "what was sent before the end is read");
	cr_assert_eq(read_frame(&ends, &frame), SEGUE_EGONE);
	cr_assert(strstr(segue_error_detail(), "in the middle of a frame"));
	/* Without a SIGPIPE. */
	cr_assert_eq(segue_frame_send(ends.far, 1, "x", 1, NULL, 0, 0), SEGUE_EGONE);
	ends.near = dup(ends.far);
	finish(&ends);
}

Test(frame, closed_between_frames)
{
	struct ends ends = make(false);
	struct segue_frame frame;

	shutdown(ends.near, SHUT_WR);
	cr_assert_eq(read_frame(&ends, &frame), SEGUE_EGONE);
	cr_assert_null(strstr(segue_error_detail(), "middle"));
	finish(&ends);
}

Test(frame, reset_by_the_peer)
{
	struct ends ends = make(false);
	struct segue_frame frame;

	/* Closing with unread bytes resets the other side. */
	put(ends.far, "unread", 6);
	close(ends.near);
	cr_assert_eq(read_frame(&ends, &frame), SEGUE_EGONE);
	ends.near = dup(ends.far);
	finish(&ends);
}

Test(frame, not_a_socket)
{
	struct ends ends = make(false);
	struct segue_frame frame;
	int file = open("/dev/null", O_RDWR | O_CLOEXEC);

	cr_assert_eq(segue_frame_read(ends.reader, file, &frame), SEGUE_ESYSTEM);
	cr_assert_eq(segue_frame_send(file, 1, "x", 1, NULL, 0, 0), SEGUE_ESYSTEM);
	close(file);
	finish(&ends);
}

/* ---- fds ----------------------------------------------------------------------------------- */

static bool same_file(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino == y.st_ino &&
	       x.st_dev == y.st_dev;
}

Test(frame, fds_travel_with_their_frame)
{
	struct ends ends = make(true);
	struct segue_frame frame;
	int files[4], before;

	for (int i = 0; i < 4; i++)
		files[i] = memfd_create("test", 0);
	before = open_fds();
	cr_assert_eq(segue_frame_send(ends.near, 1, "a", 1, NULL, 0, 0), 0);
	cr_assert_eq(segue_frame_send(ends.near, 2, NULL, 0, files, 4, 0), 0);
	cr_assert_eq(segue_frame_send(ends.near, 3, "b", 1, NULL, 0, 0), 0);
	cr_assert_eq(segue_frame_send(ends.near, 4, "c", 1, files + 2, 1, 0), 0);
	cr_assert_eq(segue_frame_send(ends.near, 5, "d", 1, files + 1, 1, 0), 0);
	for (uint16_t type = 1; type <= 5; type++) {
		static const uint16_t counts[] = {0, 0, 4, 0, 1, 1};

		cr_assert_eq(read_frame(&ends, &frame), 1, "%s", segue_error_detail());
		cr_assert_eq(frame.type, type);
		cr_assert_eq(frame.fd_count, counts[type]);
		for (int i = 0; i < 4; i++) {
			int place = type == 4 ? 2 : type == 5 ? 1 : i;

			if (i >= frame.fd_count) {
				cr_assert_eq(frame.fds[i], -1);
				continue;
			}
			cr_assert(same_file(frame.fds[i], files[place]));
			cr_assert(fcntl(frame.fds[i], F_GETFD) & FD_CLOEXEC);
			close(frame.fds[i]);
		}
	}
	cr_assert_eq(open_fds(), before, "the sender's stay the sender's");
	finish(&ends);
}

/* Bytes and fds as somebody else would send them. */
static void put_with_fds(int socket, const void *bytes, size_t size, const int *fds, size_t count)
{
	char control[CMSG_SPACE(8 * sizeof(int))] = {0};
	struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
	struct msghdr message = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE(count * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	cr_assert_eq(sendmsg(socket, &message, 0), (ssize_t)size);
}

static void expect_fds_refused(
	uint16_t announced, size_t lead, size_t sent, bool accept, const char *says)
{
	int before = open_fds();
	struct ends ends = make(accept);
	int fds[8] = {0, 0, 0, 0, 0, 0, 0, 0};
	uint8_t bytes[12];

	header(bytes, 1, announced, 0);
	if (lead > 0) {
		struct segue_frame frame;

		put(ends.near, bytes, lead);
		cr_expect_eq(read_frame(&ends, &frame), 0);
	}
	if (sent > 0)
		put_with_fds(ends.near, bytes + lead, 12 - lead, fds, sent);
	else
		put(ends.near, bytes + lead, 12 - lead);
	expect_broken(&ends, says);
	finish(&ends);
	cr_expect_eq(open_fds(), before, "%s: fds are left", says);
}

Test(frame, fds_that_do_not_match)
{
	expect_fds_refused(1, 0, 2, true, "announces 1 fds, 2 came");
	expect_fds_refused(2, 0, 1, true, "announces 2 fds, 1 came");
	expect_fds_refused(1, 0, 0, true, "announces 1 fds, 0 came");
	expect_fds_refused(0, 0, 1, true, "announces 0 fds, 1 came");
	expect_fds_refused(6, 0, 6, true, "more than 5 fds");
	expect_fds_refused(5, 0, 8, true, "more than 5 fds");
	expect_fds_refused(UINT16_MAX, 0, 0, true, "announces 65535 fds");
	expect_fds_refused(1, 3, 1, true, "in the middle of a frame");
	/* The server takes none: what is sent to it never arrives. */
	expect_fds_refused(1, 0, 1, false, "announces 1 fds, 0 came");
}

Test(frame, fds_sent_to_the_server_are_dropped)
{
	struct ends ends = make(false);
	int before = open_fds(), fds[4] = {0, 0, 0, 0};
	struct segue_frame frame;
	uint8_t bytes[12];

	header(bytes, 9, 0, 0);
	for (int i = 0; i < 50; i++) {
		put_with_fds(ends.near, bytes, 12, fds, 4);
		cr_assert_eq(read_frame(&ends, &frame), 1, "an honest header is not punished");
		cr_assert_eq(frame.fd_count, 0);
	}
	cr_assert_eq(open_fds(), before);
	finish(&ends);
}

Test(frame, fds_of_a_frame_that_never_ends_are_closed)
{
	int before = open_fds(), fds[2] = {0, 0};
	struct ends ends = make(true);
	struct segue_frame frame;
	uint8_t bytes[12];

	header(bytes, 1, 2, 100);
	put_with_fds(ends.near, bytes, 12, fds, 2);
	cr_assert_eq(read_frame(&ends, &frame), 0);
	cr_assert_eq(open_fds(), before + 4);
	finish(&ends);
	cr_assert_eq(open_fds(), before);
}

Test(frame, out_of_fds)
{
	struct ends ends = make(true);
	int fds[4] = {0, 0, 0, 0}, next = dup(0), before;
	struct rlimit limit = {.rlim_cur = (rlim_t)next + 3, .rlim_max = 1024}; /* room for 3 */
	struct segue_frame frame;

	close(next);
	before = open_fds();
	cr_assert_eq(segue_frame_send(ends.near, 1, NULL, 0, fds, 4, 0), 0);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	cr_assert_eq(read_frame(&ends, &frame), SEGUE_EPROTOCOL);
	cr_assert(strstr(segue_error_detail(), "ulimit"));
	cr_assert_eq(open_fds(), before, "those that did come are left");
	finish(&ends);
}

/* ---- A full socket -------------------------------------------------------------------------- */

static void fill(int socket)
{
	static const uint8_t zeros[4096];

	while (send(socket, zeros, sizeof(zeros), MSG_DONTWAIT) > 0)
		;
	while (send(socket, zeros, 1, MSG_DONTWAIT) > 0)
		;
}

Test(frame, full_socket_until_the_deadline)
{
	struct ends ends = make(false);
	int64_t begin = segue_now_ns();

	fill(ends.near);
	cr_assert_eq(segue_frame_send(ends.near, 1, "x", 1, NULL, 0, 0), SEGUE_ETIMEOUT);
	cr_assert_eq(segue_frame_send(ends.near, 1, "x", 1, NULL, 0, begin + SECOND / 20),
		SEGUE_ETIMEOUT);
	cr_assert_geq(segue_now_ns() - begin, SECOND / 20);
	finish(&ends);
}

static void on_alarm(int number)
{
	(void)number;
}

struct slow {
	struct ends *ends;
	size_t frames, fds;
	uint64_t sum;
};

/* Reads slowly, so that the sender finds the socket full in the middle of frames. */
static void *read_slowly(void *arg)
{
	struct slow *slow = arg;
	struct segue_frame frame;
	int rc = 0;

	while (rc >= 0) {
		rc = read_frame(slow->ends, &frame);
		if (rc == 0)
			usleep(300);
		if (rc != 1)
			continue;
		for (size_t i = 0; i < frame.size; i++)
			slow->sum += frame.payload[i] * (i % 251 + 1);
		for (size_t i = 0; i < frame.fd_count; i++)
			close(frame.fds[i]);
		slow->fds += frame.fd_count;
		slow->frames++;
	}
	return NULL;
}

Test(frame, large_frames_to_a_slow_reader_under_signals, .timeout = 60)
{
	struct ends ends = make(true);
	struct slow slow = {.ends = &ends};
	struct sigaction action = {.sa_handler = on_alarm};
	struct itimerval timer = {.it_interval = {.tv_usec = 500}, .it_value = {.tv_usec = 500}};
	uint8_t *payload = malloc(SEGUE_FRAME_MAX);
	uint64_t sum = 0;
	pthread_t thread;
	int small = 2000, fds[2] = {0, 0};

	setsockopt(ends.near, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	pthread_create(&thread, NULL, read_slowly, &slow);
	for (size_t f = 0; f < 30; f++) {
		for (size_t i = 0; i < SEGUE_FRAME_MAX; i++) {
			payload[i] = pattern(f, i);
			sum += payload[i] * (i % 251 + 1);
		}
		cr_assert_eq(segue_frame_send(ends.near, (uint16_t)f, payload, SEGUE_FRAME_MAX, fds,
				     f % 3, INT64_MAX),
			0, "%s", segue_error_detail());
	}
	shutdown(ends.near, SHUT_WR);
	pthread_join(thread, NULL);
	timer = (struct itimerval){.it_value = {0}};
	setitimer(ITIMER_REAL, &timer, NULL);
	cr_assert_eq(slow.frames, 30);
	cr_assert_eq(slow.sum, sum);
	cr_assert_eq(slow.fds, 30, "10 times 0, 1, 2: with the first byte, not with each piece");
	free(payload);
	finish(&ends);
}

/* ---- Queue --------------------------------------------------------------------------------- */

Test(frame, queue_keeps_order_and_fds)
{
	struct segue_frame_queue *queue = segue_frame_queue_create(1 << 20);
	struct ends ends = make(true);
	int file = memfd_create("test", MFD_CLOEXEC), before = open_fds();
	struct segue_frame frame;
	struct stat status;

	cr_assert_eq(fstat(file, &status), 0);
	cr_assert_eq(segue_frame_queue_flush(queue, ends.near), 0, "empty");
	cr_assert_eq(segue_frame_queue_push(queue, 1, "one", 3, NULL, 0), 0);
	cr_assert_eq(segue_frame_queue_push(queue, 2, "two", 3, &file, 1), 0);
	close(file); /* the queue has its own */
	cr_assert_eq(segue_frame_queue_push(queue, 3, NULL, 0, NULL, 0), 0);
	cr_assert_eq(read_frame(&ends, &frame), 0, "nothing is sent before a flush");
	cr_assert_eq(segue_frame_queue_flush(queue, ends.near), 0);
	cr_assert_eq(segue_frame_queue_flush(queue, ends.near), 0);
	for (uint16_t type = 1; type <= 3; type++) {
		cr_assert_eq(read_frame(&ends, &frame), 1);
		cr_assert_eq(frame.type, type);
		cr_assert_eq(frame.fd_count, type == 2);
		if (type == 2) {
			struct stat seen;

			cr_assert_eq(fstat(frame.fds[0], &seen), 0);
			cr_assert_eq(seen.st_ino, status.st_ino);
			close(frame.fds[0]);
		}
	}
	cr_assert_eq(segue_frame_queue_push(queue, 4, "four", 4, NULL, 0), 0, "after emptying");
	cr_assert_eq(segue_frame_queue_flush(queue, ends.near), 0);
	cr_assert_eq(read_frame(&ends, &frame), 1);
	cr_assert_eq(frame.type, 4);
	segue_frame_queue_destroy(queue);
	cr_assert_eq(open_fds(), before - 1);
	finish(&ends);
}

Test(frame, queue_is_bounded)
{
	struct segue_frame_queue *queue = segue_frame_queue_create(100);
	struct ends ends = make(false);
	uint8_t payload[88] = {0};

	cr_assert_eq(segue_frame_queue_push(queue, 1, payload, 89, NULL, 0), SEGUE_ELIMIT);
	cr_assert_eq(segue_frame_queue_push(queue, 1, payload, 76, NULL, 0), 0);
	cr_assert_eq(segue_frame_queue_push(queue, 1, payload, 1, NULL, 0), SEGUE_ELIMIT);
	cr_assert(strstr(segue_error_detail(), "88 bytes wait"));
	cr_assert_eq(segue_frame_queue_push(queue, 1, NULL, 0, NULL, 0), 0, "12 bytes fit");
	cr_assert_eq(segue_frame_queue_flush(queue, ends.near), 0);
	cr_assert_eq(segue_frame_queue_push(queue, 1, payload, 88, NULL, 0), 0);
	segue_frame_queue_destroy(queue);
	queue = segue_frame_queue_create(1 << 20);
	cr_assert_eq(segue_frame_queue_push(queue, 1, payload, SEGUE_FRAME_MAX + 1, NULL, 0),
		SEGUE_ELIMIT);
	segue_frame_queue_destroy(queue);
	segue_frame_queue_destroy(NULL);
	finish(&ends);
}

/* A reader in steps, a queue in steps: nothing blocks, everything arrives, fds with their frame. */
Test(frame, queue_against_a_full_socket, .timeout = 60)
{
	struct segue_frame_queue *queue = segue_frame_queue_create(64 << 20);
	struct ends ends = make(true);
	uint8_t *payload = malloc(SEGUE_FRAME_MAX);
	int before = open_fds(), zero = 0, blocked = 0;
	size_t seen = 0;

	for (size_t f = 0; f < 60; f++) {
		for (size_t i = 0; i < SEGUE_FRAME_MAX; i++)
			payload[i] = pattern(f, i);
		cr_assert_eq(segue_frame_queue_push(queue, (uint16_t)f, payload,
				     SEGUE_FRAME_MAX - f, &zero, f % 3 == 0),
			0);
	}
	while (seen < 60) {
		struct segue_frame frame;
		int rc = segue_frame_queue_flush(queue, ends.near);

		cr_assert_geq(rc, 0, "%s", segue_error_detail());
		blocked += rc;
		rc = read_frame(&ends, &frame);
		cr_assert_geq(rc, 0, "%s", segue_error_detail());
		if (rc == 0)
			continue;
		cr_assert_eq(frame.type, seen);
		cr_assert_eq(frame.size, SEGUE_FRAME_MAX - seen);
		cr_assert_eq(frame.fd_count, seen % 3 == 0);
		for (size_t i = 0; i < frame.size; i++)
			cr_assert_eq(frame.payload[i], pattern(seen, i));
		if (frame.fd_count)
			close(frame.fds[0]);
		seen++;
	}
	cr_assert_gt(blocked, 5);
	cr_assert_eq(segue_frame_queue_flush(queue, ends.near), 0);
	cr_assert_eq(open_fds(), before);
	free(payload);
	segue_frame_queue_destroy(queue);
	finish(&ends);
}

Test(frame, queue_of_a_lost_peer)
{
	struct segue_frame_queue *queue = segue_frame_queue_create(1 << 20);
	int before = open_fds(), zero = 0, bad = 999;
	struct ends ends = make(true);

	close(ends.far);
	cr_assert_eq(segue_frame_queue_push(queue, 1, "x", 1, &bad, 1), SEGUE_ESYSTEM);
	cr_assert_eq(segue_frame_queue_push(queue, 1, "x", 1, &zero, 1), 0);
	cr_assert_eq(segue_frame_queue_flush(queue, ends.near), SEGUE_EGONE);
	segue_frame_queue_destroy(queue);
	ends.far = dup(ends.near);
	finish(&ends);
	cr_assert_eq(open_fds(), before);
}
