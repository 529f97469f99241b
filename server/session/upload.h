/* Uploads: segments that a client fills, as the bytes of a request that follows. */
#ifndef SEGUE_SESSION_UPLOAD_H
#define SEGUE_SESSION_UPLOAD_H

#include "core/shm.h"
#include "session/request.h"

struct segue_upload {
	struct segue_request request;  /* that it is made for; its task frees it, too */
	LIST_ENTRY(segue_upload) link; /* of the session, until it is taken */
	struct segue_account *account; /* pays for it; held */
	uint64_t id;
	size_t size;
	struct segue_shm shm;
};

/* Makes one, and answers with its id and its descriptor. */
void segue_upload_request(struct segue_session *session, const struct segue_message *message);
/* Takes an upload out of the session: the caller destroys it. Id 0: none. SEGUE_EPROTOCOL. */
int segue_upload_take(struct segue_session *session, uint64_t id, struct segue_upload **out);
/* Reads it into private memory and gives its segment back: on a thread of the account's. */
int segue_upload_read(struct segue_upload *upload, uint8_t **out, size_t *size);
/* Frees it; on the loop's thread. NULL is fine. May change this thread's detail. */
void segue_upload_destroy(struct segue_upload *upload);
/* The session is gone: frees those that it has not used. */
void segue_uploads_session_gone(struct segue_session *session);

#endif
