/*
 * The segments of one lease, mapped. It lives until the lane and all its batches have let go of it:
 * a lane that has another lease by then keeps the old one's batches readable.
 */
#ifndef SEGUE_CLIENT_MAPPING_H
#define SEGUE_CLIENT_MAPPING_H

#include "client/connection.h"
#include "client/shape.h"
#include "core/shm.h"

struct segue_place;

/* A side segment; of the number 0: none. */
struct segue_mapped_side {
	uint64_t number;
	struct segue_shm shm;
};

struct segue_mapping {
	struct segue_fork_guard guard; /* fd: the eventfd that wakes the server */
	struct segue_shape *shape;
	struct segue_geometry
		geometry; /* owned: the shape's, with as many places as the lease has */
	unsigned users;   /* the lane, and each batch that is held */
	uint32_t lane;    /* its index */
	uint64_t lease;   /* that granted it */
	struct segue_shm ring, carry, page;
	struct segue_shm follower;        /* of a replica that follows, whose carry is read only */
	struct segue_shm composed;        /* state in of rows that moved: buffer t % depth */
	void *carry_view, *composed_view; /* read-only mappings of the same */
	struct segue_mapped_side *sides;  /* of batch t: t % depth; NULL: all features are dense */
	uint64_t granted;                 /* first batch of the lease */
	struct segue_place *places;       /* batch.h: of batch t: t % depth */
	/*
	 * Of batch t, with the parked ones: t % (depth + 1). Written before the batch is committed,
	 * read after.
	 */
	_Atomic uint32_t rows[SEGUE_DEPTH_MAX + 1];
	struct segue_log_place seen[SEGUE_DEPTH_MAX + 1]; /* likewise */
};

/*
 * Maps what an ATTACHED reply brought for lane `lane`, and takes its fds over, also when it fails
 * (SEGUE_EPROTOCOL, SEGUE_EVERSION, SEGUE_ENOMEM, SEGUE_ESYSTEM). The caller is the first user.
 */
int segue_mapping_create(struct segue_shape *shape, uint32_t lane, const struct segue_reply *reply,
	struct segue_mapping **out);
/* One user less; the last unmaps. */
void segue_mapping_drop(struct segue_mapping *mapping);

/*
 * A place has this side segment from now on, which is taken over; nobody uses the one before any
 * more.
 */
void segue_mapping_set_side(
	struct segue_mapping *mapping, size_t place, uint64_t number, const struct segue_shm *shm);

/*
 * Rows of batch `step`, and parked then: of one that was taken and whose buffer is in the carry; 0
 * below batch 0.
 */
uint32_t segue_mapping_rows(const struct segue_mapping *mapping, uint64_t step);
void segue_mapping_set_rows(struct segue_mapping *mapping, uint64_t step, uint32_t count);
/* Of such a batch, one of this lease: what its slot says of a log. Else zeros. */
struct segue_log_place *segue_mapping_seen(struct segue_mapping *mapping, uint64_t step);
/* The states after batch `step` of one row, side by side in the order of the spec. */
void segue_mapping_gather(
	const struct segue_mapping *mapping, uint64_t step, uint32_t row, uint8_t *to);

static inline const struct segue_ring_header *segue_mapping_ring(
	const struct segue_mapping *mapping)
{
	return mapping->ring.map;
}

static inline const struct segue_lease_page *segue_mapping_page(const struct segue_mapping *mapping)
{
	return mapping->page.map;
}

static inline struct segue_carry_header *segue_mapping_carry(const struct segue_mapping *mapping)
{
	return mapping->carry.map;
}

#endif
