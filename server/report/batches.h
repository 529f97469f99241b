/* BATCHES: how many batches the lanes of an open stream have, by the index of its data. */
#ifndef SEGUE_REPORT_BATCHES_H
#define SEGUE_REPORT_BATCHES_H

#include "session/session.h"

/* Answers a REPORT request of that kind: of a stream that the session has open. */
void segue_report_batches(struct segue_session *session, const struct segue_message *message);

#endif
