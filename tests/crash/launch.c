/* Starting programs under the shim, and telling what came of it: launch.h has the contract. */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "preload.h"
#include "tmpdir.h"

#define BOOT_HERE  "11111111-1111-4111-8111-111111111111"
#define BOOT_THERE "22222222-2222-4222-8222-222222222222"

const struct launch_error launch_errors[LAUNCH_ERRORS] = {{"EIO", EIO, true},
	{"ENOSPC", ENOSPC, false}, {"a short write", 0, true}, {"EINTR", EINTR, false}};

static char self[PATH_MAX];

void launch_die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", self, what, strerror(errno));
	exit(1);
}

double launch_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void *launch_shared(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		launch_die("memory");
	return memory;
}

static uint64_t choose_seed(void)
{
	const char *seed = getenv("SEGUE_TEST_SEED");
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return seed ? strtoull(seed, NULL, 0) : (uint64_t)now.tv_sec;
}

static void take(struct launch_options *options, int option, const char *argument)
{
	uint64_t number = argument ? strtoull(argument, NULL, 0) : 0;

	switch (option) {
	case 'n':
		options->images = number;
		break;
	case 's':
		options->seed = number;
		break;
	case 'e':
		options->every = number;
		break;
	case 'a':
		options->again = argument;
		break;
	case 'p':
		options->point = number;
		break;
	case 'i':
		options->index = number;
		break;
	case 'r':
		options->random = (unsigned)number;
		break;
	case 'm':
		options->mutants = true;
		break;
	case 'M':
		options->mutant = argument;
		break;
	default:
		exit(2);
	}
}

void launch_read(struct launch_options *options, int argc, char **argv)
{
	static const struct option names[] = {{"mutants", no_argument, NULL, 'm'},
		{"mutant", required_argument, NULL, 'M'}, {"images", required_argument, NULL, 'n'},
		{"seed", required_argument, NULL, 's'}, {"errors", required_argument, NULL, 'e'},
		{"again", required_argument, NULL, 'a'}, {"point", required_argument, NULL, 'p'},
		{"image", required_argument, NULL, 'i'}, {"random", required_argument, NULL, 'r'},
		{NULL, 0, NULL, 0}};
	const struct option *known = options->mutant ? names : names + 2;
	int option;

	options->seed = choose_seed();
	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1)
		take(options, option, optarg);
}

static void set(const char *name, const char *value)
{
	if (value ? setenv(name, value, 1) : unsetenv(name))
		launch_die("environment");
}

const char *launch_self(void)
{
	return self;
}

static char in_memory[] = "/dev/shm/crash-XXXXXX";
static pid_t owner;

static void remove_memory(void)
{
	if (getpid() == owner)
		segue_tmpdir_remove_path(in_memory);
}

/* Images are many, and the disk is a model. (Names that begin with segue- are counted by others.) */
static void use_memory(void)
{
	if (!mkdtemp(in_memory))
		return;
	owner = getpid();
	atexit(remove_memory);
	set("TMPDIR", in_memory);
}

/* In a child: this process stays to remove what the library's path may need. */
static void start_under(const char *shim, char **argv)
{
	int status;

	set("LD_PRELOAD", segue_preload_path(shim));
	pid_t pid = fork();
	if (pid == 0) {
		set(SHIM_BOOT, BOOT_HERE);
		execv(self, argv);
		launch_die("start again");
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		launch_die("start again");
	exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

void launch_under_shim(char **argv)
{
	char shim[PATH_MAX];
	ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (size < 0)
		launch_die("find this program");
	snprintf(shim, sizeof(shim), "%.*s/crash_shim.so", (int)(strrchr(self, '/') - self), self);
	if (!getenv(SHIM_BOOT)) {
		start_under(shim, argv);
	}
	if (!getenv("TMPDIR"))
		use_memory();
}

void launch_environment(const char *root, const char *trace, const char *fail, const char *lie)
{
	set(SHIM_ROOT, root);
	set(SHIM_TRACE, trace);
	set(SHIM_BOOT, BOOT_THERE);
	set(SHIM_FAIL, fail);
	set(SHIM_LIE, lie);
}

/* Where violations are put: the trace, and a copy of where it began. */
static const char *keep(const struct disk *base, const char *trace)
{
	static char dir[SEGUE_TMPDIR_MAX];
	char to[SEGUE_TMPDIR_MAX + 16];
	const char *where = getenv("SEGUE_CRASH_SAVE");
	struct trace bytes;

	snprintf(dir, sizeof(dir), "%s/segue-crash-XXXXXX", where ? where : "/tmp");
	if (!mkdtemp(dir))
		launch_die("keep a violation");
	snprintf(to, sizeof(to), "%s/base", dir);
	struct disk *copy = disk_copy(base);
	disk_image(copy, (struct pick){PICK_NONE, 0});
	disk_write(copy, to);
	disk_destroy(copy);
	snprintf(to, sizeof(to), "%s/trace", dir);
	trace_load(&bytes, trace);
	int fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, bytes.bytes, bytes.size) != (ssize_t)bytes.size)
		launch_die("keep a trace");
	close(fd);
	free(bytes.bytes);
	return dir;
}

/* Replays; what is violated is replayed once more, to keep it. */
void launch_replay(struct replay *replay, const char *trace, struct replayed *sum)
{
	uint64_t before = sum->violations;
	struct replayed again = {0};

	replay_run(replay, sum);
	if (sum->violations == before)
		return;
	replay->save = keep(replay->base, trace);
	replay_run(replay, &again);
}

void launch_print(const char *what, const struct replayed *sum, double since, uint64_t seed)
{
	printf("%s: %llu events, %llu crash points, %llu distinct images, %llu violations, %.1f "
	       "s, seed %llu\n",
		what, (unsigned long long)sum->events, (unsigned long long)sum->points,
		(unsigned long long)sum->images, (unsigned long long)sum->violations,
		launch_seconds() - since, (unsigned long long)seed);
	if (sum->torn)
		printf("%s: of them %llu with a meta page torn inside its sector: %llu whole, %llu "
		       "refused; %llu of a disk that lied: %llu whole, %llu refused; %llu ended "
		       "who verified them\n",
			what, (unsigned long long)sum->torn, (unsigned long long)sum->torn_whole,
			(unsigned long long)sum->torn_refused, (unsigned long long)sum->lies,
			(unsigned long long)sum->lies_whole, (unsigned long long)sum->lies_refused,
			(unsigned long long)sum->deaths);
	fflush(stdout);
}

uint64_t launch_writes(const struct trace *trace)
{
	uint64_t points = 0;

	for (const struct trace_event *event = NULL; (event = trace_next(trace, event));)
		points += event->kind == TRACE_WRITE || event->kind == TRACE_DSYNC_WRITE;
	return points;
}

struct outcome launch_outcome(const struct trace *trace)
{
	struct outcome outcome = {0};

	for (const struct trace_event *event = NULL; (event = trace_next(trace, event));) {
		outcome.injected = outcome.injected || event->kind == TRACE_INJECTED;
		if (event->kind != TRACE_MARK)
			continue;
		if (event->file == MARK_FAILED)
			outcome.failed = event->offset;
		else if (event->other > outcome.high[event->offset])
			outcome.high[event->offset] = event->other;
		if (event->file == MARK_START || event->file == MARK_ACK)
			outcome.low[event->offset] = event->other;
		if (event->file == MARK_ACK)
			outcome.acknowledged = outcome.acknowledged || outcome.injected;
	}
	return outcome;
}

/* Prints what is not right; the exit code of the child that looks. */
static int look(const struct oracle *oracle, const char *dir, const struct outcome *outcome)
{
	char why[ORACLE_WHY] = "";
	uint64_t seq[ORACLE_LINES] = {0};
	enum verdict verdict = oracle->check(dir, seq, why);

	if (verdict != VERDICT_GOOD)
		fprintf(stderr, "after a restart: verdict %d: %s\n", verdict, why);
	for (int i = 0; verdict == VERDICT_GOOD && i < oracle->lines; i++) {
		if (seq[i] >= outcome->low[i] && seq[i] <= outcome->high[i])
			continue;
		fprintf(stderr,
			"after a restart: line %d is at %llu: acknowledged %llu, begun %llu\n", i,
			(unsigned long long)seq[i], (unsigned long long)outcome->low[i],
			(unsigned long long)outcome->high[i]);
		return 1;
	}
	return verdict != VERDICT_GOOD;
}

bool launch_restarts(const struct oracle *oracle, const char *root, const struct outcome *outcome)
{
	char dir[PATH_MAX];
	int status;

	snprintf(dir, sizeof(dir), "%s/" REPLAY_STORE, root);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		_exit(look(oracle, dir, outcome));
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

bool launch_again(const struct oracle *oracle, const char *kept, uint64_t point, uint64_t index,
	unsigned random, uint64_t seed)
{
	char path[PATH_MAX], dir[PATH_MAX + 8], why[ORACLE_WHY] = "";
	uint64_t seq[ORACLE_LINES] = {0};
	struct segue_tmpdir tmp;
	struct trace trace;

	segue_tmpdir_make(&tmp, "again");
	snprintf(path, sizeof(path), "%s/base", kept);
	struct disk *base = disk_create(path);
	snprintf(path, sizeof(path), "%s/trace", kept);
	trace_load(&trace, path);
	const struct replay replay = {
		.base = base, .trace = &trace, .seed = seed, .random = random};
	snprintf(path, sizeof(path), "%s/image", tmp.root);
	if (!replay_image(&replay, point, index, path))
		launch_die("there is no such image");
	snprintf(dir, sizeof(dir), "%s/" REPLAY_STORE, path);
	enum verdict verdict = oracle->check(dir, seq, why);
	printf("verdict %d, at %llu %llu %llu %llu: %s\n", verdict, (unsigned long long)seq[0],
		(unsigned long long)seq[1], (unsigned long long)seq[2], (unsigned long long)seq[3],
		why);
	free(trace.bytes);
	disk_destroy(base);
	segue_tmpdir_remove(&tmp);
	return verdict == VERDICT_GOOD;
}
