/*
 * What the tests of the store share: a directory, disks that fail, processes that hold a store.
 *
 * fdatasync, pwrite and fstatfs are defined in store_fixture.c, so that LMDB and the store go
 * through them. Seeds come from SEGUE_TEST_SEED, or the clock, and are printed.
 */
#ifndef SEGUE_TEST_STORE_FIXTURE_H
#define SEGUE_TEST_STORE_FIXTURE_H

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "store/store.h"
#include "tmpdir.h"

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#endif
#ifndef UNDER_ASAN
#define UNDER_ASAN 0
#endif

/* ---- Faults --------------------------------------------------------------------------------- */

extern int fail_sync_with, fail_meta_with; /* an errno, once; 0: none */
extern uint32_t pretend_file_system;       /* 0: as it is */

/* ---- Random numbers ------------------------------------------------------------------------- */

extern uint64_t random_state;
uint64_t next_random(void);
size_t below(size_t limit);
void seed_random(const char *test);

/* ---- Helpers -------------------------------------------------------------------------------- */

extern struct segue_tmpdir tmp;
extern char dir[SEGUE_TMPDIR_MAX];  /* of the store; not there at first */
extern char file[SEGUE_TMPDIR_MAX]; /* its data.mdb */

void skip(const char *why);

#define assert_ok(call)                                                                            \
	do {                                                                                       \
		int rc_ = (call);                                                                  \
		cr_assert_eq(rc_, 0, "%s: %d %s", #call, rc_, segue_error_detail());               \
	} while (0)

/* Fails with the code, and the message holds the text. */
#define assert_fails(call, code, text)                                                             \
	do {                                                                                       \
		int rc_ = (call);                                                                  \
		cr_assert_eq(                                                                      \
			rc_, (code), "%s: %d %s", #call, rc_, rc_ ? segue_error_detail() : "");    \
		cr_assert_not_null(strstr(segue_error_detail(), (text)), "%s: message is '%s'",    \
			#call, segue_error_detail());                                              \
	} while (0)

struct segue_store *open_store(enum segue_store_mode mode);
/* In table STATES. */
int put(struct segue_store *store, const char *key, const void *value, size_t size);
int put_text(struct segue_store *store, const char *key, const char *text);
void expect_text(struct segue_store *store, const char *key, const char *text);
int get_code(struct segue_store *store, const char *key);
struct segue_store_stats stats_of(struct segue_store *store);

size_t read_file(const char *path, uint8_t **bytes);
void write_file(const char *path, const void *bytes, size_t size);
/* A tmpfs over `path`, seen by this test's process alone. False where that is not allowed. */
bool mount_tmpfs(const char *path, const char *options);

/* ---- Processes ------------------------------------------------------------------------------ */

/* Runs `body` in a child; returns what wait gives. The child ends without any clean-up. */
int run_child(int (*body)(void *arg), void *arg);
/* In a child's body: ends it with 1. */
#define CHILD_CHECK(condition)                                                                     \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition,        \
				segue_error_detail());                                             \
			return 1;                                                                  \
		}                                                                                  \
	} while (0)

/* A process that runs `body` until it is killed; it has written a byte to `*ready`. */
pid_t start_process(int (*body)(void *arg), void *arg, int *ready);
/* A process that has the store open, until it is killed. */
pid_t start_holder(enum segue_store_mode mode);
void kill_holder(pid_t pid);

#endif
