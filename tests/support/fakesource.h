/*
 * A source in memory, for tests of what reads one: record r has `length[r]` steps and the key
 * "record-<r>"; step i of its one sequence feature, an int64, is 1000 r + i.
 */
#ifndef SEGUE_TEST_FAKESOURCE_H
#define SEGUE_TEST_FAKESOURCE_H

#include "lane/plan.h"
#include "source/source.h"
#include "testspec.h"

struct segue_fakesource {
	struct segue_source source;
	uint64_t records;
	uint32_t *length; /* owned; all alike after init, to be set */
	uint32_t key_max;
	uint64_t inserted; /* as many are there by now: all, after init */
	/* If the feature is ragged: step i of record r has r + i times so many values of that. */
	uint64_t scale;

	/* What goes wrong: while `failures` is not 0, the admission or the read of `failing`. */
	uint64_t failing;
	int admit_code, read_code;
	unsigned failures;
	void (*admitting)(void); /* if not NULL, called at each admission */

	_Atomic uint64_t admitted, open; /* how often, and how many are not released */
};

void segue_fakesource_init(struct segue_fakesource *fake, uint64_t records, uint32_t length);
void segue_fakesource_finish(struct segue_fakesource *fake);

/* A stream over it: the feature and, if `state_size`, a state of so many bytes. */
struct segue_fakespec {
	struct segue_testspec test; /* points into itself: must not move */
	struct segue_field state;
	uint64_t state_hash[1][2];
	struct segue_plan_spec plan; /* of its lane 0 */
};
/* batch_size rows of num_unroll steps, one lane, one epoch, tail = shrink, depth 2, persist. */
void segue_fakespec_init(struct segue_fakespec *fake, const struct segue_fakesource *source,
	uint32_t batch_size, uint32_t num_unroll, uint32_t state_size);
/* The same for the plan, after changes of test.spec. */
void segue_fakespec_plan(struct segue_fakespec *fake, const struct segue_fakesource *source);

#endif
