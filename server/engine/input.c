/* A plan's questions, answered by a source. */
#include "engine/input.h"

#include <malloc.h>

int segue_input_admit(const struct segue_input *input, uint64_t record, struct segue_record **out,
	uint64_t *array_steps, uint64_t *total_length)
{
	struct segue_admitted admitted;

	int rc = segue_source_admit(input->source, record, out, &admitted);
	if (rc)
		return rc == SEGUE_SOURCE_SKIPPED ? SEGUE_PLAN_SKIP : rc;
	*array_steps = admitted.array_steps;
	*total_length = admitted.total_length;
	return 0;
}

int segue_input_longest(struct segue_input *input, uint64_t epoch, uint64_t *steps)
{
	const uint32_t *lengths;

	if (input->longest_epoch != epoch + 1) {
		int rc = input->source->ops->lengths(input->source, NULL, NULL, &lengths);
		if (!rc)
			rc = segue_plan_longest(input->plan, epoch, lengths, &input->longest);
		malloc_trim(0); /* the scan of all records has left holes */
		if (rc)
			return rc;
		input->longest_epoch = epoch + 1;
	}
	*steps = input->longest;
	return 0;
}
