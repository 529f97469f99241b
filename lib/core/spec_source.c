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
#define ROW(name, type, id, part, ...)                                                             \
	SEGUE_OPTION_ROW(struct segue_spec_source, tfrecord.name, #name, id, part, __VA_ARGS__),
	SEGUE_TFRECORD_OPTIONS(ROW)
#undef ROW
		{.name = NULL}};

static const struct segue_option no_options[] = {{.name = NULL}};

static const struct segue_source_row kinds[] = {
	[SEGUE_SOURCE_TFRECORD] =
		{
			.name = "tfrecord",
			.options = tfrecord_options,
			.paths = offsetof(struct segue_spec_source, tfrecord.paths),
		},
	[SEGUE_SOURCE_FILES] =
		{
			.name = "files",
			.options = no_options,
			.paths = offsetof(struct segue_spec_source, files.paths),
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

static int fail_kind(unsigned kind)
{
	char names[256] = "";
	size_t used = 0;

	if (kind == 0)
		return segue_fail(
			SEGUE_EINVAL, "source is missing (in C: segue_spec_set_source sets it)");
	for (size_t i = 0; i < KINDS && used < sizeof(names); i++)
		if (kinds[i].name)
			used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%zu (%s)",
				used ? ", " : "", i, kinds[i].name);
	return segue_fail(SEGUE_EINVAL, "source.kind is %u, which is none of %s", kind, names);
}

/* ---- Making ---- */

int segue_source_init(enum segue_source_kind kind, struct segue_spec_source *out)
{
	const struct segue_source_row *row = segue_source_row(kind);

	if (!row)
		return fail_kind(kind);
	*out = (struct segue_spec_source){.kind = kind};
	segue_options_init(row->options, out);
	return 0;
}

int segue_source_option(const struct segue_spec_source *source, enum segue_spec_option id,
	const struct segue_option **out)
{
	const struct segue_source_row *row = segue_source_row(source->kind);

	*out = row ? segue_option_find(row->options, id) : NULL;
	if (*out)
		return 0;
	for (size_t i = 0; i < KINDS; i++) {
		const struct segue_option *option =
			kinds[i].name ? segue_option_find(kinds[i].options, id) : NULL;

		if (option)
			return segue_fail(SEGUE_EINVAL,
				"%s is an option of a source of kind %s, and this spec's is %s",
				option->name, kinds[i].name,
				row ? row->name : "not set yet (segue_spec_set_source)");
	}
	return segue_fail(SEGUE_EINVAL, "there is no option %u", (unsigned)id);
}

static int check_path(const char *path, size_t i)
{
	if (!path || path[0] == '\0')
		return segue_fail(SEGUE_EINVAL, "source.paths[%zu] is empty", i);
	if (strlen(path) >= PATH_MAX)
		return segue_fail(SEGUE_EINVAL,
			"source.paths[%zu] has %zu bytes, at most %d are allowed", i, strlen(path),
			PATH_MAX - 1);
	return 0;
}

/* An absolute form of `path`; the working directory may have been removed. */
static int make_absolute(const char *path, char **out)
{
	char *directory;
	int length;

	if (path[0] == '/')
		return segue_text_copy(path, out);
	directory = getcwd(NULL, 0);
	if (!directory)
		return segue_fail_errno(SEGUE_ESYSTEM,
			"cannot make the path %s absolute, for the working directory is unknown: "
			"give an absolute one",
			path);
	length = asprintf(out, "%s/%s", strcmp(directory, "/") == 0 ? "" : directory, path);
	free(directory);
	return length < 0 ? segue_fail(SEGUE_ENOMEM, "no memory for a path of a source") : 0;
}

static int fail_paths(size_t count)
{
	return segue_fail(SEGUE_ENOMEM, "no memory for the %zu paths of a source", count);
}

/* For one more. */
static int make_room(struct segue_paths *paths)
{
	size_t room = paths->count ? 2 * paths->count : 1;
	void *more;

	if (paths->count < paths->room)
		return 0;
	more = reallocarray(paths->path, room, sizeof(*paths->path));
	if (!more)
		return fail_paths(room);
	paths->path = more;
	paths->room = room;
	return 0;
}

int segue_source_add_path(struct segue_spec_source *source, const char *path)
{
	struct segue_paths *paths = segue_source_paths(source);
	char *absolute = NULL;
	int rc;

	if (!paths)
		return source->kind ? segue_fail(SEGUE_EINVAL, "a source of kind %s has no paths",
					      segue_source_row(source->kind)->name)
				    : fail_kind(source->kind);
	rc = segue_range_check("the number of source.paths", paths->count + 1, 1, SEGUE_PATHS_MAX);
	if (!rc)
		rc = check_path(path, paths->count);
	if (!rc)
		rc = make_absolute(path, &absolute);
	if (!rc)
		rc = check_path(absolute, paths->count);
	if (!rc)
		rc = make_room(paths);
	if (rc) {
		free(absolute);
		return rc;
	}
	paths->path[paths->count++] = absolute;
	return 0;
}

/* ---- Copying ---- */

static int make_list(size_t count, struct segue_paths *out)
{
	out->path = calloc(count, sizeof(*out->path));
	if (!out->path)
		return fail_paths(count);
	out->count = count;
	return 0;
}

int segue_source_copy(const struct segue_spec_source *source, struct segue_spec_source *out)
{
	const struct segue_paths *from = segue_source_paths(source);
	struct segue_paths *to;
	int rc;

	*out = *source;
	if (!source->kind)
		return 0;
	to = segue_source_paths(out);
	if (to)
		*to = (struct segue_paths){.path = NULL};
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
	if (row)
		segue_options_finish(row->options, source);
}

/* ---- Checking ---- */

static int check_paths(const struct segue_paths *paths)
{
	int rc = segue_range_check("the number of source.paths", paths->count, 1, SEGUE_PATHS_MAX);

	for (size_t i = 0; !rc && i < paths->count; i++) {
		rc = check_path(paths->path[i], i);
		if (!rc && paths->path[i][0] != '/')
			return segue_fail(SEGUE_EINVAL, "source.paths[%zu] \"%s\" is not absolute",
				i, paths->path[i]);
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
