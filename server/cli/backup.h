/* Copying a store, as the work of a child. */
#ifndef SEGUE_CLI_BACKUP_H
#define SEGUE_CLI_BACKUP_H

#include "report/child.h"

/*
 * The work "copy": the store directory to copy, or a file of --portable; the new one; the name that
 * this is to get (for messages); and perhaps "restore": the copy begins a life of its own; or
 * "portable": it is a file.
 */
segue_child_fn segue_cli_copy;

#endif
