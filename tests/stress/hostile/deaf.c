/* C13: asks and never reads the answers. */
#include "hostile.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "wait.h"

/* Sends requests until the server hangs up; how many went out. */
static unsigned ask_on(struct raw *raw, struct segue_message *request, const char *what)
{
	int64_t until = segue_now_ns() + INT64_C(20000000000);
	uint8_t frame[256], payload[128];
	size_t size;
	unsigned sent = 0;

	EXPECT(segue_message_pack(request, payload, &size) == 0 && size < 128, "pack");
	const uint8_t header[SEGUE_FRAME_HEADER] = {
		'S', 'G', 'F', '1', (uint8_t)request->type, 0, 0, 0, (uint8_t)size};
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
	struct segue_message status = {
		.type = SEGUE_MESSAGE_REPORT, .serial = 1, .report = {SEGUE_REPORT_STATUS, "", ""}};
	struct segue_message upload = {
		.type = SEGUE_MESSAGE_UPLOAD, .serial = 1, .upload = {.size = 1}};
	struct segue_message nobody = {
		.type = SEGUE_MESSAGE_LANE_DETACH, .serial = 1, .lane_detach = {.lease = 1}};
	unsigned reports = 0, uploads = 0, answers = 0, rounds = 0;
	struct raw raw;

	for (; rounds < 1 || hostile_time_left(hostile); rounds++) {
		raw_open(hostile->dir, &raw);
		answers = ask_on(&raw, &nobody, "answers");
		raw_close(&raw);
		raw_open(hostile->dir, &raw);
		reports = ask_on(&raw, &status, "reports");
		raw_close(&raw);
		raw_open(hostile->dir, &raw);
		uploads = ask_on(&raw, &upload, "uploads");
		raw_close(&raw);
	}
	printf("%u rounds; hung up after %u answers, %u reports, %u uploads\n", rounds, answers,
		reports, uploads);
}
