/*
 * A copy of a lane at one committed step, taken while its worker goes on.
 *
 * Holds publication, reads `committed`, takes the ended rows that are to be kept, copies position
 * and keys; then copies the states without the lock; then lets publication go on.
 */
#ifndef SEGUE_ENGINE_SNAPSHOT_H
#define SEGUE_ENGINE_SNAPSHOT_H

#include "engine/filler.h"

/*
 * The image of the lane at `step`, or at its committed step if that is SEGUE_NEVER. A lane that has
 * ended is at every later step: then the image is of its end. *committed is what was seen, also on
 * an error. SEGUE_ETIMEOUT: `step` is not committed yet; SEGUE_ELIMIT: its states may have been
 * written over; SEGUE_EPROTOCOL: the worker wrote nonsense; SEGUE_ENOMEM. The caller owns *out.
 * From any thread, without the filler's lock.
 */
int segue_snapshot(struct segue_filler *filler, struct segue_carry *carry, uint64_t step,
	uint64_t *committed, struct segue_image **out);

#endif
