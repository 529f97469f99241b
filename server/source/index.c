/* The index of a data set: what follows from its entries, and what is looked up in it. */
#include "source/index.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/error.h"

/* ---- Memory --------------------------------------------------------------------------------- */

void segue_index_finish(struct segue_index *index)
{
	free(index->entry);
	free(index->first);
	free(index->listed);
	memset(index, 0, sizeof(*index));
}

int segue_index_init(struct segue_index *index, const struct segue_files *files)
{
	memset(index, 0, sizeof(*index));
	index->files = files->count;
	index->listings = files->listing_count;
	index->first = calloc(index->files + 1, sizeof(index->first[0]));
	index->listed = calloc(index->listings + 1, sizeof(index->listed[0]));
	if (index->first && index->listed)
		return 0;
	return segue_fail(SEGUE_ENOMEM, "no memory for the index");
}

size_t segue_index_memory(const struct segue_index *index)
{
	return index->first[index->files] * sizeof(index->entry[0]) +
	       (index->files + index->listings + 2) * sizeof(uint64_t);
}

/* ---- What follows from its entries ----------------------------------------------------------- */

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

void segue_index_settle(struct segue_index *index, const struct segue_files *files)
{
	count_listed(index, files);
	make_fingerprint(index, files);
}

/* ---- Looking up ------------------------------------------------------------------------------ */

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
