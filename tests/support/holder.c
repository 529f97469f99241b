/* Grants over a source in memory, and their holder. */
#include "holder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"

enum { PATIENCE = 30000, UNROLL = 2, STATES = 8 };

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, segue_error_detail());
	abort();
}

void segue_ground_begin(struct segue_ground *ground, uint64_t records, uint32_t length,
	uint32_t batch_size, uint32_t lanes)
{
	static const struct segue_pool_options options = {.name = "filler", .threads = 1};
	char dir[SEGUE_TMPDIR_MAX];

	*ground = (struct segue_ground){0};
	segue_tmpdir_make(&ground->tmp, "engine");
	segue_tmpdir_path(&ground->tmp, "store", dir);
	if (segue_store_open(dir, SEGUE_STORE_SERVE, &ground->store) ||
		segue_pool_create(&options, &ground->pool))
		die("a ground for grants");
	segue_fakesource_init(&ground->source, records, length);
	segue_fakespec_init(&ground->spec, &ground->source, batch_size, UNROLL, STATES);
	ground->spec.test.spec.lanes = lanes;
	ground->spec.test.spec.interval_ms =
		3600000; /* transactions come when they are asked for */
	segue_fakespec_plan(&ground->spec, &ground->source);
}

void segue_ground_end(struct segue_ground *ground)
{
	segue_pool_destroy(ground->pool);
	segue_store_close(ground->store);
	segue_fakesource_finish(&ground->source);
	segue_tmpdir_remove(&ground->tmp);
}

struct segue_grant_order segue_ground_order(
	struct segue_ground *ground, struct segue_changes *changes, uint32_t lane)
{
	struct segue_grant_order order = {
		.place = {.stream = 1, .lane = lane},
		.spec = &ground->spec.test.spec,
		.plan = ground->spec.plan,
		.source = &ground->source.source,
		.pool = ground->pool,
		.store = ground->store,
		.changes = changes,
		.fingerprint = {7, 8},
		.mode = SEGUE_ATTACH_CONTINUE,
		.given_up = &ground->given_up,
		.record = {.generation = 1},
	};

	order.plan.lane = lane;
	return order;
}

void segue_holder_await(const struct segue_grant *grant, uint64_t step)
{
	/* acquire: pairs with segue_feed_publish */
	for (int ms = 0; segue_load_acquire(&grant->filler->feed.ring->published) < step; ms++) {
		if (ms == PATIENCE)
			die("a batch does not come");
		usleep(1000);
	}
}

void segue_holder_commit(struct segue_grant *grant, uint64_t step, uint8_t life)
{
	struct segue_carry_header *words = grant->carry.words;
	const struct segue_geometry *geometry = &grant->filler->geometry;

	for (uint64_t t = segue_load_relaxed(&words->committed); t < step; t++) {
		segue_filler_kick(grant->filler);
		segue_holder_await(grant, t + 1);
		uint8_t *buffer = (uint8_t *)words + segue_carry_offset(geometry, t);
		for (uint32_t row = 0; row < geometry->places; row++)
			memset(buffer + geometry->state_offset[0] + (uint64_t)row * STATES,
				(int)(life + t + row), STATES);
		segue_store_release(&words->committed, t + 1);
		segue_store_release(&words->released, t + 1);
	}
}

static void closed(void *arg)
{
	_Atomic bool *is_closed = arg;

	atomic_store(is_closed, true);
}

void segue_holder_end(struct segue_grant *grant)
{
	_Atomic bool is_closed = false;

	segue_filler_close(grant->filler, closed, &is_closed);
	for (int ms = 0; !atomic_load(&is_closed); ms++) {
		if (ms == PATIENCE)
			die("a filler does not close");
		usleep(1000);
	}
	segue_grant_destroy(grant);
}
