/*
 * Limits on what one user, and one connection, may take from the server.
 *
 * Each is a flag of `segue serve` and a variable of the environment; the table in quota.c has their
 * names, defaults and bounds, and docs/deploy.md says what they are for.
 */
#ifndef SEGUE_GUARD_QUOTA_H
#define SEGUE_GUARD_QUOTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum segue_limit {
	SEGUE_LIMIT_CONNECTIONS, /* of a user */
	SEGUE_LIMIT_STREAMS,     /* open in a connection */
	SEGUE_LIMIT_LANES,       /* held, or asked for, by a connection */
	SEGUE_LIMIT_MEMORY,      /* bytes of rings, carries, lanes and indexes of a user */
	SEGUE_LIMIT_UPLOADS,     /* bytes of uploads of a user */
	SEGUE_LIMIT_DESCRIPTORS, /* open for a user */
	SEGUE_LIMIT_THREADS,     /* of the streams that a user has opened */
	SEGUE_LIMIT_FRAMES,      /* a second, from a connection: read more slowly, not refused */
	SEGUE_LIMIT_QUEUE,       /* bytes that wait for a connection that does not read */
	SEGUE_LIMIT_COUNT,
};

struct segue_limits {
	uint64_t value[SEGUE_LIMIT_COUNT];
};

/* Names and text of a limit, for the help. */
struct segue_limit_info {
	const char *flag;     /* "max-connections" */
	const char *variable; /* "SEGUE_MAX_CONNECTIONS" */
	const char *unit;     /* " N" or " BYTES" */
	const char *text;     /* one line */
	const char *normal;   /* the default, in words */
};
const struct segue_limit_info *segue_limit_info(enum segue_limit limit);

/*
 * The defaults (half of the machine's or the cgroup's memory, half of the descriptors that this
 * process may have), then what the environment says. SEGUE_EINVAL names the variable.
 */
int segue_limits_init(struct segue_limits *limits);
/* From the command line: "512", "64K", "2G". SEGUE_EINVAL names the flag and its bounds. */
int segue_limits_set(struct segue_limits *limits, enum segue_limit limit, const char *value);

/*
 * Whether `more` may be taken where `have` are taken: 0, or SEGUE_ELIMIT with a detail that names
 * the limit, its value and its flag. `who` has them, as "uid 1000" or "this connection".
 */
int segue_limits_check(const struct segue_limits *limits, enum segue_limit limit, uint64_t have,
	uint64_t more, const char *who);

/* ---- Rate ---- */

/* How fast a connection may send: a rate, and a burst of one second's worth. */
struct segue_rate {
	int64_t paid_until; /* monotonic ns: when all that was taken would be due */
};

/* Takes `cost` frames at `now`. */
void segue_rate_take(struct segue_rate *rate, uint64_t per_second, unsigned cost, int64_t now);
/* When more may be taken: `now` or earlier if at once. */
int64_t segue_rate_open_at(const struct segue_rate *rate);

#endif
