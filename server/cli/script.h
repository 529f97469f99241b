/* What a process runs, for people: of an interpreter the script, not the interpreter. */
#ifndef SEGUE_CLI_SCRIPT_H
#define SEGUE_CLI_SCRIPT_H

#include <stddef.h>

#include "cli/look.h"

/*
 * From a command line as /proc has it, `size` bytes, each argument ended by NUL: malloc'd, not made
 * printable. NULL: it is not one of `program`, or there is nothing better to say than that. Pure.
 */
char *segue_script_of(const char *command_line, size_t size, const char *program);
/* Sets the scripts of all holders, as far as /proc tells. */
void segue_script_find(struct segue_look *look);

#endif
