/*
 * Grants over a source in memory, and their holder: what a worker does with ring and carry, from
 * inside one process.
 */
#ifndef SEGUE_TEST_HOLDER_H
#define SEGUE_TEST_HOLDER_H

#include "engine/grant.h"
#include "fakesource.h"
#include "tmpdir.h"

/* A store in a temporary directory, a source, a spec, a thread that fills. */
struct segue_ground {
	struct segue_tmpdir tmp;
	struct segue_store *store;
	struct segue_fakesource source;
	struct segue_fakespec spec;
	struct segue_pool *pool;
	_Atomic bool given_up;
};
/* `records` of `length` steps in rows of `batch_size` segments of 2 steps, states of 8 bytes. */
void segue_ground_begin(struct segue_ground *ground, uint64_t records, uint32_t length,
	uint32_t batch_size, uint32_t lanes);
void segue_ground_end(struct segue_ground *ground);
/* What a holder asks for: the lane as it is, in generation 1. */
struct segue_grant_order segue_ground_order(
	struct segue_ground *ground, struct segue_changes *changes, uint32_t lane);

/* Waits until so many batches are published: half a minute, then the test is over. */
void segue_holder_await(const struct segue_grant *grant, uint64_t step);
/*
 * Takes, saves and commits the batches up to `step`, and releases them: each state of batch t, row
 * r, is 8 bytes of `life` + t + r.
 */
void segue_holder_commit(struct segue_grant *grant, uint64_t step, uint8_t life);
/* Closes the filler, waits for that, destroys the grant. */
void segue_holder_end(struct segue_grant *grant);

#endif
