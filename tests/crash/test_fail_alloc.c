/*
 * Every n-th allocation fails: of the server, or of a worker.
 *
 *	test_fail_alloc server|worker once|always [EVERY [SHARDS]]
 *	test_fail_alloc server|worker once|always @CALL
 *
 * Run n of the scripted session (session.h) lets the n-th allocation fail, of the server and what
 * starts it (fail_alloc.h, preloaded), or of the worker; `always`: all from there on, for a second.
 * Nobody may crash or hang. A call that fails must say why, and is made again; where it fails four
 * times (all allocations do) the worker gives everything back, and another one finishes the session. No batch may be lost or come twice, the store must hold what
 * the plan says, and a process that ended in order must have freed what it allocated: no more blocks
 * may be left than in a run without a fault. Each allocation fails at durability = interval and at =
 * commit: only with the first has a close a last transaction to write. With EVERY > 1 every so
 * manieth allocation is taken, from a random one on; SHARDS processes divide the allocations (2).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fail_alloc.h"
#include "preload.h"
#include "session.h"
#include "shards.h"

enum { ENDS_IN_A_ROW = 3, QUIET_RUNS = 3, LIVES = 6 };

static const int64_t patience = INT64_C(60000000000), shortage = INT64_C(1000000000);
static const char *library;
static bool of_server, always;

static struct fail_alloc_panel *map_panel(const struct crash_world *world)
{
	char path[SEGUE_TMPDIR_MAX];
	int fd = open(
		segue_tmpdir_path(&world->tmp, "panel", path), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct fail_alloc_panel *panel;

	if (fd < 0 || ftruncate(fd, sizeof(*panel)) < 0)
		crash_die("%s: %s", path, strerror(errno));
	panel = mmap(NULL, sizeof(*panel), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (panel == MAP_FAILED)
		crash_die("mmap: %s", strerror(errno));
	close(fd);
	if (of_server)
		setenv(FAIL_ALLOC_PANEL, path, 1);
	return panel;
}

static _Noreturn void be_worker(struct crash_world *world, struct fail_alloc_panel *panel)
{
	int64_t before = fail_alloc_left();

	if (of_server)
		setenv("LD_PRELOAD", library, 1);
	else
		fail_alloc_use(panel);
	crash_session(world);
	fail_alloc_use(NULL);
	int64_t left = fail_alloc_left() - before;
	if (!of_server && left > 0)
		crash_die("the worker left %lld blocks", (long long)left);
	_exit(CRASH_DONE);
}

/* One worker's life; returns its status. */
static int live(struct crash_world *world, struct fail_alloc_panel *panel, const char *where)
{
	int64_t until = crash_now() + patience;
	int status;
	pid_t pid = fork();

	if (pid < 0)
		crash_die("fork: %s", strerror(errno));
	if (pid == 0)
		be_worker(world, panel);
	while (waitpid(pid, &status, WNOHANG) != pid) {
		/* Who waits for memory without an end must go on when there is some again. */
		if (crash_now() > until - patience + shortage)
			panel->first = panel->last = 0;
		if (crash_now() > until)
			crash_die("%s: the worker (pid %d) hangs at stage %u", where, (int)pid,
				world->ledger->stage);
		usleep(300);
	}
	return status;
}

/* The most blocks that a process left. */
static int64_t most_left(const struct fail_alloc_panel *panel)
{
	int64_t most = 0;

	for (uint64_t i = 0; i < panel->ends && i < FAIL_ALLOC_ENDS; i++)
		most = panel->left[i] > most ? panel->left[i] : most;
	return most;
}

/* A whole session; returns the failures that there were. */
static uint64_t run(struct crash_world *world, struct fail_alloc_panel *panel, uint64_t index,
	struct crash_outcome *outcome, int64_t allowed)
{
	char where[96];
	unsigned lives = 0;

	snprintf(where, sizeof(where), "allocation %llu of the %s fails (%s)",
		(unsigned long long)index, of_server ? "server" : "worker",
		always ? "and all after it" : "once");
	crash_world_renew(world);
	memset(panel, 0, sizeof(*panel));
	panel->first = index;
	panel->last = always && index ? UINT64_MAX : index;
	for (;;) {
		int status = live(world, panel, where);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != CRASH_REFUSED) {
			crash_check_end(world, status, where);
			break;
		}
		if (++lives == LIVES || panel->failed == 0)
			crash_check_end(world, status, where);
		/* It has given up, and everything back: the machine has memory again. */
		outcome->refusals++;
		panel->first = panel->last = 0;
		if (!crash_await_all(patience))
			crash_die("%s: a process was left behind", where);
	}
	if (!crash_await_all(shortage)) {
		panel->first = panel->last = 0; /* a server that stops waits for memory */
		if (!crash_await_all(patience))
			crash_die("%s: a process was left behind", where);
	}
	outcome->errors += world->ledger->errors;
	crash_check_files(world, true, where);
	crash_check_store(world, where);
	if (allowed >= 0 && most_left(panel) > allowed)
		crash_die("%s: a server left %lld blocks, %lld are usual", where,
			(long long)most_left(panel), (long long)allowed);
	return panel->failed;
}

/* Returns whether an allocation failed. */
static bool run_both(struct crash_world *world, struct fail_alloc_panel *panel, uint64_t index,
	struct crash_outcome *outcome, int64_t allowed)
{
	static const enum segue_durability each[] = {SEGUE_DURABLE_INTERVAL, SEGUE_DURABLE_COMMIT};
	bool failed = false;

	for (int i = 0; i < 2; i++) {
		world->durability = each[i];
		bool one = run(world, panel, index, outcome, allowed) > 0;
		outcome->faults += one;
		failed = failed || one;
	}
	return failed;
}

/* `step` 0: the first alone. */
static void sweep(uint64_t first, uint64_t step, struct crash_outcome *outcome)
{
	struct crash_world world;
	int64_t allowed = 0;
	unsigned ends = 0;

	crash_world_make(&world, "fail-alloc", 4 * CRASH_SESSION_STEPS);
	world.refusals = world.patient = true;
	world.timeout_ns = INT64_C(2000000000);
	struct fail_alloc_panel *panel = map_panel(&world);
	for (int quiet = 0; quiet < QUIET_RUNS; quiet++) {
		run(&world, panel, 0, outcome, -1);
		allowed = most_left(panel) > allowed ? most_left(panel) : allowed;
	}
	for (uint64_t index = first; ends < ENDS_IN_A_ROW; index += step) {
		ends = run_both(&world, panel, index, outcome, allowed) ? 0 : ends + 1;
		if (step == 0)
			break;
	}
	munmap(panel, sizeof(*panel));
	crash_world_remove(&world);
}

static void sweep_all(const struct crash_shards *shards)
{
	const struct crash_outcome all = crash_shards_run(shards, sweep);

	printf("test_fail_alloc: %llu allocations failed; %llu calls said so and were made again, "
	       "%llu workers gave up; nobody crashed, nothing was lost or left (%.1f s)\n",
		(unsigned long long)all.faults, (unsigned long long)all.errors,
		(unsigned long long)all.refusals, (double)all.ns * 1e-9);
}

int main(int argc, char **argv)
{
	struct crash_shards shards;

	library = getenv("SEGUE_FAIL_ALLOC");
	if (argc < 3 || !library)
		crash_die(
			"usage: test_fail_alloc server|worker once|always [EVERY [SHARDS] | @CALL] "
			"(environment: SEGUE_PROGRAM, SEGUE_FAIL_ALLOC)");
	library = segue_preload_path(library);
	setenv("MALLOC_PERTURB_", "165", 1); /* glibc: what is allocated, or freed, is filled */
	of_server = strcmp(argv[1], "server") == 0;
	always = strcmp(argv[2], "always") == 0;
	if (argc > 3 && argv[3][0] == '@') {
		struct crash_outcome outcome = {0};
		sweep(strtoull(argv[3] + 1, NULL, 10), 0, &outcome);
		printf("test_fail_alloc: as it should be; %llu calls failed, %llu workers gave "
		       "up\n",
			(unsigned long long)outcome.errors, (unsigned long long)outcome.refusals);
		return 0;
	}
	crash_shards_read(&shards, argc, argv, "test_fail_alloc", "allocation");
	sweep_all(&shards);
	return 0;
}
