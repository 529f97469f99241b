/*
 * SIGKILL at each system call of a scripted session, of the server or of the worker.
 *
 *	test_kill_each_call server|worker interval|commit [EVERY [SHARDS]]
 *	test_kill_each_call server|worker interval|commit @CALL
 *	test_kill_each_call log-server|log-worker ...    the worker inserts what it reads
 *	test_kill_each_call mix-server|mix-worker ...    ... as a part of a mix
 *
 * Run n of the session (session.h) is killed at the n-th call that the server, with all its
 * threads and the process that starts it, or the worker makes; until a few runs in a row end before
 * it is reached. Then things go on as they would for a user: the worker's library starts
 * the server again; another worker takes a killed one's place. No batch may be lost or come
 * twice, every state and input must be right, the store must hold what the plan says, and no
 * process and no file may be left. With EVERY > 1 every so manieth call is taken, from a random
 * one on; SHARDS processes divide the calls (2).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kill_at.h"
#include "session.h"
#include "shards.h"

enum { ENDS_IN_A_ROW = 3 };

static const int64_t patience = INT64_C(60000000000);
static const char *program, *tracer;
static bool of_server, inserts, mixes;
static const char *of; /* "server", "mix-worker", ... */
static enum segue_durability durability;

static void aim(uint64_t index, const char *report)
{
	char text[32];

	unlink(report);
	if (!of_server)
		return;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)index);
	setenv("SEGUE_PROGRAM", tracer, 1);
	setenv("SEGUE_KILL_PROGRAM", program, 1);
	setenv("SEGUE_KILL_REPORT", report, 1);
	setenv("SEGUE_KILL_AT", text, 1);
}

/* A worker's whole life; returns how it ended. */
static int live(struct crash_world *world, uint64_t index, const char *report, const char *where)
{
	int64_t until = crash_now() + patience;
	int status;
	pid_t pid = fork();

	if (pid < 0)
		crash_die("fork: %s", strerror(errno));
	if (pid == 0) {
		if (index && kill_at_arm(index, report) < 0)
			_exit(CRASH_REFUSED);
		(inserts ? crash_insert_session : crash_session)(world);
		_exit(CRASH_DONE);
	}
	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (crash_now() > until)
			crash_die("%s: the worker (pid %d) hangs at stage %u", where, (int)pid,
				world->ledger->stage);
		usleep(300);
	}
	return status;
}

static void await_all(const char *where)
{
	if (!crash_await_all(patience))
		crash_die("%s: a process was left behind", where);
}

static struct kill_at_report read_report(const char *path, const char *where)
{
	struct kill_at_report report = {0};
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, &report, sizeof(report)) != (ssize_t)sizeof(report))
		crash_die("%s: the tracer did not report (%s)", where, path);
	close(fd);
	return report;
}

/*
 * Nobody has started a server after the last one was killed: the next user finds both lanes free,
 * and leaves a store in order.
 */
static void visit(struct crash_world *world, const char *where)
{
	crash_check_end(world, live(world, 0, NULL, where), where);
	await_all(where);
	crash_check_files(world, false, where);
}

static struct kill_at_report run(struct crash_world *world, uint64_t index)
{
	char report_path[SEGUE_TMPDIR_MAX], where[96];

	snprintf(where, sizeof(where), "%s killed at call %llu, %s", of, (unsigned long long)index,
		durability ? "commit" : "interval");
	crash_world_renew(world);
	segue_tmpdir_path(&world->tmp, "report", report_path);
	aim(index, report_path);
	int status = live(world, of_server ? 0 : index, report_path, where);
	if (!of_server && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		status = live(world, 0, NULL, where);
	crash_check_end(world, status, where);
	await_all(where);
	struct kill_at_report report = read_report(report_path, where);
	if (crash_check_files(world, report.killed, where))
		visit(world, where);
	(inserts ? crash_check_inserted : crash_check_store)(world, where);
	return report;
}

static void sweep(uint64_t first, uint64_t step, struct crash_outcome *outcome)
{
	struct crash_world world;
	unsigned ends = 0;

	crash_world_make(&world, "each-call", 4 * CRASH_SESSION_STEPS);
	world.durability = durability;
	world.inserts = inserts;
	world.mixes = mixes;
	for (uint64_t index = first; ends < ENDS_IN_A_ROW; index += step) {
		struct kill_at_report report = run(&world, index);
		outcome->faults += report.killed;
		outcome->last = report.killed ? index : outcome->last;
		ends = report.killed ? 0 : ends + 1;
	}
	crash_world_remove(&world);
}

static void sweep_all(const struct crash_shards *shards)
{
	const struct crash_outcome all = crash_shards_run(shards, sweep);

	printf("test_kill_each_call: %llu kills, the last at call %llu; nothing lost, doubled or "
	       "left (%.1f s)\n",
		(unsigned long long)all.faults, (unsigned long long)all.last,
		(double)all.ns * 1e-9);
}

static int run_one(uint64_t index)
{
	struct crash_world world;

	crash_world_make(&world, "each-call", 4 * CRASH_SESSION_STEPS);
	world.durability = durability;
	world.inserts = inserts;
	world.mixes = mixes;
	struct kill_at_report report = run(&world, index);
	crash_world_remove(&world);
	printf("test_kill_each_call: call %llu: %s\n", (unsigned long long)index,
		report.killed ? "killed, as it should be" : "the run ended before");
	return 0;
}

int main(int argc, char **argv)
{
	struct crash_shards shards;

	program = getenv("SEGUE_PROGRAM");
	tracer = getenv("SEGUE_KILL_AT_PROGRAM");
	if (argc < 3 || !program || !tracer)
		crash_die("usage: test_kill_each_call [log-|mix-]server|worker interval|commit "
			  "[EVERY [SHARDS]]"
			  " (environment: SEGUE_PROGRAM, SEGUE_KILL_AT_PROGRAM)");
	of = argv[1];
	mixes = strncmp(of, "mix-", 4) == 0;
	inserts = mixes || strncmp(of, "log-", 4) == 0;
	of_server = strcmp(of + (inserts ? 4 : 0), "server") == 0;
	durability = strcmp(argv[2], "commit") == 0 ? SEGUE_DURABLE_COMMIT : SEGUE_DURABLE_INTERVAL;
	if (argc > 3 && argv[3][0] == '@')
		return run_one(strtoull(argv[3] + 1, NULL, 10));
	crash_shards_read(&shards, argc, argv, "test_kill_each_call", "call");
	sweep_all(&shards);
	return 0;
}
