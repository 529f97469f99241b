/*
 * Ends in order, and disturbances from outside, under two workers that check every batch: signals,
 * second servers, clocks that jump, process ids that are used again, data and directories that
 * are taken away, a server that the kernel ends for its memory.
 *
 *	test_orderly [NAME]
 *
 * Each part prints what was seen, or SKIP and what this machine does not have. The workers are
 * those of session.h; in each part they must go on, each batch once, or get the error that is named.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop_mount.h"
#include "session.h"

enum { STEPS = 1 << 16, MOVES = 8 };

static const int64_t second = INT64_C(1000000000), patience = INT64_C(60000000000);
static uint64_t seed;
static bool own_mounts; /* this process has a mount namespace of its own */
static char no_mounts[256];

/* ---- Two workers and their server ---- */

struct traffic {
	struct crash_world *world;
	pid_t worker[CRASH_LANES];
};

static void check_workers(const struct traffic *traffic, const char *where)
{
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++) {
		int status;
		if (traffic->worker[lane] && waitpid(traffic->worker[lane], &status, WNOHANG) > 0)
			crash_check_end(traffic->world, status, where);
	}
}

static void look_where(const struct traffic *traffic, uint64_t batches[CRASH_LANES])
{
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
		batches[lane] = traffic->world->ledger->lane[lane].batches;
}

static bool have_moved(const struct traffic *traffic, const uint64_t from[CRASH_LANES])
{
	bool moved = true;

	for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
		moved = moved && traffic->world->ledger->lane[lane].batches > from[lane] + MOVES;
	return moved;
}

/* Waits until both lanes have gone on by some batches. */
static void let_move(const struct traffic *traffic, const char *where)
{
	uint64_t from[CRASH_LANES];
	int64_t until = crash_now() + patience;

	look_where(traffic, from);
	while (!have_moved(traffic, from)) {
		check_workers(traffic, where);
		if (crash_now() > until)
			crash_die("%s: no batches any more (seed %llu)", where,
				(unsigned long long)seed);
		usleep(500);
	}
}

static void begin(struct traffic *traffic, struct crash_world *world, const char *where)
{
	traffic->world = world;
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
		traffic->worker[lane] = crash_start_wanderer(world, lane, seed, 0);
	let_move(traffic, where);
}

/* Everything is killed, and the store compared with the ledger. */
static void end(struct traffic *traffic, const char *where)
{
	let_move(traffic, where);
	int64_t now = crash_now();
	crash_kill_all();
	crash_check_after_crash(traffic->world, now, where);
	crash_world_renew(traffic->world);
}

/* One that has ended and that nobody has waited for can be sent signals, but does not live. */
static bool lives(pid_t pid)
{
	siginfo_t end = {0};

	if (waitid(P_PID, (id_t)pid, &end, WEXITED | WNOHANG | WNOWAIT) == 0)
		return end.si_pid == 0;
	return kill(pid, 0) == 0;
}

static pid_t server(const struct traffic *traffic, const char *where)
{
	pid_t pid = crash_server_pid(traffic->world);

	if (pid <= 0 || !lives(pid))
		crash_die("%s: the server is gone", where);
	return pid;
}

/* The server's end: it is an orphan, and so our child. Its status; dies after `limit`. */
static int await_server(pid_t pid, int64_t limit, int64_t *took, const char *where)
{
	int64_t start = crash_now();
	int status;

	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (crash_now() - start > limit)
			crash_die("%s: the server has not ended in time", where);
		usleep(500);
	}
	*took = crash_now() - start;
	return status;
}

/* ---- Signals ---- */

/* S24. */
static void signals(struct crash_world *world)
{
	struct traffic traffic;
	int64_t took, longest = 0;

	for (int round = 0; round < 12; round++) {
		bool twice = round % 3 == 2;
		const char *where = twice ? "a second SIGTERM" : "SIGTERM";
		world->durability = round % 2 ? SEGUE_DURABLE_COMMIT : SEGUE_DURABLE_INTERVAL;
		begin(&traffic, world, where);
		pid_t pid = server(&traffic, where);
		usleep((useconds_t)(crash_mix(seed + (uint64_t)round) % 20000));
		kill(pid, SIGTERM);
		if (twice) {
			usleep((useconds_t)(crash_mix(seed + (uint64_t)round) % 2000));
			kill(pid, SIGTERM);
		}
		int status = await_server(pid, 5 * second, &took, where);
		longest = took > longest ? took : longest;
		if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && !twice))
			crash_die("%s: the server ended with status %#x", where, (unsigned)status);
		end(&traffic, where);
	}
	begin(&traffic, world, "SIGHUP");
	pid_t pid = server(&traffic, "SIGHUP");
	kill(pid, SIGHUP);
	await_server(pid, 5 * second, &took, "SIGHUP");
	let_move(&traffic, "SIGHUP");
	pid = server(&traffic, "SIGPIPE");
	kill(pid, SIGPIPE);
	let_move(&traffic, "SIGPIPE");
	if (server(&traffic, "SIGPIPE") != pid)
		crash_die("SIGPIPE: another server runs");
	end(&traffic, "SIGPIPE");
	printf("signals: SIGTERM under commits, a second one, SIGHUP, SIGPIPE: the longest end "
	       "took "
	       "%.1f ms\n",
		(double)longest * 1e-6);
}

/* ---- A second server ---- */

static void refuse_second(const char *dir, const char *where)
{
	int64_t start = crash_now();
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);
		dup2(null, STDERR_FILENO);
		dup2(null, STDOUT_FILENO);
		execlp(getenv("SEGUE_PROGRAM"), "segue", "serve", dir, (char *)NULL);
		_exit(127);
	}
	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (crash_now() - start > 10 * second) {
			kill(pid, SIGKILL);
			crash_die("%s: a second server runs", where);
		}
		usleep(500);
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 1)
		crash_die("%s: the second server ended with status %#x", where, (unsigned)status);
}

static void remove_below(const struct crash_world *world, const char *name)
{
	char path[SEGUE_TMPDIR_MAX];

	snprintf(path, sizeof(path), "%.*s/%s", (int)sizeof(path) - 32, world->dir, name);
	unlink(path);
}

/* S19. */
static void second_server(struct crash_world *world)
{
	static const char *const files[] = {
		"server.pid", "start.lock", "segue.sock", "store/lock.mdb"};
	char other[SEGUE_TMPDIR_MAX];
	struct traffic traffic;

	begin(&traffic, world, "a second server");
	pid_t pid = server(&traffic, "a second server");
	refuse_second(world->dir, "a second server");
	segue_tmpdir_path(&world->tmp, "other", other);
	if (own_mounts && mkdir(other, 0700) == 0 &&
		mount(world->dir, other, NULL, MS_BIND, NULL) == 0) {
		refuse_second(other, "a second server over a bind mount");
		umount2(other, MNT_DETACH);
		rmdir(other);
		printf("second_server: refused, also over a bind mount\n");
	} else {
		printf("second_server: SKIP over a bind mount: %s\n",
			own_mounts ? strerror(errno) : no_mounts);
	}
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		remove_below(world, files[i]);
		refuse_second(world->dir, files[i]);
	}
	let_move(&traffic, "a second server");
	if (!lives(pid))
		crash_die("a second server: the first is gone");
	printf("second_server: refused, also when pid file, lock files and socket are deleted\n");
	end(&traffic, "a second server");
}

/* ---- Clocks ---- */

static void set_clock(const char *path, const char *offset)
{
	FILE *file = fopen(path, "we");

	if (!file || fputs(offset, file) < 0 || fclose(file) != 0)
		crash_die("%s: %s", path, strerror(errno));
}

/* S22. The server's clock; leases and intervals must not look at it. */
static void clock_jumps(struct crash_world *world)
{
	static const char *const offsets[] = {"+1d", "-1d", "+0", "+400d", "-2d"};
	char path[SEGUE_TMPDIR_MAX];
	struct traffic traffic;
	glob_t found;

	if (glob("/usr/lib/*/faketime/libfaketimeMT.so.1", 0, NULL, &found) != 0) {
		printf("clock_jumps: SKIP: there is no libfaketime (Debian: faketime)\n");
		return;
	}
	set_clock(segue_tmpdir_path(&world->tmp, "clock", path), "+0");
	setenv("LD_PRELOAD", found.gl_pathv[0], 1);
	setenv("FAKETIME_TIMESTAMP_FILE", path, 1);
	setenv("FAKETIME_NO_CACHE", "1", 1);
	setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1", 1);
	world->durability = SEGUE_DURABLE_INTERVAL;
	begin(&traffic, world, "clock");
	pid_t pid = server(&traffic, "clock");
	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		const struct crash_lane *lane = &world->ledger->lane[0];
		uint64_t from = lane->due;
		int64_t until = crash_now() + patience;
		set_clock(path, offsets[i]);
		while (lane->durable <= from && lane->due >= from) {
			check_workers(&traffic, offsets[i]);
			if (crash_now() > until)
				crash_die("clock %s: nothing goes to disk any more", offsets[i]);
			usleep(1000);
		}
		let_move(&traffic, offsets[i]);
		if (server(&traffic, offsets[i]) != pid)
			crash_die("clock %s: another server runs", offsets[i]);
	}
	unsetenv("LD_PRELOAD");
	end(&traffic, "clock");
	globfree(&found);
	printf("clock_jumps: leases stay and intervals go on over jumps of up to 400 days\n");
}

/* ---- Process ids ---- */

static void set_next_pid(pid_t pid)
{
	FILE *file = fopen("/proc/sys/kernel/ns_last_pid", "we");

	if (!file || fprintf(file, "%d", (int)pid - 1) < 0 || fclose(file) != 0)
		crash_die("ns_last_pid: %s", strerror(errno));
}

/* A process with this id that does nothing. */
static pid_t take_pid(pid_t wanted)
{
	for (int tries = 0; tries < 100; tries++) {
		set_next_pid(wanted);
		pid_t pid = fork();
		if (pid == 0) {
			pause();
			_exit(0);
		}
		if (pid == wanted)
			return pid;
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	crash_die("process id %d cannot be had again", (int)wanted);
}

/* In a pid namespace: its first process. */
static _Noreturn void reuse_pids(struct crash_world *world)
{
	struct traffic traffic;

	if (mount("proc", "/proc", "proc", 0, NULL) < 0)
		crash_die("/proc: %s", strerror(errno));
	for (int with_server = 0; with_server < 2; with_server++) {
		const char *where = with_server ? "a holder's pid used again, server killed too"
						: "a holder's pid used again";
		int status;
		begin(&traffic, world, where);
		pid_t holder = traffic.worker[0], serving = server(&traffic, where);
		kill(traffic.worker[1], SIGSTOP); /* a server that it starts could get the number */
		kill(holder, SIGKILL);
		waitpid(holder, NULL, 0);
		if (with_server) {
			kill(serving, SIGKILL);
			waitpid(serving, NULL, 0);
		}
		usleep(30000); /* start times have a resolution of 10 ms */
		pid_t stranger = take_pid(holder);
		kill(traffic.worker[1], SIGCONT);
		int64_t start = crash_now();
		uint64_t until = world->ledger->lane[0].due + MOVES;
		pid_t heir = crash_start_wanderer(world, 0, seed, until);
		if (waitpid(heir, &status, 0) != heir)
			crash_die("%s: waitpid", where);
		crash_check_end(world, status, where);
		if (crash_now() - start > 5 * second)
			crash_die("%s: the lane came free too late", where);
		if (!lives(stranger))
			crash_die("%s: the stranger is gone", where);
		crash_kill_all();
		crash_check_after_crash(world, crash_now(), where);
		crash_world_renew(world);
	}
	_exit(0);
}

/* S23. */
static void pid_reuse(struct crash_world *world)
{
	int status;

	if (!own_mounts) {
		printf("pid_reuse: SKIP: %s\n", no_mounts);
		return;
	}
	pid_t outer = fork();
	if (outer == 0) {
		if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0)
			_exit(77);
		pid_t inner = fork();
		if (inner == 0)
			reuse_pids(world);
		_exit(inner > 0 && waitpid(inner, &status, 0) == inner && status == 0 ? 0 : 1);
	}
	if (waitpid(outer, &status, 0) != outer || !WIFEXITED(status))
		crash_die("pid_reuse: status %#x", (unsigned)status);
	if (WEXITSTATUS(status) == 77)
		printf("pid_reuse: SKIP: no pid namespace can be made here\n");
	else if (WEXITSTATUS(status) != 0)
		crash_die("pid_reuse: see above");
	else
		printf("pid_reuse: a dead holder's lane is free although its pid lives again\n");
}

/* ---- The data ---- */

static void copy_file(const char *from, const char *to, size_t flip)
{
	FILE *in = fopen(from, "re"), *out = fopen(to, "we");
	size_t at = 0;
	int byte;

	if (!in || !out)
		crash_die("%s: %s", to, strerror(errno));
	while ((byte = fgetc(in)) != EOF)
		fputc(flip && ++at % flip == 0 ? byte ^ 1 : byte, out);
	fclose(in);
	if (fclose(out) != 0)
		crash_die("%s: %s", to, strerror(errno));
}

/* Both workers end with a typed error of the data, or go on as before for a while. */
static void judge_data(struct traffic *traffic, const char *where)
{
	const struct crash_world *world = traffic->world;
	pid_t serving = server(traffic, where);
	int64_t now = crash_now(), until = now + second / 2, latest = now + patience;
	uint64_t from[CRASH_LANES];
	bool refused = false;

	look_where(traffic, from);
	while (crash_now() < until || (!refused && !have_moved(traffic, from))) {
		if (crash_now() > latest)
			crash_die("%s: no batches any more, and no error", where);
		for (uint32_t lane = 0; lane < CRASH_LANES; lane++) {
			int status = 0;
			if (!traffic->worker[lane] ||
				waitpid(traffic->worker[lane], &status, WNOHANG) <= 0)
				continue;
			traffic->worker[lane] = 0;
			if (!WIFEXITED(status) || WEXITSTATUS(status) != CRASH_REFUSED)
				crash_check_end(world, status, where);
			int code = world->ledger->code;
			if (code != SEGUE_EDATA && code != SEGUE_ESOURCE && code != SEGUE_ECHANGED)
				crash_die("%s: %s", where, world->ledger->message);
			refused = true;
		}
		if (!traffic->worker[0] && !traffic->worker[1])
			break;
		usleep(1000);
	}
	/* When all have left, the server may have ended in order; by a signal it must not. */
	int status = 0;
	if (waitpid(serving, &status, WNOHANG) == serving && !WIFEXITED(status))
		crash_die("%s: the server ended with status %#x", where, (unsigned)status);
	printf("data_changes: %s: %s\n", where,
		refused ? world->ledger->message : "all go on with the file that was opened");
}

/* S26. */
static void data_changes(struct crash_world *world)
{
	static const char *const ways[] = {
		"truncated to nothing", "cut in the middle", "overwritten", "replaced", "deleted"};
	char pristine[SEGUE_TMPDIR_MAX], fresh[SEGUE_TMPDIR_MAX];
	struct stat info;

	segue_tmpdir_path(&world->tmp, "pristine", pristine);
	segue_tmpdir_path(&world->tmp, "fresh", fresh);
	copy_file(world->data, pristine, 0);
	stat(pristine, &info);
	world->refusals = true;
	for (int way = 0; way < 5; way++) {
		struct traffic traffic;
		begin(&traffic, world, ways[way]);
		copy_file(pristine, fresh, 37);
		int rc = way == 0   ? truncate(world->data, 0)
			 : way == 1 ? truncate(world->data, info.st_size / 2)
			 : way == 3 ? rename(fresh, world->data)
			 : way == 4 ? unlink(world->data)
				    : 0;
		if (way == 2)
			copy_file(fresh, world->data, 0);
		if (rc < 0)
			crash_die("%s: %s", ways[way], strerror(errno));
		judge_data(&traffic, ways[way]);
		int64_t now = crash_now();
		crash_kill_all();
		crash_check_after_crash(world, now, ways[way]);
		/* With the file as it was, things go on from there. */
		unlink(world->data);
		copy_file(pristine, world->data, 0);
		crash_finish_in_order(world, seed, ways[way]);
		crash_world_renew(world);
	}
	world->refusals = false;
}

/* ---- A directory that cannot be written ---- */

/* S11. */
static void read_only(struct crash_world *world)
{
	struct segue_client *client;

	world->durability = SEGUE_DURABLE_COMMIT;
	if (!own_mounts) {
		printf("read_only: SKIP: %s\n", no_mounts);
		return;
	}
	crash_finish_in_order(world, seed, "read_only");
	if (mount(world->dir, world->dir, NULL, MS_BIND, NULL) < 0 ||
		mount(NULL, world->dir, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)
		crash_die("read_only: mount: %s", strerror(errno));
	int rc = segue_open(world->dir, NULL, &client);
	if (rc != SEGUE_EREADONLY)
		crash_die("read_only: segue_open says %s: %s", segue_error_name(rc),
			segue_error_detail());
	printf("read_only: refused: %s\n", segue_error_detail());
	if (umount(world->dir) < 0)
		crash_die("read_only: umount: %s", strerror(errno));
	crash_finish_in_order(world, seed, "read_only, writable again");
	crash_world_renew(world);
}

/* ---- Memory ---- */

static bool write_text(const char *dir, const char *name, const char *text)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (fd >= 0)
		close(fd);
	return written;
}

static bool move_into(const char *cgroup, pid_t pid)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", (int)pid);
	return write_text(cgroup, "cgroup.procs", text);
}

/* Takes memory until the kernel ends somebody: two do so, that neither is bigger than the server's score. */
static _Noreturn void hog(const char *cgroup)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!move_into(cgroup, getpid()))
		_exit(1);
	for (int i = 0; i < 1024; i++) {
		char *block = malloc(1 << 20);
		if (block)
			memset(block, i + 1, 1 << 20);
		usleep(200);
	}
	pause();
	_exit(0);
}

/* S14. */
static void out_of_memory(struct crash_world *world)
{
	char cgroup[128], path[64];
	struct traffic traffic;
	int64_t took;

	snprintf(cgroup, sizeof(cgroup), "/sys/fs/cgroup/memory/segue-test-%d", (int)getpid());
	if (mkdir(cgroup, 0700) < 0) {
		printf("out_of_memory: SKIP: %s: %s\n", cgroup, strerror(errno));
		return;
	}
	begin(&traffic, world, "out of memory");
	pid_t pid = server(&traffic, "out of memory");
	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	bool ready = write_text(cgroup, "memory.limit_in_bytes", "67108864") &&
		     move_into(cgroup, pid) && write_text(path, "oom_score_adj", "1000");
	if (ready) {
		pid_t eaters[2];
		for (int i = 0; i < 2; i++) {
			eaters[i] = fork();
			if (eaters[i] == 0)
				hog(cgroup);
		}
		int status = await_server(pid, 30 * second, &took, "out of memory");
		for (int i = 0; i < 2; i++) {
			kill(eaters[i], SIGKILL);
			waitpid(eaters[i], NULL, 0);
		}
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			crash_die("out of memory: the server ended with status %#x",
				(unsigned)status);
		printf("out_of_memory: the kernel ended the server; its workers went on with "
		       "another\n");
	} else {
		printf("out_of_memory: SKIP: the memory cgroup cannot be used\n");
	}
	end(&traffic, "out of memory");
	rmdir(cgroup);
}

static void pass_over(int number)
{
	(void)number;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(struct crash_world *world);
	} parts[] = {
		{"signals", signals},
		{"second_server", second_server},
		{"clock_jumps", clock_jumps},
		{"pid_reuse", pid_reuse},
		{"data_changes", data_changes},
		{"read_only", read_only},
		{"out_of_memory", out_of_memory},
	};
	struct crash_world world;

	if (!getenv("SEGUE_PROGRAM"))
		crash_die("SEGUE_PROGRAM is not set");
	/* Not ignored, as by nohup: servers would inherit that. */
	signal(SIGHUP, pass_over);
	seed = crash_seed();
	printf("test_orderly: seed %llu\n", (unsigned long long)seed);
	setvbuf(stdout, NULL, _IOLBF, 0);
	own_mounts = loop_mount_prepare(no_mounts, sizeof(no_mounts)) == 0;
	crash_world_make(&world, "orderly", STEPS);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (argc < 2 || strcmp(argv[1], parts[i].name) == 0)
			parts[i].run(&world);
	crash_world_remove(&world);
	return 0;
}
