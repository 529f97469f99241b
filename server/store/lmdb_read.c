/* Reading: snapshots, single values, walks in order of the keys. */
#include "store/lmdb_inside.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/error.h"

/* ---- Transactions ---- */

struct reading {
	MDB_txn *txn;
	bool pinned;
};

int segue_lmdb_snapshot(const struct segue_store *store, MDB_txn **txn)
{
	int dead = 0;
	int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, txn);
	if (rc == MDB_READERS_FULL && mdb_reader_check(store->env, &dead) == 0 && dead > 0)
		rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, txn);
	return rc;
}

/*
 * A snapshot to read from; 0 or an LMDB code. Once a meta page could not be written LMDB refuses
 * even this: then it is the one from before that write, one reader at a time.
 */
static int begin_read(struct segue_store *store, struct reading *reading)
{
	while (sem_wait(&store->readers) < 0) /* EINTR */
		;
	int rc = segue_lmdb_snapshot(store, &reading->txn);
	reading->pinned = rc == MDB_PANIC;
	if (reading->pinned) {
		pthread_mutex_lock(&store->pin_lock);
		reading->txn = store->pin;
		if (reading->txn)
			return 0;
		pthread_mutex_unlock(&store->pin_lock);
	}
	if (rc)
		sem_post(&store->readers);
	return rc;
}

static void end_read(struct segue_store *store, struct reading *reading)
{
	if (reading->pinned)
		pthread_mutex_unlock(&store->pin_lock);
	else
		mdb_txn_abort(reading->txn);
	sem_post(&store->readers);
}

/* ---- Values ---- */

int segue_store_get(struct segue_store *store, enum segue_table table, const void *key,
	size_t key_size, void **value, size_t *value_size)
{
	struct reading reading;
	struct segue_lmdb_header header;
	MDB_val name = {key_size, (void *)(uintptr_t)key}, data;
	int rc = segue_lmdb_check_key(table, key, key_size);
	if (rc)
		return rc;
	rc = begin_read(store, &reading);
	if (rc)
		return segue_lmdb_advise(segue_lmdb_fail(store, rc, "read"));
	rc = segue_lmdb_get(reading.txn, store->tables[table], &name, &data);
	if (rc) {
		rc = rc == MDB_NOTFOUND ? segue_lmdb_fail_missing(table, key, key_size)
					: segue_lmdb_fail(store, rc, "read");
		goto end;
	}
	const char *why = segue_lmdb_check_value(table, key, key_size, &data, &header);
	if (why) {
		rc = segue_lmdb_fail_value(store, table, key, key_size, why);
		goto end;
	}
	void *copy = malloc(header.length ? header.length : 1);
	if (!copy) {
		rc = segue_fail(
			SEGUE_ENOMEM, "no memory for a value of %" PRIu64 " bytes", header.length);
		goto end;
	}
	memcpy(copy, (const char *)data.mv_data + sizeof(header), header.length);
	*value = copy;
	*value_size = header.length;
end:
	end_read(store, &reading);
	return segue_lmdb_advise(rc);
}

/* ---- Walks ---- */

/* Keys rise: that holds in a sound file, and ends a walk through pages that lead in a circle. */
static bool key_follows(struct segue_lmdb_walk *walk, const MDB_val *key)
{
	if (key->mv_size < 1 || key->mv_size > SEGUE_STORE_KEY_MAX)
		return false;
	size_t common = key->mv_size < walk->last_size ? key->mv_size : walk->last_size;
	int order = memcmp(key->mv_data, walk->last, common);
	if (order < 0 || (order == 0 && key->mv_size <= walk->last_size))
		return false;
	memcpy(walk->last, key->mv_data, key->mv_size);
	walk->last_size = key->mv_size;
	return true;
}

/* One entry. Sets `*ended` at the first sound key that does not begin with the prefix. */
static int walk_entry(struct segue_store *store, struct segue_lmdb_walk *walk,
	enum segue_table table, const MDB_val *prefix, MDB_val *key, const MDB_val *data,
	bool *ended)
{
	struct segue_lmdb_header header;
	/* before the prefix is compared: a damaged key must not end the walk as if all were seen */
	const char *why = segue_lmdb_check_value(table, key->mv_data, key->mv_size, data, &header);
	if (walk->examine)
		why = walk->examine(walk, table, key, data, why);
	if (why) {
		walk->damaged++;
		if (!walk->damage)
			return segue_lmdb_fail_value(store, table, key->mv_data, key->mv_size, why);
		walk->damage(walk->arg, table, key->mv_data, key->mv_size, why);
		return 0;
	}
	*ended = !segue_lmdb_has_prefix(key, prefix->mv_data, prefix->mv_size);
	return *ended ? 0
		      : walk->visit(walk, table, key, &header,
				(const char *)data->mv_data + sizeof(header));
}

int segue_lmdb_walk_table(struct segue_store *store, MDB_txn *txn, enum segue_table table,
	const MDB_val *from, size_t prefix_size, struct segue_lmdb_walk *walk)
{
	const MDB_val prefix = {prefix_size, from->mv_data};
	MDB_cursor *cursor;
	MDB_val key = *from, data;
	bool ended = false;
	walk->last_size = 0;
	int rc = mdb_cursor_open(txn, store->tables[table], &cursor);
	if (rc)
		return segue_lmdb_fail(store, rc, "read");
	int got = segue_lmdb_cursor_get(
		cursor, &key, &data, from->mv_size ? MDB_SET_RANGE : MDB_FIRST);
	while (!got) {
		if (!key_follows(walk, &key)) {
			rc = segue_lmdb_fail_damaged(store, "keys are out of order");
			break;
		}
		rc = walk_entry(store, walk, table, &prefix, &key, &data, &ended);
		if (rc || ended)
			break;
		got = segue_lmdb_cursor_get(cursor, &key, &data, MDB_NEXT);
	}
	if (got && got != MDB_NOTFOUND)
		rc = segue_lmdb_fail(store, got, "read");
	mdb_cursor_close(cursor);
	return rc;
}

/* ---- Scans ---- */

struct scan {
	struct segue_lmdb_walk walk; /* first: the walk's functions find the scan by it */
	segue_store_visit_fn *visit;
};

static int visit_value(struct segue_lmdb_walk *walk, enum segue_table table, const MDB_val *key,
	const struct segue_lmdb_header *header, const void *payload)
{
	if (segue_lmdb_is_reserved(table, false, key->mv_data, key->mv_size))
		return 0;
	return ((struct scan *)walk)
		->visit(walk->arg, key->mv_data, key->mv_size, payload, header->length);
}

static int scan(struct segue_store *store, enum segue_table table, const MDB_val *from,
	size_t prefix_size, struct scan *scan)
{
	struct reading reading;
	int rc = segue_lmdb_check_key(
		table, from->mv_size ? from->mv_data : "-", from->mv_size ? from->mv_size : 1);
	if (rc)
		return rc;
	rc = begin_read(store, &reading);
	if (rc)
		return segue_lmdb_advise(segue_lmdb_fail(store, rc, "read"));
	rc = segue_lmdb_walk_table(store, reading.txn, table, from, prefix_size, &scan->walk);
	end_read(store, &reading);
	return segue_lmdb_advise(rc);
}

int segue_store_scan(struct segue_store *store, enum segue_table table, const void *prefix,
	size_t prefix_size, segue_store_visit_fn *visit, segue_store_damage_fn *damage, void *arg)
{
	const MDB_val from = {prefix_size, (void *)(uintptr_t)prefix};
	struct scan all = {
		.walk = {.visit = visit_value, .damage = damage, .arg = arg}, .visit = visit};

	return scan(store, table, &from, prefix_size, &all);
}

int segue_store_scan_from(struct segue_store *store, enum segue_table table, const void *from,
	size_t from_size, size_t prefix_size, segue_store_visit_fn *visit, void *arg)
{
	const MDB_val key = {from_size, (void *)(uintptr_t)from};
	struct scan rest = {.walk = {.visit = visit_value, .arg = arg}, .visit = visit};

	return scan(store, table, &key, prefix_size, &rest);
}
