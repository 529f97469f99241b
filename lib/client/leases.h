/*
 * The leases of this process: of all its clients, under one lock. For a newer handle of a lane that
 * takes over from an older one, which may be in use in another thread, on a connection of its own.
 *
 *	a lane is attached (attach.c)            older lane of the same place
 *	  start = NONE and it has a position ──► SEGUE_ESTART, nothing changes
 *	  its server is not this one ──────────► its last commit is offered to this one, and stored
 *	  TAKE ────────────────────────────────► the server ends its lease, and takes its last commit
 *	  it is marked ────────────────────────► its next call says SEGUE_EFENCED, and asks nobody
 *
 * Only the first attach of a handle takes. What the library asks by itself, after a fence or a lost
 * server (resume.c), never does: two handles would throw each other out for ever.
 *
 * A commit that another thread makes meanwhile may return and yet not count; its next call says so.
 */
#ifndef SEGUE_CLIENT_LEASES_H
#define SEGUE_CLIENT_LEASES_H

#include "client/lane.h"

/* The lane has a lease, or another one than before: its token, mapping, kept rows. */
void segue_leases_lock(void);
void segue_leases_unlock(void);
/* Under the lock: lists the lane, or takes it off. One that is not listed is fine. */
void segue_leases_add(struct segue_lane *lane);
void segue_leases_remove(struct segue_lane *lane);

/*
 * Within an attempt, before `lane` asks for its lease. SEGUE_EBUSY: an older handle of this process
 * has the lane, and `take` is false. SEGUE_ESTART: it has a position, and `start` is NONE.
 * Otherwise what it has committed is with this server when this returns 0.
 */
int segue_leases_settle(struct segue_lane *lane, bool take, bool anywhere);
/* `lane` has got its lease: the older handles of the lane have lost theirs. */
void segue_leases_taken(struct segue_lane *lane);

#endif
