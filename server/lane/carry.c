/* The server's end of a lease's carry: the worker's words, checked; its states, copied. */
#include "lane/carry.h"

#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/wait.h"

void segue_carry_init(struct segue_carry *carry, struct segue_carry_header *words,
	struct segue_lease_page *page, const struct segue_geometry *geometry,
	const struct segue_spec *spec, uint64_t generation, uint64_t step,
	int (*read)(void *arg, uint64_t offset, void *out, size_t size), void *arg)
{
	*carry = (struct segue_carry){
		.words = words,
		.page = page,
		.geometry = geometry,
		.spec = spec,
		.read = read,
		.arg = arg,
		.granted = step,
		.committed = step,
		.released = step,
		.taken = step,
		.kept_from = SEGUE_NEVER,
	};
	carry->kept_tail = &carry->kept;
	/* no pair: nobody else has the segments yet */
	segue_store_release(&words->committed, step);
	segue_store_release(&words->released, step);
	segue_store_release(&page->wake_at, SEGUE_NEVER);
	segue_store_release(&page->durable, step);
	segue_store_release(&page->generation, generation);
}

void segue_carry_finish(struct segue_carry *carry)
{
	segue_carry_forget(carry, SEGUE_NEVER);
	segue_again_finish(&carry->again);
}

bool segue_carry_observe(struct segue_carry *carry, uint64_t published)
{
	/*
	 * acquire: pairs with segue_track_release (core/track.c); the slot is no longer read after
	 * it. Read before `committed`, so that an honest pair is never seen the wrong way round.
	 */
	uint64_t released = segue_load_acquire(&carry->words->released);
	/* acquire: pairs with segue_track_commit (core/track.c); then the states are complete */
	uint64_t committed = segue_load_acquire(&carry->words->committed);

	if (committed < carry->committed || committed > published || released < carry->released)
		carry->broken = true;
	if (carry->broken)
		return false;
	carry->committed = committed;
	carry->released = released < committed ? released : committed;
	return true;
}

bool segue_carry_overdue(
	struct segue_carry *carry, uint64_t published, int64_t now, int64_t timeout)
{
	if (!segue_carry_observe(carry, published))
		return false; /* ends for another reason */
	if (carry->committed != carry->watched || carry->committed == published ||
		carry->since == 0) {
		carry->watched = carry->committed;
		carry->since = now;
	}
	return now - carry->since >= timeout;
}

bool segue_carry_keeps_all(
	struct segue_carry *carry, uint64_t published, bool shared, int64_t now, int64_t timeout)
{
	bool full = shared && published >= carry->released + carry->geometry->depth;

	if (!full || carry->released != carry->kept_from) {
		carry->kept_from = full ? carry->released : SEGUE_NEVER;
		carry->kept_since = now;
	}
	return full && !carry->broken && now - carry->kept_since >= timeout;
}

uint64_t segue_carry_hold(struct segue_carry *carry, uint64_t published)
{
	if (!SEGUE_MUTANT(copy_without_hold))
		carry->holds++;
	segue_carry_observe(carry, published);
	return carry->committed;
}

int segue_carry_copy(const struct segue_carry *carry, uint64_t step, uint8_t *buffer)
{
	return carry->read(carry->arg, segue_carry_offset(carry->geometry, step), buffer,
		carry->geometry->buffer_size);
}

void segue_carry_let_go(struct segue_carry *carry)
{
	if (!SEGUE_MUTANT(copy_without_hold))
		carry->holds--;
}

void segue_carry_forget(struct segue_carry *carry, uint64_t step)
{
	while (carry->kept && carry->kept->step < step) {
		struct segue_kept *gone = carry->kept;
		carry->kept = gone->next;
		if (carry->spec->initial == SEGUE_INITIAL_KEPT)
			segue_again_remove(&carry->again, gone);
		free(gone);
	}
	if (!carry->kept)
		carry->kept_tail = &carry->kept;
}

void segue_carry_ring(struct segue_carry *carry)
{
	_Atomic uint32_t *bell = &carry->page->bell;

	/* release: pairs with sleep_on_page (client/durable.c); the event comes before it */
	segue_store_release(bell, segue_load_relaxed(bell) + 1);
	/* The event must be seen before the flag: pairs with sleep_on_page (client/durable.c). */
	segue_fence();
	/* relaxed: pairs with sleep_on_page (client/durable.c) */
	if (segue_load_relaxed(&carry->words->sleeping))
		segue_wake_word(bell);
}

void segue_carry_fence(struct segue_carry *carry)
{
	uint64_t generation = segue_load_relaxed(&carry->page->generation);

	/*
	 * release: pairs with segue_track_poll (core/track.c), segue_track_commit (core/track.c),
	 * durable_or_why_not (client/durable.c)
	 */
	segue_store_release(&carry->page->generation, generation + 1);
	segue_carry_ring(carry);
}

void segue_carry_set_durable(struct segue_carry *carry, uint64_t step)
{
	/*
	 * release: pairs with segue_lane_durable (client/lane.c), durable_or_why_not
	 * (client/durable.c)
	 */
	segue_store_release(&carry->page->durable, step);
	segue_carry_ring(carry);
}

void segue_carry_ask(struct segue_carry *carry, uint32_t bits)
{
	_Atomic uint32_t *asks = &carry->page->asks;

	/* release: pairs with segue_lane_asked (client/lane.h) */
	segue_store_release(asks, segue_load_relaxed(asks) | bits);
	segue_carry_ring(carry);
}

void segue_carry_unask(struct segue_carry *carry, uint32_t bits)
{
	_Atomic uint32_t *asks = &carry->page->asks;

	/* release: pairs with segue_lane_asked (client/lane.h) */
	segue_store_release(asks, segue_load_relaxed(asks) & ~bits);
}

void segue_carry_storage_failed(struct segue_carry *carry, int code, const char *text)
{
	strncpy(carry->page->error_text, text, SEGUE_ERROR_TEXT - 1);
	/*
	 * release: pairs with segue_track_poll (core/track.c), segue_lane_check_storage
	 * (client/lane.c); the text comes before it
	 */
	segue_store_release(&carry->page->error, (uint32_t)-code);
	segue_carry_ring(carry);
}
