/* What a plan asks of the data, answered by a source: lengths, found by admitting. */
#ifndef SEGUE_ENGINE_INPUT_H
#define SEGUE_ENGINE_INPUT_H

#include "lane/plan.h"
#include "source/source.h"

struct segue_input {
	struct segue_source *source;
	const struct segue_spec *spec;
	const struct segue_plan_spec *plan;
	uint64_t longest_epoch, longest; /* answer of the last question: epoch + 1; 0: none */
};

/*
 * Admits record `record`: as segue_plan_input's `admit` (SEGUE_PLAN_SKIP where the spec passes over
 * damaged records; SEGUE_ENOTYET). On 0 the caller owns *out.
 */
int segue_input_admit(const struct segue_input *input, uint64_t record, struct segue_record **out,
	uint64_t *array_steps, uint64_t *total_length);
/* Of a log: brings the place of what was seen before up to so many sequences. */
int segue_input_see(const struct segue_input *input, uint64_t seen, struct segue_log_place *place);
/* What was read before is not there (yet): SEGUE_ESOURCE. */
int segue_input_fail_missing(uint64_t number);
/*
 * Opens the record of a row that has begun. SEGUE_ECHANGED, SEGUE_EDATA, SEGUE_ESOURCE: it is not
 * what it was. On 0 the caller owns *out.
 */
int segue_input_reopen(const struct segue_input *input, const struct segue_plan_row *row,
	struct segue_record **out);
/* As segue_plan_input's `longest`: asked step after step, computed once an epoch. */
int segue_input_longest(struct segue_input *input, uint64_t epoch, uint64_t *steps);
/*
 * For a plan that only runs to a position, without the records: what it asks, answered by `input`.
 * What is not there yet is SEGUE_ESOURCE: whoever was at that position has seen it.
 */
struct segue_plan_input segue_input_of_plan(struct segue_input *input);
/*
 * Whether the lane ends at that position: no batch can be made there. False also where that cannot
 * be told, as where a record cannot be read. Reads records.
 */
bool segue_input_is_over(struct segue_input *input, const struct segue_position *position);

#endif
