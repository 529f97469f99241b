/*
 * Stress of sleeping and waking: no wake-up is lost, whatever the moment.
 *
 *	stress_wait [-n rounds] [-s seed] [-m]
 *
 * Two threads pass numbers through one slot, as server and worker pass batches: the reader sleeps
 * on a futex word, the writer on an eventfd. Whoever sleeps sets its flag, fences, looks again; the
 * other stores, fences, reads the flag. A wake-up that does not come within seconds was lost: exit
 * 1. -m leaves the fences out (a mutant, to see this test fail). A plain program, so that it runs
 * under the thread sanitizer, which also sees that the slot is handed over in order.
 */
#include <poll.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/wait.h"

/* The sanitizer does not model fences; nothing here needs it to: the slot goes by release and
 * acquire. */
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan"
#endif

#define LINE        128
#define LOST_NS     INT64_C(5000000000)
#define AHEAD_NS    500
#define PATIENCE_NS 30000
#define SPREAD_NS   100

static struct {
	alignas(LINE) _Atomic uint64_t published;  /* written by the writer */
	alignas(LINE) _Atomic uint64_t released;   /* written by the reader */
	alignas(LINE) _Atomic uint32_t sleeping;   /* the reader's flag */
	alignas(LINE) _Atomic uint64_t wake_at;    /* the writer's flag: a value of released */
	alignas(LINE) _Atomic uint32_t bell;       /* the reader's futex word */
	alignas(LINE) uint64_t slot;               /* not atomic: published and released guard it */
	alignas(LINE) _Atomic uint64_t publish_at; /* when the writer means to store */
	alignas(LINE) _Atomic uint64_t release_at; /* when the reader does */
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

static void lost(const char *who, uint64_t round)
{
	printf("lost a wake-up of the %s in round %llu\n", who, (unsigned long long)round);
	exit(1);
}

/* ---- Meeting at one instant ----------------------------------------------------------------- */

/*
 * Left to chance, a store falls into the few nanoseconds in which the other raises its flag once in
 * a million rounds. So who stores says when, and the other goes to sleep then, about.
 */
static void announce(_Atomic uint64_t *aim)
{
	int64_t at = segue_now_ns() + AHEAD_NS;

	segue_store_release(aim, (uint64_t)at);
	while (segue_now_ns() < at)
		;
}

/* Waits for the instant, if one is announced before the patience is at an end. */
static void meet(const _Atomic uint64_t *aim, uint64_t *last, unsigned *seed)
{
	int64_t patience = segue_now_ns() + PATIENCE_NS, at;

	while (segue_load_acquire(aim) == *last && segue_now_ns() < patience)
		;
	*last = segue_load_acquire(aim);
	at = (int64_t)*last + rand_r(seed) % (2 * SPREAD_NS) - SPREAD_NS;
	while (segue_now_ns() < at)
		;
}

/* ---- The two threads ------------------------------------------------------------------------ */

/* The server's part: sleeps until the slot is free for `round`. Pairs with read_slots. */
static void wait_for_room(uint64_t round, uint64_t *last, unsigned *seed)
{
	struct pollfd entry = {.fd = event, .events = POLLIN};

	while (segue_load_acquire(&shared.released) < round) {
		meet(&shared.release_at, last, seed);
		segue_store_release(&shared.wake_at, round);
		fence();
		if (segue_load_acquire(&shared.released) >= round)
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
	uint64_t last = 0;

	(void)arg;
	for (uint64_t round = 0; round < rounds; round++) {
		wait_for_room(round, &last, &seed);
		shared.slot = round * 3;
		announce(&shared.publish_at);
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

/* The worker's part: sleeps until `round` is in the slot. Pairs with write_slots. */
static void wait_for_slot(uint64_t round, uint64_t *last, unsigned *seed)
{
	while (segue_load_acquire(&shared.published) <= round) {
		/* Before looking again: a bell that rings after this keeps us from sleeping. */
		uint32_t seen = segue_load_acquire(&shared.bell);

		meet(&shared.publish_at, last, seed);
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
	uint64_t last = 0;

	(void)arg;
	for (uint64_t round = 0; round < rounds; round++) {
		wait_for_slot(round, &last, &seed);
		if (shared.slot != round * 3) {
			printf("round %llu: a torn slot\n", (unsigned long long)round);
			exit(1);
		}
		announce(&shared.release_at);
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
