/* What a grant consists of: grant.h. */
#ifndef SEGUE_ENGINE_GRANTED_H
#define SEGUE_ENGINE_GRANTED_H

#include "core/wire.h"
#include "engine/changes.h"
#include "engine/filler.h"
#include "engine/keeping.h"
#include "engine/live.h"

enum segue_grant_state {
	SEGUE_GRANT_MADE,
	SEGUE_GRANT_WATCHED,   /* its commits go to disk */
	SEGUE_GRANT_ENDING,    /* the lease is over: write what is committed, then `finished` */
	SEGUE_GRANT_LEAVING,   /* ... and the holder comes back after a restart */
	SEGUE_GRANT_FORGOTTEN, /* `finished` has been, or will be called */
};

struct segue_grant {
	struct segue_filler *filler;
	bool joined; /* others use it, too: it is left, not destroyed */
	struct segue_carry carry;
	struct segue_shm carry_shm, page_shm;
	int event;                       /* the worker wakes the server with it */
	struct segue_lane_record record; /* position: NULL */
	struct segue_place place;
	struct segue_keeping keeping;
	const struct segue_spec *spec;
	struct segue_live *live; /* or NULL */
	uint64_t step;           /* the first batch */
	uint64_t origin;         /* of it */
	uint32_t rows;           /* of the batch before it, with the parked ones */
	uint32_t batch_size;     /* of it and those that follow */
	int64_t durable_ms;      /* under the filler's lock: when what is on disk was committed, */
	int64_t checkpoint_ms; /* the loop's: the newest checkpoint stored was made; 0: not known */
	struct segue_purse purse;
	uint64_t paid; /* from it: for memory beyond that of the stream's own batch_size */

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

#endif
