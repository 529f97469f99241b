/*
 * When states go to disk, and what goes: pure state machines driven by the committer thread.
 *
 * An account is what the store holds, and will hold, for one (lane, group). It takes images:
 * position(c), the states after c - 1 of its live rows, and the rows that ended since. The newest
 * image wins; ended rows add up. The committer decides when a transaction is due, and one
 * transaction carries all accounts that owe something: group commit.
 *
 *	IDLE ──begin()──► WRITING ──ended(0)──► IDLE
 *	                     ├ ended(SEGUE_ENOSPACE, SEGUE_EMOVED, ...): IDLE, tried again
 *	                     └ ended(other): STOPPED, for good
 */
#ifndef SEGUE_LANE_IMAGE_H
#define SEGUE_LANE_IMAGE_H

#include "lane/plan.h"

/*
 * A lane as of one step: everything that a store, a token or an offer carries of it. Only rows that
 * live (segue_plan_row_lives) have states that count.
 */
struct segue_image {
	struct segue_position *position; /* owned */
	uint64_t row_size;
	/* Owned: segue_position_count() * row_size, row by row; ended and empty rows too. */
	uint8_t *states;
	struct segue_image_key {
		char *bytes;
		uint32_t size;
	} * key;        /* owned: as many; may be {NULL, 0} for ended and empty rows */
	uint32_t *live; /* owned: the rows that live, in order, parked ones included */
	uint32_t live_count;
};

/*
 * An image of a position (copied; NULL: the first, without rows), its states zeroed, without keys.
 * NULL: no memory.
 */
struct segue_image *segue_image_create(const struct segue_plan_spec *plan,
	const struct segue_position *position, uint64_t row_size);
int segue_image_set_key(struct segue_image *image, uint32_t row, const char *key, uint32_t size);
/* NULL is fine. */
void segue_image_destroy(struct segue_image *image);

struct segue_account {
	uint64_t durable; /* step that is on disk */
	struct segue_stored {
		uint64_t number;
		bool lives; /* in the image that it was compared with */
	} * stored;         /* owned: sequences of the live rows on disk, by number */
	uint32_t stored_count;
};
/* Nothing is on disk. Room for so many rows. SEGUE_ENOMEM; what follows needs no more memory. */
int segue_account_init(struct segue_account *account, uint32_t places);
/* A zeroed account is fine. */
void segue_account_finish(struct segue_account *account);
/* The account is on disk as `image` says (loaded, or written). */
void segue_account_settle(struct segue_account *account, const struct segue_image *image);
/* Says of each stored sequence whether it lives in `image`; states of those that do not leave the
 * disk. */
void segue_account_compare(struct segue_account *account, const struct segue_image *image);

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
