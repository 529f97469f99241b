/*
 * Frames on the control socket: a header of 12 bytes, a payload of at most 64 KiB, at most four
 * fds.
 *
 *	u32 magic "SGF1"  u16 type  u16 fds  u32 size   payload[size]      (little-endian)
 *
 * fds go from server to client only: the server receives without a control buffer, so that the
 * kernel drops what is sent to it. The fds of a frame travel with its first byte; a mismatch
 * between the count and what came closes all of them and breaks the connection.
 */
#ifndef SEGUE_CORE_FRAME_H
#define SEGUE_CORE_FRAME_H

#include "segue/segue.h"

#define SEGUE_FRAME_MAX    65536 /* bytes of payload */
#define SEGUE_FRAME_HEADER 12
#define SEGUE_FRAME_FDS    5

struct segue_frame {
	uint16_t type;
	uint16_t fd_count;
	uint32_t size;
	const uint8_t *payload;   /* in the reader's buffer, valid until its next call */
	int fds[SEGUE_FRAME_FDS]; /* the caller takes them over; CLOEXEC */
};

/* Collects bytes into frames. About 64 KiB: allocate it, do not put it on the stack. */
struct segue_frame_reader {
	bool accept_fds; /* client: true; server: false */
	size_t have;     /* bytes in the buffer */
	size_t used;     /* of them, the frame handed out last */
	int fds[SEGUE_FRAME_FDS];
	size_t fd_count;
	uint8_t buffer[SEGUE_FRAME_HEADER + SEGUE_FRAME_MAX];
};

void segue_frame_reader_init(struct segue_frame_reader *reader, bool accept_fds);
/* Closes fds that were not handed out. */
void segue_frame_reader_finish(struct segue_frame_reader *reader);

/*
 * Reads what the socket has, never blocking: 1 and a frame, 0 if it is not whole yet, SEGUE_EGONE
 * at the end of the stream, SEGUE_EPROTOCOL (bad magic, too large, fd mismatch; the connection is
 * of no further use), SEGUE_ESYSTEM. Call again until it returns 0: one read may have brought
 * several.
 */
int segue_frame_read(struct segue_frame_reader *reader, int socket, struct segue_frame *out);

/* A frame has been begun and is not whole. */
bool segue_frame_reader_midway(const struct segue_frame_reader *reader);

/*
 * Sends a frame whole, waiting for room until `deadline_ns` (monotonic). The fds stay the caller's.
 * SEGUE_EGONE, SEGUE_ETIMEOUT, SEGUE_ELIMIT (payload too large).
 */
int segue_frame_send(int socket, uint16_t type, const void *payload, size_t size, const int *fds,
	size_t fd_count, int64_t deadline_ns);

/* Frames on their way out of the server: bounded, never blocking. */
struct segue_frame_queue;
/* At most `limit` bytes wait in it. NULL if there is no memory. */
struct segue_frame_queue *segue_frame_queue_create(size_t limit);
void segue_frame_queue_destroy(struct segue_frame_queue *queue);
/* Copies the frame and duplicates its fds. SEGUE_ELIMIT: the peer does not read. */
int segue_frame_queue_push(struct segue_frame_queue *queue, uint16_t type, const void *payload,
	size_t size, const int *fds, size_t fd_count);
/*
 * Sends what the socket takes: 0 if nothing is left, 1 if it has no room, 2 if the kernel has too
 * many fds of this process on their way (to anybody) to take more: to be tried again later.
 * SEGUE_EGONE.
 */
int segue_frame_queue_flush(struct segue_frame_queue *queue, int socket);

#endif
