/* Waiting until what is committed is on disk. */
#ifndef SEGUE_CLIENT_DURABLE_H
#define SEGUE_CLIENT_DURABLE_H

#include "client/lane.h"

/*
 * After the commit of batch `step` - 1: waits until it is on disk. Interruption and errors change
 * nothing about the commit.
 */
int segue_lane_wait_durable(struct segue_lane *lane, uint64_t step);

#endif
