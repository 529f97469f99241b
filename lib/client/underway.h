/*
 * What a producer has under way: entries in a ring, sent on each new connection, and asked about
 * until they are acknowledged. Inserting is producer.c's.
 */
#ifndef SEGUE_CLIENT_UNDERWAY_H
#define SEGUE_CLIENT_UNDERWAY_H

#include "client/stream.h"
#include "core/error.h"
#include "core/sequence_file.h"
#include "core/shm.h"

/* An entry that is not acknowledged. */
struct segue_pending {
	struct segue_pending *next;
	struct segue_shm
		own; /* its bytes, of one that is longer than the ring; fd -1: in the ring */
	uint64_t entry;
	uint64_t offset, room, bytes; /* room: of the ring */
	uint64_t steps, total_length;
	uint32_t key_size, cursor_size;
};

struct segue_producer {
	struct segue_stream *stream; /* used */
	char name[SEGUE_NAME_MAX + 1];
	uint8_t token[SEGUE_TOKEN_BYTES];
	bool takeover;
	struct segue_seqfile_head head;
	uint64_t *counts, *columns; /* scratch: of each field */
	uint64_t epoch;             /* of the connection on which `id` is valid; 0: none */
	uint64_t id;
	struct segue_shm ring;
	uint64_t ring_size, ring_upload;
	uint64_t end; /* of the ring: where the last entry ends */
	struct segue_pending *first, **tail;
	size_t count;
	uint64_t last, sent, acknowledged; /* entries */
	uint64_t resumed;
	void *cursor;
	size_t cursor_size;
	bool begun;                   /* it was open once */
	int64_t looked_ns;            /* when it was asked last */
	struct segue_outcome failure; /* for good; rc 0: none */
};

void segue_pending_free(struct segue_pending *pending);

/* Where `room` bytes are free behind the last entry; false: nowhere. */
bool segue_producer_find_room(
	const struct segue_producer *producer, uint64_t room, uint64_t *offset);
/*
 * Within an attempt: opens the name on this connection, if that is not done yet, and sends what is
 * under way.
 */
int segue_producer_ready(struct segue_producer *producer);
/* Until `entry` is acknowledged; 0: asks how far it is. */
int segue_producer_ask(struct segue_producer *producer, uint64_t entry, int64_t deadline_ns);
/*
 * `rc`: there is no more time for `entry`. 0: it is acknowledged by now; SEGUE_ETIMEOUT: the server
 * says what it waits for, if it can be asked.
 */
int segue_producer_reason(struct segue_producer *producer, uint64_t entry, int rc);
/* The server need not keep the name for it: the next call opens it anew. */
void segue_producer_tell_left(struct segue_producer *producer);

#endif
