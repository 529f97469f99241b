/*
 * Who a process is, beyond a number that is used again: boot, pid namespace, pid, start time. From
 * /proc.
 */
#ifndef SEGUE_OS_PROCESS_H
#define SEGUE_OS_PROCESS_H

#include "core/wire.h"

/* What is known of a process. */
enum segue_presence {
	SEGUE_PRESENCE_GONE,
	SEGUE_PRESENCE_ALIVE,
	SEGUE_PRESENCE_UNKNOWN, /* other pid namespace or no right to look */
};

/* The process `pid` as it is now. Fields that cannot be known are 0. */
void segue_process_identify(int64_t pid, struct segue_holder *out);
/* Whether any thread of that process still runs. */
enum segue_presence segue_process_presence(const struct segue_holder *holder);
/* " (NAME)" of it, without control characters; "" if it cannot be looked up. */
void segue_process_name(const struct segue_holder *holder, char *out, size_t size);
/*
 * A pidfd of the process at the other end of `socket`, that becomes readable when it ends; by its
 * number, `pid`, where the kernel does not know it by the socket. SEGUE_ESYSTEM where there is
 * none.
 */
int segue_process_watch(int socket, int64_t pid);

#endif
