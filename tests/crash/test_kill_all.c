/*
 * Server and workers killed all at once, at random moments, again and again.
 *
 *	test_kill_all [KILLS]
 *
 * Two workers, a lane each, go through batches, checkpoints and restores; then every process is
 * ended by SIGKILL, also while a server starts or a store is being made. After each kill the store
 * is looked at from outside (session.h): with durability = commit nothing that was acknowledged is lost,
 * with interval no commit older than it; what is there is a whole commit of each lane. Then all are
 * started again. Half of the kills at each durability.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "session.h"

enum { STEPS = 1 << 16, RENEW = 25 };

static uint64_t seed;

/* All are started and, after a while, killed. */
static void kill_once(struct crash_world *world, uint64_t random, const char *where)
{
	/* A server is up after some milliseconds, sooner than a new store. */
	uint64_t range = random % 4 == 0 ? 8000 : random % 4 == 1 ? 150000 : 40000;

	for (uint32_t lane = 0; lane < CRASH_LANES; lane++)
		crash_start_wanderer(world, lane, random, 0);
	usleep((useconds_t)((random >> 16) % range));
	int64_t now = crash_now();
	crash_kill_all();
	crash_check_after_crash(world, now, where);
}

static void run(enum segue_durability durability, unsigned kills)
{
	const char *name = durability == SEGUE_DURABLE_COMMIT ? "commit" : "interval";
	uint64_t random = crash_mix(seed + durability), batches = 0, lost = 0;
	struct crash_world world;
	int64_t lost_ns = 0;
	char where[128];

	crash_world_make(&world, "kill-all", STEPS);
	world.durability = durability;
	for (unsigned kill = 0; kill < kills; kill++) {
		random = crash_mix(random);
		snprintf(where, sizeof(where), "kill %u at %s, SEGUE_TEST_SEED=%llu", kill, name,
			(unsigned long long)seed);
		kill_once(&world, random, where);
		if (kill + 1 < kills && (kill + 1) % RENEW != 0)
			continue;
		crash_finish_in_order(&world, random, where);
		for (uint32_t lane = 0; lane < CRASH_LANES; lane++) {
			const struct crash_lane *state = &world.ledger->lane[lane];
			batches += state->batches;
			lost = state->lost > lost ? state->lost : lost;
			lost_ns = state->lost_ns > lost_ns ? state->lost_ns : lost_ns;
		}
		crash_world_renew(&world);
	}
	crash_world_remove(&world);
	printf("test_kill_all: %s: %u kills, %llu batches; the most that one kill took back: %llu "
	       "batches, %.1f ms\n",
		name, kills, (unsigned long long)batches, (unsigned long long)lost,
		(double)lost_ns * 1e-6);
}

int main(int argc, char **argv)
{
	unsigned kills = argc > 1 ? (unsigned)atoi(argv[1]) : 300;

	seed = crash_seed();
	printf("test_kill_all: %u kills, seed %llu\n", kills, (unsigned long long)seed);
	fflush(stdout);
	run(SEGUE_DURABLE_COMMIT, (kills + 1) / 2);
	run(SEGUE_DURABLE_INTERVAL, kills / 2);
	return 0;
}
