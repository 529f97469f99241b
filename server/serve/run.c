/* The server: starts, runs the loop, stops. */
#include "serve/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
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
#include "engine/committer.h"
#include "engine/live_dir.h"
#include "os/notify.h"
#include "os/random.h"
#include "report/contents.h"
#include "report/verifier.h"
#include "serve/requests.h"
#include "session/listener.h"
#include "session/request.h"
#include "store/drop.h"
#include "stream/checkpoint.h"
#include "stream/streams.h"

#define LOCK_WAIT_NS      INT64_C(5000000000)  /* embedded: the one before may still be ending */
#define LOG_NS            INT64_C(5000000000)  /* between two lines about long work */
#define NOBODY_WAIT_NS    INT64_C(30000000000) /* embedded: the client that started it never came */
#define UNWRITTEN_WAIT_NS INT64_C(10000000000) /* embedded, nobody here: for memory to write with */

/* A server, and what only its start and end look at. */
struct run {
	struct segue_server server;
	struct segue_options options;
	struct segue_sessions sessions;
	struct segue_streams streams;
	struct segue_listener *listener;
	char *dir, *socket_path;
	int64_t watchdog_at;           /* the service manager is told that we live */
	int64_t logged_ns;             /* when long work was logged last */
	struct segue_outcome verified; /* what came of it, if it was due */
	bool told;                     /* by a signal to stop */
};

/* ---- Loop callbacks ---- */

static void storage_news(void *arg, const struct segue_outcome *outcome)
{
	struct run *run = arg;
	struct segue_server *server = &run->server;

	/* Moved back since then: those who go on must not meet that again. */
	if (outcome->rc == SEGUE_EMOVED && !server->stopping && !segue_store_look(server->store)) {
		segue_committer_flush(server->committer);
		return;
	}
	if (outcome->rc != server->storage.rc && outcome->rc)
		fprintf(stderr, "segue: storage failed: %s\n", outcome->detail);
	else if (outcome->rc != server->storage.rc)
		fprintf(stderr, "segue: storage works again\n");
	server->storage = *outcome;
	segue_streams_storage(server);
}

/* What is committed goes to disk if it can, then the loop ends. */
static void begin_stop(struct run *run)
{
	struct segue_server *server = &run->server;

	server->stopping = true;
	segue_notify("STOPPING=1\nSTATUS=writing what is committed");
	segue_guard_close(server->guard);
	segue_requests_give_up(server);
	segue_committer_try_once(server->committer);
	segue_listener_destroy(run->listener);
	run->listener = NULL;
}

static void signalled(void *arg, int signal)
{
	struct run *run = arg;

	(void)signal;
	if (run->told)
		_exit(1); /* the second one: at once */
	run->told = true;
	if (!run->server.stopping)
		begin_stop(run);
}

/* Whether what is left to be written may be waited for in vain. */
static bool waits_in_vain(const struct segue_server *server, int64_t now)
{
	return server->storage.rc ||
	       (server->unwritten_ns && now - server->unwritten_ns > UNWRITTEN_WAIT_NS);
}

/* Embedded: everybody has left, or nobody ever came. */
static bool deserted(const struct segue_server *server, int64_t now)
{
	if (!server->embedded || !LIST_EMPTY(&server->sessions->all))
		return false;
	if (segue_loop_awaited(server->loop) > 0 && !waits_in_vain(server, now))
		return false;
	return server->sessions->any || now - server->started_ns > NOBODY_WAIT_NS;
}

/* The manager hears that the loop goes round, twice in each period. */
static void keep_watchdog(struct run *run, int64_t now)
{
	int64_t period = segue_notify_watchdog_ns() / 2;

	if (period <= 0)
		return;
	if (now >= run->watchdog_at) {
		segue_notify("WATCHDOG=1");
		run->watchdog_at = now + period;
	}
	segue_loop_tick_within(run->server.loop, run->watchdog_at);
}

static void tick(void *arg, int64_t now)
{
	struct run *run = arg;
	struct segue_server *server = &run->server;

	keep_watchdog(run, now);
	segue_sessions_tick(server, now);
	segue_listener_tick(run->listener, now);
	segue_checkpoints_tick(server, now);
	segue_streams_tick(server, now);
	if (!server->stopping && deserted(server, now))
		begin_stop(run);
	if (server->stopping && segue_streams_stop(server))
		segue_loop_stop(server->loop);
	else if (server->embedded && !server->sessions->any)
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

static int set_paths(struct run *run)
{
	const struct segue_options *options = &run->options;
	struct segue_server *server = &run->server;
	char resolved[PATH_MAX];
	struct stat info;

	int rc = make_directory(options->dir);
	if (rc)
		return rc;
	if (!realpath(options->dir, resolved))
		return segue_fail_errno(
			SEGUE_ESYSTEM, "cannot look at the store directory %s", options->dir);
	server->dir = run->dir = strdup(resolved);
	if (options->socket_path)
		run->socket_path = strdup(options->socket_path);
	else if (asprintf(&run->socket_path, "%s/segue.sock", options->dir) < 0)
		run->socket_path = NULL;
	server->socket_path = run->socket_path;
	if (!server->dir || !server->socket_path)
		return segue_fail(SEGUE_ENOMEM, "no memory to start");
	if (stat(server->dir, &info) < 0)
		return segue_fail_errno(
			SEGUE_ESYSTEM, "cannot look at the store directory %s", server->dir);
	server->device = info.st_dev;
	server->inode = info.st_ino;
	return 0;
}

/* Whoever started an embedded server reads these lines (starter.c). */
static void tell_verifying(void *arg, const char *what, uint64_t done, uint64_t total)
{
	struct run *run = arg;
	int64_t now = segue_now_ns();

	if (run->options.embedded) {
		fprintf(stderr, "progress %" PRIu64 " %" PRIu64 " %s\n", done, total, what);
	} else if (now - run->logged_ns >= LOG_NS) {
		run->logged_ns = now;
		segue_notify("EXTEND_TIMEOUT_USEC=120000000\nSTATUS=%s: %" PRIu64 " of %" PRIu64
			     " MiB",
			what, done >> 20, total >> 20);
		fprintf(stderr, "segue: %s: %" PRIu64 " of %" PRIu64 " MiB\n", what, done >> 20,
			total >> 20);
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
	struct run *run = arg;
	const struct segue_verifier how = {
		.if_due = true,
		.progress = tell_verifying,
		.interrupt = told_to_stop,
		.arg = run,
	};
	char *report = NULL;

	run->logged_ns = segue_now_ns();
	int rc = segue_verifier_run(run->dir, &how, &report);
	free(report);
	segue_outcome_take(&run->verified, rc);
	return rc == SEGUE_ESTORE || rc == SEGUE_EGONE ? rc : 0;
}

static int trust_store(const struct run *run)
{
	struct segue_store_stats stats;

	segue_store_stats(run->server.store, &stats);
	if (stats.was_clean || stats.same_boot)
		return 0;
	if (run->verified.rc)
		return segue_fail(run->verified.rc,
			"%s; it was not left in order, and is not served before it is verified: "
			"start the server again, or see what 'segue verify' says",
			run->verified.detail);
	fprintf(stderr,
		"segue: the store was not left in order: it has been verified and is sound\n");
	return segue_store_trust(run->server.store);
}

static int open_store(struct run *run)
{
	int64_t until = run->options.embedded ? segue_now_ns() + LOCK_WAIT_NS : 0;
	const struct segue_store_serving serving = {
		.check = verify_store,
		.arg = run,
		.map_bytes = run->options.map_bytes,
		.named = run->options.dir,
	};

	for (;;) {
		int rc = segue_store_serve(run->dir, &serving, &run->server.store);
		if (!rc)
			return trust_store(run);
		if (rc != SEGUE_EBUSY || segue_now_ns() >= until)
			return rc;
		usleep(20000);
	}
}

/* ---- A mapped file that cannot be read ---- */

/* All that the handler may use. */
static struct {
	char text[PATH_MAX + 256];
	size_t size;
	int status;
	int dir; /* the directory itself, wherever it is by then */
} unreadable = {.dir = -1};

/* No attempt to go on: the next start verifies the store before it is served. */
static void on_bus_error(int signal)
{
	(void)signal;
	int fd = openat(unreadable.dir, SEGUE_STORE_SUSPECT,
		O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd >= 0)
		close(fd);
	if (write(STDERR_FILENO, unreadable.text, unreadable.size) < 0)
		_exit(unreadable.status);
	_exit(unreadable.status);
}

static void watch_bus_errors(const struct segue_server *server)
{
	const struct sigaction action = {.sa_handler = on_bus_error, .sa_flags = (int)SA_RESETHAND};

	if (unreadable.dir >= 0)
		close(unreadable.dir);
	unreadable.dir = open(server->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	snprintf(unreadable.text, sizeof(unreadable.text),
		"segue: %s/store/data.mdb could not be read where it is mapped (SIGBUS): it was "
		"cut short, or its disk fails. The server ends; the next one verifies the store "
		"first\n",
		server->dir);
	unreadable.size = strlen(unreadable.text);
	unreadable.status = server->embedded ? -SEGUE_ESTORE : SEGUE_SERVER_UNREADABLE;
	sigaction(SIGBUS, &action, NULL);
}

static void tell_drop(void *arg, const char *what, uint64_t done, uint64_t total)
{
	struct run *run = arg;
	int64_t now = segue_now_ns();

	if (run->options.embedded) {
		fprintf(stderr, "progress %" PRIu64 " %" PRIu64 " %s\n", done, total, what);
	} else if (now - run->logged_ns >= LOG_NS) {
		run->logged_ns = now;
		segue_notify("EXTEND_TIMEOUT_USEC=120000000\nSTATUS=dropping a stream");
		fprintf(stderr, "segue: dropping a stream: %" PRIu64 " of %" PRIu64 " lanes\n",
			done, total);
	}
}

static int apply_drop(void *arg, const struct segue_ops *ops)
{
	return segue_store_apply(((struct run *)arg)->server.store, ops->op, ops->count);
}

static void forget_log(void *arg, uint32_t id)
{
	segue_live_remove(((struct run *)arg)->dir, id);
}

/* What an earlier server was dropping. Where that cannot be written, the store can be served. */
static int resume_drops(struct run *run)
{
	const struct segue_dropping how = {.apply = apply_drop,
		.forget = forget_log,
		.progress = tell_drop,
		.interrupt = told_to_stop,
		.arg = run};

	int rc = segue_drop_resume(run->server.store, &how);
	if (rc == SEGUE_ENOMEM)
		return rc;
	if (rc)
		fprintf(stderr,
			"segue: what was being dropped is not gone yet, and the next server goes "
			"on with it: %s\n",
			segue_error_detail());
	return 0;
}

/* The next free id of a stream. */
static int number_streams(struct run *run)
{
	struct segue_report_streams list;

	int rc = segue_drop_load_floor(run->server.store, &run->streams.next_id);
	if (rc)
		return rc;
	run->streams.next_id += run->streams.next_id == 0;
	rc = segue_report_load_streams(run->server.store, run->dir, "", &list);
	if (rc)
		return rc;
	for (size_t i = 0; i < list.count; i++)
		if (list.record[i].id >= run->streams.next_id)
			run->streams.next_id = list.record[i].id + 1;
	segue_report_finish_streams(&list);
	return resume_drops(run);
}

static void init(struct run *run, const struct segue_options *options)
{
	*run = (struct run){
		.options = *options,
		.sessions = {.received = segue_requests_received, .gone = segue_requests_gone},
		.streams = {.next_id = 1},
		.server =
			{
				.embedded = options->embedded,
				.sessions = &run->sessions,
				.streams = &run->streams,
				.started_ms = segue_unix_ms(),
				.started_ns = segue_now_ns(),
			},
	};
	segue_random(&run->server.instance, sizeof(run->server.instance));
}

/* What was inserted into a stream can be read again as files, wherever data may be. */
static int let_logs_be_read(struct run *run)
{
	const struct segue_rules *rules = run->options.rules;
	char path[PATH_MAX];

	if (!rules || !rules->roots)
		return 0;
	int rc = segue_live_make_dir(run->dir, path);
	return rc ? rc : segue_roots_add(rules->roots, path);
}

static int start(struct run *run)
{
	struct segue_server *server = &run->server;

	int rc = set_paths(run);
	if (rc)
		return rc;
	watch_bus_errors(server);
	if ((rc = open_store(run)) || (rc = let_logs_be_read(run)) || (rc = number_streams(run)) ||
		(rc = segue_loop_create(&server->loop)) ||
		(rc = segue_guard_create(
			 run->options.rules, server->loop, server->dir, &server->guard)) ||
		(rc = segue_committer_create(
			 server->store, server->loop, storage_news, run, &server->committer)))
		return rc;
	return segue_listener_create(server, run->options.listen_fd, &run->listener);
}

static void tell_ready(const struct run *run)
{
	int fd = run->options.ready_fd;

	segue_notify("READY=1\nMAINPID=%ld\nSTATUS=serves %s at %s", (long)getpid(), run->dir,
		run->socket_path);
	if (fd < 0)
		return;
	ssize_t written;
	do {
		written = write(fd, "", 1);
	} while (written < 0 && errno == EINTR);
	close(fd);
}

/* Returns how many leases have ended with commits that are not on disk. */
static unsigned finish(struct run *run)
{
	struct segue_server *server = &run->server;

	segue_listener_destroy(run->listener);
	segue_sessions_close(server);
	if (server->guard)
		segue_guard_finish_tasks(server->guard);
	segue_streams_quiesce(server); /* while what they store can be */
	unsigned unwritten = segue_committer_destroy(server->committer);
	segue_streams_destroy(server);
	segue_loop_destroy(server->loop);
	segue_sessions_destroy(server);
	segue_guard_destroy(server->guard);
	segue_store_close(server->store);
	free(run->dir);
	free(run->socket_path);
	return unwritten;
}

int segue_server_run(const struct segue_options *options)
{
	struct run run;

	/* What an index or a ring took goes back to the system when it is freed. */
	mallopt(M_MMAP_THRESHOLD, 128 * 1024);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	segue_loop_block_signals();
	init(&run, options);
	int rc = start(&run);
	if (!rc) {
		tell_ready(&run);
		segue_loop_tick_within(run.server.loop, run.server.started_ns);
		rc = segue_loop_run(run.server.loop, tick, signalled, &run);
	}
	unsigned unwritten = finish(&run);
	if (!rc && unwritten)
		rc = segue_fail(run.server.storage.rc ? run.server.storage.rc : SEGUE_ENOMEM,
			"ended although the last commits of %u lane%s are not on disk: %s (a "
			"worker that still runs hands them to the next server)",
			unwritten, unwritten == 1 ? "" : "s",
			run.server.storage.rc ? run.server.storage.detail
					      : "no memory to write them");
	return rc;
}
