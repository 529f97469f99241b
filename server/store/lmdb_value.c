/* Values: sealed, checked, counted; what their errors mean. */
#include "store/lmdb_inside.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/barrier.h"
#include "core/error.h"

#define VALUE_MAGIC  0x31564753u /* "SGV1" */
#define KEY_TEXT_MAX (2 * SEGUE_STORE_KEY_MAX + 3)

static const char *const table_names[SEGUE_TABLE_COUNT] = {
	[SEGUE_TABLE_META] = "meta",
	[SEGUE_TABLE_STREAMS] = "streams",
	[SEGUE_TABLE_LANES] = "lanes",
	[SEGUE_TABLE_STATES] = "states",
	[SEGUE_TABLE_FINALS] = "finals",
	[SEGUE_TABLE_INDEX] = "index",
	[SEGUE_TABLE_UNDO] = "undo",
	[SEGUE_TABLE_CHECKPOINTS] = "checkpoints",
};

const char *segue_table_name(enum segue_table table)
{
	return table_names[table];
}

/* ---- Errors ---- */

int segue_lmdb_fail(const struct segue_store *store, int code, const char *doing)
{
	switch (code) {
	case MDB_MAP_FULL:
		return segue_fail(SEGUE_ENOSPACE,
			"cannot %s %s: its map of %" PRIu64 " MiB is full: start the server with a "
			"greater --map-size, or without one (a limit on address space, RLIMIT_AS, "
			"makes the map small too)",
			doing, store->file, store->map_bytes >> 20);
	case ENOENT: /* data.mdb itself has been found before */
		return segue_fail(SEGUE_ESYSTEM,
			"cannot %s %s: %s: its directory is named by /proc/self/fd; is /proc "
			"mounted?",
			doing, store->file, mdb_strerror(code));
	case MDB_TXN_FULL:
		return segue_fail(SEGUE_ELIMIT,
			"cannot %s %s: too much for one transaction; give a smaller batch_size, "
			"and more lanes",
			doing, store->file);
	case ENOSPC:
	case EDQUOT:
		return segue_fail(SEGUE_ENOSPACE, "cannot %s %s: %s; make room and go on", doing,
			store->file, mdb_strerror(code));
	case EFBIG:
		return segue_fail(SEGUE_ENOSPACE,
			"cannot %s %s: %s; make room (ulimit -f, LimitFSIZE= of the service) and "
			"go on",
			doing, store->file, mdb_strerror(code));
	case EROFS:
	case EACCES:
	case EPERM:
		return segue_fail(SEGUE_EREADONLY, "cannot %s %s: %s", doing, store->file,
			mdb_strerror(code));
	case ENOMEM:
	case MDB_READERS_FULL: /* of other processes: they end */
		return segue_fail(
			SEGUE_ENOMEM, "cannot %s %s: %s", doing, store->file, mdb_strerror(code));
	default:
		if (code > 0 && code != EIO)
			return segue_fail(SEGUE_ESYSTEM, "cannot %s %s: %s", doing, store->file,
				mdb_strerror(code));
		return segue_fail(
			SEGUE_ESTORE, "cannot %s %s: %s", doing, store->file, mdb_strerror(code));
	}
}

int segue_lmdb_fail_damaged(const struct segue_store *store, const char *what)
{
	return segue_fail(SEGUE_ESTORE, "%s is damaged: %s", store->file, what);
}

int segue_lmdb_advise(int rc)
{
	return rc == SEGUE_ESTORE ? segue_fail(rc, "%s" SEGUE_STORE_ADVICE, segue_error_detail())
				  : rc;
}

/* A key for a message: as text if it is one, else in hexadecimal. */
static const char *key_text(const void *key, size_t size, char text[KEY_TEXT_MAX])
{
	const unsigned char *bytes = key;
	bool printable = true;
	for (size_t i = 0; i < size; i++)
		printable = printable && bytes[i] > ' ' && bytes[i] < 127;
	if (printable) {
		snprintf(text, KEY_TEXT_MAX, "%.*s", (int)size, (const char *)key);
		return text;
	}
	snprintf(text, KEY_TEXT_MAX, "0x");
	for (size_t i = 0; i < size; i++)
		snprintf(text + 2 + 2 * i, 3, "%02x", bytes[i]);
	return text;
}

int segue_lmdb_fail_value(const struct segue_store *store, enum segue_table table, const void *key,
	size_t key_size, const char *why)
{
	char text[KEY_TEXT_MAX];
	return segue_fail(SEGUE_ESTORE, "the value of key %s in table %s of %s is damaged: %s",
		key_text(key, key_size, text), segue_table_name(table), store->file, why);
}

int segue_lmdb_fail_missing(enum segue_table table, const void *key, size_t key_size)
{
	char text[KEY_TEXT_MAX];
	return segue_fail(SEGUE_ENOTFOUND, "there is no key %s in table %s",
		key_text(key, key_size, text), segue_table_name(table));
}

/* ---- Keys and values ---- */

int segue_lmdb_check_key(enum segue_table table, const void *key, size_t size)
{
	if (table < SEGUE_TABLE_META || table >= SEGUE_TABLE_COUNT)
		return segue_fail(SEGUE_EINVAL, "there is no table %d", (int)table);
	if (!key || size < 1 || size > SEGUE_STORE_KEY_MAX)
		return segue_fail(SEGUE_EINVAL, "a key of table %s has %zu bytes, not 1 to %d",
			segue_table_name(table), size, SEGUE_STORE_KEY_MAX);
	return 0;
}

bool segue_lmdb_is_reserved(enum segue_table table, bool prefix, const void *key, size_t size)
{
	size_t own = strlen(SEGUE_STORE_RESERVED);
	if (table != SEGUE_TABLE_META || (size < own && !prefix))
		return false;
	return memcmp(key, SEGUE_STORE_RESERVED, size < own ? size : own) == 0;
}

static uint64_t seal_of(const struct segue_lmdb_header *header, const void *key, size_t key_size,
	const void *payload)
{
	XXH3_state_t state;
	XXH3_64bits_reset(&state);
	XXH3_64bits_update(&state, header, offsetof(struct segue_lmdb_header, sum));
	if (!SEGUE_MUTANT(key_not_in_sum))
		XXH3_64bits_update(&state, key, key_size);
	XXH3_64bits_update(&state, payload, (size_t)header->length);
	return XXH3_64bits_digest(&state);
}

const char *segue_lmdb_check_value(enum segue_table table, const void *key, size_t key_size,
	const MDB_val *data, struct segue_lmdb_header *header)
{
	if (data->mv_size < sizeof(*header))
		return "it is shorter than its header";
	memcpy(header, data->mv_data, sizeof(*header));
	if (header->magic != VALUE_MAGIC)
		return "it does not begin as a value does";
	if (header->table != table)
		return "it belongs to another table";
	if (header->length != data->mv_size - sizeof(*header))
		return "its length is wrong";
	if (!SEGUE_MUTANT(sum_not_checked) &&
		header->sum != seal_of(header, key, key_size,
				       (const char *)data->mv_data + sizeof(*header)))
		return "its checksum is wrong";
	return NULL;
}

int segue_lmdb_put_value(
	struct segue_store *store, MDB_txn *txn, const struct segue_store_op *op, uint64_t *sum)
{
	struct segue_lmdb_header header = {
		.magic = VALUE_MAGIC,
		.format = SEGUE_STORE_FORMAT,
		.table = (uint16_t)op->table,
		.length = op->value_size,
	};
	header.sum = seal_of(&header, op->key, op->key_size, op->value);
	MDB_val key = {op->key_size, (void *)(uintptr_t)op->key};
	MDB_val data = {sizeof(header) + op->value_size, NULL};
	int rc = mdb_put(txn, store->tables[op->table], &key, &data, MDB_RESERVE);
	if (rc)
		return rc;
	memcpy(data.mv_data, &header, sizeof(header));
	if (op->value_size)
		memcpy((char *)data.mv_data + sizeof(header), op->value, op->value_size);
	*sum = header.sum;
	return 0;
}

int segue_lmdb_put_property(struct segue_store *store, MDB_txn *txn, const char *name,
	const void *property, size_t size)
{
	uint64_t sum;
	struct segue_store_op op = {
		.table = SEGUE_TABLE_META,
		.key = name,
		.key_size = strlen(name),
		.value = property,
		.value_size = size,
	};
	return segue_lmdb_put_value(store, txn, &op, &sum);
}

int segue_lmdb_get(MDB_txn *txn, MDB_dbi table, MDB_val *key, MDB_val *data)
{
	*data = (MDB_val){0, NULL};
	return mdb_get(txn, table, key, data);
}

int segue_lmdb_cursor_get(MDB_cursor *cursor, MDB_val *key, MDB_val *data, MDB_cursor_op where)
{
	*data = (MDB_val){0, NULL};
	return mdb_cursor_get(cursor, key, data, where);
}

int segue_lmdb_get_property(
	struct segue_store *store, MDB_txn *txn, const char *name, void *property, size_t size)
{
	struct segue_lmdb_header header;
	MDB_val key = {strlen(name), (void *)(uintptr_t)name}, data;
	int rc = segue_lmdb_get(txn, store->tables[SEGUE_TABLE_META], &key, &data);
	if (rc)
		return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
	if (segue_lmdb_check_value(SEGUE_TABLE_META, name, key.mv_size, &data, &header) ||
		header.length < size)
		return MDB_CORRUPTED;
	memcpy(property, (const char *)data.mv_data + sizeof(header), size);
	return 0;
}

int segue_lmdb_get_tally(
	struct segue_store *store, MDB_txn *txn, uint64_t ago, struct segue_lmdb_tally *tally)
{
	int rc = segue_lmdb_get_property(store, txn, SEGUE_LMDB_TALLY, tally, sizeof(*tally));
	return !rc && tally->transaction + ago != mdb_txn_id(txn) ? MDB_CORRUPTED : rc;
}

int segue_lmdb_put_tally(struct segue_store *store, MDB_txn *txn, struct segue_lmdb_tally *tally)
{
	tally->transaction = mdb_txn_id(txn);
	return segue_lmdb_put_property(store, txn, SEGUE_LMDB_TALLY, tally, sizeof(*tally));
}
