/* Who a process is, and whether it lives. */
#include "os/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/error.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* Reads a small file; 0 bytes if it cannot be read. */
static size_t slurp(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, out, size - 1);

	if (fd >= 0)
		close(fd);
	out[got > 0 ? got : 0] = '\0';
	return got > 0 ? (size_t)got : 0;
}

static void read_boot_id(uint8_t out[16])
{
	char text[64];
	size_t nibbles = 0;

	memset(out, 0, 16);
	slurp("/proc/sys/kernel/random/boot_id", text, sizeof(text));
	for (const char *at = text; *at && nibbles < 32; at++) {
		const char *digits = "0123456789abcdef", *found = strchr(digits, *at);
		if (!found)
			continue;
		out[nibbles / 2] = (uint8_t)(out[nibbles / 2] << 4 | (found - digits));
		nibbles++;
	}
}

static uint64_t pid_namespace_of(const char *pid)
{
	char path[64];
	struct stat info;

	snprintf(path, sizeof(path), "/proc/%s/ns/pid", pid);
	return stat(path, &info) == 0 ? info.st_ino : 0;
}

/* What the system says of a process: proc(5). */
struct status {
	char state; /* of its first thread */
	uint64_t threads;
	uint64_t start_time; /* in clock ticks since boot */
};

/* False: no such process. */
static bool read_status(int64_t pid, struct status *status)
{
	char path[64], text[1024];

	snprintf(path, sizeof(path), "/proc/%lld/stat", (long long)pid);
	if (slurp(path, text, sizeof(text)) == 0)
		return false;
	/* The name may hold anything: fields are counted from its last ')'. */
	char *at = strrchr(text, ')');
	if (!at || at[1] != ' ')
		return false;
	status->state = at[2];
	at += 2;
	for (int field = 3; field < 22; field++) {
		at = strchr(at, ' ');
		if (!at)
			return false;
		at++;
		if (field + 1 == 20)
			status->threads = strtoull(at, NULL, 10);
	}
	status->start_time = strtoull(at, NULL, 10);
	return true;
}

/* The first thread is a zombie until all have ended: while others run, it is one of several. */
static bool has_ended(const struct status *status)
{
	return status->state == 'X' || (status->state == 'Z' && status->threads <= 1);
}

void segue_process_identify(int64_t pid, struct segue_holder *out)
{
	struct status status;
	char name[32];

	*out = (struct segue_holder){.pid = pid};
	read_boot_id(out->boot_id);
	snprintf(name, sizeof(name), "%lld", (long long)pid);
	if (pid <= 0 || !read_status(pid, &status))
		return;
	out->start_time = status.start_time;
	out->pid_namespace = pid_namespace_of(name);
}

enum segue_presence segue_process_presence(const struct segue_holder *holder)
{
	struct status status;
	uint8_t boot_id[16];

	read_boot_id(boot_id);
	if (memcmp(boot_id, holder->boot_id, sizeof(boot_id)) != 0)
		return SEGUE_PRESENCE_GONE;
	if (holder->pid <= 0 || holder->start_time == 0 ||
		holder->pid_namespace != pid_namespace_of("self"))
		return SEGUE_PRESENCE_UNKNOWN;
	if (!read_status(holder->pid, &status) || status.start_time != holder->start_time ||
		has_ended(&status))
		return SEGUE_PRESENCE_GONE;
	return SEGUE_PRESENCE_ALIVE;
}

void segue_process_name(const struct segue_holder *holder, char *out, size_t size)
{
	char path[64], name[64];

	*out = '\0';
	if (segue_process_presence(holder) != SEGUE_PRESENCE_ALIVE)
		return;
	snprintf(path, sizeof(path), "/proc/%lld/comm", (long long)holder->pid);
	if (slurp(path, name, sizeof(name)) == 0)
		return;
	name[strcspn(name, "\n")] = '\0';
	for (char *at = name; *at; at++)
		if ((unsigned char)*at < ' ' || *at == 127)
			*at = '?';
	snprintf(out, size, " (%s)", name);
}

int segue_process_watch(int socket, int64_t pid)
{
	int fd = -1;
	socklen_t size = sizeof(fd);

	/* Since Linux 6.5; also of a process in another pid namespace, and never of a later one. */
	if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0)
		return fd;
	if (pid <= 0)
		return segue_fail(SEGUE_ESYSTEM, "a process of another pid namespace");
	fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);

	return fd >= 0 ? fd : segue_fail_errno(SEGUE_ESYSTEM, "pidfd_open of %lld", (long long)pid);
}
