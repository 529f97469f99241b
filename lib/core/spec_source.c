/*
 * The source of a stream's spec, kind by kind.
 */
#include "core/spec_source.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/differences.h"
#include "core/digest.h"
#include "core/error.h"

/* ---- Kinds ---- */

static const struct segue_option tfrecord_options[] = {
#define ROW(name, type, asked, part, ...)                                                          \
	SEGUE_OPTION_ROW(struct segue_spec_source, tfrecord.name, struct segue_stream_source,      \
		tfrecord.asked, #name, part, __VA_ARGS__),
	SEGUE_TFRECORD_OPTIONS(ROW)
#undef ROW
		{.name = NULL}};

static const struct segue_option no_options[] = {{.name = NULL}};

static const struct segue_option arrays_options[] = {
#define ROW(name, type, asked, part, ...)                                                          \
	SEGUE_OPTION_ROW(struct segue_spec_source, arrays.name, struct segue_stream_source,        \
		arrays.asked, #name, part, __VA_ARGS__),
	SEGUE_ARRAYS_OPTIONS(ROW)
#undef ROW
		{.name = NULL}};

static const struct segue_source_row kinds[] = {
	[SEGUE_SOURCE_TFRECORD] =
		{
			.name = "tfrecord",
			.options = tfrecord_options,
			.paths = offsetof(struct segue_spec_source, tfrecord.paths),
			.asked_paths = offsetof(struct segue_stream_source, tfrecord.paths),
			.asked_count = offsetof(struct segue_stream_source, tfrecord.path_count),
		},
	[SEGUE_SOURCE_FILES] =
		{
			.name = "files",
			.options = no_options,
			.paths = offsetof(struct segue_spec_source, files.paths),
			.asked_paths = offsetof(struct segue_stream_source, files.paths),
			.asked_count = offsetof(struct segue_stream_source, files.path_count),
			.initial_states = true,
			.variable = true,
		},
	[SEGUE_SOURCE_ARRAYS] =
		{
			.name = "arrays",
			.options = arrays_options,
			.paths = offsetof(struct segue_spec_source, arrays.paths),
			.asked_paths = offsetof(struct segue_stream_source, arrays.paths),
			.asked_count = offsetof(struct segue_stream_source, arrays.path_count),
			.literal = true,
		},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

const struct segue_source_row *segue_source_row(enum segue_source_kind kind)
{
	return kind < KINDS && kinds[kind].name ? &kinds[kind] : NULL;
}

enum segue_source_kind segue_source_kind(const char *name)
{
	for (size_t i = 0; i < KINDS; i++)
		if (kinds[i].name && strcmp(kinds[i].name, name) == 0)
			return (enum segue_source_kind)i;
	return 0;
}

struct segue_paths *segue_source_paths(const struct segue_spec_source *source)
{
	const struct segue_source_row *row = segue_source_row(source->kind);

	if (!row || !row->paths)
		return NULL;
	return (struct segue_paths *)((uintptr_t)source + row->paths);
}

struct segue_array_index **segue_source_index(const struct segue_spec_source *source)
{
	if (source->kind != SEGUE_SOURCE_ARRAYS)
		return NULL;
	return (struct segue_array_index **)(uintptr_t)&source->arrays.index;
}

static int fail_kind(unsigned kind)
{
	char names[256] = "";
	size_t used = 0;

	for (size_t i = 0; i < KINDS && used < sizeof(names); i++)
		if (kinds[i].name)
			used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%zu (%s)",
				used ? ", " : "", i, kinds[i].name);
	return segue_fail(SEGUE_EINVAL, "source.kind is %u, which is none of %s", kind, names);
}

/* ---- Copying ---- */

static int make_list(size_t count, struct segue_paths *out)
{
	out->path = calloc(count, sizeof(*out->path));
	if (!out->path)
		return segue_fail(SEGUE_ENOMEM, "no memory for the %zu paths of a source", count);
	out->count = count;
	return 0;
}

/* An absolute form of `path`; an empty path stays empty, for the check to name. */
static int take_path(const char *path, const char *directory, char **out)
{
	if (!path || path[0] == '\0' || path[0] == '/')
		return segue_text_copy(path, out);
	if (asprintf(out, "%s/%s", strcmp(directory, "/") == 0 ? "" : directory, path) < 0) {
		*out = NULL;
		return segue_fail(SEGUE_ENOMEM, "no memory for a path of a source");
	}
	return 0;
}

/* The working directory, if a path needs it; it may have been removed. */
static int find_directory(const char *const *path, size_t count, char **directory)
{
	bool needed = false;

	*directory = NULL;
	for (size_t i = 0; i < count; i++)
		needed = needed || (path[i] && path[i][0] != '\0' && path[i][0] != '/');
	if (needed)
		*directory = getcwd(NULL, 0);
	if (needed && !*directory)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot make the paths absolute, for the "
						       "working directory is unknown: give "
						       "absolute ones");
	return 0;
}

static int take_paths(const char *const *path, size_t count, struct segue_paths *out)
{
	char *directory = NULL;
	int rc = segue_range_check(
		"the number of source.paths (in C: path_count)", count, 1, SEGUE_PATHS_MAX);

	if (!rc && !path)
		rc = segue_fail(
			SEGUE_EINVAL, "source.paths is NULL and should have %zu entries", count);
	if (!rc)
		rc = find_directory(path, count, &directory);
	if (!rc)
		rc = make_list(count, out);
	for (size_t i = 0; !rc && i < count; i++)
		rc = take_path(path[i], directory, &out->path[i]);
	free(directory);
	return rc;
}

int segue_source_take(const struct segue_stream_source *asked, struct segue_spec_source *out)
{
	const struct segue_source_row *row = segue_source_row(asked->kind);
	const char *at = (const char *)asked;
	int rc = 0;

	if (!row)
		return fail_kind(asked->kind);
	out->kind = asked->kind;
	if (row->paths)
		rc = take_paths(*(const char *const *const *)(at + row->asked_paths),
			*(const size_t *)(at + row->asked_count), segue_source_paths(out));
	return rc ? rc : segue_options_take(row->options, asked, out);
}

int segue_source_copy(const struct segue_spec_source *source, struct segue_spec_source *out)
{
	const struct segue_paths *from = segue_source_paths(source);
	struct segue_paths *to;
	int rc;

	*out = *source;
	to = segue_source_paths(out);
	if (to)
		*to = (struct segue_paths){.path = NULL};
	if (segue_source_index(out) && *segue_source_index(out))
		segue_array_index_hold(*segue_source_index(out));
	rc = segue_options_copy(segue_source_row(source->kind)->options, source, out);
	if (rc || !to || from->count == 0)
		return rc;
	rc = make_list(from->count, to);
	for (size_t i = 0; !rc && i < from->count; i++)
		rc = segue_text_copy(from->path[i], &to->path[i]);
	return rc;
}

void segue_source_finish(struct segue_spec_source *source)
{
	const struct segue_source_row *row = segue_source_row(source->kind);
	struct segue_paths *paths = segue_source_paths(source);

	if (paths) {
		for (size_t i = 0; i < paths->count; i++)
			free(paths->path[i]);
		free(paths->path);
	}
	if (segue_source_index(source))
		segue_array_index_drop(*segue_source_index(source));
	if (row)
		segue_options_finish(row->options, source);
}

/* ---- Checking ---- */

static int check_paths(const struct segue_paths *paths)
{
	int rc = segue_range_check(
		"the number of source.paths (in C: path_count)", paths->count, 1, SEGUE_PATHS_MAX);

	for (size_t i = 0; !rc && i < paths->count; i++) {
		const char *path = paths->path[i];

		if (!path || path[0] == '\0')
			return segue_fail(SEGUE_EINVAL, "source.paths[%zu] is empty", i);
		if (path[0] != '/')
			return segue_fail(
				SEGUE_EINVAL, "source.paths[%zu] \"%s\" is not absolute", i, path);
		if (strlen(path) >= PATH_MAX)
			return segue_fail(SEGUE_EINVAL,
				"source.paths[%zu] has %zu bytes, at most %d are allowed", i,
				strlen(path), PATH_MAX - 1);
	}
	return rc;
}

int segue_source_check(const struct segue_spec_source *source)
{
	const struct segue_source_row *row = segue_source_row(source->kind);
	const struct segue_paths *paths = segue_source_paths(source);
	int rc;

	if (!row)
		return fail_kind(source->kind);
	rc = paths ? check_paths(paths) : 0;
	return rc ? rc : segue_options_check(row->options, "source.", source);
}

/* ---- Hashing and comparing ---- */

void segue_source_hash(const struct segue_spec_source *source, struct segue_digest *digest)
{
	const struct segue_source_row *row = segue_source_row(source->kind);

	segue_digest_text(digest, row->name);
	segue_options_hash(row->options, source, digest);
}

void segue_source_compare(const struct segue_spec_source *stored,
	const struct segue_spec_source *asked, struct segue_differences *differences)
{
	const struct segue_source_row *row = segue_source_row(stored->kind);

	if (stored->kind == asked->kind)
		segue_options_compare(row->options, stored, asked, differences);
	else
		segue_differ(differences, "source: %s in the store, %s asked for", row->name,
			segue_source_row(asked->kind)->name);
}
