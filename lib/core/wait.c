/*
 * Futex words, eventfds and the monotonic clock.
 */
#include "core/wait.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"

#define SECOND         1000000000
#define WORDS_SLICE_NS 2000000 /* where only one word can be slept on */

int64_t segue_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * SECOND + now.tv_nsec;
}

bool segue_wait_word(const _Atomic uint32_t *word, uint32_t seen, int64_t deadline_ns)
{
	int64_t at = deadline_ns > 0 ? deadline_ns : 0;
	struct timespec deadline = {.tv_sec = at / SECOND, .tv_nsec = at % SECOND};
	long rc;

	/* The BITSET form takes an absolute time, so that a signal does not lengthen the wait. */
	rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen,
		deadline_ns == INT64_MAX ? NULL : &deadline, NULL, FUTEX_BITSET_MATCH_ANY);
	if (rc == 0)
		return true;
	assert(errno == EAGAIN || errno == EINTR || errno == ETIMEDOUT);
	return errno != ETIMEDOUT;
}

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

/* <linux/futex.h> of the kernel built on may be older than the one that this runs on. */
struct futex_waiter {
	uint64_t value, address;
	uint32_t flags, reserved;
};

enum { FUTEX_OF_32_BITS = 2 };

bool segue_wait_words(const _Atomic uint32_t *const *words, const uint32_t *seen, size_t count,
	int64_t deadline_ns)
{
	struct futex_waiter waiters[SEGUE_WAIT_WORDS];
	int64_t at = deadline_ns > 0 ? deadline_ns : 0;
	const struct timespec deadline = {.tv_sec = at / SECOND, .tv_nsec = at % SECOND};

	if (count == 1)
		return segue_wait_word(words[0], seen[0], deadline_ns);
	assert(count > 0 && count <= SEGUE_WAIT_WORDS);
	for (size_t i = 0; i < count; i++)
		waiters[i] = (struct futex_waiter){
			seen[i], (uint64_t)(uintptr_t)words[i], FUTEX_OF_32_BITS, 0};
	long rc = syscall(SYS_futex_waitv, waiters, (unsigned)count, 0,
		deadline_ns == INT64_MAX ? NULL : &deadline, CLOCK_MONOTONIC);
	if (rc >= 0)
		return true;
	if (errno != ENOSYS && errno != EPERM)
		return errno != ETIMEDOUT;
	int64_t slice = segue_now_ns() + WORDS_SLICE_NS;
	bool over = deadline_ns <= slice;
	return segue_wait_word(words[0], seen[0], over ? deadline_ns : slice) || !over;
}

void segue_wake_word(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

int segue_event_create(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make an eventfd");
	return fd;
}

void segue_event_ring(int fd)
{
	const uint64_t one = 1;

	/* EAGAIN: the counter is full, so the reader is being woken already. */
	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void segue_event_clear(int fd)
{
	uint64_t count;
	struct iovec target = {.iov_base = &count, .iov_len = sizeof(count)};

	/*
	 * The other side holds the same open file: it can empty it between our poll and this read,
	 * and it can switch O_NONBLOCK off. RWF_NOWAIT cannot be switched off.
	 */
	if (preadv2(fd, &target, 1, -1, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP)
		return;
	while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}
