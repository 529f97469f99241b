/* Starting the server of a store directory. */
#include "client/starter.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/access.h"
#include "core/error.h"
#include "core/wait.h"

#define MILLISECOND  INT64_C(1000000)
#define LOCK_NS      (20 * MILLISECOND)
#define SLICE_MS     100
#define PROGRESS_MAX 128  /* of a line that tells progress, also in the lock file */
#define MESSAGE_MAX  2048 /* of what the program says, the beginning */

/* ---- Directory and lock ---- */

/* What a directory that cannot be written means. */
static int fail_write(const char *cannot, const char *path)
{
	if (errno == ENOTDIR)
		return segue_fail_no_directory(path);
	if (errno == EACCES)
		return segue_fail_within(
			segue_fail_access(SEGUE_EREADONLY, path), "%s %s", cannot, path);
	int code = errno == EROFS                       ? SEGUE_EREADONLY
		   : errno == ENOSPC || errno == EDQUOT ? SEGUE_ENOSPACE
							: SEGUE_ESYSTEM;

	return segue_fail_errno(code, "%s %s", cannot, path);
}

static int make_directories(const char *dir)
{
	char *path = strdup(dir);

	if (!path)
		return segue_fail(SEGUE_ENOMEM, "no memory for a path");
	int rc = 0;
	for (char *end = path + 1; !rc; end++) {
		if (*end && *end != '/')
			continue;
		bool last = !*end;
		*end = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			rc = fail_write("cannot make the directory", path);
		if (last)
			break;
		*end = '/';
	}
	free(path);
	return rc;
}

/* Somebody works at it: those who wait have as much patience again. */
static void tell_progress(const struct segue_hooks *hooks, const char *line, int64_t patience_ns,
	int64_t *deadline_ns)
{
	uint64_t done, total;
	int what = 0;

	if (sscanf(line, "progress %" SCNu64 " %" SCNu64 " %n", &done, &total, &what) < 2 ||
		what == 0)
		return;
	*deadline_ns = segue_deadline(segue_now_ns(), patience_ns);
	if (hooks->progress)
		hooks->progress(hooks->arg, line + what, done, total);
}

/* What the holder of the lock tells of its server's start, if that is news. */
static void read_progress(int lock_fd, char seen[PROGRESS_MAX], const struct segue_hooks *hooks,
	int64_t patience_ns, int64_t *deadline_ns)
{
	char line[PROGRESS_MAX] = "";

	if (pread(lock_fd, line, sizeof(line) - 1, 0) < 0 || strcmp(line, seen) == 0)
		return;
	if (*seen)
		tell_progress(hooks, line, patience_ns, deadline_ns);
	memcpy(seen, line, sizeof(line));
}

int segue_starter_lock(const char *dir, int64_t *deadline_ns, const struct segue_hooks *hooks,
	struct segue_fork_guard *lock)
{
	int64_t patience_ns = *deadline_ns - segue_now_ns();
	char *path, seen[PROGRESS_MAX] = "";
	int rc = make_directories(dir);

	if (rc)
		return rc;
	rc = segue_fork_guard_init(lock);
	if (rc)
		return rc;
	if (asprintf(&path, "%s/start.lock", dir) < 0) {
		rc = segue_fail(SEGUE_ENOMEM, "no memory for a path");
		goto no_path;
	}
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		rc = fail_write("cannot open", path);
		goto failed;
	}
	segue_fork_guard_set(lock, fd);
	while (!rc && flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot lock %s", path);
		else if (segue_now_ns() >= *deadline_ns)
			rc = segue_fail(SEGUE_EGONE,
				"another process holds %s and has not started a server in time: "
				"try again, "
				"or end it",
				path);
		else
			rc = segue_hooks_pause(hooks, LOCK_NS);
		read_progress(fd, seen, hooks, patience_ns, deadline_ns);
	}
failed:
	free(path);
no_path:
	if (rc)
		segue_fork_guard_finish(lock);
	return rc;
}

/* ---- The program ---- */

static const char *find_program(const char *program)
{
	if (!program)
		program = getenv("SEGUE_PROGRAM");
	if (program && *program)
		return program;
#ifdef SEGUE_PROGRAM_PATH
	if (access(SEGUE_PROGRAM_PATH, X_OK) == 0)
		return SEGUE_PROGRAM_PATH;
#endif
	return "segue";
}

/* Signals as a program expects them, whatever the caller has made of its own. */
static int set_up_signals(posix_spawnattr_t *attributes)
{
	sigset_t all, none;

	sigfillset(&all);
	sigemptyset(&none);
	int error = posix_spawnattr_setsigdefault(attributes, &all);
	if (!error)
		error = posix_spawnattr_setsigmask(attributes, &none);
	if (!error)
		error = posix_spawnattr_setflags(
			attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	return error;
}

static int set_up_files(posix_spawn_file_actions_t *actions, int errors)
{
	int error =
		posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);

	if (!error)
		error = posix_spawn_file_actions_addopen(
			actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	if (!error)
		error = posix_spawn_file_actions_adddup2(actions, errors, STDERR_FILENO);
	return error;
}

static int spawn(const char *program, char *const arguments[], int errors, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int error = posix_spawn_file_actions_init(&actions);

	if (error)
		return error;
	error = posix_spawnattr_init(&attributes);
	if (!error) {
		error = set_up_signals(&attributes);
		if (!error)
			error = set_up_files(&actions, errors);
		if (!error)
			error = posix_spawnp(
				pid, program, &actions, &attributes, arguments, environ);
		posix_spawnattr_destroy(&attributes);
	}
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

/* Takes whole lines of progress out of what the program says, and passes the last one on. */
static size_t take_progress(char message[MESSAGE_MAX], size_t have, int lock_fd,
	const struct segue_hooks *hooks, int64_t patience_ns, int64_t *deadline_ns)
{
	char last[PROGRESS_MAX] = "", *end;

	while (have > 9 && memcmp(message, "progress ", 9) == 0 &&
		(end = memchr(message, '\n', have))) {
		*end = '\0';
		snprintf(last, sizeof(last), "%.*s", (int)sizeof(last) - 1, message);
		have -= (size_t)(end + 1 - message);
		memmove(message, end + 1, have);
	}
	if (*last) {
		/* for those who wait for the lock; if it cannot be written they learn nothing */
		if (pwrite(lock_fd, last, sizeof(last), 0) < 0)
			errno = 0;
		tell_progress(hooks, last, patience_ns, deadline_ns);
	}
	return have;
}

/* Reads what the program says until it ends or detaches. */
static int listen_to(int errors, int lock_fd, int64_t *deadline_ns, const struct segue_hooks *hooks,
	char message[MESSAGE_MAX])
{
	int64_t patience_ns = *deadline_ns - segue_now_ns();
	size_t have = 0;
	int rc = 0;

	for (;;) {
		struct pollfd entry = {.fd = errors, .events = POLLIN};
		char bytes[512];
		if (poll(&entry, 1, SLICE_MS) > 0) {
			ssize_t got = read(errors, bytes, sizeof(bytes));
			if (got == 0 || (got < 0 && errno != EINTR))
				break;
			size_t room = MESSAGE_MAX - 1 - have, more = got > 0 ? (size_t)got : 0;
			memcpy(message + have, bytes, more < room ? more : room);
			have += more < room ? more : room;
			have = take_progress(
				message, have, lock_fd, hooks, patience_ns, deadline_ns);
			continue;
		}
		rc = segue_hooks_interrupted(hooks);
		if (!rc && segue_now_ns() >= *deadline_ns)
			rc = segue_fail(SEGUE_EGONE,
				"the server was not ready in time: give it longer (timeout)");
		if (rc)
			break;
	}
	while (have > 0 && (message[have - 1] == '\n' || message[have - 1] == ' '))
		have--;
	message[have] = '\0';
	return rc;
}

/* What the end of the program means. */
static int judge(const char *program, int status, const char *message)
{
	const char *said = strncmp(message, "segue: ", 7) == 0 ? message + 7 : message;

	/* Killed while it started, itself or the server that it made: worth another try. */
	if (WIFSIGNALED(status) || WEXITSTATUS(status) == -SEGUE_EGONE)
		return segue_fail(SEGUE_EBUSY,
			"the server program %s was killed while it started%s%s", program,
			*said ? ": " : "", said);
	int code = WEXITSTATUS(status);
	if (code == 0)
		return 0;
	if (code == 127 || strcmp(segue_error_name(-code), "?") == 0)
		return segue_fail(SEGUE_EGONE,
			"the server program %s could not be executed or is no segue (status %d): "
			"%s (SEGUE_PROGRAM is its path)",
			program, code, *said ? said : "it said nothing");
	if (!*said)
		return segue_fail(SEGUE_EGONE,
			"the server program %s ended with status %d and said nothing: is it segue? "
			"(SEGUE_PROGRAM is its path)",
			program, code);
	return segue_fail(-code, "%s", said);
}

int segue_starter_run(const char *program, const char *dir, const char *socket_path, int lock_fd,
	int64_t *deadline_ns, const struct segue_hooks *hooks)
{
	const char *arguments[] = {"segue", "serve", dir, "--embedded",
		socket_path ? "--socket" : NULL, socket_path, NULL};
	char message[MESSAGE_MAX];
	int errors[2], status = 0;
	pid_t pid;

	program = find_program(program);
	if (pipe2(errors, O_CLOEXEC) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make a pipe");
	errno = spawn(program, (char *const *)arguments, errors[1], &pid);
	close(errors[1]);
	if (errno) {
		close(errors[0]);
		return segue_fail_errno(SEGUE_EGONE,
			"no server runs, and the program '%s' cannot be run to start one (set "
			"SEGUE_PROGRAM to the path of the segue program)",
			program);
	}
	int rc = listen_to(errors[0], lock_fd, deadline_ns, hooks, message);
	close(errors[0]);
	if (rc)
		kill(pid, SIGKILL);
	pid_t waited;
	do
		waited = waitpid(pid, &status, 0);
	while (waited < 0 && errno == EINTR);
	if (rc)
		return rc;
	/* The process may ignore SIGCHLD, or wait for all its children: then go by the message. */
	if (waited < 0 && *message)
		return segue_fail(SEGUE_EGONE, "%s", message);
	return judge(program, status, message);
}
