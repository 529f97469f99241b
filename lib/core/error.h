/*
 * Error codes and the detail message: set where the fault is seen, extended on the way up.
 *
 * The message lives in a fixed buffer of the thread; setting it allocates nothing.
 */
#ifndef SEGUE_CORE_ERROR_H
#define SEGUE_CORE_ERROR_H

#include "segue/segue.h"

#define SEGUE_DETAIL_MAX 4096

/* Sets this thread's message and returns `code`, so that a function can end with it. */
int segue_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same with ": <strerror(errno)>" at the end. Keeps errno. */
int segue_fail_errno(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts "<format>: " before the message that is there; returns `code`. */
int segue_fail_within(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* After ENOTDIR: says which part of `path` is no directory. SEGUE_ESYSTEM. */
int segue_fail_no_directory(const char *path);
/*
 * What a failed reading of bytes is: a want of memory, which passes, something of a later version,
 * or else `damage`.
 */
static inline int segue_as_damage(int rc, int damage)
{
	return rc == SEGUE_ENOMEM || rc == SEGUE_EFORMAT ? rc : damage;
}
/*
 * Checks the bits of what a reader must know of a file, record or token (`what`): this version
 * knows none. SEGUE_EFORMAT.
 */
int segue_required_check(const char *what, uint64_t required);

/* How work ended that another thread did: a code, and the detail if it is an error. */
struct segue_outcome {
	int rc;
	char detail[SEGUE_DETAIL_MAX];
};
/* On the thread that did it: takes this thread's detail along. */
void segue_outcome_take(struct segue_outcome *outcome, int rc);
/* On the thread that wants to know: its detail is this thread's from now on. Returns its code. */
int segue_outcome_give(const struct segue_outcome *outcome);

#endif
