/* Verifying a store in a process of its own. */
#include "report/verifier.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "report/json.h"
#include "store/store.h"

/* How `segue verify` says that it found damage (cli.h). */
enum { EXIT_DAMAGED = 3 };
enum { LOOK_MS = 100 };

/* ---- The process ---- */

/* All that it says goes into `output`. */
static int spawn(const char *dir, bool if_due, bool progress, int output, pid_t *pid)
{
	const char *arguments[8] = {"segue", "verify", "--json"};
	size_t count = 3;
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;

	if (if_due)
		arguments[count++] = "--if-due";
	if (progress)
		arguments[count++] = "--progress";
	arguments[count++] = "--";
	arguments[count++] = dir;
	sigemptyset(&none);
	sigfillset(&all);
	int error = posix_spawn_file_actions_init(&actions);
	if (error)
		return error;
	error = posix_spawnattr_init(&attributes);
	if (!error) {
		/* The server blocks and ignores some. */
		posix_spawnattr_setsigmask(&attributes, &none);
		posix_spawnattr_setsigdefault(&attributes, &all);
		posix_spawnattr_setflags(
			&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
		error = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
		if (!error)
			error = posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
		/* The very program that runs, also when its file has been replaced since. */
		if (!error)
			error = posix_spawn(pid, "/proc/self/exe", &actions, &attributes,
				(char *const *)arguments, environ);
		posix_spawnattr_destroy(&attributes);
	}
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

/* What waitpid() says; -1, which is no end in order, if it says nothing. */
static int wait_for(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* ---- What it says ---- */

struct output {
	char *text;
	size_t size, capacity;
};

/* Takes lines of progress from the front; what follows them stays. */
static void take_progress(struct output *output, const struct segue_verifier *how)
{
	static const char head[] = "{\"progress\": ";
	char *end;

	while (output->size > sizeof(head) && memcmp(output->text, head, sizeof(head) - 1) == 0 &&
		(end = memchr(output->text, '\n', output->size))) {
		unsigned long long done, total;
		*end = '\0';
		if (sscanf(output->text + sizeof(head) - 1, "{\"done\": %llu, \"total\": %llu}",
			    &done, &total) == 2)
			how->progress(how->arg, "verifying the store", done, total);
		output->size -= (size_t)(end + 1 - output->text);
		memmove(output->text, end + 1, output->size);
	}
}

/* Room for more. SEGUE_ENOMEM. */
static int grow(struct output *output)
{
	if (output->capacity - output->size > 4096)
		return 0;
	char *grown = realloc(output->text, output->capacity + 65536);
	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for a report");
	output->text = grown;
	output->capacity += 65536;
	return 0;
}

/* Until the process has closed its end. */
static int listen_to(int fd, const struct segue_verifier *how, struct output *output)
{
	for (;;) {
		struct pollfd entry = {.fd = fd, .events = POLLIN};
		int rc = grow(output);
		if (rc)
			return rc;
		int ready = poll(&entry, 1, how->interrupt ? LOOK_MS : -1);
		if (how->interrupt && how->interrupt(how->arg))
			return segue_fail(SEGUE_EGONE, "told to stop while the store was verified");
		if (ready <= 0)
			continue;
		ssize_t got =
			read(fd, output->text + output->size, output->capacity - output->size - 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		output->size += (size_t)got;
		if (how->progress)
			take_progress(output, how);
	}
	output->text[output->size] = '\0';
	output->text[strcspn(output->text, "\n")] = '\0';
	return 0;
}

/* Where a fault is: in front of what is wrong there. */
static void describe_place(const struct segue_json_value *fault, char where[256])
{
	const struct segue_json_value *key = segue_json_get(fault, "key");
	const struct segue_json_value *table = segue_json_get(fault, "table");

	*where = '\0';
	if (key && key->type == SEGUE_JSON_STRING)
		snprintf(where, 256, "key %s in table %s: ", key->text, table->text);
	else if (table && table->type == SEGUE_JSON_STRING)
		snprintf(where, 256, "table %s: ", table->text);
}

/* With the first of the places that the report lists. */
static int fail_damaged(const char *dir, const char *json)
{
	struct segue_json_value *report = NULL;
	const struct segue_json_value *fault = NULL;
	char where[256], damaged[PATH_MAX + 32];

	if (segue_json_parse(json, strlen(json), &report) == 0)
		fault = segue_json_get(report, "damaged");
	fault = fault ? fault->first : NULL;
	const char *why = segue_json_get_text(fault, "why");
	uint64_t count = segue_json_get_unsigned(report, "damaged_count");
	describe_place(fault, where);
	int size = snprintf(damaged, sizeof(damaged), "%s/store/data.mdb is damaged", dir);
	int rc;
	if (count > 1)
		rc = segue_fail(SEGUE_ESTORE,
			"%s (%llu faults, the first: %s%s)" SEGUE_STORE_ADVICE, damaged,
			(unsigned long long)count, where, why);
	else if (strncmp(why, damaged, (size_t)size) == 0) /* it says that already */
		rc = segue_fail(SEGUE_ESTORE, "%s" SEGUE_STORE_ADVICE, why);
	else
		rc = segue_fail(SEGUE_ESTORE, "%s: %s%s" SEGUE_STORE_ADVICE, damaged, where, why);
	segue_json_destroy(report);
	return rc;
}

static int judge(const char *dir, int status, struct output *output, char **json)
{
	if (WIFSIGNALED(status))
		return segue_fail(SEGUE_ESYSTEM,
			"%s could not be verified: the process that did it was killed (signal %d, "
			"%s)",
			dir, WTERMSIG(status), strsignal(WTERMSIG(status)));
	if (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == EXIT_DAMAGED) {
		*json = output->text;
		output->text = NULL;
		return WEXITSTATUS(status) ? fail_damaged(dir, *json) : 0;
	}
	return segue_fail(SEGUE_ESYSTEM, "%s could not be verified: %s", dir,
		strncmp(output->text, "segue: ", 7) == 0 ? output->text + 7 : output->text);
}

int segue_verifier_run(const char *dir, const struct segue_verifier *how, char **json)
{
	struct output output = {0};
	int pipes[2];
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make a pipe");
	int error = spawn(dir, how->if_due, how->progress != NULL, pipes[1], &pid);
	close(pipes[1]);
	if (error) {
		close(pipes[0]);
		errno = error;
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot start a process to verify %s", dir);
	}
	int rc = listen_to(pipes[0], how, &output);
	if (rc)
		kill(pid, SIGKILL);
	close(pipes[0]);
	int status = wait_for(pid);
	if (!rc)
		rc = judge(dir, status, &output, json);
	free(output.text);
	return rc;
}
