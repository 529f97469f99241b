/* What a permission that is missing means: whose it is, and which. */
#ifndef SEGUE_CORE_ACCESS_H
#define SEGUE_CORE_ACCESS_H

/*
 * After EACCES at `path`, which was to be opened for writing, connected to or made: fails with
 * `code`, and says which part of the path belongs to whom, and what this process may not do there.
 */
int segue_fail_access(int code, const char *path);

#endif
