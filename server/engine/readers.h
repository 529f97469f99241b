/*
 * Who reads a log: how far each lane of each group is. Nothing here is locked: that is the user's.
 *
 * A lane in force is where its worker has committed, another where it was last seen, or stored. The
 * group without a name counts when one of its lanes was begun, or while there is no other: nobody
 * waits for it where all have given theirs a name.
 */
#ifndef SEGUE_ENGINE_READERS_H
#define SEGUE_ENGINE_READERS_H

#include "core/list.h"
#include "core/spec.h"
#include "lane/carry.h"
#include "store/store.h"

struct segue_filler;

/* A lane of a group. */
struct segue_lane_reader {
	struct segue_filler *filler; /* in force, and maybe other groups', too; or NULL: */
	struct segue_carry *carry;
	uint64_t next,
		rows;   /* it stands where it was last seen: its next sequence, rows that live */
	uint64_t floor; /* the first number that it needs */
};

struct segue_readers_group {
	LIST_ENTRY(segue_readers_group) link;
	uint32_t number;
	bool begun;
	struct segue_lane_reader lane[];
};

struct segue_readers {
	const struct segue_spec *spec; /* of the stream */
	LIST_HEAD(, segue_readers_group) groups;
	size_t count;
};

/* All groups that the store has of the stream, at their stored positions; SEGUE_ENOMEM. */
int segue_readers_load(struct segue_readers *readers, struct segue_store *store, uint32_t stream,
	const struct segue_spec *spec);
void segue_readers_finish(struct segue_readers *readers);
/* One that was made; one that is there already is fine. SEGUE_ENOMEM. */
int segue_readers_add(struct segue_readers *readers, uint32_t group);
/* One that is dropped: none of its lanes is in force. One that is not there is fine. */
void segue_readers_remove(struct segue_readers *readers, uint32_t group);

/* The group; NULL: there is none. */
struct segue_readers_group *segue_readers_find(const struct segue_readers *readers, uint32_t group);
bool segue_readers_count(
	const struct segue_readers *readers, const struct segue_readers_group *group);
/* What was committed meanwhile, if it is in force. */
void segue_lane_reader_look(struct segue_lane_reader *reader);
/* Those of all groups in force are kicked. */
void segue_readers_kick(const struct segue_readers *readers, uint32_t lane);
/* All in force are told that the input has ended after so many records. */
void segue_readers_end(const struct segue_readers *readers, uint64_t records);
/* That carry is in force no longer. */
void segue_readers_leave(struct segue_readers *readers, const struct segue_carry *carry);
/*
 * The first number that a checkpoint of the lane needs which can be asked for, or is on its way
 * from step `pinned` on; UINT64_MAX: none can, it is not in force.
 */
uint64_t segue_lane_reader_needs(const struct segue_lane_reader *reader, uint64_t pinned);

#endif
