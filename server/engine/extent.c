/* How many steps the rows of a batch have. */
#include "engine/extent.h"

struct segue_extent segue_extent_of(
	const struct segue_spec *spec, const struct segue_slot_span *spans, uint32_t rows)
{
	struct segue_extent extent = {.steps = 1};

	for (uint32_t i = 0; i < rows; i++) {
		extent.valid += spans[i].length;
		if (spans[i].length > extent.steps)
			extent.steps = spans[i].length;
	}
	if (!segue_spec_trims(spec))
		extent.steps = segue_spec_unroll(spec);
	return extent;
}

int segue_extent_go_on(const struct segue_extent *extent, const struct segue_spec *spec,
	const struct segue_slot_span *span, struct segue_record *record)
{
	uint32_t unroll = segue_spec_unroll(spec);

	if (extent->steps == unroll || span->flags & SEGUE_SPAN_LAST)
		return 0;
	return record->ops->seek(record, span->first_step + unroll);
}
