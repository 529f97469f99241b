/* Dropping streams. */
#include "store/drop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "lane/lease.h"
#include "source/kinds.h"
#include "store/groups.h"
#include "store/index.h"
#include "store/lanes.h"
#include "store/logs.h"

/* In META. */
#define FLOOR "streams.floor" /* -> id u32 */
/* And the id, of a group also "." and its number, as 8 hexadecimal digits -> lanes u32. */
#define NOTE "streams.drop."

enum {
	NOTE_KEY = sizeof(NOTE) - 1 + 8,
	NOTE_GROUP = NOTE_KEY + 9,
	SOME = 1024,    /* keys that a transaction removes from each table */
	KEPT_MAX = 256, /* three of each part of a mix, and a few */
};

static const enum segue_table tables[] = {SEGUE_TABLE_STATES, SEGUE_TABLE_FINALS, SEGUE_TABLE_UNDO,
	SEGUE_TABLE_CHECKPOINTS, SEGUE_TABLE_LANES};

static void note_key(const struct segue_drop *drop, char key[NOTE_GROUP + 1])
{
	if (drop->group)
		snprintf(key, NOTE_GROUP + 1, NOTE "%08x.%08x", drop->id, drop->group);
	else
		snprintf(key, NOTE_GROUP + 1, NOTE "%08x", drop->id);
}

/* What it has in each table begins so; its size. */
static size_t put_prefix(const struct segue_drop *drop, uint8_t prefix[8])
{
	segue_key_put32(segue_key_put32(prefix, drop->id), drop->group);
	return drop->group ? 8 : 4;
}

static int put_number(struct segue_ops *ops, const char *key, uint32_t number)
{
	uint8_t bytes[4];

	segue_key_put32(bytes, number);
	return segue_ops_put_copy(ops, SEGUE_TABLE_META, key, strlen(key), bytes, sizeof(bytes));
}

static int take_number(const char *key, const void *value, size_t size, uint32_t *out)
{
	if (size != 4)
		return segue_fail(SEGUE_ESTORE,
			"the store's value '%s' has %zu bytes, not 4: 'segue verify' says whether "
			"it is damaged",
			key, size);
	*out = segue_key_get32(value);
	return 0;
}

int segue_drop_load_floor(struct segue_store *store, uint32_t *floor)
{
	void *value;
	size_t size;

	int rc = segue_store_get(store, SEGUE_TABLE_META, FLOOR, strlen(FLOOR), &value, &size);
	if (rc == SEGUE_ENOTFOUND) {
		*floor = 0;
		return 0;
	}
	if (rc)
		return rc;
	rc = take_number(FLOOR, value, size, floor);
	free(value);
	return rc;
}

/* ---- Whether it may go ---- */

const char *segue_drop_what(const char *stream, const char *group, char text[SEGUE_DROP_TEXT])
{
	if (group && *group)
		snprintf(text, SEGUE_DROP_TEXT, "group '%s' of stream '%s'", group, stream);
	else
		snprintf(text, SEGUE_DROP_TEXT, "stream '%s'", stream);
	return text;
}

int segue_drop_fail_unnamed(void)
{
	return segue_fail(SEGUE_EINVAL,
		"the group without a name is every stream's, and goes with it: drop the stream, or "
		"name another group");
}

int segue_drop_fail_held(const char *what, uint32_t lane, bool reserved, int64_t pid)
{
	return segue_fail(SEGUE_EBUSY,
		"%s cannot be dropped: lane %u of it is %s by process %ld; end that "
		"process, or close its loader",
		what, lane, reserved ? "reserved, since the server was lost," : "held", (long)pid);
}

struct look {
	const char *what;
	const struct segue_holder *asking;
};

static int look_at_lane(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	const struct look *look = arg;
	struct segue_lane_record record;

	int rc = segue_lane_record_unpack(value, value_size, &record);
	if (rc)
		return segue_as_damage(rc, 0); /* damaged: nobody can have it */
	free(record.position);
	if (key_size != SEGUE_KEY_LANE || !segue_lanes_may_be_held(&record) ||
		segue_holder_same(&record.holder, look->asking))
		return 0;
	uint32_t lane = segue_key_get32((const uint8_t *)key + 8);
	return segue_drop_fail_held(look->what, lane, true, record.holder.pid);
}

/* What is damaged may go. */
static void pass_over(
	void *arg, enum segue_table table, const void *key, size_t key_size, const char *why)
{
	(void)arg, (void)table, (void)key, (void)key_size, (void)why;
}

static int look_at_lanes(struct segue_store *store, const struct segue_drop *drop, const char *what,
	const struct segue_holder *asking)
{
	struct look look = {what, asking};
	uint8_t prefix[8];

	return segue_store_scan(store, SEGUE_TABLE_LANES, prefix, put_prefix(drop, prefix),
		look_at_lane, pass_over, &look);
}

/* ---- The index of its data set ---- */

/* What it has kept, and whether another stream has kept the same. */
struct kept {
	const struct segue_stream_record *of;
	struct segue_index_keeper keeper; /* of the store */
	struct {
		char name[SEGUE_STORE_KEY_MAX];
		bool shared;
	} entry[KEPT_MAX];
	size_t count;
	bool unsure; /* a stream's record cannot be read: what it has kept is not known */
};

static int add_kept(void *arg, const char *name)
{
	struct kept *kept = arg;

	if (kept->count < KEPT_MAX)
		snprintf(kept->entry[kept->count++].name, SEGUE_STORE_KEY_MAX, "%s", name);
	return 0;
}

static int strike_out(void *arg, const char *name)
{
	struct kept *kept = arg;

	for (size_t i = 0; i < kept->count; i++)
		kept->entry[i].shared |= strcmp(kept->entry[i].name, name) == 0;
	return 0;
}

static int visit_names(const struct segue_stream_record *record,
	int (*visit)(void *arg, const char *name), struct kept *kept)
{
	return segue_source_driver(record->spec)
		->visit_kept(record->spec, record->fingerprint, &kept->keeper, visit, kept);
}

static int look_at_stream(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct kept *kept = arg;
	struct segue_stream_record record;

	(void)key, (void)key_size;
	int rc = segue_stream_record_unpack(value, value_size, &record);
	kept->unsure |= rc != 0;
	if (rc)
		return segue_as_damage(rc, 0);
	rc = record.id == kept->of->id ? 0 : visit_names(&record, strike_out, kept);
	segue_spec_destroy(record.spec);
	return rc;
}

static void note_damage(
	void *arg, enum segue_table table, const void *key, size_t key_size, const char *why)
{
	(void)table, (void)key, (void)key_size, (void)why;
	((struct kept *)arg)->unsure = true;
}

static int load_kept(void *arg, const char *name, void **bytes, size_t *size)
{
	return segue_store_index_load(arg, name, bytes, size);
}

static int remove_index(
	struct segue_ops *ops, struct segue_store *store, const struct segue_stream_record *record)
{
	struct kept *kept = calloc(1, sizeof(*kept));

	if (!kept)
		return segue_fail(SEGUE_ENOMEM, "no memory to drop a stream");
	kept->of = record;
	kept->keeper = (struct segue_index_keeper){.arg = store, .load = load_kept};
	int rc = visit_names(record, add_kept, kept);
	if (!rc)
		rc = segue_store_scan(
			store, SEGUE_TABLE_STREAMS, "", 0, look_at_stream, note_damage, kept);
	for (size_t i = 0; !rc && !kept->unsure && i < kept->count; i++) {
		if (!kept->entry[i].shared)
			rc = segue_store_index_remove(ops, kept->entry[i].name);
	}
	free(kept);
	return rc;
}

/* ---- The first transaction ---- */

static int add_begin(struct segue_ops *ops, struct segue_store *store, const char *name,
	const struct segue_stream_record *record)
{
	uint8_t hash[SEGUE_STORE_KEY_MAX];
	const struct segue_drop drop = {.id = record->id};
	char note[NOTE_GROUP + 1];
	uint32_t floor;
	size_t key_size;
	const void *key = segue_key_stream(name, hash, &key_size);

	note_key(&drop, note);
	int rc = segue_drop_load_floor(store, &floor);
	if (!rc)
		rc = segue_ops_remove(ops, SEGUE_TABLE_STREAMS, key, key_size);
	if (!rc)
		rc = put_number(ops, note, record->spec->lanes);
	if (!rc && record->id >= floor)
		rc = put_number(ops, FLOOR, record->id + 1);
	return rc ? rc : remove_index(ops, store, record);
}

int segue_drop_begin(struct segue_ops *ops, struct segue_store *store, const char *name,
	const struct segue_holder *asking, struct segue_drop *out)
{
	struct segue_stream_record record;
	char what[SEGUE_DROP_TEXT];
	size_t before = ops->count;

	if (!*name)
		return segue_fail(SEGUE_EINVAL, "no stream is named");
	int rc = segue_lanes_load_stream(store, name, &record);
	if (rc)
		return rc;
	*out = (struct segue_drop){.id = record.id, .lanes = record.spec->lanes};
	if (asking)
		rc = look_at_lanes(store, out, segue_drop_what(name, NULL, what), asking);
	if (!rc)
		rc = add_begin(ops, store, name, &record);
	segue_spec_destroy(record.spec);
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

int segue_drop_begin_group(struct segue_ops *ops, struct segue_store *store, const char *name,
	const char *group, const struct segue_holder *asking, struct segue_drop *out)
{
	struct segue_stream_record record;
	char note[NOTE_GROUP + 1], what[SEGUE_DROP_TEXT];
	size_t before = ops->count;

	if (!*group)
		return segue_drop_fail_unnamed();
	int rc = segue_lanes_load_stream(store, name, &record);
	if (rc)
		return rc;
	*out = (struct segue_drop){.id = record.id, .lanes = record.spec->lanes};
	segue_spec_destroy(record.spec);
	rc = segue_groups_number(store, out->id, name, group, &out->group);
	if (!rc && asking)
		rc = look_at_lanes(store, out, segue_drop_what(name, group, what), asking);
	if (!rc)
		rc = segue_groups_remove_one(ops, out->id, out->group);
	note_key(out, note);
	if (!rc)
		rc = put_number(ops, note, out->lanes);
	if (rc)
		segue_ops_truncate(ops, before);
	return rc;
}

/* ---- The rest ---- */

enum { ENOUGH = 1 };

struct first {
	bool some;
	uint32_t lane;
};

static int take_first(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	struct first *first = arg;

	(void)value, (void)value_size;
	first->some = true;
	if (key_size >= SEGUE_KEY_LANE)
		first->lane = segue_key_get32((const uint8_t *)key + 8);
	return ENOUGH;
}

static void take_damaged(
	void *arg, enum segue_table table, const void *key, size_t key_size, const char *why)
{
	(void)table, (void)key, (void)key_size, (void)why;
	((struct first *)arg)->some = true;
}

/* Which tables have something under the id; *lane is the lowest lane that has. */
static int look_what_is_left(struct segue_store *store, const uint8_t *prefix, size_t size,
	bool left[], bool *some, uint32_t *lane)
{
	*some = false;
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		struct first first = {.lane = UINT32_MAX};
		int rc = segue_store_scan(
			store, tables[i], prefix, size, take_first, take_damaged, &first);
		if (rc && rc != ENOUGH)
			return rc;
		left[i] = first.some;
		*some |= first.some;
		*lane = first.lane < *lane ? first.lane : *lane;
	}
	return 0;
}

/* One transaction; *done: it took the note. */
static int drop_some(struct segue_store *store, const struct segue_drop *drop,
	const struct segue_dropping *how, bool *done)
{
	bool left[sizeof(tables) / sizeof(tables[0])], some;
	struct segue_ops ops = {0};
	char note[NOTE_GROUP + 1];
	uint32_t lane = drop->lanes;
	uint8_t prefix[8];
	size_t size = put_prefix(drop, prefix);

	int rc = look_what_is_left(store, prefix, size, left, &some, &lane);
	if (!rc && how->progress)
		how->progress(how->arg, "drop", lane, drop->lanes);
	for (size_t i = 0; !rc && i < sizeof(tables) / sizeof(tables[0]); i++) {
		if (left[i])
			rc = segue_ops_remove_some(&ops, tables[i], prefix, size, SOME);
	}
	bool ends = !rc && !some, whole = ends && !drop->group;
	note_key(drop, note);
	if (whole && how->forget)
		how->forget(how->arg, drop->id);
	if (whole)
		rc = segue_logs_remove(&ops, drop->id);
	if (!rc && whole)
		rc = segue_groups_remove(&ops, drop->id);
	if (!rc && ends)
		rc = segue_ops_remove(&ops, SEGUE_TABLE_META, note, strlen(note));
	if (!rc)
		rc = how->apply(how->arg, &ops);
	segue_ops_finish(&ops);
	*done = !rc && !some;
	return rc;
}

int segue_drop_rest(
	struct segue_store *store, const struct segue_drop *drop, const struct segue_dropping *how)
{
	bool done = false;
	int rc = 0;

	while (!rc && !done) {
		if (how->interrupt && how->interrupt(how->arg))
			return segue_fail(SEGUE_EGONE,
				"the server is being stopped: the next one goes on with what is "
				"being dropped");
		rc = drop_some(store, drop, how, &done);
	}
	return rc;
}

static int take_note(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size)
{
	char text[9] = "", group[9] = "", again[NOTE_GROUP + 1];
	struct segue_drop *drop = arg;

	if (key_size == NOTE_KEY || key_size == NOTE_GROUP)
		memcpy(text, (const char *)key + sizeof(NOTE) - 1, 8);
	if (key_size == NOTE_GROUP)
		memcpy(group, (const char *)key + NOTE_KEY + 1, 8);
	drop->id = (uint32_t)strtoul(text, NULL, 16);
	drop->group = (uint32_t)strtoul(group, NULL, 16);
	note_key(drop, again); /* by which it is removed: a number has other forms, too */
	if (key_size != strlen(again) || memcmp(key, again, key_size) != 0)
		return segue_fail(SEGUE_ESTORE, "what the store notes of streams that are being "
						"dropped is wrong: restore a backup");
	int rc = take_number(NOTE, value, value_size, &drop->lanes);
	return rc ? rc : ENOUGH;
}

int segue_drop_resume(struct segue_store *store, const struct segue_dropping *how)
{
	for (;;) {
		struct segue_drop drop;
		int rc = segue_store_scan(
			store, SEGUE_TABLE_META, NOTE, sizeof(NOTE) - 1, take_note, NULL, &drop);
		if (rc == ENOUGH)
			rc = segue_drop_rest(store, &drop, how);
		else
			return rc;
		if (rc)
			return rc;
	}
}
