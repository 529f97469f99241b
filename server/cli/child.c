/* Work on a store in a process of its own: a damaged file may kill it, which is a verdict. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/error.h"
#include "core/wait.h"

#define SHOW_NS INT64_C(500000000) /* between two looks at the line on the terminal */

/* What the child sends: each begins with its kind. */
enum { PROGRESS = 'P', REPORT = 'R', FAILURE = 'F' };

struct message {
	int kind, code;
	uint64_t done, total; /* of PROGRESS */
	uint64_t size;        /* bytes that follow: the report, or the detail */
};

/* ---- In the child ---- */

static int to_parent = -1;

static void send_all(const void *bytes, size_t size)
{
	const char *at = bytes;

	while (size > 0) {
		ssize_t written = write(to_parent, at, size);
		if (written < 0 && errno != EINTR)
			_exit(SEGUE_CLI_WRONG);
		at += written > 0 ? written : 0;
		size -= written > 0 ? (size_t)written : 0;
	}
}

void segue_cli_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	const struct message message = {.kind = PROGRESS, .done = done, .total = total};

	(void)arg;
	(void)what;
	send_all(&message, sizeof(message));
}

static _Noreturn void run_child(const struct segue_cli_task *task, pid_t parent)
{
	const struct rlimit no_core = {0, 0};
	char *report = NULL;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(SEGUE_CLI_WRONG);
	setrlimit(RLIMIT_CORE, &no_core); /* it would have the map in it */
	signal(SIGXFSZ, SIG_IGN);         /* a write says EFBIG then */
	int code = task->run(task->arg, &report);
	const char *text = report ? report : segue_error_detail();
	const struct message message = {
		.kind = report ? REPORT : FAILURE, .code = code, .size = strlen(text)};
	send_all(&message, sizeof(message));
	send_all(text, strlen(text));
	_exit(SEGUE_CLI_FINE);
}

/* ---- In the process that waits for it ---- */

struct watching {
	const struct segue_cli_task *task;
	bool terminal;
	int64_t shown_ns; /* 0: no line is on the terminal */
	int64_t begun_ns;
};

static void show(struct watching *watching, const struct message *message)
{
	int64_t now = segue_now_ns();
	char done[32], total[32];

	if (watching->task->lines) {
		printf("{\"progress\": {\"done\": %llu, \"total\": %llu}}\n",
			(unsigned long long)message->done, (unsigned long long)message->total);
		fflush(stdout);
		return;
	}
	if (!watching->terminal || now - watching->begun_ns < 2 * SHOW_NS ||
		now - watching->shown_ns < SHOW_NS)
		return;
	watching->shown_ns = now;
	fprintf(stderr, "\r%s: %s of %s\x1b[K", watching->task->what,
		segue_cli_bytes(message->done, done), segue_cli_bytes(message->total, total));
}

/* False: the child has closed its end. */
static bool receive_all(int fd, void *bytes, size_t size)
{
	char *at = bytes;

	while (size > 0) {
		ssize_t got = read(fd, at, size);
		if (got == 0 || (got < 0 && errno != EINTR))
			return false;
		at += got > 0 ? got : 0;
		size -= got > 0 ? (size_t)got : 0;
	}
	return true;
}

/* Until the last message. SEGUE_EGONE: it does not come. SEGUE_ENOMEM. */
static int watch(int fd, struct watching *watching, struct message *last, char **text)
{
	bool there;

	while ((there = receive_all(fd, last, sizeof(*last))) && last->kind == PROGRESS)
		show(watching, last);
	if (watching->shown_ns)
		fputs("\r\x1b[K", stderr);
	if (!there)
		return SEGUE_EGONE;
	*text = calloc(1, last->size + 1);
	if (!*text)
		return segue_fail(SEGUE_ENOMEM, "no memory for a report");
	if (receive_all(fd, *text, last->size))
		return 0;
	free(*text);
	return SEGUE_EGONE;
}

/* What reading a damaged file may end in; other signals come from elsewhere. */
static bool is_verdict(int number)
{
	return number == SIGBUS || number == SIGSEGV || number == SIGABRT || number == SIGFPE ||
	       number == SIGILL;
}

static int fail_dead(int status)
{
	if (WIFSIGNALED(status) && !is_verdict(WTERMSIG(status)))
		return segue_fail(SEGUE_ESYSTEM,
			"the process that read the file was killed (signal %d, %s): the store was "
			"not judged, try again",
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	if (WIFSIGNALED(status))
		return segue_fail(SEGUE_ESTORE,
			"reading the file killed the process that did it (signal %d, %s): it is "
			"cut short or damaged",
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	return segue_fail(SEGUE_ESTORE,
		"the process that read the file ended with status %d in the midst of it: the file "
		"is cut short or damaged",
		WEXITSTATUS(status));
}

/* Takes `fd` over. */
static int await_child(pid_t child, int fd, const struct segue_cli_task *task, char **report)
{
	struct watching watching = {
		.task = task, .terminal = isatty(STDERR_FILENO) == 1, .begun_ns = segue_now_ns()};
	struct message last;
	char *text = NULL;
	int status = 0;

	int rc = watch(fd, &watching, &last, &text);
	close(fd); /* a child that still writes to it ends by that */
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (rc)
		return rc == SEGUE_EGONE ? fail_dead(status) : rc;
	if (last.kind == REPORT) {
		*report = text;
		return last.code;
	}
	rc = segue_fail(last.code, "%s", text);
	free(text);
	return rc;
}

int segue_cli_child(const struct segue_cli_task *task, char **report)
{
	int pipes[2];
	pid_t parent = getpid();

	*report = NULL;
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make a pipe");
	pid_t child = fork();
	if (child == 0) {
		to_parent = pipes[1];
		run_child(task, parent);
	}
	close(pipes[1]);
	if (child > 0)
		return await_child(child, pipes[0], task, report);
	int rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot fork");
	close(pipes[0]);
	return rc;
}
