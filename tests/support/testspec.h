/* A struct segue_spec by hand, for tests of what reads records: fields and paths, no checks. */
#ifndef SEGUE_TEST_TESTSPEC_H
#define SEGUE_TEST_TESTSPEC_H

#include "core/spec.h"

#define SEGUE_TESTSPEC_MAX 1024

struct segue_testspec {
	struct segue_spec spec; /* points into the rest */
	struct segue_field sequences[SEGUE_FEATURES_MAX], contexts[SEGUE_FEATURES_MAX];
	char *paths[SEGUE_TESTSPEC_MAX];
};

/* No fields, no paths, num_unroll 1, pad. The struct must not move afterwards. */
void segue_testspec_init(struct segue_testspec *test);
/* Adds a feature of `elements` values; `name` must live as long. */
void segue_testspec_sequence(
	struct segue_testspec *test, const char *name, enum segue_dtype dtype, uint64_t elements);
void segue_testspec_context(
	struct segue_testspec *test, const char *name, enum segue_dtype dtype, uint64_t elements);
/* Adds a path; it is copied. */
void segue_testspec_path(struct segue_testspec *test, const char *path);
/* Frees the copies of paths. */
void segue_testspec_finish(struct segue_testspec *test);

#endif
