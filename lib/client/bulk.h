/*
 * Bytes that travel beside the messages, in segments: uploads to the server, and answers of bytes.
 * All within an attempt (client.h).
 */
#ifndef SEGUE_CLIENT_BULK_H
#define SEGUE_CLIENT_BULK_H

#include "client/client.h"
#include "core/shm.h"

/* An upload of `size` > 0 bytes, mapped to be filled; then segue_shm_destroy. */
int segue_client_upload(
	struct segue_client *client, uint64_t size, struct segue_shm *out, uint64_t *id);
/* The same, filled with `bytes`. */
int segue_client_upload_bytes(
	struct segue_client *client, const void *bytes, size_t size, uint64_t *id);

struct segue_answer {
	void *bytes; /* the caller frees them; a NUL follows the last */
	size_t size;
	uint64_t needs, first; /* of a token: as segue_stream_token_needs() has them */
};
/* A request that is answered by bytes. */
int segue_client_fetch(struct segue_client *client, struct segue_message *request,
	int64_t timeout_ns, struct segue_answer *answer);

#endif
