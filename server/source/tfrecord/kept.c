/* The index as it is kept between runs: one blob, which knows which files it is of. */
#include "source/tfrecord/kept.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

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

/* ---- Keeping --------------------------------------------------------------------------------- */

static uint64_t round_up(uint64_t size)
{
	return (size + 7) / 8 * 8;
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

int segue_kept_save(const char *name, const struct segue_index *index,
	const struct segue_files *files, const struct segue_index_keeper *keeper)
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
	return segue_fail(SEGUE_ESTORE,
		"what the store keeps as '%s' is no index of files: restore a backup, or drop the "
		"streams over these files",
		name);
}

static int take_apart(const char *name, const uint8_t *bytes, size_t size, struct blob *blob)
{
	const struct blob_header *header = (const struct blob_header *)bytes;
	const uint8_t *at = bytes + sizeof(*header);
	uint64_t texts;

	if (size < sizeof(*header) || header->magic != BLOB_MAGIC)
		return not_an_index(name);
	if (header->version != BLOB_VERSION)
		return segue_fail(SEGUE_EFORMAT,
			"the index that the store keeps as '%s' is of format %" PRIu64
			", not %d: use the version of segue that wrote it",
			name, header->version, BLOB_VERSION);
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
	return 0;
}

/* What files of the same paths are listed in: each so often, and in the same order. */
static int compare_listings(const struct blob *blob, const struct segue_files *files)
{
	uint64_t kept = blob->header->listings, now = files->listing_count;

	if (kept != now)
		return segue_fail(SEGUE_ECHANGED,
			"%s: the same files, but %" PRIu64 " are listed, where there were %" PRIu64
			"%s",
			files->file[0].path, now, kept, SEGUE_CHANGED_ADVICE);
	for (uint64_t i = 0; i < now; i++)
		if (blob->listing[i] != files->listing[i])
			return segue_fail(SEGUE_ECHANGED,
				"%s: listed as number %" PRIu64
				", where another file was: the files are in another order%s",
				files->file[files->listing[i]].path, i, SEGUE_CHANGED_ADVICE);
	return 0;
}

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
			return segue_fail(SEGUE_ECHANGED, "%s: gone from the data set%s", path,
				SEGUE_CHANGED_ADVICE);
	}
	if (i < files->count)
		return segue_fail(SEGUE_ECHANGED, "%s: new in the data set%s", files->file[i].path,
			SEGUE_CHANGED_ADVICE);
	if (path < end)
		return segue_fail(
			SEGUE_ECHANGED, "%s: gone from the data set%s", path, SEGUE_CHANGED_ADVICE);
	return compare_listings(blob, files);
}

static int fail_changed(const struct segue_file *file, const char *what)
{
	return segue_fail(SEGUE_ECHANGED, "%s: %s%s", file->path, what, SEGUE_CHANGED_ADVICE);
}

static int compare_size(const struct segue_file *file, uint64_t size, uint64_t kept)
{
	if (size == kept)
		return 0;
	return segue_fail(SEGUE_ECHANGED,
		"%s: has %" PRIu64 " bytes, had %" PRIu64 " when it was indexed%s", file->path,
		size, kept, SEGUE_CHANGED_ADVICE);
}

/* What can be told before compressed files are inflated. */
static int compare_files(const struct blob *blob, const struct segue_files *files)
{
	for (size_t i = 0; i < files->count; i++) {
		const struct segue_file *file = &files->file[i];
		const struct blob_file *kept = &blob->file[i];
		int rc;

		if (!file->packed != !kept->packed_size)
			return fail_changed(file, file->packed ? "is compressed, and was not"
							       : "was compressed, and is not");
		rc = file->packed ? compare_size(file, file->packed_size, kept->packed_size)
				  : compare_size(file, file->size, kept->size);
		if (rc)
			return rc;
		if (file->packed && memcmp(file->packed_trail, kept->packed_trail,
					    sizeof(kept->packed_trail)) != 0)
			return fail_changed(file, "its checksum is not what it was");
	}
	return 0;
}

/* One record in its file: the header and the stored CRC are those of the index. */
static int compare_record(
	struct segue_files *files, size_t number, const struct segue_index_entry *entry)
{
	uint8_t header[SEGUE_TFRECORD_HEADER];
	uint64_t length;
	uint32_t crc;
	int rc = segue_files_read(files, number, entry->offset, header, sizeof(header));

	if (rc)
		return rc;
	if (!segue_tfrecord_length(header, &length) || length != entry->length)
		return segue_fail(SEGUE_ECHANGED,
			"%s: the record at byte %" PRIu64 " is not what it was%s",
			files->file[number].path, entry->offset, SEGUE_CHANGED_ADVICE);
	rc = segue_files_read(
		files, number, entry->offset + sizeof(header) + length, &crc, sizeof(crc));
	if (rc || crc == entry->crc)
		return rc;
	return segue_fail(SEGUE_ECHANGED,
		"%s: the checksum of the record at byte %" PRIu64 " is not what it was%s",
		files->file[number].path, entry->offset, SEGUE_CHANGED_ADVICE);
}

/* The first and the last record of each file; all of one that was inflated anew. */
static int compare_records(const struct segue_index *index, struct segue_files *files)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < files->count; i++) {
		uint64_t first = index->first[i], end = index->first[i + 1];

		for (uint64_t k = first; !rc && k < end; k++) {
			if (k == first + 1 && !files->file[i].fresh)
				k = end - 1;
			rc = compare_record(files, i, &index->entry[k]);
		}
	}
	return rc;
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
	return 0;
}

static int adopt(const char *name, struct segue_index *index, const struct blob *blob,
	struct segue_files *files, const struct segue_source_means *means)
{
	int rc = compare_lists(blob, files);

	if (!rc)
		rc = compare_files(blob, files);
	if (!rc)
		rc = segue_files_inflate(files, means);
	for (size_t i = 0; !rc && i < files->count; i++)
		rc = compare_size(&files->file[i], files->file[i].size, blob->file[i].size);
	if (!rc)
		rc = take_entries(name, index, blob);
	if (!rc && !entries_lie_within(index, files))
		rc = not_an_index(name);
	if (rc)
		return rc;
	rc = compare_records(index, files);
	if (rc != SEGUE_ECHANGED)
		return rc;
	/* Unless a copy is damaged, and not its file. */
	rc = segue_files_check_copies(files, means);
	return rc ? rc : compare_records(index, files);
}

int segue_kept_load(const char *name, struct segue_index *index, struct segue_files *files,
	const struct segue_source_means *means)
{
	void *bytes = NULL;
	struct blob blob = {0};
	size_t size = 0;

	int rc = means->keeper->load(means->keeper->arg, name, &bytes, &size);
	if (rc)
		return rc;
	rc = take_apart(name, bytes, size, &blob);
	if (!rc)
		rc = adopt(name, index, &blob, files, means);
	free(bytes);
	return rc;
}
