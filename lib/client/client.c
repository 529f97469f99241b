/* A client: connecting, starting the server, connecting again. */
#include "client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/holder.h"
#include "client/starter.h"
#include "core/error.h"
#include "core/sized.h"
#include "core/wait.h"

#define MILLISECOND INT64_C(1000000)
#define TIMEOUT_NS  (30000 * MILLISECOND)
#define DELAY_FIRST (20 * MILLISECOND)
#define DELAY_LAST  (1000 * MILLISECOND)
#define MAKER_NS    (10000 * MILLISECOND) /* for who gives a source to come back */
#define NOTICE_NS   (2000 * MILLISECOND)  /* for a server to see that its socket is gone */

/* ---- Connecting ---- */

static int fail_moved(const struct segue_client *client, const char *happened)
{
	return segue_fail(SEGUE_EMOVED,
		"the store directory %s %s since it was opened: what was saved there is not found "
		"by this path. Move it back, or open the directory anew and go on from a "
		"checkpoint's token",
		client->dir, happened);
}

int segue_client_check_dir(const struct segue_client *client)
{
	struct stat info;

	if (client->dir_fd < 0)
		return 0;
	if (stat(client->dir, &info) < 0)
		return errno == ENOENT || errno == ENOTDIR
			       ? fail_moved(client, "was removed or moved")
			       : 0;
	return info.st_dev == client->device && info.st_ino == client->inode
		       ? 0
		       : fail_moved(client, "was replaced by another");
}

/* Which directory it is; held, so that no later one gets its number. */
static void keep_dir(struct segue_client *client)
{
	const struct segue_connection *connection = &client->connection;
	struct stat info;

	client->inode = connection->inode;
	client->device = connection->device;
	client->dir_fd = open(client->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	bool same = client->dir_fd >= 0 && fstat(client->dir_fd, &info) == 0 &&
		    info.st_dev == client->device && info.st_ino == client->inode;
	if (client->dir_fd >= 0 && !same) {
		close(client->dir_fd);
		client->dir_fd = -1;
	}
}

static int connect_once(struct segue_client *client, int64_t deadline_ns)
{
	struct segue_connection *connection = &client->connection;
	int rc = segue_connection_open(
		connection, client->socket_path, client->dir, deadline_ns, &client->hooks);

	if (rc)
		return rc;
	if (client->inode && connection->inode &&
		(client->inode != connection->inode || client->device != connection->device)) {
		segue_connection_close(connection);
		return fail_moved(client, "was replaced by another");
	}
	client->connected_ns = segue_now_ns();
	if (client->epoch++ == 0)
		keep_dir(client);
	return 0;
}

/* Sleeps, and doubles the next pause. */
static int back_off(struct segue_client *client, int64_t *delay_ns, int64_t deadline_ns)
{
	int64_t left = deadline_ns - segue_now_ns();
	int64_t pause = *delay_ns < left ? *delay_ns : left;

	*delay_ns = *delay_ns * 2 < DELAY_LAST ? *delay_ns * 2 : DELAY_LAST;
	return pause > 0 ? segue_hooks_pause(&client->hooks, pause) : 0;
}

/* Under the directory's lock: runs the program until a server answers. */
static int start_locked(struct segue_client *client, int lock_fd, int64_t deadline_ns)
{
	const char *socket_path = client->own_socket ? client->socket_path : NULL;
	int64_t delay = DELAY_FIRST;

	for (;;) {
		/* Whoever had the lock before may have started one. */
		int rc = connect_once(client, deadline_ns);
		if (rc != SEGUE_EGONE)
			return rc;
		rc = segue_starter_run(client->program, client->dir, socket_path, lock_fd,
			&deadline_ns, &client->hooks);
		if (!rc)
			rc = connect_once(client, deadline_ns);
		else if (rc != SEGUE_EBUSY) /* busy: one that is going, or coming, or was killed */
			return rc;
		if (rc != SEGUE_EGONE && rc != SEGUE_EBUSY)
			return rc;
		if (segue_now_ns() >= deadline_ns)
			return segue_fail_within(
				SEGUE_EGONE, "no server for %s came up in time", client->dir);
		rc = back_off(client, &delay, deadline_ns);
		if (rc)
			return rc;
	}
}

static int start(struct segue_client *client, int64_t deadline_ns)
{
	struct segue_fork_guard lock;
	long pid = segue_holder_pid(client->dir);
	int rc = segue_starter_lock(client->dir, &deadline_ns, &client->hooks, &lock);

	if (rc)
		return rc;
	rc = start_locked(client, lock.fd, deadline_ns);
	segue_fork_guard_finish(&lock);
	/* One that was there before, not ours. */
	if (rc == SEGUE_EGONE && segue_now_ns() >= deadline_ns && pid &&
		pid == segue_holder_pid(client->dir) && segue_holder_there(client->dir))
		return segue_fail(SEGUE_EGONE,
			"a segue server (pid %ld) has %s, but did not answer at %s in time: if it "
			"listens elsewhere give its socket (socket=; of commands --socket, "
			"SEGUE_SOCKET)",
			pid, client->dir, client->socket_path);
	return rc;
}

/*
 * A server that runs and whose socket was removed is waited for a little: it may notice, and make
 * it anew. 0: connected; 1: there is none such.
 */
static int await_socket(struct segue_client *client, int64_t deadline_ns)
{
	int64_t until = segue_deadline(segue_now_ns(), NOTICE_NS), delay = DELAY_FIRST;
	long pid;

	while ((pid = segue_holder_pid(client->dir)) &&
		segue_holder_lost_socket(pid, client->socket_path)) {
		if (segue_now_ns() >= (until < deadline_ns ? until : deadline_ns))
			return segue_fail(SEGUE_EGONE,
				"the server of %s runs (process %ld), but its socket %s is gone: "
				"it was removed. End that process, which writes what is "
				"committed, and the next one makes another",
				client->dir, pid, client->socket_path);
		int rc = back_off(client, &delay, until);
		if (!rc)
			rc = connect_once(client, deadline_ns);
		if (rc != SEGUE_EGONE)
			return rc;
	}
	return 1;
}

/* Somebody else's server: waits until it is back. */
static int await_server(struct segue_client *client, int64_t deadline_ns, int64_t patience_ns)
{
	int64_t until = deadline_ns < patience_ns ? deadline_ns : patience_ns;
	int64_t delay = DELAY_FIRST;

	for (;;) {
		int rc = connect_once(client, patience_ns);
		if (rc != SEGUE_EGONE)
			return rc;
		if (segue_now_ns() >= until)
			return segue_fail_within(
				until == patience_ns ? SEGUE_EGONE : SEGUE_ETIMEOUT,
				"the server is gone and did not come back in time");
		rc = back_off(client, &delay, until);
		if (rc)
			return rc;
	}
}

static int ready(struct segue_client *client, int64_t deadline_ns)
{
	int64_t patience = segue_deadline(segue_now_ns(), client->timeout_ns);

	if (segue_connection_live(&client->connection))
		return 0;
	int rc = connect_once(client, patience);
	if (rc != SEGUE_EGONE)
		return rc;
	int found = await_socket(client, patience);
	if (found <= 0)
		return found;
	bool again = client->epoch > 0;
	if (!again && client->no_start)
		return segue_fail(
			rc, "%s; 'segue serve %s' starts one", segue_error_detail(), client->dir);
	rc = client->may_start ? client->may_start(client->lanes) : 0;
	if (!rc)
		rc = segue_client_check_dir(client);
	if (rc)
		return rc;
	return client->no_start ? await_server(client, deadline_ns, patience)
				: start(client, patience);
}

int segue_client_lost(struct segue_client *client, struct segue_losses *losses, int64_t deadline_ns)
{
	int64_t now = segue_now_ns();

	losses->last = now;
	if (!losses->first) {
		losses->first = now;
		losses->delay = DELAY_FIRST;
		return 0;
	}
	if (now - losses->first >= client->timeout_ns)
		return segue_fail_within(SEGUE_EGONE, "the server was lost again and again");
	if (now >= deadline_ns)
		return segue_fail_within(SEGUE_ETIMEOUT, "the server was lost");
	return back_off(client, &losses->delay, deadline_ns);
}

int segue_client_missing(const struct segue_client *client, int rc)
{
	int64_t patience = client->timeout_ns / 2;

	if (rc != SEGUE_ENOTFOUND || client->epoch <= 1)
		return rc;
	if (patience > MAKER_NS)
		patience = MAKER_NS;
	return segue_now_ns() - client->connected_ns < patience ? SEGUE_EGONE : rc;
}

int segue_client_run(
	struct segue_client *client, int64_t deadline_ns, int (*attempt)(void *arg), void *arg)
{
	struct segue_losses losses = {0};

	for (;;) {
		int rc = ready(client, deadline_ns);
		if (rc)
			return rc;
		rc = attempt(arg);
		if (rc != SEGUE_EGONE)
			return rc;
		rc = segue_client_lost(client, &losses, deadline_ns);
		if (rc)
			return rc;
	}
}

int segue_client_call(struct segue_client *client, struct segue_message *request,
	enum segue_message_type want, int64_t timeout_ns, struct segue_reply *reply)
{
	return segue_connection_call(
		&client->connection, request, want, timeout_ns, &client->hooks, reply);
}

/* ---- Handle ---- */

/* The path as it stays right when the working directory changes. NULL if there is no memory. */
static char *absolute(const char *path, const char *below)
{
	char *cwd = *path == '/' ? strdup("") : getcwd(NULL, 0);
	char *out = NULL;

	if (cwd && asprintf(&out, "%s%s%s%s", cwd, *cwd ? "/" : "", path, below) < 0)
		out = NULL;
	free(cwd);
	return out;
}

static int set_paths(
	struct segue_client *client, const char *dir, const struct segue_open_options *options)
{
	client->dir = absolute(dir, "");
	client->own_socket = options->socket_path != NULL;
	client->socket_path = client->own_socket ? absolute(options->socket_path, "")
						 : absolute(dir, "/segue.sock");
	if (!client->dir || !client->socket_path)
		return segue_fail_errno(
			SEGUE_ESYSTEM, "cannot make %s an absolute path: give one", dir);
	if (options->program) {
		client->program = strdup(options->program);
		if (!client->program)
			return segue_fail(SEGUE_ENOMEM, "no memory for a path");
	}
	return 0;
}

int segue_open(const char *dir, const struct segue_open_options *given, struct segue_client **out)
{
	struct segue_open_options options = {.size = sizeof(options)};
	int rc;

	if (!dir || !out)
		return segue_fail(SEGUE_EINVAL, "segue_open wants a directory and a place for the "
						"client");
	if (!*dir)
		return segue_fail(SEGUE_EINVAL, "the path of the store's directory is empty: \".\" "
						"is the working directory");
	rc = given ? segue_sized_take("segue_open_options", given, sizeof(options), &options) : 0;
	if (rc)
		return rc;
	if (options.timeout_ns < 0 || (options.socket_path && !*options.socket_path))
		return segue_fail(SEGUE_EINVAL,
			options.timeout_ns < 0 ? "timeout_ns is negative"
					       : "the path of the socket is empty: give one, or "
						 "none (--socket, socket=)");
	struct segue_client *client = calloc(1, sizeof(*client));
	if (!client)
		return segue_fail(SEGUE_ENOMEM, "no memory for a client");
	client->hooks = (struct segue_hooks){options.progress, options.interrupt, options.arg};
	client->no_start = options.no_start;
	client->dir_fd = -1;
	client->timeout_ns = options.timeout_ns ? options.timeout_ns : TIMEOUT_NS;
	rc = segue_connection_init(&client->connection);
	if (rc) {
		free(client);
		return rc;
	}
	rc = set_paths(client, dir, &options);
	if (!rc)
		rc = ready(client, INT64_MAX);
	if (rc) {
		segue_client_close(client);
		return rc;
	}
	*out = client;
	return 0;
}

void segue_client_close(struct segue_client *client)
{
	if (!client)
		return;
	segue_connection_finish(&client->connection);
	if (client->dir_fd >= 0)
		close(client->dir_fd);
	free(client->dir);
	free(client->socket_path);
	free(client->program);
	free(client);
}
