/*
 * Final states: what a sequence left behind after its last segment.
 *
 * They are versions: a record that ends again, in another epoch, adds one. The one that counts is
 * that of the highest sequence number over all lanes: numbers are the order of entry into the
 * stream, whichever lane commits first. An undo entry says at which step of its lane a version
 * came; going back takes away what came since. Once no stored checkpoint of the lane lies at or
 * before that step, the version is there to stay: the entry goes, and with it all older versions.
 */
#ifndef SEGUE_STORE_FINALS_H
#define SEGUE_STORE_FINALS_H

#include "lane/carry.h"
#include "store/key.h"
#include "store/ops.h"

/*
 * Adds the ended rows of `kept` with from <= step < below, each with its undo entry. On an error
 * nothing was added.
 */
int segue_finals_put(struct segue_ops *ops, struct segue_place place, uint64_t row_size,
	const struct segue_kept *kept, uint64_t from, uint64_t below);
/*
 * Versions that came before step `below` are there to stay: their undo entries go, and the versions
 * of the same records that are older, in all `lanes`. The oldest `limit` of them at most. Reads the
 * store. On an error nothing was added.
 */
int segue_finals_settle(struct segue_ops *ops, struct segue_store *store, struct segue_place place,
	uint32_t lanes, uint64_t below, size_t limit);
/*
 * Versions that came with `step` or later go; those that came before `floor`, the step of the
 * oldest checkpoint, stay for good. Reads the store. On an error nothing was added.
 */
int segue_finals_undo(struct segue_ops *ops, struct segue_store *store, struct segue_place place,
	uint64_t step, uint64_t floor);

/*
 * The final states under the record key `name`: the version of the highest sequence number in the
 * stream's `lanes`, a row. Writes place->lane and *number. SEGUE_ENOTFOUND.
 */
int segue_finals_load(struct segue_store *store, struct segue_place *place, uint32_t lanes,
	const char *name, size_t name_size, uint64_t *number, void **value, size_t *size);

#endif
