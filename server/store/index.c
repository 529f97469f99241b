/* The index of a data set in pieces, and from pieces. */
#include "store/index.h"

#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "store/key.h"

enum { PIECE = 16 * 4096 - 16 - 64 }; /* a value that fills whole pages, with its headers */

struct pieces {
	uint8_t *bytes;
	size_t size;
};

static int add_piece(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct pieces *pieces = arg;
	uint8_t *grown = realloc(pieces->bytes, pieces->size + value_size + 1);

	(void)key, (void)key_size;
	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for the index");
	memcpy(grown + pieces->size, value, value_size);
	pieces->bytes = grown;
	pieces->size += value_size;
	return 0;
}

int segue_store_index_load(struct segue_store *store, const char *name, void **bytes, size_t *size)
{
	struct pieces pieces = {0};

	int rc = segue_store_scan(
		store, SEGUE_TABLE_INDEX, name, strlen(name) + 1, add_piece, NULL, &pieces);
	if (!rc && !pieces.bytes)
		rc = segue_fail(SEGUE_ENOTFOUND, "no index '%s'", name);
	if (rc) {
		free(pieces.bytes);
		return rc;
	}
	*bytes = pieces.bytes;
	*size = pieces.size;
	return 0;
}

int segue_store_index_remove(struct segue_ops *ops, const char *name)
{
	return segue_ops_remove_prefix(ops, SEGUE_TABLE_INDEX, name, strlen(name) + 1);
}

int segue_store_index_save(struct segue_ops *ops, const char *name, const void *bytes, size_t size)
{
	const uint8_t *from = bytes;
	uint8_t key[SEGUE_STORE_KEY_MAX];
	size_t name_size = strlen(name) + 1, key_size = name_size + sizeof(uint32_t);
	uint32_t number = 0;

	if (key_size > sizeof(key))
		return segue_fail(SEGUE_EINVAL, "the index's name '%s' is too long", name);
	memcpy(key, name, name_size);
	int rc = segue_store_index_remove(ops, name);
	for (size_t at = 0; !rc && at < size; at += PIECE) {
		size_t part = size - at < PIECE ? size - at : PIECE;
		segue_key_put32(key + name_size, number++);
		rc = segue_ops_put_copy(ops, SEGUE_TABLE_INDEX, key, key_size, from + at, part);
	}
	return rc;
}
