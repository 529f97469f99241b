/* A lease ends: given back, overtaken, broken, or taken over by the next server. */
#ifndef SEGUE_STREAM_RELEASE_H
#define SEGUE_STREAM_RELEASE_H

#include "stream/stream.h"

/*
 * The lease is over, if there is one: fences the holder, has written what it committed, and takes
 * the grant down; the ledger is FREE then, and the tick that follows lets the next one ask.
 * `held`: the server stops, and the holder may go on with the next one: it is not fenced, and
 * offers what it commits until then.
 */
void segue_ledger_end(struct segue_ledger *ledger, bool held);
/* ENDING: says why the last commit is not on disk. Returns the code. */
int segue_ledger_fail_unwritten(const struct segue_ledger *ledger);
/* A checkpoint reads the grant on another thread: it is not taken down before the pin is gone. */
void segue_ledger_pin(struct segue_ledger *ledger);
void segue_ledger_unpin(struct segue_ledger *ledger);

/* Gives a lease back. Answers when the last commit is on disk: closing a lane means that. */
void segue_detach_request(struct segue_session *session, const struct segue_message *message);
/* Has all that is committed written: the transaction begins now; the lease page tells its end. */
void segue_flush_request(struct segue_session *session, const struct segue_message *message);

/* Sends the side segment of a slot: its holder has a batch in it whose segment it has not got. */
void segue_side_request(struct segue_session *session, const struct segue_message *message);

#endif
