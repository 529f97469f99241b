/* `ulimit -n` of the process that a test is. */
#ifndef SEGUE_TESTS_DESCRIPTORS_H
#define SEGUE_TESTS_DESCRIPTORS_H

#include <criterion/criterion.h>
#include <sys/resource.h>

static inline void segue_test_limit_descriptors(rlim_t most)
{
	struct rlimit limit;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = most;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

#endif
