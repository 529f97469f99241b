/*
 * What sessions insert: their producers, from a message to an answer. On the loop's thread.
 *
 *	INSERT --> [queue] --copied, checked (a thread of the account's)--> asked of the inserter
 *		--> accepted, safe (the inserter's thread) --> acknowledged
 *
 * A session's bytes are copied before they are looked at, and no more of them at once than its ring
 * has. The first entry that cannot be accepted fails the producer: what it has sent behind that is
 * passed over, and each question after it is answered so.
 */
#ifndef SEGUE_STREAM_SUPPLY_H
#define SEGUE_STREAM_SUPPLY_H

#include "session/session.h"

void segue_supply_open_request(struct segue_session *session, const struct segue_message *message);
void segue_supply_insert_request(
	struct segue_session *session, const struct segue_message *message);
void segue_supply_wait_request(struct segue_session *session, const struct segue_message *message);
void segue_supply_leave_request(struct segue_session *session, const struct segue_message *message);
/* The end of a stream's input. */
void segue_supply_end_request(struct segue_session *session, const struct segue_message *message);
/* The session is gone: its names are free, and what it has sent and is not accepted is dropped. */
void segue_supplies_session_gone(struct segue_session *session);
/* It has closed its opening of a stream: the same for the producers of that. */
struct segue_opening;
void segue_supplies_opening_closed(
	struct segue_session *session, const struct segue_opening *opening);

#endif
