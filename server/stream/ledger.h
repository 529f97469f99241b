/*
 * The ledgers of a stream: for each (lane, group) who has it, and what is in force. On the loop's
 * thread.
 *
 *	attach.c:  ask ──► make the grant (loader or helper thread) ──► HELD
 *	release.c: HELD ──► end: fence, write (committer) ──► take down ──► FREE
 *
 * A ledger stays where it is until the tick sweeps those that nobody has, asks for or reads.
 */
#ifndef SEGUE_STREAM_LEDGER_H
#define SEGUE_STREAM_LEDGER_H

#include "core/list.h"
#include "engine/grant.h"
#include "lane/lease.h"
#include "session/session.h"

#define SEGUE_RECONNECT_GRACE_NS INT64_C(10000000000)

struct segue_attach;
struct segue_opening;
struct segue_stream;

/* One (lane, group): who has it, and what is in force. */
struct segue_ledger {
	struct segue_stream *stream;
	struct segue_place place;
	struct segue_lease lease;
	uint64_t durable;              /* step on disk when no grant is in force */
	struct segue_grant *grant;     /* HELD or ENDING */
	struct segue_opening *opening; /* through which that was attached; used */
	struct segue_session *session; /* whose lease it is; NULL while ENDING */
	uint64_t lease_id;
	struct segue_account
		*account; /* pays for the grant, made or in force: held; NULL: there is none */
	uint64_t memory;  /* what for */
	struct segue_watch event; /* the worker wakes the server */

	struct segue_session *detaching; /* waits for the end of ENDING; or NULL */
	uint64_t detach_serial;
	unsigned pins; /* checkpoints that read the grant on other threads */
	bool written;  /* ENDING: the last commit is on disk */
	bool delayed;  /* ENDING: it could not be written for now: those who wait are to be told */

	TAILQ_HEAD(segue_waiting, segue_attach) waiting; /* requests for this lane, oldest first */
	TAILQ_HEAD(, segue_attach) loading;              /* requests whose uploads are being read */
	struct segue_attach *making;                     /* GRANTING: the request */
	unsigned checkpoints; /* that mean this ledger, running or waiting */
	bool in_use;          /* listed as such */
	LIST_ENTRY(segue_ledger) link;
};

struct segue_ledgers {
	struct segue_stream *stream;
	struct segue_ledger *of_lane; /* one a lane, group 0; NULL if persist is false */
	uint32_t lanes;
	/*
	 * Those that somebody has, has reserved or asks for; all there are if persist is false.
	 * What is done to all ledgers, again and again, is done to these: a stream may have many
	 * lanes.
	 */
	LIST_HEAD(, segue_ledger) in_use;
};

/*
 * Makes a ledger for each of `lanes` of the stream with that id, and loads its record: who held
 * it, and up to where it is on disk. From any thread.
 */
int segue_ledgers_load(struct segue_ledgers *ledgers, struct segue_store *store, uint32_t stream,
	uint32_t lanes, int64_t now);
/* Frees them, with what is in force. */
void segue_ledgers_finish(struct segue_ledgers *ledgers);
/* A ledger of its own for an attach to a stream with persist = false. NULL: no memory. */
struct segue_ledger *segue_ledgers_add(struct segue_ledgers *ledgers, struct segue_place place);
/*
 * The lane's ledger; of a stream with persist = false the one that this session holds. NULL: none.
 */
struct segue_ledger *segue_ledgers_find(
	const struct segue_ledgers *ledgers, const struct segue_session *session, uint32_t lane);
/* Somebody asks for it: it is listed until a sweep finds it idle. */
void segue_ledger_use(struct segue_ledgers *ledgers, struct segue_ledger *ledger);
/*
 * Takes what a grant needs of the account, which is held then: `memory` and descriptors.
 * SEGUE_ELIMIT.
 */
int segue_ledger_pay(struct segue_ledger *ledger, struct segue_server *server,
	struct segue_account *account, uint64_t memory);
void segue_ledger_pay_back(struct segue_ledger *ledger);
/* For what a grant comes to need beyond that, paid on the same account: until it is paid back. */
struct segue_purse segue_ledger_purse(struct segue_ledger *ledger);
/*
 * Takes those that nobody has, asks for or reads out of the list. Nobody may look at one just
 * then.
 */
void segue_ledgers_sweep(struct segue_ledgers *ledgers);

#endif
