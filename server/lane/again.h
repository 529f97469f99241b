/*
 * A key that comes again (initial = kept): its row begins with what the sequence left that ended
 * last, and that must be committed.
 *
 * What a row begins with follows from the plan alone: of the sequences of its record key that ended
 * in an earlier batch of the lane, that of the highest number. So a batch waits until all of those
 * are committed (segue_feed_awaits); then what they left is in memory (struct segue_kept, found by
 * its key here), or on disk, and nothing else is. Pure.
 */
#ifndef SEGUE_LANE_AGAIN_H
#define SEGUE_LANE_AGAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The states and key of a row whose sequence ended, kept until they are on disk. */
struct segue_kept {
	struct segue_kept *next; /* newer */
	struct segue_kept *same; /* in its bucket (below) */
	uint64_t hash;           /* of the key, where it is in one */
	uint64_t step;           /* of its last segment: it belongs to positions above this step */
	uint64_t number;
	uint32_t key_size;
	char *key;       /* in `bytes` */
	uint8_t *states; /* in `bytes`: row_size of them */
	uint8_t bytes[];
};

/* The kept rows of a carry by their keys. Zeroed: none. */
struct segue_again {
	struct segue_kept **bucket; /* owned; the rows are not */
	size_t buckets, count;
};
void segue_again_finish(struct segue_again *again);
/* Room for so many more. SEGUE_ENOMEM. */
int segue_again_reserve(struct segue_again *again, size_t more);
/* There is room. */
void segue_again_add(struct segue_again *again, struct segue_kept *kept);
/* One that was added. */
void segue_again_remove(struct segue_again *again, const struct segue_kept *kept);

/* Of a row that begins. */
struct segue_again_key {
	const char *bytes;
	size_t size;
	uint64_t hash; /* segue_again_hash */
};
uint64_t segue_again_hash(const char *key, size_t size);
/* Whether a key is one of `count`. */
bool segue_again_is_one_of(
	const char *bytes, size_t size, const struct segue_again_key *keys, size_t count);
/* The row of that key with the highest number; NULL: none. */
const struct segue_kept *segue_again_find(
	const struct segue_again *again, const struct segue_again_key *key);
#endif
