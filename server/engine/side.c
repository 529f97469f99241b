/* Side segments of a ring's slots. */
#include "engine/side.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/list.h"

#define SIDE_LEAST (UINT64_C(1) << 16)
#define SIDE_MOST  (UINT64_C(1) << 40)

static void give(const struct segue_sides *sides, uint64_t size)
{
	if (size && sides->purse.give)
		sides->purse.give(sides->purse.arg, size);
}

/* Twice as large each time, so that a batch is copied once on average. */
static int size_for(uint64_t least, uint64_t room, uint64_t *size)
{
	if (room > SIDE_MOST)
		return segue_fail(SEGUE_ELIMIT,
			"the ragged values of a batch are more than 2^40 bytes; make batch_size or "
			"num_unroll smaller");
	*size = least > SIDE_LEAST ? least : SIDE_LEAST;
	while (*size < room)
		*size *= 2;
	return 0;
}

/*
 * A segment as large as others, for the slots of a ring come to have batches of the same kind;
 * where that is more than may be had, as large as this batch needs.
 */
static int pay_for(struct segue_sides *sides, uint64_t room, uint64_t *size)
{
	int rc = size_for(sides->largest, room, size);

	if (rc || !sides->purse.take)
		return rc;
	rc = sides->purse.take(sides->purse.arg, *size);
	if (rc != SEGUE_ELIMIT || size_for(0, room, size))
		return rc;
	return sides->purse.take(sides->purse.arg, *size);
}

static int grow(struct segue_sink *sink, uint64_t room)
{
	struct segue_side *side = SEGUE_CONTAINER(sink, struct segue_side, sink);
	struct segue_sides *sides = side->sides;
	struct segue_shm before = side->shm, after = SEGUE_SHM_NONE;
	uint64_t size = 0;

	int rc = pay_for(sides, room, &size);
	if (rc)
		return rc;
	rc = segue_shm_create("segue-side", size, SEGUE_SHM_READ, &after);
	if (rc) {
		give(sides, size);
		return rc;
	}
	if (sink->size)
		memcpy(after.map, before.map, sink->size);
	pthread_mutex_lock(&sides->lock);
	side->shm = after;
	side->number = ++sides->numbers;
	pthread_mutex_unlock(&sides->lock);
	segue_shm_destroy(&before);
	give(sides, sink->room);
	if (size > sides->largest)
		sides->largest = size;
	sink->bytes = after.map;
	sink->room = size;
	return 0;
}

int segue_sides_init(struct segue_sides *sides, uint32_t count)
{
	*sides = (struct segue_sides){.count = count};
	pthread_mutex_init(&sides->lock, NULL);
	sides->of_slot = calloc(count, sizeof(*sides->of_slot));
	if (!sides->of_slot)
		return segue_fail(SEGUE_ENOMEM, "no memory for a lane");
	for (uint32_t i = 0; i < count; i++)
		sides->of_slot[i] = (struct segue_side){
			.sink.grow = grow, .sides = sides, .shm = SEGUE_SHM_NONE};
	return 0;
}

void segue_sides_finish(struct segue_sides *sides)
{
	for (uint32_t i = 0; sides->of_slot && i < sides->count; i++) {
		segue_shm_destroy(&sides->of_slot[i].shm);
		give(sides, sides->of_slot[i].sink.room);
	}
	free(sides->of_slot);
	pthread_mutex_destroy(&sides->lock);
	*sides = (struct segue_sides){.count = 0};
}

struct segue_sink *segue_sides_begin(struct segue_sides *sides, uint32_t slot)
{
	struct segue_sink *sink = &sides->of_slot[slot].sink;

	sink->size = 0;
	return sink;
}

int segue_sides_get(
	struct segue_sides *sides, uint32_t slot, int *fd, uint64_t *number, uint64_t *size)
{
	int rc = SEGUE_ENOTFOUND;

	if (slot >= sides->count)
		return segue_fail(rc, "there is no slot %" PRIu32 " with a side segment", slot);
	pthread_mutex_lock(&sides->lock);
	const struct segue_side *side = &sides->of_slot[slot];
	if (side->number) {
		*fd = fcntl(side->shm.fd, F_DUPFD_CLOEXEC, 0);
		*number = side->number;
		*size = side->shm.size;
		rc = *fd < 0 ? SEGUE_ESYSTEM : 0;
	}
	pthread_mutex_unlock(&sides->lock);
	if (rc == SEGUE_ESYSTEM)
		return segue_fail_errno(rc, "cannot duplicate an fd to be sent");
	return rc ? segue_fail(rc, "slot %" PRIu32 " has no side segment", slot) : 0;
}
