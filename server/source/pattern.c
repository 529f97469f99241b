/* Patterns of files: glob(3) between the components that are '**', a walk at each of those. */
#include "source/pattern.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/progress.h"

/* ---- Lists of paths -------------------------------------------------------------------------- */

static int add(struct segue_matches *paths, const char *path)
{
	/* Here, not when all are known: a short pattern may stand for any number. */
	if (paths->count == SEGUE_FILES_MAX)
		return segue_fail(SEGUE_ELIMIT,
			"%s: more than %d files are listed with it; make fewer, larger ones", path,
			SEGUE_FILES_MAX);
	if (paths->count == paths->capacity) {
		size_t capacity = paths->capacity ? 2 * paths->capacity : 64;
		char **more = realloc(paths->path, capacity * sizeof(paths->path[0]));

		if (!more)
			return segue_fail(SEGUE_ENOMEM, "no memory for the list of files");
		paths->path = more;
		paths->capacity = capacity;
	}
	paths->path[paths->count] = strdup(path);
	if (!paths->path[paths->count])
		return segue_fail(SEGUE_ENOMEM, "no memory for the list of files");
	paths->count++;
	return 0;
}

void segue_matches_finish(struct segue_matches *paths)
{
	for (size_t i = 0; i < paths->count; i++)
		free(paths->path[i]);
	free(paths->path);
	*paths = (struct segue_matches){0};
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorts what was added from `first` on; several '**' find a file in several ways. */
static void settle(struct segue_matches *paths, size_t first)
{
	size_t count = first;

	if (paths->count > first)
		qsort(paths->path + first, paths->count - first, sizeof(char *), by_name);
	for (size_t i = first; i < paths->count; i++) {
		if (count > first && strcmp(paths->path[i], paths->path[count - 1]) == 0)
			free(paths->path[i]);
		else
			paths->path[count++] = paths->path[i];
	}
	paths->count = count;
}

/* ---- glob(3) --------------------------------------------------------------------------------- */

/* glob()'s own way to a directory has no argument. */
static _Thread_local const struct segue_opener *glob_opener;

static void *glob_list(const char *path)
{
	return segue_opener_list(glob_opener, path);
}

static struct dirent *glob_next(void *list)
{
	return readdir(list);
}

static void glob_close(void *list)
{
	closedir(list);
}

static int glob_look(const char *restrict path, struct stat *restrict info)
{
	return segue_opener_look(glob_opener, path, info);
}

/* Of the directory that ended the last glob() of this thread. */
static _Thread_local struct {
	char path[PATH_MAX];
	int error;
	bool below_stars; /* what is asked for need not be in each directory */
} glob_fault;

static int glob_failed(const char *path, int error)
{
	if (error == ENOENT && glob_fault.below_stars)
		return 0;
	snprintf(glob_fault.path, sizeof(glob_fault.path), "%s", path);
	glob_fault.error = error;
	return 1;
}

static int run_glob(const struct segue_opener *opener, const char *pattern, glob_t *found)
{
	if (!opener || !opener->roots)
		return glob(pattern, GLOB_NOSORT, glob_failed, found);
	*found = (glob_t){
		.gl_opendir = glob_list,
		.gl_readdir = glob_next,
		.gl_closedir = glob_close,
		.gl_lstat = glob_look,
		.gl_stat = glob_look,
	};
	glob_opener = opener;
	return glob(pattern, GLOB_NOSORT | GLOB_ALTDIRFUNC, glob_failed, found);
}

/* A pattern that is being expanded. */
struct search {
	const struct segue_opener *opener;
	struct segue_matches *paths;
	const char *pattern; /* as it was given */
	size_t directories;  /* that its '**' have been to */
	size_t depth;        /* of them, the ones that it is in */
};

static int fail_directory(const struct search *search, const char *path)
{
	return segue_fail_errno(
		SEGUE_ESOURCE, "%s: cannot read the directory %s", search->pattern, path);
}

static int match(struct search *search, const char *pattern, struct segue_matches *to)
{
	glob_t found = {0};
	int rc = 0, code;

	glob_fault.below_stars = search->depth > 0;
	code = run_glob(search->opener, pattern, &found);
	if (code == GLOB_ABORTED) {
		errno = glob_fault.error;
		rc = fail_directory(search, glob_fault.path);
	} else if (code != 0 && code != GLOB_NOMATCH) {
		rc = segue_fail(SEGUE_ENOMEM, "no memory for what '%s' matches", search->pattern);
	}
	for (size_t i = 0; !rc && i < found.gl_pathc; i++)
		rc = add(to, found.gl_pathv[i]);
	globfree(&found);
	return rc;
}

/* ---- Directories within directories ---------------------------------------------------------- */

/* A directory on the way down. */
struct level {
	const struct level *above;
	const char *path;
	dev_t device;
	ino_t number;
};

static int expand(struct search *search, const char *pattern);
static int walk(struct search *search, const struct level *level, const char *rest);

/* A path as a pattern that matches it alone, and room for `rest` behind it; malloc'd. */
static char *quote(const char *path, const char *rest)
{
	char *pattern = malloc(2 * strlen(path) + strlen(rest) + 2), *to = pattern;

	if (!pattern)
		return NULL;
	for (; *path; *to++ = *path++)
		if (strchr("*?[]\\", *path))
			*to++ = '\\';
	sprintf(to, "%s%s", to > pattern && to[-1] == '/' ? "" : "/", rest);
	return pattern;
}

static int expand_within(struct search *search, const char *directory, const char *rest)
{
	char *pattern = quote(directory, rest);
	int rc = pattern ? expand(search, pattern)
			 : segue_fail(SEGUE_ENOMEM, "no memory for a pattern");

	free(pattern);
	return rc;
}

/* What `path` is, links followed where that is allowed. A negative code, or 0. */
static int look(const struct search *search, const char *path, struct stat *info)
{
	bool roots = search->opener && search->opener->roots;

	if ((roots ? segue_opener_look(search->opener, path, info) : stat(path, info)) == 0)
		return 0;
	if (errno != ENOENT && errno != ELOOP)
		return fail_directory(search, path);
	/* A link that leads nowhere, or what has gone since it was listed. */
	info->st_mode = 0;
	return 0;
}

static int fail_link(const struct search *search, const char *path)
{
	return segue_fail(SEGUE_ESOURCE,
		"%s: %s is a symbolic link, which beneath its roots (--root) this server does not "
		"follow, so that '**' would find a part of the files: name the directories without "
		"it",
		search->pattern, path);
}

static bool leads_back(const struct level *level, const struct stat *info)
{
	while (level && (level->device != info->st_dev || level->number != info->st_ino))
		level = level->above;
	return level != NULL;
}

/* A directory, or what may be one, and all below it. */
static int descend(
	struct search *search, const struct level *above, const char *path, const char *rest)
{
	struct stat info;
	int rc = look(search, path, &info);

	if (!rc && S_ISLNK(info.st_mode))
		rc = fail_link(search, path);
	if (rc || !S_ISDIR(info.st_mode) || leads_back(above, &info))
		return rc;
	const struct level level = {above, path, info.st_dev, info.st_ino};
	return walk(search, &level, rest);
}

static int descend_entry(struct search *search, const struct level *level,
	const struct dirent *entry, const char *rest)
{
	const char *slash = level->path[strlen(level->path) - 1] == '/' ? "" : "/";
	char *path;

	if (entry->d_name[0] == '.' ||
		(entry->d_type != DT_DIR && entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN))
		return 0;
	if (asprintf(&path, "%s%s%s", level->path, slash, entry->d_name) < 0)
		return segue_fail(SEGUE_ENOMEM, "no memory for a directory's name");
	int rc = descend(search, level, path, rest);
	free(path);
	return rc;
}

static int walk_entries(struct search *search, const struct level *level, const char *rest)
{
	DIR *list = segue_opener_list(search->opener, level->path);
	struct dirent *entry;
	int rc = 0;

	if (!list)
		return fail_directory(search, level->path);
	while (!rc && (errno = 0, entry = readdir(list)))
		rc = descend_entry(search, level, entry, rest);
	if (!rc && errno)
		rc = fail_directory(search, level->path);
	closedir(list);
	return rc;
}

/* Expands `rest` in the directory, then in all that are in it. */
static int walk(struct search *search, const struct level *level, const char *rest)
{
	const struct segue_opener *opener = search->opener;

	int rc = segue_check_given_up(opener ? opener->given_up : NULL);
	if (!rc && ++search->directories > SEGUE_FILES_MAX)
		rc = segue_fail(SEGUE_ELIMIT,
			"%s: '**' goes through more than %d directories; name them more closely",
			search->pattern, SEGUE_FILES_MAX);
	if (!rc && search->depth == SEGUE_DEEP_MAX)
		rc = segue_fail(SEGUE_ELIMIT,
			"%s: %s is more than %d directories below where '**' begins; name more of "
			"them",
			search->pattern, level->path, SEGUE_DEEP_MAX);
	if (rc)
		return rc;
	search->depth++;
	rc = expand_within(search, level->path, rest);
	if (!rc)
		rc = walk_entries(search, level, rest);
	search->depth--;
	return rc;
}

/* ---- Patterns -------------------------------------------------------------------------------- */

/* The first component that is '**', or NULL. */
static const char *find_stars(const char *pattern)
{
	for (const char *at = pattern; (at = strstr(at, "**")); at += 2)
		if ((at == pattern || at[-1] == '/') && (at[2] == '/' || at[2] == '\0'))
			return at;
	return NULL;
}

/* All before '**' are directories; behind it, nothing is like '*', but for the directories. */
static int expand_stars(struct search *search, const char *pattern, const char *stars)
{
	const char *rest = stars;
	char *before = strndup(pattern, (size_t)(stars - pattern));
	struct segue_matches begin = {0};

	while (find_stars(rest) == rest)
		rest += 2 + strspn(rest + 2, "/");
	int rc = before ? match(search, before, &begin)
			: segue_fail(SEGUE_ENOMEM, "no memory for a pattern");
	free(before);
	for (size_t i = 0; !rc && i < begin.count; i++)
		rc = descend(search, NULL, begin.path[i], *rest ? rest : "*");
	segue_matches_finish(&begin);
	return rc;
}

/* '**' at the end finds files: the directories are what it goes through. */
static int add_plain(struct search *search, struct segue_matches *found)
{
	struct stat info;
	int rc = 0;

	for (size_t i = 0; !rc && i < found->count; i++) {
		rc = look(search, found->path[i], &info);
		if (!rc && !S_ISDIR(info.st_mode))
			rc = add(search->paths, found->path[i]);
	}
	return rc;
}

static int expand(struct search *search, const char *pattern)
{
	const char *stars = find_stars(pattern);
	struct segue_matches found = {0};
	int rc;

	if (stars)
		return expand_stars(search, pattern, stars);
	rc = match(search, pattern, &found);
	if (!rc)
		rc = add_plain(search, &found);
	segue_matches_finish(&found);
	return rc;
}

/* glob() calls itself for each component behind which there is a wildcard. */
static int check(const char *pattern)
{
	size_t deep = 0;

	for (const char *at = strpbrk(pattern, "*?["); at; at = strchr(at + 1, '/'))
		if (++deep > SEGUE_DEEP_MAX)
			return segue_fail(SEGUE_ELIMIT,
				"%.200s...: a pattern with more than %d components from the first "
				"wildcard on; write some of them out",
				pattern, SEGUE_DEEP_MAX);
	for (const char *at = pattern; (at = strstr(at, "**")); at += 2)
		if ((at != pattern && at[-1] != '/') || (at[2] != '/' && at[2] != '\0'))
			return segue_fail(SEGUE_EINVAL,
				"%s: '**' stands for directories, and is a whole component of a "
				"pattern ('data/**/*.tfrecord', recursively); within a name write "
				"'*'",
				pattern);
	return 0;
}

int segue_matches_add_name(struct segue_matches *paths, const char *name)
{
	return add(paths, name);
}

int segue_matches_add(
	struct segue_matches *paths, const struct segue_opener *opener, const char *pattern)
{
	struct search search = {.opener = opener, .paths = paths, .pattern = pattern};
	size_t first = paths->count;

	int rc = segue_opener_exists(opener, pattern);
	if (rc)
		return rc > 0 ? add(paths, pattern) : rc;
	rc = check(pattern);
	if (rc)
		return rc;
	rc = find_stars(pattern) ? expand(&search, pattern) : match(&search, pattern, paths);
	if (rc)
		return rc;
	if (paths->count == first)
		return segue_fail(
			SEGUE_ESOURCE, "%s: no such file, and nothing matches it", pattern);
	settle(paths, first);
	return 0;
}
