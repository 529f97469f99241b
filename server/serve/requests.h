/* What clients ask for: each message to its handler. */
#ifndef SEGUE_SERVE_REQUESTS_H
#define SEGUE_SERVE_REQUESTS_H

#include "session/session.h"

/* The `received` of a server's sessions. */
unsigned segue_requests_received(
	struct segue_session *session, const struct segue_message *message);
/* Their `gone`. */
void segue_requests_gone(struct segue_session *session);

#endif
