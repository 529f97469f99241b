/* Writing: transactions, the mark of a clean end, what a failed write leaves behind. */
#include "store/lmdb_inside.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/error.h"

#define READER_CHECKS 256 /* transactions between two looks for dead readers */

void segue_lmdb_unpin(struct segue_store *store)
{
	pthread_mutex_lock(&store->pin_lock);
	mdb_txn_abort(store->pin);
	store->pin = NULL;
	pthread_mutex_unlock(&store->pin_lock);
}

/* False once LMDB has lost track of its meta page. */
static bool can_begin(const struct segue_store *store)
{
	MDB_txn *txn;
	if (mdb_txn_begin(store->env, NULL, 0, &txn))
		return false;
	mdb_txn_abort(txn);
	return true;
}

/* The transaction is over; decides whether there may be another. */
static int fail_write(struct segue_store *store, int code, bool committing)
{
	bool full = code == ENOSPC || code == EDQUOT || code == EFBIG || code == MDB_MAP_FULL;
	if (code == EIO && segue_lmdb_is_full(store->env)) {
		full = true;
		code = ENOSPC;
	}
	/* LMDB needs memory only before it writes: nothing of this transaction is in force. */
	if ((full || code == ENOMEM) && can_begin(store))
		return segue_lmdb_fail(store, code, "write");
	bool passes = code == ENOMEM || code == MDB_TXN_FULL || code == MDB_READERS_FULL;
	if (!committing && passes)
		return segue_lmdb_fail(store, code, "write");
	store->failed = !SEGUE_MUTANT(goes_on_after_failure);
	/* The system may show what never reached the disk until the machine stops: be that seen. */
	int mark = openat(store->dir_fd, SEGUE_STORE_SUSPECT,
		O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (mark >= 0)
		close(mark);
	return segue_fail(SEGUE_ESTORE,
		"cannot write %s: %s; %s: the store takes no more until the server is started "
		"again",
		store->file, mdb_strerror(code),
		committing ? "whether the last write took place is not known"
			   : "nothing of this write took place");
}

/* Commits while a snapshot of the state before is held. The end of `txn`. */
static int commit(struct segue_store *store, MDB_txn *txn)
{
	MDB_txn *pin;
	int rc = segue_lmdb_snapshot(store, &pin);
	if (rc) {
		mdb_txn_abort(txn);
		return fail_write(store, rc, false);
	}
	pthread_mutex_lock(&store->pin_lock);
	store->pin = pin;
	pthread_mutex_unlock(&store->pin_lock);
	rc = mdb_txn_commit(txn);
	if (!rc || can_begin(store))
		segue_lmdb_unpin(store);
	return rc ? fail_write(store, rc, true) : 0;
}

/*
 * One transaction: what `fill` does (a code), and the tally that it leaves. On disk when this
 * returns.
 */
static int transact(struct segue_store *store,
	int (*fill)(
		struct segue_store *store, MDB_txn *txn, struct segue_lmdb_tally *tally, void *arg),
	void *arg)
{
	MDB_txn *txn;
	struct segue_lmdb_tally tally;
	int rc = mdb_txn_begin(store->env, NULL, 0, &txn);
	if (rc)
		return fail_write(store, rc, false);
	rc = segue_lmdb_get_tally(store, txn, 1, &tally);
	if (!rc)
		rc = fill(store, txn, &tally, arg);
	if (!rc)
		rc = segue_lmdb_put_tally(store, txn, &tally);
	if (rc) {
		mdb_txn_abort(txn);
		return fail_write(store, rc, false);
	}
	return commit(store, txn);
}

/* ---- The mark ---- */

static int put_mark(
	struct segue_store *store, MDB_txn *txn, struct segue_lmdb_tally *tally, void *arg)
{
	(void)tally;
	return segue_lmdb_put_property(
		store, txn, SEGUE_LMDB_MARK, arg, sizeof(struct segue_lmdb_mark));
}

int segue_lmdb_write_mark(struct segue_store *store, bool clean)
{
	struct segue_lmdb_mark mark = {.clean = clean};
	segue_lmdb_read_boot(mark.boot);
	int rc = transact(store, put_mark, &mark);
	store->trusted = store->trusted || !rc;
	return rc;
}

static int check_writable(const struct segue_store *store)
{
	return store->mode == SEGUE_STORE_READ
		       ? segue_fail(SEGUE_EREADONLY, "the store of %s is open to read", store->dir)
		       : 0;
}

int segue_store_trust(struct segue_store *store)
{
	int rc = check_writable(store);
	if (!rc && !store->trusted)
		rc = segue_lmdb_write_mark(store, false);
	if (!rc)
		unlinkat(store->dir_fd, SEGUE_STORE_SUSPECT, 0);
	return rc;
}

/* ---- Operations ---- */

/* Takes the value under the key, if there is one, out of the tally. 0, MDB_NOTFOUND or a code. */
static int tally_out(struct segue_store *store, MDB_txn *txn, enum segue_table table, MDB_val *key,
	struct segue_lmdb_tally *tally)
{
	MDB_val data;
	struct segue_lmdb_header header;
	int rc = segue_lmdb_get(txn, store->tables[table], key, &data);
	if (rc)
		return rc;
	if (data.mv_size < sizeof(header))
		return MDB_CORRUPTED;
	memcpy(&header, data.mv_data, sizeof(header));
	tally->tables[table].count--;
	tally->tables[table].sums -= header.sum;
	return 0;
}

static int apply_put(struct segue_store *store, MDB_txn *txn, const struct segue_store_op *op,
	struct segue_lmdb_tally *tally)
{
	uint64_t sum = 0;
	MDB_val key = {op->key_size, (void *)(uintptr_t)op->key};
	int rc = tally_out(store, txn, op->table, &key, tally);
	if (rc && rc != MDB_NOTFOUND)
		return rc;
	rc = segue_lmdb_put_value(store, txn, op, &sum);
	tally->tables[op->table].count++;
	tally->tables[op->table].sums += sum;
	return rc;
}

/* 0, MDB_NOTFOUND or another code. */
static int remove_key(struct segue_store *store, MDB_txn *txn, enum segue_table table, MDB_val *key,
	struct segue_lmdb_tally *tally)
{
	int rc = tally_out(store, txn, table, key, tally);
	return rc ? rc : mdb_del(txn, store->tables[table], key, NULL);
}

static int apply_remove(struct segue_store *store, MDB_txn *txn, const struct segue_store_op *op,
	struct segue_lmdb_tally *tally)
{
	MDB_val key = {op->key_size, (void *)(uintptr_t)op->key};
	int rc = remove_key(store, txn, op->table, &key, tally);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

/* LMDB's order of keys. */
static bool sorts_below(const MDB_val *key, const void *other, size_t size)
{
	size_t common = key->mv_size < size ? key->mv_size : size;
	int order = memcmp(key->mv_data, other, common);

	return order < 0 || (order == 0 && key->mv_size < size);
}

/*
 * Every key that begins with `key`, or, with `shared`, those that begin as it does, below it: up to
 * the limit.
 */
static int apply_remove_range(struct segue_store *store, MDB_txn *txn,
	const struct segue_store_op *op, struct segue_lmdb_tally *tally)
{
	size_t prefix = op->prefix ? op->key_size : op->shared;
	MDB_cursor *cursor;
	int rc = mdb_cursor_open(txn, store->tables[op->table], &cursor);
	if (rc)
		return rc;
	for (size_t count = 0; !op->limit || count < op->limit; count++) {
		MDB_val key = {prefix, (void *)(uintptr_t)op->key}, data;
		rc = segue_lmdb_cursor_get(cursor, &key, &data, MDB_SET_RANGE);
		if (rc || !segue_lmdb_has_prefix(&key, op->key, prefix) ||
			(!op->prefix && !sorts_below(&key, op->key, op->key_size)))
			break;
		/* a write may move the page that the key lies on */
		char copy[SEGUE_STORE_KEY_MAX];
		if (key.mv_size > sizeof(copy)) {
			rc = MDB_CORRUPTED;
			break;
		}
		memcpy(copy, key.mv_data, key.mv_size);
		key.mv_data = copy;
		rc = remove_key(store, txn, op->table, &key, tally);
		if (rc == MDB_NOTFOUND) /* a branch leads past it: it would be met for ever */
			rc = MDB_CORRUPTED;
		if (rc)
			break;
	}
	mdb_cursor_close(cursor);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

struct order {
	const struct segue_store_op *ops;
	size_t count;
	uint64_t bytes; /* that were put */
};

static int apply_ops(
	struct segue_store *store, MDB_txn *txn, struct segue_lmdb_tally *tally, void *arg)
{
	struct order *order = arg;
	int rc = 0;
	for (size_t i = 0; !rc && i < order->count; i++) {
		const struct segue_store_op *op = &order->ops[i];
		if (!op->remove) {
			rc = apply_put(store, txn, op, tally);
			order->bytes += op->value_size;
		} else if (op->prefix || op->shared) {
			rc = apply_remove_range(store, txn, op, tally);
		} else {
			rc = apply_remove(store, txn, op, tally);
		}
	}
	return rc;
}

static int check_ops(const struct segue_store_op *ops, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct segue_store_op *op = &ops[i];
		int rc = segue_lmdb_check_key(op->table, op->key, op->key_size);
		if (rc)
			return segue_fail_within(rc, "operation %zu", i);
		if (op->remove && op->shared && (op->prefix || op->shared > op->key_size))
			return segue_fail(SEGUE_EINVAL,
				"operation %zu: a range is given by %zu bytes of a key of %zu", i,
				op->shared, op->key_size);
		bool range = op->remove && (op->prefix || op->shared);
		if (op->limit && !range)
			return segue_fail(SEGUE_EINVAL,
				"operation %zu: a limit of %zu keys, and no range is removed", i,
				op->limit);
		size_t fixed = op->remove && op->shared ? op->shared : op->key_size;
		if (segue_lmdb_is_reserved(op->table, range, op->key, fixed))
			return segue_fail(SEGUE_EINVAL,
				"operation %zu: keys of table meta that begin with '%s' are the "
				"store's own",
				i, SEGUE_STORE_RESERVED);
		if (!op->remove &&
			((!op->value && op->value_size) || op->value_size > SEGUE_STORE_VALUE_MAX))
			return segue_fail(SEGUE_EINVAL,
				"operation %zu: a value of %zu bytes; at most %u are stored", i,
				op->value_size, SEGUE_STORE_VALUE_MAX);
	}
	return 0;
}

int segue_store_apply(struct segue_store *store, const struct segue_store_op *ops, size_t count)
{
	struct order order = {.ops = ops, .count = count};
	int dead;
	int rc = check_ops(ops, count);
	if (rc || count == 0)
		return rc;
	rc = check_writable(store);
	if (rc)
		return rc;
	if (store->failed)
		return segue_fail(SEGUE_ESTORE,
			"an earlier write to %s failed: the store takes no more until the server "
			"is started again",
			store->file);
	rc = segue_store_look(store);
	if (!rc)
		rc = transact(store, apply_ops, &order);
	if (!rc)
		rc = segue_store_look(store);
	if (rc)
		return rc;
	store->bytes_put += order.bytes;
	if (++store->transactions % READER_CHECKS == 0)
		mdb_reader_check(store->env, &dead); /* a dead reader would pin old pages */
	return 0;
}
