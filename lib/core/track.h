/*
 * A worker's end of a lease: which batch comes next, which are committed, which are still held.
 *
 * Pure but for the shared words, which go through barrier.h; the simulator runs this code as it is.
 * One thread. It never blocks; sleeping is the caller's, between sleep_begin and sleep_end.
 *
 *	take t -> (states written) -> commit t -> release t        released <= committed <= next
 *
 * Only the newest batch taken can be uncommitted: it may be put back, and is then taken again,
 * while what was read of it is still looked at. Batches may be released in any order.
 */
#ifndef SEGUE_CORE_TRACK_H
#define SEGUE_CORE_TRACK_H

#include "core/layout.h"

struct segue_track {
	const struct segue_ring_header *ring; /* read only */
	struct segue_carry_header *carry;     /* read-write */
	const struct segue_lease_page *page;  /* read only */
	uint64_t generation;
	uint32_t depth;
	uint64_t next;      /* the batch that take() hands out */
	uint64_t committed; /* this side's copies of its two words */
	uint64_t released;
	uint64_t held;     /* bit t % 64: batch t of [released, committed] is held */
	uint64_t woken_at; /* the last wake_at that was acted on */
};

enum segue_track_result {
	SEGUE_TRACK_READY,   /* take() will succeed */
	SEGUE_TRACK_WAIT,    /* nothing yet */
	SEGUE_TRACK_HELD,    /* nothing, and never will be unless a batch is released */
	SEGUE_TRACK_END,     /* the lane has ended */
	SEGUE_TRACK_ERROR,   /* the ring says that the next batch cannot be made */
	SEGUE_TRACK_STORAGE, /* the lease page says that storage failed */
	SEGUE_TRACK_FENCED,  /* the lease is somebody else's */
};

/* `step`: the first batch of the lease; the carry's words stand there already. */
void segue_track_init(struct segue_track *track, const struct segue_ring_header *ring,
	struct segue_carry_header *carry, const struct segue_lease_page *page, uint32_t depth,
	uint64_t generation, uint64_t step);

/* What taking the next batch would meet. Errors show only when the ring is drained. */
enum segue_track_result segue_track_poll(const struct segue_track *track);
/* Hands out batch `next`; poll() said READY, and the batch before is committed. Returns its step.
 */
uint64_t segue_track_take(struct segue_track *track);
/* True if the newest batch taken is not committed. */
bool segue_track_open(const struct segue_track *track);
/*
 * Makes the open batch true: the release store of `committed`. The states in its buffer are
 * complete. SEGUE_EFENCED without effect if the lease is gone.
 */
int segue_track_commit(struct segue_track *track);
/*
 * The same of one who follows: it has no lease, and states none; it is done with the open batch.
 */
void segue_track_pass(struct segue_track *track);
/*
 * It is done with the one that it has put back, and does not take it again. True: the server wants
 * to be woken.
 */
bool segue_track_skip(struct segue_track *track);
/* The open batch is not open any more: it is taken again next. It is held as before. */
void segue_track_put_back(struct segue_track *track);
/*
 * Batch `step` and all its views are gone; it is committed, or was put back. True: the server waits
 * to be woken (ring its event).
 */
bool segue_track_release(struct segue_track *track, uint64_t step);

/*
 * Before sleeping on ring->bell: raises the flag, fences, looks again. True: sleep while *bell ==
 * *seen; false: something is there (the flag is down again). After a true, sleep_end() lowers the
 * flag. Ring the server's event once before the sleep: the filler may wait for more free slots than
 * can come free while batches are held.
 */
bool segue_track_sleep_begin(struct segue_track *track, uint32_t *seen);
void segue_track_sleep_end(struct segue_track *track);
/* Tells the server that `ns` more were spent waiting for a batch. */
void segue_track_waited(struct segue_track *track, uint64_t ns);

#endif
