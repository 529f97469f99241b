/* C12: file descriptors sent to the server, 253 at a time: it never has one of them. */
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

enum { MOST = 253, TIMES = 50 };

/* A frame that brings `count` fds along, whatever its header says. */
static bool send_with_fds(struct raw *raw, uint16_t announced, const int *fds, size_t count)
{
	uint8_t frame[SEGUE_FRAME_HEADER + 4] = {'S', 'G', 'F', '1', SEGUE_MESSAGE_LANE_DETACH, 0,
		(uint8_t)announced, 0, 4, 0, 0, 0, 1 << 3, 9, 2 << 3, 77};
	union {
		char bytes[CMSG_SPACE(MOST * sizeof(int))];
		struct cmsghdr header;
	} control = {0};
	struct iovec part = {frame, sizeof(frame)};
	struct msghdr message = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = CMSG_SPACE(count * sizeof(int))};

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
	return sendmsg(raw->fd, &message, MSG_NOSIGNAL) == (ssize_t)sizeof(frame);
}

/* How many of a process's fds are this file. */
static unsigned count_open(pid_t pid, const char *path)
{
	char link[64], target[512];
	unsigned count = 0;

	for (int fd = 0; fd < 65536; fd++) {
		snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)pid, fd);
		ssize_t size = readlink(link, target, sizeof(target) - 1);
		target[size > 0 ? size : 0] = '\0';
		count += strcmp(target, path) == 0;
	}
	return count;
}

void attack_fds(struct hostile *hostile)
{
	pid_t server = hostile_server_pid(hostile->dir);
	char path[512];
	int fds[MOST];
	struct raw raw;
	unsigned rounds = 0;

	snprintf(path, sizeof(path), "%s/sent", hostile->scratch);
	for (size_t i = 0; i < MOST; i++)
		fds[i] = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
	EXPECT(fds[MOST - 1] >= 0, "open: %s", strerror(errno));
	EXPECT(count_open(getpid(), path) == MOST && hostile_count_fds(server) > 2,
		"fds cannot be counted");
	for (; rounds < 1 || hostile_time_left(hostile); rounds++) {
		raw_open(hostile->dir, &raw);
		for (int i = 0; i < TIMES; i++) {
			if (!send_with_fds(&raw, 0, fds, MOST))
				hostile_skip("this process may not send %d fds: %s", MOST,
					strerror(errno));
			EXPECT(raw_receive(&raw, 10000) == 1 &&
					raw.reply.type == SEGUE_MESSAGE_DONE,
				"fds that were not announced: no answer");
		}
		EXPECT(count_open(server, path) == 0, "the server has fds that were sent to it");
		send_with_fds(&raw, 4, fds, 4);
		raw_expect_end(&raw, 5000, "fds that were announced");
		raw_close(&raw);
	}
	for (size_t i = 0; i < MOST; i++)
		close(fds[i]);
	printf("%u fds sent\n", rounds * MOST * TIMES);
}
