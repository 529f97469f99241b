/*
 * Stress of sleeping and waking: no wake-up is lost, whatever the moment.
 *
 *	stress_wait [-n rounds] [-s seed] [-m]
 *
 * Two threads pass numbers through a ring of four slots, as server and worker do: the reader sleeps
 * on a futex word, the writer on an eventfd. Whoever sleeps sets its flag, fences, looks again; the
 * other stores, fences, reads the flag. A wake-up that does not come within seconds was lost: exit
 * 1. -m leaves the fences out (a mutant, to see this test fail). A plain program, so that it runs
 * under the thread sanitizer, which also sees that the slots are handed over in order.
 */
#include <poll.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "barrier.h"
#include "wait.h"

/* The sanitizer does not model fences; nothing here needs it to: values go by release and acquire. */
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif

#define DEPTH   4
#define LINE    128
#define SECOND  INT64_C(1000000000)
#define LOST_NS (5 * SECOND)

static struct {
	alignas(LINE) _Atomic uint64_t published; /* written by the writer */
	alignas(LINE) _Atomic uint64_t released;  /* written by the reader */
	alignas(LINE) _Atomic uint32_t sleeping;  /* the reader's flag */
	alignas(LINE) _Atomic uint64_t wake_at;   /* the writer's flag: a value of released */
	alignas(LINE) _Atomic uint32_t bell;      /* the reader's futex word */
	uint64_t slot[DEPTH];                     /* not atomic: published and released guard it */
} shared;

static uint64_t rounds = 200000;
static unsigned first_seed = 1;
static bool mutant;
static int event;
static uint64_t reader_slept, reader_woken, writer_slept, writer_woken;

static void fence(void)
{
	if (!mutant)
		segue_fence();
}

/* Shifts the two threads against each other. */
static void dawdle(unsigned *seed)
{
	for (volatile int i = rand_r(seed) % 64 ? rand_r(seed) % 100 : rand_r(seed) % 3000; i > 0;)
		i = i - 1;
}

/*
 * Spins for a while, so that the other often stores in the very moment in which the flag goes up.
 * True if it did before.
 */
static bool spin(const _Atomic uint64_t *word, uint64_t least, unsigned *seed)
{
	for (int i = rand_r(seed) % (rand_r(seed) % 4 ? 65536 : 512); i > 0; i--)
		if (segue_load_acquire(word) >= least)
			return true;
	return segue_load_acquire(word) >= least;
}

static void lost(const char *who, uint64_t round)
{
	printf("lost a wake-up of the %s in round %llu\n", who, (unsigned long long)round);
	exit(1);
}

/* The server's part: sleeps until slot `round` is free. Pairs with read_slot. */
static void wait_for_room(uint64_t round, unsigned *seed)
{
	struct pollfd entry = {.fd = event, .events = POLLIN};
	uint64_t least = round - DEPTH + 1;

	while (round >= DEPTH && !spin(&shared.released, least, seed)) {
		segue_store_release(&shared.wake_at, least);
		fence();
		if (segue_load_acquire(&shared.released) >= least)
			break;
		writer_slept++;
		if (poll(&entry, 1, (int)(LOST_NS / 1000000)) == 0)
			lost("writer", round);
		segue_event_clear(event);
	}
	segue_store_release(&shared.wake_at, UINT64_MAX);
}

static void *write_slots(void *arg)
{
	unsigned seed = first_seed;

	(void)arg;
	for (uint64_t round = 0; round < rounds; round++) {
		wait_for_room(round, &seed);
		shared.slot[round % DEPTH] = round * 3;
		dawdle(&seed);
		segue_store_release(&shared.published, round + 1);
		fence();
		if (segue_load_acquire(&shared.sleeping)) {
			segue_store_release(&shared.bell, segue_load_relaxed(&shared.bell) + 1);
			segue_wake_word(&shared.bell);
			reader_woken++;
		}
	}
	return NULL;
}

/* The worker's part: sleeps until slot `round` is there. Pairs with write_slots. */
static void wait_for_slot(uint64_t round, unsigned *seed)
{
	while (!spin(&shared.published, round + 1, seed)) {
		/* Before looking again: a bell that rings after this keeps us from sleeping. */
		uint32_t seen = segue_load_acquire(&shared.bell);

		segue_store_release(&shared.sleeping, 1);
		fence();
		if (segue_load_acquire(&shared.published) <= round) {
			reader_slept++;
			if (!segue_wait_word(&shared.bell, seen, segue_now_ns() + LOST_NS))
				lost("reader", round);
		}
		segue_store_release(&shared.sleeping, 0);
	}
}

static void *read_slots(void *arg)
{
	unsigned seed = first_seed + 1;

	(void)arg;
	for (uint64_t round = 0; round < rounds; round++) {
		wait_for_slot(round, &seed);
		if (shared.slot[round % DEPTH] != round * 3) {
			printf("round %llu: a torn slot\n", (unsigned long long)round);
			exit(1);
		}
		dawdle(&seed);
		segue_store_release(&shared.released, round + 1);
		fence();
		if (segue_load_acquire(&shared.wake_at) <= round + 1) {
			segue_event_ring(event);
			writer_woken++;
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t writer, reader;
	int option;

	while ((option = getopt(argc, argv, "n:s:m")) != -1) {
		if (option == 'n')
			rounds = strtoull(optarg, NULL, 10);
		else if (option == 's')
			first_seed = (unsigned)strtoul(optarg, NULL, 10);
		else if (option == 'm')
			mutant = true;
		else
			return 2;
	}
	event = segue_event_create();
	if (event < 0)
		return 1;
	atomic_init(&shared.wake_at, UINT64_MAX);
	printf("seed %u, %llu rounds\n", first_seed, (unsigned long long)rounds);
	fflush(stdout);
	if (pthread_create(&writer, NULL, write_slots, NULL) != 0 ||
		pthread_create(&reader, NULL, read_slots, NULL) != 0)
		return 1;
	pthread_join(writer, NULL);
	pthread_join(reader, NULL);
	printf("reader: slept %llu, woken %llu; writer: slept %llu, woken %llu\n",
		(unsigned long long)reader_slept, (unsigned long long)reader_woken,
		(unsigned long long)writer_slept, (unsigned long long)writer_woken);
	close(event);
	/* Threads that never sleep would have tested nothing. */
	return reader_slept > 0 && writer_slept > 0 ? 0 : 1;
}
