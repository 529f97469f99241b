/*
 * Taking a lane over from an older handle of this process, which another thread may be using, on
 * another client's connection. The lanes of a process are listed, under segue_fork_lock().
 *
 *	a handle attaches                        the older handle of its lane
 *	  start is NONE, it has a position:      nothing changes, SEGUE_ESTART
 *	  its commits are with another server:   they are offered to this one, which stores them
 *	  the lane is asked for with `take`:     the server ends its lease, stores its commits
 *	  the lane is granted:                   it is lost; its next call says so, asks nobody
 *
 * Only the first attach of a handle takes. What the library asks by itself, after a fence or a lost
 * server (resume.c), never does: two handles would throw each other out for ever. A commit that
 * another thread makes meanwhile may return and yet not count; its next call says so. So may one
 * that is made while an older handle, whose server was lost, is given the lane again.
 */
#ifndef SEGUE_CLIENT_TAKEOVER_H
#define SEGUE_CLIENT_TAKEOVER_H

#include "client/lane.h"

/*
 * Within an attempt, before `lane`, which has no lease yet, asks for one. 0: what older handles
 * have committed is with this server, or will be when it ends their leases. SEGUE_EBUSY: an older
 * handle has the lane, and `take` is false. SEGUE_ESTART: the mode is NONE, and it has committed
 * something. SEGUE_ECHANGED: that is behind what the log has lost, and the mode is neither FRESH
 * nor RESTORE, which give it up.
 */
int segue_takeover_prepare(struct segue_lane *lane, bool take, enum segue_attach_mode mode);
/* `lane` has its lease: older handles have lost theirs, and it is listed. */
void segue_takeover_finish(struct segue_lane *lane);
/*
 * SEGUE_EBUSY: a handle of this process has a lane of that group, as far as it knows. The server
 * may have been lost since, and the next one lets a process give up what is reserved for it.
 */
int segue_takeover_check_group(
	const struct segue_client *client, const char *stream, const char *group);
/*
 * Lanes of the group of `lane`, a bit each, that handles of this process had of a server before
 * this one, and have not come back to: `bits` has room for SEGUE_LANES_MAX. Returns the number of
 * bytes that say it.
 */
size_t segue_takeover_kept(const struct segue_lane *lane, uint8_t *bits);
/* Takes it off the list; one that is not listed is fine. */
void segue_takeover_forget(struct segue_lane *lane);

#endif
