/* Keys that are hashes. */
#include "store/key.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

_Static_assert(sizeof(XXH128_canonical_t) == SEGUE_KEY_HASH, "stored");

uint8_t *segue_key_put_hash(uint8_t *at, const void *bytes, size_t size)
{
	XXH128_canonicalFromHash((XXH128_canonical_t *)at, XXH3_128bits(bytes, size));
	return at + SEGUE_KEY_HASH;
}

const void *segue_key_stream(const char *name, uint8_t hash[SEGUE_STORE_KEY_MAX], size_t *size)
{
	*size = strlen(name);
	if (*size < SEGUE_STORE_KEY_MAX)
		return name;
	hash[0] = '\0'; /* no name begins so */
	*size = (size_t)(segue_key_put_hash(hash + 1, name, *size) - hash);
	return hash;
}
