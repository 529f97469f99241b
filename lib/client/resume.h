/* A lane whose lease, or whose server, was lost: taken again where it was left, by an offer. */
#ifndef SEGUE_CLIENT_RESUME_H
#define SEGUE_CLIENT_RESUME_H

#include "client/lane.h"

#define SEGUE_LOOK_NS INT64_C(20000000) /* how often a sleeper looks for the server */

/*
 * What a lane has to offer that has committed the batches below `committed`: the states after the
 * last, then the kept rows. 0 bytes: nothing. Of another thread's lane: under segue_fork_lock().
 */
size_t segue_offer_size(const struct segue_lane *lane, uint64_t committed);
void segue_offer_fill(const struct segue_lane *lane, uint64_t committed, uint8_t *to);
/* Within an attempt: makes sure of a lease on this connection, by an offer if there is none. */
int segue_lane_ready(struct segue_lane *lane);
/*
 * Whether the server is there, and after a sleep whether the caller wants to go on: 0, SEGUE_EGONE,
 * SEGUE_EINTERRUPTED.
 */
int segue_lane_look_around(struct segue_lane *lane, bool slept);
/* After SEGUE_EGONE: gets the lane back, by `deadline_ns`, or says why that cannot be. */
int segue_lane_recover(struct segue_lane *lane, struct segue_losses *losses, int64_t deadline_ns);

#endif
