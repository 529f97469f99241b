/* Where classes of lengths begin. */
#include "core/boundaries.h"

#include <inttypes.h>
#include <stdio.h>

#include "core/error.h"

int segue_boundaries_check(const struct segue_boundaries *boundaries)
{
	if (boundaries->count > SEGUE_BOUNDARIES_MAX)
		return segue_fail(SEGUE_EINVAL,
			"the number of bucket_boundaries is %" PRIu32 ", from 0 to %d is allowed",
			boundaries->count, SEGUE_BOUNDARIES_MAX);
	for (uint32_t i = 0; i < boundaries->count; i++) {
		uint64_t least = i ? boundaries->length[i - 1] + 1 : 1;

		if (boundaries->length[i] < least || least == 0)
			return segue_fail(SEGUE_EINVAL,
				"bucket_boundaries[%" PRIu32 "] is %" PRIu64
				": they are lengths, from 1 on, and rise: give each once, in order",
				i, boundaries->length[i]);
	}
	return 0;
}

uint32_t segue_boundaries_class(const struct segue_boundaries *boundaries, uint64_t steps)
{
	uint32_t low = 0, high = boundaries->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (boundaries->length[middle] <= steps)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const char *segue_boundaries_print(
	const struct segue_boundaries *boundaries, char text[SEGUE_BOUNDARIES_TEXT])
{
	const uint32_t count = boundaries->count, shown = 5;
	int used = 0;

	if (count == 0) {
		snprintf(text, SEGUE_BOUNDARIES_TEXT, "None");
		return text;
	}
	/* Five numbers of up to 20 digits. */
	for (uint32_t i = 0; i < count; i++) {
		bool left_out = count > shown && i >= shown - 1 && i + 1 < count;

		if (left_out && i >= shown)
			continue;
		if (left_out)
			used += snprintf(
				text + used, SEGUE_BOUNDARIES_TEXT - (size_t)used, ", ...");
		else
			used += snprintf(text + used, SEGUE_BOUNDARIES_TEXT - (size_t)used,
				"%s%" PRIu64, i ? ", " : "[", boundaries->length[i]);
	}
	snprintf(text + used, SEGUE_BOUNDARIES_TEXT - (size_t)used, "]");
	return text;
}
