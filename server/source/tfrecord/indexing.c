/* Where an index comes from: the keeper, or a pass through the files. */
#include "source/tfrecord/indexing.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/error.h"
#include "source/tfrecord/framing.h"
#include "source/tfrecord/kept.h"
#include "source/manifest.h"

/* ---- Building -------------------------------------------------------------------------------- */

struct build {
	struct segue_index *index;
	struct segue_files *files;
	size_t file;
	uint64_t count, capacity;
};

static int read_file(void *arg, uint64_t position, void *bytes, size_t size)
{
	struct build *build = arg;

	return segue_files_read(build->files, build->file, position, bytes, size);
}

static int add_entry(void *arg, uint64_t offset, uint64_t length, uint32_t crc)
{
	struct build *build = arg;

	if (length > UINT32_MAX)
		return segue_fail(SEGUE_EDATA,
			"record at byte %" PRIu64 ": %" PRIu64
			" bytes; 4 GiB and more are not supported; split it",
			offset, length);
	if (build->count == build->capacity) {
		uint64_t capacity = build->capacity ? build->capacity * 3 / 2 : 1024;
		struct segue_index_entry *entry =
			realloc(build->index->entry, capacity * sizeof(entry[0]));

		if (!entry)
			return segue_fail(SEGUE_ENOMEM,
				"no memory for the index of %" PRIu64 " records", capacity);
		build->index->entry = entry;
		build->capacity = capacity;
	}
	build->index->entry[build->count++] = (struct segue_index_entry){
		.offset = offset, .length = (uint32_t)length, .crc = crc};
	return 0;
}

static int fail_empty(struct segue_files *files)
{
	for (size_t i = 0; i < files->count; i++)
		segue_files_discard(files, i);
	return segue_fail(SEGUE_EDATA,
		"%s%s: no records, the data set is empty; is the source's list of files right?",
		files->file[0].path, files->count > 1 ? " and the other files" : "");
}

static int build_index(struct segue_index *index, struct segue_files *files,
	const struct segue_source_means *means)
{
	struct segue_progress told = {.fn = means->progress,
		.arg = means->arg,
		.what = "index",
		.given_up = files->opener.given_up};
	struct build build = {.index = index, .files = files};
	struct segue_index_entry *fitting;

	for (size_t i = 0; i < files->count; i++)
		told.total += files->file[i].size;
	for (size_t i = 0; i < files->count; i++) {
		int rc;

		build.file = i;
		index->first[i] = build.count;
		rc = segue_tfrecord_hop(
			read_file, &build, files->file[i].size, add_entry, &build, &told);
		if (rc == SEGUE_EDATA) /* a copy that is of no use to anybody */
			segue_files_discard(files, i);
		if (rc)
			return segue_file_fail_within(rc, &files->file[i]);
	}
	index->first[files->count] = build.count;
	if (build.count == 0)
		return fail_empty(files);
	fitting = realloc(index->entry, build.count * sizeof(fitting[0]));
	if (fitting)
		index->entry = fitting;
	return 0;
}

/* ---- Opening --------------------------------------------------------------------------------- */

/* The name belongs to what was asked for, so that another outcome of it is seen as a change. */
void segue_index_name(const struct segue_spec *spec, char name[SEGUE_KEPT_NAME_SIZE])
{
	const struct segue_paths *paths = &spec->source.tfrecord.paths;
	XXH64_hash_t high = (XXH64_hash_t)spec->source.tfrecord.compression, low = 1;

	for (size_t i = 0; i < paths->count; i++) {
		size_t size = strlen(paths->path[i]) + 1;

		high = XXH3_64bits_withSeed(paths->path[i], size, high);
		low = XXH3_64bits_withSeed(paths->path[i], size, low);
	}
	snprintf(name, SEGUE_KEPT_NAME_SIZE, "index-%016" PRIx64 "%016" PRIx64, high, low);
}

/* As it is kept, or built and kept. */
static int get(struct segue_index *index, const struct segue_spec *spec, struct segue_files *files,
	const struct segue_source_means *means)
{
	char name[SEGUE_KEPT_NAME_SIZE];

	segue_index_name(spec, name);
	int rc = segue_kept_load(name, index, files, means);
	bool is_new = rc == SEGUE_ENOTFOUND;
	if (is_new)
		rc = segue_files_check_copies(files, means);
	if (is_new && !rc)
		rc = build_index(index, files, means);
	if (rc)
		return rc;
	segue_index_settle(index, files);
	if (!is_new)
		return 0;
	rc = segue_kept_save(name, index, files, means->keeper);
	return rc ? rc : segue_manifest_save(index, files, means->keeper);
}

int segue_index_open(struct segue_index *index, const struct segue_spec *spec,
	struct segue_files *files, const struct segue_source_means *means)
{
	int rc = segue_index_init(index, files);
	if (!rc)
		rc = get(index, spec, files, means);
	if (rc)
		segue_index_finish(index);
	return rc;
}
