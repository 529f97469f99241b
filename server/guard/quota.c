/* Limits: their table, defaults, texts; the rate of frames. */
#include "guard/quota.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/error.h"
#include "core/shm.h"

#define SECOND INT64_C(1000000000)
#define KIB    (UINT64_C(1) << 10)
#define MIB    (UINT64_C(1) << 20)
#define GIB    (UINT64_C(1) << 30)

static const struct {
	struct segue_limit_info info;
	const char *what; /* "%s of uid 1000" */
	uint64_t normal;  /* 0: found out */
	uint64_t least, most;
} table[SEGUE_LIMIT_COUNT] = {
	[SEGUE_LIMIT_CONNECTIONS] = {{"max-connections", "SEGUE_MAX_CONNECTIONS", " N",
					     "connections of a user", "256"},
		"connections", 256, 1, 65536},
	[SEGUE_LIMIT_STREAMS] = {{"max-streams", "SEGUE_MAX_STREAMS", " N",
					 "streams open in a connection", "64"},
		"open streams", 64, 1, 65536},
	[SEGUE_LIMIT_LANES] = {{"max-lanes", "SEGUE_MAX_LANES", " N",
				       "lanes that a connection has or asks for", "256"},
		"lanes", 256, 1, 65536},
	[SEGUE_LIMIT_MEMORY] = {{"max-memory", "SEGUE_MAX_MEMORY", " BYTES",
					"shared memory, and indexes, of a user's streams",
					"half of the memory"},
		"bytes of rings, states, lanes and indexes", 0, MIB, UINT64_MAX},
	[SEGUE_LIMIT_UPLOADS] = {{"max-uploads", "SEGUE_MAX_UPLOADS", " BYTES",
					 "tokens and lists of paths that a user is sending", "1G"},
		"bytes of uploads", GIB, 64 * KIB, UINT64_MAX},
	[SEGUE_LIMIT_DESCRIPTORS] = {{"max-descriptors", "SEGUE_MAX_DESCRIPTORS", " N",
					     "descriptors open for a user",
					     "half of what ulimit -n allows"},
		"open descriptors", 0, 16, UINT32_MAX},
	[SEGUE_LIMIT_THREADS] = {{"max-threads", "SEGUE_MAX_THREADS", " N",
					 "threads of a user's streams (num_threads)", "256"},
		"threads", 256, 1, 65536},
	[SEGUE_LIMIT_FRAMES] = {{"max-frames", "SEGUE_MAX_FRAMES", " N",
					"messages a second that are read from a connection",
					"2000"},
		"frames a second", 2000, 10, 1000000},
	[SEGUE_LIMIT_QUEUE] = {{"max-queue", "SEGUE_MAX_QUEUE", " BYTES",
				       "replies that wait for a connection that does not read",
				       "1M"},
		"bytes of waiting replies", MIB, 128 * KIB, GIB},
};

const struct segue_limit_info *segue_limit_info(enum segue_limit limit)
{
	return &table[limit].info;
}

/* ---- Values ---- */

/* A number with K, M, G or T behind it. */
static bool parse(const char *text, uint64_t *out)
{
	static const char suffixes[] = "KMGT";
	const char *suffix;
	unsigned long long value;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno)
		return false;
	if (*end && (suffix = strchr(suffixes, *end)) && !end[1]) {
		unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);
		if (value > UINT64_MAX >> shift)
			return false;
		value <<= shift;
	} else if (*end) {
		return false;
	}
	*out = value;
	return true;
}

static int set(struct segue_limits *limits, enum segue_limit limit, const char *value,
	const char *prefix, const char *name)
{
	uint64_t number;

	if (!parse(value, &number) || number < table[limit].least || number > table[limit].most)
		return segue_fail(SEGUE_EINVAL,
			"%s%s is '%s': give a number from %" PRIu64 " to %" PRIu64
			" (K, M, G and T may follow)",
			prefix, name, value, table[limit].least, table[limit].most);
	limits->value[limit] = number;
	return 0;
}

int segue_limits_set(struct segue_limits *limits, enum segue_limit limit, const char *value)
{
	return set(limits, limit, value, "--", table[limit].info.flag);
}

static uint64_t half_of_memory(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	uint64_t machine = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : GIB;
	uint64_t cgroup = segue_shm_memory_limit();

	return (cgroup < machine ? cgroup : machine) / 2;
}

static uint64_t half_of_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 512;
	uint64_t half = limit.rlim_cur / 2;
	return half < UINT32_MAX ? half : UINT32_MAX;
}

int segue_limits_init(struct segue_limits *limits)
{
	for (unsigned i = 0; i < SEGUE_LIMIT_COUNT; i++)
		limits->value[i] = table[i].normal;
	limits->value[SEGUE_LIMIT_MEMORY] = half_of_memory();
	limits->value[SEGUE_LIMIT_DESCRIPTORS] = half_of_descriptors();
	for (unsigned i = 0; i < SEGUE_LIMIT_COUNT; i++) {
		const char *variable = table[i].info.variable, *value = getenv(variable);
		int rc = value && *value ? set(limits, i, value, "", variable) : 0;
		if (rc)
			return rc;
	}
	return 0;
}

int segue_limits_check(const struct segue_limits *limits, enum segue_limit limit, uint64_t have,
	uint64_t more, const char *who)
{
	uint64_t most = limits->value[limit];

	if (have <= most && more <= most - have)
		return 0;
	if (limit == SEGUE_LIMIT_DESCRIPTORS && most == half_of_descriptors())
		return segue_fail(SEGUE_ELIMIT,
			"%s of %s: %" PRIu64 " in use, %" PRIu64 " more asked for, the limit is "
			"%" PRIu64 ", half of what the server may open: raise ulimit -n (or "
			"LimitNOFILE=) where it is started; or have fewer lanes and streams",
			table[limit].what, who, have, more, most);
	char size[32] = "";
	if (strcmp(table[limit].info.unit, " BYTES") == 0)
		snprintf(size, sizeof(size), " bytes, %.1f MiB", (double)most / (double)MIB);
	return segue_fail(SEGUE_ELIMIT,
		"%s of %s: %" PRIu64 " in use, %" PRIu64 " more asked for, the limit is %" PRIu64
		"%s (whoever runs the server sets it: segue serve --%s, %s)",
		table[limit].what, who, have, more, most, size, table[limit].info.flag,
		table[limit].info.variable);
}

/* ---- Rate ---- */

void segue_rate_take(struct segue_rate *rate, uint64_t per_second, unsigned cost, int64_t now)
{
	if (rate->paid_until < now)
		rate->paid_until = now;
	rate->paid_until += cost * SECOND / (int64_t)per_second;
}

int64_t segue_rate_open_at(const struct segue_rate *rate)
{
	return rate->paid_until - SECOND;
}
