/* Who holds a store directory, where nobody answers at its socket. */
#ifndef SEGUE_CLIENT_HOLDER_H
#define SEGUE_CLIENT_HOLDER_H

#include <stdbool.h>

/* The pid that a server has written into `dir`, or 0. It may have ended since. */
long segue_holder_pid(const char *dir);
/* Whether a process has `dir` locked. Takes the lock for a moment, shared, if nobody has. */
bool segue_holder_there(const char *dir);
/*
 * Whether somebody (`pid`, where the path is long) listens at `socket_path` although there is no
 * such file: it was removed under a server that runs. False also where that cannot be seen (another
 * network namespace).
 */
bool segue_holder_lost_socket(long pid, const char *socket_path);

#endif
