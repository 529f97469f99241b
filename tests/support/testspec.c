/* A struct segue_spec by hand. */
#include "testspec.h"

#include <stdlib.h>
#include <string.h>

void segue_testspec_init(struct segue_testspec *test)
{
	memset(test, 0, sizeof(*test));
	test->spec.sequences = test->sequences;
	test->spec.contexts = test->contexts;
	test->spec.source.kind = SEGUE_SOURCE_TFRECORD;
	test->spec.source.tfrecord.paths.path = test->paths;
	test->spec.num_unroll = 1;
	test->spec.pad = true;
}

static void set(
	struct segue_field *field, const char *name, enum segue_dtype dtype, uint64_t elements)
{
	*field = (struct segue_field){.name = (char *)(uintptr_t)name,
		.dtype = dtype,
		.rank = 1,
		.dims = {elements},
		.elements = elements,
		.size = elements * segue_dtype_size(dtype)};
}

void segue_testspec_sequence(
	struct segue_testspec *test, const char *name, enum segue_dtype dtype, uint64_t elements)
{
	set(&test->sequences[test->spec.sequence_count++], name, dtype, elements);
}

void segue_testspec_context(
	struct segue_testspec *test, const char *name, enum segue_dtype dtype, uint64_t elements)
{
	set(&test->contexts[test->spec.context_count++], name, dtype, elements);
}

void segue_testspec_path(struct segue_testspec *test, const char *path)
{
	struct segue_paths *paths = &test->spec.source.tfrecord.paths;

	paths->path[paths->count] = strdup(path);
	if (!paths->path[paths->count])
		abort();
	paths->count++;
}

void segue_testspec_finish(struct segue_testspec *test)
{
	struct segue_paths *paths = &test->spec.source.tfrecord.paths;

	for (size_t i = 0; i < paths->count; i++)
		free(paths->path[i]);
	paths->count = 0;
}
