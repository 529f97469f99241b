/*
 * Replicas of a group that follow its lease of a lane: who waits for one, who follows, who has
 * gone. On the loop's thread.
 *
 *	FOLLOW ──► waits ──► follows ──► gone
 *	             ▲ the lease is in     its session or opening ends; it gives back; it wrote
 *	               force, and at       nonsense; the lease ends: then it asks again
 *	               its step
 */
#ifndef SEGUE_STREAM_REPLICA_H
#define SEGUE_STREAM_REPLICA_H

#include <stdbool.h>
#include <stdint.h>

struct segue_ledger;
struct segue_message;
struct segue_opening;
struct segue_session;

/* Answers, now or later. */
void segue_follow_request(struct segue_session *session, const struct segue_message *message);
/* Whether that lease is a follower's of this session: the ledger of what it follows, or NULL. */
struct segue_ledger *segue_replicas_find(const struct segue_session *session, uint64_t lease);
/* It is given back; one that is none is fine. */
void segue_replicas_give_back(struct segue_session *session, uint64_t lease);
/* Those that follow, as a report has them. */
struct segue_replica_view {
	uint32_t replica;
	int64_t pid;
	const char *program;
	uint64_t step, lag; /* batches that it is done with; and how many fewer than its holder */
};
void segue_replicas_visit(const struct segue_ledger *ledger,
	void (*visit)(void *arg, const struct segue_replica_view *view), void *arg);
/* With the filler's lock: whether the holder, as it says itself, waits for some to come. */
bool segue_replicas_await(const struct segue_ledger *ledger);

/* ---- What befalls a ledger ---- */

/* A lease is in force, and is to have so many replicas, with its holder. */
void segue_replicas_granted(struct segue_ledger *ledger, uint32_t wanted);
/* It is over, or about to be: nobody follows it any more. */
void segue_replicas_end(struct segue_ledger *ledger);
/* Time passes: those that wait may be served, or have waited too long; who wrote nonsense goes. */
void segue_replicas_look(struct segue_ledger *ledger, int64_t now);
void segue_replicas_session_gone(struct segue_ledger *ledger, const struct segue_session *session);
void segue_replicas_closed(struct segue_ledger *ledger, const struct segue_opening *opening);

#endif
