/* Batches that outlive their lease: copied before its end, put in place after. */
#include "client/hold.h"

#include "core/barrier.h"
#include "core/error.h"

static void drop(struct segue_hold *hold)
{
	while (hold->count > 0) {
		const struct segue_hold_piece *piece = &hold->piece[--hold->count];
		segue_shm_unmap(piece->copy, piece->size);
	}
	segue_mapping_drop(hold->mapping);
	hold->mapping = NULL;
}

static int add(struct segue_hold *hold, void *pages, size_t size)
{
	struct segue_hold_piece piece = {.pages = pages, .size = size};

	int rc = segue_shm_copy(pages, size, &piece.copy);
	if (!rc)
		hold->piece[hold->count++] = piece;
	return rc;
}

static int add_batch(struct segue_hold *hold, uint64_t step)
{
	struct segue_mapping *mapping = hold->mapping;
	const struct segue_geometry *geometry = &mapping->geometry;
	size_t place = step % geometry->depth;

	int rc = add(hold,
		(uint8_t *)mapping->ring.map + geometry->slots_offset + place * geometry->slot_size,
		geometry->slot_size);
	if (!rc && mapping->sides && mapping->sides[place].shm.map)
		rc = add(hold, mapping->sides[place].shm.map, mapping->sides[place].shm.size);
	return rc;
}

int segue_hold_begin(const struct segue_lane *lane, struct segue_hold *hold)
{
	const struct segue_track *track = &lane->track;
	int rc = 0;

	*hold = (struct segue_hold){.mapping = NULL};
	/* Else nobody shares the ring: the followers of a lease that is over only read. */
	if (!lane->mapping || !segue_lane_spec(lane)->persist || segue_lane_leads(lane) ||
		!track->held)
		return 0;
	hold->mapping = lane->mapping;
	hold->mapping->users++;
	hold->generation = lane->generation;
	hold->follows = lane->replica;
	uint64_t behind = track->released + lane->mapping->geometry.depth;
	for (uint64_t step = track->released; !rc && step <= track->committed && step < behind;
		step++)
		if (track->held >> step % 64 & 1)
			rc = add_batch(hold, step);
	/* Its holder goes on saving states there. */
	if (!rc && hold->follows)
		rc = add(hold, hold->mapping->carry_view, hold->mapping->carry.size);
	if (rc)
		drop(hold);
	return rc;
}

int segue_hold_end(struct segue_hold *hold)
{
	int rc = 0;

	if (!hold->mapping)
		return 0;
	/* acquire: pairs with segue_carry_fence (lane/carry.c) */
	bool over = hold->follows ||
		    segue_load_acquire(&segue_mapping_page(hold->mapping)->generation) !=
			    hold->generation;
	for (size_t i = 0; over && i < hold->count; i++) {
		const struct segue_hold_piece *piece = &hold->piece[i];
		int failed = segue_shm_put_copy(piece->pages, piece->size, piece->copy);
		rc = rc ? rc : failed;
	}
	if (over)
		hold->count = 0;
	drop(hold);
	return rc;
}
