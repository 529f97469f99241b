/* The server: starts, runs the loop, stops. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/wait.h"
#include "os/notify.h"
#include "report/verifier.h"
#include "session/server.h"
#include "stream/ledger.h"

#define LOCK_WAIT_NS      INT64_C(5000000000)  /* embedded: the one before may still be ending */
#define LOG_NS            INT64_C(5000000000)  /* between two lines about long work */
#define NOBODY_WAIT_NS    INT64_C(30000000000) /* embedded: the client that started it never came */
#define UNWRITTEN_WAIT_NS INT64_C(10000000000) /* embedded, nobody here: for memory to write with */

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

	snprintf(line, sizeof(line), "%s%s", code ? "storage failed: " : "storage works again",
		code ? detail : "");
	if (code != server->storage_error)
		logf_line(line);
	server->storage_error = code;
	snprintf(server->storage_detail, sizeof(server->storage_detail), "%s", code ? detail : "");
	segue_stream_storage(server, code, detail);
}

/* What is committed goes to disk if it can, then the loop ends. */
static void begin_stop(struct segue_server *server)
{
	server->stopping = true;
	segue_notify("STOPPING=1\nSTATUS=writing what is committed");
	segue_errands_give_up(server);
	segue_committer_try_once(server->committer);
	segue_listener_destroy(server->listener);
	server->listener = NULL;
}

static void signalled(void *arg, int signal)
{
	struct segue_server *server = arg;

	(void)signal;
	if (server->told)
		_exit(1); /* the second one: at once */
	server->told = true;
	if (!server->stopping)
		begin_stop(server);
}

/* Whether what is left to be written may be waited for in vain. */
static bool waits_in_vain(const struct segue_server *server, int64_t now)
{
	return server->storage_error ||
	       (server->unwritten_ns && now - server->unwritten_ns > UNWRITTEN_WAIT_NS);
}

/* Embedded: everybody has left, or nobody ever came. */
static bool deserted(const struct segue_server *server, int64_t now)
{
	if (!server->options.embedded || server->sessions)
		return false;
	if (server->jobs > 0 && !waits_in_vain(server, now))
		return false;
	return server->had_sessions || now - server->started_ns > NOBODY_WAIT_NS;
}

/* The manager hears that the loop goes round, twice in each period. */
static void keep_watchdog(struct segue_server *server, int64_t now)
{
	int64_t period = segue_notify_watchdog_ns() / 2;

	if (period <= 0)
		return;
	if (now >= server->watchdog_at) {
		segue_notify("WATCHDOG=1");
		server->watchdog_at = now + period;
	}
	segue_loop_tick_within(server->loop, server->watchdog_at);
}

static void tick(void *arg, int64_t now)
{
	struct segue_server *server = arg;

	keep_watchdog(server, now);
	segue_session_tick(server, now);
	segue_listener_tick(server->listener, now);
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
	if (errno == ENOTDIR)
		return segue_fail_no_directory(dir);
	return segue_fail_errno(errno == EROFS || errno == EACCES ? SEGUE_EREADONLY : SEGUE_ESYSTEM,
		"the store directory %s cannot be made", dir);
}

static int set_paths(struct segue_server *server)
{
	const struct segue_options *options = &server->options;
	char resolved[PATH_MAX];
	struct stat info;

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
	if (stat(server->dir, &info) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "the store directory %s", server->dir);
	server->dir_device = info.st_dev;
	server->dir_inode = info.st_ino;
	return 0;
}

/* Whoever started an embedded server reads these lines (starter.c). */
static void tell_verifying(void *arg, const char *what, uint64_t done, uint64_t total)
{
	struct segue_server *server = arg;
	int64_t now = segue_now_ns();

	if (server->options.embedded) {
		fprintf(stderr, "progress %llu %llu %s\n", (unsigned long long)done,
			(unsigned long long)total, what);
		fflush(stderr);
	} else if (now - server->logged_ns >= LOG_NS) {
		server->logged_ns = now;
		segue_notify("EXTEND_TIMEOUT_USEC=120000000\nSTATUS=%s: %llu of %llu MiB", what,
			(unsigned long long)(done >> 20), (unsigned long long)(total >> 20));
		fprintf(stderr, "segue: %s: %llu of %llu MiB\n", what,
			(unsigned long long)(done >> 20), (unsigned long long)(total >> 20));
		fflush(stderr);
	}
}

/* The loop, which takes signals, does not run yet. */
static int told_to_stop(void *arg)
{
	sigset_t pending;

	(void)arg;
	return sigpending(&pending) == 0 &&
	       (sigismember(&pending, SIGTERM) || sigismember(&pending, SIGINT));
}

/* Another process looks at the file first. What it could not do is judged when the file is open. */
static int verify_store(void *arg)
{
	struct segue_server *server = arg;
	const struct segue_verifier how = {
		.if_due = true,
		.progress = tell_verifying,
		.interrupt = told_to_stop,
		.arg = server,
	};
	char *report = NULL;

	server->logged_ns = segue_now_ns();
	int rc = segue_verifier_run(server->dir, &how, &report);
	free(report);
	server->unverified = rc;
	snprintf(server->unverified_detail, sizeof(server->unverified_detail), "%s",
		rc ? segue_error_detail() : "");
	return rc == SEGUE_ESTORE || rc == SEGUE_EGONE ? rc : 0;
}

static int trust_store(struct segue_server *server)
{
	struct segue_store_stats stats;

	segue_store_stats(server->store, &stats);
	if (stats.was_clean || stats.same_boot)
		return 0;
	if (server->unverified)
		return segue_fail(server->unverified,
			"%s; it was not left in order, and is not served before it is verified: "
			"start the server again, or see what 'segue verify' says",
			server->unverified_detail);
	logf_line("the store was not left in order: it has been verified and is sound");
	return segue_store_trust(server->store);
}

static int open_store(struct segue_server *server)
{
	int64_t until = server->options.embedded ? segue_now_ns() + LOCK_WAIT_NS : 0;
	const struct segue_store_serving serving = {
		.check = verify_store, .arg = server, .map_bytes = server->options.map_bytes};

	for (;;) {
		int rc = segue_store_serve(server->dir, &serving, &server->store);
		if (rc == 0)
			return trust_store(server);
		if (rc != SEGUE_EBUSY || segue_now_ns() >= until)
			return rc;
		usleep(20000);
	}
}

/* ---- A mapped file that cannot be read ---- */

/* All that the handler may use. */
static struct {
	char text[PATH_MAX + 256], suspect[PATH_MAX + 16];
	size_t size;
	int status;
} unreadable;

/* No attempt to go on: the next start verifies the store before it is served. */
static void on_bus_error(int signal)
{
	(void)signal;
	int fd = open(
		unreadable.suspect, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd >= 0)
		close(fd);
	if (write(STDERR_FILENO, unreadable.text, unreadable.size) < 0)
		_exit(unreadable.status);
	_exit(unreadable.status);
}

static void watch_bus_errors(const struct segue_server *server)
{
	const struct sigaction action = {.sa_handler = on_bus_error, .sa_flags = (int)SA_RESETHAND};

	snprintf(unreadable.suspect, sizeof(unreadable.suspect), "%s/" SEGUE_STORE_SUSPECT,
		server->dir);
	snprintf(unreadable.text, sizeof(unreadable.text),
		"segue: %s/store/data.mdb could not be read where it is mapped (SIGBUS): it was "
		"cut "
		"short, or its disk fails. The server ends; the next one verifies the store "
		"first\n",
		server->dir);
	unreadable.size = strlen(unreadable.text);
	unreadable.status = server->options.embedded ? -SEGUE_ESTORE : SEGUE_SERVER_UNREADABLE;
	sigaction(SIGBUS, &action, NULL);
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
		return segue_fail_within(
			segue_unless_memory(rc, SEGUE_ESTORE), "the record of a stream");
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
	rc = set_paths(server);
	if (rc)
		return rc;
	watch_bus_errors(server);
	if ((rc = open_store(server)) ||
		(rc = segue_store_scan(
			 server->store, SEGUE_TABLE_STREAMS, "", 0, see_stream, NULL, server)) ||
		(rc = segue_loop_create(&server->loop)) ||
		(rc = segue_committer_create(
			 server->store, server->loop, storage_news, server, &server->committer)))
		return rc;
	return segue_listener_create(server, server->socket_path, &server->listener);
}

static void tell_ready(const struct segue_server *server)
{
	int fd = server->options.ready_fd;

	segue_notify("READY=1\nMAINPID=%ld\nSTATUS=serves %s at %s", (long)getpid(), server->dir,
		server->socket_path);
	if (fd < 0)
		return;
	ssize_t written;
	do {
		written = write(fd, "", 1);
	} while (written < 0 && errno == EINTR);
	close(fd);
}

/* Returns how many leases have ended with commits that are not on disk. */
static unsigned finish(struct segue_server *server)
{
	segue_listener_destroy(server->listener);
	while (server->sessions)
		segue_session_close(server->sessions);
	segue_users_stop(server);
	unsigned unwritten = segue_committer_destroy(server->committer);
	segue_stream_destroy_all(server);
	segue_loop_destroy(server->loop);
	segue_session_destroy_all(server);
	segue_users_destroy(server);
	segue_store_close(server->store);
	free(server->dir);
	free(server->socket_path);
	return unwritten;
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
	unsigned unwritten = finish(&server);
	if (!rc && unwritten)
		rc = segue_fail(server.storage_error ? server.storage_error : SEGUE_ENOMEM,
			"ended although the last commits of %u lane%s are not on disk: %s (a "
			"worker "
			"that still runs hands them to the next server)",
			unwritten, unwritten == 1 ? "" : "s", server.storage_detail);
	return rc;
}
