/* Files beside the store that go with a stream. */
#include "store/copies.h"

#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/wire.h"
#include "store/lanes.h"

static const char *const folders[] = {"examples", "arrays"};

/* ---- Where a path leads ---- */

/* A pattern without its escapes, [*] for *, as glob.escape() writes them. False: it has others. */
static bool take_escapes(const char *pattern, size_t size, bool literal, char out[PATH_MAX])
{
	size_t length = 0;

	if (size >= PATH_MAX)
		return false;
	for (size_t i = 0; i < size; i++) {
		bool escape = !literal && pattern[i] == '[' && size - i > 2 &&
			      strchr("*?[", pattern[i + 1]) && pattern[i + 2] == ']';

		if (!literal && !escape && strchr("*?[\\", pattern[i]))
			return false;
		i += escape;
		out[length++] = pattern[i];
		i += escape;
	}
	out[length] = '\0';
	return true;
}

/* Whether two names are those of one directory. */
static bool same_directory(const char *one, const char *other)
{
	struct stat a, b;

	return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

static int add(struct segue_copies *copies, const char *folder, const char *name)
{
	char **more = reallocarray(copies->name, copies->count + 1, sizeof(*more));

	if (more)
		copies->name = more;
	if (!more || asprintf(&copies->name[copies->count], "%s/%s", folder, name) < 0)
		return segue_fail(SEGUE_ENOMEM, "no memory for a list of paths");
	copies->count++;
	return 0;
}

static int add_path(struct segue_copies *copies, const char *dir, const char *path, bool literal)
{
	const char *slash = strrchr(path, '/');
	char folder[PATH_MAX], own[PATH_MAX];

	if (!slash)
		return 0;
	if (!take_escapes(path, (size_t)(slash - path), literal, folder))
		return add(copies, "*", slash + 1);
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		int size = snprintf(own, sizeof(own), "%s/%s", dir, folders[i]);

		if (size > 0 && (size_t)size < sizeof(own) && same_directory(folder, own))
			return add(copies, folders[i], slash + 1);
	}
	return 0;
}

int segue_copies_add(struct segue_copies *copies, const char *dir, const struct segue_spec *spec)
{
	const struct segue_spec_source *source;
	int rc = 0;

	for (size_t i = 0; !rc && (source = segue_source_plain(&spec->source, i)); i++) {
		const struct segue_paths *paths = segue_source_paths(source);
		bool literal = segue_source_row(source->kind)->literal;

		for (size_t k = 0; !rc && paths && k < paths->count; k++)
			rc = add_path(copies, dir, paths->path[k], literal);
	}
	return rc;
}

/* ---- Whose they are ---- */

static bool has(const struct segue_copies *copies, const char *name)
{
	for (size_t i = 0; i < copies->count; i++)
		if (fnmatch(copies->name[i], name, 0) == 0)
			return true;
	return false;
}

/* The names of `own` that are those of files, and that `others` do not have. */
static void strike_out(struct segue_copies *own, const struct segue_copies *others)
{
	size_t kept = 0;

	for (size_t i = 0; i < own->count; i++) {
		if (strpbrk(own->name[i], "*?[\\") || has(others, own->name[i]))
			free(own->name[i]);
		else
			own->name[kept++] = own->name[i];
	}
	own->count = kept;
}

struct look {
	struct segue_copies others;
	const char *dir;
	uint32_t id; /* of the stream that is not another one */
};

static int look_at_stream(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct look *look = arg;
	struct segue_stream_record record;

	(void)key, (void)key_size;
	int rc = segue_stream_record_unpack(value, value_size, &record);
	if (rc)
		return rc;
	if (record.id != look->id)
		rc = segue_copies_add(&look->others, look->dir, record.spec);
	segue_spec_destroy(record.spec);
	return rc;
}

void segue_copies_find(
	struct segue_copies *copies, struct segue_store *store, const char *dir, const char *stream)
{
	struct segue_stream_record record;
	struct look look = {.dir = dir};

	segue_copies_finish(copies);
	if (segue_lanes_load_stream(store, stream, &record))
		return;
	look.id = record.id;
	int rc = segue_copies_add(copies, dir, record.spec);
	segue_spec_destroy(record.spec);
	if (!rc && copies->count > 0)
		rc = segue_store_scan(
			store, SEGUE_TABLE_STREAMS, "", 0, look_at_stream, NULL, &look);
	if (rc)
		segue_copies_finish(copies);
	else
		strike_out(copies, &look.others);
	segue_copies_finish(&look.others);
}

/* ---- Removing ---- */

void segue_copies_remove(
	const struct segue_copies *copies, const char *dir, const struct segue_copies *in_use)
{
	char path[PATH_MAX];

	for (size_t i = 0; i < copies->count; i++) {
		int size = snprintf(path, sizeof(path), "%s/%s", dir, copies->name[i]);

		if (size > 0 && (size_t)size < sizeof(path) && !has(in_use, copies->name[i]))
			unlink(path);
	}
}

void segue_copies_finish(struct segue_copies *copies)
{
	for (size_t i = 0; i < copies->count; i++)
		free(copies->name[i]);
	free(copies->name);
	*copies = (struct segue_copies){0};
}
