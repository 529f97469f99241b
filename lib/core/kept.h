/*
 * Kept rows as an offer carries them: rows whose sequence ended, with their last states, one after
 * the other, oldest first, in no alignment.
 *
 *	u64 step, u64 number, u32 key_size, u32 0, key, states
 *
 * The library writes them, and the server reads them. Pure.
 */
#ifndef SEGUE_CORE_KEPT_H
#define SEGUE_CORE_KEPT_H

#include <stddef.h>
#include <stdint.h>

struct segue_kept_row {
	uint64_t step;   /* of the batch that held its last segment */
	uint64_t number; /* of its sequence */
	uint32_t key_size;
	const void *key;
	const uint8_t *states; /* as segue_states_gather() gives them */
};

/* Bytes that a row takes whose states have `row_size`. */
uint64_t segue_kept_row_size(uint32_t key_size, uint64_t row_size);
/* Writes all but row->states to `to`, and returns the place where these go. */
uint8_t *segue_kept_row_pack(const struct segue_kept_row *row, uint8_t *to);
/*
 * Reads the first row of `bytes`, of which there are `left`; *row points into them. Returns how
 * many it takes, or 0 if it is cut short or its key is longer than SEGUE_KEY_MAX.
 */
uint64_t segue_kept_row_unpack(
	const uint8_t *bytes, size_t left, uint64_t row_size, struct segue_kept_row *row);

#endif
