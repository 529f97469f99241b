/* Arrays between runs: kept, compared, explained. */
#include "source/arrays/kept.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/digest.h"
#include "core/error.h"

/* A listed file; its name follows, with its zero byte. First comes their number, last the index. */
struct row {
	uint64_t size, sample[2];
};

static const struct segue_file *listed(const struct segue_files *files, size_t i)
{
	return &files->file[files->listing[i]];
}

static const char *path_of_group(
	const struct segue_files *files, const struct segue_array_index *index, uint32_t group)
{
	return listed(files, segue_array_index_place(index, group, 0)->file)->path;
}

size_t segue_arrays_common(const struct segue_files *files, const struct segue_array_index *index)
{
	const char *first = path_of_group(files, index, 0);
	size_t same = (size_t)(strrchr(first, '/') - first);

	for (uint32_t group = 1; group < index->groups; group++) {
		const char *path = path_of_group(files, index, group);
		size_t i = 0;

		while (i < same && path[i] == first[i])
			i++;
		/* Not within the name of a directory. */
		while (i > 0 && (first[i] != '/' || path[i] != '/'))
			i--;
		same = i;
	}
	return same + 1;
}

void segue_arrays_fingerprint(const struct segue_files *files,
	const struct segue_array_index *index, uint64_t fingerprint[2])
{
	size_t common = segue_arrays_common(files, index);
	struct segue_digest digest;

	segue_digest_init(&digest);
	for (size_t i = 0; i < files->listing_count; i++) {
		const struct segue_file *file = listed(files, i);

		segue_digest_number(&digest, file->size);
		segue_digest_number(&digest, file->sample[0]);
		segue_digest_number(&digest, file->sample[1]);
	}
	for (uint32_t group = 0; !index->key_end && group < index->groups; group++)
		segue_digest_text(&digest, path_of_group(files, index, group) + common);
	segue_digest_bytes(&digest, index->bytes, index->size);
	segue_digest_finish(&digest, fingerprint);
}

/* ---- Keeping --------------------------------------------------------------------------------- */

void segue_arrays_kept_name(const uint64_t fingerprint[2], char name[SEGUE_KEPT_NAME_SIZE])
{
	snprintf(name, SEGUE_KEPT_NAME_SIZE, "arrays-%016" PRIx64 "%016" PRIx64, fingerprint[1],
		fingerprint[0]);
}

static int save(const struct segue_files *files, const struct segue_array_index *index,
	const char *name, const struct segue_index_keeper *keeper)
{
	uint64_t count = files->listing_count;
	size_t size = sizeof(count) + index->size;

	for (size_t i = 0; i < files->listing_count; i++)
		size += sizeof(struct row) + strlen(listed(files, i)->name) + 1;
	uint8_t *bytes = malloc(size), *at = bytes;
	if (!bytes)
		return segue_fail(SEGUE_ENOMEM, "no memory for an index of arrays");
	memcpy(at, &count, sizeof(count));
	at += sizeof(count);
	for (size_t i = 0; i < files->listing_count; i++) {
		const struct segue_file *file = listed(files, i);
		const struct row row = {file->size, {file->sample[0], file->sample[1]}};

		memcpy(at, &row, sizeof(row));
		at = (uint8_t *)stpcpy((char *)at + sizeof(row), file->name) + 1;
	}
	memcpy(at, index->bytes, index->size);
	int rc = keeper->save(keeper->arg, name, bytes, size);
	free(bytes);
	return rc;
}

int segue_arrays_keep(const struct segue_files *files, const struct segue_array_index *index,
	const uint64_t fingerprint[2], const struct segue_index_keeper *keeper)
{
	char name[SEGUE_KEPT_NAME_SIZE];
	void *bytes;
	size_t size;

	segue_arrays_kept_name(fingerprint, name);
	int rc = keeper->load(keeper->arg, name, &bytes, &size);
	if (!rc)
		free(bytes);
	return rc == SEGUE_ENOTFOUND ? save(files, index, name, keeper) : rc;
}

/* ---- Comparing ------------------------------------------------------------------------------- */

static int fail_damaged(void)
{
	return segue_fail(SEGUE_ESTORE, "what the store keeps of the data set is damaged: "
					"restore a backup, or give the stream another name");
}

/* A row of what was kept, and its name. SEGUE_ESTORE: there is none. */
static int take_row(const uint8_t **at, const uint8_t *end, struct row *row, const char **name)
{
	size_t left = (size_t)(end - *at);

	if (left <= sizeof(*row) || !memchr(*at + sizeof(*row), '\0', left - sizeof(*row)))
		return fail_damaged();
	memcpy(row, *at, sizeof(*row));
	*name = (const char *)*at + sizeof(*row);
	*at += sizeof(*row) + strlen(*name) + 1;
	return 0;
}

static int compare_file(const struct segue_file *file, const struct row *was, const char *name)
{
	if (file->size != was->size)
		return segue_fail(SEGUE_ECHANGED, "%s has %" PRIu64 " bytes, had %" PRIu64 "%s",
			name, file->size, was->size, SEGUE_CHANGED_ADVICE);
	if (memcmp(file->sample, was->sample, sizeof(was->sample)) != 0)
		return segue_fail(SEGUE_ECHANGED, "%s: as many bytes as before, but other ones%s",
			name, SEGUE_CHANGED_ADVICE);
	return 0;
}

static int compare(const struct segue_files *files, const uint8_t *kept, size_t size)
{
	const uint8_t *at = kept + sizeof(uint64_t), *end = kept + size;
	uint64_t count;
	const char *name = NULL;
	struct row row;
	int rc = 0;

	if (size < sizeof(count))
		return fail_damaged();
	memcpy(&count, kept, sizeof(count));
	if (count != files->listing_count)
		return segue_fail(SEGUE_ECHANGED, "it has %zu files, had %" PRIu64 "%s",
			files->listing_count, count, SEGUE_CHANGED_ADVICE);
	for (size_t i = 0; !rc && i < count; i++) {
		rc = take_row(&at, end, &row, &name);
		if (!rc)
			rc = compare_file(listed(files, i), &row, name);
	}
	return rc ? rc
		  : segue_fail(SEGUE_ECHANGED,
			    "the same files, but other names of them, or other arrays or sequences "
			    "in them%s",
			    SEGUE_CHANGED_ADVICE);
}

int segue_arrays_explain(const struct segue_files *files, const uint64_t fingerprint[2],
	const struct segue_index_keeper *keeper)
{
	char name[SEGUE_KEPT_NAME_SIZE];
	void *bytes = NULL;
	size_t size = 0;

	segue_arrays_kept_name(fingerprint, name);
	int rc = keeper->load(keeper->arg, name, &bytes, &size);
	if (rc == SEGUE_ENOTFOUND)
		return segue_fail(SEGUE_ECHANGED,
			"the data set is not the one that the stream was made with%s",
			SEGUE_CHANGED_ADVICE);
	if (!rc)
		rc = compare(files, bytes, size);
	free(bytes);
	return rc;
}

/* ---- Recalling ------------------------------------------------------------------------------- */

/* Where the index begins, behind the rows. */
static int find_index(const uint8_t *kept, size_t size, const uint8_t **out)
{
	const uint8_t *at = kept + sizeof(uint64_t), *end = kept + size;
	uint64_t count;
	const char *name;
	struct row row;
	int rc = 0;

	if (size < sizeof(count))
		return fail_damaged();
	memcpy(&count, kept, sizeof(count));
	for (uint64_t i = 0; !rc && i < count; i++)
		rc = take_row(&at, end, &row, &name);
	*out = at;
	return rc;
}

static int read_index(const uint8_t *from, size_t size, struct segue_array_index **out)
{
	int rc = segue_array_index_read(from, size, out);

	if (rc)
		return rc == SEGUE_ENOMEM ? rc : fail_damaged();
	if ((*out)->size == size)
		return 0;
	segue_array_index_drop(*out);
	*out = NULL;
	return fail_damaged();
}

int segue_arrays_recall(const uint64_t fingerprint[2], const struct segue_index_keeper *keeper,
	struct segue_array_index **out)
{
	char name[SEGUE_KEPT_NAME_SIZE];
	const uint8_t *index = NULL;
	void *bytes;
	size_t size;

	segue_arrays_kept_name(fingerprint, name);
	int rc = keeper->load(keeper->arg, name, &bytes, &size);
	if (rc)
		return rc == SEGUE_ENOTFOUND ? fail_damaged() : rc;
	rc = find_index(bytes, size, &index);
	if (!rc)
		rc = read_index(index, size - (size_t)(index - (const uint8_t *)bytes), out);
	free(bytes);
	return rc;
}
