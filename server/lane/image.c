/* Images of lanes, accounts of what is on disk, and when a transaction may begin. */
#include "lane/image.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/error.h"

struct segue_image *segue_image_create(const struct segue_plan_spec *plan,
	const struct segue_position *position, uint64_t row_size)
{
	uint32_t rows = position ? segue_position_count(position) : 0;
	uint32_t entries = position ? segue_position_entries(position) : 0;
	struct segue_image *image = calloc(1, sizeof(*image));

	if (!image)
		return NULL;
	image->row_size = row_size;
	image->position = calloc(1, segue_position_size(entries));
	image->states = calloc(rows ? rows : 1, row_size ? row_size : 1);
	image->key = calloc(rows ? rows : 1, sizeof(*image->key));
	image->live = malloc((rows ? rows : 1) * sizeof(*image->live));
	if (!image->position || !image->states || !image->key || !image->live) {
		segue_image_destroy(image);
		return NULL;
	}
	if (position)
		memcpy(image->position, position, segue_position_size(entries));
	else
		segue_plan_start(plan, image->position);
	for (uint32_t row = 0; row < rows; row++) {
		if (segue_plan_row_lives(plan, &position->row[row]) &&
			!(row >= position->rows && SEGUE_MUTANT(parked_dropped)))
			image->live[image->live_count++] = row;
	}
	return image;
}

int segue_image_set_key(struct segue_image *image, uint32_t row, const char *key, uint32_t size)
{
	char *copy = malloc(size ? size : 1);

	if (!copy)
		return segue_fail(SEGUE_ENOMEM, "no memory for a key");
	if (size)
		memcpy(copy, key, size);
	free(image->key[row].bytes);
	image->key[row].bytes = copy;
	image->key[row].size = size;
	return 0;
}

void segue_image_destroy(struct segue_image *image)
{
	if (!image)
		return;
	uint32_t rows = image->key && image->position ? segue_position_count(image->position) : 0;
	for (uint32_t row = 0; row < rows; row++)
		free(image->key[row].bytes);
	free(image->key);
	free(image->live);
	free(image->position);
	free(image->states);
	free(image);
}

int segue_account_init(struct segue_account *account, uint32_t places)
{
	*account = (struct segue_account){.stored = calloc(places + 1u, sizeof(*account->stored))};
	return account->stored ? 0 : segue_fail(SEGUE_ENOMEM, "no memory for a lane");
}

void segue_account_finish(struct segue_account *account)
{
	free(account->stored);
	*account = (struct segue_account){0};
}

static int compare_numbers(const void *a, const void *b)
{
	const struct segue_stored *left = a, *right = b;

	return (left->number > right->number) - (left->number < right->number);
}

void segue_account_settle(struct segue_account *account, const struct segue_image *image)
{
	for (uint32_t i = 0; i < image->live_count; i++)
		account->stored[i] =
			(struct segue_stored){image->position->row[image->live[i]].number, false};
	account->stored_count = image->live_count;
	account->durable = image->position->step;
	qsort(account->stored, account->stored_count, sizeof(*account->stored), compare_numbers);
}

void segue_account_compare(struct segue_account *account, const struct segue_image *image)
{
	if (account->stored_count == 0)
		return; /* it may never have been anything */
	for (uint32_t i = 0; i < account->stored_count; i++)
		account->stored[i].lives = false;
	for (uint32_t i = 0; i < image->live_count; i++) {
		const struct segue_stored live = {
			image->position->row[image->live[i]].number, true};
		struct segue_stored *stored = bsearch(&live, account->stored, account->stored_count,
			sizeof(live), compare_numbers);
		if (stored)
			stored->lives = true;
	}
}

bool segue_group_commit_begin(struct segue_group_commit *machine)
{
	if (machine->state != SEGUE_GROUP_COMMIT_IDLE)
		return false;
	machine->state = SEGUE_GROUP_COMMIT_WRITING;
	return true;
}

void segue_group_commit_ended(struct segue_group_commit *machine, int code)
{
	assert(machine->state == SEGUE_GROUP_COMMIT_WRITING);
	switch (code) {
	case 0:
	case SEGUE_ENOSPACE:
	case SEGUE_EMOVED:
	case SEGUE_ENOMEM:
	case SEGUE_ELIMIT:
	case SEGUE_EINVAL:
		machine->state = SEGUE_GROUP_COMMIT_IDLE;
		break;
	default:
		/* A failed sync is never tried again: what the disk holds is unknown. */
		machine->state = SEGUE_GROUP_COMMIT_STOPPED;
	}
}
