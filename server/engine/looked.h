/*
 * What was looked at for a batch that is being made, where batches are of one class of lengths
 * (lane/cohort.h): a try that had to wait for what comes next does not look again.
 */
#ifndef SEGUE_ENGINE_LOOKED_H
#define SEGUE_ENGINE_LOOKED_H

#include "engine/input.h"

/* Zeroed: nothing. */
struct segue_looked {
	struct segue_looked_at {
		uint64_t number;
		int code; /* 0 or SEGUE_PLAN_SKIP */
		struct segue_admitted lengths;
	} * at; /* owned */
	uint32_t count, capacity;
	uint32_t asked; /* of them, by this try: 0 where another begins */
};

/* As segue_plan_input's `look`, of what a try asks for next. The record is let go. */
int segue_looked_ask(struct segue_looked *looked, const struct segue_input *input, uint64_t number,
	uint64_t record, uint64_t *array_steps, uint64_t *total_length);
/* The batch was made, or given up: the next looks at others. */
void segue_looked_forget(struct segue_looked *looked);
void segue_looked_finish(struct segue_looked *looked);

#endif
