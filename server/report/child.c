/* Work on a store in a process of its own. */
#include "report/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"

enum { LOOK_MS = 100, ARGUMENTS_MAX = 16 };

/* What the child writes to its standard output: each begins with its kind. */
enum { BEGUN = 'B', PROGRESS = 'P', REPORT = 'R', FAILURE = 'F' };

struct message {
	int kind, code;
	uint64_t done, total; /* of PROGRESS */
	uint64_t size;        /* bytes that follow: the report, or the detail */
};

/* What reading a damaged file may end in; other signals come from elsewhere. */
static const int verdicts[] = {SIGBUS, SIGSEGV, SIGABRT, SIGFPE, SIGILL};

/* ---- In the child ---- */

static void send_all(const void *bytes, size_t size)
{
	const char *at = bytes;

	while (size > 0) {
		ssize_t written = write(STDOUT_FILENO, at, size);
		if (written < 0 && errno != EINTR)
			_exit(EXIT_FAILURE);
		at += written > 0 ? written : 0;
		size -= written > 0 ? (size_t)written : 0;
	}
}

void segue_child_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	const struct message message = {.kind = PROGRESS, .done = done, .total = total};

	(void)arg;
	(void)what;
	send_all(&message, sizeof(message));
}

int segue_child_answer(const char *parent, segue_child_fn *work, char **arguments)
{
	const struct rlimit no_core = {0, 0};
	char *report = NULL;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != strtol(parent, NULL, 10))
		return EXIT_FAILURE;
	setrlimit(RLIMIT_CORE, &no_core); /* it would have the map in it */
	/* Their default is what says that the file is damaged, whoever has set something else. */
	for (size_t i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++)
		signal(verdicts[i], SIG_DFL);
	signal(SIGXFSZ, SIG_IGN); /* a write says EFBIG then */
	send_all(&(struct message){.kind = BEGUN}, sizeof(struct message));
	int code = work(arguments, &report);
	const char *text = report ? report : segue_error_detail();
	const struct message message = {
		.kind = report ? REPORT : FAILURE, .code = code, .size = strlen(text)};
	send_all(&message, sizeof(message));
	send_all(text, strlen(text));
	free(report);
	return EXIT_SUCCESS;
}

/* ---- In the process that waits for it ---- */

/* The very program that runs, also when its file has been replaced since. */
static int spawn(const char *const *arguments, int output, pid_t *pid)
{
	char parent[16];
	const char *all[ARGUMENTS_MAX] = {"segue", "child", parent};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;

	snprintf(parent, sizeof(parent), "%d", (int)getpid());
	for (size_t i = 3; *arguments && i < ARGUMENTS_MAX - 1; i++)
		all[i] = *arguments++;
	sigemptyset(&none);
	int error = posix_spawn_file_actions_init(&actions);
	if (error)
		return error;
	error = posix_spawnattr_init(&attributes);
	if (!error) {
		posix_spawnattr_setsigmask(&attributes, &none); /* the server blocks some */
		posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
		error = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
		if (!error)
			error = posix_spawn(pid, "/proc/self/exe", &actions, &attributes,
				(char *const *)all, environ);
		posix_spawnattr_destroy(&attributes);
	}
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

/* *whole is false if the child has closed its end. SEGUE_EGONE: interrupted. */
static int receive(const struct segue_child *child, int fd, void *bytes, size_t size, bool *whole)
{
	char *at = bytes;

	while (size > 0) {
		struct pollfd entry = {.fd = fd, .events = POLLIN};
		int ready = poll(&entry, 1, child->interrupt ? LOOK_MS : -1);
		if (child->interrupt && child->interrupt(child->arg))
			return segue_fail(SEGUE_EGONE, "told to stop while %s", child->what);
		ssize_t got = ready > 0 ? read(fd, at, size) : -1;
		if (got == 0 || (ready > 0 && got < 0 && errno != EINTR))
			break;
		at += got > 0 ? got : 0;
		size -= got > 0 ? (size_t)got : 0;
	}
	*whole = size == 0;
	return 0;
}

/* Until the last message, with its text; NULL: it does not come. *begun: the first has come. */
static int listen_to(
	const struct segue_child *child, int fd, struct message *last, bool *begun, char **out)
{
	char *text = NULL;
	bool whole;
	int rc;

	while (!(rc = receive(child, fd, last, sizeof(*last), &whole)) && whole &&
		(last->kind == BEGUN || last->kind == PROGRESS)) {
		*begun = true;
		if (last->kind == PROGRESS && child->progress)
			child->progress(child->arg, child->what, last->done, last->total);
	}
	if (!rc && whole && !(text = calloc(1, last->size + 1)))
		rc = segue_fail(SEGUE_ENOMEM, "no memory for a report");
	if (!rc && whole)
		rc = receive(child, fd, text, last->size, &whole);
	if (rc || !whole) {
		free(text);
		text = NULL;
	}
	*out = text;
	return rc;
}

static bool is_verdict(int number)
{
	for (size_t i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++) {
		if (verdicts[i] == number)
			return true;
	}
	return false;
}

static int fail_dead(int status, bool begun)
{
	if (!begun && !WIFSIGNALED(status))
		return segue_fail(SEGUE_ESYSTEM,
			"the process that was to read the file ended with status %d before it "
			"began, and the store was not judged: have the program or its libraries "
			"been replaced? Start the server again",
			WEXITSTATUS(status));
	if (!begun || (WIFSIGNALED(status) && !is_verdict(WTERMSIG(status))))
		return segue_fail(SEGUE_ESYSTEM,
			"the process that read the file was killed (signal %d, %s): the store "
			"could "
			"not be verified to its end, and was not judged: try again",
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
static int await(const struct segue_child *child, pid_t pid, int fd, char **report)
{
	struct message last;
	bool begun = false;
	int status = -1; /* no end in order, if waitpid() says nothing */
	char *text;

	int rc = listen_to(child, fd, &last, &begun, &text);
	if (rc)
		kill(pid, SIGKILL);
	close(fd); /* a child that still writes to it ends by that */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (rc)
		return rc;
	if (!text)
		return fail_dead(status, begun);
	if (last.kind == REPORT) {
		*report = text;
		return last.code;
	}
	rc = segue_fail(last.code, "%s", text);
	free(text);
	return rc;
}

int segue_child_run(const struct segue_child *child, char **report)
{
	int pipes[2];
	pid_t pid;

	*report = NULL;
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make a pipe");
	int error = spawn(child->arguments, pipes[1], &pid);
	close(pipes[1]);
	if (!error)
		return await(child, pid, pipes[0], report);
	close(pipes[0]);
	errno = error;
	return segue_fail_errno(SEGUE_ESYSTEM, "cannot start a process for %s", child->what);
}
