/*
 * The store: tables of checked values on disk. What is in a value is its writer's affair
 * (key.h lists them).
 *
 * One process opens a store, once, and holds its lock; one thread writes (segue_store_apply), any
 * thread reads: 48 at once, others wait for one of these, and never for the writer. A write is one
 * transaction, on disk when it returns. Each value carries a header (magic, format, table, length)
 * and an XXH3-64 over header, table, key and payload, so that damage, swapped and stale pages are
 * seen. The only implementation is lmdb*.c.
 */
#ifndef SEGUE_STORE_STORE_H
#define SEGUE_STORE_STORE_H

#include "segue/segue.h"

#define SEGUE_STORE_FORMAT  4
#define SEGUE_STORE_KEY_MAX 64

/*
 * The largest value; cut what is larger. On disk a value takes 24 bytes more: up to 1976 bytes
 * share a page, and 4096 n - 40 bytes (4056, 8152, ...) fill n pages without waste.
 */
#define SEGUE_STORE_VALUE_MAX (UINT32_C(1) << 30)

/*
 * This file in the directory says that the store must be verified before it is served again,
 * whatever the last end was: a write failed, or reading the file raised SIGBUS. Made by the store,
 * or by a signal handler; segue_store_trust() removes it.
 */
#define SEGUE_STORE_SUSPECT "suspect"

/* What messages about damage end with: of open, serve, get and scan; not of inspections. */
#define SEGUE_STORE_ADVICE "; the file is kept: restore a backup, or move it away"

/* Keys of SEGUE_TABLE_META that begin with this are the store's own: nobody else writes them. */
#define SEGUE_STORE_RESERVED "store."

/* Tables; the numbers are stored. */
enum segue_table {
	SEGUE_TABLE_META = 1,    /* text name -> properties of the store */
	SEGUE_TABLE_STREAMS = 2, /* stream name -> spec, id, fingerprint */
	SEGUE_TABLE_LANES = 3,   /* stream, group, lane -> lease and position */
	SEGUE_TABLE_STATES = 4,  /* stream, group, lane, sequence number -> states of a live row */
	SEGUE_TABLE_FINALS = 5,  /* versions of the states after a last segment, by record key */
	SEGUE_TABLE_INDEX = 6,   /* name, part -> pieces of a data set's index */
	SEGUE_TABLE_UNDO = 7,    /* stream, group, lane, step, number -> which version came then */
	SEGUE_TABLE_CHECKPOINTS = 8, /* stream, group, lane -> catalogue; and id -> token */
	SEGUE_TABLE_COUNT = 9
};

/* What messages and reports call a table; static. `table` is one of the above. */
const char *segue_table_name(enum segue_table table);

struct segue_store;

enum segue_store_mode {
	SEGUE_STORE_SERVE = 0, /* create if need be, read and write */
	SEGUE_STORE_READ =
		1, /* existing store, no writes; for the command line when no server runs */
};

/*
 * Opens the store in `dir` (dir/store/data.mdb); SERVE creates it, and `dir` too: in a temporary
 * directory beside it, first transaction on disk, renamed, parent synced; what a killed creation
 * left is removed. Takes an flock on the directory `dir` and on data.mdb for its life, exclusive to
 * serve, shared to read: SEGUE_EBUSY names the holder's pid if a server has the directory. Within
 * one process the second open of either is SEGUE_EBUSY too. The map is fixed: 1 TiB of address
 * space, halved until it fits (RLIMIT_AS).
 *
 * After an end without order and another boot, or a write that failed (stats: was_clean and
 * same_boot both false) the file is not known to be whole: have segue_store_serve() verify it
 * before it is opened, then say segue_store_trust(); nothing is written before. A file cut short
 * can raise SIGBUS here as in any other call.
 *
 * SEGUE_ESTORE (damaged: names the file, which is kept), SEGUE_EFORMAT (another format, or another
 * kind of machine), SEGUE_EREADONLY, SEGUE_ENOSPACE, SEGUE_ENOTFOUND (READ: no store there),
 * SEGUE_ESYSTEM (a file system that other machines may share, see file_system.h; a link, or another
 * user's file, in the place of one of the store's; ...).
 */
int segue_store_open(const char *dir, enum segue_store_mode mode, struct segue_store **out);
struct segue_store_serving {
	/*
	 * If there is a store already, called with the lock held, before this process touches the
	 * file: the place for segue_store_inspect() in a child process, with `if_due`. What it
	 * returns, if not 0, ends the opening. May be NULL.
	 */
	int (*check)(void *arg);
	void *arg;
	uint64_t map_bytes; /* the file cannot grow beyond; 0: 1 TiB */
	/* The path by which others open it, which may lead through links; NULL: `dir`. */
	const char *named;
};
/* segue_store_open() to serve, with these. */
int segue_store_serve(
	const char *dir, const struct segue_store_serving *serving, struct segue_store **out);
/* Closes and lets the lock go. Writes a mark of a clean end, unless a write failed. NULL is fine.
 */
void segue_store_close(struct segue_store *store);

struct segue_store_op {
	enum segue_table table;
	bool remove; /* else put; removing what is not there is fine */
	bool prefix; /* remove: every key that begins with `key` */
	/* remove, if not 0: every key that begins as `key` in so many bytes, and sorts below it */
	size_t shared;
	size_t limit; /* removing a range: at most so many keys, the lowest; 0: all */
	const void *key;
	size_t key_size; /* 1..SEGUE_STORE_KEY_MAX */
	const void *value;
	size_t value_size;
};

/*
 * All of them in one transaction, in this order, or none. Blocks until on disk. SEGUE_ENOSPACE (the
 * store is as before and may be written again when there is room); SEGUE_EINVAL, SEGUE_EREADONLY,
 * SEGUE_ENOMEM, SEGUE_ELIMIT (too much for one transaction): the store is as before; any other
 * error: the outcome is unknown, the store refuses further writes (each returns SEGUE_ESTORE) until
 * it is opened again. Reads go on in all cases.
 *
 * Before and after it segue_store_look(): with SEGUE_EMOVED nothing was written, or what was leads
 * nowhere; all of it may be written again when the store is back in its place.
 */
int segue_store_apply(struct segue_store *store, const struct segue_store_op *ops, size_t count);

/*
 * Whether the path of the directory, as it was named, leads to the very files that are open: three
 * system calls; any thread. SEGUE_EMOVED says which of them was removed, moved (whereto) or
 * replaced, and what to do.
 */
int segue_store_look(const struct segue_store *store);

/*
 * The file was verified (segue_store_verify() in a child process): from now on an end without order
 * in this boot is no reason to verify it again. Does nothing if no verification was due. Fails like
 * segue_store_apply().
 */
int segue_store_trust(struct segue_store *store);

/*
 * A copy of the value, malloc'd (segue_free()). SEGUE_ENOTFOUND; SEGUE_ESTORE names table and key
 * if the checksum is wrong. A damaged *key* is not found here: where a value must exist,
 * SEGUE_ENOTFOUND is damage.
 */
int segue_store_get(struct segue_store *store, enum segue_table table, const void *key,
	size_t key_size, void **value, size_t *value_size);

/*
 * Visits all values of a table whose key begins with `prefix`, in key order, from one snapshot. The
 * pointers die when the visitor returns; it must not call the store. A non-zero result ends the
 * walk and is returned. `damage` (may be NULL: then the first damaged value ends the walk with
 * SEGUE_ESTORE) is called for values whose checksum is wrong; keys out of order end the walk with
 * SEGUE_ESTORE in any case. The store's own values in META are not visited.
 */
typedef int segue_store_visit_fn(
	void *arg, const void *key, size_t key_size, const void *value, size_t value_size);
typedef void segue_store_damage_fn(
	void *arg, enum segue_table table, const void *key, size_t key_size, const char *why);
int segue_store_scan(struct segue_store *store, enum segue_table table, const void *prefix,
	size_t prefix_size, segue_store_visit_fn *visit, segue_store_damage_fn *damage, void *arg);
/* The same from `from` on, a key that begins with the prefix; the first damaged value ends it. */
int segue_store_scan_from(struct segue_store *store, enum segue_table table, const void *from,
	size_t from_size, size_t prefix_size, segue_store_visit_fn *visit, void *arg);

struct segue_store_stats {
	uint64_t transactions, bytes_put; /* since it was opened: payload bytes */
	uint64_t file_bytes;              /* of data.mdb */
	uint64_t map_bytes, used_bytes;   /* address space; pages in use */
	bool was_clean;                   /* the last server ended in order */
	bool same_boot;                   /* ... or died since this machine started */
	uint64_t created_ns;              /* when the store was made; nanoseconds since 1970 */
	const char *lmdb_version;
};
void segue_store_stats(const struct segue_store *store, struct segue_store_stats *stats);

struct segue_store_verified {
	uint64_t values, bytes; /* sound values; their payload */
	uint64_t damaged;       /* calls of `damage` */
	bool due;               /* the last end made it necessary (segue_store_open) */
};

/*
 * Reads every value of the store in `dir`, from one snapshot, and checks it: its checksum, the
 * order of keys, and that the values of each table add up to what was written (a value that is
 * missing, or is an older one, is seen so). `damage` (may be NULL) is told of each fault; key is
 * NULL where a whole table is meant. 0 if all is sound; SEGUE_ESTORE if not. `verified` is written
 * once the store is open. Else fails like segue_store_open() to read.
 *
 * Takes no lock, so that it can run beside a server, but not in the process that has the store open
 * (SEGUE_EBUSY). Run it in a process of its own: on a damaged file, or one cut short, LMDB may end
 * the process by SIGBUS, SIGSEGV or SIGABRT. Such an end is a verdict: damaged. An end by SIGKILL
 * or the like is none.
 */
int segue_store_verify(const char *dir, segue_store_damage_fn *damage, void *arg,
	struct segue_store_verified *verified);

/* What an inspection is to do beside checking. */
struct segue_store_inspection {
	segue_store_damage_fn *damage; /* may be NULL */
	/* Of each sound value, in order; rules as in segue_store_scan(). Or NULL. */
	int (*visit)(void *arg, enum segue_table table, const void *key, size_t key_size,
		const void *value, size_t value_size);
	segue_progress_fn *progress; /* in bytes, about; or NULL */
	void *arg;
	bool if_due; /* nothing is read, and the store is sound, if no verification is due */
};

/* segue_store_verify(), with all of this. A result of `visit` that is not 0 is returned. */
int segue_store_inspect(const char *dir, const struct segue_store_inspection *inspection,
	struct segue_store_verified *verified);

#endif
