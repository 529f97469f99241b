/*
 * Reports: what the server and the store look like, as JSON. For the command line and the bindings.
 */
#ifndef SEGUE_REPORT_REQUEST_H
#define SEGUE_REPORT_REQUEST_H

#include "session/session.h"
#include "store/store.h"

/* Answers a REPORT request: STATUS now, those of the store on a thread of the user's. */
void segue_report_request(struct segue_session *session, const struct segue_message *message);

/*
 * A report of the store alone, INSPECT or GET, also without a server: one JSON text, malloc'd.
 * `stream` and `key` may be "". SEGUE_ENOTFOUND: no such stream or key.
 */
int segue_report_store(struct segue_store *store, const char *dir, enum segue_report what,
	const char *stream, const char *key, char **out);

#endif
