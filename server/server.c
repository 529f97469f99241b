/* The server: starts, runs the loop, stops. */
#include "server.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "ledger.h"
#include "wait.h"

#define LOCK_WAIT_NS   INT64_C(5000000000)  /* embedded: the one before may still be ending */
#define NOBODY_WAIT_NS INT64_C(30000000000) /* embedded: the client that started it never came */

static void logf_line(const char *text)
{
	fprintf(stderr, "segue: %s\n", text);
	fflush(stderr);
}

/* ---- Loop callbacks ---- */

static void storage_news(void *arg, int code, const char *detail)
{
	struct segue_server *server = arg;
	char line[SEGUE_ERROR_TEXT + 64];

	server->storage_error = code;
	snprintf(line, sizeof(line), "%s%s", code ? "storage failed: " : "storage works again",
		code ? detail : "");
	logf_line(line);
	segue_stream_storage(server, code, detail);
}

/* What is committed goes to disk if it can, then the loop ends. */
static void begin_stop(struct segue_server *server)
{
	server->stopping = true;
	segue_writer_try_once(server->writer);
	segue_listener_destroy(server->listener);
	server->listener = NULL;
}

static void signalled(void *arg, int signal)
{
	struct segue_server *server = arg;

	(void)signal;
	if (server->stopping)
		_exit(1); /* the second one: at once */
	begin_stop(server);
}

/* Embedded: everybody has left, or nobody ever came. */
static bool deserted(const struct segue_server *server, int64_t now)
{
	if (!server->options.embedded || server->sessions)
		return false;
	/* Where storage fails, what is left to be written would be waited for in vain. */
	if (server->jobs > 0 && !server->storage_error)
		return false;
	return server->had_sessions || now - server->started_ns > NOBODY_WAIT_NS;
}

static void tick(void *arg, int64_t now)
{
	struct segue_server *server = arg;

	segue_session_tick(server, now);
	segue_loop_tick_within(server->loop, segue_stream_tick(server, now));
	if (!server->stopping && deserted(server, now))
		begin_stop(server);
	if (server->stopping && segue_stream_stop(server))
		segue_loop_stop(server->loop);
	else if (server->options.embedded && !server->had_sessions)
		segue_loop_tick_within(server->loop, server->started_ns + NOBODY_WAIT_NS + 1);
}

/* ---- Start ---- */

static int make_directory(const char *dir)
{
	if (mkdir(dir, 0700) == 0 || errno == EEXIST)
		return 0;
	return segue_fail_errno(errno == EROFS || errno == EACCES ? SEGUE_EREADONLY : SEGUE_ESYSTEM,
		"the store directory %s cannot be made", dir);
}

static int set_paths(struct segue_server *server)
{
	const struct segue_options *options = &server->options;
	char resolved[PATH_MAX];

	int rc = make_directory(options->dir);
	if (rc)
		return rc;
	if (!realpath(options->dir, resolved))
		return segue_fail_errno(SEGUE_ESYSTEM, "the store directory %s", options->dir);
	server->dir = strdup(resolved);
	if (options->socket_path)
		server->socket_path = strdup(options->socket_path);
	else if (asprintf(&server->socket_path, "%s/segue.sock", options->dir) < 0)
		server->socket_path = NULL;
	if (!server->dir || !server->socket_path)
		return segue_fail(SEGUE_ENOMEM, "no memory to start");
	return 0;
}

static int open_store(struct segue_server *server)
{
	int64_t until = server->options.embedded ? segue_now_ns() + LOCK_WAIT_NS : 0;

	for (;;) {
		int rc = segue_store_open(server->dir, SEGUE_STORE_SERVE, &server->store);
		if (rc != SEGUE_EBUSY || segue_now_ns() >= until)
			return rc;
		usleep(20000);
	}
}

/* The next free id of a stream. */
static int see_stream(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct segue_server *server = arg;
	struct segue_stream_record record;

	(void)key;
	(void)key_size;
	int rc = segue_stream_record_unpack(value, value_size, &record);
	if (rc)
		return segue_fail_within(rc, "the record of a stream");
	segue_spec_destroy(record.spec);
	if (record.id >= server->next_stream)
		server->next_stream = record.id + 1;
	return 0;
}

static int start(struct segue_server *server)
{
	int rc;

	segue_random(&server->instance, sizeof(server->instance));
	server->started_ms = segue_unix_ms();
	server->started_ns = segue_now_ns();
	server->next_stream = 1;
	if ((rc = set_paths(server)) || (rc = open_store(server)) ||
		(rc = segue_store_scan(
			 server->store, SEGUE_TABLE_STREAMS, "", 0, see_stream, NULL, server)) ||
		(rc = segue_loop_create(&server->loop)) ||
		(rc = segue_writer_create(
			 server->store, server->loop, storage_news, server, &server->writer)) ||
		(rc = segue_pool_create("reports", 1, &server->reports)))
		return rc;
	return segue_listener_create(server, server->socket_path, &server->listener);
}

static void tell_ready(const struct segue_server *server)
{
	int fd = server->options.ready_fd;

	if (fd < 0)
		return;
	ssize_t written;
	do {
		written = write(fd, "", 1);
	} while (written < 0 && errno == EINTR);
	close(fd);
}

static void finish(struct segue_server *server)
{
	segue_listener_destroy(server->listener);
	while (server->sessions)
		segue_session_close(server->sessions);
	segue_pool_destroy(server->reports);
	segue_writer_destroy(server->writer);
	segue_stream_destroy_all(server);
	segue_loop_destroy(server->loop);
	segue_store_close(server->store);
	free(server->dir);
	free(server->socket_path);
}

int segue_server_run(const struct segue_options *options)
{
	struct segue_server server = {.options = *options};

	/* What an index or a ring took goes back to the system when it is freed. */
	mallopt(M_MMAP_THRESHOLD, 128 * 1024);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	segue_loop_block_signals();
	int rc = start(&server);
	if (!rc) {
		tell_ready(&server);
		segue_loop_tick_within(server.loop, server.started_ns);
		rc = segue_loop_run(server.loop, tick, signalled, &server);
	}
	finish(&server);
	return rc;
}
