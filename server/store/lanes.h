/*
 * What lies in the store's tables, and in tokens: lanes, states, finals, checkpoints, as lists of
 * store operations.
 *
 *	STREAMS name (XXH3-128 of one above 63 bytes, with a NUL)  -> StreamRecord
 *	LANES   stream u32, group u32, lane u32                  -> LaneRecord (segue.proto)
 *	STATES  stream u32, group u32, lane u32, number u64      -> row: u32 key size, key, states
 *	FINALS  stream u32, group u32, lane u32, XXH3-128 of the key, number u64
 *		-> row: u32 key size, key, states
 *	UNDO    stream u32, group u32, lane u32, step u64, number u64 -> XXH3-128 of the key
 *	CHECKPOINTS stream u32, group u32, lane u32          -> CatalogueRecord (segue.proto)
 *	CHECKPOINTS stream u32, group u32, lane u32, id u64      -> token
 *
 * Keys are big-endian, so that rows of a lane lie side by side and are written in key order. The
 * states of a row are those of all its named states, side by side: one value a key.
 *
 * Final states are versions: a record that ends again, in another epoch, adds one. The one that
 * counts is that of the highest sequence number over all lanes: numbers are the order of entry into
 * the stream, whichever lane commits first. An undo entry says at which step of its lane a version
 * came; going back takes away what came since. Once no stored checkpoint of the lane lies at or
 * before that step, the version is there to stay: the entry goes, and with it all older versions.
 */
#ifndef SEGUE_STORE_LANES_H
#define SEGUE_STORE_LANES_H

#include "core/wire.h"
#include "lane/carry.h"
#include "lane/image.h"
#include "store/store.h"

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
/*
 * The ended rows of `kept` with from <= step < below, each with its undo entry. On an error nothing
 * was added.
 */
int segue_records_finals(struct segue_ops *ops, struct segue_place place, uint64_t row_size,
	const struct segue_kept *kept, uint64_t from, uint64_t below);
/* The removal of all live rows of a lane. */
int segue_records_clear(struct segue_ops *ops, struct segue_place place);
/*
 * The lane as if it had never been: live rows, its versions of final states, checkpoints. Ids of
 * checkpoints go on. Reads the store. On an error nothing was added.
 */
int segue_records_fresh(struct segue_ops *ops, struct segue_store *store, struct segue_place place);
/*
 * The lane goes back to `step`: its final states that came with this step or later go, as far back
 * as its oldest stored checkpoint; those before that stay for good. So do checkpoints of later
 * steps: theirs is a future that did not come about. Reads the store. On an error nothing was added.
 */
int segue_records_rewind(
	struct segue_ops *ops, struct segue_store *store, struct segue_place place, uint64_t step);
/*
 * Final states that came before step `below` are there to stay: their undo entries go, and the
 * versions of the same records that are older, in all `lanes`. The oldest `limit` of them at most.
 * Reads the store. On an error nothing was added.
 */
int segue_records_settle(struct segue_ops *ops, struct segue_store *store, struct segue_place place,
	uint32_t lanes, uint64_t below, size_t limit);
/* The lane's record alone: its position and states stay as they are. */
int segue_records_lane(
	struct segue_ops *ops, struct segue_place place, const struct segue_lane_record *record);

/* The key of a stream's record: the name, or a hash of one that is too long (in `hash`). */
const void *segue_stream_key(const char *name, uint8_t hash[SEGUE_STORE_KEY_MAX], size_t *size);

/* The id of a stream. SEGUE_ENOTFOUND: the store has none of that name. */
int segue_records_find_stream(struct segue_store *store, const char *name, uint32_t *id);

/* A lane's record. SEGUE_ENOTFOUND; the caller frees record->position. */
int segue_records_load_lane(
	struct segue_store *store, struct segue_place place, struct segue_lane_record *record);
/* An image of a stored position, its states zeroed. SEGUE_ESTORE: more rows than a batch has. */
int segue_records_outline(const struct segue_plan_spec *plan, const struct segue_position *position,
	uint64_t row_size, struct segue_image **out);
/*
 * The image of a lane at the position of its record. SEGUE_ESTORE if that has more rows than a batch,
 * or a row that should be there is not, or is of another size.
 */
int segue_records_load_image(struct segue_store *store, struct segue_place place,
	const struct segue_plan_spec *plan, const struct segue_position *position,
	uint64_t row_size, struct segue_image **out);

/*
 * The final states under the record key `name`: the version of the highest sequence number in the
 * stream's `lanes`. Writes place->lane and *number. SEGUE_ENOTFOUND.
 */
int segue_records_load_final(struct segue_store *store, struct segue_place *place, uint32_t lanes,
	const char *name, size_t name_size, uint64_t *number, void **value, size_t *size);

/* Takes a stored row apart: pointers into `value`. SEGUE_ESTORE. */
int segue_records_row(const void *value, size_t size, uint64_t row_size, const char **key,
	uint32_t *key_size, const uint8_t **states);

/* ---- Stored checkpoints ---- */

/* What is stored of a lane; of one that has nothing an empty catalogue, whose next id is 1. */
int segue_records_load_catalogue(
	struct segue_store *store, struct segue_place place, struct segue_catalogue *out);
/* The step of the oldest: what came before is there to stay. SEGUE_NEVER: none is stored. */
uint64_t segue_catalogue_floor(const struct segue_catalogue *catalogue);
/*
 * Stores the token of `step`, as the newest. Of more than `keep` the oldest go; another of the same
 * step is replaced, and if its bytes are the same, nothing is to be done. Copies the token. Reads
 * the store. On an error nothing was added.
 */
int segue_records_add_checkpoint(struct segue_ops *ops, struct segue_store *store,
	struct segue_place place, uint64_t step, int64_t created_ms, const void *token, size_t size,
	uint32_t keep);
/* Removes one, or with id 0 all. SEGUE_ENOTFOUND. On an error nothing was added. */
int segue_records_remove_checkpoint(
	struct segue_ops *ops, struct segue_store *store, struct segue_place place, uint64_t id);
/* The token of one, malloc'd. SEGUE_ENOTFOUND. */
int segue_records_load_checkpoint(struct segue_store *store, struct segue_place place, uint64_t id,
	void **token, size_t *size);

/*
 * A token: magic "SEGT", format u32, head size u64, TokenRecord, states (rows * row_size), XXH3-128
 * of all before it. `head`->position is not looked at: the image's is taken. The caller frees *out.
 */
int segue_token_encode(const struct segue_token_record *head, const struct segue_image *image,
	void **out, size_t *size);
/* No token of a lane of such a stream is larger; it may be a few thousand bytes too much. */
uint64_t segue_token_max(const struct segue_spec *spec);
/* SEGUE_ETOKEN: not a token, of a later format, damaged. The caller frees head->position and the
 * image. */
int segue_token_decode(
	const void *bytes, size_t size, struct segue_token_record *head, struct segue_image **out);

#endif
