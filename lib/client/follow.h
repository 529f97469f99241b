/*
 * Replicas: one handle holds a lane, the others follow its lease.
 *
 * A follower's handle is a lane like any other, but for what it has of its mapping: the holder's
 * carry, which it can only read, and in its place, for its own words, a follower page. It is given
 * a batch when the holder has taken it, and is done with one when it asks for the next. Where the
 * holder gets another lease, the follower takes what there is of the one before, then goes on with
 * that; within small steps, since the holder may go on without a server, and waits for it.
 */
#ifndef SEGUE_CLIENT_FOLLOW_H
#define SEGUE_CLIENT_FOLLOW_H

#include "client/lane.h"

/* Patience with replicas that are to come, or to come back. */
#define SEGUE_REPLICAS_NS INT64_C(60000000000)

/* SEGUE_EREPLICA: this handle only reads, so it does not `what`. */
int segue_follow_fail_reads(const struct segue_lane *lane, const char *what);

/* ---- The follower ---- */

/* Within an attempt: follows a lease, which is waited for. */
int segue_follow_attach(struct segue_lane *lane, int64_t timeout_ns);
/* As segue_track_poll(): READY only when the holder has taken the batch, too. */
enum segue_track_result segue_follow_poll(struct segue_lane *lane);
/* Sleeps until the holder takes a batch, or `until_ns`; may return without reason. */
void segue_follow_sleep(const struct segue_lane *lane, int64_t until_ns);
/*
 * After SEGUE_EGONE: 0 when it should be looked at again, whether there is a lease now or not yet;
 * SEGUE_ETIMEOUT when there is none at `deadline_ns`, SEGUE_EREPLICA when that has been so for too
 * long, SEGUE_ESTALE, SEGUE_EINTERRUPTED.
 */
int segue_follow_recover(struct segue_lane *lane, int64_t deadline_ns);
/* It goes on where the holder is. */
void segue_follow_forget(struct segue_lane *lane);
/* Waits until the holder has set that batch size. */
int segue_follow_set_batch_size(struct segue_lane *lane, uint32_t batch_size);
/* It is done with the batch that it has open, if it has one. */
void segue_follow_pass(struct segue_lane *lane);
/*
 * It puts the open batch back, if it has one, as its holder may have: whether that is committed, or
 * comes again, is the holder's to say.
 */
void segue_follow_leave(struct segue_lane *lane);
/* One that was taken could not be handed out: the same comes next, whatever its holder does. */
void segue_batch_untake(struct segue_batch *batch);
/* Its handle is closed. */
void segue_follow_finish(struct segue_lane *lane);

/* ---- The holder ---- */

/* Whether all that are to follow do, and none has gone that was not told of. */
bool segue_follow_is_whole(const struct segue_lane *lane);
/*
 * Waits until they do: 0; SEGUE_ETIMEOUT at `deadline_ns`; SEGUE_EREPLICA when one has gone, once,
 * or they have not come for too long; SEGUE_EGONE, SEGUE_EINTERRUPTED.
 */
int segue_follow_await(struct segue_lane *lane, int64_t deadline_ns);
/* It has taken a batch: wakes them. */
void segue_follow_tell(struct segue_lane *lane);

#endif
