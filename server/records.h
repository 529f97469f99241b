/*
 * What lies in the store's tables, and in tokens: lanes, states, finals, as lists of store
 * operations.
 *
 *	STREAMS name (XXH3-128 of one above 63 bytes, with a NUL)  -> StreamRecord
 *	LANES   stream u32, group u32, lane u32                  -> LaneRecord (segue.proto)
 *	STATES  stream u32, group u32, lane u32, number u64      -> row: u32 key size, key, states
 *	FINALS  stream u32, group u32, XXH3-128 of the key       -> row: u32 key size, key, states
 *
 * Keys are big-endian, so that rows of a lane lie side by side and are written in key order. The
 * states of a row are those of all its named states, side by side: one value a key.
 */
#ifndef SEGUE_SERVER_RECORDS_H
#define SEGUE_SERVER_RECORDS_H

#include "carry.h"
#include "committer.h"
#include "store.h"
#include "wire.h"

/* Which lane of which group of which stream. */
struct segue_place {
	uint32_t stream, group, lane;
};

/* Operations that own their keys and values. */
struct segue_ops {
	struct segue_store_op *op;
	size_t count, capacity;
};
void segue_ops_finish(struct segue_ops *ops);
/* Adds one; copies the key, takes `value` over (malloc'd; NULL: remove). SEGUE_ENOMEM frees it. */
int segue_ops_add(struct segue_ops *ops, enum segue_table table, const void *key, size_t key_size,
	void *value, size_t value_size);
/* Forgets those from `count` on. */
void segue_ops_truncate(struct segue_ops *ops, size_t count);

/*
 * The operations that bring the store from `account` to `image`: the lane's record (with
 * image->position in place of record->position), its live rows, the removal of rows that are gone.
 * On an error nothing was added.
 */
int segue_records_image(struct segue_ops *ops, struct segue_place place,
	const struct segue_plan_spec *plan, const struct segue_lane_record *record,
	const struct segue_image *image, const struct segue_account *account);
/* The ended rows of `kept` with from <= step < below. On an error nothing was added. */
int segue_records_finals(struct segue_ops *ops, struct segue_place place, uint64_t row_size,
	const struct segue_kept *kept, uint64_t from, uint64_t below);
/* The removal of all live rows of a lane. */
int segue_records_clear(struct segue_ops *ops, struct segue_place place);
/* The lane's record alone: its position and states stay as they are. */
int segue_records_lane(
	struct segue_ops *ops, struct segue_place place, const struct segue_lane_record *record);

/* The key of a stream's record: the name, or a hash of one that is too long (in `hash`). */
const void *segue_stream_key(const char *name, uint8_t hash[SEGUE_STORE_KEY_MAX], size_t *size);

/* A lane's record. SEGUE_ENOTFOUND; the caller frees record->position. */
int segue_records_load_lane(
	struct segue_store *store, struct segue_place place, struct segue_lane_record *record);
/*
 * The image of a lane at the position of its record. SEGUE_ESTORE if a row that should be there is
 * not, or is of another size.
 */
int segue_records_load_image(struct segue_store *store, struct segue_place place,
	const struct segue_plan_spec *plan, const struct segue_position *position,
	uint64_t row_size, struct segue_image **out);

/* The final states under the record key `name` (place.lane is not looked at). SEGUE_ENOTFOUND. */
int segue_records_load_final(struct segue_store *store, struct segue_place place, const char *name,
	size_t name_size, void **value, size_t *size);

/* Takes a stored row apart: pointers into `value`. SEGUE_ESTORE. */
int segue_records_row(const void *value, size_t size, uint64_t row_size, const char **key,
	uint32_t *key_size, const uint8_t **states);

/*
 * A token: magic "SEGT", format u32, head size u64, TokenRecord, states (rows * row_size), XXH3-128
 * of all before it. `head`->position is not looked at: the image's is taken. The caller frees *out.
 */
int segue_token_encode(const struct segue_token_record *head, const struct segue_image *image,
	void **out, size_t *size);
/* SEGUE_ETOKEN: not a token, of a later format, damaged. The caller frees head->position and the
 * image. */
int segue_token_decode(
	const void *bytes, size_t size, struct segue_token_record *head, struct segue_image **out);

#endif
