/*
 * Power cuts and storage errors under a real server: what `segue serve` does to the disk is recorded
 * while a scripted worker (served.h) commits at durability "commit", and replayed (replay.h).
 *
 *	crash_served [--images N] [--errors N] [--seed S]
 *	crash_served --again DIR --point P --image I --random R --seed S
 *
 * With --errors each write, sync and truncation of the server fails once, in each way (one in N of
 * them): what was not acknowledged stays so, the worker gets a typed error or none, the server ends
 * in order when it is told to, and the restart is exact. (environment SEGUE_PROGRAM: the server; else the one that was built beside this)
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launch.h"
#include "segue/segue.h"
#include "served.h"
#include "tmpdir.h"

static struct launch_options options = {.images = 3000};

static struct segue_tmpdir tmp;
static char data[SEGUE_TMPDIR_MAX];

/* A life of the server, and what the worker does in it. */
struct life {
	const char *root, *trace, *fail;
	uint64_t rounds;
	bool restore, killed;
	rlim_t file_size; /* 0: no limit */
	bool quiet;       /* what the server says is not shown */
};

/* How it ended. */
struct ended {
	int worker; /* a code */
	int server; /* an exit status, or -signal */
};

/* What the worker knows from one life to the next; it works in a child, so this is shared. */
static struct served_session *session;

/* ---- A life ---- */

static pid_t start_server(const struct life *life)
{
	const char *program = getenv("SEGUE_PROGRAM");
	const struct rlimit limit = {life->file_size, life->file_size};
	char dir[PATH_MAX], built[PATH_MAX];

	fflush(stdout);
	pid_t pid = fork();
	if (pid)
		return pid;
	snprintf(built, sizeof(built), "%.*s/../server/segue",
		(int)(strrchr(launch_self(), '/') - launch_self()), launch_self());
	program = program ? program : built;
	launch_environment(life->file_size ? NULL : life->root, life->trace, life->fail, NULL);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	dup2(null, STDOUT_FILENO);
	if (life->quiet)
		dup2(null, STDERR_FILENO);
	if (life->file_size && setrlimit(RLIMIT_FSIZE, &limit) < 0)
		launch_die("limit on files");
	snprintf(dir, sizeof(dir), "%s/" REPLAY_STORE, life->root);
	execl(program, program, "serve", dir, (char *)NULL);
	launch_die("start the server");
}

static bool answers(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		launch_die("the path of the socket is too long: set TMPDIR");
	memcpy(address.sun_path, path, strlen(path));
	bool well = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
	close(fd);
	return well;
}

/* False: it ended instead of coming up. */
static bool await_server(const struct life *life, pid_t server, int *status)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/" REPLAY_STORE "/segue.sock", life->root);
	for (int tries = 0; tries < 20000; tries++) {
		if (waitpid(server, status, WNOHANG) == server)
			return false;
		if (answers(path)) /* the socket of one that was killed is there, too */
			return true;
		usleep(1000);
	}
	launch_die("the server does not come up");
}

static int run_worker(const struct life *life)
{
	char dir[PATH_MAX];
	int status;

	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		alarm(100);
		snprintf(dir, sizeof(dir), "%s/" REPLAY_STORE, life->root);
		session->dir = dir;
		session->data = data;
		session->trace = trace_open(life->trace);
		session->rounds = life->rounds;
		session->restore = life->restore;
		int rc = served_work(session);
		if (rc && !life->quiet)
			fprintf(stderr, "the worker: %s\n", segue_error_detail());
		_exit(-rc);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		launch_die("run the worker");
	return WIFEXITED(status) ? -WEXITSTATUS(status) : WTERMSIG(status);
}

static struct ended live(const struct life *life)
{
	struct ended ended = {0};
	int status;
	pid_t server = start_server(life);

	if (await_server(life, server, &status)) {
		ended.worker = run_worker(life);
		kill(server, life->killed ? SIGKILL : SIGTERM);
		for (int tries = 0; waitpid(server, &status, WNOHANG) != server; tries++) {
			if (tries == 20000)
				launch_die("the server does not end");
			usleep(1000);
		}
	}
	ended.server = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
	return ended;
}

static const char *begin(const char *name, char path[SEGUE_TMPDIR_MAX], const char *trace)
{
	segue_tmpdir_path(&tmp, name, path);
	segue_tmpdir_remove_path(path);
	unlink(trace);
	if (mkdir(path, 0700) < 0)
		launch_die("make a directory");
	*session = (struct served_session){0};
	return path;
}

static struct replay make_replay(const struct disk *base, const struct trace *trace)
{
	return (struct replay){.base = base,
		.trace = trace,
		.oracle = &served_oracle,
		.seed = options.seed,
		.random = options.random,
		.jobs = 2};
}

/* ---- Power cuts ---- */

static bool cut_power(void)
{
	char root[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX];
	struct replayed sum = {0};
	struct trace trace;
	struct life life = {.trace = segue_tmpdir_path(&tmp, "trace-1", path), .restore = true};
	double began = launch_seconds();

	life.root = begin("served", root, path);
	struct disk *base = disk_create(root);
	for (int i = 0; i < 3; i++) { /* ended in order, killed, ended in order */
		life.rounds = 5 - (uint64_t)i;
		life.killed = i == 1;
		struct ended ended = live(&life);
		if (ended.worker || (ended.server && !life.killed)) {
			fprintf(stderr, "life %d: the worker ended with %s, the server with %d\n",
				i, segue_error_name(ended.worker), ended.server);
			return false;
		}
	}
	trace_load(&trace, path);
	struct replay replay = make_replay(base, &trace);
	replay.random = (unsigned)(options.images / 2 / (launch_writes(&trace) + 1)) + 1;
	launch_replay(&replay, path, &sum);
	launch_print("segue serve", &sum, began, options.seed);
	free(trace.bytes);
	disk_destroy(base);
	return sum.violations == 0;
}

/* ---- Errors ---- */

struct sweep {
	uint64_t runs, refused, stopped, went_on, wrong;
	struct replayed sum;
};

static void complain(struct sweep *sweep, const char *error, uint64_t n, const char *what,
	const struct ended *ended)
{
	fprintf(stderr, "%s at call %llu: %s (worker %d, server %d)\n", error,
		(unsigned long long)n, what, ended->worker, ended->server);
	sweep->wrong++;
}

static void judge(struct sweep *sweep, const struct launch_error *error, uint64_t n,
	const char *root, const struct outcome *outcome, const struct ended *ended)
{
	sweep->refused += ended->worker == 0 && ended->server != 0;
	sweep->stopped += ended->worker != 0;
	sweep->went_on += ended->worker == 0 && ended->server == 0;
	if (ended->server < 0)
		complain(sweep, error->name, n, "the server died", ended);
	else if (ended->worker > 0)
		complain(sweep, error->name, n, "the worker died", ended);
	else if (error->ends && outcome->acknowledged)
		complain(sweep, error->name, n, "acknowledged after a failure", ended);
	else if (!launch_restarts(&served_oracle, root, outcome))
		complain(sweep, error->name, n, "the restart is not exact", ended);
}

static bool fail_call(struct sweep *sweep, const struct launch_error *error, uint64_t n)
{
	char root[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX], fail[64];
	struct trace trace;
	struct life life = {.trace = segue_tmpdir_path(&tmp, "trace-2", path),
		.fail = fail,
		.rounds = 3,
		.restore = true,
		.quiet = true};

	snprintf(fail, sizeof(fail), "%llu:%d", (unsigned long long)n, error->number);
	life.root = begin("failing", root, path);
	struct disk *base = disk_create(root);
	const struct ended ended = live(&life);
	trace_load(&trace, path);
	const struct outcome outcome = launch_outcome(&trace);
	if (outcome.injected) {
		sweep->runs++;
		judge(sweep, error, n, root, &outcome, &ended);
	}
	if (outcome.injected && error->number == EIO) {
		struct replay replay = make_replay(base, &trace);
		replay.random = 2;
		replay.after_fault = true;
		launch_replay(&replay, path, &sweep->sum);
	}
	free(trace.bytes);
	disk_destroy(base);
	return outcome.injected;
}

/* Limits on the size of files: the server is not ended by a signal. */
static bool limit_files(void)
{
	char root[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX];
	struct sweep sweep = {0};
	uint64_t limits = 0;

	for (rlim_t limit = 4096; limit <= 1 << 18; limit *= 2, limits++) {
		const struct launch_error error = {.name = "RLIMIT_FSIZE"};
		struct trace trace;
		struct life life = {.trace = segue_tmpdir_path(&tmp, "trace-3", path),
			.rounds = 3,
			.file_size = limit,
			.quiet = true};
		life.root = begin("limited", root, path);
		const struct ended ended = live(&life);
		close(trace_open(path)); /* a server that refused has had no worker */
		trace_load(&trace, path);
		const struct outcome outcome = launch_outcome(&trace);
		judge(&sweep, &error, limit, root, &outcome, &ended);
		free(trace.bytes);
	}
	printf("segue serve, RLIMIT_FSIZE: %llu limits: %llu times it refused to start, %llu times "
	       "the worker got a typed error; %llu wrong\n",
		(unsigned long long)limits, (unsigned long long)sweep.refused,
		(unsigned long long)sweep.stopped, (unsigned long long)sweep.wrong);
	return sweep.refused + sweep.stopped && sweep.wrong == 0;
}

static bool fail_storage(void)
{
	bool good = true;

	for (size_t i = 0; i < LAUNCH_ERRORS; i++) {
		struct sweep sweep = {0};
		double began = launch_seconds();
		uint64_t n = 1 + disk_mix(options.seed, i) % options.every;
		while (fail_call(&sweep, &launch_errors[i], n))
			n += options.every;
		printf("segue serve, %s: %llu of %llu calls failed: %llu times it refused to "
		       "start, "
		       "%llu times the worker got a typed error, %llu times it went on; %llu "
		       "wrong, %.1f s\n",
			launch_errors[i].name, (unsigned long long)sweep.runs,
			(unsigned long long)(n - 1), (unsigned long long)sweep.refused,
			(unsigned long long)sweep.stopped, (unsigned long long)sweep.went_on,
			(unsigned long long)sweep.wrong, launch_seconds() - began);
		if (sweep.sum.points)
			launch_print("power cuts after it", &sweep.sum, began, options.seed);
		good = good && sweep.runs && !sweep.wrong && !sweep.sum.violations;
	}
	return limit_files() && good;
}

int main(int argc, char **argv)
{
	bool good;

	launch_under_shim(argv);
	launch_read(&options, argc, argv);
	if (options.again)
		return !launch_again(&served_oracle, options.again, options.point, options.index,
			options.random, options.seed);
	printf("crash_served: seed %llu\n", (unsigned long long)options.seed);
	segue_tmpdir_make(&tmp, "crash");
	segue_tmpdir_path(&tmp, "data.tfrecord", data);
	served_data(data);
	session = launch_shared(sizeof(*session));
	good = cut_power();
	if (options.every)
		good = fail_storage() && good;
	segue_tmpdir_remove(&tmp);
	return good ? 0 : 1;
}
