/* Limits: where they come from, what they say, how fast frames may come. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "guard/quota.h"

#define SECOND INT64_C(1000000000)

TestSuite(quota, .timeout = 10);

static struct segue_limits limits;

static int set_value(enum segue_limit limit, const char *value)
{
	return segue_limits_set(&limits, limit, value);
}

Test(quota, defaults)
{
	for (unsigned i = 0; i < SEGUE_LIMIT_COUNT; i++)
		unsetenv(segue_limit_info(i)->variable);
	cr_assert_eq(segue_limits_init(&limits), 0);
	cr_assert_eq(limits.value[SEGUE_LIMIT_CONNECTIONS], 256);
	cr_assert_eq(limits.value[SEGUE_LIMIT_STREAMS], 64);
	cr_assert_eq(limits.value[SEGUE_LIMIT_LANES], 256);
	cr_assert_eq(limits.value[SEGUE_LIMIT_UPLOADS], UINT64_C(1) << 30);
	cr_assert_eq(limits.value[SEGUE_LIMIT_THREADS], 256);
	cr_assert_eq(limits.value[SEGUE_LIMIT_FRAMES], 2000);
	cr_assert_eq(limits.value[SEGUE_LIMIT_QUEUE], 1 << 20);
	cr_assert_gt(limits.value[SEGUE_LIMIT_MEMORY], 1 << 20);
	cr_assert_gt(limits.value[SEGUE_LIMIT_DESCRIPTORS], 16);
}

Test(quota, from_the_environment)
{
	setenv("SEGUE_MAX_LANES", "17", 1);
	setenv("SEGUE_MAX_STREAMS", "", 1);
	cr_assert_eq(segue_limits_init(&limits), 0);
	cr_assert_eq(limits.value[SEGUE_LIMIT_LANES], 17);
	cr_assert_eq(limits.value[SEGUE_LIMIT_STREAMS], 64);
	setenv("SEGUE_MAX_LANES", "none", 1);
	cr_assert_eq(segue_limits_init(&limits), SEGUE_EINVAL);
	cr_assert(strstr(segue_error_detail(), "SEGUE_MAX_LANES is 'none'"));
}

Test(quota, values)
{
	static const struct {
		const char *text;
		uint64_t value; /* 0: wrong */
	} cases[] = {{"1048576", UINT64_C(1) << 20}, {"64M", UINT64_C(64) << 20},
		{"3G", UINT64_C(3) << 30}, {"2T", UINT64_C(2) << 40}, {"2048K", UINT64_C(2) << 20},
		{"18446744073709551615", UINT64_MAX}, {"18446744073709551616", 0},
		{"99999999999T", 0}, {"", 0}, {"M", 0}, {"-1", 0}, {" 5M", 0}, {"5MB", 0},
		{"5m", 0}, {"1.5G", 0}, {"0x10", 0}, {"1023K", 0}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int rc = set_value(SEGUE_LIMIT_MEMORY, cases[i].text);
		if (cases[i].value)
			cr_assert_eq(limits.value[SEGUE_LIMIT_MEMORY], cases[i].value, "%s",
				cases[i].text);
		else
			cr_assert_eq(rc, SEGUE_EINVAL, "%s", cases[i].text);
	}
	cr_assert_eq(set_value(SEGUE_LIMIT_CONNECTIONS, "0"), SEGUE_EINVAL);
	cr_assert(
		strstr(segue_error_detail(), "--max-connections is '0': give a number from 1 to"));
}

Test(quota, a_refusal_names_limit_value_and_flag)
{
	limits.value[SEGUE_LIMIT_LANES] = 10;
	cr_assert_eq(segue_limits_check(&limits, SEGUE_LIMIT_LANES, 9, 1, "x"), 0);
	cr_assert_eq(segue_limits_check(&limits, SEGUE_LIMIT_LANES, 10, 0, "x"), 0);
	cr_assert_eq(
		segue_limits_check(&limits, SEGUE_LIMIT_LANES, 0, UINT64_MAX, "x"), SEGUE_ELIMIT);
	cr_assert_eq(segue_limits_check(&limits, SEGUE_LIMIT_LANES, 12, 1, "x"), SEGUE_ELIMIT);
	cr_assert_eq(segue_limits_check(&limits, SEGUE_LIMIT_LANES, 10, 1, "uid 7"), SEGUE_ELIMIT);
	cr_assert_str_eq(segue_error_detail(),
		"lanes of uid 7: 10 in use, 1 more asked for, the limit is 10 (whoever runs the "
		"server sets it: segue serve --max-lanes, SEGUE_MAX_LANES)");
	limits.value[SEGUE_LIMIT_MEMORY] = 8 << 20;
	cr_assert_eq(segue_limits_check(&limits, SEGUE_LIMIT_MEMORY, 8 << 20, 100, "uid 7"),
		SEGUE_ELIMIT);
	cr_assert(strstr(segue_error_detail(), "the limit is 8388608 bytes, 8.0 MiB (whoever"));
}

/* How many frames of that cost pass from `now` on until the rate closes. */
static unsigned pass(struct segue_rate *rate, unsigned cost, int64_t now)
{
	unsigned count = 0;

	while (segue_rate_open_at(rate) <= now && count < 10000) {
		segue_rate_take(rate, 100, cost, now);
		count++;
	}
	return count;
}

Test(quota, a_rate_with_a_burst_of_a_second)
{
	struct segue_rate rate = {0};
	int64_t now = 1000 * SECOND;

	cr_assert_eq(pass(&rate, 1, now), 101);
	cr_assert_eq(pass(&rate, 1, now + SECOND / 200), 0);
	cr_assert_eq(pass(&rate, 1, now + SECOND / 2), 50);
	cr_assert_eq(pass(&rate, 10, now + 10 * SECOND), 11);
	/* What was not used is not kept beyond the burst. */
	cr_assert_eq(pass(&rate, 1, now + 1000 * SECOND), 101);
	cr_assert_eq(segue_rate_open_at(&rate), now + 1000 * SECOND + SECOND / 100);
}
