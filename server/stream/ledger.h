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
#include "store/groups.h"
#include "stream/feeds.h"

#define SEGUE_RECONNECT_GRACE_NS INT64_C(10000000000)

struct segue_attach;
struct segue_gathered;
struct segue_opening;
struct segue_replica;
struct segue_takers;
struct segue_stream;

/* Those who follow a lease, or wait for one to follow: stream/replica.h. Zeroed: none. */
struct segue_replicas {
	LIST_HEAD(, segue_replica) waiting;
	LIST_HEAD(, segue_replica) following;
	uint32_t wanted; /* of the lease in force: how many there are to be, with its holder */
};

/* One (lane, group): who has it, and what is in force. */
struct segue_ledger {
	struct segue_stream *stream;
	struct segue_place place;
	struct segue_lease lease;
	uint64_t durable;               /* step on disk when no grant is in force, */
	int64_t durable_ms;             /* when it was committed, */
	int64_t checkpoint_ms;          /* the newest checkpoint was made; 0: none, not known; */
	bool sized;                     /* and whether batches from there on have */
	uint32_t batch_size;            /* so many rows, or those of the stream */
	struct segue_grant *grant;      /* HELD or ENDING */
	struct segue_stream_feed *feed; /* that it uses; NULL: it has left it */
	struct segue_opening *opening;  /* through which that was attached; used */
	struct segue_session *session;  /* whose lease it is; NULL while ENDING */
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
	struct segue_attach *making;                     /* GRANTING: the request, */
	bool making_is_slow;             /* whose client decides how long it takes, and */
	struct segue_gathered *gathered; /* which meets those of other groups (gather.h); or NULL */
	int64_t asked_until; /* HELD: it was asked to renew, and is expected; 0: it was not */
	int64_t asked_again; /* the same is not asked before */
	uint64_t asked_step; /* where it was then */
	struct segue_replicas replicas;
	unsigned checkpoints; /* that mean this ledger, running or waiting */
	bool in_use;          /* listed as such */
	LIST_ENTRY(segue_ledger) link;
};

/* A group, and its ledgers. */
struct segue_ledger_group {
	LIST_ENTRY(segue_ledger_group) link;
	uint32_t number;
	struct segue_takers *takers;   /* who take any lane (taker.h); NULL: there were none */
	char name[SEGUE_NAME_MAX + 1]; /* "": the one that every stream has, 0 */
	bool dropped;                  /* it is found no more */
	struct segue_account *account; /* pays for it: held; NULL: the stream's does */
	uint64_t memory;
	struct segue_ledger of_lane[]; /* one a lane */
};

struct segue_ledgers {
	struct segue_stream *stream;
	LIST_HEAD(, segue_ledger_group) groups; /* none if persist is false */
	uint32_t lanes;
	/*
	 * Those that somebody has, has reserved or asks for; all there are if persist is false.
	 * What is done to all ledgers, again and again, is done to these: a stream may have many
	 * lanes.
	 */
	LIST_HEAD(, segue_ledger) in_use;
};

/*
 * Makes a ledger of the group for each lane of the stream with that id, and loads its record: who
 * held it, and up to where it is on disk. From any thread, while no other has the ledgers. On an
 * error there is none of the group.
 */
int segue_ledgers_load(struct segue_ledgers *ledgers, struct segue_store *store, uint32_t stream,
	const struct segue_group *group, int64_t now);
/* Frees them, with what is in force. */
void segue_ledgers_finish(struct segue_ledgers *ledgers);
/* A ledger of its own for an attach to a stream with persist = false. NULL: no memory. */
struct segue_ledger *segue_ledgers_add(struct segue_ledgers *ledgers, struct segue_place place);
/*
 * The lane's ledger; of a stream with persist = false the one that this session holds. NULL: none.
 */
struct segue_ledger *segue_ledgers_find(const struct segue_ledgers *ledgers,
	const struct segue_session *session, uint32_t group, uint32_t lane);
/* The group of that number; NULL: there is none, or it is being dropped, or persist is false. */
struct segue_ledger_group *segue_ledgers_group(
	const struct segue_ledgers *ledgers, uint32_t number);
/* The group of that name; NULL: there is none, or persist is false. */
struct segue_ledger_group *segue_ledgers_find_group(
	const struct segue_ledgers *ledgers, const char *name);
/* Frees the group and its ledgers, of which nobody has, reserves or asks for one; pays back. */
void segue_ledgers_remove_group(struct segue_ledgers *ledgers, struct segue_ledger_group *group);
/* Bytes that a group of so many lanes takes, among those who read a log, too. */
uint64_t segue_ledger_group_size(uint32_t lanes);
/* The account pays for the group from now on: for what it has taken already. */
void segue_ledger_group_own(
	struct segue_ledger_group *group, struct segue_account *account, uint64_t memory);
/* The newest checkpoint that is stored of the lane was made then (Unix time; 0: there is none). */
void segue_ledger_note_checkpoint(struct segue_ledger *ledger, int64_t unix_ms);
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
