/* Followers of a lease: their words, checked. */
#include "lane/follower.h"

#include <stdio.h>

#include "core/barrier.h"
#include "core/wait.h"

void segue_followers_add(struct segue_carry *carry, struct segue_follower *follower,
	struct segue_carry_header *words, uint64_t step)
{
	*follower = (struct segue_follower){
		.next = carry->followers, .words = words, .committed = step, .released = step};
	/* no pair: nobody else has the page yet */
	segue_store_release(&words->committed, step);
	segue_store_release(&words->released, step);
	carry->followers = follower;
}

void segue_followers_remove(struct segue_carry *carry, struct segue_follower *follower)
{
	struct segue_follower **link = &carry->followers;

	while (*link && *link != follower)
		link = &(*link)->next;
	if (*link)
		*link = follower->next;
}

/* As segue_carry_observe. */
static void observe(struct segue_follower *follower, uint64_t published)
{
	/*
	 * acquire: pairs with segue_track_release (core/track.c); neither slot nor states are read
	 * any more after it. Read before `committed`, as there.
	 */
	uint64_t released = segue_load_acquire(&follower->words->released);
	/* acquire: pairs with segue_track_pass (core/track.c) */
	uint64_t committed = segue_load_acquire(&follower->words->committed);

	if (committed < follower->committed || committed > published ||
		released < follower->released)
		follower->broken = !SEGUE_MUTANT(nonsense_believed);
	if (follower->broken)
		return;
	follower->committed = committed;
	follower->released = released < committed ? released : committed;
}

uint64_t segue_followers_observe(const struct segue_carry *carry, uint64_t published)
{
	uint64_t least = SEGUE_NEVER;

	for (struct segue_follower *one = carry->followers; one; one = one->next) {
		observe(one, published);
		least = one->released < least ? one->released : least;
	}
	return SEGUE_MUTANT(follower_not_waited_for) ? SEGUE_NEVER : least;
}

void segue_followers_tell(
	struct segue_carry *carry, uint32_t count, const char *missing, const char *gone)
{
	struct segue_lease_page *page = carry->page;

	snprintf(page->missing_text, sizeof(page->missing_text), "%s", missing);
	if (gone) {
		snprintf(page->gone_text, sizeof(page->gone_text), "%s", gone);
		/* release: pairs with check_gone (client/follow.c); the text comes before it */
		segue_store_release(&page->gone, segue_load_relaxed(&page->gone) + 1);
	}
	/*
	 * release: pairs with segue_follow_is_whole (client/follow.c), segue_follow_await
	 * (client/follow.c)
	 */
	segue_store_release(&page->followers, count);
	segue_wake_word(&page->followers);
}
