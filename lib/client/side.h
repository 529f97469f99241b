/*
 * Side segments: where the values of features lie that are not dense, one a slot of the ring. A
 * batch that needs another one than is mapped says so; then the server is asked for it, once each
 * time that a slot's has grown.
 */
#ifndef SEGUE_CLIENT_SIDE_H
#define SEGUE_CLIENT_SIDE_H

#include "client/lane.h"

/* The number of the segment that the batch in a slot needs; 0: none. */
static inline uint64_t segue_side_of(const struct segue_mapping *mapping, uint64_t step)
{
	const struct segue_geometry *geometry = &mapping->geometry;
	const struct segue_slot *slot = segue_ring_slot(mapping->ring.map, geometry, step);

	return *(const uint64_t *)(const void *)((const char *)slot + geometry->side_offset);
}

/* Whether batch `step`, which is published, can be read. */
static inline bool segue_side_is_mapped(const struct segue_mapping *mapping, uint64_t step)
{
	const struct segue_geometry *geometry = &mapping->geometry;

	if (geometry->variable == 0)
		return true;
	uint64_t number = segue_side_of(mapping, step);
	return number == 0 || number == mapping->sides[step % geometry->depth].number;
}

/*
 * Sees to it. SEGUE_EGONE: the lease is lost, or the server; SEGUE_EPROTOCOL, SEGUE_ENOMEM,
 * SEGUE_ESYSTEM, SEGUE_ETIMEOUT, SEGUE_EINTERRUPTED.
 */
int segue_side_map(struct segue_lane *lane, uint64_t step);

#endif
