/*
 * A lane: a lease on the connection of its epoch, and what is needed to offer its last commit.
 *
 * Here is what others ask of it: whether it can be used, what its lease page and ring say. lease.c
 * changes the lease, resume.c takes it again after a loss, takeover.c takes it from an older
 * handle, attach.c makes and closes lanes.
 *
 * The thread of its client uses a lane. A newer handle of the lane, which may be used by another
 * thread, reads and writes what is marked (*), under segue_fork_lock(): so the lane's own thread
 * changes those fields under the lock, and reads them without.
 */
#ifndef SEGUE_CLIENT_LANE_H
#define SEGUE_CLIENT_LANE_H

#include "client/kept.h"
#include "client/stream.h"
#include "core/barrier.h"
#include "core/error.h"
#include "core/track.h"

/* For good. */
enum segue_loss {
	SEGUE_LOSS_NONE,
	SEGUE_LOSS_FENCED, /* somebody else has the lane */
	SEGUE_LOSS_TAKEN,  /* a newer handle of this process has it */
};

struct segue_lane {
	struct segue_client *client;
	struct segue_stream *stream;
	struct segue_lane *next; /* of the client's open lanes */
	uint32_t index, group;
	uint32_t replica, replicas; /* of the group: 0 holds the lease, the others follow it */
	bool moves; /* held as one of any; index: SEGUE_LANE_ANY before it has one */
	char group_name[SEGUE_NAME_MAX + 1]; /* (*) "": 0 */
	unsigned users;                      /* the handle, and each batch that is held */
	bool closed;                         /* the handle is gone */
	_Atomic uint32_t lost;               /* (*) enum segue_loss */
	struct segue_mapping *mapping;       /* (*) */
	struct segue_track track;
	struct segue_batch *open; /* the batch taken last */
	uint64_t epoch;           /* of the connection that the lease belongs to; 0: none */
	uint64_t instance;        /* (*) of the server that has what is committed */
	uint64_t device, inode;   /* (*) of its store */
	uint64_t handed_over;     /* (*) a newer handle has offered the batches below it */
	struct segue_lane *listed, **listed_link; /* (*) among the leases of the process */
	uint64_t lease;
	uint64_t generation;         /* (*) */
	uint32_t batch_size;         /* rows wanted in the batches of the lease */
	uint64_t granter, connected; /* (*) the server's instance, and the connection's number */
	uint8_t token[SEGUE_TOKEN_BYTES]; /* (*) */
	unsigned unanswered; /* grants of ours that may lie between this one and the next */
	uint64_t waited, waits, wakes;
	uint64_t steps, valid;       /* of the batches that were taken */
	uint64_t skipped;            /* in the rings before this one */
	struct segue_kept_rows kept; /* (*) */
	/* Of replicas: follow.h */
	bool placed;                  /* a follower that has taken a batch goes on from there */
	bool left;                    /* it has put the next one back: its holder says what comes */
	uint32_t again;               /* times that it has followed its holder in that */
	uint64_t took;                /* generation of the lease that its last batch was of */
	bool went_back;               /* to a token, since it has what is mapped */
	struct segue_mapping *coming; /* of the next lease, which begins at a later step; or NULL */
	uint64_t coming_generation;
	int64_t alone_since; /* others are waited for; 0: they are not */
	uint32_t gone;       /* of the page, as last told */
};

/* One user less; the last frees it. */
void segue_lane_drop(struct segue_lane *lane);

/* SEGUE_EFENCED: somebody else has the lane for good; says who. */
int segue_lane_fail_lost(const struct segue_lane *lane);
/* It is, unless that is known already. */
void segue_lane_lose(struct segue_lane *lane);
/* 0, or what the lease page says about storage. */
int segue_lane_check_storage(const struct segue_lane *lane);
/*
 * struct segue_client.may_start: a server that stopped because its storage failed is not started
 * again, for it would go on failing.
 */
int segue_lanes_may_start(const struct segue_lane *lanes);

/* Wakes the server. */
void segue_lane_ring(struct segue_lane *lane);
/* A batch has been waited for since *since, which becomes now: counts it here and in the carry. */
void segue_lane_count_wait(struct segue_lane *lane, int64_t *since);

static inline const struct segue_spec *segue_lane_spec(const struct segue_lane *lane)
{
	return lane->stream->shape->spec;
}

/* Whether the lease is one of the live connection. */
static inline bool segue_lane_attached(const struct segue_lane *lane)
{
	return segue_connection_live(&lane->client->connection) &&
	       lane->epoch == lane->client->epoch;
}

/* ---- Looked at for each batch, hence here ---- */

/* 0; SEGUE_EINVAL if there is no lane, SEGUE_EFORKED in a child of its process. */
static inline int segue_lane_usable(const struct segue_lane *lane)
{
	return lane ? segue_fork_check(&lane->client->connection.guard)
		    : segue_fail(SEGUE_EINVAL, "a lane is wanted, not NULL");
}

static inline bool segue_lane_is_lost(const struct segue_lane *lane)
{
	/* no pair: a newer handle's mark, which the next call sees */
	return segue_load_relaxed(&lane->lost) != SEGUE_LOSS_NONE;
}

/* By a newer handle of this process. */
static inline bool segue_lane_is_taken(const struct segue_lane *lane)
{
	/* no pair: see above */
	return segue_load_relaxed(&lane->lost) == SEGUE_LOSS_TAKEN;
}

/* It holds the lease that replicas follow. */
static inline bool segue_lane_leads(const struct segue_lane *lane)
{
	return lane->replicas > 1 && !lane->replica;
}

/* What the server asks of the holder: bits of enum segue_lease_asks. Nothing of who follows it. */
static inline uint32_t segue_lane_asked(const struct segue_lane *lane)
{
	/* acquire: pairs with segue_carry_ask (lane/carry.c) */
	return lane->replica ? 0 : segue_load_acquire(&segue_mapping_page(lane->mapping)->asks);
}

static inline int segue_lane_check_lost(const struct segue_lane *lane)
{
	return segue_lane_is_lost(lane) ? segue_lane_fail_lost(lane) : 0;
}

/* SEGUE_EUNSAVED if a batch is taken and not committed: says what is missing. */
static inline int segue_lane_check_no_batch(const struct segue_lane *lane)
{
	return segue_track_open(&lane->track) ? segue_batch_fail_unsaved(lane->open) : 0;
}

#endif
