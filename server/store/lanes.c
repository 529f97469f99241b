/* Records of the store and tokens: their keys and bytes. */
#include "store/lanes.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/barrier.h"
#include "core/error.h"
#include "store/key.h"

enum {
	TOKEN_FORMAT = 1,
	TOKEN_HEAD = 16,
	TOKEN_SUM = 16,
	TOKEN_ROW = 4 * 10, /* what the position says of a row, at most */
	TOKEN_REST = 4096,  /* more than all that is neither of a row nor its states */
	LANE_KEY = 12,
	STATE_KEY = LANE_KEY + 8,
	HASH = 16,
	VERSIONS_KEY = LANE_KEY + HASH, /* all versions of one record in one lane */
	FINAL_KEY = VERSIONS_KEY + 8,
	UNDO_KEY = LANE_KEY + 16,
	CHECKPOINT_KEY = LANE_KEY + 8,
};

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

/* Adds the removal of a key; or of a range, see struct segue_store_op. */
static int add_remove(
	struct segue_ops *ops, enum segue_table table, const void *key, size_t size, size_t shared)
{
	int rc = segue_ops_add(ops, table, key, size, NULL, 0);

	if (!rc)
		ops->op[ops->count - 1].shared = shared;
	return rc;
}

static int add_remove_prefix(
	struct segue_ops *ops, enum segue_table table, const void *prefix, size_t size)
{
	int rc = segue_ops_add(ops, table, prefix, size, NULL, 0);

	if (!rc)
		ops->op[ops->count - 1].prefix = true;
	return rc;
}

static int add_copy(struct segue_ops *ops, enum segue_table table, const void *key, size_t key_size,
	const void *bytes, size_t size)
{
	void *value = malloc(size ? size : 1);

	if (!value)
		return segue_fail(SEGUE_ENOMEM, "no memory for a value of %zu bytes", size);
	memcpy(value, bytes, size);
	return segue_ops_add(ops, table, key, key_size, value, size);
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

static void hash_key(const char *name, size_t size, uint8_t hash[HASH])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits(name, size));
	memcpy(hash, canonical.digest, HASH);
}

static void final_key(
	struct segue_place place, const uint8_t hash[HASH], uint64_t number, uint8_t key[FINAL_KEY])
{
	lane_key(place, key);
	memcpy(key + LANE_KEY, hash, HASH);
	segue_key_put64(key + VERSIONS_KEY, number);
}

static void undo_key(
	struct segue_place place, uint64_t step, uint64_t number, uint8_t key[UNDO_KEY])
{
	lane_key(place, key);
	segue_key_put64(segue_key_put64(key + LANE_KEY, step), number);
}

static void checkpoint_key(struct segue_place place, uint64_t id, uint8_t key[CHECKPOINT_KEY])
{
	lane_key(place, key);
	segue_key_put64(key + LANE_KEY, id);
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
	return add_remove_prefix(ops, SEGUE_TABLE_STATES, key, sizeof(key));
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
	return rc ? segue_fail_within(
			    segue_unless_memory(rc, SEGUE_ESTORE), "record of lane %u", place.lane)
		  : 0;
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

int segue_records_outline(const struct segue_plan_spec *plan, const struct segue_position *position,
	uint64_t row_size, struct segue_image **out)
{
	if (position->rows > plan->batch_size)
		return segue_fail(SEGUE_ESTORE,
			"the position of lane %u has %u rows, a batch of the stream %u", plan->lane,
			position->rows, plan->batch_size);
	struct segue_image *image = segue_image_create(plan->batch_size, position->rows, row_size);
	if (!image)
		return segue_fail(SEGUE_ENOMEM, "no memory for the states of a lane");
	memcpy(image->position, position, segue_position_size(position->rows));
	*out = image;
	return 0;
}

int segue_records_load_image(struct segue_store *store, struct segue_place place,
	const struct segue_plan_spec *plan, const struct segue_position *position,
	uint64_t row_size, struct segue_image **out)
{
	struct segue_image *image;

	int outlined = segue_records_outline(plan, position, row_size, &image);
	if (outlined)
		return outlined;
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

int segue_records_find_stream(struct segue_store *store, const char *name, uint32_t *id)
{
	uint8_t hash[SEGUE_STORE_KEY_MAX];
	struct segue_stream_record record;
	size_t key_size, size;
	void *value;

	if (!*name)
		return segue_fail(SEGUE_ENOTFOUND, "no stream is named");
	const void *key = segue_stream_key(name, hash, &key_size);
	int rc = segue_store_get(store, SEGUE_TABLE_STREAMS, key, key_size, &value, &size);
	if (rc == SEGUE_ENOTFOUND)
		return segue_fail(SEGUE_ENOTFOUND, "the store has no stream '%s'", name);
	if (rc)
		return rc;
	rc = segue_stream_record_unpack(value, size, &record);
	free(value);
	if (rc)
		return segue_fail_within(
			segue_unless_memory(rc, SEGUE_ESTORE), "the record of stream '%s'", name);
	*id = record.id;
	segue_spec_destroy(record.spec);
	return 0;
}

/* ---- Final states ---- */

int segue_records_finals(struct segue_ops *ops, struct segue_place place, uint64_t row_size,
	const struct segue_kept *kept, uint64_t from, uint64_t below)
{
	uint8_t hash[HASH], key[FINAL_KEY], undo[UNDO_KEY];
	size_t before = ops->count;
	int rc = 0;

	for (; kept && !rc; kept = kept->next) {
		if (kept->step < from || kept->step >= below)
			continue;
		hash_key(kept->key, kept->key_size, hash);
		final_key(place, hash, kept->number, key);
		undo_key(place, kept->step, kept->number, undo);
		rc = add_row(ops, SEGUE_TABLE_FINALS, key, sizeof(key), kept->key, kept->key_size,
			kept->states, row_size);
		if (!rc)
			rc = add_copy(ops, SEGUE_TABLE_UNDO, undo, sizeof(undo), hash, HASH);
	}
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

/* A walk over the undo entries of a lane. */
struct undoing {
	struct segue_ops *ops;
	struct segue_place place;
	uint32_t lanes;
	uint64_t floor; /* entries below this step: their versions stay */
	size_t left;
	int (*each)(struct undoing *undoing, uint64_t step, uint64_t number, const uint8_t *hash);
};

enum { ENOUGH = 1 };

static int visit_undo(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct undoing *undoing = arg;
	const uint8_t *at = key;

	if (key_size != UNDO_KEY || value_size != HASH)
		return segue_fail(
			SEGUE_ESTORE, "an undo entry of %zu and %zu bytes", key_size, value_size);
	uint64_t step = segue_key_get64(at + LANE_KEY), number = segue_key_get64(at + LANE_KEY + 8);
	int rc = undoing->each(undoing, step, number, value);
	return rc ? rc : add_remove(undoing->ops, SEGUE_TABLE_UNDO, key, key_size, 0);
}

/* Takes all entries from `step` on; all their operations, or none. */
static int walk_undo(struct undoing *undoing, struct segue_store *store, uint64_t step)
{
	size_t before = undoing->ops->count;
	uint8_t from[UNDO_KEY];

	undo_key(undoing->place, step, 0, from);
	int rc = segue_store_scan_from(
		store, SEGUE_TABLE_UNDO, from, sizeof(from), LANE_KEY, visit_undo, undoing);
	if (rc == ENOUGH)
		return 0;
	if (rc)
		segue_ops_truncate(undoing->ops, before);
	return rc;
}

static int settle_version(
	struct undoing *undoing, uint64_t step, uint64_t number, const uint8_t *hash)
{
	struct segue_place place = undoing->place;
	uint8_t key[FINAL_KEY];
	int rc = 0;

	if (step >= undoing->floor || undoing->left-- == 0)
		return ENOUGH;
	for (place.lane = 0; place.lane < undoing->lanes && !rc; place.lane++) {
		final_key(place, hash, number, key);
		rc = add_remove(undoing->ops, SEGUE_TABLE_FINALS, key, sizeof(key), VERSIONS_KEY);
	}
	return rc;
}

int segue_records_settle(struct segue_ops *ops, struct segue_store *store, struct segue_place place,
	uint32_t lanes, uint64_t below, size_t limit)
{
	struct undoing undoing = {.ops = ops,
		.place = place,
		.lanes = lanes,
		.floor = below,
		.left = limit,
		.each = settle_version};

	return walk_undo(&undoing, store, 0);
}

static int undo_version(
	struct undoing *undoing, uint64_t step, uint64_t number, const uint8_t *hash)
{
	uint8_t key[FINAL_KEY];

	if (step < undoing->floor)
		return 0;
	final_key(undoing->place, hash, number, key);
	return add_remove(undoing->ops, SEGUE_TABLE_FINALS, key, sizeof(key), 0);
}

/*
 * Going back behind the oldest checkpoint takes all entries, so that none is left of versions that
 * stay: how far they were settled by chance must not show.
 */
static int undo_finals(struct segue_ops *ops, struct segue_store *store, struct segue_place place,
	uint64_t step, uint64_t floor)
{
	struct undoing undoing = {.ops = ops, .place = place, .floor = floor, .each = undo_version};

	return walk_undo(&undoing, store, step < floor ? 0 : step);
}

struct newest {
	uint32_t lane;
	uint64_t number;
	void *value; /* NULL: none yet */
	size_t size;
};

static int visit_version(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct newest *newest = arg;

	if (key_size != FINAL_KEY)
		return segue_fail(SEGUE_ESTORE, "the final states of a row have a key of %zu bytes",
			key_size);
	uint64_t number = segue_key_get64((const uint8_t *)key + VERSIONS_KEY);
	if (newest->value && number <= newest->number)
		return 0;
	void *copy = malloc(value_size ? value_size : 1);
	if (!copy)
		return segue_fail(SEGUE_ENOMEM, "no memory for the states of a row");
	memcpy(copy, value, value_size);
	free(newest->value);
	*newest = (struct newest){
		segue_key_get32((const uint8_t *)key + 8), number, copy, value_size};
	return 0;
}

int segue_records_load_final(struct segue_store *store, struct segue_place *place, uint32_t lanes,
	const char *name, size_t name_size, uint64_t *number, void **value, size_t *size)
{
	struct segue_place here = *place;
	struct newest newest = {0};
	uint8_t hash[HASH], key[FINAL_KEY];

	hash_key(name, name_size, hash);
	for (here.lane = 0; here.lane < lanes; here.lane++) {
		final_key(here, hash, 0, key);
		int rc = segue_store_scan(
			store, SEGUE_TABLE_FINALS, key, VERSIONS_KEY, visit_version, NULL, &newest);
		if (rc) {
			free(newest.value);
			return rc;
		}
	}
	if (!newest.value)
		return segue_fail(SEGUE_ENOTFOUND, "no final states are kept under that key");
	place->lane = newest.lane;
	*number = newest.number;
	*value = newest.value;
	*size = newest.size;
	return 0;
}

/* ---- Stored checkpoints ---- */

int segue_records_load_catalogue(
	struct segue_store *store, struct segue_place place, struct segue_catalogue *out)
{
	uint8_t key[LANE_KEY];
	void *value;
	size_t size;

	lane_key(place, key);
	int rc = segue_store_get(store, SEGUE_TABLE_CHECKPOINTS, key, sizeof(key), &value, &size);
	if (rc == SEGUE_ENOTFOUND) {
		*out = (struct segue_catalogue){.next_id = 1};
		return 0;
	}
	if (rc)
		return rc;
	rc = segue_catalogue_unpack(value, size, out);
	free(value);
	return rc ? segue_fail_within(segue_unless_memory(rc, SEGUE_ESTORE), "lane %u", place.lane)
		  : 0;
}

uint64_t segue_catalogue_floor(const struct segue_catalogue *catalogue)
{
	return catalogue->count ? catalogue->entry[0].step : SEGUE_NEVER;
}

static int put_catalogue(
	struct segue_ops *ops, struct segue_place place, const struct segue_catalogue *catalogue)
{
	uint8_t key[LANE_KEY];
	void *value;
	size_t size;

	int rc = segue_catalogue_pack(catalogue, &value, &size);
	if (rc)
		return rc;
	lane_key(place, key);
	return segue_ops_add(ops, SEGUE_TABLE_CHECKPOINTS, key, sizeof(key), value, size);
}

/* Strikes entry `i` off, and removes its token. */
static int drop_entry(struct segue_ops *ops, struct segue_place place,
	struct segue_catalogue *catalogue, uint32_t i)
{
	struct segue_catalogue_entry *entry = &catalogue->entry[i];
	uint8_t key[CHECKPOINT_KEY];

	checkpoint_key(place, entry->id, key);
	memmove(entry, entry + 1, (catalogue->count - i - 1) * sizeof(*entry));
	catalogue->count--;
	return add_remove(ops, SEGUE_TABLE_CHECKPOINTS, key, sizeof(key), 0);
}

/* The one that was stored first: not that of the least step, where lanes were asked out of order. */
static uint32_t oldest_entry(const struct segue_catalogue *catalogue)
{
	uint32_t oldest = 0;

	for (uint32_t i = 1; i < catalogue->count; i++) {
		if (catalogue->entry[i].id < catalogue->entry[oldest].id)
			oldest = i;
	}
	return oldest;
}

/* Whether the entry's token is these bytes. One that cannot be read is not. */
static bool is_token(struct segue_store *store, struct segue_place place,
	const struct segue_catalogue_entry *entry, const void *token, size_t size)
{
	size_t stored_size;
	void *stored;

	if (entry->size != size ||
		segue_records_load_checkpoint(store, place, entry->id, &stored, &stored_size))
		return false;
	bool same = stored_size == size && memcmp(stored, token, size) == 0;
	free(stored);
	return same;
}

static int add_entry(struct segue_ops *ops, struct segue_place place,
	struct segue_catalogue *catalogue, uint32_t at, const struct segue_catalogue_entry *new,
	const void *token)
{
	struct segue_catalogue_entry *entry = &catalogue->entry[at];
	uint8_t key[CHECKPOINT_KEY];

	checkpoint_key(place, new->id, key);
	memmove(entry + 1, entry, (catalogue->count - at) * sizeof(*entry));
	*entry = *new;
	catalogue->count++;
	int rc =
		add_copy(ops, SEGUE_TABLE_CHECKPOINTS, key, sizeof(key), token, (size_t) new->size);
	return rc ? rc : put_catalogue(ops, place, catalogue);
}

int segue_records_add_checkpoint(struct segue_ops *ops, struct segue_store *store,
	struct segue_place place, uint64_t step, int64_t created_ms, const void *token, size_t size,
	uint32_t keep)
{
	struct segue_catalogue catalogue;
	size_t before = ops->count;
	uint32_t at = 0;

	int rc = segue_records_load_catalogue(store, place, &catalogue);
	if (rc)
		return rc;
	while (at < catalogue.count && catalogue.entry[at].step < step)
		at++;
	if (at < catalogue.count && catalogue.entry[at].step == step) {
		if (is_token(store, place, &catalogue.entry[at], token, size))
			return 0;
		rc = drop_entry(ops, place, &catalogue, at);
	}
	while (!rc && catalogue.count >= keep) {
		uint32_t oldest = oldest_entry(&catalogue);
		at -= oldest < at;
		rc = drop_entry(ops, place, &catalogue, oldest);
	}
	const struct segue_catalogue_entry new = {catalogue.next_id++, step, size, created_ms};
	if (!rc)
		rc = add_entry(ops, place, &catalogue, at, &new, token);
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

int segue_records_remove_checkpoint(
	struct segue_ops *ops, struct segue_store *store, struct segue_place place, uint64_t id)
{
	struct segue_catalogue catalogue;
	size_t before = ops->count;
	bool found = id == 0;

	int rc = segue_records_load_catalogue(store, place, &catalogue);
	for (uint32_t i = catalogue.count; !rc && i-- > 0;) {
		if (id != 0 && catalogue.entry[i].id != id)
			continue;
		found = true;
		rc = drop_entry(ops, place, &catalogue, i);
	}
	if (!rc && !found)
		rc = segue_fail(SEGUE_ENOTFOUND, "lane %u has no checkpoint %llu", place.lane,
			(unsigned long long)id);
	if (!rc && ops->count > before)
		rc = put_catalogue(ops, place, &catalogue);
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

int segue_records_load_checkpoint(struct segue_store *store, struct segue_place place, uint64_t id,
	void **token, size_t *size)
{
	uint8_t key[CHECKPOINT_KEY];

	checkpoint_key(place, id, key);
	int rc = segue_store_get(store, SEGUE_TABLE_CHECKPOINTS, key, sizeof(key), token, size);
	return rc == SEGUE_ENOTFOUND ? segue_fail(SEGUE_ENOTFOUND, "lane %u has no checkpoint %llu",
					       place.lane, (unsigned long long)id)
				     : rc;
}

int segue_records_rewind(
	struct segue_ops *ops, struct segue_store *store, struct segue_place place, uint64_t step)
{
	struct segue_catalogue catalogue;
	size_t before = ops->count;

	int rc = segue_records_load_catalogue(store, place, &catalogue);
	if (rc)
		return rc;
	rc = undo_finals(ops, store, place, step, segue_catalogue_floor(&catalogue));
	uint32_t stored = catalogue.count;
	while (!rc && catalogue.count > 0 && catalogue.entry[catalogue.count - 1].step > step)
		rc = drop_entry(ops, place, &catalogue, catalogue.count - 1);
	if (!rc && catalogue.count < stored)
		rc = put_catalogue(ops, place, &catalogue);
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

int segue_records_fresh(struct segue_ops *ops, struct segue_store *store, struct segue_place place)
{
	static const enum segue_table tables[] = {
		SEGUE_TABLE_STATES, SEGUE_TABLE_FINALS, SEGUE_TABLE_UNDO, SEGUE_TABLE_CHECKPOINTS};
	struct segue_catalogue catalogue;
	size_t before = ops->count;
	uint8_t key[LANE_KEY];

	int rc = segue_records_load_catalogue(store, place, &catalogue);
	lane_key(place, key);
	for (size_t i = 0; !rc && i < sizeof(tables) / sizeof(tables[0]); i++)
		rc = add_remove_prefix(ops, tables[i], key, sizeof(key));
	if (!rc && catalogue.next_id > 1) {
		catalogue.count = 0;
		rc = put_catalogue(ops, place, &catalogue);
	}
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
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

uint64_t segue_token_max(const struct segue_spec *spec)
{
	return spec->batch_size * (segue_row_size(spec) + TOKEN_ROW) + TOKEN_REST;
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
		return segue_fail_within(segue_unless_memory(rc, SEGUE_ETOKEN), "the token's head");
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
