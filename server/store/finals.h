/*
 * Final states: what a sequence left behind after its last segment, or somebody has put there.
 *
 * They are versions: a record that ends again, in another epoch, adds one. The one that counts is
 * that of the highest sequence number over all lanes: numbers are the order of entry into the
 * stream, whichever lane commits first. An undo entry says at which step of its lane a version
 * came; going back takes away what came since. Once no stored checkpoint of the lane lies at or
 * before that step, the version is there to stay: the entry goes, and with it all older versions.
 *
 * What is put is a version, too, and a deletion is one without states. It stands directly below the
 * sequence whose number it has (so above all with lower numbers, and one that is put later above
 * it), and belongs to the positions of its lane from `step` on. A deletion stays until a newer
 * version does: an older sequence that ends later does not bring the key back. One that stands
 * directly below a version that is there to stay may be left until the next.
 */
#ifndef SEGUE_STORE_FINALS_H
#define SEGUE_STORE_FINALS_H

#include "lane/carry.h"
#include "store/key.h"
#include "store/ops.h"
#include "store/row.h"

/*
 * Adds the ended rows of `kept` with from <= step < below, each with its undo entry. On an error
 * nothing was added.
 */
int segue_finals_put(struct segue_ops *ops, struct segue_place place, uint64_t row_size,
	const struct segue_kept *kept, uint64_t from, uint64_t below);
/*
 * Versions that came before step `below` are there to stay: their undo entries go, and the versions
 * of the same records that are older, in all `lanes`; 0: in that lane alone, whose rows begin with
 * its own. The oldest `limit` of them at most. Reads the store. On an error nothing was added.
 */
int segue_finals_settle(struct segue_ops *ops, struct segue_store *store, struct segue_place place,
	uint32_t lanes, uint64_t below, size_t limit);
/*
 * Versions that came with `step` or later go; those that came before `floor`, the step of the
 * oldest checkpoint, stay for good. Reads the store. On an error nothing was added.
 */
int segue_finals_undo(struct segue_ops *ops, struct segue_store *store, struct segue_place place,
	uint64_t step, uint64_t floor);

/* ---- One key ---- */

enum segue_final_kind {
	SEGUE_FINAL_NONE, /* nothing was ever there */
	SEGUE_FINAL_ENDED,
	SEGUE_FINAL_PUT,
	SEGUE_FINAL_DELETED,
};

struct segue_final {
	enum segue_final_kind kind;
	uint32_t lane;
	uint64_t number;      /* of the sequence; of what was put: below which it stands */
	uint64_t step;        /* of its lane, from which on it is there; SEGUE_NEVER: not known */
	struct segue_row row; /* DELETED: without states */
	void *value;          /* owned: what `row` points into */
};

/* What a lane has of a key. */
struct segue_final_lane {
	bool comes;     /* a sequence of it has ended there, goes on, or was known at a put */
	uint64_t above; /* the lowest number above all that is there */
};

static inline void segue_final_lane_note(struct segue_final_lane *lane, uint64_t above, bool comes)
{
	lane->comes = lane->comes || comes;
	lane->above = above > lane->above ? above : lane->above;
}

/*
 * The newest version under the record key `name` in the lanes from place.lane on, below `end`, rows
 * having `row_size` bytes of states; a deletion, too, or NONE. Notes in `known`, if not NULL, what
 * each lane has. The caller frees out->value.
 */
int segue_finals_newest(struct segue_store *store, struct segue_place place, uint32_t end,
	uint64_t row_size, const char *name, size_t name_size, struct segue_final_lane *known,
	struct segue_final *out);
/*
 * The same, if it is in the lane `place`; else NONE. It looks through the others, of `lanes`, until
 * one has a newer version: what was put in every lane is told of in about lanes * log(lanes) looks.
 */
int segue_finals_newest_here(struct segue_store *store, struct segue_place place, uint32_t lanes,
	uint64_t row_size, const char *name, size_t name_size, struct segue_final *out);
/* The same in all `lanes`; where nothing is there, or it was deleted: SEGUE_ENOTFOUND. */
int segue_finals_load(struct segue_store *store, struct segue_place place, uint32_t end,
	uint64_t row_size, const char *name, size_t name_size, struct segue_final *out);
/*
 * Adds a version that is put at the committed step `step` of the lane, directly below `number`,
 * with its undo entry; row->states NULL: a deletion. Another that was put at the same step and
 * number is replaced. At step 0, to which every way back leads, it is there to stay: older versions
 * go, as in segue_finals_settle. On an error nothing was added.
 */
int segue_finals_set(struct segue_ops *ops, struct segue_place place, uint32_t lanes,
	uint64_t row_size, const struct segue_row *row, uint64_t number, uint64_t step);
/*
 * Visits the record keys of the versions of a lane from the key hash `from` on, in the order of
 * hashes, each once (as one of its versions has it, not always the newest). A result that is not 0
 * ends the walk and is returned. The visitor must not call the store.
 */
int segue_finals_keys(struct segue_store *store, struct segue_place place,
	const uint8_t from[SEGUE_KEY_HASH],
	int (*visit)(void *arg, const uint8_t hash[SEGUE_KEY_HASH], const char *key, uint32_t size),
	void *arg);

#endif
