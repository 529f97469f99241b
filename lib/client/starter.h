/*
 * Starting the server of a store directory: one starter at a time, and what the server said when it
 * did not come up.
 *
 * The program makes itself a daemon: the process that is started here ends as soon as the server
 * answers (status 0), or refuses (status: a positive code of segue_error, message on stderr).
 */
#ifndef SEGUE_CLIENT_STARTER_H
#define SEGUE_CLIENT_STARTER_H

#include "client/connection.h"

/*
 * Creates `dir` (0700) and its parents if need be, and takes <dir>/start.lock, which `lock` then
 * holds. While the holder's server tells progress the deadline moves on. SEGUE_EGONE (not in time),
 * SEGUE_EINTERRUPTED, SEGUE_EREADONLY, SEGUE_ENOSPACE, SEGUE_ESYSTEM.
 */
int segue_starter_lock(const char *dir, int64_t *deadline_ns, const struct segue_hooks *hooks,
	struct segue_fork_guard *lock);

/*
 * Runs `<program> serve <dir> --embedded [--socket <socket_path>]` and waits for its verdict. 0: a
 * server is ready. SEGUE_EBUSY: try again, for another one has the directory, or it was killed.
 * Else what it said, with its code; SEGUE_EGONE if it could not be run. `program` NULL:
 * $SEGUE_PROGRAM, the installed one, or "segue" on PATH; `socket_path` NULL: the default. A server
 * that is not ready at the deadline, or when the caller is interrupted, is killed; while it tells
 * progress (it verifies the store) the deadline moves on, and those who wait for the lock,
 * `lock_fd`, are told.
 */
int segue_starter_run(const char *program, const char *dir, const char *socket_path, int lock_fd,
	int64_t *deadline_ns, const struct segue_hooks *hooks);

#endif
