/* segue serve: runs the server of a store directory, in the foreground or for a client. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/ask.h"
#include "cli/service.h"
#include "core/error.h"
#include "os/notify.h"
#include "os/loop.h"
#include "serve/run.h"
#include "store/file_system.h"

/*
 * One thread waits for the server to be ready and says so: to the user, or to the process that
 * started it. segue_server_run() itself does not come back before the end.
 */
struct announcement {
	int ready;    /* the server writes a byte when its socket listens */
	int starter;  /* embedded: passed on to here; else -1 */
	pid_t parent; /* embedded: the process that waits */
	const char *dir, *socket;
};

/* A plain file of one name: others may have put something else there. -1: it is not to be had. */
static int open_log(const char *path)
{
	struct stat info;
	int log = open(
		path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

	if (log >= 0 && fstat(log, &info) == 0 && S_ISREG(info.st_mode) && info.st_nlink == 1)
		return log;
	if (log >= 0)
		close(log);
	return -1;
}

/* What a starter does not read any more goes to a file beside the store. */
static void redirect_errors(const char *dir)
{
	char *path;
	int log = -1;

	if (asprintf(&path, "%s/server.log", dir) >= 0) {
		log = open_log(path);
		free(path);
	}
	if (log < 0)
		log = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (log >= 0)
		dup2(log, STDERR_FILENO);
	close(log);
}

static bool await_byte(int fd)
{
	char byte;
	ssize_t got;

	do
		got = read(fd, &byte, 1);
	while (got < 0 && errno == EINTR);
	return got == 1;
}

static void *announce(void *arg)
{
	const struct announcement *announcement = arg;
	bool embedded = announcement->starter >= 0;

	/* A starter that gives up is killed; nobody then wants the server. Until it is ready. */
	if (embedded) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != announcement->parent)
			_exit(-SEGUE_EGONE);
	}
	if (!await_byte(announcement->ready))
		return NULL;
	if (!embedded) {
		printf("segue %s serves %s at %s (pid %ld)\n", segue_version(), announcement->dir,
			announcement->socket, (long)getpid());
		fflush(stdout);
		return NULL;
	}
	prctl(PR_SET_PDEATHSIG, 0);
	redirect_errors(announcement->dir);
	if (write(announcement->starter, "", 1) < 0)
		fputs("segue: the process that started this server is gone\n", stderr);
	close(announcement->starter);
	return NULL;
}

static int run(struct announcement *announcement, const struct segue_options *options)
{
	int pipes[2];
	pthread_t thread;

	if (pipe2(pipes, O_CLOEXEC) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make a pipe");
	announcement->ready = pipes[0];
	/* Before the first thread: the server's loop takes the signals. */
	segue_loop_block_signals();
	signal(SIGPIPE, SIG_IGN);
	int error = pthread_create(&thread, NULL, announce, announcement);
	if (error) {
		errno = error;
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot start a thread");
	}
	struct segue_options ours = *options;
	ours.ready_fd = pipes[1];
	int rc = segue_server_run(&ours);
	/* It waits in vain if the server never was ready. */
	if (rc)
		pthread_cancel(thread);
	pthread_join(thread, NULL);
	close(pipes[0]);
	return rc;
}

/* Absolute, because an embedded server leaves the working directory. */
static int set_paths(const struct segue_cli_options *options, char **dir, char **socket)
{
	*dir = segue_cli_absolute(options->dir);
	*socket = NULL;
	if (options->socket)
		*socket = segue_cli_absolute(options->socket);
	else if (*dir && asprintf(socket, "%s/segue.sock", *dir) < 0)
		*socket = NULL;
	return *dir && *socket ? 0 : segue_fail(SEGUE_ENOMEM, "no memory for a path");
}

/* A client that starts a server reads the status as an error code. */
static int exit_status(const struct segue_cli_options *options, int rc, bool wrong_option)
{
	if (options->embedded)
		return -rc;
	if (wrong_option)
		return segue_cli_usage(&segue_cli_serve);
	return rc ? SEGUE_CLI_WRONG : SEGUE_CLI_FINE;
}

/* The exit status. */
static int serve(const struct segue_cli_options *options, int starter, pid_t parent)
{
	struct segue_cli_service service = {0};
	char *dir, *socket;

	if (options->assume_local) /* also for the process that verifies */
		setenv(SEGUE_ASSUME_LOCAL, "1", 1);
	int rc = set_paths(options, &dir, &socket);
	if (!rc)
		rc = segue_cli_service_init(&service, options);
	bool wrong_option = rc == SEGUE_EINVAL;
	if (!rc)
		rc = segue_cli_service_socket(&service, options, &socket);
	if (!rc && starter >= 0 && chdir("/") < 0)
		rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot change to /");
	if (!rc) {
		struct segue_options server = {.dir = dir,
			.socket_path = socket,
			.embedded = options->embedded,
			.map_bytes = (uint64_t)options->map_mib << 20};
		segue_cli_service_apply(&service, &server);
		struct announcement announcement = {
			.starter = starter, .parent = parent, .dir = dir, .socket = socket};
		rc = run(&announcement, &server);
	}
	segue_cli_service_finish(&service);
	if (rc) {
		segue_notify("STATUS=%s\nERRNO=%d", segue_error_detail(), EIO);
		segue_cli_fail();
	}
	free(dir);
	free(socket);
	return exit_status(options, rc, wrong_option);
}

/* ---- For a client ---- */

static void attach_null(int fd, int flags)
{
	int null = open("/dev/null", flags | O_CLOEXEC);

	if (null >= 0) {
		dup2(null, fd);
		close(null);
	}
}

/* Waits for the child's verdict, and passes it on. */
static int await_child(pid_t child, int ready)
{
	int status;

	if (await_byte(ready))
		return 0;
	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return -SEGUE_ESYSTEM;
	}
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	fprintf(stderr, "segue: the server was killed by signal %d while it started\n",
		WTERMSIG(status));
	return -SEGUE_EGONE;
}

static int serve_embedded(const struct segue_cli_options *options)
{
	pid_t parent = getpid();
	int pipes[2];

	/*
	 * What the client left open by mistake would stay open as long as the server lives. By its
	 * number: glibc has the call since 2.34 only.
	 */
	syscall(SYS_close_range, (unsigned)STDERR_FILENO + 1, ~0U, 0U);
	if (pipe2(pipes, O_CLOEXEC) < 0) {
		segue_fail_errno(SEGUE_ESYSTEM, "cannot make a pipe");
		segue_cli_fail();
		return -SEGUE_ESYSTEM;
	}
	pid_t child = fork();
	if (child < 0) {
		segue_fail_errno(SEGUE_ESYSTEM, "cannot fork");
		segue_cli_fail();
		return -SEGUE_ESYSTEM;
	}
	if (child > 0) {
		close(pipes[1]);
		return await_child(child, pipes[0]);
	}
	close(pipes[0]);
	setsid();
	attach_null(STDIN_FILENO, O_RDONLY);
	attach_null(STDOUT_FILENO, O_WRONLY);
	return serve(options, pipes[1], parent);
}

static int run_serve(const struct segue_cli_options *options)
{
	return options->embedded ? serve_embedded(options) : serve(options, -1, 0);
}

const struct segue_cli_command segue_cli_serve = {
	.name = "serve",
	.operands = "DIR",
	.summary = "run the server of a store directory",
	.help = "Makes DIR if it does not exist. Prints one line when it is ready, logs to\n"
		"standard error. SIGTERM or SIGINT: what is committed goes to disk, then it\n"
		"ends; a second one ends it at once. One server serves a directory at a time.\n\n"
		"Clients start a server by themselves where none runs, with --embedded: it\n"
		"leaves the terminal, ends when its last client has left, and logs to\n"
		"DIR/server.log. Such a server does not look at $SEGUE_SOCKET.\n\n"
		"Clients of the server's own user and root may connect, and those that are\n"
		"let in. Lists in the environment are separated by ':'. BYTES may end in K, M,\n"
		"G or T. A limit that is reached is an error for the client that asks for\n"
		"more. Limits have variables, too: --max-lanes is $SEGUE_MAX_LANES, and so on.\n\n"
		"Under a service manager (systemd) it says when it is ready and that it lives\n"
		"(Type=notify, WatchdogSec=), and takes over a listening socket.\n\n"
		"After a crash of the machine, or a write that failed, the store is verified\n"
		"before it is served, in a process of its own; progress is logged.\n\n"
		"Exit status: 0 ended in order, 1 could not start, had to stop, or ended with\n"
		"commits that could not be written (a message says why), 2 wrong usage (also\n"
		"of a variable), 3 the store's file could not be read (SIGBUS). With\n"
		"--embedded: 0 the server is ready, else the code of the error in segue.h,\n"
		"such as 7 (EBUSY, another server has DIR), 21 (ESTORE, damaged), 22 (EFORMAT,\n"
		"written by another version), 23 (EREADONLY).\n",
	.takes = SEGUE_CLI_SOCKET | SEGUE_CLI_EMBEDDED | SEGUE_CLI_SERVICE | SEGUE_CLI_MAP_SIZE,
	.operands_min = 1,
	.operands_max = 1,
	.run = run_serve,
};
