/* What a grant is made from: grant.h. */
#ifndef SEGUE_ENGINE_ORDER_H
#define SEGUE_ENGINE_ORDER_H

#include "core/wire.h"
#include "engine/changes.h"
#include "engine/filler.h"
#include "engine/live.h"

/* Feeds that are looked at; more groups than that are seldom at places of their own. */
enum { SEGUE_GRANT_CANDIDATES = 8 };

/* All pointers must outlive it, but for `bulk`. */
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
	uint64_t step;               /* OFFER, RESIZE: batches below it are committed */
	uint32_t batch_size;         /* RESIZE: from there on */
	struct segue_log_place seen; /* OFFER, of a log: what had been seen of it by then */
	const uint8_t *bulk;         /* RESTORE: token; OFFER: states and kept rows */
	size_t bulk_size;
	/* Of the lane: one of those that is where the grant begins is joined. */
	struct segue_filler *candidate[SEGUE_GRANT_CANDIDATES];
	uint32_t candidate_count;
	uint32_t replicas; /* more than 1: those who follow may still read when the lease is over,
			      and nobody waits for them: it joins none, and nobody its own */
	const _Atomic bool *given_up;    /* nobody waits for it any more: nothing is stored */
	struct segue_lane_record record; /* the lease's generation, token and holder; its position
					    is not looked at */
};

#endif
