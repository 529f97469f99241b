/* C13: asks and never reads the answers. */
#include "hostile.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "core/wait.h"

/* Sends requests until the server hangs up; how many went out. */
static unsigned ask_on(struct raw *raw, struct segue_message *request, const char *what)
{
	int64_t until = segue_now_ns() + INT64_C(60000000000);
	static uint8_t frame[SEGUE_FRAME_HEADER + SEGUE_FRAME_MAX], payload[SEGUE_FRAME_MAX];
	size_t size;
	unsigned sent = 0;

	EXPECT(segue_message_pack(request, payload, &size) == 0, "pack");
	const uint8_t header[SEGUE_FRAME_HEADER] = {'S', 'G', 'F', '1', (uint8_t)request->type, 0,
		0, 0, (uint8_t)size, (uint8_t)(size >> 8)};
	memcpy(frame, header, sizeof(header));
	memcpy(frame + sizeof(header), payload, size);
	size += sizeof(header);
	while (segue_now_ns() < until) {
		ssize_t done = send(raw->fd, frame, size, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (done < 0 && errno != EAGAIN && errno != EINTR)
			return sent;
		if (done == (ssize_t)size) {
			sent++;
			continue;
		}
		/* A part of a frame went: the rest must follow it. */
		for (size_t at = done > 0 ? (size_t)done : size; at < size; at++)
			if (!raw_send(raw, frame + at, 1))
				return sent;
		poll(&(struct pollfd){.fd = raw->fd, .events = POLLOUT}, 1, 100);
	}
	hostile_fail("%s: the server has not hung up after %u requests", what, sent);
}

void attack_deaf(struct hostile *hostile)
{
	static char name[SEGUE_NAME_MAX + 1]; /* comes back in each refusal */
	struct segue_message status = {
		.type = SEGUE_MESSAGE_REPORT, .serial = 1, .report = {SEGUE_REPORT_STATUS, "", ""}};
	struct segue_message upload = {
		.type = SEGUE_MESSAGE_UPLOAD, .serial = 1, .upload = {.size = 1}};
	struct segue_message refused = {.type = SEGUE_MESSAGE_REPORT,
		.serial = 1,
		.report = {SEGUE_REPORT_STATUS, name, ""}};
	unsigned reports = 0, uploads = 0, refusals = 0, rounds = 0;
	struct raw raw;

	memset(name, 'n', SEGUE_NAME_MAX);
	for (; rounds < 1 || hostile_time_left(hostile); rounds++) {
		/* Small answers fill a queue slowly where requests are counted. */
		raw_open(hostile->dir, &raw);
		refusals = !hostile->thorough ? 0 : ask_on(&raw, &refused, "refusals");
		raw_close(&raw);
		raw_open(hostile->dir, &raw);
		reports = ask_on(&raw, &status, "reports");
		raw_close(&raw);
		raw_open(hostile->dir, &raw);
		uploads = ask_on(&raw, &upload, "uploads");
		raw_close(&raw);
	}
	printf("%u rounds; hung up after %u refusals, %u reports, %u uploads\n", rounds, refusals,
		reports, uploads);
}
