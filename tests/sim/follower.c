/* Replicas that follow the leases of a run. */
#include "follower.h"

#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/wait.h"
#include "engine/filler.h"
#include "lane/follower.h"

#define VIEWS   8
#define PROCESS 1000000 /* of the first: workers are below */
#define MOST    12      /* at a time */

struct sim_follower {
	struct sim_follower *next;
	struct sim_server *server;
	uint32_t pair;
	uint64_t generation;
	const struct segue_geometry *geometry;
	struct segue_carry_header *words;
	const struct segue_carry_header *carry;
	struct segue_track track;
	struct segue_follower at_server;
	bool gone;     /* its process has ended */
	bool nonsense; /* it has written what cannot be */
	bool let_go;   /* the server waits for it no more, though the lease goes on */
	bool sleeps;   /* it may: the lease goes on, and the server is there */
	struct view {
		bool used;
		uint64_t step;
		uint8_t *slot, *buffer; /* as they were */
	} view[VIEWS];
};

/* What came in with each batch, as the holder of that lease saw it. */
static struct {
	uint64_t generation, sum;
} seen[SIM_PAIRS][SIM_STEPS];
static struct sim_follower *live[MOST];
static int processes;

/* ---- What there is of a batch --------------------------------------------------------------- */

static const uint8_t *slot_of(const struct sim_follower *one, uint64_t step)
{
	return (const uint8_t *)segue_ring_slot(
		(void *)(uintptr_t)one->track.ring, one->geometry, step);
}

static size_t slot_size(const struct segue_geometry *geometry)
{
	return geometry->heap_offset + geometry->heap_size;
}

static const uint8_t *buffer_before(const struct segue_carry_header *carry,
	const struct segue_geometry *geometry, uint64_t step)
{
	return (const uint8_t *)carry + segue_carry_offset(geometry, step + geometry->depth);
}

static size_t buffer_size(const struct segue_geometry *geometry)
{
	return geometry->state_offset[1] + geometry->places * sim_world.state[1].size;
}

static uint64_t sum_of(const uint8_t *bytes, size_t size)
{
	uint64_t sum = size;

	for (size_t i = 0; i < size; i++)
		sum = sim_mix(sum, bytes[i]);
	return sum;
}

static uint8_t *copy_of(const uint8_t *bytes, size_t size)
{
	return memcpy(malloc(size), bytes, size);
}

void sim_followed_take(const struct segue_track *track, uint32_t pair,
	const struct segue_geometry *geometry, uint64_t step)
{
	struct segue_carry_header *carry = track->carry;
	_Atomic uint64_t *taken = &carry->taken;

	seen[pair][step].generation = track->generation;
	seen[pair][step].sum = sum_of(buffer_before(carry, geometry, step), buffer_size(geometry));
	/* As segue_follow_tell (client/follow.c) does it; pairs with go_on (follower.c) */
	segue_store_release(taken, step + 1);
	segue_wake_word((_Atomic uint32_t *)taken);
}

/* ---- A follower ----------------------------------------------------------------------------- */

static void verify(const struct sim_follower *one, const struct view *view)
{
	if (one->let_go || one->nonsense)
		return;
	sim_check(memcmp(slot_of(one, view->step), view->slot, slot_size(one->geometry)) == 0,
		"followed", "pair %u: the slot of batch %llu changed under a follower", one->pair,
		(unsigned long long)view->step);
	sim_check(memcmp(buffer_before(one->carry, one->geometry, view->step), view->buffer,
			  buffer_size(one->geometry)) == 0,
		"followed", "pair %u: the states in of batch %llu changed under a follower",
		one->pair, (unsigned long long)view->step);
}

static void ring_server(const struct sim_follower *one)
{
	sim_doorbell(one->server, one->pair);
}

/* Each with the chance of one in `n`; but for the batch that is open. */
static void release_some(struct sim_follower *one, uint32_t n)
{
	for (unsigned i = 0; i < VIEWS; i++) {
		struct view *view = &one->view[i];
		if (!view->used || view->step >= one->track.committed || !sim_one_in(n))
			continue;
		verify(one, view);
		free(view->slot);
		free(view->buffer);
		view->used = false;
		if (segue_track_release(&one->track, view->step))
			ring_server(one);
	}
}

static void take(struct sim_follower *one, bool over)
{
	struct view *view = one->view;
	uint64_t step = one->track.next;

	while (view->used)
		view++;
	const uint8_t *before = buffer_before(one->carry, one->geometry, step);
	segue_track_take(&one->track);
	*view = (struct view){
		.used = true,
		.step = step,
		.slot = copy_of(slot_of(one, step), slot_size(one->geometry)),
		.buffer = copy_of(before, buffer_size(one->geometry)),
	};
	if (one->let_go)
		return;
	sim_check(sim_world_slot_right(
			  one->geometry, (const struct segue_slot *)view->slot, one->pair, step),
		"followed", "pair %u: a follower gets batch %llu, which is not what the plan says",
		one->pair, (unsigned long long)step);
	sim_check(seen[one->pair][step].generation != one->generation ||
			  seen[one->pair][step].sum ==
				  sum_of(view->buffer, buffer_size(one->geometry)),
		"followed", "pair %u: a follower gets other states with batch %llu than the holder",
		one->pair, (unsigned long long)step);
	sim_happened[SIM_FOLLOWED]++;
	sim_happened[SIM_FOLLOWED_LATE] += over;
}

static void write_nonsense(struct sim_follower *one)
{
	uint64_t far = sim_one_in(2) ? SEGUE_NEVER : SIM_STEPS + 1 + sim_below(SIM_STEPS);

	sim_happened[SIM_FOLLOWER_LIED]++;
	/* pairs with observe (lane/follower.c) */
	if (sim_one_in(2))
		segue_store_release(&one->words->released, far);
	segue_store_release(&one->words->committed, far);
	/* no pair: so that the server, which is rung then, sees it */
	segue_fence();
	one->nonsense = true;
	ring_server(one);
}

/* False: it has seen all that there is of the lease. */
static bool go_on(struct sim_follower *one)
{
	struct segue_track *track = &one->track;
	const struct segue_lease_page *page = track->page;

	if (segue_track_open(track) && sim_one_in(2)) {
		segue_track_pass(track);
		return true;
	}
	release_some(one, 3);
	if (segue_track_open(track))
		return true;
	/* pairs with segue_carry_fence (lane/carry.c) */
	bool over = segue_load_acquire(&page->generation) != track->generation;
	/* pairs with sim_followed_take (follower.c) */
	uint64_t taken = segue_load_acquire(&one->carry->taken);
	if (SEGUE_MUTANT(follows_the_ring)) /* pairs with segue_feed_publish (lane/feed.c) */
		taken = segue_load_acquire(&track->ring->published);
	if (taken > track->next && track->next - track->released < VIEWS) {
		take(one, over);
		return true;
	}
	release_some(one, 1);
	if (taken > track->next)
		return true;
	if (over || !one->sleeps)
		return false;
	ring_server(one);
	sim_sleep_while(&one->sleeps);
	segue_wait_word((const _Atomic uint32_t *)&one->carry->taken, (uint32_t)taken, INT64_MAX);
	return true;
}

static void run_follower(void *arg)
{
	struct sim_follower *one = arg;

	while (!one->let_go && !one->nonsense) {
		for (unsigned i = 0; i < VIEWS; i++)
			if (one->view[i].used && sim_one_in(2))
				verify(one, &one->view[i]);
		sim_point();
		if (sim_one_in(150))
			write_nonsense(one);
		else if (sim_one_in(150) || !go_on(one))
			break;
	}
	release_some(one, one->nonsense ? 2 : 1);
	sim_happened[SIM_FOLLOWER_DIED]++;
	one->gone = true;
	for (unsigned i = 0; i < MOST; i++)
		if (live[i] == one)
			live[i] = NULL;
	ring_server(one);
}

void sim_followers_begin(void)
{
	memset(live, 0, sizeof(live));
	memset(seen, 0, sizeof(seen));
	processes = 0;
}

void sim_followers_see_lost(const struct sim_server *server)
{
	for (unsigned i = 0; i < MOST; i++)
		if (live[i] && live[i]->server == server)
			live[i]->sleeps = false;
}

/* ---- The server ----------------------------------------------------------------------------- */

/* calloc's are freed with the run, but not of that alignment. */
static void *make_page(void)
{
	uintptr_t at = (uintptr_t)calloc(1, SEGUE_FOLLOWER_SIZE + SEGUE_LINE);

	return (void *)((at + SEGUE_LINE - 1) / SEGUE_LINE * SEGUE_LINE);
}

static void add(struct sim_following *following)
{
	struct segue_carry *carry = following->carry;
	struct segue_feed *feed = &following->filler->feed;
	unsigned place = 0;

	while (place < MOST && live[place])
		place++;
	if (place == MOST)
		return;
	struct sim_follower *one = calloc(1, sizeof(*one));
	*one = (struct sim_follower){.next = following->first,
		.server = following->server,
		.pair = following->pair,
		.generation = following->generation,
		.geometry = carry->geometry,
		.words = make_page(),
		.carry = carry->words,
		.sleeps = true};
	pthread_mutex_lock(&following->filler->lock);
	segue_carry_observe(carry, feed->published);
	uint64_t step = carry->committed;
	bool reached = segue_feed_reaches(feed, step);
	if (reached)
		segue_followers_add(carry, &one->at_server, one->words, step);
	pthread_mutex_unlock(&following->filler->lock);
	if (!reached)
		return;
	following->first = one;
	live[place] = one;
	segue_track_init(&one->track, feed->ring, one->words, carry->page, sim_world.spec.depth,
		following->generation, step);
	sim_trace("pair %u: followed from step %llu", one->pair, (unsigned long long)step);
	sim_spawn("follower", PROCESS + processes++, run_follower, one);
}

void sim_following_begin(struct sim_following *following)
{
	for (uint32_t count = 1 + sim_below(2); count > 0; count--)
		add(following);
}

void sim_following_look(struct sim_following *following)
{
	struct sim_follower **link = &following->first, *one;
	bool some = false;

	if (!following->server)
		return;
	while ((one = *link)) {
		bool lied = one->nonsense;
		pthread_mutex_lock(&following->filler->lock);
		segue_followers_observe(following->carry, following->filler->feed.published);
		bool broken = one->at_server.broken;
		if (broken || one->gone) {
			segue_followers_remove(following->carry, &one->at_server);
			one->let_go = true;
		}
		pthread_mutex_unlock(&following->filler->lock);
		sim_check(!lied || broken, "nonsense", "pair %u: a follower's nonsense is believed",
			one->pair);
		if (one->let_go)
			*link = one->next;
		else
			link = &one->next;
		some = some || one->let_go;
	}
	if (some)
		segue_filler_kick(following->filler);
	if (some && sim_one_in(2))
		add(following);
}

void sim_following_end(struct sim_following *following)
{
	if (!following->server)
		return;
	pthread_mutex_lock(&following->filler->lock);
	segue_feed_end_following(&following->filler->feed, following->carry);
	pthread_mutex_unlock(&following->filler->lock);
	/* As a library that looks at the lease now and then. */
	for (struct sim_follower *one = following->first; one; one = one->next)
		one->sleeps = false;
	segue_wake_word((_Atomic uint32_t *)&following->carry->words->taken);
	*following = (struct sim_following){0};
}
