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

static const struct segue_option arrays_options[] = {
#define ROW(name, type, id, part, ...)                                                             \
	SEGUE_OPTION_ROW(struct segue_spec_source, arrays.name, #name, id, part, __VA_ARGS__),
	SEGUE_ARRAYS_OPTIONS(ROW)
#undef ROW
		{.name = NULL}};

static const struct segue_option log_options[] = {
#define ROW(name, type, id, part, ...)                                                             \
	SEGUE_OPTION_ROW(struct segue_spec_source, log.name, #name, id, part, __VA_ARGS__),
	SEGUE_LOG_OPTIONS(ROW)
#undef ROW
		{.name = NULL}};

static const struct segue_source_row kinds[] = {
	/* Of any kind: it has what the stream has. */
	[SEGUE_SOURCE_STORED] =
		{
			.name = "stored",
			.options = no_options,
			.initial_states = true,
			.variable = true,
		},
	[SEGUE_SOURCE_TFRECORD] =
		{
			.name = "tfrecord",
			.options = tfrecord_options,
			.paths = offsetof(struct segue_spec_source, tfrecord.paths),
			.variable = true,
		},
	[SEGUE_SOURCE_FILES] =
		{
			.name = "files",
			.options = no_options,
			.paths = offsetof(struct segue_spec_source, files.paths),
			.initial_states = true,
			.variable = true,
		},
	[SEGUE_SOURCE_ARRAYS] =
		{
			.name = "arrays",
			.options = arrays_options,
			.paths = offsetof(struct segue_spec_source, arrays.paths),
			.literal = true,
		},
	[SEGUE_SOURCE_MIX] =
		{
			.name = "mix",
			.options = no_options,
		},
	[SEGUE_SOURCE_LOG] =
		{
			.name = "log",
			.options = log_options,
			.initial_states = true,
			.variable = true,
		},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

const struct segue_source_row *segue_source_row(enum segue_source_kind kind)
{
	return kind < KINDS && kinds[kind].name ? &kinds[kind] : NULL;
}

enum segue_source_kind segue_source_kind(const char *name)
{
	for (size_t i = 1; i < KINDS; i++)
		if (kinds[i].name && strcmp(kinds[i].name, name) == 0)
			return (enum segue_source_kind)i;
	return 0;
}

const struct segue_spec_source *segue_source_plain(const struct segue_spec_source *source, size_t i)
{
	if (source->kind == SEGUE_SOURCE_MIX)
		return i < source->mix.count ? &source->mix.part[i].source : NULL;
	return i == 0 ? source : NULL;
}

const struct segue_spec_log *segue_source_find_log(const struct segue_spec_source *source)
{
	const struct segue_spec_source *plain;

	for (size_t i = 0; (plain = segue_source_plain(source, i)); i++)
		if (plain->kind == SEGUE_SOURCE_LOG)
			return &plain->log;
	return NULL;
}

int segue_source_fail_within(const struct segue_spec_source *source, size_t i, int rc)
{
	if (source->kind != SEGUE_SOURCE_MIX)
		return rc;
	return segue_fail_within(rc, "source.parts[%zu] \"%s\"", i, source->mix.part[i].name);
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

struct segue_paths *segue_source_list(const struct segue_spec_source *source, size_t i)
{
	const struct segue_spec_source *plain;

	for (size_t k = 0; (plain = segue_source_plain(source, k)); k++)
		if (segue_source_paths(plain) && i-- == 0)
			return segue_source_paths(plain);
	return NULL;
}

bool segue_source_has_initial(const struct segue_spec_source *source)
{
	bool has = segue_source_row(source->kind)->initial_states;

	for (size_t i = 0; source->kind == SEGUE_SOURCE_MIX && i < source->mix.count; i++)
		has = (i == 0 || has) && segue_source_has_initial(&source->mix.part[i].source);
	return has;
}

const char *segue_source_lacks(
	const struct segue_spec_source *source, enum segue_form form, bool context)
{
	const struct segue_source_row *row = segue_source_row(source->kind);
	const char *lacks = NULL;

	if (source->kind == SEGUE_SOURCE_MIX) {
		for (size_t i = 0; i < source->mix.count && !lacks; i++)
			lacks = segue_source_lacks(&source->mix.part[i].source, form, context);
		return lacks;
	}
	if (form == SEGUE_FORM_DENSE || !row->variable)
		return form == SEGUE_FORM_DENSE ? NULL : row->name;
	/* All steps are in one list there. */
	if (source->kind == SEGUE_SOURCE_TFRECORD && form == SEGUE_FORM_RAGGED && !context &&
		source->tfrecord.record == SEGUE_RECORD_EXAMPLE)
		return "tfrecord with record=\"example\"";
	return NULL;
}

void segue_mix_quotas(const struct segue_spec_mix *mix, uint32_t quotas[SEGUE_PARTS_MAX])
{
	uint64_t sum = 0, rest[SEGUE_PARTS_MAX];
	uint32_t left = SEGUE_MIX_BLOCK;

	for (size_t i = 0; i < mix->count; i++)
		sum += mix->part[i].weight;
	for (size_t i = 0; i < mix->count; i++) {
		uint64_t share = (uint64_t)SEGUE_MIX_BLOCK * mix->part[i].weight;

		quotas[i] = (uint32_t)(share / sum);
		rest[i] = share % sum;
		left -= quotas[i];
	}
	for (; left > 0; left--) {
		size_t best = 0;

		for (size_t i = 1; i < mix->count; i++)
			if (rest[i] > rest[best])
				best = i;
		quotas[best]++;
		rest[best] = 0;
	}
}

static int fail_kind(unsigned kind)
{
	char names[256] = "";
	size_t used = 0;

	if (kind == SEGUE_SOURCE_STORED)
		return segue_fail(SEGUE_EINVAL,
			"source is missing (in C: segue_spec_set_source, or the kind of a "
			"segue_mix_part, sets it)");
	for (size_t i = 1; i < KINDS && used < sizeof(names); i++)
		if (kinds[i].name)
			used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%zu (%s)",
				used ? ", " : "", i, kinds[i].name);
	return segue_fail(SEGUE_EINVAL, "source.kind is %u, which is none of %s", kind, names);
}

/* ---- Making ---- */

int segue_source_init(enum segue_source_kind kind, struct segue_spec_source *out)
{
	const struct segue_source_row *row = segue_source_row(kind);

	if (!row || kind == SEGUE_SOURCE_STORED)
		return fail_kind(kind);
	*out = (struct segue_spec_source){.kind = kind};
	segue_options_init(row->options, out);
	return 0;
}

int segue_source_last(struct segue_spec_source *source, struct segue_spec_source **out)
{
	*out = source;
	if (source->kind != SEGUE_SOURCE_MIX)
		return 0;
	if (source->mix.count == 0)
		return segue_fail(SEGUE_EINVAL,
			"the mix has no part yet, of which this could be said (in C: "
			"segue_spec_add_part adds one)");
	*out = &source->mix.part[source->mix.count - 1].source;
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
				row && source->kind ? row->name
						    : "not set yet (segue_spec_set_source)");
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

static int add_path(struct segue_spec_source *source, const char *path)
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

int segue_source_add_path(struct segue_spec_source *source, const char *path)
{
	struct segue_spec_source *last;
	int rc = segue_source_last(source, &last);

	if (rc)
		return rc;
	rc = add_path(last, path);
	return rc && last != source
		       ? segue_fail_within(rc, "source.parts[%zu]", source->mix.count - 1)
		       : rc;
}

/* ---- Parts of a mix ---- */

static int fail_parts(void)
{
	return segue_fail(SEGUE_ENOMEM, "no memory for the parts of a mix");
}

static int check_part_count(size_t count)
{
	return segue_range_check("the number of source.parts", count, 1, SEGUE_PARTS_MAX);
}

static int check_part_kind(enum segue_source_kind kind)
{
	if (kind == SEGUE_SOURCE_MIX)
		return segue_fail(SEGUE_EINVAL,
			"a part of a mix cannot be a mix itself: give the parts of that one, with "
			"weights beside the others'");
	if (kind == SEGUE_SOURCE_STORED)
		return fail_kind(kind);
	return 0;
}

/* What a part is, beside what its source is told afterwards, and those before it. */
static int check_share(const struct segue_spec_mix *mix, size_t i)
{
	const struct segue_spec_part *part = &mix->part[i];
	char what[64];
	int rc;

	snprintf(what, sizeof(what), "source.parts[%zu].name", i);
	rc = segue_name_check(what, part->name, false);
	for (size_t k = 0; !rc && k < i; k++)
		if (strcmp(mix->part[k].name, part->name) == 0)
			rc = segue_fail(SEGUE_EINVAL,
				"source.parts[%zu] and source.parts[%zu] have the same name \"%s\"",
				k, i, part->name);
	snprintf(what, sizeof(what), "source.parts[%zu].weight", i);
	if (!rc)
		rc = segue_range_check(what, part->weight, 1, UINT32_MAX);
	return rc ? rc : check_part_kind(part->source.kind);
}

static void finish_part(struct segue_spec_part *part)
{
	free(part->name);
	segue_source_finish(&part->source);
}

int segue_source_add_part(struct segue_spec_source *source, const struct segue_mix_part *given)
{
	struct segue_spec_mix *mix = &source->mix;
	struct segue_spec_part part = {.weight = given->weight, .epochs = given->epochs}, *more;
	int rc;

	if (source->kind != SEGUE_SOURCE_MIX)
		return source->kind ? segue_fail(SEGUE_EINVAL, "a source of kind %s has no parts",
					      segue_source_row(source->kind)->name)
				    : fail_kind(source->kind);
	rc = check_part_count(mix->count + 1);
	if (!rc)
		rc = segue_source_init(given->kind, &part.source);
	if (rc)
		return segue_fail_within(rc, "source.parts[%zu]", mix->count);
	rc = segue_text_copy(given->name, &part.name);
	more = rc ? NULL : reallocarray(mix->part, mix->count + 1, sizeof(*more));
	if (more) {
		mix->part = more;
		mix->part[mix->count] = part;
		rc = check_share(mix, mix->count);
	} else if (!rc) {
		rc = fail_parts();
	}
	if (rc)
		finish_part(&part);
	else
		mix->count++;
	return rc;
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

static int copy_parts(const struct segue_spec_mix *mix, struct segue_spec_mix *out)
{
	int rc = 0;

	*out = (struct segue_spec_mix){.part = calloc(mix->count + 1, sizeof(*out->part))};
	if (!out->part)
		return fail_parts();
	for (; !rc && out->count < mix->count; out->count++) {
		const struct segue_spec_part *from = &mix->part[out->count];
		struct segue_spec_part *to = &out->part[out->count];

		to->weight = from->weight;
		to->epochs = from->epochs;
		rc = segue_text_copy(from->name, &to->name);
		if (!rc)
			rc = segue_source_copy(&from->source, &to->source);
	}
	return rc;
}

int segue_source_copy(const struct segue_spec_source *source, struct segue_spec_source *out)
{
	const struct segue_paths *from = segue_source_paths(source);
	struct segue_paths *to;
	int rc;

	*out = *source;
	if (!source->kind)
		return 0;
	if (source->kind == SEGUE_SOURCE_MIX)
		return copy_parts(&source->mix, &out->mix);
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

static bool same_list(const struct segue_paths *one, const struct segue_paths *other)
{
	bool same = one->count == other->count;

	for (size_t i = 0; same && i < one->count; i++)
		same = strcmp(one->path[i], other->path[i]) == 0;
	return same;
}

bool segue_source_same_paths(
	const struct segue_spec_source *one, const struct segue_spec_source *other)
{
	const struct segue_paths *a, *b;
	bool same = true;

	for (size_t i = 0;
		same && (a = segue_source_list(one, i)) && (b = segue_source_list(other, i)); i++)
		same = same_list(a, b);
	return same;
}

void segue_source_finish(struct segue_spec_source *source)
{
	const struct segue_source_row *row = segue_source_row(source->kind);
	struct segue_paths *paths = segue_source_paths(source);

	if (source->kind == SEGUE_SOURCE_MIX) {
		for (size_t i = 0; i < source->mix.count; i++)
			finish_part(&source->mix.part[i]);
		free(source->mix.part);
	}
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
	int rc = segue_range_check("the number of source.paths", paths->count, 1, SEGUE_PATHS_MAX);

	for (size_t i = 0; !rc && i < paths->count; i++) {
		rc = check_path(paths->path[i], i);
		if (!rc && paths->path[i][0] != '/')
			return segue_fail(SEGUE_EINVAL, "source.paths[%zu] \"%s\" is not absolute",
				i, paths->path[i]);
	}
	return rc;
}

static int check_part(const struct segue_spec_source *source, size_t i)
{
	int rc = check_share(&source->mix, i);

	if (rc)
		return rc;
	rc = segue_source_check(&source->mix.part[i].source);
	return rc ? segue_source_fail_within(source, i, rc) : 0;
}

/* Each gives something, and one of them ends. */
static int check_parts(const struct segue_spec_source *source)
{
	const struct segue_spec_mix *mix = &source->mix;
	uint32_t quotas[SEGUE_PARTS_MAX];
	bool ends = false;
	size_t logs = 0;
	int rc = check_part_count(mix->count);

	for (size_t i = 0; !rc && i < mix->count; i++) {
		rc = check_part(source, i);
		ends = ends || mix->part[i].epochs != 0;
		if (rc || mix->part[i].source.kind != SEGUE_SOURCE_LOG)
			continue;
		if (logs++ || mix->part[i].epochs != 1)
			rc = segue_fail(SEGUE_EINVAL,
				"source.parts[%zu] is inserted: a mix has one such part, and one "
				"pass over it, so its epochs are 1",
				i);
	}
	if (rc)
		return rc;
	segue_mix_quotas(mix, quotas);
	for (size_t i = 0; i < mix->count; i++)
		if (quotas[i] == 0)
			return segue_fail(SEGUE_EINVAL,
				"source.parts[%zu] \"%s\": its weight %" PRIu32
				" gives it none of %d sequences: give it more, or leave it out",
				i, mix->part[i].name, mix->part[i].weight, SEGUE_MIX_BLOCK);
	if (!ends)
		return segue_fail(SEGUE_EINVAL,
			"no part of the mix has an end (in Python: all have epochs=None): give one "
			"of them epochs, as many passes as are ever wanted");
	return 0;
}

int segue_source_check(const struct segue_spec_source *source)
{
	const struct segue_source_row *row = segue_source_row(source->kind);
	const struct segue_paths *paths = segue_source_paths(source);
	int rc;

	if (!row)
		return fail_kind(source->kind);
	if (source->kind == SEGUE_SOURCE_MIX)
		return check_parts(source);
	rc = paths ? check_paths(paths) : 0;
	return rc ? rc : segue_options_check(row->options, "source.", source);
}

int segue_source_check_capacity(
	const struct segue_spec_source *source, const char *window, uint64_t least)
{
	const struct segue_spec_log *log = segue_source_find_log(source);

	if (log && log->capacity && log->capacity < least)
		return segue_fail(SEGUE_EINVAL,
			"source.capacity is %" PRIu64 ", which is less than %s(depth + 2) * "
			"batch_size = %" PRIu64 " sequences: batches would wait for sequences that "
			"wait for batches",
			log->capacity, window, least);
	return 0;
}

/* ---- Hashing and comparing ---- */

void segue_source_hash(const struct segue_spec_source *source, struct segue_digest *digest)
{
	const struct segue_source_row *row = segue_source_row(source->kind);

	segue_digest_text(digest, row->name);
	segue_options_hash(row->options, source, digest);
	if (source->kind != SEGUE_SOURCE_MIX)
		return;
	segue_digest_number(digest, source->mix.count);
	for (size_t i = 0; i < source->mix.count; i++) {
		const struct segue_spec_part *part = &source->mix.part[i];

		segue_digest_text(digest, part->name);
		segue_digest_number(digest, part->weight);
		segue_digest_number(digest, part->epochs);
		segue_source_hash(&part->source, digest);
		segue_digest_text(digest, ""); /* as behind a field: core/spec.c */
	}
}

static void compare_parts(const struct segue_spec_mix *stored, const struct segue_spec_mix *asked,
	struct segue_differences *differences)
{
	if (stored->count != asked->count)
		segue_differ(differences, "source.parts: %zu in the store, %zu asked for",
			stored->count, asked->count);
	for (size_t i = 0; i < stored->count && i < asked->count; i++) {
		const struct segue_spec_part *a = &stored->part[i], *b = &asked->part[i];

		if (strcmp(a->name, b->name) != 0)
			segue_differ(differences,
				"source.parts[%zu]: \"%s\" in the store, \"%s\" asked for", i,
				a->name, b->name);
		if (a->weight != b->weight)
			segue_differ(differences,
				"source.parts[%zu].weight: %" PRIu32 " in the store, %" PRIu32
				" asked for",
				i, a->weight, b->weight);
		if (a->epochs != b->epochs)
			segue_differ(differences,
				"source.parts[%zu].epochs: %" PRIu64 " in the store, %" PRIu64
				" asked for (0: endless)",
				i, a->epochs, b->epochs);
		if (a->source.kind == b->source.kind)
			segue_source_compare(&a->source, &b->source, differences);
		else
			segue_differ(differences,
				"source.parts[%zu].source: %s in the store, %s asked for", i,
				segue_source_row(a->source.kind)->name,
				segue_source_row(b->source.kind)->name);
	}
}

void segue_source_compare(const struct segue_spec_source *stored,
	const struct segue_spec_source *asked, struct segue_differences *differences)
{
	const struct segue_source_row *row = segue_source_row(stored->kind);

	if (stored->kind == asked->kind && stored->kind == SEGUE_SOURCE_MIX)
		compare_parts(&stored->mix, &asked->mix, differences);
	else if (stored->kind == asked->kind)
		segue_options_compare(row->options, stored, asked, differences);
	else
		segue_differ(differences, "source: %s in the store, %s asked for", row->name,
			segue_source_row(asked->kind)->name);
}
