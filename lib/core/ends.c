/* Where a stream's input ends. */
#include "core/ends.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"

/* A list is printed with so many of its first entries, and of its last. */
enum { PRINTED_FIRST = 5, PRINTED_LAST = 3 };

int segue_ends_check(const struct segue_ends *ends)
{
	if (ends->count < 1 || ends->count > SEGUE_ENDS_MAX)
		return segue_fail(SEGUE_EINVAL, "%u ends of the input, 1 to %d are allowed",
			ends->count, SEGUE_ENDS_MAX);
	for (uint32_t i = 1; i < ends->count; i++)
		if (ends->epochs[i - 1] == 0 ||
			(ends->epochs[i] != 0 && ends->epochs[i] <= ends->epochs[i - 1]))
			return segue_fail(SEGUE_EINVAL,
				"the ends of the input do not rise: %" PRIu64 ", then %" PRIu64,
				ends->epochs[i - 1], ends->epochs[i]);
	return 0;
}

static uint64_t total(uint64_t epochs)
{
	return epochs == 0 ? UINT64_MAX : epochs;
}

uint64_t segue_ends_last(const struct segue_ends *ends)
{
	return total(ends->epochs[ends->count - 1]);
}

uint32_t segue_ends_until(const struct segue_ends *ends, uint64_t epoch)
{
	uint32_t i = 0;

	while (i < ends->count - 1 && total(ends->epochs[i]) <= epoch)
		i++;
	return i + 1;
}

uint64_t segue_ends_after(const struct segue_ends *ends, uint64_t epoch)
{
	uint64_t end = total(ends->epochs[segue_ends_until(ends, epoch) - 1]);

	return end > epoch ? end : UINT64_MAX;
}

bool segue_ends_have(const struct segue_ends *ends, uint64_t epochs)
{
	uint32_t i = 0;

	while (i < ends->count && ends->epochs[i] != epochs)
		i++;
	return i < ends->count;
}

bool segue_ends_agree(const struct segue_ends *a, const struct segue_ends *b, uint32_t count)
{
	return a->count >= count && b->count >= count &&
	       memcmp(a->epochs, b->epochs, count * sizeof(a->epochs[0])) == 0;
}

int segue_ends_grow(struct segue_ends *ends, uint64_t epochs)
{
	uint64_t last = ends->epochs[ends->count - 1];
	char list[SEGUE_ENDS_TEXT], asked[24], there[24];

	if (epochs == last)
		return 0;
	segue_ends_print(ends, list);
	segue_epochs_print(epochs, asked);
	segue_epochs_print(last, there);
	if (total(epochs) < total(last))
		return segue_fail(SEGUE_ESPEC,
			"epochs=%s is asked for, and the stream has epochs=%s%s%s%s: it can grow, "
			"not shrink. Give epochs=%s%s, or another name for a new stream",
			asked, there, ends->count > 1 ? " (it grew: " : "",
			ends->count > 1 ? list : "", ends->count > 1 ? ")" : "", there,
			last == 0 ? "" : " or more");
	if (ends->count == SEGUE_ENDS_MAX)
		return segue_fail(SEGUE_ESPEC,
			"epochs=%s is asked for, and the stream has grown as often as a stream "
			"can, "
			"to %d ends (%s). Give epochs=%s, or another name: first_epoch=%s begins a "
			"new stream where this one ends",
			asked, SEGUE_ENDS_MAX, list, there, there);
	ends->epochs[ends->count++] = epochs;
	return 1;
}

const char *segue_epochs_print(uint64_t epochs, char text[24])
{
	if (epochs == 0)
		return strcpy(text, "None");
	snprintf(text, 24, "%" PRIu64, epochs);
	return text;
}

const char *segue_ends_print(const struct segue_ends *ends, char text[SEGUE_ENDS_TEXT])
{
	char entry[24];
	size_t used = 0;

	*text = '\0';
	for (uint32_t i = 0; i < ends->count; i++) {
		bool skip = i == PRINTED_FIRST && ends->count > PRINTED_FIRST + PRINTED_LAST;

		if (skip)
			i = ends->count - PRINTED_LAST;
		used += (size_t)snprintf(text + used, SEGUE_ENDS_TEXT - used, "%s%s%s",
			i ? ", " : "", skip ? "..., " : "",
			segue_epochs_print(ends->epochs[i], entry));
	}
	return text;
}
