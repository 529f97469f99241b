/* Verifying: every value of a store against its seal, its key and the tally. */
#include "store/lmdb_inside.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/progress.h"

#define FREE_LIST 0 /* LMDB's own table of pages that are free */

struct verifying {
	struct segue_lmdb_walk walk; /* first: the walk's functions find the rest by it */
	struct segue_store *store;
	MDB_txn *txn;
	const struct segue_store_inspection *inspection;
	struct segue_progress progress;
	int stopped;         /* what the visitor said; or a want of memory, ... */
	uint8_t *free_pages; /* owned: a bit for each of `pages`; none of these may be in use */
	uint64_t pages;
	uint64_t overlaps;      /* entries that lie on such pages */
	uint64_t values, bytes; /* that are sound */
	uint64_t counted, sums; /* of the table: how many the tally counts, and of their seals */
};

/* ---- One entry ---- */

static bool is_free(const struct verifying *verifying, uint64_t page)
{
	return page >= verifying->pages || (verifying->free_pages[page / 8] >> page % 8 & 1);
}

/*
 * True if a page that holds the bytes is listed as free: the next write would go over it. LMDB's
 * pages begin with their number and are aligned; those of a large value lie side by side.
 */
static bool lies_on_free_page(const struct verifying *verifying, const void *at, size_t size)
{
	uintptr_t unit = (uintptr_t)sysconf(_SC_PAGESIZE), offset = (uintptr_t)at % unit;
	uint64_t first;

	memcpy(&first, (const char *)at - offset, sizeof(first));
	for (uint64_t i = 0; i <= (offset + size - 1) / unit; i++)
		if (is_free(verifying, first + i))
			return true;
	return false;
}

/* Damage further up the tree can hide a key from a look-up that a walk along the leaves meets. */
static const char *examine(struct segue_lmdb_walk *walk, enum segue_table table, MDB_val *key,
	const MDB_val *data, const char *why)
{
	struct verifying *verifying = (struct verifying *)walk;
	MDB_val found;

	if (lies_on_free_page(verifying, key->mv_data, key->mv_size) ||
		lies_on_free_page(verifying, data->mv_data, data->mv_size))
		verifying->overlaps++;
	if (why)
		return why;
	int rc = segue_lmdb_get(verifying->txn, verifying->store->tables[table], key, &found);
	return rc || found.mv_data != data->mv_data ? "it is not found under its key" : NULL;
}

static int visit_value(struct segue_lmdb_walk *walk, enum segue_table table, const MDB_val *key,
	const struct segue_lmdb_header *header, const void *payload)
{
	struct verifying *verifying = (struct verifying *)walk;
	const struct segue_store_inspection *inspection = verifying->inspection;

	verifying->values++;
	verifying->bytes += header->length;
	if (segue_lmdb_is_reserved(table, false, key->mv_data, key->mv_size))
		return 0;
	verifying->counted++;
	verifying->sums += header->sum;
	segue_progress_add(&verifying->progress, header->length + sizeof(*header) + key->mv_size);
	if (inspection->visit)
		verifying->stopped = inspection->visit(inspection->arg, table, key->mv_data,
			key->mv_size, payload, header->length);
	return verifying->stopped;
}

/* ---- The list of free pages ---- */

static void table_damage(struct verifying *verifying, enum segue_table table, const char *why)
{
	verifying->walk.damaged++;
	verifying->walk.damage(verifying->walk.arg, table, NULL, 0, why);
}

/* Takes a piece of LMDB's list of free pages: a count, and so many numbers. False: it is none. */
static bool take_free_pages(struct verifying *verifying, const MDB_val *data)
{
	uint64_t count, page;

	if (data->mv_size < sizeof(count))
		return false;
	memcpy(&count, data->mv_data, sizeof(count));
	if (count > data->mv_size / sizeof(page) - 1)
		return false;
	for (uint64_t i = 1; i <= count; i++) {
		memcpy(&page, (const char *)data->mv_data + i * sizeof(page), sizeof(page));
		if (page < 2 || is_free(verifying, page)) /* or it is there twice */
			return false;
		verifying->free_pages[page / 8] |= (uint8_t)(1u << page % 8);
	}
	return true;
}

/* It has no checksum; one of the past would let the next write go over pages that are in use. */
static int read_free_pages(struct verifying *verifying)
{
	const struct segue_store *store = verifying->store;
	MDB_envinfo info;
	MDB_cursor *cursor;
	MDB_val key, data;
	bool sound = true;
	int got = 0;

	mdb_env_info(store->env, &info);
	verifying->pages = info.me_last_pgno + 1;
	verifying->free_pages = calloc(verifying->pages / 8 + 1, 1);
	if (!verifying->free_pages)
		return segue_fail(SEGUE_ENOMEM, "no memory to verify %s", store->file);
	int rc = mdb_cursor_open(verifying->txn, FREE_LIST, &cursor);
	if (rc)
		return segue_lmdb_fail(store, rc, "read");
	while (sound && (got = segue_lmdb_cursor_get(cursor, &key, &data, MDB_NEXT)) == 0)
		sound = take_free_pages(verifying, &data);
	mdb_cursor_close(cursor);
	if (!sound || got != MDB_NOTFOUND)
		table_damage(verifying, SEGUE_TABLE_META, "the list of free pages is wrong");
	return 0;
}

/* ---- All tables ---- */

/* One table against its tally. Damage is counted in the walk; what else went wrong stops it. */
static void verify_table(
	struct verifying *verifying, enum segue_table table, const struct segue_lmdb_tally *tally)
{
	MDB_val all = {0, NULL};
	uint64_t before = verifying->walk.damaged;

	verifying->counted = 0;
	verifying->sums = 0;
	int rc = segue_lmdb_walk_table(
		verifying->store, verifying->txn, table, &all, 0, &verifying->walk);
	if (rc && rc != SEGUE_ESTORE)
		verifying->stopped = rc;
	if (verifying->stopped)
		return;
	if (rc)
		table_damage(verifying, table, segue_error_detail());
	else if (SEGUE_MUTANT(tally_not_checked) || verifying->walk.damaged != before)
		return;
	else if (verifying->counted != tally->tables[table].count)
		table_damage(verifying, table, "values are missing, or there are too many");
	else if (verifying->sums != tally->tables[table].sums)
		table_damage(verifying, table, "a value is not the last that was written");
}

static int verify_tables(struct verifying *verifying)
{
	const struct segue_store *store = verifying->store;
	struct segue_lmdb_tally tally;

	int rc = segue_lmdb_get_tally(verifying->store, verifying->txn, 0, &tally);
	if (rc)
		return segue_lmdb_fail(store, rc, "read");
	rc = read_free_pages(verifying);
	if (rc)
		return rc;
	for (int table = SEGUE_TABLE_META; !verifying->stopped && table < SEGUE_TABLE_COUNT;
		table++)
		verify_table(verifying, (enum segue_table)table, &tally);
	if (verifying->stopped)
		return verifying->stopped;
	if (verifying->overlaps && !verifying->walk.damaged)
		table_damage(verifying, SEGUE_TABLE_META, "pages in use are listed as free");
	if (verifying->walk.damaged)
		return segue_fail(SEGUE_ESTORE,
			"%s is damaged in %" PRIu64 " place%s (%" PRIu64 " value%s sound)",
			store->file, verifying->walk.damaged,
			verifying->walk.damaged == 1 ? "" : "s", verifying->values,
			verifying->values == 1 ? " is" : "s are");
	return 0;
}

static int verify_snapshot(struct verifying *verifying)
{
	int rc = segue_lmdb_snapshot(verifying->store, &verifying->txn);

	if (rc)
		return segue_lmdb_fail(verifying->store, rc, "read");
	rc = verify_tables(verifying);
	mdb_txn_abort(verifying->txn);
	free(verifying->free_pages);
	return rc;
}

static void ignore_damage(
	void *arg, enum segue_table table, const void *key, size_t key_size, const char *why)
{
	(void)arg, (void)table, (void)key, (void)key_size, (void)why;
}

int segue_store_inspect(const char *dir, const struct segue_store_inspection *inspection,
	struct segue_store_verified *verified)
{
	struct segue_store *store;

	const struct segue_lmdb_opening opening = {
		.mode = SEGUE_STORE_READ, .unlocked = true, .uncached = inspection->if_due};
	int rc = segue_lmdb_open(dir, &opening, &store);
	if (rc)
		return rc;
	struct verifying verifying = {
		.walk = {.visit = visit_value,
			.examine = examine,
			.damage = inspection->damage ? inspection->damage : ignore_damage,
			.arg = inspection->arg},
		.store = store,
		.inspection = inspection,
		.progress = {.fn = inspection->progress,
			.arg = inspection->arg,
			.what = "verifying the store",
			.total = segue_lmdb_used_bytes(store)},
	};
	bool due = !store->was_clean && !store->same_boot;
	if (!inspection->if_due || due)
		rc = verify_snapshot(&verifying);
	*verified = (struct segue_store_verified){.values = verifying.values,
		.bytes = verifying.bytes,
		.damaged = verifying.walk.damaged,
		.due = due};
	segue_store_close(store);
	return rc;
}

int segue_store_verify(const char *dir, segue_store_damage_fn *damage, void *arg,
	struct segue_store_verified *verified)
{
	const struct segue_store_inspection inspection = {.damage = damage, .arg = arg};

	return segue_store_inspect(dir, &inspection, verified);
}
