/* What segue peek has found: files, features, lengths. */
#include <stdlib.h>
#include <string.h>

#include "cli/peek.h"
#include "core/error.h"

static char *copy(const void *bytes, size_t size)
{
	char *to = segue_cli_need(malloc(size + 1));

	if (size)
		memcpy(to, bytes, size);
	to[size] = '\0';
	return to;
}

void segue_peek_add_file(struct segue_peek_found *found, const char *path, uint64_t bytes)
{
	found->file =
		segue_cli_need(reallocarray(found->file, found->files + 1, sizeof(*found->file)));
	found->file[found->files++] = (struct segue_peek_file){.path = path, .bytes = bytes};
}

struct segue_peek_file *segue_peek_file(struct segue_peek_found *found)
{
	return &found->file[found->files - 1];
}

void segue_peek_trouble(struct segue_peek_found *found)
{
	struct segue_peek_file *file = segue_peek_file(found);
	const char *detail = segue_error_detail();

	if (!file->trouble)
		file->trouble = copy(detail, strlen(detail));
}

void segue_peek_key(struct segue_peek_found *found, const void *key, size_t size)
{
	struct segue_peek_file *file = segue_peek_file(found);

	if (file->keys == SEGUE_PEEK_KEYS)
		return;
	file->key[file->keys] = copy(key, size);
	file->key_size[file->keys++] = size;
}

void segue_peek_length(struct segue_peek_found *found, uint64_t steps)
{
	struct segue_peek_file *file = segue_peek_file(found);

	if (found->lengths == found->room) {
		found->room = found->room ? 2 * found->room : 1024;
		found->length = segue_cli_need(
			reallocarray(found->length, found->room, sizeof(*found->length)));
	}
	found->length[found->lengths++] = steps;
	file->records++;
	file->steps += steps;
}

struct segue_peek_feature *segue_peek_feature(struct segue_peek_found *found,
	enum segue_seqfile_place place, const void *name, size_t size)
{
	for (size_t i = 0; i < found->features; i++) {
		struct segue_peek_feature *feature = &found->feature[i];

		if (feature->place == place && feature->name_size == size &&
			memcmp(feature->name, name, size) == 0)
			return feature;
	}
	if (found->features == SEGUE_PEEK_FEATURES) {
		found->more_features = true;
		return NULL;
	}
	found->feature = segue_cli_need(
		reallocarray(found->feature, found->features + 1, sizeof(*found->feature)));
	found->feature[found->features] = (struct segue_peek_feature){
		.name = copy(name, size), .name_size = size, .place = place, .least = UINT64_MAX};
	return &found->feature[found->features++];
}

uint64_t segue_peek_counted(const struct segue_peek_counts *counts, uint64_t i)
{
	return counts->each ? counts->each[i] : counts->first;
}

/* For one more, behind those that were all alike. */
static void make_room(struct segue_peek_counts *counts)
{
	size_t room = 2 * (counts->records + 1);

	if (counts->each && counts->records < counts->room)
		return;
	uint32_t *each = segue_cli_need(reallocarray(counts->each, room, sizeof(*each)));
	for (uint64_t i = 0; !counts->each && i < counts->records; i++)
		each[i] = (uint32_t)counts->first;
	counts->each = each;
	counts->room = room;
}

void segue_peek_count(
	const struct segue_peek_found *found, struct segue_peek_feature *feature, uint64_t values)
{
	struct segue_peek_counts *counts = &feature->counts;

	/* Nobody asks where a record had sequence features, or where one had not this feature. */
	if (found->flat + 1 != found->records || counts->records + 1 != found->records)
		return;
	if (counts->records == 0)
		counts->first = values;
	if (counts->each || values != counts->first) {
		make_room(counts);
		counts->each[counts->records] = (uint32_t)values; /* a record has 1 GiB at most */
	}
	counts->records++;
}

void segue_peek_finish(struct segue_peek_found *found)
{
	for (size_t i = 0; i < found->files; i++) {
		free(found->file[i].trouble);
		for (size_t k = 0; k < found->file[i].keys; k++)
			free(found->file[i].key[k]);
	}
	for (size_t i = 0; i < found->features; i++) {
		free(found->feature[i].name);
		free(found->feature[i].counts.each);
	}
	free(found->file);
	free(found->feature);
	free(found->length);
}
