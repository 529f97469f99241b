/* Records of the store and tokens: their keys and bytes. */
#include "records.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "barrier.h"
#include "error.h"
#include "store_key.h"

enum { TOKEN_FORMAT = 1, TOKEN_HEAD = 16, TOKEN_SUM = 16, LANE_KEY = 12, STATE_KEY = 20 };

static const char token_magic[4] = {'S', 'E', 'G', 'T'};

/* ---- Operations ---- */

void segue_ops_truncate(struct segue_ops *ops, size_t count)
{
	while (ops->count > count) {
		struct segue_store_op *op = &ops->op[--ops->count];
		free((void *)(uintptr_t)op->key);
		free((void *)(uintptr_t)op->value);
	}
}

void segue_ops_finish(struct segue_ops *ops)
{
	segue_ops_truncate(ops, 0);
	free(ops->op);
	*ops = (struct segue_ops){0};
}

int segue_ops_add(struct segue_ops *ops, enum segue_table table, const void *key, size_t key_size,
	void *value, size_t value_size)
{
	if (ops->count == ops->capacity) {
		size_t capacity = ops->capacity ? 2 * ops->capacity : 64;
		struct segue_store_op *grown = realloc(ops->op, capacity * sizeof(*grown));
		if (!grown)
			goto no_memory;
		ops->op = grown;
		ops->capacity = capacity;
	}
	void *copy = malloc(key_size);
	if (!copy)
		goto no_memory;
	memcpy(copy, key, key_size);
	ops->op[ops->count++] = (struct segue_store_op){
		.table = table,
		.remove = !value,
		.key = copy,
		.key_size = key_size,
		.value = value,
		.value_size = value_size,
	};
	return 0;

no_memory:
	free(value);
	return segue_fail(SEGUE_ENOMEM, "no memory for a transaction of %zu values", ops->count);
}

/* ---- Keys ---- */

const void *segue_stream_key(const char *name, uint8_t hash[SEGUE_STORE_KEY_MAX], size_t *size)
{
	XXH128_canonical_t sum;

	*size = strlen(name);
	if (*size < SEGUE_STORE_KEY_MAX)
		return name;
	XXH128_canonicalFromHash(&sum, XXH3_128bits(name, *size));
	hash[0] = '\0'; /* no name begins so */
	memcpy(hash + 1, sum.digest, sizeof(sum.digest));
	*size = 1 + sizeof(sum.digest);
	return hash;
}

static void lane_key(struct segue_place place, uint8_t key[LANE_KEY])
{
	key = segue_key_put32(key, place.stream);
	key = segue_key_put32(key, place.group);
	segue_key_put32(key, place.lane);
}

static void state_key(struct segue_place place, uint64_t number, uint8_t key[STATE_KEY])
{
	lane_key(place, key);
	segue_key_put64(key + LANE_KEY, number);
}

static size_t final_key(
	struct segue_place place, const char *name, uint32_t size, uint8_t key[SEGUE_STORE_KEY_MAX])
{
	XXH128_canonical_t hash;

	segue_key_put32(segue_key_put32(key, place.stream), place.group);
	XXH128_canonicalFromHash(&hash, XXH3_128bits(name, size));
	memcpy(key + 8, hash.digest, sizeof(hash.digest));
	return 8 + sizeof(hash.digest);
}

/* ---- Rows ---- */

static int add_row(struct segue_ops *ops, enum segue_table table, const uint8_t *key,
	size_t key_size, const char *name, uint32_t name_size, const uint8_t *states,
	uint64_t row_size)
{
	size_t size = sizeof(name_size) + name_size + row_size;
	uint8_t *value = malloc(size);

	if (!value)
		return segue_fail(SEGUE_ENOMEM, "no memory for the states of a row");
	memcpy(value, &name_size, sizeof(name_size));
	if (name_size)
		memcpy(value + sizeof(name_size), name, name_size);
	if (row_size)
		memcpy(value + sizeof(name_size) + name_size, states, row_size);
	if (SEGUE_MUTANT(state_left_out) && row_size > 8)
		memset(value + size - 8, 0, 8);
	return segue_ops_add(ops, table, key, key_size, value, size);
}

int segue_records_row(const void *value, size_t size, uint64_t row_size, const char **key,
	uint32_t *key_size, const uint8_t **states)
{
	const uint8_t *bytes = value;

	if (size >= sizeof(*key_size))
		memcpy(key_size, bytes, sizeof(*key_size));
	if (size < sizeof(*key_size) || size - sizeof(*key_size) < *key_size ||
		size - sizeof(*key_size) - *key_size != row_size)
		return segue_fail(SEGUE_ESTORE,
			"a row of %zu bytes is stored where the spec has states of %llu", size,
			(unsigned long long)row_size);
	*key = (const char *)bytes + sizeof(*key_size);
	*states = bytes + sizeof(*key_size) + *key_size;
	return 0;
}

/* ---- Lanes ---- */

int segue_records_lane(
	struct segue_ops *ops, struct segue_place place, const struct segue_lane_record *record)
{
	uint8_t key[LANE_KEY];
	void *value;
	size_t size;

	int rc = segue_lane_record_pack(record, &value, &size);
	if (rc)
		return rc;
	lane_key(place, key);
	return segue_ops_add(ops, SEGUE_TABLE_LANES, key, sizeof(key), value, size);
}

static int add_rows(struct segue_ops *ops, struct segue_place place,
	const struct segue_plan_spec *plan, const struct segue_image *image)
{
	uint8_t key[STATE_KEY];

	for (uint32_t row = 0; row < image->position->rows; row++) {
		const struct segue_plan_row *live = &image->position->row[row];
		if (!segue_plan_row_lives(plan, live))
			continue;
		state_key(place, live->number, key);
		int rc = add_row(ops, SEGUE_TABLE_STATES, key, sizeof(key), image->key[row].bytes,
			image->key[row].size, image->states + row * image->row_size,
			image->row_size);
		if (rc)
			return rc;
	}
	return 0;
}

int segue_records_clear(struct segue_ops *ops, struct segue_place place)
{
	uint8_t key[LANE_KEY];

	lane_key(place, key);
	int rc = segue_ops_add(ops, SEGUE_TABLE_STATES, key, sizeof(key), NULL, 0);
	if (!rc)
		ops->op[ops->count - 1].prefix = true;
	return rc;
}

static int add_drops(struct segue_ops *ops, struct segue_place place,
	const struct segue_plan_spec *plan, const struct segue_image *image,
	const struct segue_account *account)
{
	uint8_t key[STATE_KEY];

	for (uint32_t i = 0; i < account->stored_count; i++) {
		if (!segue_account_drops(plan, image->position, account->stored[i]) ||
			SEGUE_MUTANT(rows_not_dropped))
			continue;
		state_key(place, account->stored[i], key);
		int rc = segue_ops_add(ops, SEGUE_TABLE_STATES, key, sizeof(key), NULL, 0);
		if (rc)
			return rc;
	}
	return 0;
}

int segue_records_finals(struct segue_ops *ops, struct segue_place place, uint64_t row_size,
	const struct segue_kept *kept, uint64_t from, uint64_t below)
{
	uint8_t key[SEGUE_STORE_KEY_MAX];
	size_t before = ops->count;

	for (; kept; kept = kept->next) {
		if (kept->step < from || kept->step >= below)
			continue;
		size_t size = final_key(place, kept->key, kept->key_size, key);
		int rc = add_row(ops, SEGUE_TABLE_FINALS, key, size, kept->key, kept->key_size,
			kept->states, row_size);
		if (rc) {
			segue_ops_truncate(ops, before);
			return rc;
		}
	}
	return 0;
}

int segue_records_image(struct segue_ops *ops, struct segue_place place,
	const struct segue_plan_spec *plan, const struct segue_lane_record *record,
	const struct segue_image *image, const struct segue_account *account)
{
	struct segue_lane_record moved = *record;
	size_t before = ops->count;
	int rc;

	moved.position = image->position;
	if ((rc = segue_records_lane(ops, place, &moved)) ||
		(rc = add_drops(ops, place, plan, image, account)) ||
		(rc = add_rows(ops, place, plan, image)))
		segue_ops_truncate(ops, before);
	return rc;
}

int segue_records_load_lane(
	struct segue_store *store, struct segue_place place, struct segue_lane_record *record)
{
	uint8_t key[LANE_KEY];
	void *value;
	size_t size;

	lane_key(place, key);
	int rc = segue_store_get(store, SEGUE_TABLE_LANES, key, sizeof(key), &value, &size);
	if (rc)
		return rc;
	rc = segue_lane_record_unpack(value, size, record);
	free(value);
	return rc ? segue_fail_within(SEGUE_ESTORE, "record of lane %u", place.lane) : 0;
}

static int load_row(struct segue_store *store, struct segue_place place, struct segue_image *image,
	uint32_t row)
{
	uint8_t key[STATE_KEY];
	const char *name = NULL;
	const uint8_t *states = NULL;
	uint32_t name_size = 0;
	size_t size;
	void *value;

	state_key(place, image->position->row[row].number, key);
	int rc = segue_store_get(store, SEGUE_TABLE_STATES, key, sizeof(key), &value, &size);
	if (rc == SEGUE_ENOTFOUND)
		return segue_fail(SEGUE_ESTORE,
			"the states of sequence %llu of lane %u are missing",
			(unsigned long long)image->position->row[row].number, place.lane);
	if (rc)
		return rc;
	rc = segue_records_row(value, size, image->row_size, &name, &name_size, &states);
	if (!rc) {
		memcpy(image->states + row * image->row_size, states, image->row_size);
		rc = segue_image_set_key(image, row, name, name_size);
	}
	free(value);
	return rc;
}

int segue_records_load_image(struct segue_store *store, struct segue_place place,
	const struct segue_plan_spec *plan, const struct segue_position *position,
	uint64_t row_size, struct segue_image **out)
{
	struct segue_image *image = segue_image_create(plan->batch_size, position->rows, row_size);

	if (!image)
		return segue_fail(SEGUE_ENOMEM, "no memory for the states of a lane");
	memcpy(image->position, position, segue_position_size(position->rows));
	for (uint32_t row = 0; row < position->rows; row++) {
		if (!segue_plan_row_lives(plan, &position->row[row]))
			continue;
		int rc = load_row(store, place, image, row);
		if (rc) {
			segue_image_destroy(image);
			return rc;
		}
	}
	*out = image;
	return 0;
}

int segue_records_load_final(struct segue_store *store, struct segue_place place, const char *name,
	size_t name_size, void **value, size_t *size)
{
	uint8_t key[SEGUE_STORE_KEY_MAX];
	size_t key_size = final_key(place, name, (uint32_t)name_size, key);

	return segue_store_get(store, SEGUE_TABLE_FINALS, key, key_size, value, size);
}

/* ---- Tokens ---- */

int segue_token_encode(const struct segue_token_record *head, const struct segue_image *image,
	void **out, size_t *size)
{
	struct segue_token_record record = *head;
	uint64_t states = image->position->rows * image->row_size;
	const uint32_t format = TOKEN_FORMAT;
	size_t head_size;
	void *packed;

	record.position = image->position;
	record.row_size = image->row_size;
	int rc = segue_token_record_pack(&record, &packed, &head_size);
	if (rc)
		return rc;
	size_t total = TOKEN_HEAD + head_size + states + TOKEN_SUM;
	uint8_t *bytes = malloc(total), *at = bytes;
	if (!bytes) {
		free(packed);
		return segue_fail(SEGUE_ENOMEM, "no memory for a token of %zu bytes", total);
	}
	const uint64_t head_size64 = head_size;
	memcpy(at, token_magic, sizeof(token_magic));
	memcpy(at + 4, &format, sizeof(format));
	memcpy(at + 8, &head_size64, sizeof(head_size64));
	memcpy(at + TOKEN_HEAD, packed, head_size);
	memcpy(at + TOKEN_HEAD + head_size, image->states, states);
	XXH128_canonicalFromHash((XXH128_canonical_t *)(at + total - TOKEN_SUM),
		XXH3_128bits(bytes, total - TOKEN_SUM));
	free(packed);
	*out = bytes;
	*size = total;
	return 0;
}

/* Checks frame and sum; the head's bytes are bytes[TOKEN_HEAD, TOKEN_HEAD + *head_size). */
static int check_token(const uint8_t *bytes, size_t size, uint64_t *head_size)
{
	XXH128_canonical_t sum;
	uint32_t format;

	if (size < TOKEN_HEAD + TOKEN_SUM || memcmp(bytes, token_magic, sizeof(token_magic)) != 0)
		return segue_fail(SEGUE_ETOKEN,
			"%zu bytes that are no token of segue (state_dict() makes them)", size);
	memcpy(&format, bytes + 4, sizeof(format));
	memcpy(head_size, bytes + 8, sizeof(*head_size));
	if (format != TOKEN_FORMAT)
		return segue_fail(SEGUE_ETOKEN,
			"the token has format %u, this version of segue reads %u", format,
			TOKEN_FORMAT);
	XXH128_canonicalFromHash(&sum, XXH3_128bits(bytes, size - TOKEN_SUM));
	if (memcmp(&sum, bytes + size - TOKEN_SUM, TOKEN_SUM) != 0)
		return segue_fail(
			SEGUE_ETOKEN, "the token is damaged: its checksum does not fit its bytes");
	if (*head_size > size - TOKEN_HEAD - TOKEN_SUM)
		return segue_fail(SEGUE_ETOKEN, "the token is cut short");
	return 0;
}

int segue_token_decode(
	const void *bytes, size_t size, struct segue_token_record *head, struct segue_image **out)
{
	const uint8_t *at = bytes;
	struct segue_token_record record;
	uint64_t head_size = 0;

	int rc = check_token(at, size, &head_size);
	if (rc)
		return rc;
	rc = segue_token_record_unpack(at + TOKEN_HEAD, head_size, &record);
	if (rc)
		return segue_fail_within(SEGUE_ETOKEN, "the token's head");
	uint64_t states = size - TOKEN_HEAD - head_size - TOKEN_SUM, wanted;
	if (record.position->rows > record.batch_size ||
		__builtin_mul_overflow(record.row_size, record.position->rows, &wanted) ||
		wanted != states) {
		free(record.position);
		return segue_fail(SEGUE_ETOKEN, "the token's states do not fit its rows");
	}
	struct segue_image *image =
		segue_image_create(record.batch_size, record.position->rows, record.row_size);
	if (!image) {
		free(record.position);
		return segue_fail(SEGUE_ENOMEM, "no memory for a token's states");
	}
	memcpy(image->position, record.position, segue_position_size(record.position->rows));
	memcpy(image->states, at + TOKEN_HEAD + head_size, states);
	*head = record;
	*out = image;
	return 0;
}
