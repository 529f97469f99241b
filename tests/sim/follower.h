/*
 * Replicas that follow the leases of a run: take what the holder has taken, look at it for a while,
 * die, or write nonsense. What they see must be what the holder saw, and stay so.
 *
 * What a real one does through lib/client/follow.c is written out here; its words go through the
 * real track.c, and the server looks at them through the real follower.c.
 */
#ifndef SEGUE_SIM_FOLLOWER_H
#define SEGUE_SIM_FOLLOWER_H

#include "driver.h"
#include "core/track.h"
#include "lane/carry.h"

struct segue_filler;
struct sim_follower;

/* Of one lease; control's. Zeroed: none. */
struct sim_following {
	struct sim_server *server;
	uint32_t pair;
	uint64_t generation;
	struct segue_filler *filler;
	struct segue_carry *carry;
	struct sim_follower *first;
};

void sim_followers_begin(void);
/* That server died. */
void sim_followers_see_lost(const struct sim_server *server);

/* One or two begin where the lease does. */
void sim_following_begin(struct sim_following *following);
/* Lets those go that have died, or written nonsense; others may come instead. */
void sim_following_look(struct sim_following *following);
/* The lease is over: they take what is left of it. */
void sim_following_end(struct sim_following *following);

/* The holder has taken a batch: `before` is the buffer with the states that come in. */
void sim_followed_take(const struct segue_track *track, uint32_t pair,
	const struct segue_geometry *geometry, uint64_t step);

#endif
