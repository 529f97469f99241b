/*
 * Sessions that take any lane of a group, and which lanes they have: what any.c shares out. On the
 * loop's thread.
 *
 * A session is a taker once it has asked, and at work while it has lanes that move or waits for
 * one; some time longer, for it may ask again. While one is at work `start` counts once for each
 * lane: whoever takes it later goes on from there.
 */
#ifndef SEGUE_STREAM_TAKER_H
#define SEGUE_STREAM_TAKER_H

#include "stream/stream.h"

struct segue_taker {
	TAILQ_ENTRY(segue_taker) link;
	struct segue_session *session;
	struct segue_opening *opening;
	struct segue_message message; /* `waits`: what it asks */
	bool waits;
	bool works;       /* has lanes, waits, or may ask again: only those share */
	int64_t deadline; /* of that; else until when it may ask again */
};

/* What is known of a lane beside its ledger. */
struct segue_taken {
	struct segue_session *to; /* whose it is, or is about to be; NULL: it is apart */
	bool begun;               /* since the group is at work */
	bool over;                /* it ended at its last taking down, */
	uint32_t ends;            /* when the input had so many ends */
	uint32_t asks;            /* of its holder: enum segue_lease_asks */
	uint64_t since;           /* it is free; 0: nobody has had it */
};

/* Of one group: made when the first one asks. */
struct segue_takers {
	TAILQ_HEAD(, segue_taker) takers; /* who has come first stands first */
	uint64_t turn;
	bool dirty; /* something has changed since it was shared out */
	struct segue_taken lane[];
};

/* The group has some from now on. SEGUE_ENOMEM. */
int segue_takers_make(struct segue_ledger_group *group, uint32_t lanes);
/* Of a group, before it goes; nobody waits. */
void segue_takers_finish_group(struct segue_ledger_group *group);
/* Of all groups; before the stream's ledgers are. */
void segue_takers_finish(struct segue_stream *stream);
/* Whether one waits for a lane of the group. */
bool segue_takers_wait(const struct segue_ledger_group *group);
/*
 * Takers of the group are at work from now on; `begun`: so they were before. Who does not go on
 * where the lanes are is to meet them, those that have ended, too.
 */
void segue_takers_begin(struct segue_ledger_group *group, uint32_t lanes, bool begun, bool goes_on);

/* NULL: it is none. */
struct segue_taker *segue_taker_find(
	struct segue_takers *takers, const struct segue_session *session);
/* NULL: no memory. */
struct segue_taker *segue_taker_add(
	struct segue_takers *takers, struct segue_session *session, struct segue_opening *opening);
void segue_taker_remove(struct segue_takers *takers, struct segue_taker *taker);
bool segue_taker_has_lanes(const struct segue_ledger_group *group, uint32_t lanes,
	const struct segue_session *session);

/* ---- What befalls a ledger: nothing if its group has had no takers ---- */

/* It is about to be granted. `to`: whom, if it moves; NULL: to somebody who does not share. */
void segue_taken_making(struct segue_ledger *ledger, struct segue_session *to);
/* That is done; `by_library`: of a lease that it had with the server before this one. */
void segue_taken_granted(struct segue_ledger *ledger, struct segue_session *to, bool by_library);
/* Its grant is about to be taken down. */
void segue_taken_freed(struct segue_ledger *ledger);
/* FREE, and its data have ended. */
bool segue_taken_is_over(const struct segue_stream *stream, const struct segue_taken *lane);

#endif
