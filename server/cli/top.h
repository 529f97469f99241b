/* Taking looks at the server of a directory. */
#ifndef SEGUE_CLI_TOP_H
#define SEGUE_CLI_TOP_H

#include "cli/cli.h"
#include "cli/look.h"
#include "segue/segue.h"

/*
 * Asks the server, within a few seconds; if none answers, the look says why, and what the store
 * says: *inspect (malloc'd) is what was read of that, and NULL while it is to be read anew.
 * SEGUE_ENOTFOUND, SEGUE_ESYSTEM: there is no such directory. `interrupt` may be NULL; if it ends
 * the wait: SEGUE_EINTERRUPTED. The caller finishes *look, unless it is an error.
 */
int segue_top_look(const struct segue_cli_options *options, segue_interrupt_fn *interrupt,
	char **inspect, struct segue_look *look);

#endif
