/* Bytes that travel beside the messages. */
#include "client/bulk.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"

int segue_client_upload(
	struct segue_client *client, uint64_t size, struct segue_shm *out, uint64_t *id)
{
	struct segue_message request = {.type = SEGUE_MESSAGE_UPLOAD, .upload = {.size = size}};
	struct segue_reply reply;
	int rc = segue_client_call(client, &request, SEGUE_MESSAGE_BULK, SEGUE_REQUEST_NS, &reply);

	if (rc)
		return rc;
	rc = segue_shm_map(reply.fds[0], size, SEGUE_SHM_WRITE, out);
	if (rc) {
		close(reply.fds[0]);
		return segue_fail_within(rc, "the upload of %" PRIu64 " bytes", size);
	}
	*id = reply.message.bulk.id;
	return 0;
}

int segue_client_upload_bytes(
	struct segue_client *client, const void *bytes, size_t size, uint64_t *id)
{
	struct segue_shm upload;
	int rc = segue_client_upload(client, size, &upload, id);

	if (rc)
		return rc;
	memcpy(upload.map, bytes, size);
	segue_shm_destroy(&upload);
	return 0;
}

int segue_client_fetch(struct segue_client *client, struct segue_message *request,
	int64_t timeout_ns, struct segue_answer *answer)
{
	struct segue_shm segment;
	struct segue_reply reply;
	int rc = segue_client_call(client, request, SEGUE_MESSAGE_BULK, timeout_ns, &reply);

	if (rc)
		return rc;
	uint64_t got = reply.message.bulk.size;
	rc = segue_shm_map(reply.fds[0], got, SEGUE_SHM_READ, &segment);
	if (rc) {
		close(reply.fds[0]);
		return segue_fail_within(rc, "the answer of %" PRIu64 " bytes", got);
	}
	char *copy = malloc(got + 1);
	if (copy) {
		memcpy(copy, segment.map, got);
		copy[got] = '\0';
		*answer = (struct segue_answer){
			copy, got, reply.message.bulk.needs, reply.message.bulk.first};
	} else {
		rc = segue_fail(SEGUE_ENOMEM, "no memory for an answer of %" PRIu64 " bytes", got);
	}
	segue_shm_destroy(&segment);
	return rc;
}
