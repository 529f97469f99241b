/*
 * Power cuts on real file systems: ext4 and XFS on a loop device, shut down under server and
 * workers.
 *
 *	test_power_cut [CUTS] [ext4|xfs]
 *
 * Two workers, a lane each, go through batches, checkpoints and restores. At a random moment the
 * file system is shut down without a flush of its log, so that all that was not synced is gone;
 * every process is killed, the file system mounted again, and store and ledger are compared
 * (session.h). At durability = commit nothing that was acknowledged may be lost; at interval no commit
 * older than it; what is there is a whole commit of each lane. CUTS on each file system, on ext4
 * with changing options. Then the same with syncs that do nothing, which must be noticed.
 * Needs root, loop devices and mkfs: else it says what is missing, and that it was skipped (77).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop_mount.h"
#include "preload.h"
#include "session.h"

enum { STEPS = 1 << 14, RENEW = 10, LOSING_CUTS = 10, BATCHES = 8, SKIPPED = 77 };

static const struct {
	const char *type, *options;
} kinds[] = {
	{"ext4", ""},
	{"ext4", "commit=1"},
	{"ext4", "data=writeback"},
	{"ext4", "nodelalloc"},
	{"ext4", "data=journal"},
	{"xfs", ""},
};

enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static uint64_t seed;
static char last_root[SEGUE_TMPDIR_MAX]; /* the last world that was made */

static uint64_t batches_of(const struct crash_world *world)
{
	return world->ledger->lane[0].batches + world->ledger->lane[1].batches;
}

static void let_move(const struct crash_world *world, const char *where)
{
	int64_t until = crash_now() + INT64_C(20000000000);
	uint64_t from = batches_of(world);

	while (batches_of(world) < from + BATCHES && crash_now() < until)
		usleep(500);
	if (batches_of(world) == from)
		crash_die("%s: there are no batches to lose", where);
}

static void cut_once(struct crash_world *world, const struct loop_mount *mount, uint64_t random,
	const char *where)
{
	for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
		crash_start_wanderer(world, lane, random, 0);
	/* One in four falls into the start; else there is something to lose. */
	if (random % 4 != 0)
		let_move(world, where);
	usleep((useconds_t)((random >> 16) % 30000));
	int64_t now = crash_now();
	loop_mount_cut(mount);
	crash_kill_all();
	loop_mount_again(mount);
	crash_check_after_crash(world, now, where);
}

/* One file system's life; returns 0, or -1 if it cannot be made here. */
static int live(struct crash_world *world, struct loop_mount *mount, unsigned cuts, uint64_t random,
	char *reason, size_t size)
{
	char where[160];

	if (loop_mount_make(mount, world->tmp.root, reason, size) < 0)
		return -1;
	memset(world->ledger, 0, sizeof(*world->ledger));
	for (unsigned cut = 0; cut < cuts; cut++) {
		random = crash_mix(random);
		snprintf(where, sizeof(where), "%s (%s), %s, cut %u, SEGUE_TEST_SEED=%llu",
			mount->type, mount->options, world->durability ? "commit" : "interval", cut,
			(unsigned long long)seed);
		cut_once(world, mount, random, where);
	}
	world->refusals = false;
	crash_finish_in_order(world, random, where);
	world->refusals = true;
	loop_mount_remove(mount);
	return 0;
}

static void make_world(
	struct crash_world *world, struct loop_mount *mount, char point[SEGUE_TMPDIR_MAX])
{
	crash_world_make(world, "power-cut", STEPS);
	memcpy(last_root, world->tmp.root, sizeof(last_root));
	world->refusals = true;
	segue_tmpdir_path(&world->tmp, "mnt", point);
	if (mkdir(point, 0700) < 0)
		crash_die("%s: %s", point, strerror(errno));
	segue_tmpdir_path(&world->tmp, "mnt/run", world->dir);
	*mount = (struct loop_mount){.device = -1, .point = point};
}

/* Lives of RENEW cuts, on the options of the type by turns, durabilities by turns. */
static int run(const char *type, unsigned cuts, uint64_t first)
{
	char point[SEGUE_TMPDIR_MAX], reason[256];
	struct crash_world world;
	struct loop_mount mount;
	uint64_t batches = 0, lost = 0;
	unsigned done = 0, life = 0;
	int64_t lost_ns = 0;
	int rc = 0;

	make_world(&world, &mount, point);
	for (unsigned i = (unsigned)first; done < cuts && rc == 0; i++) {
		if (strcmp(kinds[i % KINDS].type, type) != 0)
			continue;
		unsigned now = cuts - done < RENEW ? cuts - done : RENEW;
		mount.type = type;
		mount.options = kinds[i % KINDS].options;
		world.durability = life++ % 2 ? SEGUE_DURABLE_INTERVAL : SEGUE_DURABLE_COMMIT;
		rc = live(&world, &mount, now, crash_mix(seed + first + done), reason,
			sizeof(reason));
		done += now;
		for (uint32_t lane = 0; rc == 0 && lane < CRASH_LANES; lane++) {
			const struct crash_lane *state = &world.ledger->lane[lane];
			batches += state->batches;
			lost = state->lost > lost ? state->lost : lost;
			lost_ns = state->lost_ns > lost_ns ? state->lost_ns : lost_ns;
		}
	}
	crash_world_remove(&world);
	if (rc)
		printf("test_power_cut: SKIP %s: %s\n", type, reason);
	else
		printf("test_power_cut: %s: %u cuts, %llu batches; the most that one took back at "
		       "interval: %llu batches, %.1f ms\n",
			type, done, (unsigned long long)batches, (unsigned long long)lost,
			(double)lost_ns * 1e-6);
	fflush(stdout);
	return rc;
}

/* A run that goes wrong ends in the middle. */
static void clean_up(void)
{
	struct segue_tmpdir tmp;
	char point[SEGUE_TMPDIR_MAX];

	crash_kill_all();
	memcpy(tmp.root, last_root, sizeof(tmp.root));
	if (!tmp.root[0] || access(tmp.root, F_OK) < 0)
		return;
	umount2(segue_tmpdir_path(&tmp, "mnt", point), MNT_DETACH);
	segue_tmpdir_remove(&tmp);
}

/* With syncs that do nothing the same must go wrong. In a child, for it ends by that. */
static void run_losing(const char *type)
{
	const char *library = getenv("SEGUE_LOSE_SYNC");
	int status;

	if (!library || !*library) {
		printf("test_power_cut: SKIP syncs that do nothing: no library for it (a sanitized "
		       "build?)\n");
		return;
	}
	library = segue_preload_path(library);
	pid_t pid = fork();
	if (pid == 0) {
		int log = open("/dev/null", O_WRONLY);
		dup2(log, STDERR_FILENO);
		dup2(log, STDOUT_FILENO);
		setenv("LD_PRELOAD", library, 1);
		atexit(clean_up);
		exit(run(type, LOSING_CUTS, 0) ? SKIPPED : 0);
	}
	if (waitpid(pid, &status, 0) != pid)
		crash_die("waitpid: %s", strerror(errno));
	if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
		crash_die("%s: it could not be made again", type);
	if (status == 0)
		crash_die("%s: syncs did nothing, and no loss was seen in %d cuts", type,
			LOSING_CUTS);
	printf("test_power_cut: %s: with syncs that do nothing the loss is seen\n", type);
}

int main(int argc, char **argv)
{
	static const char *const types[] = {"ext4", "xfs"};
	unsigned cuts = argc > 1 ? (unsigned)atoi(argv[1]) : 100;
	char reason[256];
	int done = 0;

	seed = crash_seed();
	printf("test_power_cut: %u cuts on each file system, seed %llu\n", cuts,
		(unsigned long long)seed);
	fflush(stdout);
	if (loop_mount_prepare(reason, sizeof(reason)) < 0) {
		printf("test_power_cut: SKIP: power cuts need root and loop devices: %s\n", reason);
		return SKIPPED;
	}
	for (size_t i = 0; i < 2; i++) {
		if (argc > 2 && strcmp(argv[2], types[i]) != 0)
			continue;
		if (run(types[i], cuts, crash_mix(seed) % KINDS) < 0)
			continue;
		run_losing(types[i]);
		done++;
	}
	return done ? 0 : SKIPPED;
}
