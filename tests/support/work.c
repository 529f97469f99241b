/* Instructions of a call, counted by stepping through a child. */
#include "work.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void die(const char *what)
{
	perror(what);
	abort();
}

static _Noreturn void be_stepped(void (*fn)(void *arg), void *arg)
{
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		die("ptrace");
	raise(SIGSTOP);
	fn(arg);
	_exit(0);
}

uint64_t segue_work_of(void (*fn)(void *arg), void *arg)
{
	uint64_t count = 0;
	int status;
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0)
		be_stepped(fn, arg);
	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
		if (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGSTOP)
			break;
		count++;
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) < 0)
			die("ptrace");
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "what was stepped through has failed: status %#x\n", status);
		abort();
	}
	return count;
}
