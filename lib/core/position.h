/*
 * A lane's position: everything that the plan has to remember between two batches, and what the
 * store and the tokens hold of it. server/lane/plan.h says what it means.
 */
#ifndef SEGUE_CORE_POSITION_H
#define SEGUE_CORE_POSITION_H

#include <stdint.h>

/* A row of batch t - 1. number == SEGUE_NO_SEQUENCE: an empty row (tail = pad), the rest is 0. */
struct segue_plan_row {
	uint64_t number;       /* g: epoch * N + place in the epoch's order */
	uint64_t array_steps;  /* n */
	uint64_t total_length; /* <= segments * num_unroll */
	uint64_t segment;      /* the one that batch t - 1 held */
};

struct segue_position {
	uint64_t step;  /* t: the batch that comes next */
	uint64_t next;  /* lane-local count of sequences taken or passed over: the next is number
			 * next * lanes + lane */
	uint64_t epoch; /* with which the stretch began that is being delivered: plan.h */
	uint64_t epoch_step;         /* the step at which it began */
	uint64_t undelivered;        /* segments left out by tail = stop, so far */
	uint32_t rows;               /* of batch t - 1: <= batch_size; 0 before the first batch */
	struct segue_plan_row row[]; /* batch_size of them */
};

#endif
