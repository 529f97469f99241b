/* A tracer that counts system calls and kills: kill_at.h has the contract. */
#include "kill_at.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/ptrace.h>

/* A spawn is a vfork: what it starts is another program, with a life of its own. */
#define FOLLOWED (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK)

static bool enters(pid_t thread)
{
	struct __ptrace_syscall_info info;

	return ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof(info), &info) > 0 &&
	       info.op == PTRACE_SYSCALL_INFO_ENTRY;
}

/* Lets a stopped thread go on: with the next call watched, or for good when the kill is done. */
static void go_on(pid_t thread, int status, bool done)
{
	int signal = WSTOPSIG(status), event = status >> 16;
	bool call = signal == (SIGTRAP | 0x80);

	if (event == PTRACE_EVENT_STOP && signal != SIGTRAP && !done)
		ptrace(PTRACE_LISTEN, thread, NULL, NULL);
	else
		ptrace(done ? PTRACE_DETACH : PTRACE_SYSCALL, thread, NULL,
			call || event ? 0L : (long)signal);
}

static void trace(uint64_t index, struct kill_at_report *report)
{
	int status;

	for (;;) {
		pid_t thread = waitpid(-1, &status, __WALL);
		if (thread < 0 && errno == EINTR)
			continue;
		if (thread < 0)
			return;
		if (!WIFSTOPPED(status))
			continue;
		if (!report->killed && WSTOPSIG(status) == (SIGTRAP | 0x80) && enters(thread) &&
			++report->calls == index) {
			report->killed = true;
			/*
			 * Its process dies of it. The process's number is not asked for: files of
			 * /proc that were opened last make those who reap it spin in the kernel
			 * (Linux 6.18, shrink_dcache_parent), and all others wait for a CPU, for up
			 * to a minute.
			 */
			syscall(SYS_tkill, thread, SIGKILL);
			continue;
		}
		go_on(thread, status, report->killed);
	}
}

static _Noreturn void be_tracer(pid_t traced, uint64_t index, const char *path, int ready)
{
	struct kill_at_report report = {0};
	int error = 0;

	setsid();
	if (ptrace(PTRACE_SEIZE, traced, NULL, FOLLOWED) < 0 ||
		ptrace(PTRACE_INTERRUPT, traced, NULL, NULL) < 0)
		error = errno;
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		error = errno;
	if (write(ready, &error, sizeof(error)) != (ssize_t)sizeof(error) || error)
		_exit(1);
	/* Whoever reads what the traced process writes must not wait for us. */
	dup2(fd, 3);
	close_range(4, ~0U, 0);
	close(0);
	close(1);
	close(2);
	trace(index, &report);
	_exit(write(3, &report, sizeof(report)) != (ssize_t)sizeof(report));
}

int kill_at_arm(uint64_t index, const char *report)
{
	int ready[2], error = EPROTO;

	if (pipe2(ready, O_CLOEXEC) < 0)
		return -1;
	pid_t traced = getpid(), tracer = fork();
	if (tracer == 0)
		be_tracer(traced, index, report, ready[1]);
	prctl(PR_SET_PTRACER, tracer);
	close(ready[1]);
	if (tracer < 0 || read(ready[0], &error, sizeof(error)) != (ssize_t)sizeof(error))
		error = error ? error : EPROTO;
	close(ready[0]);
	errno = error;
	return error ? -1 : 0;
}
