/*
 * When states go to disk, and what goes: pure state machines driven by the committer thread.
 *
 * An account is what the store holds, and will hold, for one (lane, group). It takes images:
 * position(c), the states after c - 1 of its live rows, and the rows that ended since. The newest
 * image wins; ended rows add up. The committer decides when a transaction is due, and one
 * transaction carries all accounts that owe something: group commit.
 *
 *	IDLE ──begin()──► WRITING ──ended(0)──► IDLE
 *	                     ├ ended(nothing was written: SEGUE_ENOSPACE, ...): IDLE, tried again
 *	                     └ ended(other): STOPPED, for good
 */
#ifndef SEGUE_LANE_IMAGE_H
#define SEGUE_LANE_IMAGE_H

#include "lane/plan.h"

/* A lane as of one step: everything that a store, a token or an offer carries of it. */
struct segue_image {
	struct segue_position *position; /* owned */
	uint64_t row_size;
	uint8_t *
		states; /* owned: position->rows * row_size, row by row; ended and empty rows too */
	struct segue_image_key {
		char *bytes;
		uint32_t size;
	} * key; /* owned: position->rows; may be {NULL, 0} for ended and empty rows */
};

/* An image of `rows` rows, zeroed. NULL: no memory. */
struct segue_image *segue_image_create(uint32_t batch_size, uint32_t rows, uint64_t row_size);
int segue_image_set_key(struct segue_image *image, uint32_t row, const char *key, uint32_t size);
/* NULL is fine. */
void segue_image_destroy(struct segue_image *image);

struct segue_account {
	uint64_t durable; /* step that is on disk */
	uint64_t *stored; /* owned, of batch_size: sequence numbers of the live rows on disk */
	uint32_t stored_count;
};
void segue_account_finish(struct segue_account *account);
/*
 * The account is on disk as `image` says (loaded, or written). SEGUE_ENOMEM, the first time alone:
 * as before.
 */
int segue_account_settle(struct segue_account *account, const struct segue_plan_spec *plan,
	const struct segue_image *image);
/* True if sequence `number` is no longer alive in `position`: its states leave the disk. */
bool segue_account_drops(
	const struct segue_plan_spec *plan, const struct segue_position *position, uint64_t number);

enum segue_group_commit_state {
	SEGUE_GROUP_COMMIT_IDLE,
	SEGUE_GROUP_COMMIT_WRITING,
	SEGUE_GROUP_COMMIT_STOPPED,
};

struct segue_group_commit {
	enum segue_group_commit_state state;
};

/* A transaction begins. False: one is under way, or storage failed for good. */
bool segue_group_commit_begin(struct segue_group_commit *machine);
/* It has ended with what segue_store_apply() says. */
void segue_group_commit_ended(struct segue_group_commit *machine, int code);

#endif
