/* Keys that come again: what was kept under them. */
#include "lane/again.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/digest.h"
#include "core/error.h"

enum { LEAST = 64 }; /* buckets: a power of two, as all their numbers */

uint64_t segue_again_hash(const char *key, size_t size)
{
	return XXH3_64bits(key, size);
}

static struct segue_kept **bucket_of(const struct segue_again *again, uint64_t hash)
{
	if (SEGUE_MUTANT(kept_of_another_key))
		hash = 0; /* all in one */
	return &again->bucket[hash & (again->buckets - 1)];
}

void segue_again_finish(struct segue_again *again)
{
	free(again->bucket);
	*again = (struct segue_again){0};
}

int segue_again_reserve(struct segue_again *again, size_t more)
{
	struct segue_again grown = {.buckets = again->buckets ? again->buckets : LEAST};

	while (grown.buckets < again->count + more)
		grown.buckets *= 2;
	if (grown.buckets == again->buckets)
		return 0;
	grown.bucket = calloc(grown.buckets, sizeof(struct segue_kept *));
	if (!grown.bucket)
		return segue_fail(SEGUE_ENOMEM, "no memory for the keys of %zu ended rows",
			again->count + more);
	for (size_t i = 0; i < again->buckets; i++) {
		while (again->bucket[i]) {
			struct segue_kept *kept = again->bucket[i];
			again->bucket[i] = kept->same;
			segue_again_add(&grown, kept);
		}
	}
	free(again->bucket);
	*again = grown;
	return 0;
}

void segue_again_add(struct segue_again *again, struct segue_kept *kept)
{
	kept->hash = segue_again_hash(kept->key, kept->key_size);
	struct segue_kept **bucket = bucket_of(again, kept->hash);

	kept->same = *bucket;
	*bucket = kept;
	again->count++;
}

void segue_again_remove(struct segue_again *again, const struct segue_kept *kept)
{
	struct segue_kept **link = bucket_of(again, kept->hash);

	while (*link != kept) {
		assert(*link);
		link = &(*link)->same;
	}
	*link = kept->same;
	again->count--;
}

static bool is_key(const struct segue_again_key *key, uint64_t hash, const char *bytes, size_t size)
{
	return key->hash == hash && key->size == size && memcmp(key->bytes, bytes, size) == 0;
}

const struct segue_kept *segue_again_find(
	const struct segue_again *again, const struct segue_again_key *key)
{
	const struct segue_kept *newest = NULL;

	if (again->count == 0)
		return NULL;
	for (const struct segue_kept *kept = *bucket_of(again, key->hash); kept;
		kept = kept->same) {
		bool same = is_key(key, kept->hash, kept->key, kept->key_size) ||
			    SEGUE_MUTANT(kept_of_another_key);
		if (same && (!newest || kept->number > newest->number))
			newest = kept;
	}
	return newest;
}

bool segue_again_is_one_of(
	const char *bytes, size_t size, const struct segue_again_key *keys, size_t count)
{
	uint64_t hash = segue_again_hash(bytes, size);

	for (size_t i = 0; i < count; i++)
		if (is_key(&keys[i], hash, bytes, size))
			return true;
	return false;
}
