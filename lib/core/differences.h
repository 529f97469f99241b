/*
 * A list of differences as one text, for one error.
 */
#ifndef SEGUE_CORE_DIFFERENCES_H
#define SEGUE_CORE_DIFFERENCES_H

#include <stddef.h>

#include "core/error.h"

struct segue_differences {
	char text[SEGUE_DETAIL_MAX - 1280]; /* leaves room for what callers put before and behind */
	size_t used;
	unsigned count, left_out;
};

/* Adds one, whole or not at all; the last words of the text count those that found no room. */
void segue_differ(struct segue_differences *list, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* 0 if there is none; else SEGUE_ESPEC with all of them. */
int segue_differences_fail(const struct segue_differences *list);

#endif
