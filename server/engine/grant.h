/*
 * A grant: all that a lease consists of while it is in force. Feed and ring, carry, lease page,
 * event.
 *
 * Making one reads data and store, so it runs on a loader thread (segue_grant_make), and stores the
 * grant before anything of it is sent. It then belongs to the server's thread, and is watched by
 * the committer until its last commit is on disk.
 *
 *	     committer: add         finish, held = false
 *	MADE ──────────────► WATCHED ───────────────────► ENDING ─────┐ the last commit is on disk,
 *	                        │   finish, held = true               ▼ or can never be
 *	                        └───────────────────────► LEAVING ─► FORGOTTEN
 *
 * Apart from that: `refused`, which the store may say of a lane in any of the middle three, and
 * which its worker's side looks at under the filler's lock.
 */
#ifndef SEGUE_ENGINE_GRANT_H
#define SEGUE_ENGINE_GRANT_H

#include "core/wire.h"
#include "engine/changes.h"
#include "engine/filler.h"
#include "engine/live.h"

/* What a grant is made from. All pointers must outlive it, but for `bulk`. */
struct segue_grant_order {
	struct segue_place place;
	const struct segue_spec *spec; /* of the client that asks: its runtime options hold */
	struct segue_purse purse;      /* for side segments */
	struct segue_plan_spec plan;
	struct segue_source *source;
	struct segue_live *live; /* the log that it reads; NULL: none */
	struct segue_pool *pool;
	struct segue_store *store;
	struct segue_changes *changes; /* of the store */
	uint64_t fingerprint[2];
	enum segue_attach_mode mode;
	uint64_t step;               /* OFFER: batches below it are committed */
	struct segue_log_place seen; /* OFFER, of a log: what had been seen of it by then */
	const uint8_t *bulk;         /* RESTORE: token; OFFER: states and kept rows */
	size_t bulk_size;
	const _Atomic bool *given_up;    /* nobody waits for it any more: nothing is stored */
	struct segue_lane_record record; /* the lease's generation, token and holder; its position
					    is not looked at */
};

enum segue_grant_state {
	SEGUE_GRANT_MADE,
	SEGUE_GRANT_WATCHED,   /* its commits go to disk */
	SEGUE_GRANT_ENDING,    /* the lease is over: write what is committed, then `finished` */
	SEGUE_GRANT_LEAVING,   /* ... and the holder comes back after a restart */
	SEGUE_GRANT_FORGOTTEN, /* `finished` has been, or will be called */
};

struct segue_grant {
	struct segue_filler *filler;
	struct segue_carry carry;
	struct segue_shm carry_shm, page_shm;
	int event;                       /* the worker wakes the server with it */
	struct segue_lane_record record; /* position: NULL */
	struct segue_place place;
	const struct segue_spec *spec;
	struct segue_live *live; /* or NULL */
	uint64_t step;           /* the first batch */
	uint32_t rows;           /* of the batch before it */

	/* The committer's, of which `state` is under its lock. */
	enum segue_grant_state state;
	struct segue_account account;
	struct segue_grant *next; /* in its list */
	bool refused;    /* under the filler's lock: the store does not take it, for good */
	unsigned misses; /* transactions in a row that had no memory for it */
	void (*finished)(void *arg);
	void (*delayed)(void *arg);
	void *arg;
};

/*
 * Makes and stores it. SEGUE_ESTART (mode NONE and the lane has a position: names step and date),
 * SEGUE_ETOKEN (names what differs), SEGUE_EPROTOCOL (an offer that cannot be), SEGUE_ECHANGED (one
 * behind sequences that the log has no more), and what source, store and memory say; the store is
 * then as before.
 */
int segue_grant_make(const struct segue_grant_order *order, struct segue_grant **out);
/*
 * Whether the token of a RESTORE is whole, and of this lane of this stream: SEGUE_ETOKEN. Of the
 * order only place, spec, plan, fingerprint and bulk are looked at.
 */
int segue_grant_check_token(const struct segue_grant_order *order);
/* Takes a way that the picture above has. */
void segue_grant_go(struct segue_grant *grant, enum segue_grant_state to);
/* Storage failed (code), or works again (0): the holder sees it, and nothing is published. */
void segue_grant_storage(struct segue_grant *grant, int code, const char *detail);
/* The same for this lane alone, and for good. */
void segue_grant_refuse(struct segue_grant *grant, int code, const char *detail);
/* What its holder has been told: a code and the text; 0: nothing is wrong. */
int segue_grant_failure(struct segue_grant *grant, char text[SEGUE_ERROR_TEXT]);
/* Whether something is committed and not on disk. */
bool segue_grant_owes(struct segue_grant *grant);
/* Says again that the lane was refused, if it was, to a holder that asks for a transaction. */
void segue_grant_remind(struct segue_grant *grant);
/* Frees it; its filler is closed already, or was never started. NULL is fine. */
void segue_grant_destroy(struct segue_grant *grant);

#endif
