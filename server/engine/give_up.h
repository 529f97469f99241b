/*
 * What of a log is given up: whole files that all lanes of all groups have finished by what the
 * store has of them, that no checkpoint needs, and that are older than what is to be retained.
 *
 *	looked for --> put into a transaction (looked for once more) --> on disk --> files removed
 *
 * Nothing is, as long as another process holds the log's directory (a shared flock()): who copies
 * it has read where it begins.
 *
 * That transaction has nothing else of the stream's lanes but newer commits: what is found while it
 * is built still holds when it is on disk. Whoever comes later sees `first`.
 */
#ifndef SEGUE_ENGINE_GIVE_UP_H
#define SEGUE_ENGINE_GIVE_UP_H

#include "core/spec.h"
#include "engine/changes.h"
#include "source/log/log.h"
#include "source/mix/arrange.h"

struct segue_give_up {
	struct segue_log *log;
	struct segue_log_retain retain; /* both 0: all is kept */
	struct segue_store *store;
	struct segue_changes *changes; /* of the store */
	const struct segue_spec *spec;
	const struct segue_mix_log
		*numbers; /* of the stream: lanes need those, the log has its own */
	uint32_t stream;
	/*
	 * The first number that a checkpoint of the lane needs which is on its way, or which can
	 * still be asked for though the lane has gone on; UINT64_MAX: there is none.
	 */
	uint64_t (*needs_unstored)(void *arg, struct segue_place place);
	/* Adds what is known of the log, with `first`. */
	int (*put)(void *arg, struct segue_ops *ops);
	void *arg;
	/* All below is given up, as the store has it, or will have by its next transaction. */
	_Atomic uint64_t first;
	/* More would be, if nothing that the store has needed it: look when that changes. */
	_Atomic bool held_back;
	/* One look at a time. */
	uint64_t holder; /* which lane of which group needed it, found last */
	uint64_t tried;  /* so far files were removed, or could not be */
};

/*
 * Gives up what can be: cheap if there is none. Waits for the store. What cannot be stored is tried
 * again by the next call; what cannot be removed, when there is more. On the thread that writes to
 * the log.
 */
void segue_give_up(struct segue_give_up *give_up);

#endif
