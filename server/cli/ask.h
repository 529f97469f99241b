/* Reaching what a directory has: its server if one runs, else its store. */
#ifndef SEGUE_CLI_ASK_H
#define SEGUE_CLI_ASK_H

#include "cli/cli.h"
#include "segue/segue.h"
#include "store/store.h"

/* `path` made absolute, with symbolic links resolved if it exists; malloc'd. NULL: no memory. */
char *segue_cli_absolute(const char *path);

/*
 * What was made or renamed in a directory is on disk when this returns: in this one or, with
 * `above`, in the one that it is in.
 */
int segue_cli_sync(const char *directory, bool above);

/*
 * Whether a process holds the store directory: 1 and *pid (0 if it is not known), or 0; negative if
 * that cannot be seen.
 */
int segue_cli_lock_holder(const char *dir, long *pid);

struct segue_cli_access {
	struct segue_client *client; /* or */
	struct segue_store *store;
};

/*
 * The running server, or, if none runs, the store. A store that is to be written to is not opened
 * where it must be verified first: SEGUE_EREADONLY. SEGUE_EBUSY: a server runs, but not where it
 * was looked for. Else what client and store say.
 */
int segue_cli_open(const struct segue_cli_options *options, enum segue_store_mode mode,
	struct segue_cli_access *access);
void segue_cli_close(struct segue_cli_access *access);

/*
 * A report: STATUS from the running server (SEGUE_EGONE: none runs), INSPECT and GET from what
 * segue_cli_open() finds. The caller frees *json.
 */
int segue_cli_report(const struct segue_cli_options *options, enum segue_report what, char **json);

#endif
