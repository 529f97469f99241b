/* The mapped segments of one lease, counted by the lane and by its batches. */
#include "client/mapping.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"

/* Mapped memory needs no fd: fewer of them, and none for a forked child to keep alive. */
static void drop_fd(struct segue_shm *shm)
{
	close(shm->fd);
	shm->fd = -1;
}

/* Maps a received segment and looks at its first bytes. */
static int map_segment(int *fd, enum segue_segment_kind kind, size_t size,
	enum segue_shm_access access, const struct segue_geometry *geometry, struct segue_shm *out)
{
	int rc = segue_shm_map(*fd, size, access, out);

	if (rc)
		return rc;
	*fd = -1;
	return segue_segment_check(out->map, kind, size, geometry);
}

static int map_follower(struct segue_mapping *mapping, int *fd)
{
	int rc = map_segment(fd, SEGUE_SEGMENT_FOLLOWER, SEGUE_FOLLOWER_SIZE, SEGUE_SHM_WRITE,
		&mapping->geometry, &mapping->follower);

	if (!rc)
		drop_fd(&mapping->follower);
	return rc;
}

static int map_all(struct segue_mapping *mapping, int fds[SEGUE_FRAME_FDS], bool follows)
{
	const struct segue_geometry *geometry = &mapping->geometry;
	int rc = map_segment(&fds[0], SEGUE_SEGMENT_RING, geometry->ring_size, SEGUE_SHM_READ,
		geometry, &mapping->ring);

	if (rc)
		return rc;
	drop_fd(&mapping->ring);
	rc = map_segment(&fds[1], SEGUE_SEGMENT_CARRY, geometry->carry_size,
		follows ? SEGUE_SHM_READ : SEGUE_SHM_WRITE, geometry, &mapping->carry);
	if (!rc)
		rc = segue_shm_view(&mapping->carry, &mapping->carry_view);
	if (rc)
		return rc;
	drop_fd(&mapping->carry);
	rc = map_segment(&fds[2], SEGUE_SEGMENT_LEASE, geometry->lease_size, SEGUE_SHM_READ,
		geometry, &mapping->page);
	if (rc)
		return rc;
	drop_fd(&mapping->page);
	rc = follows ? map_follower(mapping, &fds[4]) : 0;
	if (rc)
		return rc;
	segue_fork_guard_set(&mapping->guard, fds[3]);
	fds[3] = -1;
	if (geometry->buffer_size == 0)
		return 0;
	rc = segue_shm_create("segue:state-in", geometry->depth * geometry->buffer_size,
		SEGUE_SHM_WRITE, &mapping->composed);
	if (!rc)
		rc = segue_shm_view(&mapping->composed, &mapping->composed_view);
	if (!rc)
		drop_fd(&mapping->composed);
	return rc;
}

static int make_sides(struct segue_mapping *mapping)
{
	const struct segue_geometry *geometry = &mapping->geometry;

	if (geometry->variable == 0)
		return 0;
	mapping->sides = calloc(geometry->depth, sizeof(*mapping->sides));
	if (!mapping->sides)
		return segue_fail(SEGUE_ENOMEM, "no memory for a lease");
	for (uint32_t i = 0; i < geometry->depth; i++)
		mapping->sides[i].shm = SEGUE_SHM_NONE;
	return 0;
}

void segue_mapping_set_side(
	struct segue_mapping *mapping, size_t place, uint64_t number, const struct segue_shm *shm)
{
	struct segue_mapped_side *side = &mapping->sides[place];

	segue_shm_destroy(&side->shm);
	*side = (struct segue_mapped_side){number, *shm};
	drop_fd(&side->shm);
}

/* In a forked child nothing is mapped, and something else may be at those addresses. */
static void unmap_all(struct segue_mapping *mapping)
{
	if (mapping->guard.forked)
		return;
	segue_shm_unmap(mapping->carry_view, mapping->carry.size);
	segue_shm_unmap(mapping->composed_view, mapping->composed.size);
	for (uint32_t i = 0; mapping->sides && i < mapping->geometry.depth; i++)
		segue_shm_destroy(&mapping->sides[i].shm);
	segue_shm_destroy(&mapping->composed);
	segue_shm_destroy(&mapping->follower);
	segue_shm_destroy(&mapping->carry);
	segue_shm_destroy(&mapping->page);
	segue_shm_destroy(&mapping->ring);
}

int segue_mapping_create(struct segue_shape *shape, uint32_t lane, const struct segue_reply *reply,
	struct segue_mapping **out)
{
	uint32_t rows = reply->message.attached.rows, places = reply->message.attached.places;
	int fds[SEGUE_FRAME_FDS], rc;

	memcpy(fds, reply->fds, sizeof(fds));
	if (rows > places) {
		rc = segue_fail(SEGUE_EPROTOCOL,
			"the server grants lane %u with %u rows, a batch has %u at most", lane,
			rows, places);
		goto close_fds;
	}
	struct segue_mapping *mapping = calloc(1, sizeof(*mapping));
	if (!mapping) {
		rc = segue_fail(SEGUE_ENOMEM, "no memory for a lease");
		goto close_fds;
	}
	mapping->users = 1;
	mapping->lane = lane;
	mapping->lease = reply->message.attached.lease;
	mapping->shape = shape;
	mapping->ring = mapping->carry = mapping->page = mapping->composed = SEGUE_SHM_NONE;
	mapping->follower = SEGUE_SHM_NONE;
	mapping->granted = reply->message.attached.step;
	shape->users++;
	rc = segue_fork_guard_init(&mapping->guard);
	if (!rc)
		rc = segue_geometry_init(shape->spec, places, shape->key_max, &mapping->geometry);
	if (!rc)
		segue_mapping_set_rows(mapping, mapping->granted - 1, rows);
	if (!rc)
		rc = make_sides(mapping);
	if (!rc)
		rc = map_all(mapping, fds, reply->message.type == SEGUE_MESSAGE_FOLLOWING);
	if (!rc) {
		*out = mapping;
		return 0;
	}
	segue_mapping_drop(mapping);
close_fds:
	for (size_t i = 0; i < SEGUE_FRAME_FDS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return rc;
}

void segue_mapping_drop(struct segue_mapping *mapping)
{
	assert(mapping->users > 0);
	if (--mapping->users > 0)
		return;
	unmap_all(mapping);
	segue_fork_guard_finish(&mapping->guard);
	segue_geometry_finish(&mapping->geometry);
	segue_shape_drop(mapping->shape);
	free(mapping->places);
	free(mapping->sides);
	free(mapping);
}

/* Step -1, before batch 0, has a place as well. */
static size_t place_of(const struct segue_mapping *mapping, uint64_t step)
{
	return (step + 1) % (mapping->geometry.depth + 1);
}

uint32_t segue_mapping_rows(const struct segue_mapping *mapping, uint64_t step)
{
	const _Atomic uint32_t *rows = &mapping->rows[place_of(mapping, step)];

	/* Relaxed: `committed` orders them. pairs with segue_mapping_set_rows (client/mapping.c) */
	return segue_load_relaxed(rows);
}

void segue_mapping_set_rows(struct segue_mapping *mapping, uint64_t step, uint32_t count)
{
	_Atomic uint32_t *rows = &mapping->rows[place_of(mapping, step)];

	/* pairs with segue_mapping_rows (client/mapping.c) */
	segue_store_release(rows, count);
}

struct segue_log_place *segue_mapping_seen(struct segue_mapping *mapping, uint64_t step)
{
	return &mapping->seen[place_of(mapping, step)];
}

void segue_mapping_gather(
	const struct segue_mapping *mapping, uint64_t step, uint32_t row, uint8_t *to)
{
	const struct segue_geometry *geometry = &mapping->geometry;

	segue_states_gather(mapping->shape->spec, geometry,
		(const uint8_t *)mapping->carry.map + segue_carry_offset(geometry, step), row, to);
}
