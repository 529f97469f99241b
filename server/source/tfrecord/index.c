/* The index of a data set: built, kept, checked, looked up. */
#include "source/tfrecord/index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/error.h"
#include "source/tfrecord/framing.h"

/*
 * The blob, in the order and byte order of memory:
 *	struct blob_header
 *	struct blob_file for each file
 *	uint32_t for each listing: its file
 *	paths of the files, each with its zero byte; zero bytes up to a multiple of 8
 *	struct segue_index_entry for each record of each file
 */
#define BLOB_MAGIC   UINT64_C(0x7864696575676573) /* "segueidx" */
#define BLOB_VERSION 1

struct blob_header {
	uint64_t magic, version, files, listings, paths_size, entries;
};

struct blob_file {
	uint64_t size, packed_size, entries;
	uint8_t packed_trail[SEGUE_FILES_TRAIL_MAX];
};

/* A blob in memory, taken apart. */
struct blob {
	const struct blob_header *header;
	const struct blob_file *file;
	const uint32_t *listing;
	const char *paths;
	const struct segue_index_entry *entry;
};

#define NAME_SIZE 48

/* ---- Memory --------------------------------------------------------------------------------- */

void segue_index_finish(struct segue_index *index)
{
	free(index->entry);
	free(index->first);
	free(index->listed);
	memset(index, 0, sizeof(*index));
}

static int allocate(struct segue_index *index, const struct segue_files *files)
{
	index->files = files->count;
	index->listings = files->listing_count;
	index->first = calloc(index->files + 1, sizeof(index->first[0]));
	index->listed = calloc(index->listings + 1, sizeof(index->listed[0]));
	if (index->first && index->listed)
		return SEGUE_OK;
	return segue_fail(SEGUE_ENOMEM, "no memory for the index");
}

size_t segue_index_memory(const struct segue_index *index)
{
	return index->first[index->files] * sizeof(index->entry[0]) +
	       (index->files + index->listings + 2) * sizeof(uint64_t);
}

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
			"record at byte %ju: %ju bytes; 4 GiB and more are not supported",
			(uintmax_t)offset, (uintmax_t)length);
	if (build->count == build->capacity) {
		uint64_t capacity = build->capacity ? build->capacity * 3 / 2 : 1024;
		struct segue_index_entry *entry =
			realloc(build->index->entry, capacity * sizeof(entry[0]));

		if (!entry)
			return segue_fail(SEGUE_ENOMEM, "no memory for the index of %ju records",
				(uintmax_t)capacity);
		build->index->entry = entry;
		build->capacity = capacity;
	}
	build->index->entry[build->count++] = (struct segue_index_entry){
		.offset = offset, .length = (uint32_t)length, .crc = crc};
	return SEGUE_OK;
}

/* A damaged inflated copy is to be told from damaged data. */
static int within_file(int rc, const struct segue_file *file)
{
	if (file->packed)
		return segue_fail_within(rc, "%s (inflated to '%s')", file->path, file->data_path);
	return segue_fail_within(rc, "%s", file->path);
}

static int build_index(struct segue_index *index, struct segue_files *files,
	segue_progress_fn *progress, void *arg)
{
	struct segue_progress told = {
		.fn = progress, .arg = arg, .what = "index", .given_up = files->opener.given_up};
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
		if (rc < 0)
			return within_file(rc, &files->file[i]);
	}
	index->first[files->count] = build.count;
	if (build.count == 0)
		return segue_fail(SEGUE_EDATA, "%s%s: no records, the data set is empty",
			files->file[0].path, files->count > 1 ? " and the other files" : "");
	fitting = realloc(index->entry, build.count * sizeof(fitting[0]));
	if (fitting)
		index->entry = fitting;
	return SEGUE_OK;
}

/* ---- Keeping --------------------------------------------------------------------------------- */

static uint64_t round_up(uint64_t size)
{
	return (size + 7) / 8 * 8;
}

/* The name belongs to what was asked for, so that another outcome of it is seen as a change. */
static void make_name(const struct segue_spec *spec, char name[NAME_SIZE])
{
	const struct segue_spec_tfrecord *asked = &spec->source.tfrecord;
	XXH64_hash_t high = (XXH64_hash_t)asked->compression, low = 1;

	for (size_t i = 0; i < asked->paths.count; i++) {
		const char *path = asked->paths.path[i];
		size_t size = strlen(path) + 1;

		high = XXH3_64bits_withSeed(path, size, high);
		low = XXH3_64bits_withSeed(path, size, low);
	}
	snprintf(name, NAME_SIZE, "index-%016jx%016jx", (uintmax_t)high, (uintmax_t)low);
}

static uint64_t paths_size(const struct segue_files *files)
{
	uint64_t size = 0;

	for (size_t i = 0; i < files->count; i++)
		size += strlen(files->file[i].path) + 1;
	return size;
}

static uint64_t blob_size(const struct blob_header *header)
{
	return sizeof(*header) + header->files * sizeof(struct blob_file) +
	       round_up(header->listings * sizeof(uint32_t) + header->paths_size) +
	       header->entries * sizeof(struct segue_index_entry);
}

static void write_blob(uint8_t *at, const struct blob_header *header,
	const struct segue_index *index, const struct segue_files *files)
{
	uint8_t *texts;

	memcpy(at, header, sizeof(*header));
	at += sizeof(*header);
	for (size_t i = 0; i < files->count; i++) {
		const struct segue_file *file = &files->file[i];
		struct blob_file kept = {.size = file->size,
			.packed_size = file->packed_size,
			.entries = index->first[i + 1] - index->first[i]};

		memcpy(kept.packed_trail, file->packed_trail, sizeof(kept.packed_trail));
		memcpy(at, &kept, sizeof(kept));
		at += sizeof(kept);
	}
	texts = at;
	memcpy(at, files->listing, files->listing_count * sizeof(uint32_t));
	at += files->listing_count * sizeof(uint32_t);
	for (size_t i = 0; i < files->count; i++) {
		size_t size = strlen(files->file[i].path) + 1;

		memcpy(at, files->file[i].path, size);
		at += size;
	}
	at = texts + round_up((uint64_t)(at - texts));
	memcpy(at, index->entry, header->entries * sizeof(index->entry[0]));
}

static int save(const struct segue_index *index, const struct segue_files *files,
	const struct segue_index_keeper *keeper, const char *name)
{
	struct blob_header header = {.magic = BLOB_MAGIC,
		.version = BLOB_VERSION,
		.files = files->count,
		.listings = files->listing_count,
		.paths_size = paths_size(files),
		.entries = index->first[files->count]};
	uint64_t size = blob_size(&header);
	uint8_t *bytes = calloc(1, size);
	int rc;

	if (!bytes)
		return segue_fail(SEGUE_ENOMEM, "no memory to keep the index");
	write_blob(bytes, &header, index, files);
	rc = keeper->save(keeper->arg, name, bytes, size);
	free(bytes);
	return rc;
}

/* ---- Checking what was kept ------------------------------------------------------------------ */

static int not_an_index(const char *name)
{
	return segue_fail(SEGUE_ESTORE, "what is kept as '%s' is no index of files", name);
}

static int take_apart(const char *name, const uint8_t *bytes, size_t size, struct blob *blob)
{
	const struct blob_header *header = (const struct blob_header *)bytes;
	const uint8_t *at = bytes + sizeof(*header);
	uint64_t texts;

	if (size < sizeof(*header) || header->magic != BLOB_MAGIC)
		return not_an_index(name);
	if (header->version != BLOB_VERSION)
		return segue_fail(SEGUE_EFORMAT, "the index kept as '%s' is of format %ju, not %d",
			name, (uintmax_t)header->version, BLOB_VERSION);
	if (header->files > size || header->listings > size || header->paths_size > size ||
		header->entries > size || blob_size(header) != size)
		return not_an_index(name);
	texts = header->listings * sizeof(uint32_t) + header->paths_size;
	blob->header = header;
	blob->file = (const struct blob_file *)at;
	at += header->files * sizeof(struct blob_file);
	blob->listing = (const uint32_t *)at;
	blob->paths = (const char *)(blob->listing + header->listings);
	if (!header->paths_size || blob->paths[header->paths_size - 1] != '\0')
		return not_an_index(name);
	blob->entry = (const struct segue_index_entry *)(at + round_up(texts));
	return SEGUE_OK;
}

static const char advice[] =
	"; a data set belongs to its streams: put it back as it was, or begin a new store";

/* The list of files is the one that was kept: same paths, listed in the same order. */
static int compare_lists(const struct blob *blob, const struct segue_files *files)
{
	const char *path = blob->paths, *end = path + blob->header->paths_size;
	size_t i;

	for (i = 0; i < files->count && path < end; i++, path += strlen(path) + 1) {
		int order = strcmp(files->file[i].path, path);

		if (order < 0)
			break;
		if (order > 0)
			return segue_fail(
				SEGUE_ECHANGED, "%s: gone from the data set%s", path, advice);
	}
	if (i < files->count)
		return segue_fail(
			SEGUE_ECHANGED, "%s: new in the data set%s", files->file[i].path, advice);
	if (path < end)
		return segue_fail(SEGUE_ECHANGED, "%s: gone from the data set%s", path, advice);
	if (blob->header->files != files->count || blob->header->listings != files->listing_count ||
		memcmp(blob->listing, files->listing, files->listing_count * sizeof(uint32_t)) != 0)
		return segue_fail(SEGUE_ECHANGED,
			"%s: listed in another order, or another number "
			"of times%s",
			files->file[0].path, advice);
	return SEGUE_OK;
}

static int changed(const struct segue_file *file, const char *what)
{
	return segue_fail(SEGUE_ECHANGED, "%s: %s%s", file->path, what, advice);
}

static int compare_size(const struct segue_file *file, uint64_t size, uint64_t kept)
{
	if (size == kept)
		return SEGUE_OK;
	return segue_fail(SEGUE_ECHANGED, "%s: has %ju bytes, had %ju when it was indexed%s",
		file->path, (uintmax_t)size, (uintmax_t)kept, advice);
}

/* What can be told before compressed files are inflated. */
static int compare_files(const struct blob *blob, const struct segue_files *files)
{
	for (size_t i = 0; i < files->count; i++) {
		const struct segue_file *file = &files->file[i];
		const struct blob_file *kept = &blob->file[i];
		int rc;

		rc = file->packed ? compare_size(file, file->packed_size, kept->packed_size)
				  : compare_size(file, file->size, kept->size);
		if (rc < 0)
			return rc;
		if (file->packed && memcmp(file->packed_trail, kept->packed_trail,
					    sizeof(kept->packed_trail)) != 0)
			return changed(file, "its checksum is not what it was");
	}
	return SEGUE_OK;
}

/* One record in its file: the header and the stored CRC are those of the index. */
static int compare_record(
	struct segue_files *files, size_t number, const struct segue_index_entry *entry)
{
	uint8_t header[SEGUE_TFRECORD_HEADER];
	uint64_t length;
	uint32_t crc;
	int rc = segue_files_read(files, number, entry->offset, header, sizeof(header));

	if (rc < 0)
		return rc;
	if (!segue_tfrecord_length(header, &length) || length != entry->length)
		return segue_fail(SEGUE_ECHANGED, "%s: the record at byte %ju is not what it was%s",
			files->file[number].path, (uintmax_t)entry->offset, advice);
	rc = segue_files_read(
		files, number, entry->offset + sizeof(header) + length, &crc, sizeof(crc));
	if (rc < 0 || crc == entry->crc)
		return rc;
	return segue_fail(SEGUE_ECHANGED,
		"%s: the checksum of the record at byte %ju is not what it was%s",
		files->file[number].path, (uintmax_t)entry->offset, advice);
}

static int compare_ends(const struct segue_index *index, struct segue_files *files)
{
	for (size_t i = 0; i < files->count; i++) {
		const struct segue_index_entry *first = index->entry + index->first[i];
		const struct segue_index_entry *end = index->entry + index->first[i + 1];
		int rc;

		if (first == end)
			continue;
		rc = compare_record(files, i, first);
		if (rc == SEGUE_OK && end - first > 1)
			rc = compare_record(files, i, end - 1);
		if (rc < 0)
			return rc;
	}
	return SEGUE_OK;
}

static bool entries_lie_within(const struct segue_index *index, const struct segue_files *files)
{
	for (size_t i = 0; i < files->count; i++) {
		uint64_t at = 0;

		for (uint64_t k = index->first[i]; k < index->first[i + 1]; k++) {
			if (index->entry[k].offset != at)
				return false;
			at += SEGUE_TFRECORD_HEADER + (uint64_t)index->entry[k].length +
			      SEGUE_TFRECORD_FOOTER;
		}
		if (at != files->file[i].size)
			return false;
	}
	return true;
}

static int take_entries(const char *name, struct segue_index *index, const struct blob *blob)
{
	uint64_t count = 0, size = blob->header->entries * sizeof(index->entry[0]);

	for (size_t i = 0; i < index->files; i++) {
		index->first[i] = count;
		if (blob->file[i].entries > blob->header->entries - count)
			return not_an_index(name);
		count += blob->file[i].entries;
	}
	index->first[index->files] = count;
	if (count != blob->header->entries || count == 0)
		return not_an_index(name);
	index->entry = malloc(size);
	if (!index->entry)
		return segue_fail(SEGUE_ENOMEM, "no memory for the index");
	memcpy(index->entry, blob->entry, size);
	return SEGUE_OK;
}

static int adopt(const char *name, struct segue_index *index, const struct blob *blob,
	struct segue_files *files, const char *cache_dir, segue_progress_fn *progress, void *arg)
{
	int rc = compare_lists(blob, files);

	if (rc == SEGUE_OK)
		rc = compare_files(blob, files);
	if (rc == SEGUE_OK)
		rc = segue_files_inflate(files, cache_dir, progress, arg);
	for (size_t i = 0; rc == SEGUE_OK && i < files->count; i++)
		rc = compare_size(&files->file[i], files->file[i].size, blob->file[i].size);
	if (rc == SEGUE_OK)
		rc = take_entries(name, index, blob);
	if (rc == SEGUE_OK && !entries_lie_within(index, files))
		rc = not_an_index(name);
	return rc == SEGUE_OK ? compare_ends(index, files) : rc;
}

/* ---- Opening --------------------------------------------------------------------------------- */

static void count_listed(struct segue_index *index, const struct segue_files *files)
{
	uint64_t count = 0;

	for (size_t i = 0; i < index->listings; i++) {
		uint32_t file = files->listing[i];

		index->listed[i] = count;
		count += index->first[file + 1] - index->first[file];
	}
	index->listed[index->listings] = count;
}

/* Made of names below the common directory, sizes, and stored CRCs: the same wherever they lie. */
static void make_fingerprint(struct segue_index *index, const struct segue_files *files)
{
	XXH64_hash_t high = 0, low = 1;

	for (size_t i = 0; i < index->listings; i++) {
		size_t file = files->listing[i];
		const char *name = files->file[file].name;
		const struct segue_index_entry *entry = index->entry + index->first[file];
		size_t size = (index->first[file + 1] - index->first[file]) * sizeof(*entry);

		high = XXH3_64bits_withSeed(name, strlen(name) + 1, high);
		low = XXH3_64bits_withSeed(name, strlen(name) + 1, low);
		high = XXH3_64bits_withSeed(entry, size, high ^ files->file[file].size);
		low = XXH3_64bits_withSeed(entry, size, low ^ files->file[file].size);
	}
	index->fingerprint[0] = low;
	index->fingerprint[1] = high;
}

static int load(const char *name, struct segue_index *index, struct segue_files *files,
	const char *cache_dir, const struct segue_index_keeper *keeper, segue_progress_fn *progress,
	void *arg)
{
	void *bytes = NULL;
	struct blob blob = {0};
	size_t size = 0;
	int rc = keeper->load(keeper->arg, name, &bytes, &size);

	if (rc < 0)
		return rc;
	rc = take_apart(name, bytes, size, &blob);
	if (rc == SEGUE_OK)
		rc = adopt(name, index, &blob, files, cache_dir, progress, arg);
	free(bytes);
	return rc;
}

int segue_index_open(struct segue_index *index, const struct segue_spec *spec,
	struct segue_files *files, const char *cache_dir, const struct segue_index_keeper *keeper,
	segue_progress_fn *progress, void *arg)
{
	char name[NAME_SIZE];
	int rc;

	memset(index, 0, sizeof(*index));
	make_name(spec, name);
	rc = allocate(index, files);
	if (rc == SEGUE_OK)
		rc = load(name, index, files, cache_dir, keeper, progress, arg);
	if (rc == SEGUE_ENOTFOUND) {
		rc = segue_files_inflate(files, cache_dir, progress, arg);
		if (rc == SEGUE_OK)
			rc = build_index(index, files, progress, arg);
		if (rc == SEGUE_OK)
			rc = save(index, files, keeper, name);
	}
	if (rc < 0) {
		segue_index_finish(index);
		return rc;
	}
	count_listed(index, files);
	make_fingerprint(index, files);
	return SEGUE_OK;
}

uint64_t segue_index_records(const struct segue_index *index)
{
	return index->listed[index->listings];
}

uint64_t segue_index_find(const struct segue_index *index, const struct segue_files *files,
	uint64_t number, size_t *file)
{
	size_t low = 0, high = index->listings; /* listed[low] <= number < listed[high] */

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (index->listed[middle] <= number)
			low = middle;
		else
			high = middle;
	}
	*file = files->listing[low];
	return index->first[*file] + (number - index->listed[low]);
}
