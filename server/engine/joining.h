/*
 * What a grant reads and writes: a feed, its own or one of its lane that others have, and a carry,
 * a lease page and an event of its own. On a loader thread, but for what takes them down.
 */
#ifndef SEGUE_ENGINE_JOINING_H
#define SEGUE_ENGINE_JOINING_H

#include "engine/granted.h"
#include "engine/order.h"

/*
 * Joins that of the order's candidates which is where the image is and has so many `places`, or
 * makes one; and makes the grant's memory. Where that fails the grant is to be destroyed.
 */
int segue_grant_find_feed(const struct segue_grant_order *order, struct segue_image *image,
	uint32_t places, struct segue_grant *grant);
/* Others who use the feed go on; where there are none it is destroyed. */
void segue_grant_leave_feed(struct segue_grant *grant);
/* Also where there is none, or not all of it. */
void segue_grant_finish_memory(struct segue_grant *grant);

#endif
