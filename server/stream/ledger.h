/*
 * The ledger of a stream: for each (lane, group) who has it, and what is in force. On the loop's
 * thread.
 *
 *	ask ──► make the grant (loader or helper thread) ──► HELD ──► end: fence, write (committer) ──► take down
 */
#ifndef SEGUE_STREAM_LEDGER_H
#define SEGUE_STREAM_LEDGER_H

#include "session/server.h"

/* Loads the lanes' records: who held what, and up to where it is on disk. On the stream's own thread, before its first use. */
int segue_ledgers_load(struct segue_stream *stream);
void segue_ledgers_destroy(struct segue_stream *stream);
/* Reservations that run out; workers that wrote nonsense. When to come again. */
int64_t segue_ledgers_tick(struct segue_stream *stream, int64_t now);
void segue_ledgers_session_gone(struct segue_stream *stream, struct segue_session *session);
/* A client has closed the stream: its leases through this opening end, its requests fail. */
void segue_ledgers_opening_closed(struct segue_opening *opening);
void segue_ledgers_storage(struct segue_stream *stream, int code, const char *detail);
/* Ends all leases; their records stay "held". True if nothing is in force any more. */
bool segue_ledgers_stop(struct segue_stream *stream);
/* A checkpoint reads the grant on another thread: it is not taken down before the pin is gone. */
void segue_ledger_pin(struct segue_ledger *ledger);
void segue_ledger_unpin(struct segue_ledger *ledger);
/* The lane's ledger; of a stream with persist = false the one that this session holds. NULL: none. */
struct segue_ledger *segue_ledger_of(
	struct segue_opening *opening, struct segue_session *session, uint32_t lane);

#endif
