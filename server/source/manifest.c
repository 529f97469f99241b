/* What a data set was: a row for each listed file, and the comparison of two of them. */
#include "source/manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/error.h"

/* A listed file; in what is kept its name follows, with its zero byte. */
struct row {
	uint64_t size, records;
	uint64_t hash; /* of its index entries: where its records are, and their checksums */
};

struct listed {
	struct row row;
	const char *name;
	size_t place;
};

struct list {
	struct listed *file;
	size_t count;
};

/* ---- Keeping --------------------------------------------------------------------------------- */

void segue_manifest_name(const uint64_t fingerprint[2], char name[SEGUE_KEPT_NAME_SIZE])
{
	snprintf(name, SEGUE_KEPT_NAME_SIZE, "files-%016" PRIx64 "%016" PRIx64, fingerprint[1],
		fingerprint[0]);
}

static struct row make_row(
	const struct segue_index *index, const struct segue_files *files, size_t file)
{
	uint64_t first = index->first[file], records = index->first[file + 1] - first;

	return (struct row){
		.size = files->file[file].size,
		.records = records,
		.hash = XXH3_64bits(index->entry + first, records * sizeof(index->entry[0])),
	};
}

int segue_manifest_save(const struct segue_index *index, const struct segue_files *files,
	const struct segue_index_keeper *keeper)
{
	char name[SEGUE_KEPT_NAME_SIZE];
	size_t size = 0;

	for (size_t i = 0; i < index->listings; i++)
		size += sizeof(struct row) + strlen(files->file[files->listing[i]].name) + 1;
	uint8_t *bytes = malloc(size), *at = bytes;
	if (!bytes)
		return segue_fail(SEGUE_ENOMEM, "no memory for the list of files");
	for (size_t i = 0; i < index->listings; i++) {
		const char *text = files->file[files->listing[i]].name;
		const struct row row = make_row(index, files, files->listing[i]);

		memcpy(at, &row, sizeof(row));
		at = (uint8_t *)stpcpy((char *)at + sizeof(row), text) + 1;
	}
	segue_manifest_name(index->fingerprint, name);
	int rc = keeper->save(keeper->arg, name, bytes, size);
	free(bytes);
	return rc;
}

int segue_manifest_keep(const struct segue_index *index, const struct segue_files *files,
	const struct segue_index_keeper *keeper)
{
	char name[SEGUE_KEPT_NAME_SIZE];
	void *bytes;
	size_t size;

	segue_manifest_name(index->fingerprint, name);
	int rc = keeper->load(keeper->arg, name, &bytes, &size);
	if (!rc)
		free(bytes);
	return rc == SEGUE_ENOTFOUND ? segue_manifest_save(index, files, keeper) : rc;
}

/* ---- Comparing ------------------------------------------------------------------------------- */

static int add(struct list *list, const struct row *row, const char *name)
{
	if ((list->count & (list->count - 1)) == 0) {
		size_t room = list->count ? 2 * list->count : 1;
		struct listed *more = realloc(list->file, room * sizeof(*more));

		if (!more)
			return segue_fail(SEGUE_ENOMEM, "no memory for the list of files");
		list->file = more;
	}
	list->file[list->count] = (struct listed){*row, name, list->count};
	list->count++;
	return 0;
}

static int take_kept(const uint8_t *bytes, size_t size, struct list *list)
{
	int rc = 0;

	while (!rc && size) {
		struct row row;
		const char *name = (const char *)bytes + sizeof(row);

		if (size <= sizeof(row) || !memchr(name, '\0', size - sizeof(row)))
			return segue_fail(SEGUE_ESTORE,
				"what the store keeps of the data set is damaged: "
				"restore a backup, or give the stream another name");
		memcpy(&row, bytes, sizeof(row));
		rc = add(list, &row, name);
		bytes += sizeof(row) + strlen(name) + 1;
		size -= sizeof(row) + strlen(name) + 1;
	}
	return rc;
}

static int take_present(
	const struct segue_index *index, const struct segue_files *files, struct list *list)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < index->listings; i++) {
		const struct row row = make_row(index, files, files->listing[i]);

		rc = add(list, &row, files->file[files->listing[i]].name);
	}
	return rc;
}

static int by_name(const void *a, const void *b)
{
	const struct listed *one = a, *other = b;
	int order = strcmp(one->name, other->name);

	return order ? order : (one->place > other->place) - (one->place < other->place);
}

/* Files of `list` that `other` has not, both sorted: how many, and the first. */
static size_t without(const struct list *list, const struct list *other, const char **first)
{
	size_t count = 0, k = 0;

	for (size_t i = 0; i < list->count; i++) {
		while (k < other->count && strcmp(other->file[k].name, list->file[i].name) < 0)
			k++;
		if (k < other->count && strcmp(other->file[k].name, list->file[i].name) == 0)
			k++;
		else if (count++ == 0)
			*first = list->file[i].name;
	}
	return count;
}

static int compare_names(const struct list *was, const struct list *is)
{
	const char *gone, *new;
	size_t gone_count = without(was, is, &gone), new_count = without(is, was, &new);

	if (!gone_count && !new_count)
		return 0;
	if (!new_count)
		return segue_fail(SEGUE_ECHANGED,
			"%zu of its %zu files %s missing, the first is %s%s", gone_count,
			was->count, gone_count == 1 ? "is" : "are", gone, SEGUE_CHANGED_ADVICE);
	if (!gone_count)
		return segue_fail(SEGUE_ECHANGED,
			"%zu file%s there that %s not when it was made, the first is %s%s",
			new_count, new_count == 1 ? " is" : "s are",
			new_count == 1 ? "was" : "were", new, SEGUE_CHANGED_ADVICE);
	return segue_fail(SEGUE_ECHANGED,
		"%zu of its %zu files %s missing, the first is %s, and %zu other%s there, the "
		"first is %s%s",
		gone_count, was->count, gone_count == 1 ? "is" : "are", gone, new_count,
		new_count == 1 ? " is" : "s are", new, SEGUE_CHANGED_ADVICE);
}

/* The same names, sorted. */
static int compare_rows(const struct list *was, const struct list *is)
{
	for (size_t i = 0; i < was->count; i++) {
		const struct row *old = &was->file[i].row, *now = &is->file[i].row;
		const char *name = is->file[i].name;

		if (old->records != now->records)
			return segue_fail(SEGUE_ECHANGED,
				"%s has %" PRIu64 " records, had %" PRIu64 "%s", name, now->records,
				old->records, SEGUE_CHANGED_ADVICE);
		if (old->size != now->size)
			return segue_fail(SEGUE_ECHANGED,
				"%s has %" PRIu64 " bytes, had %" PRIu64 "%s", name, now->size,
				old->size, SEGUE_CHANGED_ADVICE);
		if (old->hash != now->hash)
			return segue_fail(SEGUE_ECHANGED,
				"%s: as many records and bytes as before, but other ones%s", name,
				SEGUE_CHANGED_ADVICE);
	}
	return 0;
}

/* The same files: only their order is left. */
static int explain_order(const struct list *was, const struct list *is)
{
	size_t first = SIZE_MAX;
	const char *name = NULL;

	for (size_t i = 0; i < was->count; i++)
		if (was->file[i].place != is->file[i].place && is->file[i].place < first) {
			first = is->file[i].place;
			name = is->file[i].name;
		}
	return segue_fail(SEGUE_ECHANGED,
		"the same files are listed in another order (%s is number %zu now): the order of "
		"the files is that of the sequences; sort the list, or name the files by a "
		"pattern, "
		"which sorts them, in the order in which they were",
		name ? name : "?", first);
}

static int compare(struct list *was, struct list *is)
{
	qsort(was->file, was->count, sizeof(*was->file), by_name);
	qsort(is->file, is->count, sizeof(*is->file), by_name);
	int rc = compare_names(was, is);
	if (!rc)
		rc = compare_rows(was, is);
	return rc ? rc : explain_order(was, is);
}

int segue_manifest_explain(const struct segue_index *index, const struct segue_files *files,
	const struct segue_index_keeper *keeper, const uint64_t fingerprint[2])
{
	struct list was = {0}, is = {0};
	char name[SEGUE_KEPT_NAME_SIZE];
	void *bytes = NULL;
	size_t size = 0;

	segue_manifest_name(fingerprint, name);
	int rc = keeper->load(keeper->arg, name, &bytes, &size);
	if (rc == SEGUE_ENOTFOUND)
		return segue_fail(SEGUE_ECHANGED,
			"the data set is not the one that the stream was made with%s",
			SEGUE_CHANGED_ADVICE);
	if (!rc)
		rc = take_kept(bytes, size, &was);
	if (!rc)
		rc = take_present(index, files, &is);
	if (!rc)
		rc = compare(&was, &is);
	free(was.file);
	free(is.file);
	free(bytes);
	return rc;
}
