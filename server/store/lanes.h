/* What the store holds of a lane: its record, the states of its live rows, what goes with it. */
#ifndef SEGUE_STORE_LANES_H
#define SEGUE_STORE_LANES_H

#include "core/wire.h"
#include "lane/image.h"
#include "store/key.h"
#include "store/ops.h"
#include "store/row.h"

/* The lane's record alone: its position and states stay as they are. */
int segue_lanes_put(
	struct segue_ops *ops, struct segue_place place, const struct segue_lane_record *record);
/*
 * The operations that bring the store from `account` to `image`: the lane's record (with
 * image->position in place of record->position), its live rows, the removal of rows that are gone.
 * On an error nothing was added.
 */
int segue_lanes_put_image(struct segue_ops *ops, struct segue_place place,
	const struct segue_lane_record *record, const struct segue_image *image,
	struct segue_account *account);
/* The removal of all live rows of a lane. */
int segue_lanes_clear(struct segue_ops *ops, struct segue_place place);
/*
 * The lane as if it had never been: live rows, its versions of final states, checkpoints. Ids of
 * checkpoints go on. Reads the store. On an error nothing was added.
 */
int segue_lanes_fresh(struct segue_ops *ops, struct segue_store *store, struct segue_place place);
/*
 * The lane goes back to `step`: its final states that came with this step or later go, as far back
 * as its oldest stored checkpoint; those before that stay for good. So do checkpoints of later
 * steps: theirs is a future that did not come about. Reads the store. On an error nothing was
 * added.
 */
int segue_lanes_rewind(
	struct segue_ops *ops, struct segue_store *store, struct segue_place place, uint64_t step);

/* The committed step of a lane, as it is on disk: 0 of one that was never begun. */
int segue_lanes_load_step(struct segue_store *store, struct segue_place place, uint64_t *step);
/* A lane's record. SEGUE_ENOTFOUND; the caller frees record->position. */
int segue_lanes_load(
	struct segue_store *store, struct segue_place place, struct segue_lane_record *record);
/*
 * Whether somebody may have the lane, as its record has it. A holder that cannot be looked up has
 * had it until its last commit at least, and for some seconds more.
 */
bool segue_lanes_may_be_held(const struct segue_lane_record *record);
/* A live row: *row points into *value, which the caller frees. SEGUE_ENOTFOUND, SEGUE_ESTORE. */
int segue_lanes_load_row(struct segue_store *store, struct segue_place place, uint64_t number,
	uint64_t row_size, void **value, struct segue_row *row);
/* An image of a stored position, its states zeroed. SEGUE_ESTORE: more rows than a batch has. */
int segue_lanes_outline(const struct segue_plan_spec *plan, const struct segue_position *position,
	uint64_t row_size, struct segue_image **out);
/*
 * The image of a lane at the position of its record. SEGUE_ESTORE if that has more rows than a
 * batch, or a row that should be there is not, or is of another size.
 */
int segue_lanes_load_image(struct segue_store *store, struct segue_place place,
	const struct segue_plan_spec *plan, const struct segue_position *position,
	uint64_t row_size, struct segue_image **out);

/* The record of a stream, under the name that its spec has. */
int segue_lanes_put_stream(struct segue_ops *ops, const struct segue_stream_record *record);
/* The record of a stream, its spec to be destroyed. SEGUE_ENOTFOUND: as the next. */
int segue_lanes_load_stream(
	struct segue_store *store, const char *name, struct segue_stream_record *record);
/* The id of a stream. SEGUE_ENOTFOUND: the store has none of that name. */
int segue_lanes_find_stream(struct segue_store *store, const char *name, uint32_t *id);

#endif
