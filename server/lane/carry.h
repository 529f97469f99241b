/*
 * The server's end of a lease's carry: reads the worker's words with care, copies states out of it.
 *
 * What the worker writes is a hint until it is checked: each word is loaded once, must not go back,
 * and must stay below what was published; a carry that breaks this is `broken` and its lease is
 * ended.
 *
 * To copy the states after the last committed batch:
 *
 *	lock feed;  c = segue_carry_hold();  image = position(c), keys;  unlock
 *	segue_carry_copy(c - 1)     (no lock: while held, batch c + depth, which would write the
 *	                             buffer anew, cannot be published)
 *	lock feed;  segue_carry_let_go();  unlock
 *
 * All other functions want the feed's lock. No clock; I/O only through `read`.
 */
#ifndef SEGUE_LANE_CARRY_H
#define SEGUE_LANE_CARRY_H

#include "core/layout.h"
#include "lane/again.h"
#include "lane/plan.h"

struct segue_follower;

struct segue_carry {
	struct segue_carry_header
		*words; /* mapped; the worker writes `committed`, `released`, `sleeping` */
	struct segue_lease_page *page; /* mapped; the server writes */
	const struct segue_geometry *geometry;
	const struct segue_spec *spec;
	/* Reads from the carry's memory into private memory. 0 or a negative code. */
	int (*read)(void *arg, uint64_t offset, void *out, size_t size);
	void *arg;
	uint64_t granted;   /* c: the lease's first batch */
	uint64_t committed; /* greatest values seen, checked */
	uint64_t released;
	uint64_t
		taken; /* ended rows of batches below it are in `kept` (only if spec->keep_final) */
	unsigned holds;     /* copies under way: nothing is published */
	bool broken;        /* the worker wrote nonsense */
	uint64_t watched;   /* `committed` at the last look for progress ... */
	int64_t since;      /* ... and the time since when it has been so, with a batch there */
	uint64_t kept_from; /* `released` at the last look at a ring that is full of it ... */
	int64_t kept_since; /* ... and since when */
	struct segue_kept *kept, **kept_tail; /* oldest first */
	struct segue_follower *followers;     /* lane/follower.h */
	struct segue_again again; /* those by their keys, if rows begin with what was kept */
};

/*
 * Formats the carry's words and the lease page for a grant at step `step` with `generation` (the
 * segments' memory is fresh and zeroed; the states after step - 1 are in their buffer). `words` and
 * `page` stay the caller's.
 */
void segue_carry_init(struct segue_carry *carry, struct segue_carry_header *words,
	struct segue_lease_page *page, const struct segue_geometry *geometry,
	const struct segue_spec *spec, uint64_t generation, uint64_t step,
	int (*read)(void *arg, uint64_t offset, void *out, size_t size), void *arg);
/* Frees what is kept. */
void segue_carry_finish(struct segue_carry *carry);

/* Loads both words, checks them against `published`, takes them over. False: broken. */
bool segue_carry_observe(struct segue_carry *carry, uint64_t published);

/*
 * Whether the worker has had a batch for `timeout` ns and has committed none; looks at the words.
 * `now`: of the clock that never goes back, ns. To be called several times in `timeout`.
 */
bool segue_carry_overdue(
	struct segue_carry *carry, uint64_t published, int64_t now, int64_t timeout);

/*
 * Whether the worker has let go of none of the batches of a full ring for `timeout` ns, be they
 * committed or not, and others wait for the next (`shared`). To be called like that, after it.
 */
bool segue_carry_keeps_all(
	struct segue_carry *carry, uint64_t published, bool shared, int64_t now, int64_t timeout);

/* Stops publication, then loads `committed`: returns it. */
uint64_t segue_carry_hold(struct segue_carry *carry, uint64_t published);
/* Copies buffer `step` (private `buffer`, geometry->buffer_size). While held, or when the lease is
 * over. */
int segue_carry_copy(const struct segue_carry *carry, uint64_t step, uint8_t *buffer);
void segue_carry_let_go(struct segue_carry *carry);

/* Forgets what was kept by batches below `step`: it is on disk. */
void segue_carry_forget(struct segue_carry *carry, uint64_t step);

/* Rings the page's bell: what the page says is news to a holder that waits. */
void segue_carry_ring(struct segue_carry *carry);
/* The lease is over: the holder sees it at its next call. */
void segue_carry_fence(struct segue_carry *carry);
/* Batches below `step` are on disk. Rings the page's bell. */
void segue_carry_set_durable(struct segue_carry *carry, uint64_t step);
/* Asks the holder for `bits` (enum segue_lease_asks), which stay. Rings the page's bell. */
void segue_carry_ask(struct segue_carry *carry, uint32_t bits);
/* Takes back what was asked and not done. */
void segue_carry_unask(struct segue_carry *carry, uint32_t bits);
/* Storage failed: the holder's next calls say so once the ring is drained. */
void segue_carry_storage_failed(struct segue_carry *carry, int code, const char *text);

#endif
