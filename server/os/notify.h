/*
 * The service manager: told of the server's state (NOTIFY_SOCKET, WATCHDOG_USEC), asked for
 * sockets (LISTEN_FDS). The protocols of sd_notify(3) and sd_listen_fds(3), without a library.
 *
 * Where no manager listens, all of this does nothing. On the main thread, before others are
 * started, but for segue_notify().
 */
#ifndef SEGUE_OS_NOTIFY_H
#define SEGUE_OS_NOTIFY_H

#include <stdint.h>

/*
 * Takes what the manager has said out of the environment, so that no child takes it for its own.
 * A manager that does not answer is logged, and not told.
 */
void segue_notify_init(void);
/* Takes it out, and does not listen: a server that a client starts is not the manager's. */
void segue_notify_ignore(void);

/* Sends lines ("READY=1\nSTATUS=..."). From any thread; never waits. */
void segue_notify(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* How often the manager wants to hear WATCHDOG=1, in ns; 0: never. */
int64_t segue_notify_watchdog_ns(void);

/*
 * The listening stream socket that the manager has made: the only one, or the one named "segue".
 * -1: none. SEGUE_EINVAL: there are others, or it is no such socket, or has no path.
 */
int segue_notify_socket(int *out);

#endif
