/* The groups of a stream that have a name: which number each has in the keys of the store. */
#ifndef SEGUE_STORE_GROUPS_H
#define SEGUE_STORE_GROUPS_H

#include "core/spec.h"
#include "store/ops.h"

/* Number 0 is that without a name, which every stream has. Others: from 1 on, never again. */
enum { SEGUE_GROUPS_MAX = 64 }; /* of a stream */

struct segue_group {
	uint32_t number;
	char name[SEGUE_NAME_MAX + 1];
};

/* What a stream has, by rising number; `made`: the number of the last that was ever made. */
struct segue_groups {
	struct segue_group *group; /* owned */
	size_t count;
	uint32_t made;
};

/* SEGUE_ESTORE: one is damaged. */
int segue_groups_load(struct segue_store *store, uint32_t stream, struct segue_groups *out);
void segue_groups_finish(struct segue_groups *groups);
/* The group of that name, "" too; NULL: there is none. */
const struct segue_group *segue_groups_find(const struct segue_groups *groups, const char *name);
/* Whether there is one of that number. Of one that is being dropped there may still be values. */
bool segue_groups_have(const struct segue_groups *groups, uint32_t number);
/* What a group of that number is called; "" of 0, and of one that is not there. */
const char *segue_groups_name(const struct segue_groups *groups, uint32_t number);
/*
 * The number of the group `name` of the stream with that id, called `stream`; NULL or "": 0.
 * SEGUE_ENOTFOUND names them.
 */
int segue_groups_number(struct segue_store *store, uint32_t id, const char *stream,
	const char *name, uint32_t *out);
/* Adds one that has no number yet, and writes it; SEGUE_ENOMEM: nothing was added. */
int segue_groups_put(struct segue_ops *ops, uint32_t stream, struct segue_groups *groups,
	struct segue_group *group);
/* Its number is not used again. SEGUE_ENOMEM. */
int segue_groups_remove_one(struct segue_ops *ops, uint32_t stream, uint32_t number);
/* Of all groups of a stream. SEGUE_ENOMEM. */
int segue_groups_remove(struct segue_ops *ops, uint32_t stream);

#endif
