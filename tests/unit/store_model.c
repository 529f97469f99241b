/* A model of what the store should hold. */
#include "store_model.h"

#include <string.h>

#include "store_fixture.h"

struct model_key keys[KEYS];

int compare_keys(const void *a, size_t a_size, const void *b, size_t b_size)
{
	int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
	return order ? order : (a_size > b_size) - (a_size < b_size);
}

void make_keys(void)
{
	static const uint8_t letters[] = {0, 'a', 'b', 255};
	size_t count = 0;
	while (count < KEYS) {
		uint8_t key[SEGUE_STORE_KEY_MAX];
		size_t size = 1 + below(below(4) ? 6 : SEGUE_STORE_KEY_MAX), at = 0;
		for (size_t i = 0; i < size; i++)
			key[i] = letters[below(sizeof(letters))];
		while (at < count && compare_keys(keys[at].bytes, keys[at].size, key, size) < 0)
			at++;
		if (at < count && compare_keys(keys[at].bytes, keys[at].size, key, size) == 0)
			continue;
		memmove(&keys[at + 1], &keys[at], (count - at) * sizeof(keys[0]));
		memcpy(keys[at].bytes, key, size);
		keys[at].size = size;
		count++;
	}
}

size_t fill_value(uint8_t *value, int table, size_t key, uint32_t version)
{
	static const size_t sizes[] = {
		8, 9, 100, 512, 1000, 1976, 1977, 2000, 4056, 4057, 8152, 12248};
	uint64_t hash = ((uint64_t)table << 56 | (uint64_t)key << 32 | version) *
			UINT64_C(0xd6e8feb86659fd93);
	size_t size = sizes[(hash >> 40) % (sizeof(sizes) / sizeof(sizes[0]))];
	memcpy(value, &version, sizeof(version));
	for (size_t i = sizeof(version); i < size; i++) {
		hash = hash * UINT64_C(6364136223846793005) + 1442695040888963407u;
		value[i] = (uint8_t)(hash >> 56);
	}
	return size;
}

bool starts_with(size_t key, const void *prefix, size_t size)
{
	return keys[key].size >= size && memcmp(keys[key].bytes, prefix, size) == 0;
}

static bool is_in_range(const struct segue_store_op *op, size_t i)
{
	return (op->remove && op->prefix && starts_with(i, op->key, op->key_size)) ||
	       (op->remove && op->shared && starts_with(i, op->key, op->shared) &&
		       compare_keys(keys[i].bytes, keys[i].size, op->key, op->key_size) < 0);
}

static void model_apply(
	struct model *model, const struct segue_store_op *op, size_t key, uint32_t version)
{
	uint32_t *versions = model->versions[op->table];
	size_t removed = 0;

	for (size_t i = 0; i < KEYS; i++) {
		if (i == key) {
			versions[i] = op->remove ? 0 : version;
		} else if (is_in_range(op, i) && versions[i] &&
			   (!op->limit || removed < op->limit)) {
			versions[i] = 0;
			removed++;
		}
	}
}

void random_transaction(struct segue_store *store, struct model *model, uint32_t version)
{
	static uint8_t values[16][VALUE_SIZE_MAX];
	struct segue_store_op ops[16];
	size_t count = 1 + below(16);
	for (size_t i = 0; i < count; i++) {
		size_t key = below(KEYS), kind = below(20);
		ops[i] = (struct segue_store_op){
			.table = (enum segue_table)(1 + below(SEGUE_TABLE_COUNT - 1)),
			.remove = kind < 6,
			.prefix = kind < 1,
			.key = keys[key].bytes,
			.key_size = keys[key].size,
			.value = values[i],
		};
		if (ops[i].prefix)
			ops[i].key_size = 1 + below(keys[key].size);
		else if (ops[i].remove && kind < 3)
			ops[i].shared = 1 + below(keys[key].size);
		if (ops[i].prefix || ops[i].shared)
			ops[i].limit = below(3) * below(6);
		/* two puts of one key in a transaction must differ: the last one counts */
		uint32_t unique = version * 16 + (uint32_t)i;
		ops[i].value_size = fill_value(values[i], (int)ops[i].table, key, unique);
		bool range = ops[i].prefix || ops[i].shared;
		model_apply(model, &ops[i], range ? KEYS : key, unique);
	}
	assert_ok(segue_store_apply(store, ops, count));
}
