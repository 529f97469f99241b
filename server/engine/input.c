/* A plan's questions, answered by a source. */
#include "engine/input.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdlib.h>

#include "core/error.h"

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
		int rc = segue_source_lengths(input->source, NULL, NULL, &lengths);
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

int segue_input_fail_missing(uint64_t number)
{
	return segue_fail(SEGUE_ESOURCE,
		"sequence %" PRIu64
		" is not in the log, and was before: the log is not the one that "
		"the stream had; restore a backup of both",
		number);
}

int segue_input_see(const struct segue_input *input, uint64_t seen, struct segue_log_place *place)
{
	struct segue_log_place found = {.number = seen};

	if (!input->source->ops->hash || seen == place->number)
		return 0;
	int rc = input->source->ops->hash(input->source, seen, found.hash);
	if (!rc)
		*place = found;
	return rc;
}

int segue_input_reopen(const struct segue_input *input, const struct segue_plan_row *row,
	struct segue_record **out)
{
	struct segue_admitted admitted;

	int rc = segue_source_admit(
		input->source, segue_plan_record(input->plan, row->number), out, &admitted);
	if (rc == SEGUE_ENOTYET)
		return segue_input_fail_missing(row->number);
	if (rc) /* it was whole when it was begun */
		return rc == SEGUE_SOURCE_SKIPPED ? SEGUE_EDATA : rc;
	if (admitted.array_steps == row->array_steps && admitted.total_length == row->total_length)
		return 0;
	rc = segue_fail(SEGUE_ECHANGED,
		"sequence %" PRIu64 " had %" PRIu64 " steps when it was begun and has %" PRIu64
		" now: the data set has changed; put it back as it was, or give the stream "
		"another name",
		row->number, row->array_steps, admitted.array_steps);
	(*out)->ops->release(*out);
	*out = NULL;
	return rc;
}

/* ---- For a plan without records ---- */

static int admit_length(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	struct segue_record *open;

	int rc = segue_input_admit(arg, record, &open, array_steps, total_length);
	if (!rc)
		open->ops->release(open);
	return rc == SEGUE_ENOTYET ? segue_input_fail_missing(number) : rc;
}

static int longest(void *arg, uint64_t epoch, uint64_t *steps)
{
	return segue_input_longest(arg, epoch, steps);
}

struct segue_plan_input segue_input_of_plan(struct segue_input *input)
{
	return (struct segue_plan_input){input, admit_length, longest, NULL};
}

bool segue_input_is_over(struct segue_input *input, const struct segue_position *position)
{
	const struct segue_plan_input asked = segue_input_of_plan(input);
	struct segue_slot_span *spans =
		calloc(segue_plan_places(input->plan, position), sizeof(*spans));
	struct segue_plan plan = {0};
	uint32_t rows;

	bool over = spans && !segue_plan_init(&plan, input->plan) &&
		    !segue_plan_seek(&plan, position) &&
		    segue_plan_step(&plan, &asked, spans, &rows) == 0;
	segue_plan_finish(&plan);
	free(spans);
	return over;
}
