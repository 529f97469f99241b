/* Asking for a lane: waiting for it, the grant, and what goes on while it is held. */
#ifndef SEGUE_STREAM_ATTACH_H
#define SEGUE_STREAM_ATTACH_H

#include "stream/stream.h"

/* Answers, now or later. */
void segue_attach_request(struct segue_session *session, const struct segue_message *message);

/* ---- What befalls a ledger ---- */

/*
 * Time passes, *at is now: lets those ask who wait for what is free; looks for reservations that
 * run out, requests whose time is up, workers that wrote nonsense or are still.
 */
void segue_ledger_look(struct segue_ledger *ledger, void *at);
/* A session is gone: its lease ends, its requests that wait are dropped. */
void segue_ledger_session_gone(struct segue_ledger *ledger, void *session);
/* A client has closed the stream: its lease through this opening ends, its requests fail. */
void segue_ledger_opening_closed(struct segue_ledger *ledger, const struct segue_opening *opening);
/* The server stops: the lease ends, its record stays "held". *idle = false: a grant is in force. */
void segue_ledger_stop(struct segue_ledger *ledger, void *idle);

#endif
