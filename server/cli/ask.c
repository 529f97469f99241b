/* Reaching what a directory has: its server if one runs, else its store. */
#include "cli/ask.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/error.h"
#include "core/wait.h"
#include "report/request.h"

#define ANSWER_WITHIN_NS INT64_C(10000000000)
#define SETTLE_WITHIN_NS INT64_C(2000000000)

enum { LOOK_AGAIN_US = 20000 };

/* ---- Directories ---- */

char *segue_cli_absolute(const char *path)
{
	char *cwd, *out = realpath(path, NULL);

	if (out || *path == '/')
		return out ? out : strdup(path);
	cwd = getcwd(NULL, 0);
	while (path[0] == '.' && path[1] == '/')
		path += 2;
	if (!cwd || asprintf(&out, "%s/%s", cwd, path) < 0)
		out = NULL;
	free(cwd);
	return out;
}

int segue_cli_sync(const char *directory, bool above)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
	int rc = 0, fd = open(directory, flags);

	if (fd >= 0 && above) {
		int inner = fd;
		fd = openat(inner, "..", flags);
		close(inner);
	}
	if (fd < 0 || fsync(fd) < 0)
		rc = segue_fail_errno(SEGUE_ESYSTEM, "cannot sync %s%s",
			above ? "the directory above " : "", directory);
	if (fd >= 0)
		close(fd);
	return rc;
}

int segue_cli_lock_holder(const char *dir, long *pid)
{
	char text[32] = "";
	int held = 0, fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 && errno == ENOTDIR)
		return segue_fail_no_directory(dir);
	if (fd < 0)
		return segue_fail_errno(
			errno == ENOENT ? SEGUE_ENOTFOUND : SEGUE_ESYSTEM, "%s", dir);
	/* Shared, as a reader takes it: readers do not count as holders. */
	if (flock(fd, LOCK_SH | LOCK_NB) < 0)
		held = errno == EWOULDBLOCK
			       ? 1
			       : segue_fail_errno(SEGUE_ESYSTEM, "cannot lock %s", dir);
	if (held == 1) {
		int file = openat(fd, "server.pid", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (file >= 0 && read(file, text, sizeof(text) - 1) < 0)
			text[0] = '\0';
		if (file >= 0)
			close(file);
		*pid = strtol(text, NULL, 10);
	}
	close(fd);
	return held;
}

/* ---- Servers and stores ---- */

static int open_client(const struct segue_cli_options *options, struct segue_client **client)
{
	const struct segue_open_options how = {.size = sizeof(how),
		.socket_path = options->socket,
		.no_start = true,
		.timeout_ns = ANSWER_WITHIN_NS};

	return segue_open(options->dir, &how, client);
}

/* Where the last end was not in order, the next server looks at the file before it writes. */
static int open_store(const struct segue_cli_options *options, enum segue_store_mode mode,
	struct segue_store **out)
{
	struct segue_store_stats stats;
	struct segue_store *store;

	int rc = segue_store_open(options->dir, mode, &store);
	if (rc)
		return rc;
	segue_store_stats(store, &stats);
	if (mode == SEGUE_STORE_READ || stats.was_clean || stats.same_boot) {
		*out = store;
		return 0;
	}
	segue_store_close(store);
	return segue_fail(SEGUE_EREADONLY,
		"the store of %s must be verified (the machine stopped while a server had it, or a "
		"write failed): start a server first, which does that (segue serve %s)",
		options->dir, options->dir);
}

/* The server of the directory runs, but not where we looked. */
static int fail_elsewhere(const struct segue_cli_options *options)
{
	return segue_fail(SEGUE_EBUSY,
		"%s, but does not answer at %s%s: give its socket with --socket",
		segue_error_detail(), options->socket ? options->socket : options->dir,
		options->socket ? "" : "/segue.sock");
}

int segue_cli_open(const struct segue_cli_options *options, enum segue_store_mode mode,
	struct segue_cli_access *access)
{
	const int64_t until = segue_now_ns() + SETTLE_WITHIN_NS;

	/* A server that is coming or going holds the directory, and does not answer. */
	for (;; usleep(LOOK_AGAIN_US)) {
		bool late = segue_now_ns() >= until;
		*access = (struct segue_cli_access){0};
		int rc = open_client(options, &access->client);
		if (rc != SEGUE_EGONE)
			return rc;
		rc = open_store(options, mode, &access->store);
		if (rc != SEGUE_EBUSY)
			return rc;
		if (late)
			return fail_elsewhere(options);
	}
}

void segue_cli_close(struct segue_cli_access *access)
{
	segue_client_close(access->client);
	segue_store_close(access->store);
}

/* Only a server that runs has a STATUS. */
static int open_server(const struct segue_cli_options *options, struct segue_cli_access *access)
{
	const int64_t until = segue_now_ns() + SETTLE_WITHIN_NS;
	long pid;

	*access = (struct segue_cli_access){0};
	for (;; usleep(LOOK_AGAIN_US)) {
		bool late = segue_now_ns() >= until;
		int rc = open_client(options, &access->client);
		if (rc != SEGUE_EGONE || late || segue_cli_lock_holder(options->dir, &pid) != 1)
			return rc;
	}
}

int segue_cli_report(const struct segue_cli_options *options, enum segue_report what, char **json)
{
	const int64_t until = segue_now_ns() + SETTLE_WITHIN_NS;
	struct segue_cli_access access;
	int rc;

	do {
		rc = what == SEGUE_REPORT_STATUS
			     ? open_server(options, &access)
			     : segue_cli_open(options, SEGUE_STORE_READ, &access);
		if (rc)
			return rc;
		rc = access.client ? segue_client_report(access.client, what, options->stream,
					     options->key, json)
				   : segue_report_store(access.store, options->dir, what,
					     options->stream ? options->stream : "",
					     options->key ? options->key : "", json);
		segue_cli_close(&access);
	} while (rc == SEGUE_EGONE && segue_now_ns() < until); /* it went in between */
	return rc;
}
