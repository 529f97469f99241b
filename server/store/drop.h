/*
 * Dropping a stream: all that the store holds of it goes, in transactions of bounded size.
 *
 * The first takes its record, with the index of its data set, and notes its id: from then on the
 * name is free, and nothing of the stream is seen any more. Those that follow take what lies under
 * the id, and the last one takes the note. Whoever opens the store to serve it goes on where notes
 * are left. Ids are not used again: what lies under one can never be read as another stream's.
 *
 * A group of a stream goes likewise: the first transaction takes its name.
 */
#ifndef SEGUE_STORE_DROP_H
#define SEGUE_STORE_DROP_H

#include "core/wire.h"
#include "store/key.h"
#include "store/ops.h"

/* A stream that is being dropped, or (`group` is not 0) a group of it. */
struct segue_drop {
	uint32_t id, group, lanes;
};

/*
 * The operations of the first transaction; the rest is segue_drop_rest(). The index of its data set
 * goes if no other stream has it. `asking`: looks whether another process than this has a lane, or
 * may come back to one, as far as the store tells; NULL: the caller knows. Reads the store.
 * SEGUE_ENOTFOUND: there is no such stream; SEGUE_EBUSY names lane and process. On an error nothing
 * was added.
 */
int segue_drop_begin(struct segue_ops *ops, struct segue_store *store, const char *name,
	const struct segue_holder *asking, struct segue_drop *out);
/* The same of a group. SEGUE_EINVAL: it has no name; SEGUE_ENOTFOUND: also, it is not there. */
int segue_drop_begin_group(struct segue_ops *ops, struct segue_store *store, const char *name,
	const char *group, const struct segue_holder *asking, struct segue_drop *out);
/* What is dropped, in words: a stream, or a group of it. Written to `text`, which is returned. */
enum { SEGUE_DROP_TEXT = 2 * SEGUE_NAME_MAX + 64 };
const char *segue_drop_what(const char *stream, const char *group, char text[SEGUE_DROP_TEXT]);
/* SEGUE_EINVAL: the group without a name is every stream's. */
int segue_drop_fail_unnamed(void);
/* Why that stays of which a process has a lane, or (`reserved`) may come back to it. */
int segue_drop_fail_held(const char *what, uint32_t lane, bool reserved, int64_t pid);

/* How the rest is done. */
struct segue_dropping {
	int (*apply)(void *arg, const struct segue_ops *ops); /* has a transaction written */
	/* Removes what the stream has outside of the store, before the last; or NULL. */
	void (*forget)(void *arg, uint32_t id);
	segue_progress_fn *progress;   /* in lanes, about; or NULL */
	segue_interrupt_fn *interrupt; /* before each transaction: whether to stop; or NULL */
	void *arg;                     /* of all */
};

/* Until nothing is left. Reads the store. SEGUE_EGONE: interrupted; a note tells the next start. */
int segue_drop_rest(
	struct segue_store *store, const struct segue_drop *drop, const struct segue_dropping *how);
/* Goes on with all whose notes are left, in the order of their ids. */
int segue_drop_resume(struct segue_store *store, const struct segue_dropping *how);

/* Ids below this one may have been used, whatever streams there are. */
int segue_drop_load_floor(struct segue_store *store, uint32_t *floor);

#endif
