/* A lane that somebody has: what its worker wakes the server for, and whether it may go on. */
#ifndef SEGUE_STREAM_HELD_H
#define SEGUE_STREAM_HELD_H

#include "stream/stream.h"

/* Says who has it, or who it is reserved for: SEGUE_EBUSY. */
int segue_held_fail(const struct segue_ledger *ledger);
/* struct segue_watch.ready of a ledger's `event`. */
void segue_held_event(struct segue_watch *watch, uint32_t events);
/*
 * Of a ledger that is HELD: one whose worker wrote nonsense, or has been still for longer than its
 * stream allows, loses the lane.
 */
void segue_held_look(struct segue_ledger *ledger, int64_t now);

#endif
