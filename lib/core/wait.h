/*
 * Sleeping and waking across processes: futex words in shared memory, eventfds, the monotonic
 * clock.
 *
 * The order that keeps a wake-up from being lost is the caller's: the sleeper sets its flag,
 * fences, looks again, sleeps; the waker stores, fences, reads the flag (track.c, feed.c). Never
 * FUTEX_PRIVATE.
 */
#ifndef SEGUE_CORE_WAIT_H
#define SEGUE_CORE_WAIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t segue_now_ns(void);

/*
 * Sleeps while *word == seen, until `deadline_ns` at the latest (monotonic; INT64_MAX: none).
 * Returns true when woken or the word differs, false at the deadline; may return true without
 * reason (a signal). Works through a read-only mapping.
 */
bool segue_wait_word(const _Atomic uint32_t *word, uint32_t seen, int64_t deadline_ns);
enum { SEGUE_WAIT_WORDS = 128 };
/*
 * The same of several, at most SEGUE_WAIT_WORDS: until one of them differs from what was seen. On a
 * kernel that cannot (before 5.16) it returns true after a few milliseconds at the latest.
 */
bool segue_wait_words(const _Atomic uint32_t *const *words, const uint32_t *seen, size_t count,
	int64_t deadline_ns);
/* Wakes all that sleep on the word: one system call. */
void segue_wake_word(_Atomic uint32_t *word);

/* An eventfd, CLOEXEC and non-blocking; negative code on failure. */
int segue_event_create(void);
/* Adds one to it; never blocks, never fails in a way that loses a wake-up. */
void segue_event_ring(int fd);
/* Empties it. */
void segue_event_clear(int fd);

#endif
