/* A model of what the store should hold: versions of values, the same keys in each table. */
#ifndef SEGUE_TEST_STORE_MODEL_H
#define SEGUE_TEST_STORE_MODEL_H

#include "store/store.h"

#define KEYS           60
#define VALUE_SIZE_MAX 13000

/* Each value is a function of (table, key, version); version 0: there is none. */
struct model {
	uint32_t versions[SEGUE_TABLE_COUNT][KEYS];
};

extern struct model_key {
	uint8_t bytes[SEGUE_STORE_KEY_MAX];
	size_t size;
} keys[KEYS]; /* in the store's order, the same for each table */

/* The order of keys, as of memcmp(). */
int compare_keys(const void *a, size_t a_size, const void *b, size_t b_size);
/* Random keys of few letters, so that many are prefixes of others. */
void make_keys(void);
bool starts_with(size_t key, const void *prefix, size_t size);
/* Returns its size. The version stands first, so that an old value is recognised as one. */
size_t fill_value(uint8_t *value, int table, size_t key, uint32_t version);
/* One random transaction on the store and, if it took place, on the model. */
void random_transaction(struct segue_store *store, struct model *model, uint32_t version);

#endif
