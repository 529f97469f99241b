/* Limits: what is checked against them. */
#ifndef SEGUE_GUARD_QUOTA_H
#define SEGUE_GUARD_QUOTA_H

#include "guard/guard.h"

/*
 * Whether `more` may be taken where `have` are taken: 0, or SEGUE_ELIMIT with a detail that names
 * the limit, its value and its flag. `who` has them, as "uid 1000" or "this connection".
 */
int segue_limits_check(const struct segue_limits *limits, enum segue_limit limit, uint64_t have,
	uint64_t more, const char *who);

#endif
