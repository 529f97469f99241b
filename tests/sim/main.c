/*
 * sim: runs seeded histories of server and workers, and looks for one that breaks a promise.
 *
 *	sim [--seeds N] [--seed S] [--mutant NAME | --mutants] [--trace] [--list]
 *
 * Seeds S, S+1, ... S+N-1. Without a mutant it succeeds if no history fails; with one, if one does;
 * with --mutants, if each of them is caught. "--seeds 1 --seed S" and the same mutant give a printed
 * history again; --trace tells it.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "disk.h"
#include "driver.h"
#include "machine.h"
#include "mutants.h"
#include "oracle.h"
#include "worker.h"

#define FAULTS_MAX   8
#define SEEDS        2000  /* histories, if nothing else is said */
#define ENOUGH       10000 /* histories, that every kind of event must have happened */
#define MUTANT_SEEDS 20000 /* ... at most, until a mutant is caught */

/* What strikes, and who has to be started again. */
static struct {
	struct sim_server *server;
	uint32_t faults, workers;
	int64_t gap;
	int64_t server_at, worker_at[SIM_WORKERS];
	uint64_t struck;
} chaos;

/* ---- Starting again ------------------------------------------------------------------------- */

static void arm(void)
{
	int64_t when = chaos.server_at;

	for (unsigned i = 0; i < SIM_WORKERS; i++)
		when = chaos.worker_at[i] < when ? chaos.worker_at[i] : when;
	sim_timer(when);
}

static void start_server(void)
{
	sim_trace("a server starts");
	chaos.server_at = SIM_NEVER;
	chaos.server = sim_server_start();
	sim_workers_see(chaos.server);
}

static void crash_server(void);

static void timer(void)
{
	if (chaos.server_at <= sim_now()) {
		if (chaos.server)
			crash_server();
		else
			start_server();
	}
	for (unsigned i = 0; i < SIM_WORKERS; i++) {
		if (chaos.worker_at[i] <= sim_now()) {
			chaos.worker_at[i] = SIM_NEVER;
			sim_worker_start(i);
		}
	}
	arm();
}

/* ---- Faults --------------------------------------------------------------------------------- */

static int64_t soon(void)
{
	return sim_now() + 1 + sim_below(sim_one_in(2) ? 50 : 3000);
}

static void end_server(void)
{
	struct sim_server *server = chaos.server;

	sim_kill(0);
	chaos.server = NULL;
	chaos.server_at = soon();
	sim_workers_see(NULL);
	sim_server_died(server);
	arm();
}

static void crash_server(void)
{
	sim_trace("the server is killed");
	sim_happened[SIM_SERVER_KILLED]++;
	end_server();
}

void sim_server_stopped(void)
{
	sim_trace("the server has stopped");
	sim_happened[SIM_SERVER_STOPPED]++;
	end_server();
	sim_point(); /* the caller's last */
}

void sim_storage_failed(void)
{
	sim_trace("storage failed");
	chaos.server_at = soon();
	arm();
}

static void crash_worker(uint32_t i)
{
	int64_t pid = sim_pid_of(i);

	if (!sim_process_alive(pid))
		return;
	sim_trace("worker %u is killed", i);
	sim_happened[SIM_WORKER_KILLED]++;
	sim_kill((int)pid);
	sim_worker_died(i);
	chaos.worker_at[i] = soon();
	arm();
}

/* The one that runs dies where it stands, three times out of four. */
static void crash_somebody(void)
{
	int self = sim_worker_of(sim_process());

	if (sim_one_in(4))
		self = sim_one_in(2) ? -1 : (int)sim_below(chaos.workers);
	if (self >= 0)
		crash_worker((uint32_t)self);
	else if (chaos.server)
		crash_server();
}

static void stop_somebody(void)
{
	sim_trace("stopped for long");
	sim_happened[SIM_LONG_STOP]++;
	sim_stop(sim_now() + 200 + sim_below(8000));
}

static void fail_disk(void)
{
	sim_disk.fail_next = sim_one_in(2) ? SEGUE_ENOSPACE : SEGUE_ESTORE;
	if (sim_one_in(3)) /* until somebody makes room */
		sim_disk.full_until = sim_now() + sim_below(4000);
}

static void restore(void)
{
	if (sim_process() > 0 && sim_one_in(3))
		stop_somebody();
	sim_happened[SIM_RESTORE]++;
	if (sim_worker_stopped())
		sim_happened[SIM_RESTORE_WHILE_STOPPED]++;
	sim_restore_group(sim_below(sim_world.groups));
}

static void strike(void)
{
	chaos.faults--;
	chaos.struck++;
	switch (sim_below(10)) {
	case 0:
	case 1:
	case 2:
	case 3:
		crash_somebody();
		break;
	case 4:
		if (chaos.server && sim_one_in(2))
			crash_server();
		else if (chaos.server)
			sim_server_stop(chaos.server);
		break;
	case 5:
		stop_somebody();
		break;
	case 6:
		if (chaos.server)
			sim_server_cut(chaos.server, sim_below(sim_world.pairs));
		break;
	case 7:
		fail_disk();
		break;
	default:
		restore();
		break;
	}
	if (chaos.faults)
		sim_next_fault(sim_now() + 1 + sim_below((uint32_t)chaos.gap));
}

/* ---- Histories ------------------------------------------------------------------------------ */

static void begin(void)
{
	static const int64_t gaps[] = {200, 1000, 4000};

	memset(&chaos, 0, sizeof(chaos));
	chaos.server_at = SIM_NEVER;
	for (unsigned i = 0; i < SIM_WORKERS; i++)
		chaos.worker_at[i] = SIM_NEVER;
	sim_world_begin();
	sim_disk_begin();
	sim_oracle_begin();
	sim_workers_begin();
	start_server();
	chaos.workers = 1 + sim_below(SIM_WORKERS);
	for (uint32_t i = 0; i < chaos.workers; i++)
		sim_worker_start(i);
	chaos.faults = sim_below(FAULTS_MAX + 1);
	chaos.gap = gaps[sim_below(sizeof(gaps) / sizeof(gaps[0]))];
	if (chaos.faults)
		sim_next_fault(1 + sim_below((uint32_t)chaos.gap));
}

struct totals {
	uint64_t runs, steps, faults;
};

static struct sim_failure run(const struct sim_options *options, struct totals *totals)
{
	struct sim_failure failure = sim_run(options, begin, strike, timer);

	totals->runs++;
	totals->steps += (uint64_t)sim_now();
	totals->faults += chaos.struck;
	sim_free_all();
	return failure;
}

/* What happened, and whether anything never did although there were runs enough. */
static bool tell_events(bool all_must_happen)
{
	static const char *const texts[] = {
#define TEXT(name, text) text,
		SIM_EVENTS(TEXT)
#undef TEXT
	};
	bool missing = false;

	for (unsigned i = 0; i < SIM_EVENT_KINDS; i++) {
		bool never = all_must_happen && sim_happened[i] == 0;
		printf("%10llu %s%s\n", (unsigned long long)sim_happened[i], texts[i],
			never ? ": NEVER, so nothing is known about it" : "");
		missing |= never;
	}
	return !missing;
}

static int verdict(const struct sim_options *options, uint64_t first,
	const struct sim_failure *failure, const struct totals *totals, double seconds)
{
	const char *mutant = options->mutant;

	if (failure->failed)
		printf("seed %llu%s%s: %s: %s\n", (unsigned long long)options->seed,
			mutant ? " --mutant " : "", mutant ? mutant : "", failure->check,
			failure->text);
	printf("%s: %llu histories from seed %llu, %llu steps, %llu faults, %.1f s\n",
		mutant ? (failure->failed ? "caught" : "NOT CAUGHT")
		       : (failure->failed ? "FAILED" : "ok"),
		(unsigned long long)totals->runs, (unsigned long long)first,
		(unsigned long long)totals->steps, (unsigned long long)totals->faults, seconds);
	if (!mutant && !failure->failed && !tell_events(totals->runs >= ENOUGH))
		return 1;
	return failure->failed == (mutant != NULL) ? 0 : 1;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int run_all(struct sim_options options, uint64_t seeds)
{
	struct sim_failure failure = {0};
	struct totals totals = {0};
	uint64_t first = options.seed;
	double began = now();

	for (uint64_t i = 0; i < seeds && !failure.failed; i++) {
		options.seed = first + i;
		failure = run(&options, &totals);
	}
	return verdict(&options, first, &failure, &totals, now() - began);
}

/* ---- Arguments ------------------------------------------------------------------------------ */

static int run_mutants(struct sim_options options, uint64_t seeds)
{
	int rc = 0;

#define RUN(name, what)                                                                            \
	options.mutant = #name;                                                                    \
	rc |= run_all(options, seeds);
	SIM_MUTANTS(RUN)
#undef RUN
	return rc;
}

static int list(void)
{
#define LIST(name, what) printf("%-24s %s\n", #name, what);
	SIM_MUTANTS(LIST)
#undef LIST
	return 0;
}

static bool is_mutant(const char *name)
{
#define SAME(mutant, what)                                                                         \
	if (strcmp(name, #mutant) == 0)                                                            \
		return true;
	SIM_MUTANTS(SAME)
#undef SAME
	return false;
}

static int usage(void)
{
	fprintf(stderr, "usage: sim [--seeds N] [--seed S] [--mutant NAME | --mutants] [--trace] "
			"[--list]\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct sim_options options = {.seed = 1};
	uint64_t seeds = 0;
	bool mutants = false;

	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;
		if (strcmp(argv[i], "--trace") == 0)
			options.trace = true;
		else if (strcmp(argv[i], "--mutants") == 0)
			mutants = true;
		else if (strcmp(argv[i], "--list") == 0)
			return list();
		else if (!value)
			return usage();
		else if (strcmp(argv[i], "--seeds") == 0)
			seeds = strtoull(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--seed") == 0)
			options.seed = strtoull(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--mutant") == 0 && is_mutant(value))
			options.mutant = argv[++i];
		else
			return usage();
	}
	if (!seeds)
		seeds = mutants || options.mutant ? MUTANT_SEEDS : SEEDS;
	return mutants ? run_mutants(options, seeds) : run_all(options, seeds);
}
