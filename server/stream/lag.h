/*
 * Groups that keep one another waiting, and those that meet again. On the loop's thread.
 *
 * Of those that share a feed one keeps the others waiting when the ring is full because of it and
 * another has nothing left in it. When that has lasted for `max_lag` in one piece, and `on_lag` is
 * detach, the others are asked to renew their leases: they are gathered, and get a feed to which
 * the slow one does not come. It keeps the old one, alone.
 *
 * Of a stream with `groups`, or on_lag = detach, a group that finds itself within reach of a feed
 * that more groups have, or as many have had for longer, is asked to renew, too, and joins it: the
 * slot that it needs is reserved for a second.
 */
#ifndef SEGUE_STREAM_LAG_H
#define SEGUE_STREAM_LAG_H

#include "stream/stream.h"

/* The worker of the ledger, which is HELD, is between two batches, or near that. */
void segue_lag_event(struct segue_ledger *ledger);
/* Time passes: of a ledger that is HELD. */
void segue_lag_look(struct segue_ledger *ledger, int64_t now);
/* One that was asked to renew has got no lease: it may come back to the feed that it had. */
void segue_lag_give_up(struct segue_ledger *ledger);
/* The name of a group that keeps this one waiting, and since when; NULL: none does. */
const char *segue_lag_waits_for(const struct segue_ledger *ledger, int64_t *since);

#endif
