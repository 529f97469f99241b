/*
 * A lease: asked for, gone on with, given back. Which one is asked for, and what a refusal means,
 * is the caller's. All within an attempt (client.h).
 */
#ifndef SEGUE_CLIENT_LEASE_H
#define SEGUE_CLIENT_LEASE_H

#include "client/lane.h"

#define SEGUE_ATTACH_NS INT64_C(10000000000) /* for a lane that is being given back */

/*
 * Asks for the lane; the mode, and what belongs to it, are filled in. A request may have been
 * granted, for good, though all that came back is a failure or nothing: lane->unanswered counts it,
 * unless the answer says that it was not.
 */
int segue_lease_request(
	struct segue_lane *lane, struct segue_message *request, struct segue_reply *reply);
/*
 * Goes on with the lease that was granted. The lane is as before if that fails; SEGUE_EFENCED: a
 * newer handle has taken it meanwhile.
 */
int segue_lease_adopt(struct segue_lane *lane, const struct segue_reply *reply);
/* Gives one that is not what was asked for back, unused. */
int segue_lease_decline(struct segue_lane *lane, const struct segue_reply *reply);
/* How long groups that begin together may wait for one another, beyond what the request says. */
int64_t segue_lease_gathering_ns(const struct segue_lane *lane);
/* Gives `lease` back. */
int segue_lease_detach(struct segue_lane *lane, uint64_t lease);

#endif
