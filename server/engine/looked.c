/* What was looked at, and not begun by this very batch. */
#include "engine/looked.h"

#include <assert.h>
#include <stdlib.h>

#include "core/error.h"

static int make_room(struct segue_looked *looked)
{
	size_t capacity = 2 * (size_t)looked->capacity + 16;
	struct segue_looked_at *grown;

	if (looked->count < looked->capacity)
		return 0;
	grown = realloc(looked->at, capacity * sizeof(*grown));
	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for %zu records", capacity);
	looked->at = grown;
	looked->capacity = (uint32_t)capacity;
	return 0;
}

static int look(struct segue_looked *looked, const struct segue_input *input, uint64_t number,
	uint64_t record)
{
	struct segue_looked_at next = {.number = number};
	struct segue_record *open = NULL;
	int rc = make_room(looked);

	if (rc)
		return rc;
	next.code = segue_input_admit(
		input, record, &open, &next.lengths.array_steps, &next.lengths.total_length);
	if (next.code < 0)
		return next.code;
	if (next.code == 0)
		open->ops->release(open);
	looked->at[looked->count++] = next;
	return 0;
}

int segue_looked_ask(struct segue_looked *looked, const struct segue_input *input, uint64_t number,
	uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	int rc = looked->asked < looked->count ? 0 : look(looked, input, number, record);

	if (rc)
		return rc;
	const struct segue_looked_at *at = &looked->at[looked->asked++];
	assert(at->number == number);
	*array_steps = at->lengths.array_steps;
	*total_length = at->lengths.total_length;
	return at->code;
}

void segue_looked_forget(struct segue_looked *looked)
{
	looked->count = looked->asked = 0;
}

void segue_looked_finish(struct segue_looked *looked)
{
	free(looked->at);
	*looked = (struct segue_looked){0};
}
