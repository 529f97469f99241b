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

void attack_fds(struct hostile *hostile)
{
	pid_t server = hostile_server_pid(hostile->dir);
	int fds[MOST];
	struct raw raw;
	unsigned rounds = 0;

	for (size_t i = 0; i < MOST; i++)
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	EXPECT(fds[MOST - 1] >= 0, "open: %s", strerror(errno));
	for (; rounds < 1 || hostile_time_left(hostile); rounds++) {
		raw_open(hostile->dir, &raw);
		int before = hostile_count_fds(server);
		for (int i = 0; i < TIMES; i++) {
			if (!send_with_fds(&raw, 0, fds, MOST))
				hostile_skip("this process may not send %d fds: %s", MOST,
					strerror(errno));
			EXPECT(raw_receive(&raw, 10000) == 1 &&
					raw.reply.type == SEGUE_MESSAGE_DONE,
				"fds that were not announced: no answer");
		}
		int after = hostile_count_fds(server);
		EXPECT(after < before + MOST, "the server has %d fds, before it had %d", after,
			before);
		send_with_fds(&raw, 4, fds, 4);
		raw_expect_end(&raw, 5000, "fds that were announced");
		raw_close(&raw);
	}
	for (size_t i = 0; i < MOST; i++)
		close(fds[i]);
	printf("%u fds sent\n", rounds * MOST * TIMES);
}
