/* C9: announces 4 GiB and is silent; sends a byte a second; never finishes its handshake. */
#include "hostile.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "core/wait.h"

/* A header that announces `size` bytes, as the first thing said or after the handshake. */
static void begin(const struct hostile *hostile, struct raw *raw, bool greeted, uint32_t size)
{
	if (greeted)
		raw_open(hostile->dir, raw);
	else
		EXPECT(raw_connect(hostile->dir, raw), "connect: %s", strerror(errno));
	raw_send_frame(raw, SEGUE_MESSAGE_HELLO, 0, size, NULL, 0);
}

/* True if the server has hung up. */
static bool gone(struct raw *raw)
{
	return raw_send(raw, "", 1) ? raw_receive(raw, 1) < 0 : true;
}

void attack_slow(struct hostile *hostile)
{
	struct raw silent, handshake, frame;
	int64_t start = segue_now_ns(), handshake_ns = 0, frame_ns = 0;

	begin(hostile, &silent, true, UINT32_MAX);
	raw_expect_end(&silent, 2000, "4 GiB announced");
	begin(hostile, &handshake, false, SEGUE_FRAME_MAX);
	begin(hostile, &frame, true, SEGUE_FRAME_MAX);
	/* A byte a second each. */
	for (int i = 0; i < (hostile->crowded ? 40 : 15) && (!handshake_ns || !frame_ns); i++) {
		hostile_sleep_ms(1000);
		if (!handshake_ns && gone(&handshake))
			handshake_ns = segue_now_ns() - start;
		if (!frame_ns && gone(&frame))
			frame_ns = segue_now_ns() - start;
	}
	printf("byte by byte: handshake ended after %.1f s, frame after %.1f s\n",
		(double)handshake_ns / 1e9, (double)frame_ns / 1e9);
	EXPECT(handshake_ns && (hostile->crowded || handshake_ns < INT64_C(10000000000)),
		"a handshake that takes for ever is not ended after 5 s");
	EXPECT(frame_ns, "a frame that takes for ever is not ended after 10 s");
	raw_close(&silent);
	raw_close(&handshake);
	raw_close(&frame);
}
