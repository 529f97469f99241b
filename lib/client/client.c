/* A client: connecting, starting the server, connecting again; requests that move bytes. */
#include "client/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/starter.h"
#include "core/error.h"
#include "core/wait.h"

#define MILLISECOND INT64_C(1000000)
#define TIMEOUT_NS  (30000 * MILLISECOND)
#define DELAY_FIRST (20 * MILLISECOND)
#define DELAY_LAST  (1000 * MILLISECOND)

/* ---- Connecting ---------------------------------------------------------------------------- */

static int connect_once(struct segue_client *client, int64_t deadline_ns)
{
	int rc = segue_connection_open(
		&client->connection, client->socket_path, client->dir, deadline_ns, &client->hooks);

	if (rc == 0)
		client->epoch++;
	return rc;
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
		if (rc == 0)
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
	int rc = segue_starter_lock(client->dir, &deadline_ns, &client->hooks, &lock);

	if (rc)
		return rc;
	rc = start_locked(client, lock.fd, deadline_ns);
	segue_fork_guard_finish(&lock);
	return rc;
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

/* A server that stopped because its storage failed is not started again: it would go on failing. */
static int check_storage(const struct segue_client *client)
{
	for (const struct segue_lane *lane = client->lanes; lane; lane = lane->next) {
		int rc = lane->mapping ? segue_lane_check_storage(lane) : 0;
		if (rc)
			return segue_fail_within(rc,
				"the server is gone, and is not started again after a storage "
				"error");
	}
	return 0;
}

static int ready(struct segue_client *client, int64_t deadline_ns)
{
	int64_t patience = segue_deadline(segue_now_ns(), client->timeout_ns);

	if (segue_connection_live(&client->connection))
		return 0;
	int rc = connect_once(client, patience);
	if (rc != SEGUE_EGONE)
		return rc;
	bool again = client->epoch > 0;
	if (!again && client->no_start)
		return rc;
	rc = check_storage(client);
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

/* ---- Handle -------------------------------------------------------------------------------- */

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
	const size_t limit = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

	client->dir = absolute(dir, "");
	client->own_socket = options->socket_path != NULL;
	client->socket_path = client->own_socket ? absolute(options->socket_path, "")
						 : absolute(dir, "/segue.sock");
	if (!client->dir || !client->socket_path)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make %s an absolute path", dir);
	size_t length = strlen(client->socket_path);
	if (length > limit)
		return segue_fail(SEGUE_EINVAL,
			"the path of the socket has %zu bytes, the system allows %zu: give a "
			"shorter path with --socket / socket= (%s)",
			length, limit, client->socket_path);
	if (options->program) {
		client->program = strdup(options->program);
		if (!client->program)
			return segue_fail(SEGUE_ENOMEM, "no memory for a path");
	}
	return 0;
}

int segue_open(const char *dir, const struct segue_open_options *options, struct segue_client **out)
{
	static const struct segue_open_options defaults;

	if (!dir || !*dir || !out)
		return segue_fail(SEGUE_EINVAL, "segue_open wants a directory and a place for the "
						"client");
	if (!options)
		options = &defaults;
	if (options->timeout_ns < 0 || (options->socket_path && !*options->socket_path))
		return segue_fail(SEGUE_EINVAL, options->timeout_ns < 0 ? "timeout_ns is negative"
									: "socket_path is empty");
	struct segue_client *client = calloc(1, sizeof(*client));
	if (!client)
		return segue_fail(SEGUE_ENOMEM, "no memory for a client");
	client->hooks = (struct segue_hooks){options->progress, options->interrupt, options->arg};
	client->no_start = options->no_start;
	client->timeout_ns = options->timeout_ns ? options->timeout_ns : TIMEOUT_NS;
	int rc = segue_connection_init(&client->connection);
	if (rc) {
		free(client);
		return rc;
	}
	rc = set_paths(client, dir, options);
	if (rc == 0)
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
	free(client->dir);
	free(client->socket_path);
	free(client->program);
	free(client);
}

/* ---- Bytes --------------------------------------------------------------------------------- */

int segue_client_call(struct segue_client *client, struct segue_message *request,
	enum segue_message_type want, int64_t timeout_ns, struct segue_reply *reply)
{
	return segue_connection_call(
		&client->connection, request, want, timeout_ns, &client->hooks, reply);
}

int segue_client_upload(
	struct segue_client *client, uint64_t size, struct segue_shm *out, uint64_t *id)
{
	struct segue_message request = {.type = SEGUE_MESSAGE_UPLOAD, .upload = {.size = size}};
	struct segue_reply reply;
	int rc = segue_client_call(client, &request, SEGUE_MESSAGE_BULK, SEGUE_REQUEST_NS, &reply);

	if (rc)
		return rc;
	rc = segue_shm_map(reply.fds[0], size, SEGUE_SHM_WRITE, out);
	if (rc) {
		close(reply.fds[0]);
		return segue_fail_within(rc, "the upload of %llu bytes", (unsigned long long)size);
	}
	*id = reply.message.bulk.id;
	return 0;
}

int segue_client_upload_bytes(
	struct segue_client *client, const void *bytes, size_t size, uint64_t *id)
{
	struct segue_shm upload;
	int rc = segue_client_upload(client, size, &upload, id);

	if (rc)
		return rc;
	memcpy(upload.map, bytes, size);
	segue_shm_destroy(&upload);
	return 0;
}

int segue_client_fetch(struct segue_client *client, struct segue_message *request,
	int64_t timeout_ns, void **bytes, size_t *size)
{
	struct segue_shm segment;
	struct segue_reply reply;
	int rc = segue_client_call(client, request, SEGUE_MESSAGE_BULK, timeout_ns, &reply);

	if (rc)
		return rc;
	uint64_t got = reply.message.bulk.size;
	rc = segue_shm_map(reply.fds[0], got, SEGUE_SHM_READ, &segment);
	if (rc) {
		close(reply.fds[0]);
		return segue_fail_within(rc, "the answer of %llu bytes", (unsigned long long)got);
	}
	char *copy = malloc(got + 1);
	if (copy) {
		memcpy(copy, segment.map, got);
		copy[got] = '\0';
		*bytes = copy;
		*size = got;
	} else {
		rc = segue_fail(SEGUE_ENOMEM, "no memory for an answer of %llu bytes",
			(unsigned long long)got);
	}
	segue_shm_destroy(&segment);
	return rc;
}

struct report_attempt {
	struct segue_client *client;
	struct segue_message request;
	void *json;
	size_t size;
};

static int attempt_report(void *arg)
{
	struct report_attempt *report = arg;
	/* Checking every value takes as long as it takes. */
	bool all = report->request.report.what == SEGUE_REPORT_VERIFY;

	return segue_client_fetch(report->client, &report->request,
		all ? INT64_MAX : SEGUE_REQUEST_NS, &report->json, &report->size);
}

int segue_client_report(struct segue_client *client, enum segue_report what, const char *stream,
	const char *key, char **json)
{
	if (!client || !json)
		return segue_fail(SEGUE_EINVAL, "segue_client_report wants a client and a place "
						"for the text");
	int rc = segue_fork_check(&client->connection.guard);
	if (rc)
		return rc;
	if (what < SEGUE_REPORT_STATUS || what > SEGUE_REPORT_VERIFY)
		return segue_fail(SEGUE_EINVAL, "there is no report %d", (int)what);
	if (what == SEGUE_REPORT_GET && (!key || !*key))
		return segue_fail(SEGUE_EINVAL, "the report of a key's states wants the key");
	struct report_attempt report = {
		.client = client,
		.request = {.type = SEGUE_MESSAGE_REPORT,
			.report = {.what = what,
				.stream = stream ? stream : "",
				.key = key ? key : ""}},
	};
	rc = segue_client_run(client, INT64_MAX, attempt_report, &report);
	if (rc == 0)
		*json = report.json;
	return rc;
}

/* ---- Checkpoints in the store --------------------------------------------------------------- */

struct stored_attempt {
	struct segue_client *client;
	struct segue_message request;
	void *token;
	size_t size;
};

static int attempt_stored(void *arg)
{
	struct stored_attempt *call = arg;
	struct segue_reply reply;

	return call->request.stored.remove ? segue_client_call(call->client, &call->request,
						     SEGUE_MESSAGE_DONE, SEGUE_REQUEST_NS, &reply)
					   : segue_client_fetch(call->client, &call->request,
						     SEGUE_REQUEST_NS, &call->token, &call->size);
}

static int run_stored(struct stored_attempt *call, struct segue_client *client, const char *stream)
{
	if (!client || !stream)
		return segue_fail(SEGUE_EINVAL, "a client and the name of a stream are wanted");
	int rc = segue_fork_check(&client->connection.guard);
	if (rc)
		return rc;
	call->client = client;
	call->request.type = SEGUE_MESSAGE_STORED;
	call->request.stored.stream = stream;
	return segue_client_run(client, INT64_MAX, attempt_stored, call);
}

int segue_client_checkpoint(struct segue_client *client, const char *stream, uint32_t lane,
	uint64_t id, void **token, size_t *size)
{
	struct stored_attempt call = {.request = {.stored = {.lane = lane, .id = id}}};

	if (!token || !size)
		return segue_fail(SEGUE_EINVAL, "places for the token and its size are wanted");
	int rc = run_stored(&call, client, stream);
	if (rc)
		return rc;
	*token = call.token;
	*size = call.size;
	return 0;
}

int segue_client_checkpoint_remove(
	struct segue_client *client, const char *stream, uint32_t lane, uint64_t id)
{
	struct stored_attempt call = {
		.request = {.stored = {.lane = lane, .id = id, .remove = true}}};

	return run_stored(&call, client, stream);
}
