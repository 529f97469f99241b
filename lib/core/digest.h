/*
 * A hash of identity: of numbers and texts, the same on every machine, so that neighbours cannot
 * run into each other.
 */
#ifndef SEGUE_CORE_DIGEST_H
#define SEGUE_CORE_DIGEST_H

#include <stdint.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct segue_digest {
	XXH3_state_t state;
};

static inline void segue_digest_init(struct segue_digest *digest)
{
	XXH3_128bits_reset(&digest->state);
}

static inline void segue_digest_bytes(struct segue_digest *digest, const void *bytes, size_t size)
{
	XXH3_128bits_update(&digest->state, bytes, size);
}

/* Little-endian on every machine: the hash travels with tokens. */
static inline void segue_digest_number(struct segue_digest *digest, uint64_t number)
{
	uint8_t bytes[8];

	for (unsigned i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(number >> (8 * i));
	segue_digest_bytes(digest, bytes, sizeof(bytes));
}

/* With its length. */
static inline void segue_digest_text(struct segue_digest *digest, const char *text)
{
	segue_digest_number(digest, strlen(text));
	segue_digest_bytes(digest, text, strlen(text));
}

static inline void segue_digest_finish(const struct segue_digest *digest, uint64_t hash[2])
{
	XXH128_hash_t value = XXH3_128bits_digest(&digest->state);

	hash[0] = value.low64;
	hash[1] = value.high64;
}

#endif
