/*
 * Tests of futex words, eventfds and the clock, across processes and through read-only mappings.
 */
#include "core/wait.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define MILLISECOND 1000000

/* A page seen twice: writable, and as a worker sees the ring. */
struct pages {
	_Atomic uint32_t *write;
	const _Atomic uint32_t *read;
};

static struct pages make_pages(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	struct pages pages;

	cr_assert_eq(ftruncate(fd, 4096), 0);
	pages.write = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	pages.read = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	cr_assert_neq((void *)pages.write, MAP_FAILED);
	cr_assert_neq((const void *)pages.read, MAP_FAILED);
	close(fd);
	return pages;
}

Test(wait, clock_goes_on)
{
	int64_t before = segue_now_ns();

	usleep(2000);
	cr_assert_geq(segue_now_ns() - before, 2 * MILLISECOND);
}

Test(wait, word_that_differs_does_not_sleep)
{
	_Atomic uint32_t word = 5;
	int64_t before = segue_now_ns();

	cr_assert(segue_wait_word(&word, 4, INT64_MAX));
	cr_assert_lt(segue_now_ns() - before, 1000 * MILLISECOND);
}

Test(wait, deadline_ends_the_wait)
{
	_Atomic uint32_t word = 5;
	int64_t before = segue_now_ns();

	cr_assert_not(segue_wait_word(&word, 5, before + 20 * MILLISECOND));
	cr_assert_geq(segue_now_ns() - before, 20 * MILLISECOND);
	/* In the past, at zero, before zero. */
	cr_assert_not(segue_wait_word(&word, 5, before));
	cr_assert_not(segue_wait_word(&word, 5, 0));
	cr_assert_not(segue_wait_word(&word, 5, -1));
}

/* The sleeper is another process and has only a read-only mapping. */
Test(wait, wakes_another_process_through_a_read_only_mapping, .timeout = 30)
{
	struct pages pages = make_pages();
	pid_t child = fork();
	int status;

	if (child == 0) {
		bool woken = true;

		while (atomic_load(pages.read) == 0 && woken)
			woken = segue_wait_word(
				pages.read, 0, segue_now_ns() + (int64_t)10000 * MILLISECOND);
		_exit(woken && atomic_load(pages.read) == 1 ? 0 : 1);
	}
	usleep(50000);
	atomic_store(pages.write, 1);
	segue_wake_word(pages.write);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "woken by the deadline alone");
}

Test(wait, wakes_all_that_sleep, .timeout = 30)
{
	struct pages pages = make_pages();
	pid_t children[4];

	for (int i = 0; i < 4; i++) {
		children[i] = fork();
		if (children[i] == 0) {
			bool woken = segue_wait_word(
				pages.read, 0, segue_now_ns() + (int64_t)10000 * MILLISECOND);

			_exit(woken ? 0 : 1);
		}
	}
	usleep(100000);
	atomic_store(pages.write, 1);
	segue_wake_word(pages.write);
	for (int i = 0; i < 4; i++) {
		int status;

		cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
}

static void nothing(int number)
{
	(void)number;
}

/* The time is absolute: signals that keep coming do not push it off. */
Test(wait, signals_do_not_lengthen_the_wait, .timeout = 30)
{
	struct sigaction action = {.sa_handler = nothing};
	struct itimerval timer = {.it_interval = {.tv_usec = 2000}, .it_value = {.tv_usec = 2000}};
	_Atomic uint32_t word = 0;
	int64_t deadline = segue_now_ns() + 50 * MILLISECOND;
	int interrupted = 0;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	while (segue_wait_word(&word, 0, deadline))
		interrupted++;
	timer = (struct itimerval){.it_value = {0}};
	setitimer(ITIMER_REAL, &timer, NULL);
	cr_assert_gt(interrupted, 3);
	cr_assert_lt(segue_now_ns() - deadline, 5000LL * MILLISECOND);
}

/* ---- Eventfds ------------------------------------------------------------------------------ */

static bool readable(int fd)
{
	struct pollfd entry = {.fd = fd, .events = POLLIN};

	return poll(&entry, 1, 0) == 1;
}

Test(wait, event_rings_and_clears)
{
	int fd = segue_event_create();

	cr_assert_geq(fd, 0);
	cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	cr_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
	cr_assert_not(readable(fd));
	segue_event_ring(fd);
	segue_event_ring(fd);
	cr_assert(readable(fd));
	segue_event_clear(fd);
	cr_assert_not(readable(fd));
	segue_event_clear(fd); /* empty already */
	close(fd);
}

Test(wait, full_event_stays_readable)
{
	const uint64_t most = UINT64_MAX - 1;
	int fd = segue_event_create();

	cr_assert_eq(write(fd, &most, sizeof(most)), (ssize_t)sizeof(most));
	segue_event_ring(fd); /* does not block */
	cr_assert(readable(fd));
	segue_event_clear(fd);
	cr_assert_not(readable(fd));
	close(fd);
}

/* A peer that holds the same open file makes it blocking: the server must not hang on it. */
Test(wait, clearing_never_blocks_even_if_the_peer_says_so, .timeout = 10)
{
	int fd = segue_event_create();

	cr_assert_eq(fcntl(fd, F_SETFL, 0), 0);
	segue_event_clear(fd);
	segue_event_ring(fd);
	segue_event_clear(fd);
	cr_assert_not(readable(fd));
	close(fd);
}

Test(wait, no_fd_left)
{
	int fd, last = -1;

	while ((fd = eventfd(0, EFD_CLOEXEC)) >= 0)
		last = fd;
	cr_assert_lt(segue_event_create(), 0);
	close(last);
}

Test(wait, one_of_several_words_that_differs_does_not_sleep)
{
	_Atomic uint32_t word[3] = {5, 5, 5};
	const _Atomic uint32_t *words[3] = {&word[0], &word[1], &word[2]};
	const uint32_t seen[3] = {5, 5, 4};
	int64_t before = segue_now_ns();

	cr_assert(segue_wait_words(words, seen, 3, INT64_MAX));
	cr_assert_lt(segue_now_ns() - before, 1000 * MILLISECOND);
}

Test(wait, deadline_ends_the_wait_for_several_words)
{
	_Atomic uint32_t word[2] = {5, 5};
	const _Atomic uint32_t *words[2] = {&word[0], &word[1]};
	const uint32_t seen[2] = {5, 5};
	int64_t before = segue_now_ns(), until = before + 20 * MILLISECOND;

	while (segue_wait_words(words, seen, 2, until)) /* in slices where the kernel is old */
		cr_assert_lt(segue_now_ns() - before, INT64_C(10000) * MILLISECOND);
	cr_assert_geq(segue_now_ns(), until);
	cr_assert_not(segue_wait_words(words, seen, 2, 0));
}

Test(wait, wakes_who_sleeps_on_several_words, .timeout = 30)
{
	struct pages pages = make_pages();
	_Atomic uint32_t other = 7;
	pid_t child = fork();
	int status;

	if (child == 0) {
		const _Atomic uint32_t *words[2] = {&other, pages.read};
		const uint32_t seen[2] = {7, 0};
		bool woken = true;

		while (atomic_load(pages.read) == 0 && woken)
			woken = segue_wait_words(
				words, seen, 2, segue_now_ns() + (int64_t)10000 * MILLISECOND);
		_exit(woken && atomic_load(pages.read) == 1 ? 0 : 1);
	}
	usleep(50000);
	atomic_store(pages.write, 1);
	segue_wake_word(pages.write);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "woken by the deadline alone");
}
