/* Uploads: made, read and freed on threads of the account's, because zeroing takes its time. */
#include "session/upload.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/error.h"

enum { SLOW_TO_FREE = 1 << 20 }; /* bytes from which on freeing is a task */

/* ---- Freeing ---- */

static void free_upload(struct segue_upload *upload)
{
	segue_shm_destroy(&upload->shm);
	segue_account_give(upload->account, SEGUE_LIMIT_DESCRIPTORS, 1);
	segue_account_give(upload->account, SEGUE_LIMIT_UPLOADS, upload->size);
	segue_account_release(upload->account);
	free(upload);
}

static int unmap(struct segue_task *task)
{
	segue_shm_destroy(&((struct segue_upload *)task)->shm);
	return 0;
}

static void unmapped(struct segue_task *task)
{
	free_upload((struct segue_upload *)task);
}

void segue_upload_destroy(struct segue_upload *upload)
{
	if (!upload)
		return;
	struct segue_task *task = &upload->request.task;
	task->work = unmap;
	task->done = unmapped;
	if (upload->shm.size < SLOW_TO_FREE || segue_account_run(upload->account, task, false))
		free_upload(upload);
}

void segue_uploads_session_gone(struct segue_session *session)
{
	struct segue_upload *upload;

	while ((upload = LIST_FIRST(&session->uploads))) {
		LIST_REMOVE(upload, link);
		segue_upload_destroy(upload);
	}
}

/* ---- Making ---- */

static int make_segment(struct segue_request *request)
{
	struct segue_upload *upload = (struct segue_upload *)request;

	return segue_shm_create("segue-upload", upload->size, SEGUE_SHM_WRITE, &upload->shm);
}

static void segment_made(struct segue_task *task)
{
	struct segue_upload *upload = (struct segue_upload *)task;
	struct segue_session *session = upload->request.session;
	const struct segue_message message = {
		.type = SEGUE_MESSAGE_BULK,
		.serial = upload->request.serial,
		.bulk = {.id = upload->id, .size = upload->size},
	};
	bool over = segue_request_is_over(&upload->request);

	segue_request_end(&upload->request);
	if (over) {
		segue_upload_destroy(upload);
		return;
	}
	LIST_INSERT_HEAD(&session->uploads, upload, link);
	segue_session_send(session, &message, &upload->shm.fd, 1);
}

static int pay(struct segue_session *session, uint64_t size)
{
	int rc = size ? segue_account_take(session->account, SEGUE_LIMIT_UPLOADS, size)
		      : segue_fail(SEGUE_EPROTOCOL, "an upload of 0 bytes");
	if (rc)
		return rc;
	rc = segue_sessions_take(session->server, session->account, SEGUE_LIMIT_DESCRIPTORS, 1);
	if (rc)
		segue_account_give(session->account, SEGUE_LIMIT_UPLOADS, size);
	return rc;
}

void segue_upload_request(struct segue_session *session, const struct segue_message *message)
{
	uint64_t size = message->upload.size;
	struct segue_upload *upload = calloc(1, sizeof(*upload));

	int rc = upload ? pay(session, size) : segue_fail(SEGUE_ENOMEM, "no memory for an upload");
	if (rc) {
		free(upload);
		segue_session_fail(session, message->serial, rc);
		return;
	}
	upload->account = segue_account_hold(session->account);
	upload->id = ++session->server->last_id;
	upload->size = size;
	upload->shm = SEGUE_SHM_NONE;
	rc = segue_request_run(
		&upload->request, session, message->serial, make_segment, segment_made);
	if (rc) {
		free_upload(upload);
		segue_session_fail(session, message->serial, rc);
	}
}

/* ---- Use ---- */

int segue_upload_take(struct segue_session *session, uint64_t id, struct segue_upload **out)
{
	struct segue_upload *upload;

	*out = NULL;
	if (id == 0)
		return 0;
	LIST_FOREACH(upload, &session->uploads, link) {
		if (upload->id == id)
			break;
	}
	if (!upload)
		return segue_fail(SEGUE_EPROTOCOL, "upload %" PRIu64 " does not exist", id);
	LIST_REMOVE(upload, link);
	*out = upload;
	return 0;
}

int segue_upload_read(struct segue_upload *upload, uint8_t **out, size_t *size)
{
	uint8_t *bytes = malloc(upload->size);
	int rc = bytes ? segue_shm_read(&upload->shm, 0, bytes, upload->size)
		       : segue_fail(SEGUE_ENOMEM, "no memory for an upload of %zu bytes",
				 upload->size);

	segue_shm_destroy(&upload->shm);
	if (rc) {
		free(bytes);
		return rc;
	}
	*out = bytes;
	*size = upload->size;
	return 0;
}
