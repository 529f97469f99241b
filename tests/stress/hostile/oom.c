/* C22: in the client library the n-th allocation fails, for every n: an error, no crash, nothing lost. */
#include "hostile.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

enum { LANE = 0, LIMIT = 5000 };

/* The linker sends the allocations of the library here (--wrap). */
static struct {
	bool armed, persistent;
	long count, fail_at; /* 0: never */
} plan;

static bool fails(void)
{
	if (!plan.armed)
		return false;
	plan.count++;
	if (plan.fail_at == 0 ||
		(plan.persistent ? plan.count < plan.fail_at : plan.count != plan.fail_at))
		return false;
	errno = ENOMEM;
	return true;
}

#define WRAP(type, name, parameters, arguments, failure)                                           \
	type __real_##name parameters;                                                             \
	type __wrap_##name parameters;                                                             \
	type __wrap_##name parameters                                                              \
	{                                                                                          \
		return fails() ? (failure) : __real_##name arguments;                              \
	}

WRAP(void *, malloc, (size_t size), (size), NULL)
WRAP(void *, calloc, (size_t count, size_t size), (count, size), NULL)
WRAP(void *, realloc, (void *old, size_t size), (old, size), NULL)
WRAP(void *, reallocarray, (void *old, size_t count, size_t size), (old, count, size), NULL)
WRAP(char *, strdup, (const char *text), (text), NULL)
WRAP(char *, strndup, (const char *text, size_t size), (text, size), NULL)
WRAP(int, vasprintf, (char **out, const char *format, va_list list), (out, format, list), -1)
WRAP(void *, mmap, (void *at, size_t size, int protection, int flags, int fd, off_t offset),
	(at, size, protection, flags, fd, offset), MAP_FAILED)

int __wrap_asprintf(char **out, const char *format, ...) __attribute__((format(printf, 2, 3)));
int __wrap_asprintf(char **out, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	int length = __wrap_vasprintf(out, format, list);
	va_end(list);
	return length;
}

/* A worker's life; 0, or the first error. All handles are closed in any case. */
static int live(const struct hostile *hostile)
{
	struct segue_client *client = NULL;
	struct segue_stream *stream = NULL;
	struct segue_lane *lane = NULL;
	struct segue_batch *batch = NULL;
	struct hostile_spec spec;
	void *token = NULL;
	size_t size;

	hostile_private_spec(hostile, "oom", &spec);
	int rc = segue_open(hostile->dir,
		&(struct segue_open_options){
			.size = sizeof(struct segue_open_options), .no_start = true},
		&client);
	if (!rc)
		rc = segue_draft_open(client, &spec.spec, &stream);
	if (!rc)
		rc = segue_lane_attach(stream, LANE, NULL, &lane);
	for (int i = 0; i < 3 && !rc; i++) {
		rc = segue_lane_next(lane, INT64_C(20000000000), &batch);
		if (!rc) {
			hostile_check(batch);
			hostile_save(batch);
			rc = segue_batch_commit(batch);
			segue_batch_release(batch);
		}
	}
	if (!rc)
		rc = segue_lane_checkpoint(lane, &token, &size);
	if (!rc)
		rc = segue_lane_restore(lane, token, size);
	segue_free(token);
	segue_lane_close(lane);
	segue_stream_close(stream);
	segue_client_close(client);
	return rc;
}

static int live_once(const struct hostile *hostile, long fail_at, bool persistent)
{
	plan = (__typeof__(plan)){.armed = true, .persistent = persistent, .fail_at = fail_at};
	int rc = live(hostile);
	plan.armed = false;
	return rc;
}

void attack_oom(struct hostile *hostile)
{
	unsigned errors = 0;

	EXPECT(live_once(hostile, 0, false) == 0, "without a failure: %s", segue_error_detail());
	long allocations = plan.count;
	int fds = hostile_count_fds(getpid());
	/* All of them in the long form, else some at random. */
	for (long n = 1; n <= allocations; n++) {
		if (!hostile->thorough && n > 10 && hostile_random(hostile) % 8)
			continue;
		for (int persistent = 0; persistent < 2; persistent++) {
			int rc = live_once(hostile, n, persistent);
			EXPECT(rc == 0 || rc == SEGUE_ENOMEM || rc == SEGUE_ESYSTEM,
				"allocation %ld fails: %s: %s", n, segue_error_name(rc),
				segue_error_detail());
			EXPECT(rc == 0 || segue_error_detail()[0], "allocation %ld fails: no text",
				n);
			errors += rc != 0;
		}
	}
	EXPECT(errors > 0, "no allocation failed");
	EXPECT(live_once(hostile, 0, false) == 0, "afterwards: %s", segue_error_detail());
	EXPECT(hostile_count_fds(getpid()) == fds, "%d fds open, before it were %d",
		hostile_count_fds(getpid()), fds);
	printf("%ld allocations in a worker's life, %u errors, no fd lost\n", allocations, errors);
}
