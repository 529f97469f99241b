/* C11: 2,000 connections that never speak, and children that connect as fast as they can. */
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { CHILDREN = 4, EACH = 500, FORKS = 60 };

static int connect_once(const char *dir)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/segue.sock", dir);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		return -1; /* the queue is full: tried again */
	}
	return fd;
}

/* Holds up to EACH connections for as long as it is let; makes those anew that are closed. */
static _Noreturn void hold(const struct hostile *hostile)
{
	int fds[EACH];
	char byte;

	for (int i = 0; i < EACH; i++)
		fds[i] = -1;
	while (hostile_time_left(hostile)) {
		for (int i = 0; i < EACH; i++) {
			if (fds[i] >= 0 && recv(fds[i], &byte, 1, MSG_DONTWAIT) == 0) {
				close(fds[i]);
				fds[i] = -1;
			}
			if (fds[i] < 0)
				fds[i] = connect_once(hostile->dir);
		}
		hostile_sleep_ms(20);
	}
	_exit(0);
}

void attack_flood(struct hostile *hostile)
{
	struct rlimit limit;
	pid_t children[CHILDREN];
	struct raw raw;
	unsigned forks = 0;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	for (int i = 0; i < CHILDREN; i++) {
		children[i] = hostile_fork();
		if (children[i] == 0)
			hold(hostile);
	}
	/* A flood of processes beside them, each with a connection or two, ended as they are. */
	for (; forks < FORKS || hostile_time_left(hostile); forks++) {
		pid_t pid = hostile_fork();
		if (pid == 0) {
			for (int i = 0; i < 5; i++)
				connect_once(hostile->dir);
			_exit(0);
		}
		hostile_reap(pid, 0);
		hostile_sleep_ms(5);
	}
	for (int i = 0; i < CHILDREN; i++)
		hostile_reap(children[i], 0);
	raw_open(hostile->dir, &raw); /* within 10 s a new client is admitted */
	raw_close(&raw);
	printf("%d connections wanted at once, %u processes\n", CHILDREN * EACH, forks);
}
