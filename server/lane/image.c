/* Images of lanes, accounts of what is on disk, and when a transaction may begin. */
#include "lane/image.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

struct segue_image *segue_image_create(uint32_t batch_size, uint32_t rows, uint64_t row_size)
{
	struct segue_image *image = calloc(1, sizeof(*image));

	if (!image)
		return NULL;
	image->row_size = row_size;
	image->position = calloc(1, segue_position_size(batch_size));
	image->states = calloc(rows ? rows : 1, row_size ? row_size : 1);
	image->key = calloc(rows ? rows : 1, sizeof(*image->key));
	if (!image->position || !image->states || !image->key) {
		segue_image_destroy(image);
		return NULL;
	}
	image->position->rows = rows;
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
	for (uint32_t row = 0; image->key && image->position && row < image->position->rows; row++)
		free(image->key[row].bytes);
	free(image->key);
	free(image->position);
	free(image->states);
	free(image);
}

void segue_account_finish(struct segue_account *account)
{
	free(account->stored);
	*account = (struct segue_account){0};
}

int segue_account_settle(struct segue_account *account, const struct segue_plan_spec *plan,
	const struct segue_image *image)
{
	const struct segue_position *position = image->position;
	uint32_t count = 0;

	if (!account->stored)
		account->stored = malloc(plan->batch_size * sizeof(*account->stored));
	if (!account->stored)
		return segue_fail(SEGUE_ENOMEM, "no memory for an account");
	for (uint32_t row = 0; row < position->rows; row++) {
		if (segue_plan_row_lives(plan, &position->row[row]))
			account->stored[count++] = position->row[row].number;
	}
	account->stored_count = count;
	account->durable = position->step;
	return 0;
}

bool segue_account_drops(
	const struct segue_plan_spec *plan, const struct segue_position *position, uint64_t number)
{
	for (uint32_t row = 0; row < position->rows; row++) {
		if (position->row[row].number == number)
			return !segue_plan_row_lives(plan, &position->row[row]);
	}
	return true;
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
