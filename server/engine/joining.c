/* A grant's feed and memory: joined, made, left. */
#include "engine/joining.h"

#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/wait.h"

/* ---- Carry, lease page, event ---- */

static int read_carry(void *arg, uint64_t offset, void *out, size_t size)
{
	return segue_shm_read(arg, offset, out, size);
}

static int make_memory(struct segue_grant *grant, const struct segue_image *image)
{
	const struct segue_geometry *geometry = &grant->filler->geometry;
	const struct segue_position *position = image->position;

	int rc = segue_shm_create(
		"segue-carry", geometry->carry_size, SEGUE_SHM_WRITE, &grant->carry_shm);
	if (!rc)
		rc = segue_shm_create(
			"segue-lease", geometry->lease_size, SEGUE_SHM_READ, &grant->page_shm);
	if (rc)
		return rc;
	struct segue_carry_header *words = grant->carry_shm.map;
	struct segue_lease_page *page = grant->page_shm.map;
	segue_segment_init(&words->segment, SEGUE_SEGMENT_CARRY, geometry->carry_size, geometry);
	segue_segment_init(&page->segment, SEGUE_SEGMENT_LEASE, geometry->lease_size, geometry);
	if (position->step > 0)
		segue_states_scatter(grant->spec, geometry, image->states,
			segue_position_count(position),
			(uint8_t *)words + segue_carry_offset(geometry, position->step - 1));
	segue_carry_init(&grant->carry, words, page, geometry, grant->spec,
		grant->record.generation, position->step, read_carry, &grant->carry_shm);
	grant->event = segue_event_create();
	return grant->event < 0 ? grant->event : 0;
}

void segue_grant_finish_memory(struct segue_grant *grant)
{
	if (grant->carry.words)
		segue_carry_finish(&grant->carry);
	grant->carry = (struct segue_carry){.words = NULL};
	segue_shm_destroy(&grant->carry_shm);
	segue_shm_destroy(&grant->page_shm);
	if (grant->event >= 0)
		close(grant->event);
	grant->event = -1;
}

/* ---- The feed ---- */

/* Whether a grant at that position sees the batches of that feed. With its lock. */
static bool meets(const struct segue_filler *filler, const struct segue_position *position)
{
	const struct segue_feed_entry *entry = segue_feed_entry(&filler->feed, position->step);

	return filler->state < SEGUE_FILLER_CLOSING && !filler->stalled &&
	       segue_feed_reaches(&filler->feed, position->step) && entry &&
	       segue_position_same(entry->position, position);
}

/* Of its geometry, which never changes: what a group asks for by itself is its depth. */
static bool is_alike(
	struct segue_filler *filler, const struct segue_grant_order *order, uint32_t places)
{
	const struct segue_ends wanted = order->plan.ends, ends = segue_filler_plan(filler).ends;

	return filler->geometry.places == places && filler->geometry.depth == order->spec->depth &&
	       ends.count == wanted.count && segue_ends_agree(&ends, &wanted, ends.count);
}

static int join(
	const struct segue_image *image, struct segue_grant *grant, struct segue_filler *filler)
{
	pthread_mutex_lock(&filler->lock);
	bool joins = meets(filler, image->position);
	pthread_mutex_unlock(&filler->lock);
	if (!joins)
		return SEGUE_ENOTFOUND;
	grant->filler = filler;
	int rc = make_memory(grant, image);
	if (!rc) {
		pthread_mutex_lock(&filler->lock);
		grant->joined = meets(filler, image->position);
		rc = grant->joined ? segue_feed_subscribe(&filler->feed, &grant->carry)
				   : SEGUE_ENOTFOUND;
		pthread_mutex_unlock(&filler->lock);
	}
	if (rc) {
		segue_grant_finish_memory(grant);
		grant->filler = NULL;
		grant->joined = false;
	}
	return rc;
}

int segue_grant_find_feed(const struct segue_grant_order *order, struct segue_image *image,
	uint32_t places, struct segue_grant *grant)
{
	int rc = SEGUE_ENOTFOUND;

	for (uint32_t i = 0; rc == SEGUE_ENOTFOUND && i < order->candidate_count; i++)
		if (is_alike(order->candidate[i], order, places))
			rc = join(image, grant, order->candidate[i]);
	if (rc != SEGUE_ENOTFOUND)
		return rc;
	rc = segue_filler_create(
		order->spec, &order->plan, order->source, order->pool, image, &grant->filler);
	if (rc)
		return rc;
	grant->filler->sides.purse = order->purse;
	grant->filler->initial.store =
		(struct segue_initials_store){segue_keeping_load, &grant->keeping};
	rc = make_memory(grant, image);
	return rc ? rc : segue_feed_subscribe(&grant->filler->feed, &grant->carry);
}

void segue_grant_leave_feed(struct segue_grant *grant)
{
	if (!grant->joined) {
		segue_filler_destroy(grant->filler);
		return;
	}
	pthread_mutex_lock(&grant->filler->lock);
	segue_feed_unsubscribe(&grant->filler->feed, &grant->carry);
	pthread_mutex_unlock(&grant->filler->lock);
	segue_filler_kick(grant->filler); /* the others may go on */
}
