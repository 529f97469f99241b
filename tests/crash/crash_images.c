/*
 * Power cuts replayed: records a script at work (script.h: the store, or the log), and looks at
 * every image of the disk that a cut could leave (replay.h).
 *
 *	crash_images [--images N] [--seed S]   a cut; then a second one in the start after the first
 *	crash_images --errors N [--seed S]     each write, sync and truncation fails once, in each way
 *	                                       (one in N of them); and a limit on the size of files
 *	crash_mutants --mutants                the mutants, each of which must be caught
 *	crash_images --again DIR ...           one image again; the line was printed with it
 *
 * crash_log and crash_log_mutants are the same of the log. It runs itself under crash_shim.so: `--script DIR LAST MORE` is the program that is recorded.
 * A violation leaves trace and image in a directory that is named.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "launch.h"
#include "mutants.h"
#include "script.h"
#include "segue/segue.h"
#include "tmpdir.h"

#define LAST       60 /* transactions of the long script */
#define LAST_SHORT 6  /* ... of that whose calls fail one by one, and of mutants */

static struct launch_options options = {.images = 20000, .mutant = ""};

static struct segue_tmpdir tmp;

/* ---- Mutants of the code ---- */

#ifdef SEGUE_MUTANTS
static const char *code_mutant = "";

int segue_crash_mutant(const char *name);
int segue_crash_mutant(const char *name)
{
	return strcmp(name, code_mutant) == 0;
}

static void become(const char *mutant)
{
	code_mutant = mutant;
}
#else
static void become(const char *mutant)
{
	if (mutant[0])
		launch_die("this is not crash_mutants");
}
#endif

static bool is_mutant(const char *name, enum mutant_kind kind)
{
	for (const struct script_mutant *mutant = script.mutants; mutant->name; mutant++)
		if (mutant->kind == kind && strcmp(name, mutant->name) == 0)
			return true;
	return false;
}

/* ---- Recording ---- */

struct recording {
	const char *root, *trace;
	const char *fail;   /* SHIM_FAIL, or NULL */
	const char *mutant; /* "": none */
	uint64_t last, more;
	rlim_t file_size; /* 0: no limit */
};

static void exec_script(const struct recording *recording)
{
	char store[PATH_MAX], last[24], more[24];
	const struct rlimit limit = {recording->file_size, recording->file_size};

	/* The limit would end the trace, too: then there are marks alone. */
	launch_environment(recording->file_size ? NULL : recording->root, recording->trace,
		recording->fail,
		is_mutant(recording->mutant, MUTANT_LIE) ? recording->mutant : NULL);
	if (recording->file_size && setrlimit(RLIMIT_FSIZE, &limit) < 0)
		launch_die("limit on files");
	snprintf(store, sizeof(store), "%s/" REPLAY_STORE, recording->root);
	snprintf(last, sizeof(last), "%llu", (unsigned long long)recording->last);
	snprintf(more, sizeof(more), "%llu", (unsigned long long)recording->more);
	execl(launch_self(), launch_self(), "--script", store, last, more, recording->mutant,
		(char *)NULL);
	launch_die("start the script");
}

/* Runs the script and loads the trace. Its end: 0, a code as in errno.h's use, or -signal. */
static int record(const struct recording *recording, struct trace *trace)
{
	int status;

	unlink(recording->trace);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		exec_script(recording);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		launch_die("run the script");
	trace_load(trace, recording->trace);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* `--script DIR LAST MORE MUTANT`: the recorded program. */
static int run_script(char **argv)
{
	const char *mutant = argv[5];

	if (is_mutant(mutant, MUTANT_CODE))
		become(mutant);
	signal(SIGXFSZ, SIG_IGN); /* as the server does */
	int fd = trace_open(getenv(SHIM_TRACE));
	script.init(strtoull(argv[3], NULL, 10));
	int rc = script.run(
		argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10), fd, mutant);
	close(fd);
	return -rc;
}

static const char *make_root(const char *name, char path[SEGUE_TMPDIR_MAX])
{
	segue_tmpdir_path(&tmp, name, path);
	segue_tmpdir_remove_path(path);
	if (mkdir(path, 0700) < 0)
		launch_die("make a directory");
	return path;
}

static struct replay make_replay(const struct disk *base, const struct trace *trace)
{
	return (struct replay){.base = base,
		.trace = trace,
		.oracle = script.oracle,
		.seed = options.seed,
		.random = options.random,
		.jobs = (unsigned)(sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 2 : 1),
		.mutant = options.mutant};
}

/* ---- One power cut, and two ---- */

struct second {
	const char *root;
	unsigned more, random;
	struct replayed sum;
	uint64_t starts;
};

/* The image of a first cut is in `root`: the next start from it, cut in its turn. */
static void cut_again(void *arg, uint64_t point, uint64_t index)
{
	struct second *second = arg;
	char path[SEGUE_TMPDIR_MAX];
	struct trace trace;
	const struct recording recording = {.root = second->root,
		.trace = segue_tmpdir_path(&tmp, "trace-2", path),
		.mutant = "",
		.last = LAST,
		.more = second->more};
	struct disk *base = disk_create(second->root);
	int rc = record(&recording, &trace);

	if (rc) {
		fprintf(stderr, "the start after point %llu, image %llu ended with %d\n",
			(unsigned long long)point, (unsigned long long)index, rc);
		second->sum.violations++;
	}
	struct replay replay = make_replay(base, &trace);
	replay.random = second->random;
	launch_replay(&replay, recording.trace, &second->sum);
	second->starts++;
	free(trace.bytes);
	disk_destroy(base);
}

/* Images a point beside the counted ones, so that there are about as many as are wanted. */
static unsigned spread(uint64_t images, uint64_t points)
{
	return points ? (unsigned)(images / points) + 1 : 1;
}

static bool cut_power(void)
{
	char root[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX], again[SEGUE_TMPDIR_MAX];
	struct replayed sum = {0};
	struct trace trace;
	bool small = options.images < 5000;
	const struct recording recording = {.root = make_root("first", root),
		.trace = segue_tmpdir_path(&tmp, "trace-1", path),
		.mutant = "",
		.last = LAST,
		.more = small ? 8 : LAST};
	struct second second = {.root = again, .more = small ? 1 : 3, .random = small ? 1 : 3};
	double began = launch_seconds();

	struct disk *base = disk_create(root);
	if (record(&recording, &trace))
		launch_die("the script failed");
	struct replay replay = make_replay(base, &trace);
	replay.random = spread(options.images / 2, launch_writes(&trace));
	launch_replay(&replay, path, &sum);
	launch_print("crash images", &sum, began, options.seed);
	began = launch_seconds();
	segue_tmpdir_path(&tmp, "second", again);
	unsigned every = (unsigned)(sum.images / (small ? 3 : 24)) + 1;
	replay_sample(&replay, again, every, cut_again, &second);
	printf("two power cuts: %llu starts from images of the first\n",
		(unsigned long long)second.starts);
	launch_print("two power cuts", &second.sum, began, options.seed);
	free(trace.bytes);
	disk_destroy(base);
	return sum.violations + second.sum.violations == 0;
}

/* ---- Errors of storage ---- */

struct sweep {
	uint64_t runs, stopped, went_on, wrong;
	struct replayed sum;
};

static bool complain(struct sweep *sweep, const char *error, uint64_t n, const char *what, int rc)
{
	if (!options.mutant[0])
		fprintf(stderr, "%s at call %llu: %s (the script ended with %d)\n", error,
			(unsigned long long)n, what, rc);
	sweep->wrong++;
	return false;
}

static bool judge(struct sweep *sweep, const struct launch_error *error, uint64_t n,
	const char *root, const struct outcome *outcome, int rc)
{
	bool ends = error->ends && (error->number || script.short_write_ends);

	if (rc < 0)
		return complain(sweep, error->name, n, "the program died", rc);
	if (ends && outcome->acknowledged)
		return complain(sweep, error->name, n, "acknowledged after a failure", rc);
	if (outcome->failed && outcome->failed != (uint64_t)-SEGUE_ENOSPACE &&
		rc != (int)outcome->failed)
		return complain(sweep, error->name, n, "it went on after a failure", rc);
	if (!launch_restarts(script.oracle, root, outcome))
		return complain(sweep, error->name, n, "the restart is not exact", rc);
	return true;
}

/* Call n fails. False: there is no such call. */
static bool fail_call(struct sweep *sweep, const struct launch_error *error, uint64_t n)
{
	char root[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX], fail[64];
	struct trace trace;
	const struct recording recording = {.root = make_root("failing", root),
		.trace = segue_tmpdir_path(&tmp, "trace-3", path),
		.fail = fail,
		.mutant = options.mutant,
		.last = LAST_SHORT,
		.more = LAST_SHORT};

	snprintf(fail, sizeof(fail), "%llu:%d", (unsigned long long)n, error->number);
	struct disk *base = disk_create(root);
	int rc = record(&recording, &trace);
	const struct outcome outcome = launch_outcome(&trace);
	if (outcome.injected) {
		sweep->runs++;
		sweep->stopped += rc != 0;
		sweep->went_on += rc == 0;
		judge(sweep, error, n, root, &outcome, rc);
	}
	/* And the power is cut after the failure: what was not synced is lost (S6, S7). */
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

/* A limit on the size of files is reached: no signal, a typed error, an exact store. */
static bool limit_files(struct sweep *sweep)
{
	char root[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX];
	uint64_t limits = 0, hit = 0;

	for (rlim_t limit = 4096; limit <= 100 * 4096; limit += 8192 + limit % 3 * 512, limits++) {
		struct trace trace;
		const struct launch_error error = {.name = "RLIMIT_FSIZE"};
		const struct recording recording = {.root = make_root("limited", root),
			.trace = segue_tmpdir_path(&tmp, "trace-4", path),
			.mutant = "",
			.last = LAST_SHORT,
			.more = LAST_SHORT,
			.file_size = limit};
		int rc = record(&recording, &trace);
		const struct outcome outcome = launch_outcome(&trace);
		hit += rc != 0;
		judge(sweep, &error, limit, root, &outcome, rc);
		free(trace.bytes);
	}
	printf("RLIMIT_FSIZE: %llu limits, %llu of them reached, %llu wrong\n",
		(unsigned long long)limits, (unsigned long long)hit,
		(unsigned long long)sweep->wrong);
	return hit && sweep->wrong == 0;
}

static bool fail_storage(void)
{
	bool good = true;

	for (size_t i = 0; i < LAUNCH_ERRORS; i++) {
		struct sweep sweep = {0};
		double began = launch_seconds();
		uint64_t first = 1 + disk_mix(options.seed, i) % options.every, n = first;
		while (fail_call(&sweep, &launch_errors[i], n))
			n += options.every;
		printf("%s: %llu of %llu calls failed: %llu times the store stopped, %llu times it "
		       "went on; %llu wrong, %.1f s\n",
			launch_errors[i].name, (unsigned long long)sweep.runs,
			(unsigned long long)n - options.every, (unsigned long long)sweep.stopped,
			(unsigned long long)sweep.went_on, (unsigned long long)sweep.wrong,
			launch_seconds() - began);
		if (sweep.sum.points)
			launch_print("power cuts after it", &sweep.sum, began, options.seed);
		good = good && sweep.runs && !sweep.wrong && !sweep.sum.violations;
	}
	struct sweep sweep = {0};
	return limit_files(&sweep) && good;
}

/* ---- Mutants ---- */

#ifdef SEGUE_MUTANTS
static bool caught_by_errors(const char *mutant, char *how, size_t size)
{
	struct sweep sweep = {0};

	options.mutant = mutant;
	for (uint64_t n = 1; !sweep.wrong && fail_call(&sweep, &launch_errors[0], n); n++)
		;
	options.mutant = "";
	snprintf(how, size, "a failed call, %llu runs", (unsigned long long)sweep.runs);
	return sweep.wrong > 0;
}

static bool caught(const char *mutant, char *how, size_t size)
{
	char root[SEGUE_TMPDIR_MAX], path[SEGUE_TMPDIR_MAX];
	struct replayed sum = {0};
	struct trace trace;
	const struct recording recording = {.root = make_root("mutant", root),
		.trace = segue_tmpdir_path(&tmp, "trace-5", path),
		.mutant = mutant,
		.last = LAST,
		.more = 24};

	if (strcmp(mutant, "goes_on_after_failure") == 0)
		return caught_by_errors(mutant, how, size);
	struct disk *base = disk_create(root);
	int rc = record(&recording, &trace);
	struct replay replay = make_replay(base, &trace);
	replay.random = 24;
	replay.first_only = true;
	if (is_mutant(mutant, MUTANT_CODE))
		become(mutant);
	replay_run(&replay, &sum);
	become("");
	free(trace.bytes);
	disk_destroy(base);
	snprintf(how, size, "%s%s, %llu images", rc ? "the script ended early; " : "",
		sum.first[0] ? sum.first : "nothing seen", (unsigned long long)sum.images);
	return sum.violations > 0;
}

static bool run_mutants(void)
{
	char how[512];
	size_t found = 0, count = 0;

	if (options.mutant[0])
		return caught(options.mutant, how, sizeof(how)) && printf("%s\n", how);
	for (const struct script_mutant *mutant = script.mutants; mutant->name; mutant++) {
		double began = launch_seconds();
		bool seen = caught(mutant->name, how, sizeof(how));
		printf("%s %-22s %s (%.1f s): %s\n", seen ? "caught  " : "SURVIVED", mutant->name,
			mutant->what, launch_seconds() - began, how);
		fflush(stdout);
		found += seen;
		count++;
	}
	printf("mutants: %zu of %zu caught, seed %llu\n", found, count,
		(unsigned long long)options.seed);
	return found == count;
}
#else
static bool run_mutants(void)
{
	launch_die("only crash_mutants has mutants");
	return false;
}
#endif

/* ---- The command line ---- */

static bool look_again(void)
{
	if (options.mutant[0])
		become(options.mutant);
	return launch_again(script.oracle, options.again, options.point, options.index,
		options.random, options.seed);
}

int main(int argc, char **argv)
{
	bool good;

	launch_under_shim(argv);
	if (argc == 6 && strcmp(argv[1], "--script") == 0)
		return run_script(argv);
	launch_read(&options, argc, argv);
	printf("crash_%s: seed %llu\n", script.oracle->name, (unsigned long long)options.seed);
	segue_tmpdir_make(&tmp, "crash");
	script.init(LAST);
	if (script.learn)
		script.learn();
	if (options.again)
		good = look_again();
	else if (options.every)
		good = fail_storage();
	else if (options.mutants)
		good = run_mutants();
	else
		good = cut_power();
	segue_tmpdir_remove(&tmp);
	return good ? 0 : 1;
}
