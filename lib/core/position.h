/*
 * A lane's position: everything that the plan has to remember between two batches, and what the
 * store and the tokens hold of it. server/lane/plan.h says what it means.
 */
#ifndef SEGUE_CORE_POSITION_H
#define SEGUE_CORE_POSITION_H

#include <stdint.h>

/*
 * A row of batch t - 1, or parked then. number == SEGUE_NO_SEQUENCE: an empty row (tail = pad), the
 * rest is 0. Or one that waits: looked at and not begun, its segment is 0.
 */
struct segue_plan_row {
	uint64_t number;       /* g: epoch * N + place in the epoch's order */
	uint64_t array_steps;  /* n */
	uint64_t total_length; /* <= segments * num_unroll */
	uint64_t segment;      /* the last that was delivered */
};

struct segue_position {
	uint64_t step; /* t: the batch that comes next */
	/* Lane-local count of sequences taken, looked at or passed over: the next is number
	 * next * lanes + lane. */
	uint64_t next;
	uint64_t epoch;       /* with which the stretch began that is being delivered: plan.h */
	uint64_t epoch_step;  /* the step at which it began */
	uint64_t undelivered; /* segments left out by tail = stop, so far */
	uint64_t sized; /* 0: the batch size is the spec's; else 1 + the step at which it was set */
	uint32_t batch_size; /* what it was set to; 0 while `sized` is 0 */
	uint32_t rows;       /* of batch t - 1; 0 before the first batch */
	uint32_t parked;     /* sequences that have begun and wait for room in a batch */
	uint32_t waiting;    /* sequences that were looked at and have not begun: lane/cohort.h */
	/* `rows` of them, then the parked ones, then those that wait, each oldest first. */
	struct segue_plan_row row[];
};

/* How many have begun: state buffer t - 1 holds the states of all of them, in this order. */
static inline uint32_t segue_position_count(const struct segue_position *position)
{
	return position->rows + position->parked;
}

/* How many row[] has. */
static inline uint32_t segue_position_entries(const struct segue_position *position)
{
	return segue_position_count(position) + position->waiting;
}

#endif
