/*
 * Batches that are held when their lease ends. Where groups share a ring its slots are filled anew
 * from then on: so those are copied before a lease is given back, and the copies put in their place
 * when it is over; likewise when a replica leaves what it follows, with the states that it reads.
 * All arrays stay where they are.
 */
#ifndef SEGUE_CLIENT_HOLD_H
#define SEGUE_CLIENT_HOLD_H

#include "client/lane.h"

struct segue_hold {
	struct segue_mapping *mapping; /* of the lease; NULL: nothing is held */
	uint64_t generation;           /* of that, */
	bool follows;                  /* which goes on when the lane is given back */
	size_t count;
	struct segue_hold_piece {
		void *pages, *copy;
		size_t size;
	} piece[2 * SEGUE_DEPTH_MAX + 1]; /* slots, and their side segments; states that it reads */
};

/* Before the lane's lease is given back. SEGUE_ENOMEM: nothing is copied. */
int segue_hold_begin(const struct segue_lane *lane, struct segue_hold *hold);
/* After that: if the lease is over the copies are put in place, else dropped. SEGUE_ESYSTEM. */
int segue_hold_end(struct segue_hold *hold);

#endif
