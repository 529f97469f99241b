/* The spans of a batch, one behind the other. */
#ifndef SEGUE_TEST_SPANS_H
#define SEGUE_TEST_SPANS_H

#include "segue/segue.h"

/* Copies them all: how many there are; 0: they are more than `room`, or one cannot be read. */
static inline uint32_t segue_test_spans(
	const struct segue_batch *batch, struct segue_span *out, uint32_t room)
{
	uint32_t count = segue_batch_rows(batch);

	if (count > room)
		return 0;
	for (uint32_t i = 0; i < count; i++)
		if (segue_batch_span(batch, i, &out[i], sizeof(out[i])))
			return 0;
	return count;
}

#endif
