/*
 * The right of one process to one (lane, group): who has it, since which generation, who may have
 * it next.
 *
 * A pure state machine: the clock, random bytes and what is known of processes come in as
 * arguments.
 *
 *	         ask: GRANT              granted(ok)
 *	FREE ───────────────► GRANTING ───────────────► HELD
 *	▲ ▲ ▲                    │ granted(failed)        │ end: process or socket gone,
 *	│ │ └────────────────────┘                        ▼ detach, restore, taken over
 *	│ └──────────────────────────────────────────── ENDING
 *	│     taken: words and states are in the store
 *	RESERVED (after a start: the last grant's holder may live)
 *
 * A grant is durable before anything of it is sent: GRANTING lasts until the store says so.
 */
#ifndef SEGUE_LANE_LEASE_H
#define SEGUE_LANE_LEASE_H

#include "os/process.h"

enum segue_lease_state {
	SEGUE_LEASE_FREE,
	SEGUE_LEASE_RESERVED,
	SEGUE_LEASE_GRANTING,
	SEGUE_LEASE_HELD,
	SEGUE_LEASE_ENDING,
};

struct segue_lease {
	enum segue_lease_state state;
	uint64_t generation;              /* of the last grant, or restore */
	uint8_t token[SEGUE_TOKEN_BYTES]; /* of the last grant */
	bool token_valid;                 /* the last grant's states may still be offered */
	struct segue_holder holder;       /* of the last grant */
	int64_t reserved_until; /* RESERVED: monotonic ns; INT64_MAX: as long as the process lives
				 */
	/* GRANTING: what the store still says, should the grant not get there. */
	struct {
		enum segue_lease_state state;
		uint8_t token[SEGUE_TOKEN_BYTES];
		bool token_valid;
		struct segue_holder holder;
	} before;
};

struct segue_lease_request {
	struct segue_holder holder;
	enum segue_attach_mode mode;
	uint8_t token[SEGUE_TOKEN_BYTES]; /* OFFER */
	uint64_t step;                    /* OFFER: batches below it are committed */
	/* A newer handle of one process: what an older one of it holds ends. Not OFFER, RESUME. */
	bool take;
	bool holder_left; /* HELD: by a connection that its peer has closed, which is told soon */
};

enum segue_lease_answer {
	SEGUE_LEASE_GRANT, /* now GRANTING: store the grant, then segue_lease_granted() */
	SEGUE_LEASE_WAIT,  /* being given back, or granted: ask again when its state has changed */
	SEGUE_LEASE_TAKE,  /* end the lease, for this one takes it; then ask again */
	SEGUE_LEASE_BUSY,  /* held by somebody else, or reserved for another process */
	/*
	 * An offer of a lease that is no longer the latest, or that ends below `durable`; what the
	 * library asks by itself of a lane that somebody has.
	 */
	SEGUE_LEASE_REFUSED,
};

const char *segue_lease_state_name(enum segue_lease_state state);
/* The same process. One of which something is not known (0) is the same as none, not as itself. */
bool segue_holder_same(const struct segue_holder *a, const struct segue_holder *b);

/*
 * A lease as the store has it, after a start: reserved while its holder lives, free at once when it
 * is gone, `grace` ns where that cannot be known.
 */
void segue_lease_load(struct segue_lease *lease, const struct segue_lane_record *record,
	enum segue_presence presence, int64_t now, int64_t grace);

/*
 * A process asks for the lane. `durable`: the step on disk. On GRANT the generation has risen and
 * `fresh_token` has become the token. A reservation is its process's to use; of a process that
 * holds the lane a newer handle may take it (`take`), and what goes on after a lost connection
 * waits for the end of that (WAIT: an offer, or RESUME where `holder_left`).
 */
enum segue_lease_answer segue_lease_ask(struct segue_lease *lease,
	const struct segue_lease_request *request, uint64_t durable,
	const uint8_t fresh_token[SEGUE_TOKEN_BYTES]);
/*
 * The grant is durable (HELD), or could not be made or sent: then all is as before the question but
 * for the generation, so that who might offer its last commits may do so still.
 */
void segue_lease_granted(struct segue_lease *lease, bool ok);
/* The holder is gone or gives it back: ENDING if it was HELD (true: take words and states, then
 * taken()). */
bool segue_lease_end(struct segue_lease *lease);
/* What the holder left is in the store, or nothing is to be taken: FREE. */
void segue_lease_taken(struct segue_lease *lease);
/* The process of a reservation is gone, or its time is up: FREE, true if that changed it. */
bool segue_lease_expire(struct segue_lease *lease, enum segue_presence presence, int64_t now);

#endif
